"""The default scores and number of pictures of a judgement, and the passes of the model that it takes."""

from collections.abc import Sequence

from seglens.arguments import checked
from seglens.arguments.inputs import names_of
from seglens.arguments.renamed import renamed
from seglens.data.layout import Split
from seglens.explain.methods import Method, methods_of, sorted_out
from seglens.explain.plan import count
from seglens.folder.chunks import CHUNK, choose
from seglens.folder.planning import first_chunk
from seglens.folder.request import class_index_of, targets_of, with_references_of
from seglens.judge.case import CHEAP, SCORES, JudgeSettings
from seglens.judge.costs import JudgePlan, count_scores
from seglens.judge.definitions import CLAIM_IMAGES
from seglens.models.layers import resolve
from seglens.runs import Run

ALL = "all"
"""Stands for every score."""

ON_CPU = 16
"""Pictures that are judged on a CPU: enough for an indication, in a few minutes."""


def chosen_scores(names: Sequence[str] | None, device: str) -> tuple[str, ...]:
    """Return the scores called ``names`` (``all`` of them), or what ``device`` makes in a few minutes."""
    if names and ALL in names:
        return SCORES
    return tuple(names) if names else CHEAP if device == "cpu" else SCORES


def num_images_of(num: int | None, device: str) -> int:
    """Return how many pictures are judged: what was asked for, else enough for a claim, or few on a CPU."""
    return num if num is not None else ON_CPU if device == "cpu" else CLAIM_IMAGES


@renamed(chunk="batch_size")
@checked
def plan_judging(
    run: Run,
    split: Split,
    *,
    methods: Method | Sequence[Method] = ("grad-cam",),
    layers: str | Sequence[str] = ("encoder_last", "decoder_last"),
    target: str = "predicted",
    class_name: str | None = None,
    num_images: int | None = None,
    judging: JudgeSettings | None = None,
    seed: int = 0,
    batch_size: int = CHUNK,
) -> JudgePlan:
    """Count the passes of `judge_folder` with these arguments, for every score, asked for or not.

    Raises:
        UnknownNameError, SettingError, DataError: as `judge_folder`.
    """
    chosen = choose(split, None, num_images)
    class_index = class_index_of(run, class_name)
    needed = sorted_out(with_references_of(run, chosen, methods_of(methods), seed))
    layers = names_of(layers) if needed.need_layers else ()
    resolve(run.segmenter, layers)
    first = first_chunk(run, chosen, (target,), 1)
    targets_of(run, first, (target,), class_index)  # A target that can't be is an error before any work.
    images = first.batch.images
    passes = count(run, needed, layers, images, 1, len(chosen), batch_size)
    num_maps = len(layers) * (len(needed.cams) + len(needed.on_layers))
    num_maps += len(needed.gradients) + len(needed.on_input)
    making = sum(entry.forwards for entry in passes)
    return count_scores(num_maps, making, judging or JudgeSettings(), len(chosen))

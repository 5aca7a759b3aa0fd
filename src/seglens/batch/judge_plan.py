"""How many pictures are judged by which scores where nobody said, and what that will take."""

from collections.abc import Sequence

from seglens.arguments import checked
from seglens.arguments.inputs import names_of
from seglens.arguments.renamed import renamed
from seglens.batch.asking import class_index_of, targets_of, with_references_of
from seglens.batch.chunks import CHUNK, Failure, choose, read_chunks, refuse_none_done
from seglens.data.layout import Split
from seglens.explain.methods import Method, methods_of
from seglens.judge.case import CHEAP, SCORES, JudgeSettings
from seglens.judge.costs import JudgePlan, plan_scores
from seglens.judge.definitions import CLAIM_IMAGES
from seglens.runs import Run

ALL = "all"
"""Stands for every score."""

ON_CPU = 16
"""Pictures that are judged on a CPU: enough for an indication, in a few minutes."""

FEW = 2
"""Pictures on which it is measured what judging takes."""


def scores_of(names: Sequence[str] | None, device: str) -> tuple[str, ...]:
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
    """Say what `judge_folder` would take with these arguments, for every score, asked for or not.

    Raises:
        UnknownNameError, SettingError, DataError: as `judge_folder`.
    """
    chosen = choose(split, None, num_images)
    layers = names_of(layers)
    methods = with_references_of(run, chosen, methods_of(methods), seed)
    failed: list[Failure] = []
    few = chosen.select(list(range(min(FEW, len(chosen)))))
    for pictures in (few, chosen):
        for part in read_chunks(run, pictures, most=FEW, failed=failed, targets=(target,), what="planning"):
            (aim,) = targets_of(run, part, (target,), class_index_of(run, class_name))
            return plan_scores(
                run,
                part.batch.images,
                aim,
                part.batch.valid,
                methods=methods,
                layers=layers,
                settings=judging or JudgeSettings(),
                num_images=len(chosen),
                seed=seed,
                batch_size=batch_size,
            )
    refuse_none_done(0, failed)
    raise AssertionError("refuse_none_done raises")

"""What a judgement takes: the scores and pictures that are chosen by default, and the passes of the model."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from seglens.arguments import checked
from seglens.arguments.renamed import renamed
from seglens.data.layout import Split
from seglens.explain.methods import Method, methods_of, parse
from seglens.explain.plan import count
from seglens.folder.chunks import CHUNK, choose
from seglens.folder.planning import first_chunk
from seglens.folder.request import class_index_of, targets_of, with_references_of
from seglens.judge.case import CHEAP, SCORES, JudgeSettings
from seglens.judge.definitions import CLAIM_IMAGES
from seglens.judge.effects import IMPUTERS
from seglens.judge.faithfulness import FRACTIONS, TARGET_FRACTIONS
from seglens.judge.localisation import SHIFTS
from seglens.judge.nulls import NULLS
from seglens.judge.stability import PERTURBATIONS
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


@dataclass(frozen=True)
class ScoreCost:
    """The forward passes of one score, those of all ``remakes`` of its maps included.

    They are for all its ``num_images``, at most: maps that remove the same cells share a pass, context is
    only removed where it matters, and slow methods are left out of the scores that make maps again.
    """

    score: str
    num_images: int
    forwards: int
    remakes: int

    def to_json(self) -> dict[str, str | int]:
        """Return the fields as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class JudgePlan:
    """The cost of every score; ``making`` are the forward passes for making the maps once, which all need."""

    num_images: int
    making: int
    costs: tuple[ScoreCost, ...]

    def forwards(self, scores: Sequence[str]) -> int:
        """Return the forward passes for these scores and the maps, at most."""
        return self.making + self.more(scores)

    def more(self, scores: Sequence[str]) -> int:
        """Return the forward passes that these scores take once the maps are there, at most."""
        return sum(cost.forwards for cost in self.costs if cost.score in scores)


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
    needed = parse(with_references_of(run, chosen, methods_of(methods), seed))
    layers = needed.layers(layers)
    resolve(run.segmenter, layers)
    first = first_chunk(run, chosen, (target,), 1)
    targets_of(run, first, (target,), class_index)  # A target that can't be is an error before any work.
    passes = count(run, needed, layers, first.batch.images, 1, len(chosen), batch_size)
    num_maps = len(layers) * (len(needed.cams) + len(needed.on_layers))
    num_maps += len(needed.gradients) + len(needed.on_input)
    making = sum(entry.forwards for entry in passes)
    return count_scores(num_maps, making, judging or JudgeSettings(), len(chosen))


def count_scores(num_maps: int, making: int, settings: JudgeSettings, num: int) -> JudgePlan:
    """Count the passes of every score, asked for or not, of ``num_maps`` maps of ``num`` pictures.

    Making them once takes ``making`` forward passes.
    """
    # Besides the changed copies: the pictures clean, blurred, and with their context blurred.
    removed = 2 * len(FRACTIONS) * (num_maps + len(NULLS)) + 2
    again = settings.num_again
    # Pictures, forward passes of changed ones for each, and how often its maps are made again.
    found = {
        "faithfulness": (num, removed, 0),
        "target_faithfulness": (num, 4 * len(TARGET_FRACTIONS) * (num_maps + len(NULLS)) + 2, 0),
        "context_faithfulness": (num, removed + SHIFTS + 1, 0),
        "causal_agreement": (settings.num_occluded, len(IMPUTERS) * settings.across**2 + 1, 0),
        "completeness": (num, 0, 0),
        "model_dependence": (again, 0, settings.num_models + settings.stages + 1),
        "stability": (again, 0, len(PERTURBATIONS) + 1),
        "attention": (num, 0, 1),
    }
    costs = []
    for score in SCORES:
        most, copies, remakes = found[score]
        few = min(most, num)
        costs.append(ScoreCost(score, few, few * copies + -(-few * remakes * making // num), remakes))
    return JudgePlan(num, making, tuple(costs))

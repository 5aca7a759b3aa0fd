"""What a judgement takes: the scores and pictures that are chosen by default, and the passes of the model."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from seglens.arguments import checked
from seglens.arguments.renamed import renamed
from seglens.data.layout import Split
from seglens.explain.methods import Method, methods_of, parse
from seglens.explain.plan import count
from seglens.folder.chunks import CHUNK, choose
from seglens.folder.planning import first_chunk
from seglens.folder.request import class_index_of, targets_of, with_references_of
from seglens.judge.case import CHEAP, SCORES, JudgeSettings
from seglens.judge.definitions import CLAIM_IMAGES, MIN_IMAGES
from seglens.judge.effects import IMPUTERS
from seglens.judge.faithfulness import FRACTIONS, TARGET_FRACTIONS
from seglens.judge.localisation import SHIFTS
from seglens.judge.nulls import NULLS
from seglens.judge.race import steps_made
from seglens.judge.stability import PERTURBATIONS
from seglens.models.layers import resolve
from seglens.runs import Run

ALL = "all"
"""Stands for every score."""

ON_CPU = 32
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

    They are for all its ``num_images``, at most: maps leave a race as soon as they are decided, those that
    remove the same cells share a pass, context is only removed where it matters, and slow methods are left
    out of the scores that make maps again.
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
    """The cost of every score; ``making`` are the forward passes for making the maps once, which all need.

    ``independent`` is how many independent things there are, groups of pictures where these are named.
    """

    num_images: int
    making: int
    costs: tuple[ScoreCost, ...]
    independent: int = MIN_IMAGES

    @property
    def no_verdict(self) -> str:
        """Why no comparison can have a verdict, whatever is found; empty where it can."""
        if self.independent >= MIN_IMAGES:
            return ""
        what = "pictures" if self.independent == self.num_images else "groups of pictures"
        return (
            f"No map can get a verdict: a comparison needs {MIN_IMAGES} {what}, and there are "
            f"{self.independent}. Take more pictures (--num-images, --split, --data) to have one."
        )

    def forwards(self, scores: Sequence[str]) -> int:
        """Return the forward passes for these scores and the maps, at most."""
        return self.making + self.more(scores)

    def made(self, scores: Sequence[str], passes: Mapping[str, int]) -> int:
        """Return the forward passes once they are over, with those that were counted of some scores."""
        counted = [cost for cost in self.costs if cost.score in passes]
        fewer = sum(cost.forwards - passes[cost.score] - 2 * cost.num_images for cost in counted)
        return max(1, self.forwards(scores) - fewer)

    def left(self, scores: Sequence[str], done: int, racing: Mapping[str, float]) -> int:
        """Return about how many forward passes are left at most, once ``done`` pictures are judged.

        ``racing`` is the share of the maps that is still measured, by score; all where it isn't named.
        """
        shares = {cost.score: max(0, 1 - done / max(1, cost.num_images)) for cost in self.costs}
        left = sum(
            cost.forwards * shares[cost.score] * racing.get(cost.score, 1.0)
            for cost in self.costs
            if cost.score in scores
        )
        return round(left + self.making * max(0, 1 - done / self.num_images))

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
    plan = count_scores(num_maps, making, judging or JudgeSettings(), len(chosen))
    groups = {entry.group for entry in chosen.entries}
    return replace(plan, independent=len(groups) if chosen.grouped.by else len(chosen))


def count_scores(num_maps: int, making: int, settings: JudgeSettings, num: int) -> JudgePlan:
    """Count the passes of every score, asked for or not, of ``num_maps`` maps of ``num`` pictures.

    Making them once takes ``making`` forward passes.
    """
    again, occluded = min(settings.num_again, num), min(settings.num_occluded, num)

    def removed(steps: int, ends: int) -> int:
        """Both orders at both ends of all rows; besides, each picture clean and blurred."""
        made = steps_made(num, steps) if settings.race else num * steps
        return 2 * ends * made * (num_maps + len(NULLS)) + 2 * num

    # Pictures, forward passes of changed ones, and how often its maps are made again.
    found = {
        "faithfulness": (num, removed(len(FRACTIONS), 1), 0),
        "target_faithfulness": (num, removed(len(TARGET_FRACTIONS), 2), 0),
        "context_faithfulness": (num, removed(len(FRACTIONS), 1) + num * (SHIFTS + 1), 0),
        "causal_agreement": (occluded, occluded * (len(IMPUTERS) * settings.across**2 + 1), 0),
        "completeness": (num, 0, 0),
        "model_dependence": (again, 0, settings.num_models + settings.stages + 1),
        "stability": (again, 0, len(PERTURBATIONS) + 1),
        "attention": (num, 0, 1),
    }
    costs = (
        ScoreCost(score, few, copies + -(-few * remakes * making // num), remakes)
        for score, (few, copies, remakes) in found.items()
    )
    return JudgePlan(num, making, tuple(costs))

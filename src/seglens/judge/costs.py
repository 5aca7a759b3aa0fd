"""The forward passes that a scorecard takes, which follow from the settings."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from seglens.judge.case import SCORES, JudgeSettings
from seglens.judge.effects import IMPUTERS
from seglens.judge.faithfulness import FRACTIONS
from seglens.judge.localisation import SHIFTS
from seglens.judge.nulls import NULLS
from seglens.judge.stability import PERTURBATIONS


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

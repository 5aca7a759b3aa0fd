"""What a scorecard takes: forward passes follow from the settings, seconds are measured on a few pictures."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from seglens.explain import explain
from seglens.explain.methods import Method
from seglens.explain.target import Target
from seglens.impute import noisy_linear
from seglens.judge.case import SCORES, JudgeSettings
from seglens.judge.effects import IMPUTERS
from seglens.judge.faithfulness import FRACTIONS
from seglens.judge.localisation import SHIFTS
from seglens.judge.nulls import NULLS
from seglens.judge.reading import reading
from seglens.judge.stability import PERTURBATIONS
from seglens.runs import Run
from seglens.shapes import Images, Regions, Rows

COPIES = 8
"""Changed copies that are timed."""


@dataclass(frozen=True)
class ScoreCost:
    """What one score takes: forward passes of changed pictures, and how often all maps are made again.

    ``seconds`` are for all its ``num_images``, at most: maps that remove the same cells share a pass, context
    is only removed where it matters, and slow methods are left out of the scores that make maps again.
    """

    score: str
    num_images: int
    forwards: int
    remakes: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain data."""
        return dict(self.__dict__)


@dataclass(frozen=True)
class JudgePlan:
    """What every score takes; ``making`` are the seconds for making the maps once, which all need."""

    num_images: int
    making: float
    costs: tuple[ScoreCost, ...]

    def seconds(self, scores: Sequence[str]) -> float:
        """All seconds for these scores."""
        return self.making + self.more(scores)

    def more(self, scores: Sequence[str]) -> float:
        """The seconds that these scores take once the maps are there."""
        return sum(cost.seconds for cost in self.costs if cost.score in scores)


def plan_scores(
    run: Run,
    images: Images,
    target: Target,
    valid: Regions,
    *,
    methods: Sequence[Method],
    layers: Sequence[str],
    settings: JudgeSettings,
    num_images: int,
    seed: int = 0,
    batch_size: int = 16,
) -> JudgePlan:
    """Say what every score of `SCORES` would take, asked for or not, from a few ``images``."""
    num_maps = 0

    def make() -> None:
        nonlocal num_maps
        found = explain(run, images, target, methods=methods, layers=layers, seed=seed, batch_size=batch_size)
        num_maps = len(found)

    making = _quickest(make) / len(images)
    removing = _seconds_a_copy(run, images, target, valid, batch_size)
    counts = {
        score: (min(num, num_images), forwards, remakes)
        for score, (num, forwards, remakes) in _counts(num_maps, settings, num_images).items()
    }
    return JudgePlan(
        num_images=num_images,
        making=making * num_images,
        costs=tuple(
            ScoreCost(
                score=score,
                num_images=num,
                forwards=forwards * num,
                remakes=remakes,
                seconds=num * (forwards * removing + remakes * making),
            )
            for score, (num, forwards, remakes) in counts.items()
        ),
    )


def _counts(num_maps: int, settings: JudgeSettings, num: int) -> dict[str, tuple[int, int, int]]:
    """By score: pictures, forward passes for each, and how often its maps are made again."""
    # Besides the changed copies: the answer, and the pictures clean, blurred, and with their context blurred.
    removed = 2 * len(FRACTIONS) * (num_maps + len(NULLS)) + 3
    found = {
        "faithfulness": (num, removed, 0),
        "context_faithfulness": (num, removed + SHIFTS + 2 + 4, 0),
        "causal_agreement": (settings.num_occluded, len(IMPUTERS) * settings.across**2 + 2, 0),
        "completeness": (num, 0, 0),
        "model_dependence": (settings.num_again, 0, settings.num_models + settings.stages + 1),
        "stability": (settings.num_again, 0, len(PERTURBATIONS) + 1),
        "attention": (num, 0, 1),
    }
    return {score: found[score] for score in SCORES}


def _seconds_a_copy(run: Run, images: Images, target: Target, valid: Regions, batch_size: int) -> float:
    """Time imputing half of a picture and scoring it, which is what a removal takes on average."""
    read = reading(run.segmenter, images, target, valid, batch_size=batch_size)
    rows = torch.arange(COPIES, device=read.images.device) % len(images)
    noise = torch.zeros_like(read.images)
    height, width = images.shape[-2:]
    checks = (torch.arange(height)[:, None] * 16 // height + torch.arange(width) * 16 // width) % 2 == 0

    def perturb(copies: Images, which: Rows) -> Images:
        removed = checks.to(copies.device).expand(len(copies), -1, -1)
        return noisy_linear(copies, removed, noise[rows[which]])

    return _quickest(lambda: read.changed(rows, perturb, "32")) / COPIES


def _quickest(work: Callable[[], object]) -> float:
    """Seconds of the quicker of two goes: the first holds what is only done once."""
    taken = []
    for _ in range(2):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return min(taken)

"""Does high uncertainty find errors? Wrong and right pixels by how uncertain the model was of them.

AUROC of error detection, and the curve of risk over coverage (El-Yaniv, Wiener 2010; Geifman, El-Yaniv 2017).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seglens.evaluate.intervals import Groups, Interval, clusters, interval_bounds
from seglens.masks import is_stack
from seglens.predict.uncertainty import DEFINITIONS as MAPS
from seglens.results.uncertainty import Coverage, ErrorDetection
from seglens.shapes import AnyMask, Map, Region

BINS = 512
"""Steps of uncertainty; those in one step are ties."""

SMALLEST = 1e-8
"""Uncertainties below it are one step: steps are even in the logarithm from here to 1."""

COVERAGES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)

DEFINITIONS = {
    "error_detection": "Error detection: how often a wrong pixel is more uncertain than a right one "
    "(AUROC). .5 means that uncertainty does not find errors. All valid pixels of the split are counted "
    "together, with intervals over groups.",
    "risk_coverage": "Risk over coverage: how many pixels are wrong if the model answers only where it "
    "is least uncertain. Its area is the mean over all such shares; 0 is best. Most pixels are easy "
    "background, so compare these figures only between models of the same data.",
    **{f"uncertainty_{name}": f"Uncertainty, {name}: {text}." for name, text in MAPS.items()},
}


@dataclass(frozen=True)
class ByUncertainty:
    """Valid pixels of one picture in each step of uncertainty, and the wrong ones of them."""

    pixels: Int[Tensor, " bins"]
    wrong: Int[Tensor, " bins"]


def count(uncertain: Map, predicted: AnyMask, truth: AnyMask, valid: Region) -> ByUncertainty:
    """Count one picture's valid pixels by step; of labels a pixel is wrong where one of them is."""
    wrong = (predicted != truth).any(0) if is_stack(truth) else predicted != truth
    steps = (uncertain.clamp(SMALLEST, 1).log() / -torch.tensor(SMALLEST).log() + 1) * (BINS - 1)
    steps, wrong = steps.round().long()[valid], wrong[valid]
    every, errors = (torch.bincount(each, minlength=BINS).int() for each in (steps, steps[wrong]))
    return ByUncertainty(every, errors)


Counts = Float[Tensor, "r bins"]


def auroc(pixels: Counts, wrong: Counts) -> Float[Tensor, " r"]:
    """Return the chance that a wrong pixel is more uncertain than a right one, ties counting half."""
    right = pixels - wrong
    below = right.cumsum(1) - right / 2
    return (wrong * below).sum(1) / (wrong.sum(1) * right.sum(1))


def risks(pixels: Counts, wrong: Counts, coverages: Float[Tensor, " k"]) -> Float[Tensor, "r k"]:
    """Return the share of wrong pixels among the least uncertain ones; a step is answered in part, evenly."""
    zero = pixels.new_zeros(len(pixels), 1)
    seen, errors = (torch.cat([zero, each.cumsum(1)], 1) for each in (pixels, wrong))
    wanted = coverages * seen[:, -1:]
    place = torch.searchsorted(seen.contiguous(), wanted.contiguous()).clamp(1, pixels.shape[1])
    low, high = seen.gather(1, place - 1), seen.gather(1, place)
    part = ((wanted - low) / (high - low)).nan_to_num(0)
    first, last = errors.gather(1, place - 1), errors.gather(1, place)
    return (first + part * (last - first)) / wanted


GRID = torch.linspace(0.005, 1, 200, dtype=torch.float64)


def area(pixels: Counts, wrong: Counts) -> Float[Tensor, " r"]:
    """Return the mean risk over coverages from .005 to 1."""
    return risks(pixels, wrong, GRID).mean(1)


def best_area(error: float) -> float:
    """Return the area where all wrong pixels come last: ``risk(c) = max(0, c - 1 + e) / c``."""
    return float((((GRID - 1 + error).clamp_min(0)) / GRID).mean())


def conclude(
    pictures: Sequence[Mapping[str, ByUncertainty]], groups: Groups | None
) -> tuple[ErrorDetection, ...]:
    """Return how well each kind of uncertainty finds errors, with intervals over ``groups``."""
    if not pictures:
        return ()
    return tuple(_conclude(kind, [each[kind] for each in pictures], groups) for kind in pictures[0])


def _conclude(kind: str, pictures: Sequence[ByUncertainty], groups: Groups | None) -> ErrorDetection:
    of = clusters(torch.ones(len(pictures), dtype=torch.bool), groups)
    pixels, wrong = (
        of.sums(torch.stack(column).double())
        for column in ([each.pixels for each in pictures], [each.wrong for each in pictures])
    )

    def measured(statistic: Callable[[Counts, Counts], Float[Tensor, " r"]]) -> Interval:
        def of_resamples(rows: Int[Tensor, "r m"]) -> Float[Tensor, " r"]:
            times = torch.zeros(len(rows), of.num, dtype=torch.float64).scatter_add_(
                1, rows, torch.ones(rows.shape, dtype=torch.float64)
            )
            return statistic(times @ pixels, times @ wrong)

        value = float(statistic(pixels.sum(0, keepdim=True), wrong.sum(0, keepdim=True))[0])
        ends = (nan, nan)
        if of.num > 1 and not isnan(value):
            ends = interval_bounds(of.num, of_resamples, seed=0, some=True)
        return Interval(value, *ends, len(pictures), None if groups is None else of.num)

    def risk_at(coverage: float) -> Callable[[Counts, Counts], Float[Tensor, " r"]]:
        return lambda p, w: risks(p, w, torch.tensor([coverage], dtype=torch.float64))[:, 0]

    curve = [(coverage, measured(risk_at(coverage))) for coverage in COVERAGES]
    error = curve[-1][1]
    return ErrorDetection(
        kind=kind,
        auroc=measured(auroc).spread(),
        area=measured(area).spread(),
        error=error.spread(),
        best_area=best_area(error.mean),
        curve=tuple(
            Coverage(coverage=coverage, risk=each.mean, low=each.low, high=each.high)
            for coverage, each in curve
        ),
    )

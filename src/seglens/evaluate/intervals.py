"""Bootstrap intervals over images. One seed gives one set of resamples, so that differences are paired."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seglens.results.scores import Spread
from seglens.shapes import PerImage

RESAMPLES = 2000

BLOCK = 1 << 22
"""Resampled numbers that are in memory at once."""


@dataclass(frozen=True)
class Interval:
    """A mean over ``num`` images with its 95 % percentile bootstrap interval (Efron 1979)."""

    mean: float
    low: float
    high: float
    num: int

    def spread(self) -> Spread:
        """Return the interval as it stands in results."""
        return Spread(mean=self.mean, low=self.low, high=self.high, num=self.num)


def interval_of(spread: Spread) -> Interval:
    """Return an interval that stands in results; what is missing there is NaN."""
    mean, low, high = (math.nan if each is None else each for each in (spread.mean, spread.low, spread.high))
    return Interval(mean, low, high, spread.num)


NOTHING = Interval(float("nan"), float("nan"), float("nan"), 0)


def interval(values: PerImage, *, seed: int = 0) -> Interval:
    """Return mean and interval of ``values`` without the NaN ones; of one value low and high are NaN."""
    kept = values.detach().cpu().double()
    kept = kept[~kept.isnan()]
    if kept.numel() == 0:
        return NOTHING
    if kept.numel() == 1:
        return Interval(float(kept), float("nan"), float("nan"), 1)
    low, high = interval_bounds(kept.numel(), lambda rows: kept[rows].mean(1), seed=seed)
    return Interval(float(kept.mean()), low, high, kept.numel())


def interval_bounds(
    num: int, statistic: Callable[[Int[Tensor, "r m"]], Float[Tensor, " r"]], *, seed: int
) -> tuple[float, float]:
    """Return the 2.5 % and 97.5 % quantiles of ``statistic`` over resamples of ``num`` images.

    ``statistic`` gets resamples as row numbers and returns one number for each.
    """
    generator = torch.Generator().manual_seed(seed)
    size = max(1, BLOCK // num)
    drawn = torch.cat(
        [
            statistic(torch.randint(num, (min(size, RESAMPLES - start), num), generator=generator))
            for start in range(0, RESAMPLES, size)
        ]
    ).double()
    # Where a value is infinite there is nothing to interpolate between.
    rule = "linear" if bool(drawn.isfinite().all()) else "nearest"
    low, high = drawn.quantile(drawn.new_tensor([0.025, 0.975]), interpolation=rule).tolist()
    return low, high


def auroc(positive: PerImage, negative: PerImage, *, seed: int = 0) -> Interval:
    """Return the chance that a ``positive`` value exceeds a ``negative`` one, ties counting half.

    That is the area under the ROC curve (Mann and Whitney 1947). Row i of both belongs to one image; a row
    that is NaN in either is left out, and the interval resamples images, both values together.
    """
    both = ~(positive.isnan() | negative.isnan()).cpu()
    if not bool(both.any()):
        return NOTHING
    higher, lower = positive.cpu().double()[both], negative.cpu().double()[both]
    wins = (higher[:, None] > lower).double() + 0.5 * (higher[:, None] == lower).double()
    num = len(wins)

    def area(rows: Int[Tensor, "r m"]) -> Float[Tensor, " r"]:
        times = torch.zeros(len(rows), num, dtype=torch.float64).scatter_add_(
            1, rows, torch.ones(rows.shape, dtype=torch.float64)
        )
        return ((times @ wins) * times).sum(1) / num**2

    low, high = interval_bounds(num, area, seed=seed) if num > 1 else (float("nan"), float("nan"))
    return Interval(float(wins.mean()), low, high, num)

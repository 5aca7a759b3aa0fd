"""Bootstrap intervals: the one place that resamples. One seed gives one set: differences are paired.

What is drawn are groups of images (patients, slides, near-duplicates), each with all of its images: the
cluster bootstrap (Davison and Hinkley 1997, section 3.8). Without groups each image is a group of its own.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from seglens.results.spread import Spread
from seglens.shapes import PerImage

RESAMPLES = 2000

BLOCK = 1 << 22
"""Resampled numbers that are in memory at once."""

Groups = Int[Tensor, " of_all"]
"""The number of each image's group. Scores of the first images only go by the first of them."""


@dataclass(frozen=True)
class Interval:
    """A mean over ``num`` images with its 95 % percentile bootstrap interval (Efron 1979).

    ``num_groups`` are the groups that were resampled; None where every image is its own.
    """

    mean: float
    low: float
    high: float
    num: int
    num_groups: int | None = None

    @property
    def independent(self) -> int:
        """How many independent things the interval stands on."""
        return self.num if self.num_groups is None else self.num_groups

    def spread(self) -> Spread:
        """Return the interval as it stands in results."""
        found = {"mean": self.mean, "low": self.low, "high": self.high, "num": self.num}
        return Spread.model_validate(found | known_groups(self))


def known_groups(found: Interval) -> dict[str, int]:
    """Return the number of groups by its name in results; nothing where there are none."""
    return {} if found.num_groups is None else {"num_groups": found.num_groups}


def interval_of(spread: Spread) -> Interval:
    """Return an interval that stands in results; what is missing there is NaN."""
    mean, low, high = (math.nan if each is None else each for each in (spread.mean, spread.low, spread.high))
    return Interval(mean, low, high, spread.num, spread.num_groups)


NOTHING = Interval(float("nan"), float("nan"), float("nan"), 0)


@dataclass(frozen=True)
class Clusters:
    """The group of each image, numbered from 0 in the order in which groups first come."""

    labels: Int[Tensor, " n"]
    num: int

    def sums(self, values: Float[Tensor, "n *k"]) -> Float[Tensor, "g *k"]:
        """Return the sum of ``values`` over the images of each group."""
        return values.new_zeros(self.num, *values.shape[1:]).index_add_(0, self.labels, values)


def numbered(labels: Sequence[Hashable]) -> Groups:
    """Return labels as numbers: equal ones are one group."""
    order = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    return torch.tensor([order[label] for label in labels], dtype=torch.int64)


def clusters(kept: Bool[Tensor, " n"], groups: Groups | None) -> Clusters:
    """Return the groups of the images that are ``kept``; without ``groups`` each image is one."""
    kept = kept.cpu()
    if groups is None:
        num = int(kept.sum())
        return Clusters(torch.arange(num), num)
    labels = numbered(groups[: len(kept)][kept].tolist())
    return Clusters(labels, int(labels.max()) + 1 if len(labels) else 0)


def interval(values: PerImage, *, groups: Groups | None = None, seed: int = 0) -> Interval:
    """Return mean and interval of ``values`` without the NaN ones; of one group low and high are NaN.

    The mean is over images, so that a group weighs as much as it has of them.
    """
    every = values.detach().cpu().double()
    of = clusters(~every.isnan(), groups)
    kept = every[~every.isnan()]
    num_groups = None if groups is None else of.num
    if kept.numel() == 0:
        return NOTHING
    if of.num == 1:
        return Interval(float(kept.mean()), float("nan"), float("nan"), kept.numel(), num_groups)
    sums, sizes = of.sums(kept), of.sums(torch.ones_like(kept))
    low, high = interval_bounds(of.num, lambda rows: sums[rows].sum(1) / sizes[rows].sum(1), seed=seed)
    return Interval(float(kept.mean()), low, high, kept.numel(), num_groups)


def ratio_interval(
    above: PerImage, below: PerImage, *, groups: Groups | None = None, seed: int = 0
) -> Interval:
    """Return the sum of ``above`` over that of ``below`` with its interval; NaN where that is 0.

    ``num`` are the images with a share of ``below``. Resamples without any are left out.
    """
    above, below = above.cpu().double(), below.cpu().double()
    of = clusters(torch.ones(len(below), dtype=torch.bool), groups)
    num, num_groups = int((below > 0).sum()), None if groups is None else of.num
    if not num:
        return NOTHING
    mean = float(above.sum() / below.sum())
    tops, bottoms = of.sums(above), of.sums(below)
    if int((bottoms > 0).sum()) < 2:
        return Interval(mean, math.nan, math.nan, num, num_groups)
    low, high = interval_bounds(
        of.num, lambda rows: tops[rows].sum(1) / bottoms[rows].sum(1), seed=seed, some=True
    )
    return Interval(mean, low, high, num, num_groups)


def interval_bounds(
    num: int,
    statistic: Callable[[Int[Tensor, "r m"]], Float[Tensor, " r"]],
    *,
    seed: int,
    some: bool = False,
) -> tuple[float, float]:
    """Return the 2.5 % and 97.5 % quantiles of ``statistic`` over resamples of ``num`` groups.

    ``statistic`` gets resamples as group numbers and returns one number for each. With
    ``some`` resamples whose number is NaN are left out; else they make both bounds NaN.
    """
    generator = torch.Generator().manual_seed(seed)
    size = max(1, BLOCK // num)
    drawn = torch.cat(
        [
            statistic(torch.randint(num, (min(size, RESAMPLES - start), num), generator=generator))
            for start in range(0, RESAMPLES, size)
        ]
    ).double()
    drawn = drawn[~drawn.isnan()] if some else drawn
    # Where a value is infinite there is nothing to interpolate between.
    rule = "linear" if bool(drawn.isfinite().all()) else "nearest"
    low, high = drawn.quantile(drawn.new_tensor([0.025, 0.975]), interpolation=rule).tolist()
    return low, high


def auroc(positive: PerImage, negative: PerImage, *, groups: Groups | None = None, seed: int = 0) -> Interval:
    """Return the chance that a ``positive`` value exceeds a ``negative`` one, ties counting half.

    That is the area under the ROC curve (Mann and Whitney 1947). Row i of both belongs to one image; a row
    that is NaN in either is left out, and the interval resamples images, both values together.
    """
    both = ~(positive.isnan() | negative.isnan()).cpu()
    if not bool(both.any()):
        return NOTHING
    higher, lower = positive.cpu().double()[both], negative.cpu().double()[both]
    wins = (higher[:, None] > lower).double() + 0.5 * (higher[:, None] == lower).double()
    of = clusters(both, groups)

    def area(rows: Int[Tensor, "r m"]) -> Float[Tensor, " r"]:
        drawn = torch.zeros(len(rows), of.num, dtype=torch.float64).scatter_add_(
            1, rows, torch.ones(rows.shape, dtype=torch.float64)
        )
        times = drawn[:, of.labels]
        return ((times @ wins) * times).sum(1) / times.sum(1) ** 2

    low, high = interval_bounds(of.num, area, seed=seed) if of.num > 1 else (float("nan"), float("nan"))
    return Interval(float(wins.mean()), low, high, len(wins), None if groups is None else of.num)

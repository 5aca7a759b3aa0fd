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


Statistic = Callable[[Int[Tensor, "r m"]], Float[Tensor, " r"]]
"""Gets resamples as group numbers and returns one number for each."""


def resampled(num: int, statistic: Statistic, *, seed: int) -> Float[Tensor, " resamples"]:
    """Return ``statistic`` of each of `RESAMPLES` resamples of ``num`` groups."""
    generator = torch.Generator().manual_seed(seed)
    size = max(1, BLOCK // num)
    return torch.cat(
        [
            statistic(torch.randint(num, (min(size, RESAMPLES - start), num), generator=generator))
            for start in range(0, RESAMPLES, size)
        ]
    ).double()


def interval_bounds(num: int, statistic: Statistic, *, seed: int, some: bool = False) -> tuple[float, float]:
    """Return the 2.5 % and 97.5 % quantiles of ``statistic`` over resamples of ``num`` groups.

    With ``some`` resamples whose number is NaN are left out; else they make both bounds NaN.
    """
    drawn = resampled(num, statistic, seed=seed)
    return bounds_of(drawn[~drawn.isnan()] if some else drawn)


def bounds_of(drawn: Float[Tensor, " r"]) -> tuple[float, float]:
    """Return the 2.5 % and 97.5 % quantiles of what resamples gave."""
    # Where a value is infinite there is nothing to interpolate between.
    rule = "linear" if bool(drawn.isfinite().all()) else "nearest"
    low, high = drawn.quantile(drawn.new_tensor([0.025, 0.975]), interpolation=rule).tolist()
    return low, high


def difference(
    values: PerImage, inside: Bool[Tensor, " n"], *, groups: Groups | None = None, seed: int = 0
) -> tuple[Interval, float]:
    """Return the mean of ``values`` inside less that of the others, with its interval and a p-value.

    Groups are resampled, whichever side their images are on. The p-value inverts the interval: twice the
    smaller share of resamples on either side of 0, ``2 (1 + #) / (1 + R)`` (Davison and Hinkley 1997, section
    5.4). NaN values are left out.
    """
    every = values.detach().cpu().double()
    known = ~every.isnan()
    of, kept, within = clusters(known, groups), every[known], inside.cpu()[known]
    num_groups = None if groups is None else of.num
    if not (bool(within.any()) and bool((~within).any())):
        return NOTHING, math.nan
    sides = [of.sums(torch.stack([kept * side, side.double()], 1)) for side in (within, ~within)]
    found = float(kept[within].mean() - kept[~within].mean())
    num = int(within.sum())

    def gap(rows: Int[Tensor, "r m"]) -> Float[Tensor, " r"]:
        means = [side[rows].sum(1) for side in sides]
        return means[0][:, 0] / means[0][:, 1] - means[1][:, 0] / means[1][:, 1]

    if of.num < 2:
        return Interval(found, math.nan, math.nan, num, num_groups), math.nan
    drawn = resampled(of.num, gap, seed=seed)
    drawn = drawn[~drawn.isnan()]
    side = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    return Interval(found, *bounds_of(drawn), num, num_groups), min(1.0, 2 * (1 + side) / (1 + len(drawn)))


def separation(
    values: PerImage, positive: Bool[Tensor, " n"], *, groups: Groups | None = None, seed: int = 0
) -> Interval:
    """Return the chance that the value of a ``positive`` image exceeds that of another, ties counting half.

    The area under the ROC curve, as `auroc` has it of values in pairs; the interval resamples groups.
    """
    every = values.detach().cpu().double()
    known = ~every.isnan()
    of, kept, yes = clusters(known, groups), every[known], positive.cpu()[known]
    if not (bool(yes.any()) and bool((~yes).any())):
        return NOTHING
    higher, lower = kept[yes], kept[~yes]
    wins = (higher[:, None] > lower).double() + 0.5 * (higher[:, None] == lower).double()

    def area(rows: Int[Tensor, "r m"]) -> Float[Tensor, " r"]:
        drawn = torch.zeros(len(rows), of.num, dtype=torch.float64).scatter_add_(
            1, rows, torch.ones(rows.shape, dtype=torch.float64)
        )
        times = drawn[:, of.labels]
        ours, others = times[:, yes], times[:, ~yes]
        return ((ours @ wins) * others).sum(1) / (ours.sum(1) * others.sum(1))

    ends = (math.nan, math.nan)
    if of.num > 1:
        ends = interval_bounds(of.num, area, seed=seed, some=True)
    return Interval(float(wins.mean()), *ends, len(kept), None if groups is None else of.num)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number, as Holm (1979) does: step down, never falling."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [math.nan] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


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

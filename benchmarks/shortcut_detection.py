"""How well a number per picture tells models that read a tag from models that don't, over training seeds.

A pair of models, one that reads the tag and its twin that doesn't, is one experiment, however many pictures
it is shown. So intervals resample pairs first and pictures within each pair second. With ``K`` pairs a
drawn set is the same pair ``K`` times with chance ``K^(1 - K)``: 1 in 9 for three pairs. That is more than
2.5 % on either side, so an interval over three pairs reaches from the worst pair to the best at least. It is
an honest range of what was seen, but no more than three pairs can say.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seglens.errors import SettingError
from seglens.evaluate.intervals import NOTHING, RESAMPLES, Interval

FALSE_ALARMS = 0.05
"""The share of pictures of honest models that may be taken for a cheat's."""

Shares = Float[Tensor, " _"]
"""A number per picture of one pair; pairs may have different numbers of pictures."""


@dataclass(frozen=True)
class Pairs:
    """The shares of every pair of models, pictures without both left out; row i of both is one picture."""

    cheat: tuple[Shares, ...]
    honest: tuple[Shares, ...]

    @property
    def num_images(self) -> int:
        """Of all pairs together."""
        return sum(len(values) for values in self.cheat)


def pairs(cheat: Sequence[Shares], honest: Sequence[Shares]) -> Pairs:
    """Match the shares of pairs of models; pairs of which no picture is left are dropped.

    Raises:
        SettingError: there are not as many of one kind as of the other, or not for the same pictures.
    """
    if [len(values) for values in cheat] != [len(values) for values in honest]:
        raise SettingError(
            f"The cheats' shares are of {[len(values) for values in cheat]} pictures, the honest models' of "
            f"{[len(values) for values in honest]}: give both for the same pictures of the same pairs."
        )
    kept: list[tuple[Shares, Shares]] = []
    for first, second in zip(cheat, honest, strict=True):
        both = first.isfinite() & second.isfinite()
        if bool(both.any()):
            kept.append((first[both].cpu().double(), second[both].cpu().double()))
    return Pairs(tuple(first for first, _ in kept), tuple(second for _, second in kept))


def nested_bounds(
    statistics: Sequence[Callable[[Int[Tensor, "r m"]], Float[Tensor, " r"]]],
    sizes: Sequence[int],
    *,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the 2.5 % and 97.5 % quantiles of the mean of ``statistics`` over drawn groups.

    Each resample draws as many groups as there are, with replacement, and for each of them as many of its
    members as it has, with replacement, anew for every time that it is drawn. ``statistics[k]`` gets the
    members drawn from group k as row numbers and returns one number for each draw. This is the bootstrap of
    nested data in Davison and Hinkley 1997, section 3.8, both stages with replacement: for means its variance
    is ``(variance between groups + mean of variance within / size) / K``.
    """
    num = len(sizes)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(num, (RESAMPLES, num), generator=generator)
    values = torch.empty(RESAMPLES, num, dtype=torch.float64)
    for group, size in enumerate(sizes):
        times = drawn == group
        rows = torch.randint(size, (int(times.sum()), size), generator=generator)
        values[times] = statistics[group](rows).double()
    low, high = values.mean(1).quantile(values.new_tensor([0.025, 0.975])).tolist()
    return low, high


def auroc_over_pairs(found: Pairs, *, seed: int = 0) -> Interval:
    """Return the mean over pairs of the chance that the cheat's share exceeds that of its honest twin.

    Within a pair that is the area under the ROC curve (Mann and Whitney 1947), ties counting half, over all
    its pictures against all. The interval draws pairs first and pictures second, both models' values of a
    picture together.
    """
    if not found.cheat:
        return NOTHING
    wins = [
        (first[:, None] > second).double() + 0.5 * (first[:, None] == second).double()
        for first, second in zip(found.cheat, found.honest, strict=True)
    ]
    value = float(torch.stack([each.mean() for each in wins]).mean())
    bounds = nested_bounds([_area(each) for each in wins], [len(each) for each in wins], seed=seed)
    return Interval(value, *bounds, found.num_images)


def _area(wins: Float[Tensor, "n n"]) -> Callable[[Int[Tensor, "r m"]], Float[Tensor, " r"]]:
    """The area of a resample: wins between the pictures drawn, each as often as it was drawn."""

    def area(rows: Int[Tensor, "r m"]) -> Float[Tensor, " r"]:
        times = torch.zeros(len(rows), len(wins), dtype=torch.float64)
        times.scatter_add_(1, rows, torch.ones(rows.shape, dtype=torch.float64))
        return ((times @ wins) * times).sum(1) / len(wins) ** 2

    return area


@dataclass(frozen=True)
class Detected:
    """What a threshold finds: the share of the cheats' pictures, and of the honest models', above it."""

    rate: Interval
    false_alarms: float


def detection(found: Pairs, *, allowed: float = FALSE_ALARMS, seed: int = 0) -> Detected:
    """Set a threshold on the honest models of the other pairs, and count what exceeds it in this pair.

    The threshold of a pair is the smallest share that at most ``allowed`` of the other honest models'
    pictures exceed (all pairs' pictures together), so neither model of the pair had a say in it, and the
    false alarms that it gives in this pair's honest model can be more or fewer than allowed. The interval
    draws pairs first and pictures second, thresholds held.
    """
    if len(found.cheat) < 2:
        return Detected(NOTHING, float("nan"))
    above, alarms = [], []
    for place in range(len(found.cheat)):
        others = torch.cat([values for i, values in enumerate(found.honest) if i != place])
        limit = threshold(others, allowed)
        above.append((found.cheat[place] > limit).double())
        alarms.append(float((found.honest[place] > limit).double().mean()))
    value = float(torch.stack([each.mean() for each in above]).mean())
    bounds = nested_bounds([_rate(each) for each in above], [len(each) for each in above], seed=seed)
    return Detected(Interval(value, *bounds, found.num_images), sum(alarms) / len(alarms))


def _rate(hits: Shares) -> Callable[[Int[Tensor, "r m"]], Float[Tensor, " r"]]:
    """The share of hits in a resample."""

    def rate(rows: Int[Tensor, "r m"]) -> Float[Tensor, " r"]:
        return hits[rows].mean(1)

    return rate


def threshold(values: Shares, allowed: float) -> float:
    """Return the smallest of ``values`` that at most the share ``allowed`` of them exceed.

    >>> threshold(torch.arange(20.0), 0.05)
    18.0
    """
    ordered = values.sort().values
    return float(ordered[len(ordered) - 1 - int(allowed * len(ordered) + 1e-9)])

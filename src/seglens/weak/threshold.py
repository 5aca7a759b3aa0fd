"""Thresholds chosen without masks, from the distribution of the values of all pictures.

Two groups are assumed, object and none; `RULES` are the ways to part them. Each returns the threshold and, on
either side of it, where certainty begins: what lies between is left open (seeds of a head, an ignored band).
The threshold that masks would choose is `oracle`, which takes `Hidden`, so that its use is on record; it
belongs into a row that is marked as such and nowhere else.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from seglens.errors import DataError, SettingError, unknown_name
from seglens.weak.heat import Grid
from seglens.weak.settings import ThresholdSettings

BINS = 256

Histogram = Float[Tensor, " bins"]


@dataclass(frozen=True)
class Cut:
    """Values above ``high`` are object, those below ``low`` none; ``middle`` decides where one must."""

    low: float
    middle: float
    high: float


def count_values(maps: Iterable[Grid]) -> Histogram:
    """Count the values, in [0, 1], of all pixels of all maps in `BINS` bins.

    Every map counts the same, whatever its number of pixels, and values of exactly 0 and 1 are counted too.
    """
    total = torch.zeros(BINS, dtype=torch.float64)
    for values in maps:
        total += torch.histc(values.float().cpu(), BINS, 0, 1).double() / values.numel()
    return total


def choose_threshold(counts: Histogram, settings: ThresholdSettings) -> Cut:
    """Return the cut that the rule of ``settings`` finds.

    Raises:
        UnknownNameError: there is no such rule.
        SettingError: ``value`` is outside of (0, 1).
        DataError: all values are alike, so that nothing can be parted.
    """
    if settings.rule not in RULES:
        raise unknown_name("rule for a threshold", settings.rule, RULES)
    if not 0 < settings.value < 1:
        raise SettingError(f"The threshold {settings.value} is not allowed. It must lie between 0 and 1.")
    if settings.rule != "fixed" and int((counts > 0).sum()) < 3:
        raise DataError(
            "All heat maps are the same everywhere: the classifier finds the object in no picture. So no "
            "threshold can be chosen. Name other classes, or give a threshold with the rule 'fixed'."
        )
    return RULES[settings.rule](counts, settings)


def otsu(counts: Histogram) -> float:
    """Return the threshold with the largest variance between the two groups, ``w0 w1 (m0 - m1)^2``.

    Otsu 1979, equation 14: w are the groups' shares of the pixels, m their mean values. Of equals the middle
    one.
    """
    centre, shares = _centres(counts), counts / counts.sum()
    below, mass = shares.cumsum(0), (shares * centre).cumsum(0)
    gap = mass / below.clamp(min=1e-12) - (mass[-1] - mass) / (1 - below).clamp(min=1e-12)
    between = (below * (1 - below) * gap.square())[:-1]
    best = (between >= between.max() * (1 - 1e-9)).nonzero().flatten()
    return float((best[len(best) // 2] + 1) / len(counts))


def otsu_twice(counts: Histogram) -> tuple[float, float]:
    """Return the two thresholds with the largest variance between three groups, ``sum_k w_k m_k^2``.

    Otsu 1979, equation 35, by trying every pair. The group in the middle is what can't be told.
    """
    centre, shares = _centres(counts), counts / counts.sum()
    zero = torch.zeros(1, dtype=shares.dtype)
    weight, mass = torch.cat([zero, shares.cumsum(0)]), torch.cat([zero, (shares * centre).cumsum(0)])

    def part(start: Tensor, end: Tensor) -> Tensor:
        return (mass[end] - mass[start]).square() / (weight[end] - weight[start]).clamp(min=1e-12)

    edges = torch.arange(len(counts) + 1)
    first, second = edges[:, None], edges[None, :]
    between = part(edges[:1, None], first) + part(first, second) + part(second, edges[-1:, None])
    between = between.masked_fill(~((first > 0) & (second > first) & (second < len(counts))), -1)
    best = int(between.argmax())
    return best // len(edges) / len(counts), best % len(edges) / len(counts)


def by_otsu(counts: Histogram, settings: ThresholdSettings) -> Cut:
    """Cut at Otsu's threshold; certain are the halves of either group that lie further from it."""
    middle = otsu(counts)
    return _with_halves(counts, middle)


def by_two_otsu(counts: Histogram, settings: ThresholdSettings) -> Cut:
    """Cut at Otsu's two thresholds; one threshold is their middle."""
    low, high = otsu_twice(counts)
    return Cut(low, (low + high) / 2, high)


def by_triangle(counts: Histogram, settings: ThresholdSettings) -> Cut:
    """Cut where the histogram is furthest below the line from its peak to its last value (Zack et al. 1977).

    Made for one large group with a tail: objects that are small next to their background.
    """
    last, peak = int(counts.nonzero().max()), int(counts.argmax())
    steps = torch.arange(peak, last + 1, dtype=torch.float64)
    line = counts[peak] + (counts[last] - counts[peak]) * (steps - peak) / max(last - peak, 1)
    middle = (peak + int((line - counts[peak : last + 1]).argmax()) + 1) / len(counts)
    return _with_halves(counts, min(max(middle, 1 / len(counts)), 1 - 1 / len(counts)))


def by_entropy(counts: Histogram, settings: ThresholdSettings) -> Cut:
    """Cut where the entropies of the two groups sum to the most (Kapur, Sahoo, Wong 1985, equation 18)."""
    shares = counts / counts.sum()
    below, part = shares.cumsum(0), -torch.special.xlogy(shares, shares).cumsum(0)
    above = (1 - below).clamp(min=1e-12)
    entropy = (
        below.clamp(min=1e-12).log() + part / below.clamp(min=1e-12) + above.log() + (part[-1] - part) / above
    )
    usable = (below > 0) & (below < 1 - 1e-9)
    return _with_halves(counts, (int(entropy.masked_fill(~usable, -1e9).argmax()) + 1) / len(counts))


def fixed(counts: Histogram, settings: ThresholdSettings) -> Cut:
    """Cut at ``settings.value``, which somebody else chose; the published reference takes 0.4."""
    return _with_halves(counts, settings.value)


def _with_halves(counts: Histogram, middle: float) -> Cut:
    """Add the medians of the two groups to a threshold."""
    edge = min(max(round(middle * len(counts)), 1), len(counts) - 1)
    low, high = _median(counts[:edge]), _median(counts[edge:])
    low_value = middle / 2 if low is None else (low + 0.5) / len(counts)
    high_value = (1 + middle) / 2 if high is None else (edge + high + 0.5) / len(counts)
    return Cut(low_value, middle, high_value)


def _median(counts: Histogram) -> int | None:
    """Return the bin up to which half of the values lie; None where there are none."""
    return int((counts.cumsum(0) >= counts.sum() / 2).nonzero()[0]) if float(counts.sum()) > 0 else None


def _centres(counts: Histogram) -> Histogram:
    return (torch.arange(len(counts), dtype=torch.float64) + 0.5) / len(counts)


RULES: dict[str, Callable[[Histogram, ThresholdSettings], Cut]] = {
    "otsu": by_otsu,
    "otsu-twice": by_two_otsu,
    "triangle": by_triangle,
    "entropy": by_entropy,
    "fixed": fixed,
}
"""The rules for a threshold. To add one: a function, one line."""

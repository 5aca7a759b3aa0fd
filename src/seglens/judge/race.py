"""A race: maps and reference rows leave it as soon as they are decided, so that few passes are made for them.

Pictures come in an order that was drawn beforehand. After some of them (`looks_of`) every map that is still
in the race is compared with the reference rows that are. What is decided is measured no further. Of each
picture some of the steps are made only, in turn: a sixth of them up to the first look, a third after it. The
mean over these has the expectation of the mean over all, and what it loses in certainty is part of its
interval.

**Error.** At a look the paired difference of two rows has a t interval that errs with the chance
``spent(t) - spent(t')`` at an end, where t is the share of the pictures that was seen and t' that at the look
before; ``spent(1)`` is `ERROR`. So all looks together err about a pair with at most that chance at each end
(Bonferroni's inequality), whatever they have to do with each other. Alpha spending: Lan and DeMets 1983,
"Discrete sequential boundaries for clinical trials"; ``spent(t) = ERROR t^p``: Kim and DeMets 1987, "Design
and analysis of group sequential tests based on the type I error spending rate function"; intervals for all
looks: Jennison and Turnbull 1989, "Interim analyses: the repeated confidence interval approach". Of groups of
pictures the variance is that of a ratio of sums (Cochran 1977, "Sampling techniques", section 2.11).

**Rules.** A map passes (``above``) where it is above the reference row with the best mean, and fails
(``below``) where that row is above it: the rule of a judgement in full, at each look. It is left
``undecided`` before the end where neither can be expected any more (`Moments.hopeless`: Lan, Simon and
Halperin 1982, "Stochastically curtailed tests in long-term clinical trials", under the trend so far), which
adds no false decisions. A reference row goes where every map in the race is above it, or where the best row
is above it at the error `IDLE`.

That t intervals hold for few and skewed numbers, and that choosing the best row at each look does no harm, is
no theorem: ``python -m benchmarks.race`` simulates how often a map passes that is no better than the best
row, and how many true differences are missed.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Float
from scipy.special import ndtr, stdtrit
from torch import Tensor

from seglens.evaluate.intervals import Groups, Interval, clusters
from seglens.judge.definitions import MIN_IMAGES
from seglens.shapes import PerImage, Rows

ERROR = 0.025
"""Chance of a false decision about a pair of rows, a side, over all looks."""

PASSING, FAILING = 2.0, 1.0
"""Powers of the share of the pictures by which the error is spent: a pass waits for more of them."""

IDLE = 0.005
"""Chance that a reference row goes because another one seemed better that isn't, for each pair."""

FUTILE, MIDDLE = 0.05, 0.3
"""Conditional power for either end below which a map is left undecided, once this share of the pictures was
seen."""

FIRST = 8
"""Pictures before the first look; each further one comes after twice as many."""

SCREENED, THINNED = 6, 3
"""One in so many steps is made of each picture, up to the first look and after it."""

End = Literal["above", "below", "undecided"]


@dataclass(frozen=True)
class Ended:
    """How a map left the race: after how many pictures, held against which row, with which interval."""

    end: End
    after: int
    reference: str
    difference: Interval


@dataclass(frozen=True)
class Race:
    """A race over ``num`` pictures, of which ``seen`` are done: the maps and reference rows still in it.

    ``tested`` are the shares of the pictures at which a map was compared last, and, without a name, the
    reference rows: what their next look may spend goes by that.
    """

    num: int
    maps: tuple[str, ...]
    references: tuple[str, ...]
    seen: int = 0
    ended: Mapping[str, Ended] = field(default_factory=dict)
    tested: Mapping[str, float] = field(default_factory=dict)

    @property
    def running(self) -> tuple[str, ...]:
        """The rows that are measured in the next pictures."""
        return (*self.maps, *self.references)

    @property
    def thinned(self) -> int:
        """One in how many steps is made of the next pictures."""
        return SCREENED if self.seen < screened_of(self.num) else THINNED

    @property
    def next_look(self) -> float:
        """How many pictures will have been seen at the next look; infinite after the last."""
        return float(next((after for after in looks_of(self.num) if after > self.seen), math.inf))


def looks_of(num: int) -> tuple[int, ...]:
    """Return after how many of ``num`` pictures is looked: 8, 16, 32 and so on, and after all of them.

    None comes when more than three quarters are seen: it would spare little.
    """
    doubled = (FIRST * 2**power for power in range(num.bit_length()))
    return (*(after for after in doubled if after <= 0.75 * num), num)


def screened_of(num: int) -> int:
    """Return of how many of ``num`` pictures a sixth of the steps is made: up to a first look of several."""
    looks = looks_of(num)
    return looks[0] if len(looks) > 1 else 0


def steps_made(num: int, steps: int) -> int:
    """Return how many of ``steps`` steps are made of ``num`` pictures together, for a row that never goes."""
    screened = screened_of(num)
    return screened * -(-steps // SCREENED) + (num - screened) * -(-steps // THINNED)


@dataclass(frozen=True)
class Moments:
    """A mean with its standard error; ``groups`` are the independent things that it stands on."""

    mean: float
    error: float
    num: int
    num_groups: int | None

    @property
    def independent(self) -> int:
        """How many independent things the mean stands on."""
        return self.num if self.num_groups is None else self.num_groups

    def interval(self, low: float, high: float) -> Interval:
        """Return the t interval that errs with the chances ``low`` and ``high`` at its two ends."""
        lower, upper = (self.error * self.bound(level) for level in (low, high))
        return Interval(self.mean, self.mean - lower, self.mean + upper, self.num, self.num_groups)

    def bound(self, level: float, share: float = 1.0) -> float:
        """Return how many standard errors are exceeded with the chance ``level``, of all pictures."""
        return float(-stdtrit(max(1.0, self.independent / share - 1), level))

    def hopeless(self, share: float) -> bool:
        """Whether neither end can be expected any more if things go on as in this ``share`` of the pictures.

        The chance to be above 0 at the end is ``Phi((z / sqrt(t) - c) / sqrt(1 - t))``, with z the mean in
        standard errors and c the bound of the error that is left; that of being below is the same of -z.
        """
        z = 0.0 if self.mean == 0 else self.mean / max(self.error, 1e-12)
        chances = (
            float(ndtr((sign * z / math.sqrt(share) - self.bound(level, share)) / math.sqrt(1 - share)))
            for sign, level in zip((1, -1), levels(share, 1.0), strict=True)
        )
        return max(chances) < FUTILE


def moments(values: PerImage, groups: Groups | None = None) -> Moments:
    """Return mean and standard error of ``values`` without the NaN ones.

    Over G groups the variance of the mean is ``G / (G - 1) sum (s_g - mean n_g)^2 / n^2``, with the sum s_g
    and the number n_g of the values of each; of groups of one that is the variance of a mean.
    """
    every = values.detach().cpu().double()
    of, kept = clusters(every.isfinite(), groups), every[every.isfinite()]
    num_groups = None if groups is None else of.num
    if of.num == len(kept) > 1:  # each stands alone
        return Moments(float(kept.mean()), float(kept.std()) / len(kept) ** 0.5, len(kept), num_groups)
    if of.num < 2:
        mean = float(kept.mean()) if len(kept) else math.nan
        return Moments(mean, math.nan, len(kept), num_groups)
    centre = kept.mean()
    apart = of.sums(kept - centre)
    error = (apart.square().sum() * of.num / (of.num - 1)).sqrt() / len(kept)
    return Moments(float(centre), float(error), len(kept), num_groups)


Measure = Callable[[Race, Rows], Mapping[str, PerImage]]
"""Measures the running rows of a race on its next pictures."""


def go_on(
    race: Race,
    order: Rows,
    measure: Measure,
    before: Mapping[str, Float[Tensor, " earlier"]],
    *,
    groups: Groups | None = None,
) -> tuple[Race, dict[str, PerImage]]:
    """Let a race go on over a batch of pictures, and return how it stands and the values of all its rows.

    Pictures come in the ``order`` of their places in the batch. ``before`` are the values of all rows on the
    pictures of earlier batches, in which ``groups`` come first.
    """
    values = {name: torch.full((len(order),), torch.nan) for name in before}
    done = 0
    while done < len(order):
        size = int(min(len(order) - done, race.next_look - race.seen))
        rows = order[done : done + size]
        for name, found in (measure(race, rows) if race.maps else {}).items():
            values[name][rows] = found
        at_look = race.seen + size == race.next_look
        race, done = replace(race, seen=race.seen + size), done + size
        if at_look and race.maps:
            race = look(
                race, {name: torch.cat([before[name], values[name]]) for name in values}, groups=groups
            )
    return race, values


def finished(race: Race, values: Mapping[str, PerImage], *, groups: Groups | None = None) -> Race:
    """Return the race at its end, also where fewer pictures came than were planned: the last look is now."""
    return look(replace(race, num=race.seen), values, groups=groups) if race.maps else race


def look(race: Race, values: Mapping[str, PerImage], *, groups: Groups | None = None) -> Race:
    """Compare the rows of a race on the pictures seen so far, and let go those that are decided.

    ``values`` hold a number for each picture seen, NaN where a row wasn't measured or is not evaluable.
    """
    share = race.seen / race.num
    ended, tested, above = dict(race.ended), dict(race.tested), dict[str, set[str]]()
    for name in race.maps:
        gaps = {null: values[name] - values[null] for null in race.references}
        shared = torch.stack(list(gaps.values())).isfinite().all(0)
        known = {null: moments(gap.where(shared, torch.nan), groups) for null, gap in gaps.items()}
        best = min(known, key=lambda null: known[null].mean)
        found = {null: each.interval(*levels(tested.get(name, 0.0), share)) for null, each in known.items()}
        enough = known[best].independent >= MIN_IMAGES
        # A map that is empty on nearly all pictures.
        hopeless = 2 * known[best].independent < MIN_IMAGES * share
        above[name] = {null for null, each in found.items() if enough and each.low > 0}
        end: End | None = "undecided" if race.seen == race.num or hopeless else None
        if enough:
            tested[name] = share
            if best in above[name]:
                end = "above"
            elif found[best].high < 0:
                end = "below"
            elif end is None and share >= MIDDLE and known[best].hopeless(share):
                end = "undecided"
        if end is not None:
            ended[name] = Ended(end, race.seen, best, found[best])
    maps = tuple(name for name in race.maps if name not in ended)
    idle, tested[""] = _idle(race, values, groups)
    idle |= set.intersection(*(above[name] for name in maps)) if maps else set()
    references = tuple(null for null in race.references if null not in idle)
    return replace(race, maps=maps, references=references, ended=ended, tested=tested)


def levels(before: float, share: float) -> tuple[float, float]:
    """Return the errors that a look may spend below and above a difference, the last look ``before``."""
    low, high = (ERROR * (share**power - before**power) for power in (PASSING, FAILING))
    return low, high


def _idle(race: Race, values: Mapping[str, PerImage], groups: Groups | None) -> tuple[set[str], float]:
    """Return the reference rows that the best one is above, and at which share they were compared last."""
    share, before = race.seen / race.num, race.tested.get("", 0.0)
    best = max(race.references, key=lambda null: float(values[null].nanmean().nan_to_num(nan=-math.inf)))
    behind = {null: moments(values[best] - values[null], groups) for null in race.references if null != best}
    if not behind or min(each.independent for each in behind.values()) < MIN_IMAGES:
        return set(), before
    level = IDLE * (share - before)
    return {null for null, each in behind.items() if each.interval(level, level).low > 0}, share

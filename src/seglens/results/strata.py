"""Scores of subgroups: the strata that a table of pictures names, and whether pictures give them away."""

from collections.abc import Mapping

from seglens.results.spread import Spread
from seglens.results.tables import Number, Result


class Stratum(Result):
    """The pictures with one value of a column: their scores, and how they differ from all others in Dice.

    ``difference`` is their mean Dice less that of the other pictures. ``p_value`` is that of one comparison,
    ``p_adjusted`` is for all ``comparisons`` of the table; both are None where too few groups are on a side.
    """

    column: str
    value: str
    num: int = 0
    num_groups: int = 0
    scores: Mapping[str, Spread] = {}
    difference: Spread = Spread()
    p_value: Number = None
    p_adjusted: Number = None
    differs: bool = False


class Leak(Result):
    """How well a small classifier tells a stratum from all others by a part of the pictures alone.

    ``place`` is ``border`` or ``background``; ``null_high`` is what 95 % of classifiers stay below that learn
    shuffled strata. It ``tells`` where that is passed, after adjusting for the number of tests.
    """

    column: str
    value: str
    place: str
    auroc: Spread = Spread()
    null_high: Number = None
    p_value: Number = None
    p_adjusted: Number = None
    tells: bool = False


class StrataTable(Result):
    """Strata, the one with the worst Dice first; ``left_out`` says why a column was not looked at."""

    strata: tuple[Stratum, ...] = ()
    comparisons: int = 0
    leaks: tuple[Leak, ...] = ()
    left_out: Mapping[str, str] = {}

    @property
    def telling(self) -> tuple[Leak, ...]:
        """The parts of pictures that give strata away, the surest first."""
        found = [leak for leak in self.leaks if leak.tells]
        return tuple(sorted(found, key=lambda leak: -(leak.auroc.mean or 0.0)))

    @property
    def sentences(self) -> tuple[str, ...]:
        """What to know: who differs, after how many comparisons, and what gives a stratum away."""
        lines = [
            f"{found.column} {found.value}: Dice is {abs(found.difference.mean or 0):.3f} "
            f"{'lower' if (found.difference.mean or 0) < 0 else 'higher'} than elsewhere "
            f"(p = {found.p_adjusted:.3f} after Holm for {self.comparisons} comparisons)."
            for found in self.strata
            if found.differs and found.p_adjusted is not None
        ]
        if self.comparisons and not lines:
            lines = [
                f"No stratum differs for certain from the others ({self.comparisons} comparisons, adjusted "
                "by Holm); with few pictures that is no proof of equality."
            ]
        lines += [
            f"The {leak.place} alone tells {leak.column} {leak.value} from the others (AUROC "
            f"{leak.auroc.mean:.2f}): a model can, too. Look there first: --audit auto."
            for leak in self.telling
        ]
        return (*lines, *(f"{name}: {reason}" for name, reason in self.left_out.items()))

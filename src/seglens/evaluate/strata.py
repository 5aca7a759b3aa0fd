"""Subgroups: the scores of each stratum of a table, worst first, and which of them differ from the rest."""

from collections.abc import Mapping, Sequence
from math import nan

import torch

from seglens.data.groups import spelt_alike
from seglens.evaluate.intervals import Groups, difference, holm, interval, numbered
from seglens.evaluate.surroundings import leaks
from seglens.results.scores import SCORES, SURFACES, PictureScores
from seglens.results.strata import StrataTable, Stratum

MOST = 12
"""Values of a column that are taken as strata; more are numbers, to be put into bands first."""

FEWEST = 8
"""Groups that a comparison takes on either side."""

DEFINITIONS = {
    "strata": "Strata: pictures that share a value in a column of the table of groups, such as one "
    "scanner. Each has its scores and 95 % intervals over groups. The difference is the mean Dice of a "
    "stratum less that of all other pictures. It is computed where both sides have 8 groups or more. "
    "p-values invert the bootstrap interval and are adjusted for all comparisons of the table (Holm "
    "1979). A stratum differs where its adjusted p-value is below .05.",
}


def strata_table(
    rows: Sequence[PictureScores],
    strata: Sequence[Mapping[str, str]],
    surroundings: Sequence[Mapping[str, Sequence[float]]] = (),
) -> StrataTable:
    """Return the scores of each stratum; ``strata`` are the columns of each of ``rows``, with its value.

    ``surroundings`` are numbers of each picture's border and background, for the leak test.
    """
    columns = {
        name: [found[name] for found in strata] for name in dict.fromkeys(n for f in strata for n in f)
    }
    left_out = {name: reason for name, values in columns.items() if (reason := _why_not(values))}
    columns = {name: values for name, values in columns.items() if name not in left_out}
    groups = numbered([row.group for row in rows])
    dice = _column(rows, "dice")
    found = [
        _stratum(rows, name, value, torch.tensor([each == value for each in values]), dice, groups)
        for name, values in columns.items()
        for value in sorted(set(values))
    ]
    # Of two values the one's difference is the other's: one comparison.
    twice = {name: sorted(set(values))[1] for name, values in columns.items() if len(set(values)) == 2}
    tested = [each for each in found if each.p_value is not None and twice.get(each.column) != each.value]
    adjusted = holm([each.p_value or 0.0 for each in tested])
    by_stratum = {(each.column, each.value): p for each, p in zip(tested, adjusted, strict=True)}
    for name, value in twice.items():
        other = next(each.value for each in found if each.column == name and each.value != value)
        if (name, other) in by_stratum:
            by_stratum[name, value] = by_stratum[name, other]
    found = [
        each.model_copy(update={"p_adjusted": p, "differs": p < 0.05})
        if (p := by_stratum.get((each.column, each.value))) is not None
        else each
        for each in found
    ]
    return StrataTable(
        strata=tuple(sorted(found, key=_worst_first)),
        comparisons=len(tested),
        leaks=leaks(surroundings, columns, groups) if surroundings and columns else (),
        left_out=left_out,
    )


def _stratum(
    rows: Sequence[PictureScores],
    column: str,
    value: str,
    inside: torch.Tensor,
    dice: torch.Tensor,
    groups: Groups,
) -> Stratum:
    scores = {
        name: interval(torch.where(inside, _column(rows, name), nan), groups=groups).spread()
        for name in (*SCORES, *SURFACES)
    }
    known = ~dice.isnan()
    sides = [len(set(groups[side & known].tolist())) for side in (inside, ~inside)]
    gap, p_value = difference(dice, inside, groups=groups)
    return Stratum(
        column=column,
        value=value,
        num=int(inside.sum()),
        num_groups=len(set(groups[inside].tolist())),
        scores=scores,
        difference=gap.spread(),
        p_value=p_value if min(sides) >= FEWEST else None,
    )


def _why_not(values: Sequence[str]) -> str:
    """Return why a column makes no strata; nothing where it does."""
    num = len(set(values))
    if num == 1:
        return f"all rows have {values[0]!r}, there is nothing to compare."
    if num > MOST:
        return f"{num} different values in {len(values)} rows are too many; use bands, such as 60-69."
    if alike := spelt_alike(values):
        return f"{', '.join(alike)} look like one value; write it in one way."
    return ""


def _column(rows: Sequence[PictureScores], name: str) -> torch.Tensor:
    return torch.tensor([nan if row[name] is None else row[name] for row in rows], dtype=torch.float64)


def _worst_first(found: Stratum) -> float:
    dice = found.scores["dice"].mean
    return float("inf") if dice is None or dice != dice else dice

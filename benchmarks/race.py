"""How often a race passes a map that is no better than the best reference row, and what it misses.

    python -m benchmarks.race [--tables 1000] [--images 32 100]

Score tables are drawn, raced as `judge` races them (at a third of the steps), and also judged in full: every
row at every step of every picture, and a bootstrap interval of the difference to the best row. A table has
the nine reference rows and one map. A value is

    mean of the row + how hard the picture is + what is the row's own on the picture, at the step, at both

Means and deviations are about those of maps and rows of a U-Net on 30 test pictures of `tumor-polygons`: rows
that know the mask differ by .05 to .1 on a picture, others by .2 to .7. Tables differ in what is best and in
the shape of the noise:

- ``one``: one row is the best, and the map equals it in the mean;
- ``tied``: all rows that know the mask are equally good, and so is the map;
- ``behind``: the best row is not the one that looks best early: it varies most, two rows are just behind it;
- ``skewed``: as ``one``, the noise is exponential: most pictures lose a little, few gain much;
- ``heavy``: as ``one``, the noise has three degrees of freedom;
- ``groups``: as ``one``, pictures come in groups of three that have half of their noise in common.

In each the map is as good as the best row (false passes), in the first also better and worse by `GAPS`. The
table goes to ``benchmarks/JUDGED.md``.
"""

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.judged import replace_table, table
from seglens.evaluate.intervals import interval
from seglens.judge.definitions import MIN_IMAGES
from seglens.judge.faithfulness import some_of
from seglens.judge.nulls import NULLS
from seglens.judge.race import Race, finished, go_on
from seglens.shapes import PerImage, Rows

STEPS = 12
"""Steps of a picture at the target's scale."""

PICTURE, OWN, AT_STEP, REST = 0.4, 0.2, 0.4, 0.35
"""Deviations of the four parts of a value, in this order."""

LIKE = 0.3
"""Rows that know the mask have this share of the last three; of the map's it is drawn whether it is like
them."""

BEST = 0.8
MEANS = {
    "random": 0.0,
    "centre": 0.45,
    "edges": 0.3,
    "mirror-1": BEST - 0.03,
    "mirror-4": BEST,
    "mirror-16": BEST - 0.05,
    "mirror-32": BEST - 0.2,
    "distance": BEST - 0.1,
    "probability": BEST - 0.02,
}
"""Of the reference rows, about as in JUDGED.md."""

KNOWING = ("mirror-1", "mirror-4", "mirror-16", "probability")
KINDS = ("one", "tied", "behind", "skewed", "heavy", "groups")
GAPS = (0.0, 0.05, 0.1, 0.2, -0.05, -0.1, -0.2)
MAP = "map"


@dataclass(frozen=True)
class Table:
    """Values by row, picture and step; the groups of pictures."""

    values: Mapping[str, Tensor]
    groups: Tensor | None


def drawn(kind: str, num: int, gap: float, generator: torch.Generator) -> Table:
    """Draw a table of ``num`` pictures, in which the map is better than the best row by ``gap``."""
    groups = torch.arange(num) // 3 if kind == "groups" else None

    def noise(*shape: int) -> Tensor:
        normal = torch.randn(*shape, generator=generator)
        if kind == "skewed":
            return torch.empty(*shape).exponential_(generator=generator) - 1
        if kind == "heavy":
            squares = torch.randn(3, *shape, generator=generator).square().sum(0)
            return normal / squares.div(3).sqrt() / 3**0.5
        if groups is not None:
            shared = torch.randn(num, *shape[1:], generator=generator)[groups]
            return (normal + shared) / 2**0.5
        return normal

    means = dict(MEANS)
    if kind == "tied":
        means |= dict.fromkeys(KNOWING, BEST)
    if kind == "behind":
        means |= {"mirror-1": BEST - 0.01, "probability": BEST - 0.01}
    means[MAP] = BEST + gap
    like = bool(torch.rand((), generator=generator) < 0.5)
    common, values = PICTURE * noise(num, 1), {}
    for name, mean in means.items():
        size = LIKE if name in KNOWING or (name == MAP and like) else 1
        size *= 3 if kind == "behind" and name == "mirror-4" else 1
        at_step = AT_STEP * torch.randn(STEPS, generator=generator)
        own = OWN * noise(num, 1) + (at_step - at_step.mean()) + REST * noise(num, STEPS)
        values[name] = mean + common + size * own
    return Table(values, groups)


def raced(of: Table) -> tuple[str, int]:
    """Return how the map leaves the race, and how many steps were made of all rows."""
    num, made = len(of.values[MAP]), 0
    nulls = tuple(name for name in of.values if name != MAP)

    def measure(race: Race, rows: Rows) -> Mapping[str, PerImage]:
        nonlocal made
        every = torch.ones(len(rows), 2, STEPS // 2, dtype=torch.bool)
        steps = some_of(every, torch.arange(race.seen, race.seen + len(rows)), race.thinned).flatten(1)
        made += len(race.running) * int(steps.sum())
        return {name: of.values[name][rows].where(steps, torch.nan).nanmean(1) for name in race.running}

    start = Race(num, (MAP,), nulls)
    known = {name: torch.empty(0) for name in of.values}
    race, values = go_on(start, torch.arange(num), measure, known, groups=of.groups)
    return finished(race, values, groups=of.groups).ended[MAP].end, made


def in_full(of: Table) -> str:
    """Return what the bootstrap says of all pictures and steps."""
    means = {name: values.mean(1) for name, values in of.values.items()}
    best = max((name for name in means if name != MAP), key=lambda name: float(means[name].mean()))
    found = interval(means[MAP] - means[best], groups=of.groups)
    assert found.independent >= MIN_IMAGES
    return "above" if found.low > 0 else "below" if found.high < 0 else "undecided"


def simulated(kind: str, num: int, gap: float, tables: int) -> tuple[object, ...]:
    """Return a row of the table: how often the map passes and fails in a race and in full, and the steps
    made."""
    generator = torch.Generator().manual_seed(0)
    ends, fulls, made = list[str](), list[str](), 0
    for _ in range(tables):
        of = drawn(kind, num, gap, generator)
        end, steps = raced(of)
        ends.append(end)
        fulls.append(in_full(of))
        made += steps
    whole = tables * num * STEPS * (len(MEANS) + 1)
    shares = [f"{each.count(end) / tables:.1%}" for end in ("above", "below") for each in (ends, fulls)]
    same = sum(one == other for one, other in zip(ends, fulls, strict=True)) / tables
    opposite = sum({one, other} == {"above", "below"} for one, other in zip(ends, fulls, strict=True))
    return kind, num, tables, f"{gap:+.2f}", *shares, f"{same:.0%}", opposite, f"{whole / made:.1f}"


COLUMNS = (
    "table",
    "pictures",
    "tables",
    "map better by",
    "passes in a race",
    "in full",
    "fails in a race",
    "in full",
    "same verdict",
    "opposite ones",
    "times fewer steps",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", type=int, default=1000, help="where the map is as good as the best row")
    parser.add_argument("--gap-tables", type=int, default=300, help="where it is better or worse")
    parser.add_argument("--images", type=int, nargs="*", default=[32, 100])
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=list(KINDS))
    parser.add_argument("--gaps", type=float, nargs="*", default=list(GAPS))
    parser.add_argument("--show", action="store_true", help="only print the table")
    arguments = parser.parse_args()
    assert set(MEANS) == set(NULLS), "the reference rows of this script are not those of the judge"
    torch.set_num_threads(1)
    rows = []
    for num in arguments.images:
        for kind in arguments.kinds:
            for gap in arguments.gaps if kind == KINDS[0] else [0.0]:
                began = time.monotonic()
                tables = arguments.gap_tables if gap else arguments.tables
                rows.append(simulated(kind, num, gap, tables))
                print(*rows[-1], f"{time.monotonic() - began:.0f} s", flush=True)
    if not arguments.show:
        replace_table("race", table(COLUMNS, rows))


if __name__ == "__main__":
    main()

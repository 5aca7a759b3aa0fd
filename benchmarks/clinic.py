"""How much wider intervals are that resample groups: the same scores, with and without groups.

    python -m benchmarks.clinic --data ../shared/data --runs runs/clinic [--only tumor ...]

Trains a small U-Net for a few epochs on each set (a run that is there is taken), evaluates it on the
splits that the set comes with, and prints a line for each split and score. The table is in CLINIC.md.
"""

import argparse
from math import nan
from pathlib import Path

import torch

from benchmarks.training import seglens
from seglens.evaluate.intervals import Interval, interval, numbered
from seglens.results.scores import EvaluationTable
from seglens.results.tables import read_table

SETS = {"tumor": "2", "tumor-polygons": "2", "slices": "1"}
"""Set below --data, and epochs; ``slices`` are those of the hippocampus set, grouped by volume."""

SLICES, HIPPOCAMPUS = "slices", "Dataset004_Hippocampus"

TRAIN = ["--model", "unet", "--width", "8", "--image-size", "96", "--batch-size", "8", "--seed", "0"]


def scores_of(run: Path, data: Path, epochs: str, split: str) -> EvaluationTable:
    """Train and evaluate what is not there yet; return the scores."""
    more = ["--masks", "foreground"] if data.name == SLICES else []
    if data.name == SLICES:
        made = run.parent / "slices-set"
        if not made.exists():
            seglens("data", "slices", str(data.parent / HIPPOCAMPUS), str(made))
        data = made
    if not (run / "run.json").exists():
        seglens("train", str(data), "--run", str(run), "--epochs", epochs, *TRAIN, *more)
    if not (run / "evaluate" / split).exists():
        seglens("evaluate", str(run), "--split", split)
    return read_table(run / "evaluate" / split / "scores.json", EvaluationTable)


def both(table: EvaluationTable, score: str) -> tuple[Interval, Interval]:
    """Return the interval of a score over pictures, and over their groups."""
    rows = [row for row in table.images if row.status != "failed"]
    values = torch.tensor([nan if row[score] is None else row[score] for row in rows], dtype=torch.float64)
    return interval(values), interval(values, groups=numbered([row.group for row in rows]))


def width(found: Interval) -> float:
    """Return how far apart the bounds are."""
    return found.high - found.low


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=list(SETS), default=list(SETS))
    given = parser.parse_args()
    print("| set, split | pictures | groups | score | mean | over pictures | over groups | wider |")
    print("|---|---|---|---|---|---|---|---|")
    for name in given.only:
        for split in ("valid", "test"):
            table = scores_of(given.runs / name, given.data / name, SETS[name], split)
            for score in ("dice", "nsd", "recall"):
                blind, honest = both(table, score)
                cells = [f"{each.low:.3f} to {each.high:.3f}" for each in (blind, honest)]
                wider = width(honest) / width(blind)
                print(
                    f"| {name}, {split} | {blind.num} | {honest.num_groups} | {score} | {blind.mean:.3f} | "
                    f"{cells[0]} | {cells[1]} | {wider:.2f} times |"
                )


if __name__ == "__main__":
    main()

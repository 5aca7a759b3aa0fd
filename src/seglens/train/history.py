"""The table of a training, one row for each epoch; the best epoch, early stopping and learning curves."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf, isnan, nan
from pathlib import Path

from seglens.files.output import new_file

COLUMNS = (
    "epoch",
    "train_loss",
    "valid_loss",
    "valid_dice",
    "valid_iou",
    "learning_rate",
    "seconds",
    "images_per_second",
)
"""Scores are pooled, at the network's size. ``seconds`` is the whole epoch; ``images_per_second`` is that of
its training part alone."""


Row = dict[str, int | float]


@dataclass(frozen=True)
class History:
    """One row an epoch; epochs count from 1."""

    rows: list[Row] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Append the row of an epoch; what it lacks is NaN."""
        self.rows.append({name: row.get(name, nan) for name in COLUMNS})

    def best(self) -> Row:
        """Return the row of the highest Dice on the valid split, else the last row.

        Of equals it is that of the lowest loss there, and the first of those: while nothing is found yet Dice
        is 0 in every epoch, and the first of them has learned the least.
        """
        scored = [row for row in self.rows if not isnan(row["valid_dice"])]
        return max(scored, key=_merit) if scored else self.rows[-1]

    def is_over(self, patience: int | None) -> bool:
        """Whether ``patience`` epochs have passed since the best one; without a valid split, never."""
        return bool(patience and self.rows and self.rows[-1]["epoch"] - self.best()["epoch"] >= patience)

    def speed(self) -> float:
        """Return the images a second of the median epoch."""
        return sorted(row["images_per_second"] for row in self.rows)[len(self.rows) // 2]

    def write(self, file: Path) -> None:
        """Write the table as CSV."""
        with new_file(file, force=True) as temporary, temporary.open("w", newline="") as stream:
            table = csv.DictWriter(stream, COLUMNS)
            table.writeheader()
            table.writerows(self.rows)


def _merit(row: Row) -> tuple[float, float]:
    loss = row["valid_loss"]
    return row["valid_dice"], -inf if isnan(loss) else -loss


PANELS = (
    ("loss", {"train": "train_loss", "valid": "valid_loss"}),
    ("Dice and IoU, pooled, valid split", {"Dice": "valid_dice", "IoU": "valid_iou"}),
    ("learning rate", {"": "learning_rate"}),
)
"""Title of a panel, and its lines: name and column of the history."""


def learning_curves(rows: Sequence[Row], file: Path) -> None:
    """Draw the columns of a training's history over the epochs and write them as a picture to ``file``."""
    # Figure without pyplot: no window system, and no state that outlives the call.
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(4.2 * len(PANELS), 3.2), layout="constrained")
    for axes, (title, lines) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        for name, column in lines.items():
            values = [row[column] for row in rows]
            axes.plot([row["epoch"] for row in rows], values, marker="o", markersize=3, label=name)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if len(lines) > 1:
            axes.legend(fontsize=8)
    with new_file(file, force=True) as temporary:
        figure.savefig(temporary, dpi=120)

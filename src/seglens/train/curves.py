"""The picture of a training's learning curves."""

from collections.abc import Sequence
from pathlib import Path

from seglens.files.output import new_file
from seglens.train.history import Row

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

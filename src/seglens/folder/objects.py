"""Objects that are predicted: a table of them, and masks that hold their numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as pil
from scipy import ndimage

from seglens.data.sample import Sample, Task
from seglens.data.volumes.writing import write_mask
from seglens.errors import DataError
from seglens.exports import Marked
from seglens.folder.writer import label_folders
from seglens.masks import is_stack, of_class
from seglens.objects import pieces, split_touching
from seglens.predict.original import Probability
from seglens.results.tables import write_rows
from seglens.shapes import AnyMask, Mask

FILE_NAME, FOLDER = "objects.csv", "instances"

Row = dict[str, Any]


@dataclass(frozen=True)
class Numbered:
    """The objects of a predicted mask: a row for each, and masks that hold their numbers.

    ``masks`` is one mask, or, where classes may overlap, one for each of them, by the name of its folder.
    """

    rows: list[Row]
    masks: Mapping[str, Mask]

    def marked(self, task: Task) -> list[Marked]:
        """Return the objects as they are exported."""
        numbers = [row["number"] for row in self.rows]
        categories = {number: str(row["class"]) for number, row in zip(numbers, self.rows, strict=True)}
        scores = {
            n: row["probability"] for n, row in zip(numbers, self.rows, strict=True) if row["probability"]
        }
        colours = dict(zip(task.classes, task.palette, strict=False))
        return [Marked(mask, categories, scores, colours, place) for place, mask in self.masks.items()]


def number_objects(
    task: Task, sample: Sample, mask: AnyMask, probabilities: Probability | None, *, split: bool = False
) -> Numbered:
    """Number the objects of a predicted ``mask``.

    Numbers run from 1 through all classes, the largest object of a class first. Where classes may overlap,
    each has a mask of its own. Sizes and centroids are in pixels (columns from the left, rows from the top),
    of a volume with a grid in cubic millimetres and in millimetres of the patient. ``probabilities`` are of
    every class at the mask's size; where they are not kept there is no mean of them.
    """
    dims = sample.valid.ndim
    rows: list[Row] = []
    numbers = torch.zeros(mask.shape[-dims:], dtype=torch.int64)
    places, masks = label_folders(task), {}
    for index, label in enumerate(task.classes[1:], start=1):
        region = of_class(mask, index, dims)
        found = _largest_first(split_touching(region, sample.spacing) if split else pieces(region))
        one = None if probabilities is None else probabilities[index].numpy()
        rows += [
            {"name": sample.name, "class": label, "number": number + len(rows), **row}
            for number, row in enumerate(_described(found.numpy(), one, sample), start=1)
        ]
        first = len(rows) - int(found.max())
        own = torch.where(found > 0, found + first, 0)
        if is_stack(mask):
            masks[places[index - 1]] = own
        else:
            numbers = torch.where(own > 0, own, numbers)
    return Numbered(rows, masks if is_stack(mask) else {"": numbers})


def write_objects(numbered: Numbered, sample: Sample, folder: Path, name: str) -> None:
    """Write the masks that hold the objects' numbers below ``instances/``.

    Raises:
        DataError: there are more objects than 16 bits can number.
    """
    for place, numbers in numbered.masks.items():
        _save(numbers, sample, folder / FOLDER / place, name)


def write_table(rows: Sequence[Row], folder: Path) -> None:
    """Write the rows of all pictures."""
    write_rows(rows, folder / FILE_NAME)


def _largest_first(labels: Mask) -> Mask:
    sizes = torch.bincount(labels.flatten(), minlength=1)[1:]
    place = torch.zeros(len(sizes) + 1, dtype=torch.int64)
    place[1 + sizes.argsort(descending=True, stable=True)] = torch.arange(1, len(sizes) + 1)
    return place[labels]


def _described(labels: np.ndarray, probability: np.ndarray | None, sample: Sample) -> list[Row]:
    """Return size, centroid and mean probability of each object, in the order of their numbers."""
    num = int(labels.max())
    if not num:
        return []
    grid, each = sample.grid, range(1, num + 1)
    sizes = np.bincount(labels.ravel(), minlength=num + 1)[1:]
    here = labels if grid is None else grid.from_zyx(labels)
    centres = ndimage.center_of_mass(np.ones(here.shape, np.uint8), here, each)
    means = ndimage.mean(probability, labels, each) if probability is not None else [None] * num
    rows: list[Row] = []
    for pixels, centre, mean in zip(sizes, centres, means, strict=True):
        row: Row = {"pixels": int(pixels)}
        if grid is None:
            row |= dict(zip(("x", "y", "z"), map(float, centre[::-1]), strict=False))
        else:
            row |= {"mm3": float(pixels) * grid.voxel_ml * 1000}
            row |= dict(zip(("x_mm", "y_mm", "z_mm"), grid.world(centre), strict=True))
        rows.append(row | {"probability": None if mean is None else float(mean)})
    return rows


def _save(numbers: Mask, sample: Sample, folder: Path, name: str) -> None:
    if int(numbers.max()) > 65535:
        raise DataError(f"{sample.name} has {int(numbers.max())} objects; 65535 can be numbered in a mask.")
    folder.mkdir(parents=True, exist_ok=True)
    if sample.grid is not None:
        write_mask(folder / f"{name}.nii.gz", sample.grid.from_zyx(numbers.numpy()), sample.grid)
    else:
        pil.fromarray(numbers.numpy().astype(np.uint16)).save(folder / f"{name}.png")

"""Errors for other programs: objects that were found, missed or invented, each kind a category of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from seglens import exports
from seglens.data.sample import Task
from seglens.evaluate.objects import DETECTED, Objects
from seglens.exports import Marked
from seglens.files.output import safe_name
from seglens.shapes import Mask

FOUND, MISSED, INVENTED = "found", "missed", "invented"
COLOURS = {FOUND: "#1eb46e", MISSED: "#40a0ff", INVENTED: "#e66100"}
"""The colours that the report has for the same."""


@dataclass(frozen=True)
class Errors:
    """Where the objects of an evaluation are written, and in which formats of `seglens.exports`.

    ``files`` are those of the split's pictures, as the exports name them.
    """

    folder: Path
    formats: Sequence[str] = ()
    files: Sequence[str] = ()

    def write(
        self,
        task: Task,
        place: str,
        index: int,
        labels: Mapping[str, tuple[Mask, Mask]],
        objects: Mapping[str, Objects],
    ) -> None:
        """Write the objects of one picture: ``labels`` are true and predicted numbers for each class.

        Raises:
            DataError: there are more objects than a format can hold.
        """
        if self.formats:
            size = next(iter(labels.values()))[0].shape
            picture = exports.Picture(place, self.files[index], (size[0], size[1]))
            marked = [each for name in labels for each in kinds(name, *labels[name], objects[name])]
            exports.write_picture(self.formats, picture, marked, self.folder)


NO_ERRORS = Errors(Path())
"""Nothing is exported."""


def categories(task: Task) -> list[str]:
    """Return the categories of exported objects: three for each class."""
    return [f"{name} {kind}" for name in task.classes[1:] for kind in COLOURS]


def kinds(name: str, truth: Mask, predicted: Mask, objects: Objects) -> list[Marked]:
    """Return the objects of a class that were found (as predicted), missed (as in the truth) and invented.

    An object is found where it has a match of an overlap of `DETECTED` at least, as the tables count.
    """
    used, matched = (side[DETECTED] > 0 for side in (objects.used, objects.matched))
    chosen = {FOUND: (predicted, used), MISSED: (truth, ~matched), INVENTED: (predicted, ~used)}
    return [_marked(name, kind, *which) for kind, which in chosen.items()]


def _marked(name: str, kind: str, numbers: Mask, keep: np.ndarray) -> Marked:
    """Return the objects to ``keep``, in the order of their numbers, numbered from 1."""
    known = np.unique(numbers[numbers > 0].numpy())
    new = torch.zeros(int(numbers.max().clamp(min=0)) + 1, dtype=torch.int64)
    new[known[keep]] = torch.arange(1, int(keep.sum()) + 1)
    category = f"{name} {kind}"
    return Marked(
        new[numbers.clamp(min=0)],
        dict.fromkeys(range(1, int(keep.sum()) + 1), category),
        colours={category: COLOURS[kind]},
        folder=safe_name(category),
    )

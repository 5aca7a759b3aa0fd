"""What is exported of a picture: which objects are where, and what each is."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os.path import commonpath
from pathlib import Path

import numpy as np
from scipy import ndimage

from seglens.shapes import Mask


@dataclass(frozen=True)
class Picture:
    """A picture of which objects are exported.

    ``place`` names its files, and no other picture's. ``file`` is the picture's own file, as seen from the
    folder that holds all pictures. ``size`` is rows, columns.
    """

    place: str
    file: str
    size: tuple[int, int]


@dataclass(frozen=True)
class Marked:
    """Objects that don't overlap: the number of the object at each pixel (0 where none is).

    ``categories`` says what each number is, ``scores`` how sure the model is of it, where that is known.
    Objects that may overlap are in several of these, each with a ``folder`` of its own for label images.
    """

    numbers: Mask
    categories: Mapping[int, str]
    scores: Mapping[int, float] = field(default_factory=dict)
    colours: Mapping[str, str] = field(default_factory=dict)
    folder: str = ""


@dataclass(frozen=True)
class Cut:
    """One object cut out of its picture: its pixels in a box that begins at ``top``, ``left``."""

    number: int
    inside: np.ndarray
    top: int
    left: int


def cut_out(numbers: Mask) -> Iterator[Cut]:
    """Yield each object, in the order of their numbers."""
    labels = numbers.numpy()
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is not None:
            yield Cut(number, labels[box] == number, box[0].start, box[1].start)


def files_from_here(files: Sequence[Path]) -> list[str]:
    """Return the files as seen from the folder that holds them all, with ``/`` between folders.

    >>> files_from_here([Path("set/a/1.png"), Path("set/b/1.png")])
    ['a/1.png', 'b/1.png']
    """
    parents = [str(file.absolute().parent) for file in files]
    top = commonpath(parents)
    return [file.absolute().relative_to(top).as_posix() for file in files]

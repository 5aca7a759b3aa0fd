"""A map of a volume as a montage: slices of one plane side by side, from the first to the last."""

from collections.abc import Sequence
from dataclasses import replace

from seglens.drawing.draw import Tile
from seglens.drawing.planes import Planes
from seglens.errors import unknown_name

PLANES = {"axial": 0, "coronal": 1, "sagittal": 2}
"""The axis of the volume that runs through the slices of a plane."""

MOST, ACROSS = 24, 6
"""Slices in a montage, and in one row of it."""


def check_plane(plane: str | None) -> None:
    """Refuse a plane that there is none of.

    Raises:
        UnknownNameError: there is no such plane.
    """
    if plane is not None and plane not in PLANES:
        raise unknown_name("plane", plane, PLANES)


def slices_of(planes: Planes, size: Sequence[int], plane: str) -> dict[int, Planes]:
    """Return by its number what draws each slice: all, or `MOST` spread evenly, one of them the centre's."""
    axis = PLANES[plane]
    length, centre = size[axis], planes.centre[axis]
    if length <= MOST:
        numbers = list(range(length))
    else:
        numbers = [round(place * (length - 1) / (MOST - 1)) for place in range(MOST)]
        nearest = min(range(MOST), key=lambda place: abs(numbers[place] - centre))
        numbers[nearest] = centre
    centres = {number: (*planes.centre[:axis], number, *planes.centre[axis + 1 :]) for number in numbers}
    return {
        number: replace(planes, centre=(at[0], at[1], at[2]), shown=(axis,)) for number, at in centres.items()
    }


def rows_of(tiles: Sequence[Tile]) -> list[list[Tile]]:
    """Return the tiles of a montage line by line."""
    return [list(tiles[first : first + ACROSS]) for first in range(0, len(tiles), ACROSS)]

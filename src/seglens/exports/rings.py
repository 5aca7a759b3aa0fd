"""The outline of a region along the edges of its pixels: exact, with holes, no corner invented or lost."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

Ring = list[tuple[int, int]]
"""Corners x, y of a closed line; the first corner comes again at the end."""

STEPS = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])
"""Right, down, left, up, as x and y; y grows downwards."""


@dataclass(frozen=True)
class Piece:
    """Pixels that touch at their sides: the line around them, and one around each hole."""

    outer: Ring
    holes: tuple[Ring, ...] = ()


def pieces_of(inside: np.ndarray) -> list[Piece]:
    """Return the outlines of a region; pixel (row, column) is the square from (column, row) to one further.

    Pixels that touch at a corner only are pieces that share that corner, so that every ring is simple: it
    meets no corner twice (OGC 06-103r4, 6.1.11). Outer rings run with a positive area in x and y as written,
    holes the other way (RFC 7946, 3.1.6).
    """
    labels, num = ndimage.label(inside)  # neighbours at the sides
    found = []
    for number, box in enumerate(ndimage.find_objects(labels, num), start=1):
        corner = (box[1].start, box[0].start)
        rings = _rings(labels[box] == number, corner)
        outer = [ring for ring in rings if _area(ring) > 0]
        assert len(outer) == 1
        found.append(Piece(outer[0], tuple(ring for ring in rings if _area(ring) < 0)))
    return found


def _rings(inside: np.ndarray, corner: tuple[int, int]) -> list[Ring]:
    """Walk along the edges of one piece, its pixels on the right hand; return rings that are simple."""
    width = inside.shape[1] + 1
    starts = _edges(inside)
    # Each edge is known by the corner where it starts and its direction. Two may start at one corner.
    ends = {}
    for direction, at in enumerate(starts):
        x, y = at % width, at // width
        step = STEPS[direction]
        for here, there in zip(at.tolist(), ((y + step[1]) * width + x + step[0]).tolist(), strict=True):
            ends[here, direction] = there
    rings: list[Ring] = []
    while ends:
        path = [next(iter(ends))]
        place = {path[0][0]: 0}
        here = path[0]
        while True:
            there = ends.pop(here)
            # At a corner where four edges meet, turn right: stay with the same pixel.
            turn = next((t for t in (1, 0, 3) if (there, (here[1] + t) % 4) in ends), None)
            if there in place:
                first = place[there]
                rings.append(_ring(path[first:], width, corner))
                for corner_left, _ in path[first:]:
                    del place[corner_left]
                path = path[:first]
                if not path:
                    break
            assert turn is not None
            here = (there, (here[1] + turn) % 4)
            place[there] = len(path)
            path.append(here)
    return rings


def _edges(inside: np.ndarray) -> list[np.ndarray]:
    """Return where edges start that go right, down, left and up, each with the region on its right hand."""
    padded = np.pad(inside, 1)
    middle = padded[1:-1, 1:-1]
    width = inside.shape[1] + 1
    # Above a pixel the edge goes right, right of it down, below it left, left of it up.
    free = (padded[:-2, 1:-1], padded[1:-1, 2:], padded[2:, 1:-1], padded[1:-1, :-2])
    offsets = ((0, 0), (1, 0), (1, 1), (0, 1))
    found = []
    for neighbour, (right, down) in zip(free, offsets, strict=True):
        y, x = np.nonzero(middle & ~neighbour)
        found.append((y + down) * width + x + right)
    return found


def _ring(path: list[tuple[int, int]], width: int, corner: tuple[int, int]) -> Ring:
    """Return the corners at which a path turns, as x and y of the picture."""
    turns = [
        start for (start, way), (_, before) in zip(path, path[-1:] + path[:-1], strict=True) if way != before
    ]
    points = [(start % width + corner[0], start // width + corner[1]) for start in turns]
    return [*points, points[0]]


def _area(ring: Ring) -> float:
    x, y = np.array(ring).T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum()) / 2

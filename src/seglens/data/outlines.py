"""Outlines of objects: checked and typed before they are drawn, so that no C code meets what it can't bear.

`parse` turns what a file says into polygons and run lengths, `check_position` holds them against the picture;
`regions` draws them, one region for each annotation, and `index_mask` lays these over one another. Source
of the format: https://cocodataset.org/#format-data; pycocotools fills polygons.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as rle

from seglens.data.orientation import UPRIGHT, Header, frame_orientation, header_or_none
from seglens.data.picture_files import turned_upright
from seglens.errors import DataError
from seglens.shapes import Image, Labels, Mask, Region

MARGIN = 1
"""Widths (heights) of a picture that an outline may reach out of it: what lies outside is cut off."""
ALIKE = 0.5
"""The smallest share of intersection over union at which a box is that of an outline."""
ROUNDED = 3.0
"""Pixels by which each side of a box may be off all the same, as those of tiny objects are."""
TORN = 4.0
"""Run lengths whose edge is so many times shorter when they are read row by row were written so."""
FEWEST_RUNS = 4
"""Of fewer runs too little can be said."""
MOST_RUN_DIGITS = 7
"""Characters of five bits in one run length of compressed RLE: more than any picture needs."""

AGAIN = "Correct it, or export the set again."
MAYBE_BOX = (
    "An outline is a list of fewer than six numbers, which might be a box; allowed are polygons of three"
)


class OutlineError(DataError):
    """An outline that means nothing: ``rule`` says what is allowed, ``found`` what was there instead."""

    rule: str
    found: str

    def __init__(self, rule: str, found: str):
        super().__init__(f"{rule.rstrip('.')} (found: {found}).")
        self.rule, self.found = rule, found


@dataclass(frozen=True)
class Polygon:
    """Corners x, y, x, y, ... in pixels; finite, three at least."""

    points: tuple[float, ...]


@dataclass(frozen=True)
class RunLengths:
    """Pixels column by column: so many outside, so many inside, in turn; they add up to rows x columns."""

    size: tuple[int, int]
    counts: tuple[int, ...]


Shape = Polygon | RunLengths
Box = tuple[float, float, float, float]
"""Left, top, width and height in pixels, as COCO has it."""


@dataclass(frozen=True)
class Annotation:
    """The outline of one object: the pixels of all its ``shapes``, in a picture of ``size`` rows, columns.

    ``name`` is what messages call it. ``crowd`` marks a region of many objects, which is not valid.
    """

    name: str
    class_index: int
    shapes: tuple[Shape, ...]
    size: tuple[int, int]
    crowd: bool = False


def parse(found: object, size: tuple[int, int]) -> tuple[tuple[Shape, ...], int]:
    """Return the shapes of a COCO ``segmentation``, and how many pieces of fewer than three points it has.

    Read are polygons (a list of numbers each, or of points as pairs or as x and y), one polygon alone, and
    run lengths, compressed or not, alone or in a list, beside polygons too. Pieces of one or two points
    enclose nothing and are left out.

    Raises:
        OutlineError: it is anything else.
    """
    if isinstance(found, dict) and not _is_point(found):
        return (_run_lengths(found, size),), 0
    if not isinstance(found, list) or not found:
        rule = (
            "Annotations have no outline (a box is none) and can't be segmented; allowed are "
            f"polygons and RLE. {AGAIN}"
        )
        raise OutlineError(rule, "an empty list" if found == [] else _kind(found))
    pieces = [found] if all(map(_is_number, found)) or _are_points(found, least=3) else found
    if pieces is not found and len(found) < 6 and _is_number(found[0]):
        raise OutlineError(f"{MAYBE_BOX} points or more, and RLE. {AGAIN}", str(found))
    shapes: list[Shape] = []
    rings: list[Polygon] = []
    for piece in pieces:
        if isinstance(piece, dict):
            shapes.append(_run_lengths(piece, size))
        elif isinstance(piece, list) and all(map(_is_number, piece)):
            shapes += _polygon(piece)
        elif isinstance(piece, list) and _are_points(piece, least=1):
            rings += _polygon([value for point in piece for value in _coordinates(point)])
        else:
            rule = (
                "An outline is no list of numbers, of points, or RLE; allowed are [[x, y, x, y, "
                "...], ...] and"
            )
            raise OutlineError(f"{rule} {{size, counts}}. {AGAIN}", _described(piece))
    _refuse_rings_in_rings(rings)
    return (*shapes, *rings), len(pieces) - len(shapes) - len(rings)


def check_position(shapes: Sequence[Shape], size: tuple[int, int]) -> float:
    """Return by how many pixels polygons reach out of a picture of ``size``; 0 where they don't.

    Raises:
        OutlineError: they lie outside, reach far out, or have coordinates that are shares of the picture.
    """
    points = [value for shape in shapes if isinstance(shape, Polygon) for value in shape.points]
    if not points:
        return 0.0
    rows, columns = size
    left, right, top, bottom = min(points[::2]), max(points[::2]), min(points[1::2]), max(points[1::2])
    where = f"x {left:.6g} to {right:.6g}, y {top:.6g} to {bottom:.6g}, the picture is {columns} x {rows}"
    if min(left, top) >= 0 and max(right, bottom) <= 1 and max(size) > 2:
        rule = (
            "All coordinates of an annotation lie between 0 and 1: shares of the picture, as it "
            "seems; allowed are"
        )
        raise OutlineError(
            f"{rule} pixels. Multiply x by the width and y by the height of the picture.", where
        )
    over = max(-left, right - columns, -top, bottom - rows, 0.0)
    far = max(-left, right - columns) > MARGIN * columns or max(-top, bottom - rows) > MARGIN * rows
    if far or left >= columns or right <= 0 or top >= rows or bottom <= 0:
        rule = (
            "Outlines lie outside of their picture, or reach out of it by more than its width or "
            "height; allowed "
            "are pixels of the picture as it is stored. Look whether it was resized or cropped after "
            "it was annotated."
        )
        raise OutlineError(rule, where)
    return over


def check_box(found: object, shapes: Sequence[Shape], box: Box | None, size: tuple[int, int]) -> str:
    """Say by which numbers the shapes of ``found``, a COCO ``segmentation``, leave their box; "" where not.

    Raises:
        OutlineError: run lengths are not column by column, or y comes before x, as it seems, or the outline
            is a box.
    """
    if not shapes and box is not None and isinstance(found, list) and [*box] in found:
        raise OutlineError(f"{MAYBE_BOX} points or more, and RLE. {AGAIN}", str(found)[:60])
    elsewhere = leaves_box(shapes, box, size) if box else ""
    runs = [shape for shape in shapes if isinstance(shape, RunLengths)]
    if runs and (elsewhere or (box is None and any(map(_is_row_by_row, runs)))):
        rule = (
            "The run lengths of RLE are not where the box (bbox) of the object is, or torn when they are "
            "read column by column, and whole row by row; allowed is column by column, as COCO has it. "
            "Write them so, or correct 'bbox'."
        )
        raise OutlineError(rule, elsewhere or "no bbox")
    turned = [Polygon(tuple(_swapped(shape.points))) for shape in shapes if isinstance(shape, Polygon)]
    if elsewhere and turned and not leaves_box(turned, box or (0, 0, 0, 0), size):
        rule = "Outlines have y before x, by their boxes (bbox); allowed is x, y for each point"
        raise OutlineError(f"{rule}. {AGAIN}", elsewhere)
    return elsewhere


def _swapped(points: Sequence[float]) -> list[float]:
    return [value for x, y in zip(points[::2], points[1::2], strict=True) for value in (y, x)]


def _is_row_by_row(shape: RunLengths) -> bool:
    """Whether run lengths make far more edge between columns than they would between rows, read so.

    A shape that is whole has about as many edges as lines; read in the wrong order each of its lines is
    shifted, and nearly every pixel lies at an edge. In a square picture both orders are as good.
    """
    rows, columns = shape.size
    if len(shape.counts) < 2 * FEWEST_RUNS:
        return False
    inside = np.repeat(np.arange(len(shape.counts)) % 2 == 1, shape.counts)
    by_column, by_row = inside.reshape(columns, rows), inside.reshape(rows, columns)
    edges = [int((lines[1:] != lines[:-1]).sum()) for lines in (by_column, by_row)]
    return edges[0] > TORN * max(edges[1], 1)


def box_of(found: object) -> Box | None:
    """Return the ``bbox`` of a COCO annotation, None where it is none: boxes are checked, never drawn."""
    if not isinstance(found, list) or len(found) != 4 or not all(map(_is_number, found)):
        return None
    left, top, width, height = map(float, found)
    usable = all(map(math.isfinite, (left, top, width, height))) and width > 0 and height > 0
    return (left, top, width, height) if usable else None


def leaves_box(shapes: Sequence[Shape], box: Box, size: tuple[int, int]) -> str:
    """Say by which numbers outlines and the box of one annotation are of different places; "" where not.

    They are where intersection over union is below `ALIKE`, whether the box means left, top, width, height
    or, as hand-made ones do, left, top, right, bottom.
    """
    ends = [end for shape in shapes for end in _ends(shape)]
    if not ends:
        return ""
    limits = [float(side) for side in (size[1], size[0], size[1], size[0])]
    corners = [*(min(end[i] for end in ends) for i in (0, 1)), *(max(end[i] for end in ends) for i in (2, 3))]
    outline = tuple(min(max(end, 0.0), limit) for end, limit in zip(corners, limits, strict=True))
    left, top, width, height = box
    for around in ((left, top, left + width, top + height), box):
        clipped = tuple(min(max(end, 0.0), limit) for end, limit in zip(around, limits, strict=True))
        near = max(abs(a - b) for a, b in zip(outline, clipped, strict=True)) <= ROUNDED
        if near or _overlap(outline, clipped) >= ALIKE:
            return ""
    shown = "x {0:.6g} to {2:.6g}, y {1:.6g} to {3:.6g}"
    return f"outline {shown.format(*outline)}, box {shown.format(left, top, left + width, top + height)}"


def _ends(shape: Shape) -> list[tuple[float, float, float, float]]:
    """Return left, top, right and bottom of a shape, none of an empty one."""
    if isinstance(shape, Polygon):
        x, y = shape.points[::2], shape.points[1::2]
        return [(min(x), min(y), max(x), max(y))]
    stops, rows = np.cumsum(shape.counts).tolist(), shape.size[0]
    ends = []
    for first, stop in zip(stops[::2], stops[1::2], strict=False):
        if stop > first:
            left, right = first // rows, (stop - 1) // rows
            # A run that goes on in the next column touches the bottom of the one and the top of the other.
            top, bottom = (first % rows, (stop - 1) % rows + 1) if left == right else (0, rows)
            ends.append((float(left), float(top), float(right + 1), float(bottom)))
    return ends


def _overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Return intersection over union of two boxes of left, top, right and bottom."""
    sides = [min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1)]
    shared = max(sides[0], 0.0) * max(sides[1], 0.0)
    areas = [max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0) for box in (one, other)]
    return shared / (sum(areas) - shared) if sum(areas) > shared else 0.0


def regions(annotations: Sequence[Annotation], image: Image, file: Path) -> list[Region]:
    """Return the pixels of each annotation of the picture ``image`` that was read from ``file``.

    Raises:
        DataError: the annotations were made for a picture of another size, or it can't be told whether they
            were made for the picture as it is stored or turned upright.
    """
    if not annotations:
        return []
    header = header_or_none(file) or Header((image.shape[1], image.shape[2]), UPRIGHT)
    turn = frame_orientation(
        file, replace(header, shown=(image.shape[1], image.shape[2])), annotations[0].size
    )
    return [torch.from_numpy(np.ascontiguousarray(turned_upright(draw(each), turn))) for each in annotations]


def draw(annotation: Annotation) -> np.ndarray:
    """Return the pixels of an annotation as booleans, rows x columns of the picture that it was made for."""
    rows, columns = annotation.size
    inside = np.zeros((rows, columns), bool)
    polygons = [list(shape.points) for shape in annotation.shapes if isinstance(shape, Polygon)]
    if polygons:
        check_position(annotation.shapes, annotation.size)
        inside |= rle.decode(rle.merge(rle.frPyObjects(polygons, rows, columns))).astype(bool)
    for shape in annotation.shapes:
        if isinstance(shape, RunLengths):
            runs = np.arange(len(shape.counts)) % 2 == 1
            inside |= np.repeat(runs, shape.counts).reshape(columns, rows).T
    return inside


def run_lengths(inside: np.ndarray, corner: tuple[int, int], size: tuple[int, int]) -> dict[str, object]:
    """Return a region as compressed run lengths of COCO, as JSON holds them.

    ``inside`` is the part of a picture of ``size`` (rows, columns) whose upper left pixel is at ``corner``.
    """
    x, y = np.nonzero(inside.T)  # column by column, as COCO counts
    places = (x + corner[1]) * size[0] + y + corner[0]
    breaks = np.flatnonzero(np.diff(places) > 1)
    starts, ends = places[np.r_[0, breaks + 1]], places[np.r_[breaks, len(places) - 1]] + 1
    edges = np.r_[0, np.stack([starts, ends], 1).ravel(), size[0] * size[1]]
    found = rle.frPyObjects({"size": [*size], "counts": np.diff(edges).tolist()}, *size)
    return {"size": [*size], "counts": found["counts"].decode("ascii")}


def marks_pixels(annotation: Annotation) -> bool:
    """Whether `draw` would find a pixel, without drawing: in microseconds, however large the picture is."""
    if any(any(shape.counts[1::2]) for shape in annotation.shapes if isinstance(shape, RunLengths)):
        return True
    polygons = [list(shape.points) for shape in annotation.shapes if isinstance(shape, Polygon)]
    return bool(polygons) and int(rle.area(rle.merge(rle.frPyObjects(polygons, *annotation.size)))) > 0


def index_mask(
    regions: Sequence[Region], annotations: Sequence[Annotation], size: tuple[int, int]
) -> tuple[Mask, Region]:
    """Lay regions over one another, large ones first, so that small ones of another class stay on top.

    Returns class indices, and what is valid: all but crowds on which no object is outlined.
    """
    mask, valid = torch.zeros(size, dtype=torch.int64), torch.ones(size, dtype=torch.bool)
    drawn = zip(regions, annotations, strict=True)
    for region, annotation in sorted(drawn, key=lambda pair: -int(pair[0].sum())):
        if annotation.crowd:
            valid &= ~region
        else:
            mask[region] = annotation.class_index
    return mask, valid | (mask > 0)


def label_mask(
    regions: Sequence[Region], annotations: Sequence[Annotation], num: int, size: tuple[int, int]
) -> Labels:
    """Return the pixels of each of ``num`` classes, which may overlap; crowds are of none."""
    layers = torch.zeros(num, *size, dtype=torch.bool)
    for region, annotation in zip(regions, annotations, strict=True):
        if not annotation.crowd:
            layers[annotation.class_index - 1] |= region
    return layers


def num_shared_pixels(regions: Sequence[Region], annotations: Sequence[Annotation]) -> int:
    """Return how many pixels several classes claim, crowds left out."""
    if not annotations:
        return 0
    num = max(annotation.class_index for annotation in annotations)
    size = (regions[0].shape[0], regions[0].shape[1])
    return int((label_mask(regions, annotations, num, size).sum(0) > 1).sum())


def whole(value: object) -> int | None:
    """Return a number as an integer, None where it is none (``2.0`` is, ``true`` and ``"2"`` aren't)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not (math.isfinite(value) and value == int(value)):
        return None
    return int(value)


def _polygon(values: Sequence[Any]) -> list[Polygon]:
    """Return the polygon with these coordinates, none where they are fewer than three points."""
    if len(values) % 2:
        rule = f"Outlines have an odd number of coordinates; allowed is x, y for each point. {AGAIN}"
        raise OutlineError(rule, f"{len(values)} numbers")
    wrong = [value for value in values if not abs(value) < 1e9]  # NaN fails the comparison
    if wrong:
        rule = (
            "Coordinates are not finite, or larger than any picture; allowed are pixels of the "
            f"picture. {AGAIN}"
        )
        raise OutlineError(rule, f"{wrong[0]:.6g}" if isinstance(wrong[0], float) else "a huge integer")
    return [Polygon(tuple(float(value) for value in values))] if len(values) >= 6 else []


def _run_lengths(found: dict[Any, Any], size: tuple[int, int]) -> RunLengths:
    rule = (
        "RLE has no size, or that of another picture; allowed is size [rows, columns] of the "
        f"picture. {AGAIN}"
    )
    told = found.get("size")
    of = tuple(whole(value) for value in told) if isinstance(told, list) else None
    if of != size:
        rows, columns = size
        swapped = ", rows and columns swapped" if of == (columns, rows) else ""
        raise OutlineError(
            rule, f"size {_described(told)}{swapped}, the picture has {rows} rows, {columns} columns"
        )
    counts = found.get("counts")
    runs = _decompressed(counts) if isinstance(counts, str) else _counted(counts)
    if sum(runs) != size[0] * size[1]:
        rule = (
            "The run lengths of RLE don't add up to the pixels of the picture; allowed are rows x "
            f"columns. {AGAIN}"
        )
        raise OutlineError(rule, f"{sum(runs)} of {size[0] * size[1]} pixels")
    return RunLengths(size, runs)


def _counted(counts: object) -> tuple[int, ...]:
    runs = [whole(value) for value in counts] if isinstance(counts, list) else [None]
    kept = tuple(run for run in runs if run is not None and run >= 0)
    if len(kept) < len(runs):
        wrong = next(at for at, run in enumerate(runs) if run is None or run < 0)
        rule = (
            "Run lengths of RLE are no whole numbers from 0 on; allowed are those, or a compressed "
            f"string. {AGAIN}"
        )
        raise OutlineError(rule, _described(counts[wrong] if isinstance(counts, list) else counts))
    return kept


def _decompressed(text: str) -> tuple[int, ...]:
    """Decode the string of compressed RLE, as ``rleFrString`` of the COCO API does.

    Six bits a character from "0" on: five of the number, low ones first, and one that says whether it goes
    on.    From the fourth on, a number is the difference to the last but one.
    """
    runs: list[int] = []
    value = digits = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or digits == MOST_RUN_DIGITS:
            break
        value |= (code & 31) << 5 * digits
        digits += 1
        if code & 32:
            continue
        value -= (1 << 5 * digits) if code & 16 else 0
        value += runs[-2] if len(runs) > 2 else 0
        if value < 0:
            break
        runs.append(value)
        value = digits = 0
    else:
        if not digits:
            return tuple(runs)
    raise OutlineError(f"The string of compressed RLE can't be decoded. {AGAIN}", _described(text))


def _refuse_rings_in_rings(rings: Sequence[Polygon]) -> None:
    """Tools that write points in pairs mean a hole by a ring within a ring; COCO itself knows none."""
    boxes = [
        (min(r.points[::2]), min(r.points[1::2]), max(r.points[::2]), max(r.points[1::2])) for r in rings
    ]
    for i, (left, top, right, bottom) in enumerate(boxes):
        for j, other in enumerate(boxes):
            if i != j and other[0] <= left and other[1] <= top and right <= other[2] and bottom <= other[3]:
                rule = (
                    "A ring of points lies within another, a hole or a part of its own; allowed are "
                    "rings beside"
                )
                raise OutlineError(f"{rule} one another. Write holes as RLE.", f"rings {i + 1} and {j + 1}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_point(value: object) -> bool:
    if isinstance(value, dict):
        return value.keys() == {"x", "y"} and all(map(_is_number, value.values()))
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))


def _are_points(values: Sequence[object], least: int) -> bool:
    return len(values) >= least and all(map(_is_point, values))


def _coordinates(point: Any) -> list[Any]:
    return [point["x"], point["y"]] if isinstance(point, dict) else point


def _kind(value: object) -> str:
    names = {type(None): "null", bool: "true or false", str: "text", dict: "an object", list: "a list"}
    return names.get(type(value), "a number")


def _described(value: object) -> str:
    text = _kind(value) if isinstance(value, dict) else repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."

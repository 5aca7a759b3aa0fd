"""Layout ``labelme``: a JSON file of shapes beside each picture, once or in train/, valid/, test/.

Source of the format: https://github.com/wkentaro/labelme (``labelme/label_file.py``).
"""

import math
from collections.abc import Container
from pathlib import Path
from typing import Any

from seglens.data.coco_file import Category, CocoFile, Id, Note, Picture, read_json
from seglens.data.coco_places import relative_name
from seglens.data.folders import split_folders, visible_files
from seglens.data.images import IMAGE_SUFFIXES
from seglens.data.layout import DataSettings, Finding, Found, Searched
from seglens.data.outlined import Listed, Source, outlined
from seglens.data.outlines import AGAIN, whole
from seglens.data.sample import class_name
from seglens.errors import DataError

LOOKS_LIKE = "a Labelme file <name>.json beside each picture, once or in each of train/, valid/, test/"
SIDES = 90
"""Corners of the polygon that a circle is drawn as: off by less than 1/1000 of the radius."""


def recognises(folder: Path) -> bool:
    """Whether the first JSON file in ``folder`` that can be read is one of Labelme."""
    for file in visible_files(folder, (".json",)):
        try:
            return _is_labelme(read_json(file))
        except DataError:
            continue  # which `find` names, with all others
    return False


def find(settings: DataSettings) -> Found:
    """List the pictures with their shapes; labels are chosen and merged as COCO categories are.

    A picture without a file is a problem: nothing is known of it. One without shapes shows nothing. Shapes of
    one label and one ``group_id`` are the pieces of one object.

    Raises:
        DataError: the splits can't be told, or a label is called background.
        SettingError: a label is asked for twice, or the background is.
        UnknownNameError: a label that was asked for doesn't exist.
    """
    sources: list[Source] = []
    problems: list[Finding] = []
    searched: list[Searched] = []
    for split, folder in split_folders(settings, recognises).items():
        taken: dict[Path, Path] = {}
        for file in visible_files(folder, (".json",)):
            try:
                source = _read(file, split)
            except DataError as error:
                problems.append(Finding("labelme", "error", "Labelme files can't be used.", (str(error),)))
                continue
            picture = source.pictures[0].path
            if picture in taken:
                text = "Pictures have several Labelme files: it isn't known which is meant."
                problems.append(Finding("labelme", "error", text, (f"{taken[picture]}, {file}",)))
            taken[picture] = file
            sources.append(source)
        around = dict.fromkeys((folder, *(picture.parent for picture in taken)))
        searched += [Searched(each, (*IMAGE_SUFFIXES, ".json")) for each in around]
        beside = (picture for each in around for picture in visible_files(each))
        bare = tuple(str(picture) for picture in beside if picture not in taken)
        if bare:
            text = "Pictures have no Labelme file: save one without shapes where nothing is to be seen."
            problems.append(Finding("image-without-mask", "error", text, bare))
    return outlined(settings, sources, searched, problems)


def _read(file: Path, split: str) -> Source:
    content = read_json(file)
    if not _is_labelme(content):
        raise DataError(f"{file} is no Labelme file: it has no list 'shapes'")
    file_name = content.get("imagePath")
    if not isinstance(file_name, str):
        raise DataError(f"{file} names no picture ('imagePath')")
    try:
        picture = file.parent / relative_name(file_name)
    except DataError as error:
        raise DataError(f"{file}: imagePath {file_name!r} is not allowed: {error}") from error
    if not picture.is_file():
        raise DataError(f"{file}: there is no picture {file_name!r} beside it")
    sides = [content.get("imageHeight"), content.get("imageWidth")]
    rows, columns = (whole(side) for side in sides)
    if sides != [None, None] and (rows is None or columns is None or rows < 1 or columns < 1):
        raise DataError(f"{file}: imageHeight and imageWidth are no sizes: {sides}")
    size = None if rows is None or columns is None else (rows, columns)
    pieces: dict[tuple[Category, str], list[list[Any]]] = {}
    problems: list[Finding] = []
    categories: dict[str, Category] = {}
    for number, shape in enumerate(content["shapes"]):
        name = f"shape {number}"
        label = shape.get("label") if isinstance(shape, dict) else None
        if not isinstance(label, str) or not label.strip():
            text = f"Shapes have no label. {AGAIN}"
            problems.append(Finding("labelme", "error", text, (f"{file}, {name}",)))
            continue
        category = categories.setdefault(class_name(label), Category(class_name(label), class_name(label)))
        group = shape.get("group_id")
        try:
            outline = _outline(shape)
            pieces.setdefault((category, name if group is None else f"group {group!r}"), []).extend(outline)
        except DataError as error:
            text = (
                f"Shapes enclose nothing, or are of an unknown kind; allowed are {', '.join(_KINDS)}. {AGAIN}"
            )
            problems.append(Finding("labelme", "error", text, (f"{file}, {name}: {error}",)))
    listed: dict[Id, Listed] = {0: Listed(picture.stem, split, picture)}
    known = tuple(Picture(0, file_name, size) for _ in listed)
    notes = tuple(Note(name, 0, of, crowd=False, segmentation=each) for (of, name), each in pieces.items())
    return Source(CocoFile(file, known, tuple(categories.values()), notes, tuple(problems)), listed)


def _outline(shape: dict[str, Any]) -> list[list[Any]]:
    """Return a shape as a COCO segmentation; what its points are is looked at there.

    Raises:
        DataError: the kind is none of `_KINDS`, or has another number of points.
    """
    kind, points = shape.get("shape_type", "polygon"), shape.get("points") or []
    if not isinstance(points, list) or not all(map(_is_point, points)):
        raise DataError(f"points of {kind!r} are not all of two finite numbers")
    if not isinstance(kind, str) or kind not in _KINDS or len(points) not in _KINDS[kind]:
        raise DataError(f"{kind!r} with {len(points)} points")
    if kind == "rectangle" and len(points) == 2:
        (left, top), (right, bottom) = points
        return [[left, top, right, top, right, bottom, left, bottom]]
    if kind == "circle":
        (x, y), (on_x, on_y) = points
        radius, angles = math.hypot(on_x - x, on_y - y), [math.tau * i / SIDES for i in range(SIDES)]
        return [[value for a in angles for value in (x + radius * math.cos(a), y + radius * math.sin(a))]]
    return [[value for point in points for value in point]]


_KINDS: dict[str, Container[int]] = {"polygon": range(3, 10**9), "rectangle": (2, 4), "circle": (2,)}
"""Shapes that enclose pixels, and how many points each has: opposite corners, or centre and edge."""


def _is_point(found: object) -> bool:
    return (
        isinstance(found, list)
        and len(found) == 2
        and all(isinstance(x, int | float) and not isinstance(x, bool) and abs(x) < 1e9 for x in found)
    )


def _is_labelme(content: object) -> bool:
    return isinstance(content, dict) and isinstance(content.get("shapes"), list) and "images" not in content

"""Layout ``coco``: polygons and RLE in ``_annotations.coco.json``, for each split or once at the root.

Source of the format: https://cocodataset.org/#format-data; pycocotools turns outlines into pixels.
"""

from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as rle
from pydantic import BaseModel, Field, ValidationError

from seglens.data.folders import all_valid, split_folders
from seglens.data.images import read_image
from seglens.data.layout import DataSettings, Entry, Finding, Found
from seglens.data.sample import Sample, Task
from seglens.errors import DataError, SizeMismatchError, unknown_name
from seglens.shapes import Image, Region

FILE_NAME = "_annotations.coco.json"
LOOKS_LIKE = f"{FILE_NAME} beside the pictures, in each of train/, valid/, test/ or once at the root"


class _Image(BaseModel):
    id: int | str
    file_name: str = Field(min_length=1)


class _Category(BaseModel):
    id: int
    name: str


class _Annotation(BaseModel):
    id: int | str = "?"
    image_id: int | str
    category_id: int
    iscrowd: int = 0
    segmentation: list[Any] | dict[str, Any] | None = None


class _File(BaseModel):
    """What is used of a COCO file; the rest is left out."""

    images: list[_Image]
    categories: list[_Category]
    annotations: list[_Annotation]


def recognises(folder: Path) -> bool:
    """Whether ``folder`` holds a COCO file."""
    return (folder / FILE_NAME).is_file()


def find(settings: DataSettings) -> Found:
    """List the pictures with the outlines of the chosen categories.

    Categories are told apart by name, since ids may differ between the files of the splits. Unused ones are
    dropped; the rest is one foreground, or with ``merge`` False a class each, in the order of their ids. A
    picture without annotation is one with nothing on it.

    Raises:
        DataError: a file is missing or is no COCO file.
        UnknownNameError: a category that was asked for doesn't exist.
    """
    folders = split_folders(settings, recognises)
    files = {split: _load(folder / FILE_NAME) for split, folder in folders.items()}
    names = _chosen(files, settings.classes)
    merged = settings.merge and len(names) > 1
    classes = ("foreground",) if merged else tuple(names)
    index_of = {name: 1 if merged else position for position, name in enumerate(names, start=1)}
    entries, problems = {}, []
    for split, file in files.items():
        entries[split], found = _entries(folders[split], file, index_of)
        problems += found
    task = Task(classes=("background", *classes))
    return Found(task, entries, partial(_read, channels=settings.channels), tuple(problems))


def _load(file: Path) -> _File:
    if not file.is_file():
        raise DataError(
            f"There is no {file}, which every split of layout 'coco' needs. Export the set again."
        )
    try:
        return _File.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise DataError(
            f"{file} is no COCO file: {where}: {first['msg']}. It is damaged or of another kind; "
            "export it again."
        ) from error


def _chosen(files: Mapping[str, _File], asked: tuple[str, ...] | None) -> list[str]:
    """Return the names of the categories to take; ``asked`` are names or, where no name is that, ids."""
    name_of: dict[int, str] = {}
    known, used = {}, set()
    for file in files.values():
        here = {category.id: category.name for category in sorted(file.categories, key=lambda each: each.id)}
        name_of = {**here, **name_of}
        known.update(dict.fromkeys(here.values()))
        used |= {here.get(note.category_id) for note in file.annotations}
    if asked is None:
        return [name for name in known if name in used] or list(known) or ["foreground"]
    chosen = []
    for name in asked:
        if name not in known and not (name.isdecimal() and int(name) in name_of):
            raise unknown_name("category", name, [*known, *(str(key) for key in name_of)])
        chosen.append(name if name in known else name_of[int(name)])
    return list(dict.fromkeys(chosen))


def _entries(
    folder: Path, file: _File, index_of: Mapping[str, int]
) -> tuple[tuple[Entry, ...], list[Finding]]:
    """Return the entries of one file; of each annotation only what reading needs is kept."""
    name_of = {category.id: category.name for category in file.categories}
    outlines: dict[int | str, list[dict[str, Any]]] = {image.id: [] for image in file.images}
    problems = []
    for note in file.annotations:
        name = name_of.get(note.category_id)
        if name is None or note.image_id not in outlines:
            text = "Annotations belong to no picture, or to no category, of the file."
            problems.append(Finding("stray-annotation", "warning", text, (f"annotation {note.id}",)))
        elif name in index_of:
            if not note.segmentation:
                text = "Annotations have a box but no outline, so they can't be segmented."
                problems.append(Finding("no-outline", "error", text, (f"annotation {note.id}",)))
            outlines[note.image_id].append(
                {
                    "class_index": index_of[name],
                    "crowd": bool(note.iscrowd),
                    "segmentation": note.segmentation,
                }
            )
    stems = Counter(_stem(image) for image in file.images)
    entries = []
    for image in file.images:
        picture = folder / image.file_name
        if not picture.is_file():
            text = f"Pictures that {FILE_NAME} lists are missing."
            problems.append(Finding("missing-image", "error", text, (str(picture),)))
            continue
        name = _stem(image) if stems[_stem(image)] == 1 else image.file_name
        entries.append(Entry(name, picture, annotations=tuple(outlines[image.id])))
    return tuple(sorted(entries, key=lambda entry: entry.name)), problems


def _stem(image: _Image) -> str:
    return Path(image.file_name).with_suffix("").as_posix()


def _read(entry: Entry, *, channels: int) -> Sample:
    """Draw the outlines, large ones first, so that small ones of another class stay visible on top.

    Crowd regions are not valid, but where an object is outlined on them.
    """
    image = read_image(entry.image, channels)
    valid = all_valid(image)
    mask = torch.zeros(image.shape[1:], dtype=torch.int64)
    drawn = zip(regions(entry, image), entry.annotations, strict=True)
    for region, note in sorted(drawn, key=lambda pair: -int(pair[0].sum())):
        if note["crowd"]:
            valid &= ~region
        else:
            mask[region] = note["class_index"]
    return Sample(entry.name, image, mask, valid | (mask > 0))


def regions(entry: Entry, image: Image) -> list[Region]:
    """Return the pixels of each annotation of a picture: polygons, or RLE, compressed or not.

    Raises:
        DataError: an outline can't be drawn.
        SizeMismatchError: one is of another size than the picture.
    """
    height, width = image.shape[1:]
    return [_region(note["segmentation"], entry, height, width) for note in entry.annotations]


def _region(outline: object, entry: Entry, height: int, width: int) -> Region:
    try:
        pixels = _pixels(outline, height, width)
    except Exception as error:  # pycocotools raises plain Exception, among others
        raise DataError(
            f"An annotation of {entry.image} can't be drawn: {error}. Allowed are polygons and RLE; "
            "export the set again."
        ) from error
    if pixels.shape != (height, width):
        raise SizeMismatchError(
            f"An annotation of {entry.image} is {pixels.shape[1]} x {pixels.shape[0]} pixels, the picture "
            f"{width} x {height}. They must be of one size: export the set again."
        )
    return torch.from_numpy(pixels).bool()


def _pixels(outline: object, height: int, width: int) -> np.ndarray:
    if isinstance(outline, dict):
        coded = rle.frPyObjects(outline, *outline["size"]) if isinstance(outline["counts"], list) else outline
        return rle.decode(coded)
    if not isinstance(outline, list):
        raise ValueError(f"its segmentation is a {type(outline).__name__}")
    # Fewer than three corners enclose nothing, and pycocotools would take four numbers for a box.
    polygons = [polygon for polygon in outline if len(polygon) >= 6]
    if not polygons:
        return np.zeros((height, width), np.uint8)
    return rle.decode(rle.merge(rle.frPyObjects(polygons, height, width)))

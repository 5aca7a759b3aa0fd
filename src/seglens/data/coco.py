"""Layout ``coco``: polygons and RLE in ``_annotations.coco.json``, one for each split or one at the root."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pycocotools import mask as rle

from seglens.data.folders import split_folders
from seglens.data.images import read_image
from seglens.data.layout import DataSettings, Entry, Found
from seglens.data.sample import Sample, Task
from seglens.errors import DataError, unknown_name
from seglens.shapes import Region

LOOKS_LIKE = "_annotations.coco.json beside the pictures, in train/, valid/, test/ or once at the root"
FILE_NAMES = ("_annotations.coco.json", "annotations.json", "instances.json")


def recognises(path: Path) -> bool:
    """Whether ``path`` or one of its split folders holds a COCO file."""
    return any(_file(folder) for folder in (path, *split_folders(path, None, None, None).values()))


def find(settings: DataSettings) -> Found:
    """List the pictures, each with its annotations; the categories that are used make the classes."""
    named = (settings.train_dir, settings.valid_dir, settings.test_dir)
    folders = split_folders(settings.path, *named) or {"": settings.path}
    loaded = {name: _load(folder) for name, folder in folders.items()}
    categories = _categories(loaded, settings.classes)
    entries = {name: _entries(folders[name], data, set(categories)) for name, data in loaded.items()}
    if settings.merge:
        names = list(categories.values())
        classes = ("background", names[0] if len(set(names)) == 1 else "foreground")
        index = dict.fromkeys(categories, 1)
    else:
        classes = ("background", *categories.values())
        index = {category: position for position, category in enumerate(categories, start=1)}
    return Found(Task(classes=classes), entries, partial(_read, index=index, channels=settings.channels))


def _file(folder: Path) -> Path | None:
    return next((folder / name for name in FILE_NAMES if (folder / name).is_file()), None)


def _load(folder: Path) -> dict[str, Any]:
    file = _file(folder)
    if file is None:
        raise DataError(f"{folder} holds no COCO file; looked for {', '.join(FILE_NAMES)}.")
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        missing = [key for key in ("images", "annotations", "categories") if key not in data]
    except (ValueError, TypeError) as error:
        raise DataError(f"{file} is not a COCO file: {error}. Export it again.") from error
    if missing:
        raise DataError(f"{file} is not a COCO file: it lacks {', '.join(missing)}. Export it again.")
    return data


def _categories(loaded: dict[str, dict[str, Any]], asked: tuple[str, ...] | None) -> dict[int, str]:
    """Return the chosen categories by id; by default those with an annotation in any split."""
    known = {int(c["id"]): str(c["name"]) for data in loaded.values() for c in data["categories"]}
    used = {int(a["category_id"]) for data in loaded.values() for a in data["annotations"]}
    if asked is None:
        return {key: name for key, name in sorted(known.items()) if key in used} or known
    chosen = {}
    for name in asked:
        # A name comes before an id: categories may be called "0" and "1".
        keys = [key for key, label in known.items() if label == name and (key in used or len(used) == 0)]
        keys = keys or [key for key, label in known.items() if label == name]
        keys = keys or [key for key in known if str(key) == name]
        if not keys:
            raise unknown_name("category", name, [*known.values(), *map(str, known)])
        chosen.update({key: known[key] for key in keys})
    return chosen


def _entries(folder: Path, data: dict[str, Any], chosen: set[int]) -> tuple[Entry, ...]:
    annotations: dict[int, list[dict[str, Any]]] = {}
    for annotation in data["annotations"]:
        if int(annotation["category_id"]) in chosen:
            annotations.setdefault(annotation["image_id"], []).append(annotation)
    entries = (
        Entry(
            Path(image["file_name"]).with_suffix("").as_posix(),
            folder / image["file_name"],
            annotations=tuple(annotations.get(image["id"], ())),
        )
        for image in data["images"]
    )
    return tuple(sorted(entries, key=lambda entry: entry.name))


def _read(entry: Entry, *, index: dict[int, int], channels: int) -> Sample:
    image = read_image(entry.image, channels)
    height, width = image.shape[-2:]
    mask = torch.zeros(height, width, dtype=torch.int64)
    valid = torch.ones(height, width, dtype=torch.bool)
    shapes = [(_region(annotation, height, width, entry), annotation) for annotation in entry.annotations]
    # Small objects are drawn last, so that they stay visible on large ones.
    for region, annotation in sorted(shapes, key=lambda pair: -int(pair[0].sum())):
        if annotation.get("iscrowd"):
            valid &= ~region
        else:
            mask[region] = index[int(annotation["category_id"])]
    valid |= mask > 0
    return Sample(entry.name, image, mask, valid)


def _region(annotation: dict[str, Any], height: int, width: int, entry: Entry) -> Region:
    shape = annotation.get("segmentation")
    try:
        if isinstance(shape, list):
            coded = rle.merge(rle.frPyObjects(shape, height, width)) if shape else None
        elif isinstance(shape, dict) and isinstance(shape["counts"], list):
            coded = rle.frPyObjects(shape, *shape["size"])
        else:
            coded = shape
        pixels = rle.decode(coded) if coded else torch.zeros(height, width).numpy()
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise DataError(
            f"An annotation of {entry.image} can't be read: {error}. Allowed are polygons and RLE."
        ) from error
    if pixels.shape != (height, width):
        raise DataError(
            f"An annotation of {entry.image} is {pixels.shape[1]} x {pixels.shape[0]} pixels, the picture "
            f"{width} x {height}. They must be of one size."
        )
    return torch.from_numpy(pixels).bool()

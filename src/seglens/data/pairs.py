"""Layout ``pairs``: ``images/`` and ``masks/`` matched by stem, once or in train/, valid/ and test/ folders."""

from functools import partial
from pathlib import Path

import torch

from seglens.data.folders import picture_files, split_folders
from seglens.data.images import read_image, read_label
from seglens.data.layout import DataSettings, Entry, Found
from seglens.data.sample import Sample, Task
from seglens.errors import DataError
from seglens.shapes import Mask, Region

LOOKS_LIKE = "images/ and masks/ with files of the same stem, or train/, valid/, test/ with these two in each"
SUFFIXES = ("_mask", "_label", "_segmentation", "-mask")
IGNORED = 255


def recognises(path: Path) -> bool:
    """Whether ``path`` or one of its split folders holds images/ and masks/."""
    folders = [path, *split_folders(path, None, None, None).values()]
    return any((folder / "images").is_dir() and (folder / "masks").is_dir() for folder in folders)


def find(settings: DataSettings) -> Found:
    """List pictures with their masks; pictures without one get none."""
    named = (settings.train_dir, settings.valid_dir, settings.test_dir)
    folders = split_folders(settings.path, *named) or {"": settings.path}
    entries = {name: _entries(folder) for name, folder in folders.items()}
    classes = settings.classes or ("background", "foreground")
    reader = partial(_read, classes=settings.classes, channels=settings.channels)
    return Found(Task(classes=tuple(classes)), entries, reader)


def _entries(folder: Path) -> tuple[Entry, ...]:
    masks = {_stem(file): file for file in picture_files(folder / "masks")}
    images = {file.stem: file for file in picture_files(folder / "images")}
    alone = sorted(set(masks) - set(images))
    if alone:
        raise DataError(
            f"{len(alone)} mask(s) in {folder / 'masks'} have no picture of the same stem in images/: "
            f"{', '.join(alone[:5])}{' ...' if len(alone) > 5 else ''}. Add the pictures or take the masks out."
        )
    return tuple(
        Entry(stem, image, (masks[stem],) if stem in masks else ()) for stem, image in sorted(images.items())
    )


def _stem(mask: Path) -> str:
    for suffix in SUFFIXES:
        if mask.stem.endswith(suffix):
            return mask.stem.removesuffix(suffix)
    return mask.stem


def _read(entry: Entry, *, classes: tuple[str, ...] | None, channels: int) -> Sample:
    image = read_image(entry.image, channels)
    if not entry.masks:
        return Sample(entry.name, image, None, torch.ones(image.shape[-2:], dtype=torch.bool))
    label = read_label(entry.masks[0])
    if label.shape != image.shape[-2:]:
        raise DataError(
            f"The mask {entry.masks[0]} is {label.shape[1]} x {label.shape[0]} pixels, its picture "
            f"{entry.image.name} {image.shape[2]} x {image.shape[1]}. They must be of one size."
        )
    mask, valid = _classes(label, classes, entry.masks[0])
    return Sample(entry.name, image, mask, valid)


def _classes(label: Mask, classes: tuple[str, ...] | None, file: Path) -> tuple[Mask, Region]:
    """Turn stored values into class indices: black and one other value where no classes are named."""
    values = label.unique().tolist()
    everywhere = torch.ones_like(label, dtype=torch.bool)
    if classes is None:
        if len(set(values) - {0}) > 1:
            raise DataError(
                f"The mask {file} holds the values {values[:8]}{' ...' if len(values) > 8 else ''}; allowed are 0 "
                "and one other value. Name the classes (--classes background ...) if values are class indices."
            )
        return (label > 0).long(), everywhere
    wrong = [value for value in values if value >= len(classes) and value != IGNORED]
    if wrong:
        raise DataError(
            f"The mask {file} holds the value {wrong[0]}; allowed are 0 to {len(classes) - 1} for the "
            f"{len(classes)} classes {', '.join(classes)}, and {IGNORED} for ignored pixels."
        )
    valid = label != IGNORED
    return label.masked_fill(~valid, 0), valid

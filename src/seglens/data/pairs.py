"""Layout ``pairs``: ``images/`` and ``masks/`` matched by stem, once or in train/, valid/, test/."""

from functools import partial
from pathlib import Path

import torch

from seglens.data.folders import all_valid, class_folders, read_fitting_label, split_folders, visible_files
from seglens.data.images import read_image
from seglens.data.layout import DataSettings, Entry, Finding, Found
from seglens.data.sample import Sample, Task, task_of
from seglens.errors import DataError, MaskValueError, SettingError
from seglens.shapes import Mask

LOOKS_LIKE = "images/ and masks/ with files of the same stem, once or in each of train/, valid/, test/"
SUFFIXES = ("_mask", "-mask", "_label", "_segmentation")
"""What the stem of a mask may have after that of its picture."""


def recognises(folder: Path) -> bool:
    """Whether ``folder`` holds images/ and masks/."""
    return (folder / "images").is_dir() and (folder / "masks").is_dir()


def find(settings: DataSettings) -> Found:
    """List the pictures with their masks.

    A test split without any mask is taken as not labelled: it can be predicted and explained. Everywhere else
    a picture without mask is a problem, as is a mask without picture.

    Raises:
        SettingError: one class only is named, or the value of a class is to be ignored.
        DataError: the masks lie in a folder for each class, which ``multilabel`` reads.
    """
    if settings.classes is not None and len(settings.classes) < 2:
        raise SettingError(
            f"The classes of a 'pairs' set name the values 0, 1, ... of its masks; got {settings.classes}. "
            "Name the background first, or leave --classes out for masks of black and white."
        )
    entries, problems = {}, []
    for split, folder in split_folders(settings, recognises).items():
        entries[split], found = _entries(folder, labels_needed=split != "test")
        problems += found
    task = task_of(settings.classes, what="--classes") if settings.classes else Task()
    if settings.ignore is not None and settings.ignore < len(task.classes):
        raise SettingError(
            f"The value {settings.ignore} of a mask can't be ignored: it is the class "
            f"{task.classes[settings.ignore]!r}. Ignore one that is no class, such as 255."
        )
    reader = partial(_read, classes=settings.classes, channels=settings.channels, ignore=settings.ignore)
    return Found(task, entries, reader, tuple(problems))


def _entries(folder: Path, *, labels_needed: bool) -> tuple[tuple[Entry, ...], list[Finding]]:
    """Match pictures and masks of one folder; files that share a stem are a problem too."""
    images, problems = by_stem(folder / "images")
    masks, doubles = by_stem(folder / "masks")
    inner = [] if masks else class_folders(folder / "masks")
    if inner:
        raise DataError(
            f"{folder / 'masks'} holds a folder for each of {', '.join(inner)} and no masks. Where these are "
            "classes, read them with --multilabel."
        )
    problems += doubles
    mask_of: dict[str, Path] = {}
    for stem, file in masks.items():
        picture = picture_stem(stem, images)
        if picture not in images:
            problems.append(Finding("mask-without-image", "error", "Masks have no picture.", (str(file),)))
        elif picture in mask_of:
            problems.append(Finding("two-masks", "error", "Pictures have several masks.", (str(file),)))
        else:
            mask_of[picture] = file
    unlabelled = not masks and not labels_needed
    for stem, file in images.items():
        if stem not in mask_of and not unlabelled:
            problems.append(Finding("image-without-mask", "error", "Pictures have no mask.", (str(file),)))
    entries = tuple(
        Entry(stem, file, (mask_of[stem],) if stem in mask_of else (), labelled=stem in mask_of)
        for stem, file in sorted(images.items())
        if stem in mask_of or unlabelled
    )
    return entries, problems


def by_stem(folder: Path) -> tuple[dict[str, Path], list[Finding]]:
    """Return the files of a folder by their stems; files that share one are problems."""
    files: dict[str, Path] = {}
    problems = []
    for file in visible_files(folder):
        if file.stem in files:
            problems.append(Finding("same-stem", "error", "Files share a stem.", (str(file),)))
        files.setdefault(file.stem, file)
    return files, problems


def picture_stem(stem: str, images: dict[str, Path]) -> str:
    """Return the stem of the picture that a mask belongs to."""
    if stem not in images:
        for suffix in SUFFIXES:
            if stem.endswith(suffix):
                return stem.removesuffix(suffix)
    return stem


def _read(entry: Entry, *, classes: tuple[str, ...] | None, channels: int, ignore: int | None) -> Sample:
    image = read_image(entry.image, channels)
    if not entry.labelled:
        return Sample(entry.name, image, None, all_valid(image))
    label = read_fitting_label(entry.masks[0], image, entry.image)
    valid = all_valid(image) if ignore is None else label != ignore
    label = label.masked_fill(~valid, 0)
    mask = binary(label, entry.masks[0]) if classes is None else _indexed(label, classes, entry.masks[0])
    return Sample(entry.name, image, mask, valid)


def binary(label: Mask, file: Path) -> Mask:
    """Turn 0 and 1, or 0 and 255, into 0 and 1."""
    foreground = label > 0
    highest = int(label.max())
    if highest in (0, 1, 255) and torch.equal(label, highest * foreground):
        return foreground.long()
    values = label.unique().tolist()
    wrong = [value for value in values if value not in (0, 255)] if highest == 255 else values
    shown = ", ".join(map(str, wrong[:6])) + (", ..." if len(wrong) > 6 else "")
    raise MaskValueError(
        f"The mask {file} holds the value(s) {shown}; allowed are 0 and 255, or 0 and 1. Save it without "
        "smoothing and as PNG, or name the classes with --classes if values are class indices."
    )


def _indexed(label: Mask, classes: tuple[str, ...], file: Path) -> Mask:
    lowest, highest = int(label.min()), int(label.max())
    if 0 <= lowest and highest < len(classes):
        return label
    raise MaskValueError(
        f"The mask {file} holds the value {highest if highest >= len(classes) else lowest}; allowed are 0 to "
        f"{len(classes) - 1}, one for each of the classes {', '.join(classes)}. Name the missing classes, or "
        "save class indices."
    )

"""Layout ``pairs``: a mask for each picture, matched by stem, once or in train/, valid/, test/.

They lie in ``images/`` and ``masks/``, or side by side, where a suffix tells which is the mask.
"""

from collections.abc import Collection
from functools import partial
from pathlib import Path
from unicodedata import normalize

import torch

from seglens.data.folders import (
    all_valid,
    class_folders,
    refuse_misfit,
    split_folders,
    visible_files,
)
from seglens.data.images import IMAGE_SUFFIXES, read_turned
from seglens.data.labels import MASK_SUFFIXES, read_label
from seglens.data.layout import DataSettings, Entry, Finding, Found, Searched
from seglens.data.mask_values import Meaning, about_first, meaning_of
from seglens.data.sample import Sample, task_of
from seglens.errors import DataError
from seglens.shapes import Mask

LOOKS_LIKE = (
    "images/ and masks/ with files of the same stem, or a.png and a_mask.png side by side, once or in "
    "each of train/, valid/, test/"
)
SUFFIXES = ("_cp_masks", "_masks", "_mask", "-mask", "_label", "_segmentation", "_anno")
"""What the stem of a mask may have after that of its picture: Cellpose, ISIC, GlaS, BUSI."""
OF_PICTURES = ("", "_img", "_image")
"""What the stem of its picture may have then."""
OF_MASKS = (*IMAGE_SUFFIXES, *MASK_SUFFIXES)
"""What the file of a mask may be called."""


def recognises(folder: Path) -> bool:
    """Whether ``folder`` holds images/ and masks/, or a mask beside its picture."""
    if has_both_folders(folder) or not folder.is_dir():
        return has_both_folders(folder)
    stems = {normalize("NFC", file.stem) for file in visible_files(folder)}
    return any(_beside(stem, stems) for stem in stems)


def _side_by_side(folder: Path) -> bool:
    return not (folder / "images").is_dir() and not (folder / "masks").is_dir()


def has_both_folders(folder: Path) -> bool:
    """Whether ``folder`` holds images/ and masks/."""
    return (folder / "images").is_dir() and (folder / "masks").is_dir()


def find(settings: DataSettings) -> Found:
    """List the pictures with their masks.

    A test split without any mask is taken as not labelled: it can be predicted and explained. Everywhere else
    a picture without mask is a problem, as is a mask without picture.

    Raises:
        SettingError: what masks mean is contradictory, see `seglens.data.mask_values.meaning_of`.
        DataError: the masks lie in a folder for each class, which ``multilabel`` reads.
    """
    entries, problems = {}, []
    folders = split_folders(settings, recognises)
    for split, folder in folders.items():
        entries[split], found = _entries(folder, labels_needed=split != "test")
        problems += found
    files = [entry.masks[0] for part in entries.values() for entry in part if entry.masks]
    meaning = meaning_of(settings, files)
    problems += about_first(meaning.classes)
    task = task_of(meaning.classes, what="--palette" if settings.palette else "--classes")
    reader = partial(_read, meaning=meaning, channels=settings.channels)
    searched = [
        Searched(folder / name, suffixes)
        for folder in folders.values()
        for name, suffixes in (
            (("", OF_MASKS),) if _side_by_side(folder) else (("images", IMAGE_SUFFIXES), ("masks", OF_MASKS))
        )
    ]
    return Found(
        task,
        entries,
        reader,
        tuple(searched),
        tuple(problems),
        values=lambda: meaning.findings,
        instances=partial(_numbers, ignore=meaning.ignore) if meaning.kind == "instances" else None,
    )


def _numbers(entry: Entry, sample: Sample, *, ignore: int | None) -> Mask:
    """Return the values of a mask whose values are objects; those that count for nothing are 0."""
    values = read_label(entry.masks[0])
    return values if ignore is None else values.masked_fill(values == ignore, 0)


def _entries(folder: Path, *, labels_needed: bool) -> tuple[tuple[Entry, ...], list[Finding]]:
    """Match pictures and masks of one folder; files that share a stem are a problem too."""
    if _side_by_side(folder):
        files, problems = by_stem(folder, OF_MASKS)
        masks = {
            stem: file
            for stem, file in files.items()
            if stem.endswith(SUFFIXES) or file.suffix.lower() in MASK_SUFFIXES
        }
        images = {stem: file for stem, file in files.items() if stem not in masks}
    else:
        images, problems = by_stem(folder / "images", IMAGE_SUFFIXES)
        masks, doubles = by_stem(folder / "masks", OF_MASKS)
        problems += doubles
    inner = [] if masks else class_folders(folder / "masks")
    if inner:
        raise DataError(
            f"{folder / 'masks'} holds a folder for each of {', '.join(inner)} and no masks. Where these are "
            "classes, read them with --multilabel."
        )
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


def by_stem(folder: Path, suffixes: tuple[str, ...]) -> tuple[dict[str, Path], list[Finding]]:
    """Return the files of a folder by their stems; shared stems are problems.

    Accents are composed (NFC): a Mac takes them apart, so that one name has two forms.
    """
    files: dict[str, Path] = {}
    problems = []
    for file in visible_files(folder, suffixes):
        stem = normalize("NFC", file.stem)
        if stem in files:
            problems.append(Finding("same-stem", "error", "Files share a stem.", (str(file),)))
        files.setdefault(stem, file)
    return files, problems


def picture_stem(stem: str, images: Collection[str]) -> str:
    """Return the stem of the picture that a mask belongs to; its own where that is none of ``images``."""
    return stem if stem in images else _beside(stem, images) or stem


def _beside(stem: str, images: Collection[str]) -> str | None:
    """Return which of ``images`` has the name of a mask without its suffix, if any."""
    bases = (stem.removesuffix(suffix) for suffix in SUFFIXES if stem.endswith(suffix))
    names = (base + end for base in bases for end in OF_PICTURES)
    return next((name for name in names if name in images), None)


def _read(entry: Entry, *, meaning: Meaning, channels: int) -> Sample:
    image, turned = read_turned(entry.image, channels)
    if not entry.labelled:
        return Sample(entry.name, image, None, all_valid(image))
    label, valid = meaning.read(entry.masks[0])
    refuse_misfit(entry.masks[0], label.shape, image, entry.image, turned)
    return Sample(entry.name, image, torch.from_numpy(label), torch.from_numpy(valid))

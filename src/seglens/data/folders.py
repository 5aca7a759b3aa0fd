"""What several layouts share: the folders of the splits, the files in them, and masks of the right size."""

from collections.abc import Callable
from pathlib import Path

import torch

from seglens.data.images import IMAGE_SUFFIXES, read_label
from seglens.data.layout import DataSettings
from seglens.errors import DataError, SizeMismatchError
from seglens.shapes import Image, Mask, Region

NAMES = {"train": ("train", "training"), "valid": ("valid", "val", "validation"), "test": ("test", "testing")}
"""What the folder of a split may be called."""


def split_folders(settings: DataSettings, recognises: Callable[[Path], bool]) -> dict[str, Path]:
    """Return the folder of each split: as named in the settings, else as found below the set's folder.

    Where no such folder looks as the layout should, the set has no splits: ``{"": its folder}``.

    Raises:
        DataError: a folder that was named is not there.
    """
    named = {"train": settings.train_dir, "valid": settings.valid_dir, "test": settings.test_dir}
    found = {}
    for split, name in named.items():
        candidates = [settings.path / candidate for candidate in ((name,) if name else NAMES[split])]
        present = [folder for folder in candidates if folder.is_dir()]
        if present:
            found[split] = present[0]
        elif name:
            raise DataError(
                f"There is no folder {candidates[0]} for the {split} split. Allowed is a folder below "
                f"{settings.path}, or a whole path. Check --{split}-dir."
            )
    if any(named.values()) or any(recognises(folder) for folder in found.values()):
        return found
    return {"": settings.path}


def visible_files(folder: Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> list[Path]:
    """Return the files right in ``folder`` with one of ``suffixes``, by name; none where it doesn't exist.

    Hidden files are left out: macOS puts a ``._name.png`` beside each file it copies.
    """
    if not folder.is_dir():
        return []
    files = (file for file in folder.iterdir() if file.suffix.lower() in suffixes)
    return sorted(file for file in files if not file.name.startswith("."))


def read_fitting_label(file: Path, image: Image, picture: Path) -> Mask:
    """Return the integers of a mask file that has the size of its picture.

    Raises:
        DataError: the file can't be read.
        SizeMismatchError: the sizes differ.
    """
    label = read_label(file)
    if label.shape != image.shape[1:]:
        raise SizeMismatchError(
            f"The mask {file} is {label.shape[1]} x {label.shape[0]} pixels, its picture {picture.name} "
            f"{image.shape[2]} x {image.shape[1]}. They must be of one size: redo the mask."
        )
    return label


def all_valid(image: Image) -> Region:
    """Return the region of all pixels of a picture."""
    return torch.ones(image.shape[1:], dtype=torch.bool)

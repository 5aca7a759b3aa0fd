"""Folders that several layouts share: where the splits are, and which files are pictures."""

from pathlib import Path

from seglens.data.images import IMAGE_SUFFIXES
from seglens.errors import DataError

NAMES = {"train": ("train", "training"), "valid": ("valid", "val", "validation"), "test": ("test", "testing")}
"""What the folder of a split may be called."""


def split_folders(path: Path, train: str | None, valid: str | None, test: str | None) -> dict[str, Path]:
    """Return the folder of each split below ``path``: as named, else as found; empty where there is none.

    Raises:
        DataError: a folder that was named is not there.
    """
    found = {}
    for split, named in (("train", train), ("valid", valid), ("test", test)):
        if named is not None and not (path / named).is_dir():
            raise DataError(f"There is no folder {path / named} for the {split} split. Check --{split}-dir.")
        for name in (named,) if named is not None else NAMES[split]:
            if (path / name).is_dir():
                found[split] = path / name
                break
    return found if "train" in found or train or valid or test else {}


def picture_files(folder: Path) -> list[Path]:
    """Return the picture files right in ``folder``, by name; none where it doesn't exist."""
    if not folder.is_dir():
        return []
    files = (file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    return sorted(file for file in files if not file.name.startswith("."))

"""What several layouts share: the folders of the splits, the files in them, and masks of the right size."""

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import torch

from seglens.data.images import IMAGE_SUFFIXES
from seglens.data.labels import read_label
from seglens.data.layout import DataSettings, Finding, Searched
from seglens.data.orientation import UPRIGHT, header_or_none
from seglens.data.picture_files import SIDEWAYS
from seglens.errors import DataError, SettingError, SizeMismatchError
from seglens.shapes import Image, Mask, Region

NAMES = {"train": ("train", "training"), "valid": ("valid", "val", "validation"), "test": ("test", "testing")}
"""What the folder of a split may be called, in small letters or large."""

LEFT_BY_SYSTEMS = ("thumbs.db", "ehthumbs.db", "desktop.ini")
"""Files that Windows leaves in folders of pictures; those of others are hidden (``.DS_Store``)."""

ABOUT_A_SET = ("readme", "licence", "license", "citation", "copying", "labels", "classes", "flags")
TEXTS = ("", ".txt", ".md", ".rst", ".html", ".pdf", ".cff")
"""How texts are called that say something about a set, before the first dot, and what they end in."""


def named_split(name: str) -> str | None:
    """Return the split that a name such as ``Train``, ``val`` or ``train2017`` says, None for others."""
    plain = re.sub(r"[-_]?\d{4}$", "", name.lower())
    return next((split for split, names in NAMES.items() if plain in names), None)


def split_folders(settings: DataSettings, recognises: Callable[[Path], bool]) -> dict[str, Path]:
    """Return the folder of each split: as named in the settings, else as found below the set's folder.

    Where there are no such folders, the set has no splits: ``{"": its folder}``.

    Raises:
        SettingError: a folder that was named is not there.
        DataError: it can't be told which pictures are of which split.
    """
    root = settings.path
    named = {"train": settings.train_dir, "valid": settings.valid_dir, "test": settings.test_dir}
    found: dict[str, Path] = {}
    if any(named.values()):
        for split, name in named.items():
            if name is None:
                own = _folders_of(root, split, recognises)
                found |= {split: own[0]} if own else {}
            elif (root / name).is_dir():
                found[split] = root / name
            else:
                raise SettingError(
                    f"There is no folder {root / name} for the {split} split. Allowed is a folder below "
                    f"{root}, or a whole path. Check --{split}-dir."
                )
        return found
    found = own_split_folders(root, recognises)
    unread = [] if found else [each for split in NAMES for each in _folders_of(root, split, recognises)]
    unread = [folder for folder in unread if any(file.is_file() for file in folder.rglob("*"))]
    if unread:
        raise DataError(
            f"{root} has pictures with masks, and beside them {_listed(unread)}, which can't be read in the "
            "same way: a set whose folders name splits is not split again. Move these folders out of the set "
            "or name the folders of the splits with --train-dir, --valid-dir and --test-dir ('.' is "
            "the set's own)."
        )
    return found or {"": root}


def own_split_folders(root: Path, recognises: Callable[[Path], bool]) -> dict[str, Path]:
    """Return the folder of each split where one of them looks as the layout should; else none.

    Raises:
        DataError: a split has several folders, or there are pictures beside the splits.
    """
    found = {split: own for split in NAMES for own in _folders_of(root, split, recognises)}
    own = [folder for folder in found.values() if recognises(folder)]
    if own and recognises(root):
        raise DataError(
            f"{root} has pictures with masks, or outlines, of its own and in {_listed(own)}: it isn't known "
            "which split its own belong to. Move them to a folder of a split, or name the folders of the "
            "splits with --train-dir, --valid-dir and --test-dir ('.' is the set's own)."
        )
    return found if own else {}


def _folders_of(root: Path, split: str, recognises: Callable[[Path], bool]) -> list[Path]:
    """Return the folder of a split below ``root``, or nothing."""
    inside = sorted(root.iterdir()) if root.is_dir() else []
    present = [folder for folder in inside if folder.name.lower() in NAMES[split] and folder.is_dir()]
    chosen = [folder for folder in present if recognises(folder)] if len(present) > 1 else present
    if len(chosen) > 1:
        raise DataError(
            f"{root} has several folders of the {split} split: {_listed(chosen)}. Join them, or name "
            "one with "
            f"--{split}-dir."
        )
    return chosen or present[:1]


def _listed(folders: Sequence[Path]) -> str:
    return ", ".join(f"{folder.name}/" for folder in folders)


def visible_files(folder: Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> list[Path]:
    """Return the files right in ``folder`` with one of ``suffixes``, by name; none where it doesn't exist.

    Hidden files are left out: macOS puts a ``._name.png`` beside each file it copies.
    """
    if not folder.is_dir():
        return []
    files = (file for file in folder.iterdir() if file.suffix.lower() in suffixes)
    return sorted(file for file in files if not file.name.startswith("."))


def is_clutter(path: Path) -> bool:
    """Whether it is hidden, was left by a system, or is a text about a set: nothing that a set is made of."""
    if path.name.startswith(".") or path.name.lower() in LEFT_BY_SYSTEMS:
        return True
    about = path.name.partition(".")[0].lower() in ABOUT_A_SET and path.suffix.lower() in TEXTS
    return about and not path.is_dir()


def passed_over(searched: Collection[Searched]) -> list[Finding]:
    """Return a finding for all in the folders of a set that is not read, so that nothing goes without a word.

    That is files of no kind that is read there, but `LEFT_BY_SYSTEMS` and texts `ABOUT_A_SET`, and folders
    that hold pictures and are not searched.
    """
    found, folders = [], {each.folder for each in searched}
    for each in dict.fromkeys(searched):
        unknown = (
            f"Files are of no kind that is read here (allowed: {' '.join(each.suffixes)}); move them away."
        )
        for file in sorted(each.folder.iterdir()) if each.folder.is_dir() else ():
            if is_clutter(file):
                continue
            if file.is_dir():
                if file not in folders and visible_files(file, (*IMAGE_SUFFIXES, *each.suffixes)):
                    text = (
                        "Folders hold pictures that are not read: only those right in the folder above are."
                    )
                    found.append(Finding("unread-folder", "warning", text, (str(file),)))
                continue
            if file.suffix.lower() not in each.suffixes:
                found.append(Finding("unknown-file", each.severity, unknown, (str(file),)))
    return found


def class_folders(masks: Path) -> list[str]:
    """Return the names of the folders in ``masks`` that hold mask files: one for each class."""
    if not masks.is_dir():
        return []
    return sorted(inner.name for inner in masks.iterdir() if inner.is_dir() and visible_files(inner))


def read_fitting_label(file: Path, image: Image, picture: Path, turned: int = UPRIGHT) -> Mask:
    """Return the integers of a mask file that lies on its picture, see `refuse_misfit`.

    Raises:
        DataError: the file can't be read, or it can't be told how it lies on the picture.
        SizeMismatchError: the sizes differ.
    """
    label = read_label(file)
    refuse_misfit(file, tuple(label.shape), image, picture, turned)
    return label


def refuse_misfit(
    file: Path, size: tuple[int, ...], image: Image, picture: Path, turned: int = UPRIGHT
) -> None:
    """Raise where a mask of ``size`` (rows, columns) may not lie on its picture as it was drawn.

    ``turned`` is the EXIF orientation from which the picture was turned upright. A mask that was turned alike
    fits; of another one the size must tell that it was drawn on the upright picture.

    Raises:
        SizeMismatchError: the sizes differ.
        DataError: the mask may have been drawn on the picture as it is stored.
    """
    if size != tuple(image.shape[1:]):
        raise SizeMismatchError(
            f"The mask {file} is {size[1]} x {size[0]} pixels, its picture {picture.name} "
            f"{image.shape[2]} x {image.shape[1]}. They must be of one size: redo the mask."
        )
    told_by_size = turned in SIDEWAYS and image.shape[1] != image.shape[2]
    if turned == UPRIGHT or told_by_size:
        return
    header = header_or_none(file)
    if header is None or header.orientation != turned:
        raise DataError(
            f"{picture} is stored turned (EXIF orientation {turned}), and the size of its mask {file.name} "
            "doesn't tell whether that was drawn on the picture as stored or upright. Save the picture "
            "upright without that tag, and see that the mask lies on it."
        )


def all_valid(image: Image) -> Region:
    """Return the region of all pixels of a picture."""
    return torch.ones(image.shape[1:], dtype=torch.bool)

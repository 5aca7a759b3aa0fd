"""Where COCO files and their pictures lie, as the tools leave them, and which split each belongs to."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from seglens.data.folders import named_split, own_split_folders, split_folders, visible_files
from seglens.data.layout import DataSettings
from seglens.errors import DataError

FILE_NAMES = ("_annotations.coco.json", "result.json", "result_coco.json", "annotations.json", "coco.json")
"""What a COCO file beside its pictures is called by Roboflow, Label Studio and others."""
INSTANCES = "annotations/instances_*.json"
"""Where CVAT and COCO itself put them."""
UPLOADS = "/data/upload/"
"""How Label Studio writes pictures that it keeps itself; its export has them in images/."""


@dataclass(frozen=True)
class CocoPlace:
    """A COCO file, the split that it is of ("" where that is not said) and the folders of its pictures."""

    split: str
    file: Path
    folders: tuple[Path, ...]


def coco_file(folder: Path) -> Path | None:
    """Return the COCO file beside pictures in ``folder``, by its name.

    Raises:
        DataError: there are several.
    """
    found = [folder / name for name in FILE_NAMES if (folder / name).is_file()]
    if len(found) > 1:
        names = " and ".join(file.name for file in found)
        raise DataError(f"{folder} holds {names}: which is meant? Take the others out of the folder.")
    return found[0] if found else None


def instance_files(folder: Path) -> list[Path]:
    """Return the COCO files that CVAT, or COCO itself, puts below ``folder``."""
    return sorted(folder.glob(INSTANCES))


def recognises(folder: Path) -> bool:
    """Whether ``folder`` holds a COCO file."""
    return any((folder / name).is_file() for name in FILE_NAMES) or bool(instance_files(folder))


def places(settings: DataSettings) -> list[CocoPlace]:
    """Return the COCO files of a set.

    Raises:
        DataError: there is none, or it can't be told which are meant.
    """
    root = settings.path
    if settings.train_dir or settings.valid_dir or settings.test_dir:
        folders = split_folders(settings, recognises)
    else:
        folders = own_split_folders(root, recognises)
    if folders:
        return [place for split, folder in folders.items() for place in _places_in(split, folder)]
    return _places_in("", root)


def _places_in(split: str, folder: Path) -> list[CocoPlace]:
    beside, instances = coco_file(folder), instance_files(folder)
    if beside and instances:
        names = f"{beside.name} and {INSTANCES}"
        raise DataError(f"{folder} holds {names}: which is meant? Take one of them out.")
    if beside:
        below = [] if split else [*named_folders(folder), *named_folders(folder / "images")]
        return [CocoPlace(split, beside, (folder, folder / "images", *below))]
    if not instances:
        single = [file for file in folder.glob("*.json") if not file.name.startswith(".")]
        if len(single) != 1:
            raise DataError(
                f"There is no COCO file in {folder}, which layout 'coco' needs: {FILE_NAMES[0]}, "
                f"{INSTANCES}, or "
                f"one single file *.json (found: {len(single)}). Export the set again."
            )
        return [CocoPlace(split, single[0], (folder, folder / "images"))]
    found = []
    for file in instances:
        subset = file.stem.removeprefix("instances_")
        own = named_split(subset)
        if own is None and len(instances) > 1:
            raise DataError(
                f"{file} is of no split that is known: there are {len(instances)} such files, and "
                "each must be "
                "called instances_train, instances_valid (val) or instances_test. Rename it, or take it out."
            )
        if own and split and own != split:
            raise DataError(f"{file} lies in the folder of the {split} split. Rename it, or move it.")
        pictures = folder / "images"
        below = [*named_folders(pictures, own), *named_folders(folder, own)]
        candidates = dict.fromkeys((pictures / subset, pictures, folder / subset, folder, *below))
        found.append(CocoPlace(own or split, file, tuple(each for each in candidates if each.is_dir())))
    doubled = {place.split for place in found if [each.split for each in found].count(place.split) > 1}
    if doubled:
        raise DataError(
            f"{folder} holds several {INSTANCES} of the {doubled.pop()} split. Take all but one out."
        )
    return found


def named_folders(folder: Path, split: str | None = None) -> list[Path]:
    """Return the folders in ``folder`` called after a split, or after this one, and images/ in them."""
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    named = [(each, named_split(each.name)) for each in inside if each.is_dir()]
    own = [each for each, name in named if name is not None and split in (None, name)]
    return [place for each in own for place in (each, each / "images") if place.is_dir()]


def relative_name(file_name: str) -> str:
    """Return a file name of a COCO file as a path below the folder of its pictures, with forward slashes.

    Raises:
        DataError: it is absolute, an address, climbs out, or holds characters that no name should.
    """
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in file_name):
        raise DataError("it holds control characters")
    name = file_name.removeprefix(UPLOADS).rpartition("/")[2] if file_name.startswith(UPLOADS) else file_name
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or PureWindowsPath(name).drive or re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", name):
        raise DataError("it is absolute, or an address")
    depth = 0
    for part in path.parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            raise DataError("it climbs out of the folder of the pictures")
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    if not parts:
        raise DataError("it names no file")
    return "/".join(parts)


def locate(file_name: str, folders: Iterable[Path]) -> list[Path]:
    """Return the different files in ``folders`` that a name of a COCO file may mean: one, where all is well.

    Raises:
        DataError: the name is none that is allowed.
    """
    name = relative_name(file_name)
    found: list[Path] = []
    for folder in folders:
        # A backslash is a letter of names on Linux, and a separator on Windows.
        as_it_is = [folder / file_name] if "\\" in file_name and ".." not in file_name else []
        for candidate in (folder / name, *as_it_is):
            if _is_file(candidate) and not any(candidate.samefile(other) for other in found):
                found.append(candidate)
    return found


def splits_of_folders(file: Path, root: Path) -> set[str]:
    """Return the splits that the folders of a picture below ``root`` are called after."""
    parts = file.relative_to(root).parts[:-1] if file.is_relative_to(root) else ()
    return {split for part in parts if (split := named_split(part))}


def has_pictures(folder: Path) -> bool:
    """Whether pictures lie in ``folder`` or in its images/."""
    return bool(visible_files(folder) or visible_files(folder / "images"))


def _is_file(file: Path) -> bool:
    try:
        return file.is_file()
    except (OSError, ValueError):  # a name that is too long
        return False

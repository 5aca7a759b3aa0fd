"""Layout ``coco``: polygons and RLE in a COCO file, as the tools lay it out.

`coco_places` knows where files lie, `coco_file` what they say, `outlines` what an outline may be.
"""

from collections import Counter
from pathlib import Path

from seglens.data.coco_file import CocoFile, Id, read_coco
from seglens.data.coco_places import (
    CocoPlace,
    has_pictures,
    locate,
    named_folders,
    places,
    recognises,
    splits_of_folders,
)
from seglens.data.folders import is_clutter, visible_files
from seglens.data.images import IMAGE_SUFFIXES
from seglens.data.layout import DataSettings, Finding, Found, Searched
from seglens.data.outlined import Listed, Source, outlined
from seglens.errors import DataError

__all__ = ["LOOKS_LIKE", "find", "recognises"]

LOOKS_LIKE = (
    "_annotations.coco.json (or result.json) beside the pictures, in each of train/, valid/, test/ "
    "or once at the "
    "root, or annotations/instances_*.json with images/ or a folder for each split"
)


def find(settings: DataSettings) -> Found:
    """List the pictures with the outlines of the chosen categories, see `outlined`.

    Raises:
        DataError: a file is missing or is no COCO file, or the splits can't be told.
        SettingError: a category is asked for twice, or the background is.
        UnknownNameError: a category that was asked for doesn't exist.
    """
    sources, problems = [], []
    folders: set[Path] = set()
    found_places = places(settings)
    for place in found_places:
        folders.update(place.folders)
        content = read_coco(place.file)
        pictures, found = _pictures(content, place, settings.path)
        sources.append(Source(content, pictures))
        problems += found
    listed = {each.path for source in sources for each in source.pictures.values()}
    folders |= {picture.parent for picture in listed}
    beside = {folder: visible_files(folder) for folder in folders}
    unlisted = sorted({file for files in beside.values() for file in files} - listed)
    if unlisted:  # or under another path, by a link: looked up only now, which takes a while in large sets
        same = {file.resolve() for file in listed}
        unlisted = [file for file in unlisted if file.resolve() not in same]
    if unlisted:
        text = "Pictures are listed in no COCO file: nobody says what they show, and they are left out."
        problems.append(Finding("unlisted", "warning", text, tuple(map(str, unlisted))))
    read = {place.file for place in found_places}
    others = {file for folder in folders for file in folder.glob("*.json") if not is_clutter(file)} - read
    if others:
        text = "Files *.json lie beside the COCO file that is read, and are not read. Take them out."
        problems.append(Finding("unknown-file", "warning", text, tuple(sorted(map(str, others)))))
    _refuse_pictures_beside_splits(settings.path, sources)
    searched = [
        Searched(folder, (*IMAGE_SUFFIXES, ".json"), "warning") for folder, files in beside.items() if files
    ]
    return outlined(settings, sources, searched, problems)


def _pictures(content: CocoFile, place: CocoPlace, root: Path) -> tuple[dict[Id, Listed], list[Finding]]:
    """Find the pictures that a file lists."""
    stems = Counter(_stem(picture.file_name) for picture in content.pictures)
    listed: dict[Id, Listed] = {}
    problems, seen = [], set()
    for picture in content.pictures:
        where = f"{place.file}, picture {picture.id}: {picture.file_name!r}"

        def problem(kind: str, text: str, where: str = where) -> None:
            problems.append(Finding(kind, "error", text, (where,)))

        try:
            files = locate(picture.file_name, place.folders)
        except DataError as error:
            text = (
                "File names of pictures are not allowed; allowed are names below the folder of the pictures."
            )
            problem("file-name", text, f"{where}: {error}")
            continue
        if not files:
            problem("missing-image", f"Pictures that {place.file.name} lists are missing.")
            continue
        if len(files) > 1:
            problem("file-name", "Several pictures have the name that is listed: write it with its folder.")
            continue
        file = files[0]
        splits = splits_of_folders(file, root) | ({place.split} - {""})
        if len(splits) > 1:
            problem("file-name", f"Pictures are said to be of several splits ({', '.join(sorted(splits))}).")
        elif file in seen:
            problem("listed-twice", "Pictures are listed twice: it isn't known which annotations are theirs.")
        else:
            seen.add(file)
            name = _stem(picture.file_name)
            name = name if stems[name] == 1 else picture.file_name
            listed[picture.id] = Listed(name, "".join(splits), file)
    return listed, problems


def _refuse_pictures_beside_splits(root: Path, sources: list[Source]) -> None:
    """A set whose folders say train, valid or test is split by them, all of it, and never anew."""
    listed = [each for source in sources for each in source.pictures.values()]
    without = [each for each in listed if not each.split]
    if not without:
        return
    folders = [each for each in (*named_folders(root), *named_folders(root / "images")) if has_pictures(each)]
    of_splits = next((each for each in listed if each.split), None)
    if of_splits or folders:
        other = of_splits.path if of_splits else folders[0]
        raise DataError(
            f"{without[0].path} is in no folder of a split, {other} is: of a set whose folders say "
            "train, valid or "
            "test every picture must be in one of them. Move the pictures, or the folders out of the set."
        )


def _stem(file_name: str) -> str:
    name = file_name.replace("\\", "/")
    return name.rpartition(".")[0] or name

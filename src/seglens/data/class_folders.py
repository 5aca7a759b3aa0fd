"""Layout ``pairs`` with labels that may overlap: ``masks/<class>/`` for each class, a file for each picture.

``seglens predict`` writes the masks of a multilabel model in the same way.
"""

from functools import partial
from pathlib import Path

import torch

from seglens.data import pairs
from seglens.data.folders import all_valid, class_folders, refuse_misfit, split_folders, visible_files
from seglens.data.images import IMAGE_SUFFIXES, read_turned
from seglens.data.layout import DataSettings, Entry, Finding, Found, Searched
from seglens.data.mask_values import Meaning, meaning_of
from seglens.data.sample import Sample, task_of
from seglens.errors import DataError, SettingError, unknown_name


def find(settings: DataSettings) -> Found:
    """List the pictures, each with a mask file for every class, in the order of the classes.

    The classes are the folders below ``masks/``, by name, or those of them that the settings name. A class
    that isn't on a picture has a file without foreground there: a missing file is a problem, because it could
    as well have been forgotten. A test split without masks is not labelled.

    Raises:
        DataError: there is no folder of a class, or masks lie beside such folders.
        SettingError: masks are said to hold classes, where each folder is one.
        UnknownNameError: a class is named that has no folder.
    """
    if settings.palette is not None or settings.masks == "classes":
        raise SettingError(
            "With --multilabel each folder of masks is a class: leave --palette and --masks classes out."
        )
    folders = split_folders(settings, pairs.has_both_folders)
    known = sorted({name for folder in folders.values() for name in class_folders(folder / "masks")})
    if not known:
        raise DataError(
            f"{settings.path} has no folder for each class below masks/, such as masks/man/ and masks/shirt/ "
            "with a file for each picture, which --multilabel needs in layout 'pairs'. Make them, or leave "
            "--multilabel out."
        )
    asked = [name for name in settings.classes or known if name.lower() != "background"]
    for name in asked:
        if name not in known:
            raise unknown_name("class (a folder below masks/)", name, known)
    unused = [name for name in known if name not in asked]
    entries, problems = {}, []
    for split, folder in folders.items():
        entries[split], found = _entries(folder, asked, labels_needed=split != "test")
        problems += found
    what = f"The classes of {settings.path}"
    task = task_of(("background", *asked), unused=unused, multilabel=True, what=what)
    files = [file for part in entries.values() for entry in part for file in entry.masks]
    meaning = meaning_of(settings.model_copy(update={"classes": None}), files)
    reader = partial(_read, channels=settings.channels, meaning=meaning)
    searched = [
        Searched(folder / name, suffixes)
        for folder in folders.values()
        for name, suffixes in (
            ("images", IMAGE_SUFFIXES),
            ("masks", pairs.OF_MASKS),
            *((f"masks/{each}", pairs.OF_MASKS) for each in known),
        )
    ]
    return Found(task, entries, reader, tuple(searched), tuple(problems), values=lambda: meaning.findings)


def _entries(
    folder: Path, classes: list[str], *, labels_needed: bool
) -> tuple[tuple[Entry, ...], list[Finding]]:
    images, problems = pairs.by_stem(folder / "images", IMAGE_SUFFIXES)
    loose = visible_files(folder / "masks", pairs.OF_MASKS)
    if loose:
        text = "Masks lie beside the folders of the classes: which class are they of?"
        problems += [Finding("mask-without-class", "error", text, (str(file),)) for file in loose]
    masks_of: dict[str, dict[str, Path]] = {name: {} for name in classes}
    for name in classes:
        files, doubles = pairs.by_stem(folder / "masks" / name, pairs.OF_MASKS)
        problems += doubles
        for stem, file in files.items():
            picture = pairs.picture_stem(stem, images)
            if picture not in images:
                text = "Masks have no picture."
                problems.append(Finding("mask-without-image", "error", text, (str(file),)))
            elif picture in masks_of[name]:
                text = "Pictures have several masks of a class."
                problems.append(Finding("two-masks", "error", text, (str(file),)))
            else:
                masks_of[name][picture] = file
    unlabelled = not labels_needed and not any(masks_of.values())
    entries = []
    for stem, file in sorted(images.items()):
        missing = [name for name in classes if stem not in masks_of[name]]
        if unlabelled or not missing:
            masks = () if unlabelled else tuple(masks_of[name][stem] for name in classes)
            entries.append(Entry(stem, file, masks, labelled=not unlabelled))
        for name in missing if not unlabelled else ():
            text = f"Pictures have no mask of {name!r}; where it isn't on a picture, give one that is black."
            problems.append(Finding("image-without-mask", "error", text, (str(file),)))
    return tuple(entries), problems


def _read(entry: Entry, *, channels: int, meaning: Meaning) -> Sample:
    image, turned = read_turned(entry.image, channels)
    valid = all_valid(image)
    if not entry.labelled:
        return Sample(entry.name, image, None, valid)
    layers = []
    for file in entry.masks:
        label, counts = meaning.read(file)
        refuse_misfit(file, label.shape, image, entry.image, turned)
        valid &= torch.from_numpy(counts)
        layers.append(torch.from_numpy(label > 0))
    return Sample(entry.name, image, torch.stack(layers), valid)

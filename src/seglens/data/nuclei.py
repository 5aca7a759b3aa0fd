"""Layout ``nuclei``: ``<id>/images/*.png`` with ``<id>/masks/*.png``, one file per nucleus (DSB 2018).

Source: Caicedo et al., "Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl",
Nature Methods 16, 2019. The nuclei of a picture are merged into one foreground. With ``multilabel`` there is
a folder for each class, ``<id>/masks/<class>/*.png``, and nuclei of one class are merged.
"""

from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch

from seglens.data.folders import all_valid, refuse_misfit, split_folders, visible_files
from seglens.data.images import IMAGE_SUFFIXES, read_turned
from seglens.data.instances import as_label_image
from seglens.data.layout import DataSettings, Entry, Finding, Found, Searched
from seglens.data.mask_values import read_foreground
from seglens.data.picture_files import open_picture
from seglens.data.sample import Sample, Task, task_of
from seglens.data.splits import thumbnail
from seglens.errors import DataError, SizeMismatchError
from seglens.shapes import Image, Mask

LOOKS_LIKE = "<id>/images/ with one picture and <id>/masks/ with a file per nucleus; also below stage1_train/"


def recognises(folder: Path) -> bool:
    """Whether ``folder`` holds folders that hold images/ and masks/."""
    return any((specimen / "masks").is_dir() for specimen in _specimens(folder))


def find(settings: DataSettings) -> Found:
    """List the pictures, each with the masks of its nuclei.

    Raises:
        DataError: the masks lie in a folder for each class, which ``multilabel`` reads.
    """
    entries, searched, problems = _listed(settings)
    by_class = [entry for part in entries.values() for entry in part if _classes_of(entry)]
    if by_class:
        raise DataError(
            f"{_masks_of(by_class[0])} holds folders ({', '.join(_classes_of(by_class[0]))}). Where these "
            "are classes, read them with --multilabel."
        )
    task = Task(classes=("background", "nucleus"))
    reader = partial(_read, channels=settings.channels)
    return Found(task, entries, reader, searched, tuple(problems), kind_of_picture, instances=nuclei_of)


def nuclei_of(entry: Entry, sample: Sample) -> Mask:
    """Return the number of the nucleus at each pixel, see `as_label_image`.

    Raises:
        DataError: a mask can't be read.
    """
    return as_label_image([read_foreground(file) for file in entry.masks], sample.valid.shape)


def find_classes(settings: DataSettings) -> Found:
    """List the pictures with the masks of each class, whose nuclei may overlap those of another.

    A class that isn't on a picture has an empty folder there: one that is missing could have been forgotten.

    Raises:
        DataError: there is no folder of a class.
    """
    entries, searched, problems = _listed(settings)
    listed = [entry for part in entries.values() for entry in part]
    classes = sorted({name for entry in listed for name in _classes_of(entry)})
    if not classes:
        raise DataError(
            f"{settings.path} has no folder for each class below <id>/masks/, such as masks/cell/ and "
            "masks/nucleus/, which --multilabel needs in layout 'nuclei'. Make them, or leave it out."
        )
    for entry in listed:
        if entry.masks:
            text = "Masks lie beside the folders of the classes: which class are they of?"
            problems.append(Finding("mask-without-class", "error", text, tuple(map(str, entry.masks))))
        for name in classes:
            if not (_masks_of(entry) / name).is_dir():
                text = (
                    f"Pictures have no folder masks/{name}/; where none is on a picture, make an empty one."
                )
                problems.append(Finding("image-without-mask", "error", text, (entry.name,)))
    found = {
        split: tuple(
            replace(each, masks=tuple(f for name in classes for f in visible_files(_masks_of(each) / name)))
            for each in part
        )
        for split, part in entries.items()
    }
    what = f"The classes of {settings.path}"
    task = task_of(("background", *classes), multilabel=True, what=what)
    reader = partial(_read_classes, classes=tuple(classes), channels=settings.channels)
    return Found(task, found, reader, searched, tuple(problems), kind_of_picture)


def _listed(
    settings: DataSettings,
) -> tuple[dict[str, tuple[Entry, ...]], tuple[Searched, ...], list[Finding]]:
    """Return the pictures of each split, with the files right in masks/, and what is wrong with them.

    The second are the folders that were searched for them.
    """
    entries: dict[str, tuple[Entry, ...]] = {}
    searched: list[Searched] = []
    problems: list[Finding] = []
    for split, folder in split_folders(settings, recognises).items():
        listed = []
        for specimen in _specimens(folder):
            pictures = visible_files(specimen / "images")
            folders = (specimen / "images", specimen / "masks", *_inner(specimen / "masks"))
            searched += [Searched(each, IMAGE_SUFFIXES) for each in folders]
            if len(pictures) != 1:
                text = "Folders images/ don't hold exactly one picture."
                problems.append(Finding("not-one-image", "error", text, (str(specimen),)))
            elif not (specimen / "masks").is_dir():
                text = "Pictures have no folder masks/."
                problems.append(Finding("image-without-mask", "error", text, (str(specimen),)))
            else:
                listed.append(Entry(specimen.name, pictures[0], tuple(visible_files(specimen / "masks"))))
        entries[split] = tuple(listed)
    return entries, tuple(searched), problems


def _masks_of(entry: Entry) -> Path:
    return entry.image.parent.parent / "masks"


def _classes_of(entry: Entry) -> list[str]:
    return [inner.name for inner in _inner(_masks_of(entry))]


def _inner(masks: Path) -> list[Path]:
    """The folders in masks/: hidden ones are none."""
    inside = masks.iterdir() if masks.is_dir() else ()
    return sorted(inner for inner in inside if inner.is_dir() and inner.name[0] not in "._")


def kind_of_picture(entry: Entry) -> str:
    """Return size, colour and brightness in words: what tells apart the microscopes and stains of the set."""
    try:
        small = thumbnail(entry.image)
        with open_picture(entry.image) as picture:
            size, mode = picture.size, picture.mode
    except (OSError, DataError):
        return ""
    return f"{size[0]}x{size[1]} {mode} {'bright' if float(np.median(small)) > 127 else 'dark'}"


def num_overlapping_pixels(entry: Entry) -> int:
    """Return how many pixels several nuclei of a picture claim.

    Raises:
        DataError: a mask can't be read, or is not of the size of the others.
    """
    return _merged(entry).num_overlapping if entry.masks else 0


def _specimens(folder: Path) -> list[Path]:
    inner = folder / "stage1_train"
    home = inner if inner.is_dir() else folder
    if not home.is_dir():
        return []
    return sorted(specimen for specimen in home.iterdir() if (specimen / "images").is_dir())


def _read(entry: Entry, *, channels: int) -> Sample:
    image, turned = read_turned(entry.image, channels)
    return Sample(entry.name, image, _mask(entry, image, turned), all_valid(image))


def _read_classes(entry: Entry, *, classes: tuple[str, ...], channels: int) -> Sample:
    image, turned = read_turned(entry.image, channels)
    of_class = (
        replace(entry, masks=tuple(file for file in entry.masks if file.parent.name == name))
        for name in classes
    )
    stack = torch.stack([_mask(each, image, turned) > 0 for each in of_class])
    return Sample(entry.name, image, stack, all_valid(image))


def _mask(entry: Entry, image: Image, turned: int) -> Mask:
    if not entry.masks:
        return torch.zeros(image.shape[1:], dtype=torch.int64)
    merged = _merged(entry)
    if merged.shape != tuple(image.shape[1:]):
        raise SizeMismatchError(
            f"The masks in {entry.masks[0].parent} are {merged.shape[1]} x {merged.shape[0]} pixels, their "
            f"picture {entry.image.name} {image.shape[2]} x {image.shape[1]}. They must be of one "
            "size: redo the masks."
        )
    refuse_misfit(entry.masks[0], merged.shape, image, entry.image, turned)
    return merged.unpack()


@dataclass(frozen=True)
class _Merged:
    """Where any nucleus of a picture is, one bit per pixel, and how many pixels several of them claim."""

    bits: np.ndarray
    shape: tuple[int, int]
    num_overlapping: int

    def unpack(self) -> Mask:
        flat = np.unpackbits(self.bits, count=self.shape[0] * self.shape[1])
        return torch.from_numpy(flat.reshape(self.shape)).long()


def _merged(entry: Entry) -> _Merged:
    """Merge the masks of a picture; anew where one of the files has changed."""
    return _merged_of(entry, tuple(map(_changed, entry.masks)))


def _changed(file: Path) -> tuple[int, int]:
    """When a file was written, and its size; zeros where there is none, which reading it says."""
    try:
        found = file.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=4096)
def _merged_of(entry: Entry, changed: tuple[tuple[int, int], ...]) -> _Merged:
    """Merge masks, kept in memory (32 MB for 4096 pictures of 256 x 256) by when they ``changed``.

    So some fifty files for each picture are decoded once and not in every epoch.
    """
    nuclei = (read_foreground(file) for file in entry.masks)
    count = next(nuclei).astype(np.uint16)
    for file, nucleus in zip(entry.masks[1:], nuclei, strict=True):
        if nucleus.shape != count.shape:
            raise SizeMismatchError(
                f"The mask {file} is {nucleus.shape[1]} x {nucleus.shape[0]} pixels, {entry.masks[0].name} "
                f"beside it {count.shape[1]} x {count.shape[0]}. They must be of one size: redo the mask."
            )
        count += nucleus
    return _Merged(np.packbits(count > 0), (count.shape[0], count.shape[1]), int((count > 1).sum()))

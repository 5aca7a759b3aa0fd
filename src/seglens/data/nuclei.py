"""Layout ``nuclei``: ``<id>/images/*.png`` with ``<id>/masks/*.png``, one file per nucleus (DSB 2018).

Source: Caicedo et al., "Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl",
Nature Methods 16, 2019. The nuclei of a picture are merged into one foreground.
"""

from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch

from seglens.data.folders import all_valid, split_folders, visible_files
from seglens.data.images import read_image
from seglens.data.layout import DataSettings, Entry, Finding, Found
from seglens.data.mask_values import read_foreground
from seglens.data.picture_files import open_picture
from seglens.data.sample import Sample, Task
from seglens.data.splits import thumbnail
from seglens.errors import DataError, SizeMismatchError
from seglens.shapes import Mask

LOOKS_LIKE = "<id>/images/ with one picture and <id>/masks/ with a file per nucleus; also below stage1_train/"


def recognises(folder: Path) -> bool:
    """Whether ``folder`` holds folders that hold images/ and masks/."""
    return any((specimen / "masks").is_dir() for specimen in _specimens(folder))


def find(settings: DataSettings) -> Found:
    """List the pictures, each with the masks of its nuclei."""
    entries, problems = {}, []
    for split, folder in split_folders(settings, recognises).items():
        listed = []
        for specimen in _specimens(folder):
            pictures = visible_files(specimen / "images")
            if len(pictures) != 1:
                text = "Folders images/ don't hold exactly one picture."
                problems.append(Finding("not-one-image", "error", text, (str(specimen),)))
            elif not (specimen / "masks").is_dir():
                text = "Pictures have no folder masks/."
                problems.append(Finding("image-without-mask", "error", text, (str(specimen),)))
            else:
                listed.append(Entry(specimen.name, pictures[0], tuple(visible_files(specimen / "masks"))))
        entries[split] = tuple(listed)
    task = Task(classes=("background", "nucleus"))
    return Found(task, entries, partial(_read, channels=settings.channels), tuple(problems), kind_of_picture)


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
    image = read_image(entry.image, channels)
    if not entry.masks:
        return Sample(entry.name, image, torch.zeros(image.shape[1:], dtype=torch.int64), all_valid(image))
    merged = _merged(entry)
    if merged.shape != tuple(image.shape[1:]):
        raise SizeMismatchError(
            f"The masks in {entry.masks[0].parent} are {merged.shape[1]} x {merged.shape[0]} pixels, their "
            f"picture {entry.image.name} {image.shape[2]} x {image.shape[1]}. They must be of one "
            "size: redo the masks."
        )
    return Sample(entry.name, image, merged.unpack(), all_valid(image))


@dataclass(frozen=True)
class _Merged:
    """Where any nucleus of a picture is, one bit per pixel, and how many pixels several of them claim."""

    bits: np.ndarray
    shape: tuple[int, int]
    num_overlapping: int

    def unpack(self) -> Mask:
        flat = np.unpackbits(self.bits, count=self.shape[0] * self.shape[1])
        return torch.from_numpy(flat.reshape(self.shape)).long()


@lru_cache(maxsize=4096)
def _merged(entry: Entry) -> _Merged:
    """Merge the masks of a picture.

    Kept in memory (32 MB for 4096 pictures of 256 x 256), so that some fifty files for each picture are
    decoded once and not in every epoch.
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

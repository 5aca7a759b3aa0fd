"""Layout ``nuclei``: ``<id>/images/*.png`` with ``<id>/masks/*.png``, one file per nucleus (DSB 2018)."""

from functools import partial
from pathlib import Path

import torch

from seglens.data.folders import picture_files, split_folders
from seglens.data.images import read_image, read_label
from seglens.data.layout import DataSettings, Entry, Found
from seglens.data.sample import Sample, Task
from seglens.errors import DataError

LOOKS_LIKE = "<id>/images/*.png and <id>/masks/*.png, one mask file for each nucleus"


def recognises(path: Path) -> bool:
    """Whether a folder right below ``path``, or below its folder stage1_train, holds images/ and masks/."""
    return any(_specimens(folder) for folder in (path, *split_folders(path, None, None, None).values()))


def find(settings: DataSettings) -> Found:
    """List the pictures, each with the masks of its nuclei."""
    named = (settings.train_dir, settings.valid_dir, settings.test_dir)
    folders = split_folders(settings.path, *named) or {"": settings.path}
    entries = {name: tuple(_entry(folder) for folder in _specimens(path)) for name, path in folders.items()}
    return Found(Task(classes=("background", "nucleus")), entries, partial(_read, channels=settings.channels))


def _specimens(path: Path) -> list[Path]:
    if (path / "stage1_train").is_dir():
        path = path / "stage1_train"
    if not path.is_dir():
        return []
    return sorted(
        folder for folder in path.iterdir() if (folder / "images").is_dir() and (folder / "masks").is_dir()
    )


def _entry(folder: Path) -> Entry:
    images = picture_files(folder / "images")
    if len(images) != 1:
        raise DataError(f"{folder / 'images'} holds {len(images)} pictures; allowed is one for each <id>.")
    return Entry(folder.name, images[0], tuple(picture_files(folder / "masks")))


def _read(entry: Entry, *, channels: int) -> Sample:
    image = read_image(entry.image, channels)
    valid = torch.ones(image.shape[-2:], dtype=torch.bool)
    mask = torch.zeros(image.shape[-2:], dtype=torch.int64)
    for file in entry.masks:
        nucleus = read_label(file)
        if nucleus.shape != mask.shape:
            raise DataError(
                f"The mask {file} is {nucleus.shape[1]} x {nucleus.shape[0]} pixels, its picture "
                f"{entry.image.name} {image.shape[2]} x {image.shape[1]}. They must be of one size."
            )
        mask |= (nucleus > 0).long()
    return Sample(entry.name, image, mask, valid)

"""Layout ``oxford-pet``: the Oxford-IIIT Pet set (Parkhi et al., CVPR 2012), trimaps 1 pet, 2 background, 3 border."""

from functools import partial
from pathlib import Path

import torch

from seglens.data.images import read_image, read_label
from seglens.data.layout import DataSettings, Entry, Found
from seglens.data.sample import Sample, Task
from seglens.errors import DataError

LOOKS_LIKE = "images/, annotations/trimaps/, annotations/trainval.txt and test.txt"
PET, BACKGROUND, BORDER = 1, 2, 3
BORDER_CLASS = {"foreground": 1, "background": 0, "ignore": 0, "class": 2}


def recognises(path: Path) -> bool:
    """Whether ``path`` holds annotations/trimaps."""
    return (path / "annotations" / "trimaps").is_dir()


def find(settings: DataSettings) -> Found:
    """List the pictures of trainval.txt (as train) and test.txt; the valid split is left to be made."""
    entries = {}
    for split, name in (("train", "trainval.txt"), ("test", "test.txt")):
        file = settings.path / "annotations" / name
        if not file.is_file():
            raise DataError(
                f"{file} is missing: it lists the pictures of a split. Add it, or use layout pairs."
            )
        lines = (line.split() for line in file.read_text(encoding="utf-8").splitlines())
        stems = sorted(parts[0] for parts in lines if parts and not parts[0].startswith("#"))
        entries[split] = tuple(_entry(settings.path, stem) for stem in stems)
    border = ("border",) if settings.border == "class" else ()
    reader = partial(_read, border=settings.border, channels=settings.channels)
    return Found(Task(classes=("background", "pet", *border)), entries, reader)


def _entry(path: Path, stem: str) -> Entry:
    trimap = path / "annotations" / "trimaps" / f"{stem}.png"
    return Entry(stem, path / "images" / f"{stem}.jpg", (trimap,) if trimap.is_file() else ())


def _read(entry: Entry, *, border: str, channels: int) -> Sample:
    image = read_image(entry.image, channels)
    if not entry.masks:
        return Sample(entry.name, image, None, torch.ones(image.shape[-2:], dtype=torch.bool))
    trimap = read_label(entry.masks[0])
    if trimap.shape != image.shape[-2:]:
        raise DataError(
            f"The trimap {entry.masks[0]} is {trimap.shape[1]} x {trimap.shape[0]} pixels, its picture "
            f"{entry.image.name} {image.shape[2]} x {image.shape[1]}. They must be of one size."
        )
    wrong = [value for value in trimap.unique().tolist() if value not in (PET, BACKGROUND, BORDER)]
    if wrong:
        raise DataError(f"The trimap {entry.masks[0]} holds the value {wrong[0]}; allowed are 1, 2 and 3.")
    mask = (trimap == PET).long() + BORDER_CLASS[border] * (trimap == BORDER).long()
    valid = trimap != BORDER if border == "ignore" else torch.ones_like(trimap, dtype=torch.bool)
    return Sample(entry.name, image, mask, valid)

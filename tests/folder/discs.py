"""Pictures of bright discs, and a network that knows them: what tests of batches start from."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

import seglens
from seglens.data.images import read_image
from seglens.data.layout import Entry, Split
from seglens.data.sample import Sample, Task
from seglens.runs import Run

SIZES = ((40, 56), (64, 64), (80, 30))
TASK = Task(classes=("background", "disc"))


class Bright(nn.Module):
    """Says disc where the picture is bright: a network whose answers are known beforehand."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3, padding=1, stride=2)
        self.head = nn.Conv2d(4, 1, 1)
        values = {"body.weight": 1 / 27, "body.bias": 0.0, "head.weight": 5.0, "head.bias": -10.0}
        for name, parameter in self.named_parameters():
            nn.init.constant_(parameter, values[name])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        grid = self.head(torch.relu(self.body(images)))
        return nn.functional.interpolate(grid, scale_factor=2.0, mode="bilinear", align_corners=False)


def size_of(file: Path) -> tuple[int, int]:
    with Image.open(file) as opened:
        return opened.size


def values_of(file: Path) -> np.ndarray:
    with Image.open(file) as opened:
        return np.asarray(opened)


def read(entry: Entry) -> Sample:
    image = read_image(entry.image, 3)
    mask = torch.from_numpy(values_of(entry.masks[0]).astype(np.int64)) if entry.masks else None
    return Sample(entry.name, image, mask, torch.ones(image.shape[1:], dtype=torch.bool))


def split_of(folder: Path, *, masks: bool = True) -> Split:
    files = sorted((folder / "images").glob("*.png"))
    entries = tuple(
        Entry(file.stem, file, (folder / "masks" / file.name,) if masks else (), labelled=masks)
        for file in files
    )
    return Split(name="test", task=TASK, entries=entries, reader=read)


def table_of(file: Path) -> dict:
    return json.loads(file.read_text("utf-8"))


def make_run() -> Run:
    torch.manual_seed(0)
    return seglens.wrap(Bright(), classes=TASK.classes, mean=(0.0,) * 3, std=(1.0,) * 3, image_size=64)


def write_discs(folder: Path) -> Path:
    """Bright discs on dark ground, pictures of several sizes, with their masks."""
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for i in range(5):
        rows, columns = SIZES[i % 3]
        y, x = np.mgrid[:rows, :columns]
        disc = (y - rows / 2) ** 2 + (x - columns / 2 + i) ** 2 < (8 + i) ** 2
        image = np.where(disc, 250, 10).astype(np.uint8)
        Image.fromarray(np.stack([image] * 3, -1)).save(folder / "images" / f"{i}.png")
        Image.fromarray(disc.astype(np.uint8)).save(folder / "masks" / f"{i}.png")
    return folder

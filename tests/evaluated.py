"""A network whose answer is known, a pixel is foreground where it is bright, and splits for it."""

from pathlib import Path

import torch
from torch import nn

import seglens
from seglens.data.layout import Entry, Split
from seglens.data.sample import Sample, Task

MIRRORS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))


class Bright(nn.Module):
    """Logit of each class but the background: how bright its channel is, above a half."""

    def __init__(self, outputs=1):
        super().__init__()
        self.outputs = outputs

    def forward(self, images):
        if self.outputs == 1:
            return (images[:, :1] - 0.5) * 100
        background = torch.full_like(images[:, :1], 0.5)
        return torch.cat([background, images[:, : self.outputs - 1]], dim=1) * 100


def bright_run(classes=("background", "disc"), size=32):
    outputs = 1 if len(classes) == 2 else len(classes)
    return seglens.wrap(Bright(outputs), classes=classes, mean=(0.0,) * 3, std=(1.0,) * 3, image_size=size)


def sample(name, predicted, truth, valid=None):
    """A picture for which ``Bright`` predicts ``predicted``."""
    image = torch.stack([(predicted == index).float() for index in (1, 2, 3)])
    return Sample(name, image, truth, torch.ones_like(truth).bool() if valid is None else valid)


def split_of(*samples, classes=("background", "disc"), name="test"):
    """A split that holds ``samples``; an exception is raised in the place of a picture."""
    table = {}
    for index, given in enumerate(samples):
        table[f"broken-{index}" if isinstance(given, Exception) else given.name] = given

    def read(entry):
        if isinstance(table[entry.name], Exception):
            raise table[entry.name]
        return table[entry.name]

    entries = tuple(Entry(name=key, image=Path(f"{key}.png")) for key in table)
    return Split(name, Task(classes=classes), entries, read)


def box(rows, columns, size=32):
    mask = torch.zeros(size, size, dtype=torch.int64)
    mask[rows, columns] = 1
    return mask


TRUTH = box(slice(0, 16), slice(0, 16))
HALF = box(slice(0, 16), slice(8, 24))
NOTHING = torch.zeros(32, 32, dtype=torch.int64)


def random_samples(num, sizes=((32, 32), (40, 50), (20, 30))):
    generator = torch.Generator().manual_seed(1)
    made = []
    for index in range(num):
        shape = sizes[index % len(sizes)]
        predicted, truth = (torch.randint(2, shape, generator=generator) for _ in range(2))
        made.append(sample(f"s{index}", predicted, truth))
    return made

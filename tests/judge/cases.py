"""Cases whose answers can be written down: pictures of checkered cells, and a network of two layers."""

from collections.abc import Sequence

import torch
from torch import nn

import seglens
from seglens import wrap
from seglens.explain.explanation import Explanation
from seglens.explain.methods import Method
from seglens.explain.target import Target
from seglens.judge import case as cases
from seglens.judge.case import JudgeSettings
from seglens.judge.cells import CELLS, grid_cells
from seglens.judge.nulls import content_free, null_inputs

SIZE = 32  # cells of 2 x 2 pixels
NUM = 10


class Contrast(nn.Module):
    """Probability everywhere = mean contrast |2x - 1| over ``where``; ``gain`` is a weight to forget."""

    def __init__(self, where: torch.Tensor) -> None:
        super().__init__()
        self.where = where
        self.gain = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.ones_(self.gain.weight)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        contrast = self.gain((2 * images - 1).abs().mean(1, keepdim=True))[:, 0]
        mean = (contrast * self.where).flatten(1).sum(1) / self.where.sum()
        return torch.logit(mean, eps=1e-6)[:, None, None, None].expand(-1, 1, *images.shape[-2:])


def checkered(cells: torch.Tensor) -> torch.Tensor:
    """Pictures whose 2 x 2 cells are checkerboards .5 +- cell/2: mean .5 everywhere, contrast = cell."""
    sign = (-1.0) ** (torch.arange(SIZE)[:, None] + torch.arange(SIZE)[None])
    return (0.5 + 0.5 * wide(cells) * sign)[:, None].repeat(1, 3, 1, 1)


def wide(cells: torch.Tensor) -> torch.Tensor:
    return cells.repeat_interleave(2, 1).repeat_interleave(2, 2)


def run_of(where: torch.Tensor):
    return wrap(
        Contrast(where.float()),
        classes=("background", "cell"),
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        image_size=SIZE,
    )


def square(num: int = NUM) -> Target:
    pixels = torch.zeros(num, SIZE, SIZE, dtype=torch.bool)
    pixels[:, 12:20, 12:20] = True
    return Target("square", 1, pixels)


def far() -> torch.Tensor:
    """What is more than a cell away from the square: all but 12 x 12 pixels."""
    where = torch.ones(SIZE, SIZE, dtype=torch.bool)
    where[10:22, 10:22] = False
    return where


def case_of(
    where: torch.Tensor, cells: torch.Tensor, maps: dict[str, torch.Tensor], **changes
) -> cases.JudgedBatch:
    run, images, target = run_of(where), checkered(cells), square(len(cells))
    inputs = null_inputs(run, images, target)
    values = {
        "run": run,
        "images": images,
        "target": target,
        "maps": {(name, None): Explanation(name, None, target, heat) for name, heat in maps.items()},
        "inputs": inputs,
        "nulls": {name: content_free(inputs)[name] for name in ("random", "mirror-4")},
        "valid": torch.ones_like(target.pixels),
        "partition": grid_cells(images, target.pixels, CELLS),
        "settings": JudgeSettings(),
        "explainers": {},
        "seed": 0,
        "batch_size": 64,
    }
    return cases.JudgedBatch(**{**values, **changes})


class Small(nn.Module):
    """An encoder of one layer and a decoder of one, with weights to forget."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 6, 5, padding=2), nn.BatchNorm2d(6), nn.ReLU())
        self.decoder = nn.Sequential(nn.Conv2d(6, 4, 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(4, 1, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.decoder(self.encoder(images)))


def small_case(methods: Sequence[Method], own: dict | None = None, **changes) -> cases.JudgedBatch:
    """Maps of methods and of own explainers on noise pictures."""
    torch.manual_seed(0)
    run = wrap(Small(), classes=("a", "b"), mean=(0.5,) * 3, std=(1.0,) * 3, image_size=SIZE)
    images = torch.rand(NUM, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) * 0.8 + 0.1
    images = torch.nn.functional.avg_pool2d(images, 5, 1, 2)
    target = square()
    maps: dict[tuple[str, str | None], Explanation] = {}
    if methods:
        made = seglens.explain(run, images, target, methods=methods, layers=("encoder",)).values()
        maps = {(entry.method, entry.layer): entry for entry in made}
    for name, explainer in (own or {}).items():
        maps[name, None] = Explanation(name, None, target, explainer(run, images, target))
    inputs = null_inputs(run, images, target)
    values = {
        "run": run,
        "images": images,
        "target": target,
        "maps": maps,
        "inputs": inputs,
        "nulls": content_free(inputs),
        "valid": torch.ones_like(target.pixels),
        "partition": grid_cells(images, target.pixels, CELLS),
        "settings": JudgeSettings(max_seconds=1e9),
        "explainers": own or {},
        "seed": 0,
        "batch_size": 64,
    }
    return cases.JudgedBatch(**{**values, **changes})


def centre_blob(run, images, target) -> torch.Tensor:
    return content_free(null_inputs(run, images, target))["centre"]


def fresh_noise(run, images, target) -> torch.Tensor:
    return torch.rand(len(images), *images.shape[-2:])

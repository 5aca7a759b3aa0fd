"""A model whose every answer can be worked out by hand, and a picture for it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import seglens
from seglens.inspection.opened import Opened, open_file
from seglens.runs import Run

WEIGHTS, BIAS = (2.0, -1.0, 3.0), -1.5
"""The logit of a pixel is ``2 red - green + 3 blue - 1.5``."""


def logits_of(image: torch.Tensor) -> torch.Tensor:
    """The second formula of `linear_run`."""
    red, green, blue = image.double()
    return 2 * red - green + 3 * blue - 1.5


@pytest.fixture(scope="session")
def linear_run() -> Run:
    """A network of one weight a channel, which looks at one pixel at a time; 32 pixels a side."""
    module = nn.Conv2d(3, 1, 1)
    with torch.no_grad():
        module.weight.copy_(torch.tensor(WEIGHTS).view(1, 3, 1, 1))
        module.bias.fill_(BIAS)  # type: ignore[union-attr]
    return seglens.wrap(
        module, classes=("background", "spot"), mean=(0.0,) * 3, std=(1.0,) * 3, image_size=32
    )


@pytest.fixture(scope="session")
def spots(tmp_path_factory) -> Path:
    """Two bright spots on black: 6 x 6 pixels at column 4, row 5, and 3 x 3 at column 20, row 21."""
    image = np.zeros((32, 32, 3), np.uint8)
    image[5:11, 4:10] = 204
    image[21:24, 20:23] = 255
    file = tmp_path_factory.mktemp("spots") / "spots.png"
    Image.fromarray(image).save(file)
    return file


@pytest.fixture
def opened(linear_run, spots) -> Opened:
    """`spots` with its prediction."""
    return open_file(linear_run, spots)

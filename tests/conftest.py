"""What tests of whole verbs start from: a small set on disk, and a run folder with an untrained network."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.browser import chromium, chromium_browser, chromium_like  # noqa: F401
from tests.public_sets import library, public_sets  # noqa: F401

from seglens.data.layout import DataSettings
from seglens.data.sample import Task
from seglens.models.segmenter import ModelSpec, Segmenter
from seglens.results import record as records
from seglens.runs import save_run


def write_pair(folder: Path, name: str, seed: int, size: tuple[int, int] = (40, 32)) -> None:
    """Write a bright disc on noise, and its mask, as a pair of PNG files of ``size`` (width, height)."""
    random = np.random.default_rng(seed)
    x, y = random.integers(12, size[0] - 12), random.integers(12, size[1] - 12)
    columns, rows = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    disc = (columns - x) ** 2 + (rows - y) ** 2 < 64
    image = random.integers(0, 90, (size[1], size[0], 3)) + 150 * disc[..., None]
    for kind, pixels in (("images", image), ("masks", disc * 255)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / kind / f"{name}.png")


def write_set(folder: Path) -> Path:
    """Write a set in the layout ``pairs`` with 4, 2 and 3 pictures."""
    for start, (split, num) in zip((0, 10, 20), (("train", 4), ("valid", 2), ("test", 3)), strict=True):
        for index in range(num):
            write_pair(folder / split, f"{split}-{index}", start + index)
    return folder


def write_run(folder: Path, data: Path | None) -> Path:
    """Save a small U-Net with random weights, whose logits are positive in about half of a picture."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mean = (0.5, 0.5, 0.5)
        spec = ModelSpec(architecture="unet", width=4, image_size=32, head="sigmoid", mean=mean, std=mean)
        segmenter = Segmenter.from_spec(spec)
        with torch.no_grad():
            middle = segmenter.eval()(torch.rand(1, 3, 32, 32)).median()
            list(segmenter.parameters())[-1].sub_(middle)
    settings = DataSettings(path=data) if data is not None else None
    record = records.start(
        "train" if settings else "adopt", data=settings.model_dump(mode="json") if settings else None
    )
    folder.mkdir(parents=True)
    save_run(folder, segmenter, Task(), records.finish(record, 0.0))
    return folder


@pytest.fixture(scope="session")
def small_set(tmp_path_factory) -> Path:
    """A set of nine pictures; read it, don't change it."""
    return write_set(tmp_path_factory.mktemp("small") / "set")


@pytest.fixture(scope="session")
def one_run(tmp_path_factory, small_set) -> Path:
    """A run folder that knows ``small_set``; copy it, don't change it."""
    return write_run(tmp_path_factory.mktemp("one") / "run", small_set)


@pytest.fixture
def small_run(tmp_path, one_run) -> Path:
    """A run folder of the test's own that knows ``small_set``."""
    return shutil.copytree(one_run, tmp_path / "run")

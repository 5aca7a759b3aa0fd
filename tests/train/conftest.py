"""Training on a handful of discs, drawn on the fly, with a network of a few hundred weights."""

import csv
import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import seglens
from seglens.data.layout import DataSettings
from seglens.models.weights import read_state_dict
from seglens.train.lightning_module import SegmentationModule

SIZE = 32


def _write_discs(folder, num, first=0):
    rows, columns = np.mgrid[:SIZE, :SIZE]
    for index in range(first, first + num):
        random = np.random.default_rng(index)
        top, left = random.integers(8, 24, size=2)
        mask = (rows - top) ** 2 + (columns - left) ** 2 < 36
        picture = 60 + 120 * mask[..., None] + random.integers(0, 40, size=(SIZE, SIZE, 3))
        for kind, array in (("images", picture), ("masks", mask)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array.astype(np.uint8)).save(folder / kind / f"disc-{index:02d}.png")


@pytest.fixture(scope="session")
def write_discs():
    """Writes ``num`` pictures of a bright disc with their masks (0 and 1), in the layout ``pairs``."""
    return _write_discs


@pytest.fixture(scope="session")
def discs(tmp_path_factory):
    """A set of 8, 4 and 4 pictures; read it, don't change it."""
    folder = tmp_path_factory.mktemp("discs")
    for split, num, first in (("train", 8, 0), ("valid", 4, 50), ("test", 4, 80)):
        _write_discs(folder / split, num, first)
    return DataSettings(path=folder)


@pytest.fixture(scope="session")
def tiny():
    """Settings of a training that takes a second, with changes."""

    def settings(**changes: Any) -> seglens.TrainSettings:
        given: dict[str, Any] = {
            "model": "unet",
            "width": 4,
            "image_size": SIZE,
            "epochs": 3,
            "batch_size": 4,
            "augment": True,
        }
        return seglens.TrainSettings(**(given | {"device": "cpu", "precision": "32"} | changes))

    return settings


@pytest.fixture(scope="session")
def history_of():
    return lambda folder: list(csv.DictReader((folder / "history.csv").read_text().splitlines()))


@pytest.fixture(scope="session")
def weights_of():
    return lambda folder: read_state_dict(folder / "model.safetensors")


@pytest.fixture(scope="session")
def results_of():
    return lambda folder: json.loads((folder / "run.json").read_text())["results"]


@pytest.fixture(scope="session")
def assert_same_weights():
    def compare(one, other):
        assert one.keys() == other.keys()
        for name in one:
            assert torch.equal(one[name], other[name]), name

    return compare


@pytest.fixture
def interrupt():
    """Makes training raise ``error`` at a batch of an epoch (counted from 0), through a monkeypatch."""

    def arrange(patch, error, *, epoch, batch=0):
        step = SegmentationModule.training_step

        def stop_there(self, given, batch_index):
            if self.current_epoch == epoch and batch_index == batch:
                raise error
            return step(self, given, batch_index)

        patch.setattr(SegmentationModule, "training_step", stop_there)

    return arrange

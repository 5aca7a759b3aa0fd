"""Two runs on the same pictures, one of them changed, evaluated and explained."""

import shutil
from pathlib import Path

import pytest
import torch
from tests.conftest import write_pair, write_run

import seglens
from seglens.results import record as records
from seglens.runs import save_run

EVIL = '"><img src=x onerror=alert(1)><script>alert(2)<!--'
"""A name of a picture that would run a script on a page that does not escape it."""


def changed_copy(run: Path, folder: Path, *, seed: int) -> Path:
    """Save the model of ``run`` with noise on its weights into ``folder``."""
    model = seglens.load(run, device="cpu")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for values in model.segmenter.parameters():
            values.add_(0.1 * torch.randn(values.shape, generator=generator))
    record = records.read_record(run).model_copy(update={"settings": {"augment": True}})
    folder.mkdir(parents=True)
    save_run(folder, model.segmenter, model.task, record)
    return folder


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory) -> Path:
    """A folder with the runs ``first`` and ``second``, evaluated and explained on four pictures."""
    place = tmp_path_factory.mktemp("compared")
    for index, name in enumerate(("a", "b", "c", EVIL.replace("/", ""))):
        write_pair(place / "set/test", name, index)
    for split in ("train", "valid"):
        write_pair(place / "set" / split, split, 9)
    write_run(place / "first", place / "set")
    changed_copy(place / "first", place / "second", seed=1)
    for name in ("first", "second"):
        run = seglens.load(place / name, device="cpu")
        pictures = seglens.open_split(run, "test")
        seglens.evaluate(run, pictures, save_images=True)
        seglens.explain_folder(run, pictures, methods=("activation",))
    return place


@pytest.fixture
def two(tmp_path, evaluated) -> Path:
    """A copy of ``evaluated`` of the test's own."""
    return shutil.copytree(evaluated, tmp_path / "two")

"""Jobs of two real processes on the CPU: evaluation, explanation, a script of one's own, and training."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.arrays import arrays_of
from tests.conftest import write_pair, write_run
from tests.jobs import ALONE_ENVIRONMENT, files_below

import seglens
from seglens.evaluate.scores import confusion, scores
from seglens.train.dataset import TrainingDataset


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A run, and a set of 17 test pictures of two sizes, the fourth of them broken, two of like name."""
    root = tmp_path_factory.mktemp("spread")
    for index in range(17):
        write_pair(root / "set" / "test", f"t-{index:02d}", index, (40, 32) if index % 2 else (50, 44))
    for start, split in ((50, "train"), (60, "valid")):
        write_pair(root / "set" / split, split, start)
    (root / "set" / "test" / "images" / "t-03.png").write_bytes(b"broken")
    write_run(root / "run", root / "set")
    return root


def end_of(*command: object, where: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, on one thread, so that sums agree; it must not hang."""
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=where,
        env={**ALONE_ENVIRONMENT, "OMP_NUM_THREADS": "1", **variables},
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_evaluation_in_two_processes_is_that_of_one(place: Path):
    ended = end_of(
        *("-m", "seglens", "evaluate", "run", "--device", "cpu", "--precision", "32", "--batch-size", "2"),
        *("--devices", "2", "--save-images", "--out", "two"),
        where=place,
    )
    assert ended.returncode == 1, ended.stderr  # 1 of 17 could not be done
    assert ended.stderr.count("t-03:") == 1
    assert ended.stdout.count("test split, 16 pictures") == 1
    run = seglens.load(place / "run", device="cpu")
    split = seglens.open_split(run, "test")
    one = seglens.evaluate(run, split, batch_size=2, precision="32", save_images=True, out=place / "one")
    assert (place / "two" / "scores.json").read_text() == (place / "one" / "scores.json").read_text()
    found = json.loads((place / "two" / "scores.json").read_text())
    assert sorted(row["index"] for row in found["images"]) == list(range(17)) == list(range(len(one.images)))
    assert files_below(place / "two") == files_below(place / "one")
    assert json.loads((place / "two" / "run.json").read_text())["settings"]["processes"] == 2
    assert not list(place.glob(".two.partial*"))


def test_explanation_in_two_processes_is_that_of_one(place: Path):
    """Under torchrun, which needs to be told nothing but the number of processes: the same, bit for bit."""
    ended = end_of(
        *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "seglens", "explain"),
        *("run", "--device", "cpu", "--devices", "2", "--layers", "encoder_last", "--out", "maps-2"),
        *("--methods", "grad-cam,smoothgrad", "--set", "smoothgrad.num_samples=2"),
        where=place,
    )
    assert ended.stderr.count("t-03:") == 1, ended.stderr
    assert ended.stdout.count("16 pictures explained") == 1
    run = seglens.load(place / "run", device="cpu")
    seglens.explain_folder(
        run,
        seglens.open_split(run, "test"),
        methods=("grad-cam", seglens.SmoothGrad(num_samples=2)),
        layers=("encoder_last",),
        out=place / "maps-1",
    )
    assert files_below(place / "maps-2") == files_below(place / "maps-1")
    maps = sorted((place / "maps-1").rglob("maps.npz"))
    assert len(maps) == 16
    for file in maps:
        one, two = arrays_of(file), arrays_of(place / "maps-2" / file.relative_to(place / "maps-1"))
        assert set(one) == set(two)
        for name in one:
            np.testing.assert_array_equal(two[name], one[name], strict=True)
    tables = [json.loads((place / name / "explanations.json").read_text()) for name in ("maps-1", "maps-2")]
    assert tables[1] == tables[0]
    names = [row["name"] for row in tables[1]["samples"]]
    assert len(set(names)) == len(names) == 17


SCRIPT = """
import os, sys, time
import seglens
from seglens.errors import DataError

with seglens.spread(devices=2, device="cpu") as share:
    print("items", share.gather(list(share.of(7))), share.device, sys.stdin.read())
    share.agree("numbers", 1)
    with share.folder("out", command="evaluate") as folder:
        (folder / str(share.rank)).write_text("done")
    try:
        share.agree("ranks", share.rank)
    except seglens.UserError as error:
        print(error)
    with share.folder("never", command="evaluate") as folder:
        if share.rank == 1:
            (folder / "half").write_text("half")
            raise DataError("b.png is broken")
        time.sleep(3600)
print("not reached")
"""


def test_a_script_and_an_error_in_one_of_its_processes(tmp_path: Path):
    """Everything that a process can do with its share, until another one fails and ends it."""
    (tmp_path / "job.py").write_text(SCRIPT)
    ended = end_of("job.py", where=tmp_path)
    assert ended.returncode == 1
    assert "items [0, 1, 2, 3, 4, 5, 6] cpu \n" in ended.stdout
    assert "don't have the same ranks: processes 1 and 2 of 2 differ" in ended.stdout
    assert "not reached" not in ended.stdout
    assert re.search(r"DataError: b\.png is broken\n", ended.stderr)
    assert files_below(tmp_path) == {"job.py", "out", "out/0", "out/1", "out/run.json"}


TRAINING = """
import hashlib, json
from pathlib import Path
import torch
import seglens
from seglens.data.layout import DataSettings
from seglens.train.fit import CheckpointCallback
from seglens.train.lightning_module import SegmentationModule

seen, step, end = [], SegmentationModule.training_step, CheckpointCallback.on_train_epoch_end

def training_step(self, batch, index):
    seen.extend(batch.names)
    return step(self, batch, index)

def on_train_epoch_end(self, trainer, module):
    end(self, trainer, module)
    weights = b"".join(part.detach().numpy().tobytes() for part in module.segmenter.parameters())
    parts = [None] * trainer.world_size
    torch.distributed.all_gather_object(parts, (hashlib.sha256(weights).hexdigest(), seen))
    if trainer.is_global_zero:
        Path("seen.json").write_text(json.dumps(parts))

SegmentationModule.training_step, CheckpointCallback.on_train_epoch_end = training_step, on_train_epoch_end
settings = seglens.TrainSettings(
    width=4, image_size=32, epochs=1, batch_size=8, device="cpu", precision="32", devices=2, ema=0,
    threshold=0.5, loggers=(),
)
seglens.train(DataSettings(path=Path("set")), settings, Path("run"))
"""


def test_training_in_two_processes(tmp_path: Path):
    """One epoch: the same weights in both, every picture once, and scores as one process would give."""
    for start, (split, num) in zip((0, 10, 20), (("train", 7), ("valid", 3), ("test", 1)), strict=True):
        for index in range(num):
            write_pair(tmp_path / "set" / split, f"{split}-{index}", start + index)
    (tmp_path / "job.py").write_text(TRAINING)
    ended = end_of("job.py", where=tmp_path)
    assert ended.returncode == 0, ended.stderr
    found = json.loads((tmp_path / "seen.json").read_text())
    (first, ours), (second, theirs) = found
    assert first == second
    assert sorted(ours + theirs) == [f"train-{index}" for index in range(7)]
    run = seglens.load(tmp_path / "run", device="cpu")
    counts = torch.zeros(2, 2, dtype=torch.int64)
    feed = TrainingDataset(seglens.open_split(run, "valid"), size=32)
    for small in (feed[0, index] for index in range(3)):
        assert small.mask is not None
        counts += confusion(run.predict(small.image[None]).mask[0], small.mask, small.valid, 2)
    pooled = scores(counts)
    row = (tmp_path / "run" / "history.csv").read_text().splitlines()
    history = dict(zip(row[0].split(","), row[1].split(","), strict=True))
    for name in ("dice", "iou"):
        assert float(history[f"valid_{name}"]) == pytest.approx(float(pooled[name]), rel=1e-5)

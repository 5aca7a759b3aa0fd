"""A job that is killed goes on where it was, and comes to the same to the last byte."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.folder.discs import split_of

import seglens
from seglens.errors import DataError, OutputExistsError, SettingError
from seglens.folder import writer
from seglens.folder.chunks import Failure
from seglens.folder.partial import DONE, Done, _plain, _whole
from seglens.judge.localisation import Attention
from seglens.results.maps import MapFrame, OneMap, PictureMaps
from seglens.runs import Run

KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import seglens
from seglens.folder import explaining
from tests.folder.discs import make_run, split_of
folder, written = Path(sys.argv[2]), []
write = explaining.writer.write_sample
def deadly(*values):
    if len(written) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    written.append(values)
    return write(*values)
explaining.writer.write_sample = deadly
seglens.explain_folder(make_run(), split_of(folder), out=folder / "out", layers=("body",),
    target=("predicted", "false-negative"), methods=("grad-cam", "saliency"), batch_size=1, scale="dataset")
"""
ASKED: dict[str, Any] = {
    "layers": ("body",),
    "target": ("predicted", "false-negative"),
    "batch_size": 1,
    "scale": "dataset",
}
METHODS = ("grad-cam", "saliency")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != "run.json"
    }


def test_a_job_killed_on_the_way_is_resumed_to_the_same_bytes(run: Run, folder: Path):
    whole = (folder / "images" / "1.png").read_bytes()
    (folder / "images" / "1.png").write_bytes(whole[:80])  # one that can't be read, before the kill
    root = str(Path(__file__).parents[2])
    ended = subprocess.run([sys.executable, "-c", KILLED, root, str(folder)], capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    partial = folder / ".out.partial"
    assert len(list((partial / DONE).glob("0*.json"))) == 3
    assert not (folder / "out").exists()
    (partial / "samples/0/.torn.partial-1234.png").write_bytes(b"torn")
    split = split_of(folder)
    with pytest.raises(OutputExistsError, match=r"holds 3 chunks .* Go on with --resume"):
        seglens.explain_folder(run, split, out=folder / "out", methods=METHODS, **ASKED)
    with pytest.raises(SettingError, match=r"other settings: methods was .*; seed was 0, now 1"):
        seglens.explain_folder(run, split, out=folder / "out", resume=True, seed=1, **ASKED)
    before = (partial / "samples/0/maps.npz").stat().st_mtime_ns
    done = seglens.explain_folder(run, split, out=folder / "out", methods=METHODS, resume=True, **ASKED)
    assert not partial.exists()
    assert (folder / "out/samples/0/maps.npz").stat().st_mtime_ns == before
    alone = seglens.explain_folder(run, split, out=folder / "alone", methods=METHODS, **ASKED)
    assert (done.num_done, done.failed) == (alone.num_done, alone.failed) == (4, alone.failed)
    assert contents(folder / "out") == contents(folder / "alone")
    records = [json.loads((folder / name / "run.json").read_text()) for name in ("out", "alone")]
    for record in records:
        for key in ("started", "duration_seconds"):
            del record[key]
    assert records[0] == records[1]


def test_an_error_on_the_way_keeps_what_was_done(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch):
    split, write = split_of(folder), writer.write_sample
    calls: list[int] = []

    def stopped(*values: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return write(*values)  # type: ignore[arg-type]

    monkeypatch.setattr(writer, "write_sample", stopped)
    with pytest.raises(KeyboardInterrupt):
        seglens.explain_folder(run, split, out=folder / "out", layers=("body",), batch_size=1)
    seglens.explain_folder(run, split, out=folder / "out", layers=("body",), batch_size=1, resume=True)
    assert len(calls) == 3 + 3  # the third one again, and two more
    assert not (folder / ".out.partial").exists()


def test_pictures_that_changed_are_not_mixed_with_those_that_are_done(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    split, written = split_of(folder), writer.write_sample

    def breaks(*values: Any) -> PictureMaps:
        if values[2] or any((folder / ".out.partial" / DONE).glob("0*.json")):
            raise RuntimeError("on the way")
        return written(*values)

    monkeypatch.setattr(writer, "write_sample", breaks)
    with pytest.raises(RuntimeError, match="on the way"):
        seglens.explain_folder(run, split, out=folder / "out", methods=METHODS, **ASKED)
    monkeypatch.undo()
    first = split.entries[0]
    with Image.open(first.image) as picture:
        inverted = 255 - np.asarray(picture)
    Image.fromarray(inverted).save(first.image)
    with pytest.raises(DataError, match=rf"1 of 1 picture done before.*\({first.name}\).*--force"):
        seglens.explain_folder(run, split, out=folder / "out", methods=METHODS, resume=True, **ASKED)


def test_force_starts_again(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch):
    split = split_of(folder)
    partial = folder / ".out.partial" / DONE
    partial.mkdir(parents=True)
    (partial / "000000.json").write_text("{}")
    done = seglens.explain_folder(run, split, out=folder / "out", layers=("body",), force=True)
    assert done.num_done == 5
    assert not partial.parent.exists()


def test_what_is_kept_of_a_chunk_comes_back_the_same():
    numbers = torch.tensor([0.1, float("nan"), float("inf")])
    attention = Attention(
        target="t", method="m", layer=None, status=("ok", "no_target", "ok"), statistics={"ratio": numbers},
        nulls={"mirror": {"ratio": numbers.double()}}, resemblance=numbers.double(),
    )  # fmt: skip
    row = PictureMaps(
        name="a",
        status="ok",
        files={"tensor": "x"},
        frame=MapFrame(native=(1, 2), part=(0.0, 0.5, 1.0, 1.0)),
        maps=(OneMap(method="m", target="t", layer=None, statistics={"ratio": float("inf"), "min": None}),),
    )
    done = Done((3, 4), [row], [(attention, {"mean": numbers})], (Failure("x", "why", 7),))
    back = _whole(json.loads(json.dumps(_plain(done))))
    assert (back.numbers, back.rows, back.failed[0].number) == ((3, 4), [row], 7)
    again, measured = back.measured[0]
    assert (again.status, again.layer) == (attention.status, None)
    for one, other in (
        (again.statistics["ratio"], numbers),
        (again.nulls["mirror"]["ratio"], numbers.double()),
        (measured["mean"], numbers),
    ):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_weights_of_another_epoch_are_not_mixed_with_those_that_are_done(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """A run folder that kept two epochs: each has weights of its own hash."""
    split, write = split_of(folder), writer.write_sample
    first, second = (replace(run, sha256=letter * 64) for letter in "ab")

    def stopped(*values: object) -> object:
        if (folder / ".out.partial" / DONE / "000000.json").exists():
            raise KeyboardInterrupt
        return write(*values)  # type: ignore[arg-type]

    monkeypatch.setattr(writer, "write_sample", stopped)
    with pytest.raises(KeyboardInterrupt):
        seglens.explain_folder(first, split, out=folder / "out", layers=("body",), batch_size=1)
    monkeypatch.setattr(writer, "write_sample", write)
    with pytest.raises(SettingError, match=r'other settings: model was "aaa.*", now "bbb'):
        seglens.explain_folder(second, split, out=folder / "out", layers=("body",), batch_size=1, resume=True)
    seglens.explain_folder(first, split, out=folder / "out", layers=("body",), batch_size=1, resume=True)

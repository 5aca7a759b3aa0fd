"""Numbers out of range, paths that are not there, and names that a terminal or a spreadsheet would obey."""

import json
import subprocess
import sys
from datetime import datetime, timedelta

import pytest

from seglens import IntegratedGradients, JudgeSettings, Rise, SmoothGrad, TrainSettings, WeakSettings
from seglens.arguments import check_range
from seglens.arguments.byte_sizes import parse_bytes
from seglens.cli.terminal import explain_error, printable
from seglens.errors import DataError, SettingError
from seglens.explain.occlusion import Occlusion, SuperpixelOcclusion
from seglens.files.output import table_cell
from seglens.results.record import read_record
from seglens.results.tables import write_rows
from seglens.runtime.distributed import refuse_lone_node
from seglens.weak.classifier import ClassifierSettings
from seglens.weak.settings import HeatSettings, from_plain

NAN, HUGE = float("nan"), 10**12


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Rise(num_masks=HUGE), "num_masks"),
        (lambda: Rise(cells=HUGE), "cells"),
        (lambda: SmoothGrad(num_samples=HUGE), "num_samples"),
        (lambda: IntegratedGradients(steps=HUGE, max_steps=HUGE), "max_steps"),
        (lambda: IntegratedGradients(draws=HUGE), "draws"),
        (lambda: IntegratedGradients(tolerance=NAN), "tolerance"),
        (lambda: Occlusion(window=HUGE), "window"),
        (lambda: SuperpixelOcclusion(num_segments=HUGE), "num_segments"),
        (lambda: SuperpixelOcclusion(compactness=NAN), "compactness"),
        (lambda: JudgeSettings(across=HUGE), "across"),
        (lambda: JudgeSettings(max_seconds=NAN), "max_seconds"),
        (lambda: TrainSettings(workers=HUGE), "workers"),
        (lambda: TrainSettings(epochs=HUGE), "epochs"),
        (lambda: TrainSettings(width=HUGE), "width"),
        (lambda: TrainSettings(class_weights=(1.0, NAN)), "Class weights"),
        (lambda: WeakSettings(pseudo_seed=-1), "pseudo_seed"),
        (lambda: ClassifierSettings(learning_rate=NAN), "learning_rate"),
        (lambda: HeatSettings(scales=(0,)), "HeatSettings.scales is 0"),
        (lambda: from_plain({"masks": {"opening": -3}}), "MaskSettings.opening is -3"),
        (lambda: from_plain({"surprise": 1}), "no setting surprise"),
        (lambda: check_range("x", 10**5000, 0, 1), "more than 18 digits"),
        (lambda: parse_bytes("9" * 400), "no amount of memory"),
        (lambda: parse_bytes(str(2**60 + 1)), "no amount of memory"),
    ],
)
def test_numbers_out_of_range_are_refused_by_name(make, says):
    with pytest.raises(SettingError, match=says):
        make()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("explain run --seed 18446744073709551616", "--seed is a number of more than 18 digits, but must be"),
        ("train set --run new --split-seed -1", "--split-seed is -1, but must be from 0 to 4294967295"),
        ("evaluate run --devices 2000", "--devices is 2000, but must be from 1 to 1024"),
        ("explain run --samples 0 -3", "--samples is -3"),
        ("explain run --memory " + "9" * 400, "no amount of memory"),
        ("app run --port 70000", "--port is 70000"),
    ],
)
def test_flags_out_of_range_are_refused_first(seglens, words, says):
    ended = seglens(*words.split())
    assert (ended.code, says in ended.err) == (2, True), ended.err


@pytest.mark.parametrize(
    "line",
    ["explain nowhere", "predict nowhere a.png", "train nowhere --run new", "data check nowhere",
     "layers nowhere", f"layers {'x' * 300}", "adopt nowhere.pth --run new"],
)  # fmt: skip
def test_paths_are_looked_at_without_torch(line, tmp_path):
    code = (
        "import sys; sys.modules['torch'] = None; from seglens.cli import command; "
        "sys.exit(command(sys.argv[1:]))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, *line.split()], cwd=tmp_path, capture_output=True, text=True
    )
    assert found.returncode == 2, found.stderr
    assert "there is no" in found.stderr


def test_a_job_on_several_nodes_says_where_it_must_be_started(monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SettingError, match="MASTER_ADDR, MASTER_PORT, NODE_RANK"):
        refuse_lone_node(2)


def test_a_job_on_several_nodes_says_until_when_it_waits(monkeypatch, capsys):
    for name, value in (("MASTER_ADDR", "there"), ("MASTER_PORT", "29500"), ("NODE_RANK", "0")):
        monkeypatch.setenv(name, value)
    now = datetime.now()
    refuse_lone_node(3, timedelta(days=1))
    refuse_lone_node(3)
    day, short = capsys.readouterr().err.splitlines()
    assert day.startswith("Waiting for the processes of 3 nodes at there:29500, for at most 24 hours, until")
    said = datetime.strptime(short.partition("until ")[2][:16], "%Y-%m-%d %H:%M")
    assert "for at most 10 minutes" in short
    assert timedelta(minutes=9) < said - now < timedelta(minutes=11)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to ..."),
        RuntimeError("could not create a primitive"),
        ImportError("a.so: failed to map segment from shared object"),
    ],
)
def test_memory_that_is_not_enough_is_said(error, capsys):
    assert explain_error(error, debug=False) == 1
    assert "Memory doesn't suffice" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("could not create a primitive descriptor for x"),
        ImportError("a.so: failed to map segment from shared object: Operation not permitted"),
    ],
)
def test_what_is_not_supported_or_allowed_is_not_taken_for_memory(error, capsys):
    assert explain_error(error, debug=False) == 1
    assert f"Unexpected {type(error).__name__}" in capsys.readouterr().err


def test_a_terminal_obeys_no_name():
    assert printable("a\x1b[31mb\x9b\u202ec\nd") == "a\\x1b[31mb\\x9b\\u202ec\nd"


@pytest.mark.parametrize("name", ["=1", "+1", "-1x", "@x", "\tx", "\rx", " =1"])
def test_no_cell_of_a_table_is_a_formula(name, tmp_path):
    assert table_cell(name) == f"'{name}"
    write_rows([{name: 1}], tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_bytes().lstrip(b'"').startswith(b"'")


@pytest.mark.parametrize("colour", ["red", "#12345", "#000000;}*{", 7])
def test_a_record_with_no_colour_in_its_palette_is_refused(colour, tmp_path):
    record = {"schema_number": 1, "kind": "train", "task": {"palette": ["#000000", colour]}}
    (tmp_path / "run.json").write_text(json.dumps(record))
    with pytest.raises(
        DataError, match=r"run\.json.*task\.palette\.1 .*allowed are colours such as #1f77b4, received"
    ):
        read_record(tmp_path)

"""Bytes that are no UTF-8, as old disks and tables have them: in names of files, texts and flags."""

import json
import os
import re
import shutil
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from tests.conftest import write_pair, write_run
from tests.data.layouts import write_coco, write_labelme, write_pets

from seglens import cli, load, open_split
from seglens.data.layout import Split
from seglens.files.locks import beside
from seglens.runtime.signals import open_streams

E_ACUTE = "\udce9"
"""The byte 0xe9, an e with an accent in Latin-1, as Python has it in a file name."""
CPU = "--device cpu"
SMALL = f"--width 4 --image-size 32 --epochs 1 {CPU}"
MAPS = f"--layers encoder_last {CPU}"
JUDGED = f"--num-images 2 --scores attention {MAPS}"
WEAK = (
    "--question imagenet:0-9 --classifier test_byobnet --classifier-weights t.safetensors --student unet "
    f"{SMALL}"
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such names")


def write_world(root: Path, folder: str, name: str) -> None:
    """Write a set in ``folder``, with ``name`` in all its file names, and what knows or needs it beside."""
    for start, (split, num) in zip((0, 10, 20), (("train", 4), ("valid", 2), ("test", 3)), strict=True):
        for index in range(num):
            write_pair(root / folder / "set" / split, f"{name}-{split}-{index}", start + index)
    write_run(root / "run", root / folder / "set")
    with torch.random.fork_rng():
        torch.manual_seed(0)  # a network whose maps are not flat
        network = timm.create_model("test_byobnet")
    save_file(network.state_dict(), root / "t.safetensors")
    heat = {"maps": ["grad-cam@stages.3"], "scales": [64], "flips": False, "side": 32}
    stages = {"heat": heat, "spread": None, "refine": None, "patches": None}
    (root / "stages.json").write_text(json.dumps(stages))


@pytest.fixture(scope="module")
def names(tmp_path_factory) -> Path:
    """A world whose pictures have names that are no text, and a run that was trained on them."""
    root = tmp_path_factory.mktemp("names")
    write_world(root, "plain", f"f{E_ACUTE}")
    assert cli.command(f"train {root}/plain/set --run {root}/trained --logger none {SMALL}".split()) == 0
    return root


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """A world whose set is in a folder whose name is no text."""
    root = tmp_path_factory.mktemp("folders")
    write_world(root, f"caf{E_ACUTE}", "f")
    return root


@pytest.fixture
def typed(seglens, monkeypatch):
    """Type a command in a folder; what it prints must be text, in no more than one line where it fails."""

    def call(line: str, folder: Path):
        monkeypatch.chdir(folder)
        open_streams()
        ended = seglens(*line.split())
        assert not any("\ud800" <= letter <= "\udfff" for letter in ended.out + ended.err)
        assert "Unexpected" not in ended.err
        return ended

    return call


@pytest.mark.parametrize(
    "line",
    [
        "data check plain/set",
        "data show plain/set --out new-set.png --num-images 2 --image-size 64",
        f"train plain/set --run trained --resume --logger none {SMALL}",
        f"evaluate trained --save-images {CPU} --out new-scores",
        f"explain trained --split test --raw safetensors {MAPS} --out new-maps",
        f"explain run {{picture}} {MAPS} --out new-map",
        f"predict run {{picture}} {CPU} --out new-masks",
        f"judge trained {JUDGED} --audit border --groups folder --out new-scorecard",
        "compare run trained --data plain/set --out new-comparison",
        "report trained --out new-page.html",
        f"verify trained --num-images 1 {CPU}",
        f"weak plain/set --rounds 0 --stages stages.json {WEAK} --run new-weak",
    ],
)
def test_names_of_pictures(line, names, typed):
    picture = f"plain/set/test/images/f{E_ACUTE}-test-0.png"
    ended = typed(f"{line.format(picture=picture)} --json", names)
    assert ended.code == 0, ended.err
    json.loads(ended.out)
    for file in names.glob("new*/**/*.json"):
        json.loads(file.read_text(encoding="utf-8"))


def test_what_is_recorded_is_what_is_listed(names):
    """The names of the splits in the run are those of the pictures, which is how a change is noticed."""
    listed = json.loads((names / "trained/split.json").read_text())["splits"]["test"]
    split = open_split(load(names / "trained", device="cpu"), "test")
    assert isinstance(split, Split)
    assert list(listed) == [entry.name for entry in split.entries] == [f"f\\xe9-test-{i}" for i in range(3)]
    assert all(entry.image.is_file() for entry in split.entries)


def test_the_page_shows_text(names, tmp_path):
    pytest.importorskip("gradio", reason="gradio is not installed")
    from seglens.app.callbacks import Callbacks, Widgets

    run = load(names / "trained", device="cpu")
    widgets = Widgets(**{field.name: field.name for field in fields(Widgets)})
    shown = Callbacks(run, open_split(run, "test"), tmp_path, widgets).choose(0, "component")
    assert "test-0" in str(shown)
    str(shown).encode()


NO_UTF8 = r"seglens: caf\\udce9/new is no name in UTF-8.*Name another place\.\n"
MOVED = r"seglens: The data of run were in .*caf\\xe9/set, which is not there\. Name them with --data\.\n"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("data check @/set", ""),
        (f"train @/set --run trained --logger none {SMALL}", ""),
        (f"train @/set --run @/new {SMALL}", NO_UTF8),
        (f"evaluate run {CPU}", MOVED),
        (f"evaluate run --data @/set {CPU} --out @/scores", ""),
        (f"explain run @/set/test/images/f-test-0.png {MAPS} --out @/maps", ""),
        (f"explain run @/set/test/images/f-test-0.png --raw safetensors {MAPS} --out @/new", NO_UTF8),
        (f"judge run --data @/set {JUDGED} --out @/scorecard", ""),
        (f"predict run @/set/test/images/f-test-0.png {CPU} --out @/masks", ""),
        ("report run --out @/page.html", ""),
        ("adopt run/model.safetensors --width 4 --image-size 32 --run @/new", NO_UTF8),
        (f"weak @/set --rounds 0 --stages stages.json {WEAK} --run @/new", NO_UTF8),
    ],
)
def test_names_of_folders(line, says, folders, typed):
    ended = typed(line.replace("@", f"caf{E_ACUTE}"), folders)
    assert ended.code == (2 if says else 0), ended.err
    assert not says or re.fullmatch(says, ended.err)
    assert not (folders / f"caf{E_ACUTE}/new").exists()


def test_two_outputs_whose_names_differ_in_such_a_byte_are_two(tmp_path):
    """Unfinished work lies beside its output, under its whole name."""
    names = {beside(tmp_path / name, "partial").name for name in ("caf", f"caf{E_ACUTE}", "caf\udcea")}
    assert len(names) == 3
    assert len(os.fsencode(beside(tmp_path / ("\u7d30" * 80), "partial").name)) <= 255


TEXTS = {
    "labels.csv": (
        b"image,label\nf-train-0,caf\xe9\n",
        f"weak SET --labels FILE --stages stages.json {WEAK} --run new",
    ),
    "groups.csv": (
        b"image,site\nf-test-0,Orl\xe9ans\n",
        f"judge run --data SET {JUDGED} --audit border --groups FILE:site --out new",
    ),
    "colours.txt": (b"background 0 0 0\nl\xe9sion 255 255 255\n", "train SET --palette FILE --run new"),
    "s.json": (b'{"heat": "\xe9"}', f"weak SET --stages FILE {WEAK} --run new"),
    "shortcut.json": (b'{"kind": "\xe9"}', "report run --shortcut FILE --out new"),
    "smp/config.json": (b'{"_model_class": "\xe9"}', "adopt smp --run new"),
    "coco/_annotations.coco.json": (b'{"images": "\xe9"}', f"train coco --run new {SMALL}"),
    "labelme/a.json": (b'{"imagePath": "\xe9"}', f"train labelme --run new {SMALL}"),
    "pets/annotations/test.txt": (b"cat_\xe9 1 1 1\n", f"train pets --run new {SMALL}"),
    "own/run.json": (b'{"kind": "caf\xe9"}', f"predict own labelme/a.png {CPU} --out new"),
    "own/split.json": (b'{"hash": "\xe9"}', f"evaluate own {CPU} --out new"),
    "own/history.csv": (b"epoch,caf\xe9\n1,2\n", "report own --out new"),
    "own/evaluate/test/scores.json": (b'{"split": "\xe9"}', "compare own run --out new"),
    "own/explain/test/explanations.json": (b'{"split": "\xe9"}', "report own --out new"),
    "own/judge/test/scorecard.json": (b'{"split": "\xe9"}', "report own --out new"),
}
"""Texts in Latin-1 that others or Seglens wrote, and a command that reads each."""


@pytest.mark.parametrize("name", TEXTS)
def test_texts(name, names, typed, tmp_path):
    content, line = TEXTS[name]
    shutil.copytree(names / "trained", tmp_path / "own")
    write_coco(tmp_path / "coco", [])
    write_labelme(tmp_path / "labelme", "ab")
    write_pets(tmp_path / "pets", "ab", "c")
    shutil.copytree(names / "run", tmp_path / "smp", ignore=shutil.ignore_patterns("run.json"))
    for each in ("run", "stages.json", "t.safetensors"):
        os.symlink(names / each, tmp_path / each)
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(content)
    ended = typed(line.replace("SET", f"{names}/plain/set").replace("FILE", name), tmp_path)
    assert ended.code == 2, ended.out
    assert ended.err.count("\n") == 1, ended.err
    assert name in ended.err
    assert re.search("0xe9|UTF-8|invalid unicode", ended.err), ended.err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "line",
    [
        f"train @/set --classes background,@ --masks classes --run new {SMALL}",
        f"explain run @/set/test/images/f-test-0.png --class @ {MAPS} --out new",
        f"explain run @/set/test/images/f-test-0.png --target @ {MAPS} --out new",
        f"evaluate run --data @/set --split @ {CPU} --out new",
        f"judge run --data @/set {JUDGED} --audit @ --out new",
        f"weak @/set --labels @ --stages stages.json {WEAK} --run new",
        "adopt run/model.safetensors --classes background,@ --width 4 --image-size 32 --run new",
        "data get @",
    ],
)
def test_words_of_the_command_line(line, folders, typed):
    """A word that is no text is no name of anything: one line, before any work."""
    ended = typed(line.replace("@", f"caf{E_ACUTE}"), folders)
    assert ended.code == 2, ended.out
    assert ended.err.count("\n") == 1, ended.err
    assert not (folders / "new").exists()

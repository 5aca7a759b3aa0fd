"""What a user gets wrong: one line on standard error, exit code 2, and nothing half-written.

A row of the tables is a command line and a piece of its message. The folder is the same before and after.
"""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SMALL = "--width 4 --image-size 32 --epochs 1 --device cpu --precision 32"


def write(file: Path, pixels: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)


def listing(folder: Path) -> dict[str, str]:
    """Every folder and file below ``folder``, with a hash of its contents."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def place(tmp_path, small_set, small_run) -> Path:
    """Make a folder with a good set and a good run, and everything that can be wrong with either."""
    shutil.copytree(small_set, tmp_path / "set")
    (tmp_path / "empty").mkdir()
    for name in ("no-mask", "no-image", "sizes", "values", "truncated", "no-pair"):
        shutil.copytree(small_set, tmp_path / name)
    (tmp_path / "no-mask/train/masks/train-2.png").unlink()
    (tmp_path / "no-image/train/images/train-2.png").unlink()
    write(tmp_path / "sizes/train/masks/train-2.png", np.zeros((8, 8), np.uint8))
    write(tmp_path / "values/train/masks/train-2.png", np.arange(1280, dtype=np.uint8).reshape(32, 40))
    file = tmp_path / "truncated/train/images/train-2.png"
    file.write_bytes(file.read_bytes()[:200])
    for file in (tmp_path / "no-pair/train/masks").iterdir():
        file.unlink()
    (tmp_path / "text.png").write_text("no picture at all")
    (tmp_path / "broken.pth").write_bytes(b"no weights at all")
    shutil.copytree(small_run, tmp_path / "weightless")
    (tmp_path / "weightless/model.safetensors").unlink()
    shutil.copytree(small_run, tmp_path / "damaged")
    (tmp_path / "damaged/run.json").write_text("{")
    shutil.copytree(small_run, tmp_path / "homeless")
    record = json.loads((tmp_path / "homeless/run.json").read_text())
    record["data"]["path"] = "moved"
    (tmp_path / "homeless/run.json").write_text(json.dumps(record))
    shutil.copytree(small_run, tmp_path / "adopted")
    record["data"] = None
    (tmp_path / "adopted/run.json").write_text(json.dumps(record))
    for name in ("out", "run/evaluate/test", "run/explain/test", "run/judge/test"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "precious.txt").write_text("mine")
    (tmp_path / "page.html").write_text("mine")
    return tmp_path


DATA = {
    "{verb} nowhere": "nowhere",
    "{verb} empty": "empty",
    "{verb} text.png": "text.png is a file",
    "{verb} set --layout pears": "Did you mean 'pairs'?",
    "{verb} set --border blue": "--border is not allowed: Input should be 'foreground', 'background', "
    "'ignore' or 'class', received 'blue'",
    "{verb} set --channels 0": "--channels is 0, but must be from 1",
    "{verb} set --ignore 18446744073709551616": "less than 4294967296, received 18446744073709551616",
    "{verb} set --ignore 4294967296": "less than 4294967296, received 4294967296",
    "{verb} set --train-dir trains": "trains",
    "{verb}": "DATA is missing.",
}

RUN = {
    "{verb} nowhere": "nowhere is not a run folder: there is no such folder",
    "{verb} empty": "empty is not a run folder",
    "{verb} weightless": "holds no checkpoint (model.safetensors)",
    "{verb} damaged": "damaged/run.json",
    "{verb}": "RUN is missing.",
}

RUN_AND_DATA = {
    "{verb} run --split tests --out new": "Did you mean 'test'?",
    "{verb} run --epoch 3 --out new": "kept no weights of epoch 3",
    "{verb} run --data nowhere --out new": "nowhere",
    "{verb} run --data empty --out new": "empty",
    "{verb} run --data set --layout pears --out new": "Did you mean 'pairs'?",
    "{verb} run --device gpu --out new": "Unknown device 'gpu'",
    "{verb} homeless --out new": "moved, which is not there",
    "{verb} adopted --out new": "knows no data",
    "{verb} run": "exists already",
    "{verb} run --out out": "out exists already",
}

MAPS = {
    "{verb} run --methods grad-cm --out new": "Did you mean 'grad-cam'?",
    "{verb} run --layers encoder_lost --out new": "Did you mean 'encoder_last'?",
    "{verb} run --target predict --out new": "Did you mean 'predicted'?",
    "{verb} run --target component:first --out new": "component:N",
    "{verb} run --target component:0 --out new": "counted from 1",
    "{verb} run --target point:400,2 --out new": "40 x 32",
    "{verb} run --class foregrund --out new": "Did you mean 'foreground'?",
    "{verb} run --num-images 0 --out new": "--num-images is 0, but must be from 1",
    "{verb} run --baseline blur --out new": "not among grad-cam",
    "{verb} run --methods integrated-gradients --baseline blurr --out new": "Did you mean 'blur'?",
    "{verb} run --methods integrated-gradients --steps 0 --out new": "steps is 0",
}

CASES = {
    "data slices": {
        "{verb} set new": "set holds no volumes",
        "{verb} nowhere new": "There is no folder",
        "{verb}": "VOLUMES is missing.",
        "{verb} set set/new": "set",
        "{verb} set new --plane oblique": "Allowed: sagittal, coronal, axial",
        "{verb} set new --empty some": "Allowed: keep, drop",
        "{verb} set new --window 9,3": "two numbers",
    },
    "data check": DATA,
    "data show": DATA
    | {
        "{verb} set --out page.html": "page.html exists already",
        "{verb} set --num-images 0": "--num-images is 0, but must be from 1",
        "{verb} set --split tests": "Did you mean 'test'?",
    },
    "train": {f"{line} --run new {SMALL}": text for line, text in DATA.items()}
    | {
        f"{{verb}} no-pair --run new {SMALL}": "mask",
        f"{{verb}} no-mask --run new {SMALL}": "train-2",
        f"{{verb}} no-image --run new {SMALL}": "train-2",
        f"{{verb}} sizes --run new {SMALL}": "8 x 8",
        f"{{verb}} values --run new {SMALL}": "train-2",
        f"{{verb}} truncated --run new {SMALL}": "train-2",
        f"{{verb}} set {SMALL}": "--run is missing.",
        f"{{verb}} set --run out {SMALL}": "out exists already",
        f"{{verb}} set --run no-pair --resume {SMALL}": "no-pair exists already",
        f"{{verb}} set --run new --model unett {SMALL}": "Did you mean 'unet'?",
        "{verb} set --run new --model resnet-unet --encoder resnet43": "Did you mean 'resnet34'?",
        "{verb} set --run new --model resnet-unet --encoder-weights nowhere.pth": "nowhere.pth",
        f"{{verb}} set --run new --model resnet-unet {SMALL}": "width",
        f"{{verb}} set --run new --loss dise {SMALL}": "Did you mean 'dice'?",
        "{verb} set --run new --epochs 0": "epochs",
        "{verb} set --run new --learning-rate -1": "learning_rate",
        "{verb} set --run new --precision half": "Unknown precision 'half'",
        "{verb} set --run new --device gpu": "Unknown device 'gpu'",
        "{verb} set --run new --epochs many": "--epochs",
        "{verb} set --run new --epoch 3": "--epochs",
    },
    "adopt": {
        "{verb} nowhere.pth --run new": "nowhere.pth",
        "{verb} broken.pth --run new": "broken.pth",
        "{verb} run/model.safetensors --run new --width 8": "fit",
        "{verb} run/model.safetensors --run new --width 4 --model unett": "Did you mean 'unet'?",
        "{verb} run/model.safetensors --run new --width 4 --classes one": "one",
        "{verb} run/model.safetensors --run new --width 4 --mean 0.5": "mean",
        "{verb} run/model.safetensors --run out --width 4": "out exists already",
        "{verb} run/model.safetensors": "--run is missing.",
        "{verb}": "FILE",
    },
    "evaluate": RUN
    | RUN_AND_DATA
    | {
        "{verb} run --data no-mask --out new": "Pictures have no mask (1)",
        "{verb} run --data no-image --out new": "Masks have no picture (1)",
        "{verb} run --batch-size 0 --out new": "--batch-size is 0, but must be from 1",
    },
    "predict": RUN
    | {
        "{verb} run": "IMAGE is missing.",
        "{verb} run nowhere.png": "nowhere.png",
        "{verb} run text.png": "text.png can't be read",
        "{verb} run truncated/train/images/train-2.png": "train-2.png can't be read",
        "{verb} run set/test/images/test-0.png --out out": "out exists already",
    },
    "export": RUN
    | {
        "{verb} run --format tflite": "tflite",
        "{verb} run --out out": "out exists already",
    },
    "push": {f"{line} anna/pets": text for line, text in RUN.items() if line != "{verb}"}
    | {
        "{verb} run": "REPO is missing",
        "{verb} run somewhere": "'somewhere' names no repository of the hub",
    },
    "layers": RUN,
    "explain": RUN
    | RUN_AND_DATA
    | MAPS
    | {
        "{verb} run --samples 9 --out new": "samples 0 to 2",
        "{verb} run --samples 0 --num-images 1 --out new": "not both",
        "{verb} run nowhere.png --out new": "nowhere.png",
        "{verb} run text.png --out new": "text.png can't be read",
        "{verb} run set/test/images/test-0.png --target truth --out new": "needs the truth",
    },
    "judge": RUN | RUN_AND_DATA | MAPS,
    "report": {line: text for line, text in RUN.items() if "weightless" not in line}
    | {
        "{verb} run run --out new.html": "run",
        "{verb} run --out page.html": "page.html exists already",
        "{verb} run --shortcut nowhere.json --out new.html": "nowhere.json",
    },
    "demo": {"{verb} --out out": "out exists already"},
}


@pytest.mark.parametrize(
    ("line", "text"),
    [(line.format(verb=verb), text) for verb, cases in CASES.items() for line, text in cases.items()],
)
def test_one_line_exit_code_2_and_nothing_written(seglens, place, line, text):
    before = listing(place)
    ended = seglens(*line.split())
    assert text in ended.err
    assert len(ended.err.splitlines()) == 1, ended.err
    assert ended.err.startswith("seglens: ")
    assert (ended.code, ended.out) == (2, "")
    assert listing(place) == before


@pytest.mark.parametrize(
    ("data", "kind", "code"),
    [
        ("no-mask", "image-without-mask", 1),
        ("no-image", "mask-without-image", 1),
        ("sizes", "size-mismatch", 1),
        ("values", "mask-values", 1),
        ("truncated", "unreadable", 1),
        ("set", "class-balance", 0),
    ],
)
def test_check_lists_what_is_wrong(seglens, place, data, kind, code):
    ended = seglens("data", "check", data)
    assert (ended.code, ended.err) == (code, "")
    assert f": {kind}: " in ended.out
    found = json.loads(seglens("data", "check", data, "--json").out)
    assert kind in [finding["kind"] for finding in found["findings"]]


def test_evaluate_guesses_no_value_of_a_mask(seglens, place):
    """One mask with a value of its own: it could be a class, an object or a fault."""
    ended = seglens("evaluate", "run", "--data", "values", "--split", "train", "--out", "new")
    assert ended.code == 2
    assert "train-2.png" in ended.err
    assert not (place / "new").exists()


@pytest.mark.parametrize("data", ["sizes", "truncated"])
def test_evaluate_does_what_can_be_done(seglens, place, data):
    ended = seglens("evaluate", "run", "--data", data, "--split", "train", "--out", "new")
    assert ended.code == 1
    assert ended.err.splitlines()[0] == "seglens: 1 of 4 pictures could not be done:"
    assert "train-2" in ended.err
    assert json.loads((place / "new/scores.json").read_text())["num_failed"] == 1


@pytest.mark.parametrize("verb", ["evaluate", "explain", "judge"])
def test_force_replaces(seglens, place, verb):
    folder = place / "run" / verb / "test"
    ended = seglens(verb, "run", "--force")
    assert ended.code == 2
    assert "precious.txt" in ended.err
    (folder / "precious.txt").unlink()
    for _ in range(2):
        assert seglens(verb, "run", "--force").code == 0
        assert (folder / "run.json").is_file()

"""The small world that cases begin from: a set of pictures, a run, its results, and a user's own files.

set/       nine pairs of pictures and masks in three splits      run/    an untrained network that knows them
results/   evaluate, explain, judge, predict, adopted, trained   photos/ a user's pictures and notes
page.html  a user's page
"""

import contextlib
import io
import os
import shutil
from pathlib import Path

from tests.conftest import write_run, write_set

from seglens.cli import command

CPU = "--device cpu"
SMALL = f"--width 4 --image-size 32 {CPU}"

MADE = {
    "evaluate": f"evaluate run --out results/evaluate {CPU}",
    "explain": f"explain run --split test --num-images 2 --out results/explain --layers encoder_last {CPU}",
    "predict": f"predict run set/test/images/test-0.png --out results/predict {CPU}",
    "judge": f"judge run --num-images 2 --scores attention --layers encoder_last --out results/judge {CPU}",
    "adopt": "adopt run/model.safetensors --width 4 --image-size 32 --run results/adopted",
    "train": f"train set --epochs 1 --run results/trained --logger none {SMALL}",
    "report": "report run --out results/page.html",
    "show": "data show set --out results/set.png --num-images 2 --image-size 64",
}
"""How the results of the world are made, by the commands that a user would type."""


def make(folder: Path) -> Path:
    """Make the world in ``folder``."""
    folder.mkdir(parents=True)
    write_set(folder / "set")
    write_run(folder / "run", folder / "set")
    (folder / "photos" / "holiday").mkdir(parents=True)
    for file in (folder / "set/test/images").iterdir():
        shutil.copy(file, folder / "photos" / f"my-{file.name}")
        shutil.copy(file, folder / "photos/holiday" / f"sea-{file.name}")
    (folder / "photos/notes.txt").write_text("mine")
    (folder / "page.html").write_text("<html>mine</html>")
    before = Path.cwd()
    os.chdir(folder)
    try:
        for line in MADE.values():
            said = io.StringIO()
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
                code = command(line.split())
            if code:
                raise SystemExit(f"The world can't be made: {line}: {said.getvalue()}")
    finally:
        os.chdir(before)
    return folder


def moved(template: Path, folder: Path) -> Path:
    """Copy the world to ``folder``, so that its records speak of that."""
    shutil.copytree(template, folder)
    for file in folder.rglob("run.json"):
        file.write_text(file.read_text().replace(str(template), str(folder)))
    return folder

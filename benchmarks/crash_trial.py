"""One training that is killed or loses its disk: start it, look at what is left, resume it, compare it."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

MODEL = ["--model", "unet", "--width", "4", "--image-size", "48", "--batch-size", "8"]
RECIPE = ["--epochs", "6", "--learning-rate", "0.003", "--aug", "--keep-every", "2", "--seed", "0"]
PLACE = ["--device", "cpu", "--precision", "32"]
TIMES = ("seconds", "images_per_second")


@dataclass
class Trial:
    """What was done to one training, and what is wrong with what came of it."""

    events: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def line(self, name: str) -> str:
        return f"{name}: {'; '.join(self.events)}: " + ("; ".join(self.faults) or "equal")


@dataclass(frozen=True)
class Ended:
    """How a command ended; ``code`` is None where it was killed. ``seconds`` are of processor time."""

    code: int | None
    seconds: float
    said: str


def command(data: Path, run: Path, *, resume: bool = False) -> list[str]:
    arguments = ["train", str(data), *MODEL, *RECIPE, *PLACE, "--run", str(run)]
    return [sys.executable, "-m", "seglens", *arguments, *(["--resume"] if resume else [])]


def start(
    words: list[str],
    kill_after: float | None,
    prepare: Callable[[], None] | None = None,
    sent: signal.Signals = signal.SIGKILL,
) -> Ended:
    """Run a command on one core; send it a signal when it has computed so long, where it still runs then."""
    process = subprocess.Popen(
        words,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        preexec_fn=prepare,
        start_new_session=True,
    )
    assert process.stderr is not None
    computed = 0.0
    try:
        # Errors are a line or two: the pipe holds them until the process has ended.
        while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            computed = processor_seconds(process.pid)
            if kill_after is not None and computed >= kill_after:
                os.killpg(process.pid, sent)
                kill_after = None
            time.sleep(0.005)
        computed = max(computed, processor_seconds(process.pid))  # of what has ended but was not waited for
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    said = process.stderr.read()
    code = None if process.wait() == -signal.SIGKILL else process.returncode
    return Ended(code, computed, said.strip())


def processor_seconds(process: int) -> float:
    """Return how long a process has computed: unlike a clock, it means the same on a busy machine (Linux)."""
    words = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def state(run: Path) -> str:
    """Say in a few words what a kill left."""
    if not run.exists():
        return "no folder"
    if not (run / "run.json").is_file():
        return "no run.json"
    if json.loads((run / "run.json").read_text())["state"] == "finished":
        return "finished"
    last = run / "checkpoints" / "last.ckpt"
    if not last.is_file():
        return "before the first checkpoint"
    rows = (run / "history.csv").read_text().count("\n") - 1 if (run / "history.csv").is_file() else 0
    weights = ", weights written" if (run / "model.safetensors").is_file() else ""
    return f"epoch {torch.load(last, weights_only=True)['epoch'] + 1} saved, {rows} rows{weights}"


def not_loadable(run: Path) -> list[str]:
    """Return the files under their final names that can't be read."""
    readers: dict[str, Callable[[Path], Any]] = {
        ".json": lambda file: json.loads(file.read_text()),
        ".ckpt": lambda file: torch.load(file, weights_only=True),
        ".safetensors": load_file,
        ".csv": _rows,
    }
    faults = []
    for file in sorted(run.rglob("*")) if run.exists() else []:
        if file.suffix in readers and not file.name.startswith("."):
            try:
                readers[file.suffix](file)
            except Exception as error:
                faults.append(f"{file.relative_to(run)} can't be loaded: {type(error).__name__}")
    return faults


def differences(run: Path, reference: Path) -> list[str]:
    """Return in what a finished run differs from the reference."""
    if state(run) != "finished":
        return [f"not finished but: {state(run)}"]
    faults = []
    names = [
        "model.safetensors",
        *(f"checkpoints/{f.name}" for f in reference.glob("checkpoints/*.safetensors")),
    ]
    for name in names:
        if not (run / name).is_file() or (run / name).read_bytes() != (reference / name).read_bytes():
            faults.append(f"{name} differs")
    for name in ("last.ckpt", "best.ckpt"):
        mine, theirs = (
            torch.load(folder / "checkpoints" / name, weights_only=True) for folder in (run, reference)
        )
        if not _equal(mine["state_dict"], theirs["state_dict"]):
            faults.append(f"the weights in {name} differ")
        if not _equal(mine.get("optimizer_states"), theirs.get("optimizer_states")):
            faults.append(f"the state of the optimiser in {name} differs")
    if _rows(run / "history.csv") != _rows(reference / "history.csv"):
        faults.append("history.csv differs")
    return faults


def leftovers(run: Path) -> str:
    """Say what temporary files are left in and beside a run, and where the system keeps such."""
    inside = [file for file in run.parent.rglob(".*partial*") if file.is_file()]
    outside = [file for file in Path(os.environ["TMPDIR"]).rglob("*") if file.is_file()]
    found = {"in the run": inside, "in TMPDIR": outside}
    sizes = {where: sum(file.stat().st_size for file in files) for where, files in found.items()}
    for file in outside:
        file.unlink()
    return ", ".join(
        f"{len(files)} temporary files left {where} ({sizes[where] / 2**20:.1f} MiB)"
        for where, files in found.items()
        if files
    )


def finish(trial: Trial, data: Path, run: Path, kill_after: float | None) -> None:
    """Resume until the end, killed once more after so many seconds if asked for."""
    for limit in (kill_after, None) if kill_after is not None else (None,):
        ended = start(command(data, run, resume=True), limit)
        if ended.code == 2:  # nothing to resume: is the plain command accepted at least?
            trial.faults.append(f"--resume refused on '{state(run)}': {ended.said}")
            ended = start(command(data, run), limit)
        if ended.code == 2:
            trial.faults.append(f"refused without --resume as well: {ended.said}")
            return
        if ended.code is None:
            trial.events.append(f"killed again after {ended.seconds:.1f} s ({state(run)})")
            trial.faults += not_loadable(run)
        elif ended.code != 0:
            trial.faults.append(f"the resumed training ended with code {ended.code}: {ended.said[-300:]}")
            return


def _rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return [
            {name: value for name, value in row.items() if name not in TIMES}
            for row in csv.DictReader(stream)
        ]


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and one.keys() == other.keys()
            and all(_equal(one[k], other[k]) for k in one)
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)

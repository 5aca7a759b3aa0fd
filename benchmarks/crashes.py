"""Kill trainings at random moments, and fill their disk: what is resumed must end as if nothing had been.

    python -m benchmarks.crashes [--trials 20] [--seed 0] [--disk]

A tiny U-Net learns drawn specimens on the CPU, by the command a user would type. One training runs through
and is the reference. Each trial runs the same command again, kills it (SIGKILL) at a moment drawn uniformly
from the whole duration (in processor time), start-up and end included, looks at what is left, and types the
command with ``--resume`` until it ends; the first resumed training is killed as well with chance one half. A
trial is passed where everything left after a kill can be loaded and, at the end, ``model.safetensors`` has
the same bytes, ``last.ckpt`` the same tensors, and ``history.csv`` the same figures (times apart) as the
reference.

With ``--disk`` the run folder lies on a small disk of its own (a tmpfs, which needs root) that gets full, or,
where that can't be had, under a limit on the size of files. Such a training must end with exit code 1 and one
line that says so, leave its last checkpoint whole, and end as the reference after room has been made.

Exit code 1 where any trial fails.
"""

import argparse
import csv
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from seglens.data.specimens import write_specimens

MODEL = ["--model", "unet", "--width", "4", "--image-size", "48", "--batch-size", "8"]
RECIPE = ["--epochs", "6", "--learning-rate", "0.003", "--aug", "--keep-every", "2", "--seed", "0"]
PLACE = ["--device", "cpu", "--precision", "32"]
TIMES = ("seconds", "images_per_second")
FILL = (0.0, 0.25, 0.5, 0.75, 0.9)
"""Room on the full disk, as a share of what a whole training needs at most."""


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


def start(words: list[str], kill_after: float | None, prepare: Callable[[], None] | None = None) -> Ended:
    """Run a command on one core; kill it when it has computed so long, where it still runs then."""
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
                os.killpg(process.pid, signal.SIGKILL)
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


def kill_trial(data: Path, work: Path, reference: Path, seconds: float, chance: random.Random) -> Trial:
    trial, run = Trial(), work / "run"
    ended = start(command(data, run), chance.uniform(0, seconds))
    how = "ended by itself" if ended.code is not None else "killed"
    trial.events.append(f"{how} after {ended.seconds:.1f} s ({state(run)})")
    trial.faults += not_loadable(run)
    again = chance.uniform(0, seconds) if chance.random() < 0.5 else None
    finish(trial, data, run, again)
    trial.events += filter(None, [leftovers(run)])
    trial.faults += differences(run, reference)
    return trial


def disk_trial(data: Path, disk: Path, reference: Path, room: int) -> Trial:
    """Train where only ``room`` bytes are left, make room, resume."""
    trial, run = Trial(), disk / "run"
    ballast = disk / "ballast"
    with ballast.open("wb") as stream:
        free = shutil.disk_usage(disk).free - room
        stream.write(b"\0" * max(0, free))
    _judge(trial, start(command(data, run), None), run)
    ballast.unlink()
    finish(trial, data, run, None)
    trial.events += filter(None, [leftovers(run)])
    trial.faults += differences(run, reference)
    shutil.rmtree(run, ignore_errors=True)
    return trial


def limit_trial(data: Path, work: Path, reference: Path, room: int) -> Trial:
    """Train where no file may grow beyond ``room`` bytes, then without that limit."""
    trial, run = Trial(), work / "run"
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (room, room))
    _judge(trial, start(command(data, run), None, limit), run)
    finish(trial, data, run, None)
    trial.faults += differences(run, reference)
    return trial


def _judge(trial: Trial, ended: Ended, run: Path) -> None:
    """Note how a training without room ended, and what is wrong with that."""
    lines = ended.said.splitlines()
    trial.events.append(f"code {ended.code} ({state(run)}), said: {lines[-1] if lines else 'nothing'}")
    trial.faults += not_loadable(run)
    if ended.code == 0:
        return
    if ended.code != 1:
        trial.faults.append(f"exit code {ended.code} instead of 1")
    if len(lines) != 1:
        trial.faults.append(f"{len(lines)} lines instead of one")
    if not lines or str(run.parent) not in lines[-1]:
        trial.faults.append("the file or disk is not named")


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """Mount a disk of so many megabytes; OSError where this machine can't."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder]
        try:
            done = subprocess.run(words, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise OSError(str(error)) from error
        if done.returncode:
            raise OSError(done.stderr.strip())
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True)


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


def kills(data: Path, work: Path, reference: Path, seconds: float, trials: int, seed: int) -> list[Trial]:
    done = []
    for number in range(trials):
        folder = work / f"trial-{number:02d}"
        folder.mkdir()
        chance = random.Random(f"{seed}/{number}")
        done.append(kill_trial(data, folder, reference, seconds, chance))
        print(done[-1].line(f"kill {number + 1:2d}"), flush=True)
        shutil.rmtree(folder)
    return done


def full_disks(data: Path, work: Path, reference: Path) -> list[Trial]:
    """One trial for each share of room; on a small disk, else under a limit on files."""
    files = [file.stat().st_size for file in reference.rglob("*") if file.is_file()]
    # While a checkpoint is replaced, the old and the new one are there.
    largest, most = max(files), sum(files) + max(files)
    done: list[Trial] = []
    try:
        with small_disk(2 * most // 2**20 + 4) as disk:
            for share in FILL:
                done.append(disk_trial(data, disk, reference, int(share * most)))
                print(done[-1].line(f"disk with {int(share * most) / 2**20:.2f} MiB left"), flush=True)
    except OSError as error:
        print(f"No small disk can be mounted here ({error}): only a limit on the size of files.")
    for share in FILL[1:-1:2]:
        folder = work / f"limit-{share}"
        folder.mkdir()
        done.append(limit_trial(data, folder, reference, int(share * largest)))
        print(done[-1].line(f"files up to {int(share * largest) / 2**20:.2f} MiB"), flush=True)
    return done


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--disk", action="store_true", help="full disks instead of kills")
    options = parser.parse_args()
    # Asked to end, end what was started and take the small disk away.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="crashes-") as folder:
        work = Path(folder)
        os.environ["TMPDIR"] = str(work / "temporary")  # of the trainings
        (work / "temporary").mkdir()
        data = write_specimens(work / "data", num_train=64, num_valid=12, num_test=2, size=48)
        reference = work / "reference" / "run"
        ended = start(command(data, reference), None)
        if ended.code != 0:
            sys.exit(f"The reference training ended with code {ended.code}: {ended.said}")
        best = json.loads((reference / "run.json").read_text())["results"]["best_epoch"]
        print(f"reference: {ended.seconds:.1f} s, best epoch {best}", flush=True)
        if options.disk:
            done = full_disks(data, work, reference)
        else:
            done = kills(data, work, reference, ended.seconds, options.trials, options.seed)
    failed = sum(bool(trial.faults) for trial in done)
    print(f"{len(done) - failed} of {len(done)} trials ended as the uninterrupted training")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

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
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.crash_trial import (
    Ended,
    Trial,
    command,
    differences,
    finish,
    leftovers,
    not_loadable,
    start,
    state,
)
from seglens.data.specimens import write_specimens

FILL = (0.0, 0.25, 0.5, 0.75, 0.9)
"""Room on the full disk, as a share of what a whole training needs at most."""


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

"""Kill long work over many pictures at random moments, take its disk away, and go on with it.

    nice python -m benchmarks.faults [--pictures 1000] [--trials 12] [--seed 0] [--only explain] [--write]

Tiny pictures, one in twenty of them broken, and a tiny network. Each command runs through once: the
reference. Each trial runs it again, sends SIGINT, SIGTERM or SIGKILL at a moment drawn from the whole
duration (in processor time), looks at what is left, and types the command again (with ``--resume``
where there is such) until it ends; the second try is stopped as well with chance one half. Then it is
run under a limit on the size of files, which is a full disk as a file sees it. A trial is passed where
INT and TERM end with 130 and 143 and leave nothing half written under the final name, what is there in
the end has the same files and numbers as the reference (times apart), and every picture is in it once.
Exit code 1 where any is not.
"""

import argparse
import csv
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.conftest import write_pair, write_run

from benchmarks.crash_trial import Trial, start

CPU = "--device cpu"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
TIMES = ("run.json", "steps.json", "stage.json")
"""Files that tell times: compared by their names alone."""


@dataclass(frozen=True)
class Work:
    """A command over all pictures, its table of pictures, and what goes on with it."""

    line: str
    table: str
    again: str = ""
    codes: tuple[int, ...] = (0, 1)


WORKS = {
    "evaluate": Work(f"evaluate run --save-images --batch-size 16 {CPU} --out", "scores.json"),
    "explain": Work(
        f"explain run --split test --layers encoder_last {CPU} --out", "explanations.json", "--resume"
    ),
    "judge": Work(
        f"judge run --num-images 100000 --scores attention --layers encoder_last {CPU} --out",
        "scorecard.json",
    ),
    "predict": Work(f"predict run {CPU} --out", "table.csv"),
}


def words_of(work: Work, out: Path, place: Path, *, again: bool = False) -> list[str]:
    words = [sys.executable, "-m", "seglens", *work.line.split(), str(out)]
    if work.line.startswith("predict"):
        words += ["--", *map(str, sorted((place / "set/test/images").iterdir()))]
    return [*words, *(work.again.split() if again else [])]


def make(place: Path, num: int) -> None:
    """Write a set of ``num`` test pictures, every twentieth of them broken, and a network."""
    for split, count in (("train", 2), ("valid", 2), ("test", num)):
        for index in range(count):
            write_pair(place / "set" / split, f"{split}-{index:05d}", index)
    for file in sorted((place / "set/test/images").iterdir())[::20]:
        file.write_bytes(file.read_bytes()[:100])
    write_run(place / "run", place / "set")


def found(out: Path, work: Work) -> tuple[list[str], dict[str, int]]:
    """Return the pictures that a result lists, failed ones included, and its files with their sizes."""
    if work.table.endswith(".csv"):
        with (out / work.table).open(newline="") as stream:
            names = [row["name"] for row in csv.DictReader(stream)]
    else:
        table = json.loads((out / work.table).read_text())
        rows = table.get("images") or table.get("samples") or table.get("failed")
        names = [row["name"] for row in rows]
    sizes = {str(f.relative_to(out)): f.stat().st_size for f in out.rglob("*") if f.is_file()}
    return sorted(names), {name: size for name, size in sizes.items() if Path(name).name not in TIMES}


def differences(out: Path, reference: Path, work: Work) -> list[str]:
    """Return in what a result differs from the reference."""
    if not (out / work.table).is_file():
        return ["no result"]
    mine, theirs = found(out, work), found(reference, work)
    faults = []
    if len(set(mine[0])) != len(mine[0]):
        faults.append("a picture is there twice")
    if mine[0] != theirs[0]:
        faults.append(f"{len(mine[0])} pictures instead of {len(theirs[0])}")
    if mine[1] != theirs[1]:
        odd = sorted(set(mine[1].items()) ^ set(theirs[1].items()))
        faults.append(f"{len(odd)} files differ, such as {odd[0][0]}")
    if (out / work.table).read_bytes() != (reference / work.table).read_bytes():
        faults.append(f"{work.table} differs")
    return faults


def left(out: Path, *, resumable: bool) -> list[str]:
    """Return what an interrupted command left behind and ought not to."""
    names = [path.name for path in out.parent.iterdir()]
    allowed = {out.name, f".{out.name}.partial"} if resumable else {out.name}
    return [name for name in names if name not in allowed]


def kill_trial(work: Work, place: Path, reference: Path, seconds: float, chance: random.Random) -> Trial:
    trial, out = Trial(), place / "trial" / "out"
    shutil.rmtree(out.parent, ignore_errors=True)
    out.parent.mkdir()
    os.chdir(place)
    for again in range(6):
        stop = again == 0 or (again == 1 and chance.random() < 0.5)
        sent = chance.choice(SIGNALS)
        ended = start(
            words_of(work, out, place, again=again > 0),
            chance.uniform(0, seconds) if stop else None,
            sent=sent,
        )
        if ended.code in work.codes:
            trial.events.append("ended" if again == 0 else "went on to the end")
            break
        trial.events.append(f"{sent.name} after {ended.seconds:.1f} s: code {ended.code}")
        expected = {signal.SIGINT: (130, -2), signal.SIGTERM: (143, -15), signal.SIGKILL: (None,)}[sent]
        if ended.code not in expected:
            trial.faults.append(f"code {ended.code} instead of {expected[0]}: {ended.said[-200:]}")
            break
        if "Traceback" in ended.said:
            trial.faults.append("a trace")
        if sent != signal.SIGKILL:
            trial.faults += [f"left {name}" for name in left(out, resumable=bool(work.again))]
        if out.exists() and differences(out, reference, work):
            trial.faults.append("a half-written result under the final name")
    trial.faults += differences(out, reference, work)
    trial.faults += [f"left {name} at the end" for name in left(out, resumable=False)]
    return trial


def limit_trial(work: Work, place: Path, reference: Path, limit: Callable[[], None], what: str) -> Trial:
    """Run under a limit: one clear line and nothing half written; then without it, to the same result."""
    trial, out = Trial(), place / "trial" / "out"
    shutil.rmtree(out.parent, ignore_errors=True)
    out.parent.mkdir()
    os.chdir(place)
    ended = start(words_of(work, out, place), None, limit)
    last = (ended.said.splitlines() or ["nothing"])[-1]
    trial.events.append(f"{what}: code {ended.code}: {last[:120]}")
    if ended.code not in work.codes or not out.exists():
        if ended.code is None or ended.code < 0 or "Traceback" in ended.said or "Unexpected" in ended.said:
            trial.faults.append("no clear end")
        if out.exists():
            trial.faults.append("a half-written result under the final name")
        trial.faults += [f"left {name}" for name in left(out, resumable=bool(work.again))]
        start(words_of(work, out, place, again=True), None)
    trial.faults += differences(out, reference, work)
    return trial


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=list(WORKS))
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    lines, failed = [], 0
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        place = Path(folder)
        make(place, options.pictures)
        for name in options.only:
            work, reference = WORKS[name], place / "reference" / name
            os.chdir(place)
            ended = start(words_of(work, reference, place), None)
            if ended.code not in work.codes:
                sys.exit(f"The reference of {name} ended with code {ended.code}: {ended.said}")
            print(f"{name}: {ended.seconds:.1f} s", flush=True)
            done = []
            for number in range(options.trials):
                chance = random.Random(f"{options.seed}/{name}/{number}")
                done.append(kill_trial(work, place, reference, ended.seconds, chance))
                print(done[-1].line(f"{name} {number + 1:2d}"), flush=True)
            largest = max(file.stat().st_size for file in reference.rglob("*") if file.is_file())
            for share in (0.02, 0.5):
                room = int(largest * share)
                limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (room, room))
                done.append(limit_trial(work, place, reference, limit, f"files up to {room} bytes"))
                print(done[-1].line(f"{name} disk"), flush=True)
            counts = Counter("equal" if not trial.faults else "faulty" for trial in done)
            sent = Counter(event.split()[0] for trial in done for event in trial.events if event[:3] == "SIG")
            failed += counts["faulty"]
            lines.append(
                f"| {name} | {ended.seconds:.0f} | {len(done)} | {sent['SIGINT']} | {sent['SIGTERM']} | "
                f"{sent['SIGKILL']} | {counts['equal']} | {counts['faulty']} |"
            )
    text = [
        "# Faults in long work",
        "",
        f"`python -m benchmarks.faults --pictures {options.pictures} --trials {options.trials} "
        f"--seed {options.seed} --write`: {options.pictures} pictures of 40 x 32 pixels, one in twenty "
        "broken. Stopped at random moments, or without room on the disk, then gone on with; equal means: the "
        "same files and numbers as in one go, every picture once, nothing left over.",
        "",
        "| command | seconds in one go | trials | INT | TERM | KILL | equal | faulty |",
        "|---|---|---|---|---|---|---|---|",
        *lines,
    ]
    print("\n".join(text))
    if options.write:
        (Path(__file__).parent / "FAULTS.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

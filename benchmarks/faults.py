"""Kill long work over many pictures at random moments, take its disk, memory or helpers away, and go on.

    nice python -m benchmarks.faults [--pictures 1000] [--trials 6] [--seed 0] [--only explain] [--write]

Tiny pictures, one in twenty of them broken (for train and weak, which refuse those by name: all whole), and
a tiny network. Each command runs through once: the reference. Each trial runs it again, does one thing to
it at a moment drawn from the whole duration (in processor time), looks at what is left, and types the
command again (with ``--resume`` where there is such) until it ends. The things, ``--trials`` of each:

INT, TERM, KILL   the signal; the second try is stopped as well with chance one half
twice             Ctrl-C, and again up to half a second later
memory            from that moment on it gets no more memory (RLIMIT_AS)
worker            SIGKILL to one of its helper processes (``--devices 2``, ``train --workers 2``)
disk              a file system of its own (tmpfs, needs root) that is full after a share of the result

A trial is passed where INT and TERM end with 130 and 143; the others with one clear line or to the end;
nothing half written is left under the final name, nor anything beside it but what is resumed; and what is
there in the end has the same files and bytes as the reference (times apart), every picture once. Exit code 1
where any is not.
"""

import argparse
import csv
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from resource import RLIMIT_AS, prlimit
from typing import Any

from tests.conftest import write_pair, write_run

from benchmarks.crash_trial import Trial, processor_seconds

HERE = Path(__file__).parent
KEPT = HERE / "faults.jsonl"
CPU = "--device cpu"
SIGNALS = {"INT": signal.SIGINT, "TERM": signal.SIGTERM, "KILL": signal.SIGKILL, "twice": signal.SIGINT}
ENDS = {"INT": (130, -2), "TERM": (143, -15), "KILL": (-9,), "twice": (130, -2)}
THINGS = (*SIGNALS, "memory", "worker", "disk")
TIMES = ("run.json", "steps.json", "stage.json", "history.csv", "table.md", "table.json", "classifier.json")
"""Files that tell times, as do those of ``TIMED`` suffixes: compared by their names alone."""
TIMED = (".npz", ".ckpt")
TINY = f"--width 4 --image-size 32 {CPU}"


@dataclass(frozen=True)
class Work:
    """A command over all pictures, its table of pictures, and what goes on with it."""

    line: str
    table: str
    again: str = ""
    helpers: str = ""
    codes: tuple[int, ...] = (0, 1)


WORKS = {
    "evaluate": Work(
        f"evaluate run --save-images --batch-size 16 {CPU} --out", "scores.json", helpers="--devices 2"
    ),
    "explain": Work(
        f"explain run --split test --layers encoder_last {CPU} --out",
        "explanations.json",
        "--resume",
        helpers="--devices 2",
    ),
    "judge": Work(
        f"judge run --num-images 100000 --scores attention --layers encoder_last {CPU} --out",
        "scorecard.json",
    ),
    "predict": Work(f"predict run {CPU} --out", "table.csv"),
    "train": Work(
        f"train learn --epochs 2 --batch-size 16 --logger none {TINY} --run",
        "split.json",
        "--resume",
        helpers="--workers 2",
        codes=(0,),
    ),
    "weak": Work(
        "weak learn --question imagenet:0-9 --classifier test_byobnet --classifier-weights timm.safetensors "
        f"--stages stages.json --student unet --rounds 0 --epochs 1 {TINY} --run",
        "split.json",
        "--resume",
        codes=(0,),
    ),
}


def words_of(work: Work, out: Path, place: Path, *, again: bool = False, helpers: bool = False) -> list[str]:
    words = [sys.executable, "-m", "seglens", *work.line.split(), str(out)]
    words += work.helpers.split() if helpers else []
    if work.line.startswith("predict"):
        words += ["--", *map(str, sorted((place / "set/test/images").iterdir()))]
    return [*words, *(work.again.split() if again else [])]


def make(place: Path, num: int) -> None:
    """Write a set of ``num`` test pictures, every twentieth broken, one to learn from, and networks."""
    import timm
    import torch
    from safetensors.torch import save_file

    for folder, counts in (("set", (2, 2, num)), ("learn", (num, 4, 4))):
        for split, count in zip(("train", "valid", "test"), counts, strict=True):
            for index in range(count):
                write_pair(place / folder / split, f"{split}-{index:05d}", index)
    for file in sorted((place / "set/test/images").iterdir())[::20]:
        file.write_bytes(file.read_bytes()[:100])
    write_run(place / "run", place / "set")
    torch.manual_seed(0)  # a network whose maps are not flat
    save_file(timm.create_model("test_byobnet").state_dict(), place / "timm.safetensors")
    heat = {"maps": ["grad-cam@stages.3"], "scales": [64], "flips": False, "side": 32}
    stages = {"heat": heat, "spread": None, "refine": None, "patches": None}
    (place / "stages.json").write_text(json.dumps(stages))


def found(out: Path, work: Work) -> tuple[list[str], dict[str, str]]:
    """Return the pictures that a result lists, failed ones included, and its files with their hashes."""
    if work.table.endswith(".csv"):
        with (out / work.table).open(newline="") as stream:
            names = [row["name"] for row in csv.DictReader(stream)]
    else:
        table = json.loads((out / work.table).read_text())
        rows = table.get("images") or table.get("samples") or table.get("failed") or []
        rows = rows or [row for split in table.get("splits", {}).values() for row in split]
        names = [row["name"] if isinstance(row, dict) else str(row) for row in rows]
    files = {str(file.relative_to(out)): file for file in out.rglob("*") if file.is_file()}
    return sorted(names), {
        name: "times"
        if file.name in TIMES or file.suffix in TIMED
        else hashlib.md5(file.read_bytes()).hexdigest()
        for name, file in files.items()
    }


def differences(out: Path, reference: Path, work: Work) -> list[str]:
    """Return in what a result differs from the reference."""
    if not (out / work.table).is_file():
        return ["no result"]
    if json.loads((out / "run.json").read_text()).get("state") != "finished":
        return ["not finished"]
    mine, theirs = found(out, work), found(reference, work)
    faults = []
    if len(set(mine[0])) != len(mine[0]):
        faults.append("a picture is there twice")
    if mine[0] != theirs[0]:
        faults.append(f"{len(mine[0])} pictures instead of {len(theirs[0])}")
    if mine[1] != theirs[1]:
        odd = sorted(set(mine[1].items()) ^ set(theirs[1].items()))
        faults.append(f"{len(odd)} files differ, such as {odd[0][0]}")
    return faults


def left(out: Path, *, resumable: bool) -> list[str]:
    """Return what an interrupted command left behind and ought not to."""
    names = [path.name for path in out.parent.iterdir()]
    allowed = {out.name, f".{out.name}.partial"} if resumable else {out.name}
    return [name for name in names if name not in allowed]


@dataclass(frozen=True)
class Ended:
    """How a command ended, after so many seconds of processor time."""

    code: int
    seconds: float
    said: str


def start(words: list[str], thing: str = "", after: float = 0.0, again: float = 0.0) -> Ended:
    """Run a command on one core; do ``thing`` to it when it has computed ``after`` seconds."""
    with tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(
            words,
            stdout=subprocess.DEVNULL,
            stderr=err,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        computed, done = 0.0, not thing
        while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            computed = processor_seconds(process.pid)
            if not done and computed >= after:
                done = do(thing, process.pid, again)
            time.sleep(0.005)
        computed = max(computed, processor_seconds(process.pid))
        code = process.wait()
        over = [pid for pid in _session(process.pid) if not _waited(pid)]
        for pid in over:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        err.seek(0)
        said = err.read().strip()
    return Ended(code, computed, said + (f"\n{len(over)} processes left" if over and thing != "KILL" else ""))


def do(thing: str, pid: int, again: float) -> bool:
    """Do a thing to a process; return False where it can't be done yet."""
    if thing == "memory":
        held = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        prlimit(pid, RLIMIT_AS, (held, held))
    elif thing == "worker":
        helpers = _children(pid)
        if not helpers:
            return False
        with suppress(ProcessLookupError):
            os.kill(helpers[-1], signal.SIGKILL)
    else:
        os.kill(pid, SIGNALS[thing])
        if thing == "twice":
            time.sleep(again)
            os.kill(pid, signal.SIGINT)
    return True


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _session(leader: int) -> list[int]:
    """Return the processes of a session (Linux)."""
    members = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[3]) == leader and words[0] != "Z":
            members.append(int(folder.name))
    return members


def _waited(pid: int) -> bool:
    """Return whether a process ends within some seconds by itself."""
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists():
            return True
        time.sleep(0.05)
    return False


def trial_of(work: Work, thing: str, place: Path, reference: Path, seconds: float, name: str) -> Trial:
    """Do one thing to one command, judge what is left, go on to the end, and compare."""
    chance, trial, out = random.Random(name), Trial(), place / "trial" / "out"
    shutil.rmtree(out.parent, ignore_errors=True)
    out.parent.mkdir()
    os.chdir(place)
    whole = sum(file.stat().st_size for file in reference.rglob("*") if file.is_file())
    with full(out.parent, int(whole * chance.random() * 1.2)) if thing == "disk" else nothing() as empty:
        for again in range(6):
            stop = again == 0 or (again == 1 and thing in ENDS and chance.random() < 0.5)
            what = thing if stop and thing != "disk" else ""
            ended = start(
                words_of(work, out, place, again=again > 0, helpers=stop and thing == "worker"),
                what,
                chance.uniform(0, seconds),
                chance.uniform(0, 0.5),
            )
            last = (ended.said.splitlines() or ["nothing"])[-1]
            # A signal in the last moment finds all done.
            whole = ended.code in work.codes or (not work.again and not differences(out, reference, work))
            if whole and (out / work.table).is_file():
                trial.events.append("ended" if again == 0 else "went on to the end")
                break
            trial.events.append(f"{thing} after {ended.seconds:.1f} s: code {ended.code}: {last[:110]}")
            if not stop:
                trial.faults.append(f"code {ended.code}: {ended.said[-300:]}")
                break
            trial.faults += unclean(ended, thing, work, out, reference)
            if empty is not None:
                empty()
    trial.faults += differences(out, reference, work)
    trial.faults += [f"left {name} at the end" for name in left(out, resumable=False)]
    if thing == "disk":
        subprocess.run(["umount", str(out.parent)], check=True)
    return trial


def unclean(ended: Ended, thing: str, work: Work, out: Path, reference: Path) -> list[str]:
    """Say what is wrong with the way in which a command that was stopped has ended."""
    faults = []
    if thing in ENDS and ended.code not in ENDS[thing]:
        faults.append(f"code {ended.code} instead of {ENDS[thing][0]}: {ended.said[-200:]}")
    elif thing not in ENDS and (ended.code <= 0 or not ended.said or "No such option" in ended.said):
        faults.append(f"no clear end: code {ended.code}: {ended.said[-200:]}")
    faults += [word for word in ("Traceback", "Unexpected", "processes left") if word in ended.said]
    if thing != "KILL":
        faults += [f"left {name}" for name in left(out, resumable=bool(work.again))]
    if out.exists() and not work.again and differences(out, reference, work):
        faults.append("a half-written result under the final name")
    return faults


@contextmanager
def nothing() -> Iterator[None]:
    yield None


@contextmanager
def full(folder: Path, size: int) -> Iterator[Callable[[], None]]:
    """Mount a file system of so many bytes on a folder; the function that is yielded makes it large."""
    pages = max(size // 4096, 4) * 4
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={pages}k", "tmpfs", str(folder)], check=True)
    yield lambda: subprocess.run(["mount", "-o", "remount,size=2g", str(folder)], check=True) and None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=6, help="of each thing and command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=list(WORKS))
    parser.add_argument("--things", nargs="*", default=list(THINGS), choices=THINGS)
    parser.add_argument("--write", action="store_true", help="write FAULTS.md beside")
    options = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        place = Path(folder)
        make(place, options.pictures)
        for name in options.only:
            work, reference = WORKS[name], place / "reference" / name
            os.chdir(place)
            ended = start(words_of(work, reference, place))
            if ended.code not in work.codes:
                sys.exit(f"The reference of {name} ended with code {ended.code}: {ended.said}")
            print(f"{name}: {ended.seconds:.1f} s", flush=True)
            counts, faults = Counter[str](), []
            for thing in options.things:
                if thing == "worker" and not work.helpers:
                    continue
                for number in range(options.trials):
                    label = f"{name} {thing} {number + 1}"
                    seed = f"{options.seed}/{label}"
                    trial = trial_of(work, thing, place, reference, ended.seconds, seed)
                    print(trial.line(label), flush=True)
                    counts[thing] += 1
                    counts["equal"] += not trial.faults
                    counts["untouched"] += trial.events == ["ended"]
                    faults += [f"- {label}: {fault}" for fault in trial.faults]
            row = {
                "command": name,
                "pictures": options.pictures,
                "seconds": round(ended.seconds),
                "trials": {thing: counts[thing] for thing in THINGS},
                "untouched": counts["untouched"],
                "equal": counts["equal"],
                "faults": faults,
                "day": str(date.today()),
            }
            with KEPT.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            failed += len(faults)
    if options.write:
        rows = [json.loads(line) for line in KEPT.read_text(encoding="utf-8").splitlines()]
        last = {row["command"]: row for row in rows}
        KEPT.write_text("".join(json.dumps(last[name]) + "\n" for name in WORKS if name in last))
        (HERE / "FAULTS.md").write_text(page([last[n] for n in WORKS if n in last]) + "\n", encoding="utf-8")
    sys.exit(1 if failed else 0)


def page(rows: list[dict[str, Any]]) -> str:
    """Return the last trials of each command as Markdown."""
    heads = ["command", "pictures", "seconds in one go", *THINGS, "untouched", "equal", "faulty"]
    lines = [
        "# Faults in long work",
        "",
        "Pictures of 40 x 32 pixels, one in twenty broken (for `train` and `weak`, which refuse a broken "
        "picture by name, all whole), and a U-Net of width 4 at 32 pixels. The work was stopped at random "
        "moments, or left without more memory, a helper process or room on the disk, then gone on with; the "
        "columns count the trials of each kind. Untouched: of these, the command ended before anything was "
        "done to it, or didn't need what was taken. Equal: the same files and bytes as in one go (times "
        "apart), every picture once, nothing left over, one clear line and the right exit code on the way.",
        "",
        f"`python -m benchmarks.faults --pictures N --trials M --write` ({rows[-1]['day']}, Linux, 2 cores "
        "that other work shared; seconds of processor time). Made from the last row of each command in "
        "`faults.jsonl`.",
        "",
        f"| {' | '.join(heads)} |",
        "|---" * len(heads) + "|",
    ]
    faults = []
    for row in rows:
        counts = [row["trials"][thing] for thing in THINGS]
        cells = [row["command"], row["pictures"], row["seconds"], *(num or "-" for num in counts)]
        cells += [row["untouched"], row["equal"], sum(counts) - row["equal"]]
        lines.append(f"| {' | '.join(map(str, cells))} |")
        faults += row["faults"]
    return "\n".join([*lines, *(["", "Faulty:", "", *faults] if faults else [])])


if __name__ == "__main__":
    main()

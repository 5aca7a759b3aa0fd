"""Run the hostile cases, keep their outcomes in hostile.jsonl, and write the counts to HOSTILE.md.

nice python -m benchmarks.hostile [--area force] [--only WORD] [--every 7] [--faulty | --new]
python -m benchmarks.hostile --write        # runs nothing where outcomes are kept
"""

import argparse
import contextlib
import hashlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path

from benchmarks.hostile import MEMORY, SECONDS, Case, absurd, damage, force, streams
from benchmarks.hostile.world import make, moved
from seglens.cli import command

AREAS: tuple[Callable[[], list[Case]], ...] = (
    force.cases,
    damage.cases,
    streams.cases,
    absurd.cases,
)
"""Every table of cases; add yours here."""

KEPT = Path(__file__).parent.parent / "hostile.jsonl"
"""The last outcome of each case."""

RIGHT, REFUSED, FAILED = "right", "refused", "failed clearly"
FAULTS = ("wrong answer", "unexpected", "crash", "hang", "data loss", "half-written", "unclear")


@dataclass(frozen=True)
class Outcome:
    """What came of a case; ``why`` is empty where that is allowed."""

    kind: str
    why: str = ""
    seconds: float = 0.0
    day: str = ""


def run(case: Case, template: Path, place: Path) -> Outcome:
    """Run one case in a process of its own, in a world of its own, and judge what came of it."""
    world = moved(template, place)
    if case.spoil is not None:
        case.spoil(world)
    before, began = listing(world), time.monotonic()
    said, told = place.with_suffix(".err"), place.with_suffix(".out")
    code = _shell(case, world, said, told) if case.shell else _forked(case, world, said, told)
    err, out = said.read_text(errors="replace"), told.read_text(errors="replace")
    found = judged(case, code, err, out, before, world)
    seconds = round(time.monotonic() - began, 1)
    return replace(found, why=found.why.replace(str(world), "."), seconds=seconds, day=str(date.today()))


def judged(case: Case, code: int | None, err: str, out: str, before: dict[str, str], world: Path) -> Outcome:
    """Say what an exit code, the two streams and the files that are left come to."""
    last = err.strip().splitlines()[-1] if err.strip() else ""
    after = listing(world)
    lost = [
        name
        for name in before
        if before[name] != after.get(name) and not any(name.startswith(part) for part in case.may_change)
    ]
    left = [
        name for name in after if name not in before and re.search(r"(^|/)\.[^/]*(partial|lock|old-)", name)
    ]
    if lost:
        return Outcome("data loss", f"changed or gone: {', '.join(lost[:3])}")
    if code is None:
        return Outcome("hang", f"more than {SECONDS} s")
    if code < 0 and code not in case.codes:
        return Outcome("crash", f"signal {-code}")
    if "Unexpected" in err or "Traceback" in err:
        return Outcome("unexpected", last)
    if left:
        return Outcome("half-written", ", ".join(left[:3]))
    if code not in case.codes:
        return Outcome("wrong answer" if code == 0 else "unclear", f"code {code}: {last}")
    if code != 0 and not re.search(case.says, err):
        return Outcome("unclear", f"not {case.says!r}: {last}")
    wrong = case.check(world, out) if case.check is not None else ""
    if wrong:
        return Outcome("wrong answer", wrong)
    return Outcome({0: RIGHT, 2: REFUSED}.get(code, FAILED))


def listing(world: Path) -> dict[str, str]:
    """Return every file below with a hash of its bytes; links and special files by what they are."""
    found = {}
    for folder, _, names in os.walk(world):
        for name in names:
            file = Path(folder) / name
            key = os.fsencode(file.relative_to(world)).decode("utf-8", "backslashreplace")
            plain = file.is_file() and not file.is_symlink()
            found[key] = hashlib.md5(file.read_bytes()).hexdigest() if plain else "special"
    return found


def _forked(case: Case, world: Path, said: Path, told: Path) -> int | None:
    """Run the command in a fork of this process, which has imported all it needs: that is quick."""
    words = case.command.split() if isinstance(case.command, str) else list(case.command)
    child = os.fork()
    if child == 0:
        code = 99
        try:
            os.setsid()
            resource.setrlimit(resource.RLIMIT_AS, (_held() + MEMORY,) * 2)
            os.chdir(world)
            nothing = os.open(os.devnull, os.O_RDONLY)
            for number, file in ((1, told), (2, said)):
                os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT, 0o644), number)
            os.dup2(nothing, 0)
            code = command(words)
            sys.stdout.flush()
            sys.stderr.flush()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        except BaseException:
            import traceback

            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)
    return _waited(child)


def _shell(case: Case, world: Path, said: Path, told: Path) -> int | None:
    environment = os.environ | {"S": f"{sys.executable} -m seglens", "PYTHONPATH": os.pathsep.join(sys.path)}
    with said.open("wb") as err, told.open("wb") as out:
        process = subprocess.Popen(
            ["sh", "-c", case.shell],
            cwd=world,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        code = _waited(process.pid)
        process.returncode = code if code is not None else -9
        return code


def _waited(child: int) -> int | None:
    """Return a child's exit code (negative: the signal that ended it), None where it had to be killed."""
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)  # what it started and left
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _held() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--area", nargs="*", default=[], help="only these")
    parser.add_argument("--only", default="", help="only cases whose name holds this")
    parser.add_argument("--every", type=int, default=1, help="only every N-th case")
    parser.add_argument("--faulty", action="store_true", help="only cases that were at fault when last run")
    parser.add_argument("--new", action="store_true", help="only cases that were never run")
    parser.add_argument(
        "--write", action="store_true", help="write HOSTILE.md from all outcomes that are kept"
    )
    options = parser.parse_args()
    every = {f"{case.area}: {case.name}": case for area in AREAS for case in area()}
    kept = {name: found for name, found in outcomes().items() if name in every}
    chosen = [
        name
        for name, case in every.items()
        if (not options.area or case.area in options.area) and options.only in case.name
    ][:: options.every]
    if options.faulty:
        chosen = [name for name in chosen if name in kept and kept[name].kind in FAULTS]
    if options.new:
        chosen = [name for name in chosen if name not in kept]
    if chosen and not (options.write and len(sys.argv) == 2 and kept):
        with (
            tempfile.TemporaryDirectory(prefix="hostile-") as folder,
            KEPT.open("a", encoding="utf-8") as log,
        ):
            template = make(Path(folder) / "template")
            for number, name in enumerate(chosen):
                place = Path(folder) / f"world-{number:04d}"
                kept[name] = found = run(every[name], template, place)
                log.write(json.dumps({"case": name, **asdict(found)}) + "\n")
                log.flush()
                if found.kind in FAULTS:
                    print(f"{name}: {found.kind}: {found.why}", flush=True)
                with contextlib.suppress(OSError):
                    subprocess.run(["rm", "-rf", str(place)], check=False)
    text = table(every, kept)
    print(text)
    if options.write:
        KEPT.write_text(
            "".join(json.dumps({"case": n, **asdict(kept[n])}) + "\n" for n in every if n in kept)
        )
        (Path(__file__).parent.parent / "HOSTILE.md").write_text(text + "\n", encoding="utf-8")
    sys.exit(1 if any(kept[name].kind in FAULTS for name in chosen if name in kept) else 0)


def outcomes() -> dict[str, Outcome]:
    """Return the last outcome of every case that was ever run."""
    rows = [json.loads(line) for line in KEPT.read_text().splitlines()] if KEPT.exists() else []
    return {row["case"]: Outcome(row["kind"], row["why"], row["seconds"], row["day"]) for row in rows}


def table(every: dict[str, Case], kept: dict[str, Outcome]) -> str:
    """Return the kept outcomes as Markdown: counts by area, what was not run, and every fault on a line."""
    counts = Counter((every[name].area, found.kind) for name, found in kept.items())
    kinds = [kind for kind in (RIGHT, REFUSED, FAILED, *FAULTS) if any(key[1] == kind for key in counts)]
    faults = [f"- {n}: {found.kind}: {found.why}" for n, found in kept.items() if found.kind in FAULTS]
    days = sorted({found.day for found in kept.values()})
    minutes = sum(found.seconds for found in kept.values()) / 60
    lines = [
        "# Hostile cases",
        "",
        "Every case is a row in `benchmarks/hostile/`, with the outcomes that it allows, and is run in a "
        "process and a world of its own. The last outcome of each is kept in `hostile.jsonl`, beside; this "
        "page is made from that by `python -m benchmarks.hostile --write`.",
        "",
        f"{len(kept)} of {len(every)} cases were run ({days[0]} to {days[-1]}, Linux, 2 cores, one case at a "
        f"time, {minutes:.0f} minutes in all); {len(faults)} ended at fault. Of an area that "
        "was not run whole, such as `numbers` (the same few values on every option), it was every seventh "
        "case (`--every 7`) and the neighbours of what was at fault at first.",
        "",
        f"| area | cases | run | {' | '.join(kinds)} |",
        "|---" * (len(kinds) + 3) + "|",
    ]
    for area, num in Counter(case.area for case in every.values()).items():
        row = [counts[area, kind] for kind in kinds]
        lines.append(f"| {area} | {num} | {sum(row)} | {' | '.join(map(str, row))} |")
    return "\n".join([*lines, *(["", "At fault:", "", *faults] if faults else [])])


if __name__ == "__main__":
    main()

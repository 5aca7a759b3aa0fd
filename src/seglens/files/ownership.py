"""The files of a folder that Seglens made, by the records in it. Needs neither torch nor pydantic.

A ``run.json`` names the command that made the folder and lists the files that it made. A file that no list
names is the user's, whatever it is called and wherever it lies.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

RECORD = "run.json"
REPORT = "report.html"

RUNS, RESULTS = ("train", "adopt", "weak"), ("evaluate", "explain", "judge", "compare", "predict", "shortcut")
"""The commands that make run folders, and those whose results can be made again from a run."""

_TRAINING = (
    r"split\.json|history\.csv|curves\.png|model\.safetensors|checkpoints/(last|best)\.ckpt|"
    r"checkpoints/epoch-\d{3,}\.safetensors|logs/events\.out\.tfevents\.[^/]+|(logs|csv)/hparams\.yaml|"
    r"csv/metrics\.csv|wandb/.+"
)
_SETTLED = r"(rounds/\d+/(student|set|answers)|supervised|samples|pseudo|classifier)"
UNFINISHED = {
    "train": re.compile(rf"{_TRAINING}|folds/\d+/({_TRAINING}|run\.json)"),
    "adopt": re.compile(r"split\.json|model\.safetensors"),
    "weak": re.compile(
        rf"(split|pictures)\.json|steps\.json|table\.(md|json)|{_SETTLED}/({_TRAINING}|run\.json)|model\.safetensors|"
        r"(pseudo|classifier)/(.+/)?[^/]+\.(npz|json|safetensors)|samples/[^/]+\.png|"
        r"pseudo/[^/]+/train/(images|masks)/[^/]+|"
        r"rounds/\d+/answers/[^/]+\.png|rounds/\d+/set/(train|valid|test)/(images|masks)/[^/]+"
    ),
}
"""Files that a run has before it has ended, and those of runs whose record has no list yet."""

_TEMPORARY = re.compile(r"\.[^/]*\.partial(-[0-9a-f]{8})?(\.[^/.]+)?")
_PAGE = b'<meta name="generator" content="seglens '
_PICTURE = b"tEXtSoftware\x00seglens"


Known = Callable[[str], bool]
"""Whether a file of this name, relative to a folder, is known there."""


@dataclass(frozen=True)
class Contents:
    """The content of a folder: the command that made it (None: none did), and its files, relative."""

    command: str | None
    ours: tuple[str, ...]
    others: tuple[str, ...]
    empty: bool


def contents(folder: Path) -> Contents:
    """Return the files of ``folder`` that Seglens made, and all others; links are not followed.

    Results that other commands put into a folder have a record of their own; a run in it has not been made
    with it, unless the folder's own record lists it.
    """
    record = record_or_none(folder)
    ours: list[str] = []
    others: list[str] = []
    for name, mine in _walk(folder, "", _none):
        (ours if mine else others).append(name)
    empty = not os.listdir(folder)
    command = record.get("kind") if record is not None else None
    return Contents(command if isinstance(command, str) else None, tuple(ours), tuple(others), empty)


def record_or_none(folder: Path) -> dict[str, object] | None:
    """Return the ``run.json`` of ``folder`` as plain data; None where there is none that can be read."""
    try:
        found = json.loads((folder / RECORD).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("kind"), str) else None


def is_ours(file: Path) -> bool:
    """Whether a page or picture says of itself that Seglens made it."""
    try:
        with file.open("rb") as stream:
            head = stream.read(4096)
    except OSError:
        return False
    return (head.lstrip().lower().startswith(b"<!doctype html") and _PAGE in head) or (
        head.startswith(b"\x89PNG") and _PICTURE in head
    )


def list_files(folder: Path, command: str) -> None:
    """Write into the ``run.json`` of ``folder`` which files are there now; it begins one where there is none.

    To be called before the folder gets the name that the user gave; of a run, which has had that name for
    long, only files with names that its command gives are listed.
    """
    record = record_or_none(folder) or {"schema_number": 1, "kind": command}
    known = UNFINISHED.get(command)
    names = {name for name in _names(folder, "") if known is None or known.fullmatch(name) is not None}
    record["files"] = sorted({RECORD, *names})
    write_text(folder / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def rename_in_records(folder: Path, before: Path, after: Path) -> None:
    """Replace the path ``before`` by ``after`` in the records below ``folder``."""
    pairs = [(str(before), str(after)), (os.path.abspath(before), os.path.abspath(after))]
    for file in folder.rglob(RECORD):
        record = record_or_none(file.parent)
        if record is not None:
            text = json.dumps(_renamed(record, pairs), indent=1, ensure_ascii=False)
            write_text(file, text + "\n")


def write_text(file: Path, text: str) -> None:
    """Write text as UTF-8; of what isn't text in a file name, its number."""
    file.write_bytes(text.encode("utf-8", "backslashreplace"))


def remove_listed(folder: Path, names: tuple[str, ...]) -> bool:
    """Remove these files of ``folder``, then all folders that are empty; return whether nothing is left."""
    for name in names:
        (folder / name).unlink(missing_ok=True)
    for place, _, _ in os.walk(folder, topdown=False):
        if not os.listdir(place):
            os.rmdir(place)
    return not folder.exists()


def _walk(folder: Path, place: str, above: Known) -> Iterator[tuple[str, bool]]:
    """Yield each file below ``folder``, and whether it is ours; ``above`` knows the lists above it."""
    record = record_or_none(folder)
    believed = record is not None and (not place or above(RECORD) or record["kind"] in RESULTS)
    own = _listed(record) if record is not None and believed else _none

    def mine(name: str) -> bool:
        return own(name) or above(name)

    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        temporary = _TEMPORARY.fullmatch(entry.name) is not None
        if entry.is_dir(follow_symlinks=False):
            inner = f"{entry.name}/"
            within: Known = _all if temporary else partial(_in_folder, mine, inner)
            yield from _walk(Path(entry.path), f"{place}{inner}", within)
        else:
            known = temporary or mine(entry.name)
            known = known or (entry.name == REPORT and is_ours(Path(entry.path)))
            yield f"{place}{entry.name}", known or _is_lock(Path(entry.path))


def _all(name: str) -> bool:
    return True


def _none(name: str) -> bool:
    return False


def _in_folder(mine: Known, inner: str, name: str) -> bool:
    return mine(inner + name)


def _is_lock(file: Path) -> bool:
    """Whether a killed command left this lock."""
    if not (file.name.startswith(".") and file.name.endswith(".lock")) or file.is_symlink():
        return False
    try:
        return "process" in json.loads(file.read_bytes() or b"null")
    except (OSError, ValueError, TypeError):
        return False


def _listed(record: dict[str, Any]) -> Known:
    files = record.get("files")
    if isinstance(files, list) and files:
        names = {name for name in files if isinstance(name, str)}
        return lambda name: name in names or name == RECORD
    known = UNFINISHED.get(record["kind"])
    return lambda name: name == RECORD or (known is not None and known.fullmatch(name) is not None)


def _renamed(value: Any, pairs: Sequence[tuple[str, str]]) -> Any:
    if isinstance(value, dict):
        return {key: _renamed(part, pairs) for key, part in value.items()}
    if isinstance(value, list):
        return [_renamed(part, pairs) for part in value]
    for before, after in pairs:
        if isinstance(value, str) and (value == before or value.startswith(before + os.sep)):
            return after + value.removeprefix(before)
    return value


def _names(folder: Path, place: str) -> Iterator[str]:
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from _names(Path(entry.path), f"{place}{entry.name}/")
        elif _TEMPORARY.fullmatch(entry.name) is None:
            yield f"{place}{entry.name}"

"""Where a command may write, and what ``--force`` replaces: all such rules are here."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from seglens.errors import OutputExistsError, SettingError
from seglens.files.locks import beside
from seglens.files.ownership import RECORD, RESULTS, RUNS, contents, is_ours, record_or_none

LONGEST_NAME = 200
"""Bytes of a name on the command line: temporary ones are a little longer, and file systems stop at 255."""

NAME_ANOTHER = "Name another place, or move that away."


def check_output(
    path: Path,
    command: str,
    *,
    force: bool,
    runs: Iterable[Path] = (),
    data: Iterable[Path] = (),
    files: Iterable[Path] = (),
) -> None:
    """Raise unless ``command`` may make the folder ``path``; the one rule for what ``force`` replaces.

    It replaces a folder in which there is nothing but what records of Seglens say that it made: a run by a
    command that makes runs, a result by one that makes results. ``runs``, ``data`` and ``files`` are what the
    command reads.

    Raises:
        OutputExistsError: ``path`` holds something that isn't to be replaced, or ``force`` is not given.
        SettingError: ``path`` can't be a place to write to, or overlaps with what is read.
    """
    path = Path(path)
    refuse_overlap(path, runs=runs, data=data, files=files)
    if command in RUNS:
        refuse_no_text(path)
    if not _is_there(path):
        return
    if not path.is_dir():
        raise OutputExistsError(f"{path} exists already, and is no folder. {NAME_ANOTHER}")
    found = contents(path)
    if found.empty:
        return
    if found.others:
        raise OutputExistsError(
            f"{path} exists already, and holds {some(found.others)} that 'seglens {command}' did not make. "
            f"Such are never replaced, --force or not. {NAME_ANOTHER}"
        )
    if found.command is not None and _family(found.command) != _family(command):
        raise OutputExistsError(
            f"{path} exists already, and is the output of 'seglens {found.command}', which "
            f"'seglens {command}' doesn't replace, --force or not. {NAME_ANOTHER}"
        )
    if not force:
        raise OutputExistsError(f"{path} exists already. Name another place, or replace it with --force.")


def check_file(
    path: Path,
    *,
    force: bool,
    runs: Iterable[Path] = (),
    data: Iterable[Path] = (),
    files: Iterable[Path] = (),
) -> None:
    """Raise unless the page or picture ``path`` may be written: ``force`` replaces what Seglens made.

    Raises:
        OutputExistsError, SettingError: as `check_output`.
    """
    path = Path(path)
    refuse_overlap(path, runs=runs, data=data, files=files)
    if not _is_there(path):
        return
    if not path.is_file() or not is_ours(path):
        kind = "a folder" if path.is_dir() else "no page or picture that Seglens made"
        raise OutputExistsError(
            f"{path} exists already, and is {kind}: it is never replaced, --force or not. {NAME_ANOTHER}"
        )
    if not force:
        raise OutputExistsError(f"{path} exists already. Name another place, or replace it with --force.")


def refuse_overlap(
    path: Path, *, runs: Iterable[Path] = (), data: Iterable[Path] = (), files: Iterable[Path] = ()
) -> None:
    """Raise where writing to ``path`` could touch what is read; looks at names, reads no more than a record.

    ``path`` may lie in a run, never in data; neither may lie in ``path``, and no file of ``files``.

    Raises:
        SettingError: it overlaps, or is a place that nothing may replace.
    """
    path = Path(path)
    _refuse_places(path)
    real = os.path.realpath(path)
    runs, data = [Path(run) for run in runs], [Path(folder) for folder in data]
    data += [place for run in runs for place in _data_of(run)]
    for what, folders in (("the run", runs), ("the data", data)):
        for folder in folders:
            if _within(os.path.realpath(folder), real):
                raise SettingError(_overlap(path, f"{what} {folder}"))
    inside_run = any(_within(real, os.path.realpath(run)) for run in runs)
    for folder in data:
        if not inside_run and _within(real, os.path.realpath(folder)):
            raise SettingError(
                f"{path} lies in the data {folder}, which would change with what is written there. "
                f"{NAME_ANOTHER}"
            )
    for parent, file in {os.path.dirname(os.path.abspath(file)): file for file in files}.items():
        if _within(os.path.realpath(parent), real) or os.path.realpath(file) == real:
            raise SettingError(_overlap(path, f"the file {file}"))


def refuse_no_text(path: Path) -> None:
    """Raise where a name in ``path`` is no text, as that of an old disk: safetensors can't write there.

    Raises:
        SettingError: it is so.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise SettingError(
            f"{path} is no name in UTF-8, and files of safetensors can't be written under it. Name another "
            "place."
        ) from error


def place_of_run(path: Path, command: str, *, resume: bool, force: bool) -> Path:
    """Return where a run that will be ``path`` is made: there, or beside it until it can replace another.

    Raises:
        OutputExistsError: ``path`` holds something that isn't to be replaced, or ``force`` is not given.
    """
    path, place = Path(path), run_in_use(Path(path))
    if resume and (place / RECORD).exists():
        return place
    check_output(path, command, force=True)  # what force would not replace is never advised to
    if not force and (place != path or (record_or_none(place) or {}).get("state") == "running"):
        raise OutputExistsError(
            f"{place} holds a run that has not ended. Go on with --resume, or replace it with --force."
        )
    # What a run that was killed in its first moment left has no record.
    began = resume and path.is_dir() and contents(path).command is None
    check_output(path, command, force=force or began)
    occupied = force and path.exists() and not contents(path).empty
    return beside(path, "partial") if occupied else place


def run_in_use(path: Path) -> Path:
    """Return where the run ``path`` is worked on: beside it, where one is being made in its place."""
    partial = beside(Path(path), "partial")
    return Path(path) if record_or_none(partial) is None else partial


def _refuse_places(path: Path) -> None:
    """Raise where ``path`` is a link, a place that holds everything, or no possible name."""
    longest = max((len(os.fsencode(part)) for part in path.parts), default=0)
    if longest > LONGEST_NAME:
        raise SettingError(
            f"A name in {path} is {longest} bytes long; at most {LONGEST_NAME} are allowed. Name a shorter "
            "one."
        )
    try:
        link = path.is_symlink()
    except (OSError, ValueError) as error:
        raise SettingError(f"{path} can't be written to: {getattr(error, 'strerror', error)}.") from error
    if link:
        raise SettingError(
            f"{path} is a link, and links are never replaced. Name the place that it leads to."
        )
    real = os.path.realpath(path)
    for what, place in (("the current folder", os.getcwd()), ("your home folder", os.path.expanduser("~"))):
        if _within(os.path.realpath(place), real):
            where = "is" if os.path.realpath(place) == real else "holds"
            raise SettingError(
                f"{path} {where} {what}, which is never written over. Name a folder of its own."
            )
    for parent in path.parents:
        if _is_there(parent) and not parent.is_dir():
            raise SettingError(f"{path} can't be made: {parent} is no folder. Name another place.")


def _is_there(path: Path) -> bool:
    return os.path.lexists(path)


def _within(inner: str, outer: str) -> bool:
    """Whether one real path is the other, or lies in it."""
    return inner == outer or inner.startswith(outer.rstrip(os.sep) + os.sep)


def _data_of(run: Path) -> list[Path]:
    """Return the folder of the data that a run knows."""
    data = (record_or_none(run) or {}).get("data")
    place = data.get("path") if isinstance(data, dict) else None
    return [Path(place)] if isinstance(place, str) else []


def _overlap(path: Path, what: str) -> str:
    return f"{path} holds {what}, which this command reads: nothing may take its place. Name another place."


def _family(command: str | None) -> str | None:
    for name, kinds in (("run", RUNS), ("result", RESULTS)):
        if command in kinds:
            return name
    return command


def some(names: Sequence[str]) -> str:
    """Return the first three of ``names``, and how many more there are."""
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} other files" if len(names) > 3 else shown

"""What a report is about: the records and tables of run folders, read back as plain data. Needs no torch."""

import csv
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seglens.errors import DataError, SettingError
from seglens.results import record

TABLES = {"evaluate": "scores.json", "explain": "explanations.json", "judge": "scorecard.json"}
"""The verb that writes into a run folder, and the table that it leaves there."""

AUDIT = "audit.json"


SHAPES: dict[str, dict[str, type]] = {
    "scores.json": {"images": list, "pooled": dict, "per_image": dict, "calibration": dict},
    "explanations.json": {"samples": list, "summary": list, "methods": list, "layers": list},
    "scorecard.json": {"rows": list},
    AUDIT: {"images": list},
}
"""What stands in each table, the first in every one; the entries of a list are objects, or names."""


@dataclass(frozen=True)
class Part:
    """One result of a verb: the folder, what its table says, and its record where there is one.

    ``audit`` is what ``judge`` found in regions that ought not to matter, where it was asked to look.
    """

    verb: str
    name: str
    folder: Path
    table: dict[str, Any]
    record: record.Record | None
    audit: dict[str, Any] | None = None

    def file(self, relative: str | None) -> Path | None:
        """Return a file that the table names, or None where there is none inside of the folder.

        A table is data that somebody else may have written: a path that leads out of the folder is not
        followed, because what it names would be copied into the report.
        """
        if not relative:
            return None
        file = (self.folder / relative).resolve()
        return file if file.is_relative_to(self.folder.resolve()) and file.is_file() else None


@dataclass(frozen=True)
class RunContents:
    """Everything that one run folder holds for a report. ``history`` maps a column to one value an epoch."""

    name: str
    folder: Path
    record: record.Record
    history: dict[str, list[float | None]] = field(default_factory=dict)
    evaluations: tuple[Part, ...] = ()
    explanations: tuple[Part, ...] = ()
    scorecards: tuple[Part, ...] = ()

    @property
    def parts(self) -> tuple[Part, ...]:
        """All results below the run, in the order in which the verbs are used."""
        return self.evaluations + self.explanations + self.scorecards


def read_runs(folders: Sequence[Path]) -> tuple[RunContents, ...]:
    """Read run folders; each gets a name that no other has.

    Raises:
        SettingError: no folder was given.
        DataError: a folder is no run, or a table in it is damaged.
    """
    if not folders:
        raise SettingError("No run was given. Name at least one run folder, such as runs/first.")
    names = _distinct([Path(folder).resolve() for folder in folders])
    return tuple(read_run(Path(folder), name) for folder, name in zip(folders, names, strict=True))


def read_run(folder: Path, name: str) -> RunContents:
    """Read one run folder, or the folder of one evaluation, explanation or judgement by itself."""
    own = record.read(folder)
    found: dict[str, tuple[Part, ...]] = {}
    if own.kind in TABLES:
        found[own.kind] = (read_part(own.kind, folder),)
    else:
        found = {verb: _parts(folder, verb) for verb in TABLES}
    return RunContents(
        name=name,
        folder=folder,
        record=own,
        history=read_history(folder / "history.csv"),
        evaluations=found.get("evaluate", ()),
        explanations=found.get("explain", ()),
        scorecards=found.get("judge", ()),
    )


def _parts(folder: Path, verb: str) -> tuple[Part, ...]:
    # A dot in front: a result that is still being written.
    below = sorted(path for path in (folder / verb).glob("*") if not path.name.startswith("."))
    return tuple(read_part(verb, path) for path in below if (path / TABLES[verb]).is_file())


def read_part(verb: str, folder: Path) -> Part:
    """Read one result folder of ``verb``."""
    own = record.read(folder) if (folder / record.FILE_NAME).is_file() else None
    audit = read_table(folder / AUDIT) if verb == "judge" and (folder / AUDIT).is_file() else None
    return Part(verb, folder.name, folder, read_table(folder / TABLES[verb]), own, audit)


def read_table(file: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        DataError: the file is missing, is not JSON, or holds something other than an object.
    """
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"There is no file {file}. Make it with the verb that writes it.") from error
    except ValueError as error:
        raise DataError(f"{file} is not JSON ({error}). Make it again with --force.") from error
    except RecursionError as error:
        raise DataError(f"{file} is nested too deep to be a table. Make it again with --force.") from error
    if not isinstance(table, dict):
        raise DataError(f"{file} holds a {type(table).__name__}, not an object. Make it again with --force.")
    for number, (key, kind) in enumerate(SHAPES.get(file.name, {}).items()):
        value = table.get(key, kind() if number else None)
        entries = value if isinstance(value, list) else []
        if not isinstance(value, kind) or not all(isinstance(entry, dict | str) for entry in entries):
            raise DataError(
                f"{file} is damaged: {key!r} in it is not what Seglens writes there. Make it again with "
                "--force."
            )
    return table


@contextmanager
def told_with_the_files(runs: Sequence[RunContents]) -> Iterator[None]:
    """Within, let contents of tables that nothing can be made of be an error that names these.

    Raises:
        DataError: a value is missing, or is not of its kind.
    """
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        files = [part.folder / TABLES[part.verb] for run in runs for part in run.parts]
        files += [run.folder / record.FILE_NAME for run in runs]
        raise DataError(
            f"Something in {', '.join(map(str, files))} is not what Seglens writes there "
            f"({type(error).__name__}: {error}). Make the damaged one again with --force."
        ) from error


def read_history(file: Path) -> dict[str, list[float | None]]:
    """Read the learning curves: one list for each column, None where a cell is empty or not finite."""
    if not file.is_file():
        return {}
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{file} can't be read as a table ({error}). Delete it, or train again.") from error
    return {name: [_finite(row.get(name)) for row in rows] for name in (rows[0] if rows else {})}


def _finite(text: str | None) -> float | None:
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None


def _distinct(folders: Sequence[Path]) -> list[str]:
    """Name folders by as many of their last parts as it takes to tell them apart."""
    for depth in range(1, max(len(folder.parts) for folder in folders) + 1):
        names = ["/".join(folder.parts[-depth:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
    raise SettingError(f"The run {folders[0]} was given twice. Name each run once.")

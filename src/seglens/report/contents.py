"""The content of a report: records and results, read from run folders. Needs no torch."""

import csv
import json
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar

from seglens.errors import DataError, SeglensWarning, SettingError
from seglens.results import record as records
from seglens.results.maps import ExplanationTable, PictureMaps
from seglens.results.record import Record
from seglens.results.scorecard import Audit, Card, TagTest
from seglens.results.scores import EvaluationTable, PictureScores
from seglens.results.tables import read_table

TABLES = {"evaluate": "scores.json", "explain": "explanations.json", "judge": "scorecard.json"}
"""The command that writes into a run folder, and the table that it leaves there."""

AUDIT = "audit.json"

Table = TypeVar("Table", EvaluationTable, ExplanationTable, Card, TagTest)


@dataclass(frozen=True)
class RunPart(Generic[Table]):
    """One result of a command: the file with its table, and its record where there is one.

    ``audit`` is what ``judge`` found in regions that ought not to matter, where it was asked to look.
    """

    command: str
    source: Path
    table: Table
    record: Record | None = None
    audit: Audit | None = None

    @property
    def folder(self) -> Path:
        """The folder of the result."""
        return self.source.parent

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.name

    @property
    def split(self) -> str:
        """The split; scorecards, and maps of image files, name none: their folder does."""
        return getattr(self.table, "split", None) or self.name

    @cached_property
    def raw(self) -> object:
        """The table as it stands in the file."""
        return json.loads(self.source.read_bytes())

    def file(self, relative: str | None) -> Path | None:
        """Return a file that the table names, or None where there is none inside of the folder.

        A table is data that somebody else may have written: a path that leads out of the folder is not
        followed, because what it names would be copied into the report.
        """
        if not relative:
            return None
        file = (self.folder / relative).resolve()
        return file if file.is_relative_to(self.folder.resolve()) and file.is_file() else None

    def file_of(self, row: PictureScores | PictureMaps, kind: str) -> Path | None:
        """Return the file of a picture that is called ``kind``, as `file` does."""
        return self.file(row.files.get(kind))


Evaluated = RunPart[EvaluationTable]
Explained = RunPart[ExplanationTable]
Judged = RunPart[Card]


@dataclass(frozen=True)
class RunContents:
    """Everything that one run folder holds for a report. ``history`` maps a column to one value an epoch."""

    name: str
    folder: Path
    record: Record
    history: dict[str, list[float | None]] = field(default_factory=dict)
    evaluations: tuple[Evaluated, ...] = ()
    explanations: tuple[Explained, ...] = ()
    scorecards: tuple[Judged, ...] = ()

    @property
    def parts(self) -> tuple[Evaluated | Explained | Judged, ...]:
        """All results below the run, in the order in which the commands are used."""
        return (*self.evaluations, *self.explanations, *self.scorecards)


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
    own = records.read_record(folder)
    places = {command: [folder] if own.kind == command else [] for command in TABLES}
    if own.kind not in TABLES:
        places = {command: _below(folder / command, file) for command, file in TABLES.items()}
    return RunContents(
        name=name,
        folder=folder,
        record=own,
        history=read_history(folder / "history.csv"),
        evaluations=_of_its_weights(map(read_evaluation, places["evaluate"]), own),
        explanations=_of_its_weights(map(read_explanation, places["explain"]), own),
        scorecards=_of_its_weights(map(read_judgement, places["judge"]), own),
    )


def _of_its_weights(parts: Iterable[RunPart[Table]], run: Record) -> tuple[RunPart[Table], ...]:
    """Return the results of the run's final weights; warn of others, as of an epoch that was kept."""
    kept = []
    for part in parts:
        known = {run.model_sha256, part.record.model_sha256 if part.record else None} - {None}
        if len(known) < 2:
            kept.append(part)
            continue
        warnings.warn(
            f"{part.folder} is left out: it was made with other weights than the final ones of its run, as "
            f"by --epoch. Make it again without that: seglens {part.command} --force.",
            SeglensWarning,
            stacklevel=2,
        )
    return tuple(kept)


def _below(folder: Path, file: str) -> list[Path]:
    # A dot in front: a result that is still being written.
    return sorted(p for p in folder.glob("*") if not p.name.startswith(".") and (p / file).is_file())


def read_evaluation(folder: Path) -> Evaluated:
    """Read the folder of an evaluation."""
    file = folder / TABLES["evaluate"]
    return RunPart("evaluate", file, read_table(file, EvaluationTable), _record(folder))


def read_explanation(folder: Path) -> Explained:
    """Read the folder of an explanation."""
    file = folder / TABLES["explain"]
    return RunPart("explain", file, read_table(file, ExplanationTable), _record(folder))


def read_judgement(folder: Path) -> Judged:
    """Read the folder of a judgement."""
    file, audit = folder / TABLES["judge"], folder / AUDIT
    audited = read_table(audit, Audit) if audit.is_file() else None
    return RunPart("judge", file, read_table(file, Card), _record(folder), audited)


def _record(folder: Path) -> Record | None:
    return records.read_record(folder) if (folder / records.FILE_NAME).is_file() else None


def read_history(file: Path) -> dict[str, list[float | None]]:
    """Read the learning curves: one list for each column, None where a cell is empty or not finite."""
    if not file.is_file():
        return {}
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{file} can't be read as a table ({error}). Delete it, or train again.") from error
    return {name: [_finite(row[name]) for row in rows] for name in (rows[0] if rows else {})}


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

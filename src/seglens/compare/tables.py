"""Rows of a comparison: pictures, those that changed most, what is missing, and tables as CSV files."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from seglens.compare.matching import Common
from seglens.outputs import table_cell
from seglens.report.contents import Part, RunContents

Row = dict[str, Any]

NUM_EXPLAINED = 3
"""Of how many pictures that gained, and that lost, explanations are proposed."""
BY = "dice"
"""The score by which pictures are said to have changed."""


def pictures(common: Common, reference: str) -> list[Row]:
    """Return a row for each common picture: its score in every run and the changes, the largest first."""
    found = []
    for index, name in enumerate(common.names):
        scores = {run: _number(rows[index].get(BY)) for run, rows in common.rows.items()}
        base = scores[reference]
        change = {
            run: None if base is None or value is None else value - base
            for run, value in scores.items()
            if run != reference
        }
        numbers = {run: rows[index].get("index") for run, rows in common.rows.items()}
        found.append({"name": name, BY: scores, "change": change, "index": numbers})
    return sorted(
        found, key=lambda row: -max((abs(value or 0.0) for value in row["change"].values()), default=0)
    )


def changed(rows: Sequence[Row], run: str, top: int) -> dict[str, list[Row]]:
    """Return the ``top`` pictures that gained most in a run, and the ``top`` that lost most."""
    known = [(row["change"][run], row["name"]) for row in rows if row["change"][run] is not None]
    gained = sorted((pair for pair in known if pair[0] > 0), reverse=True)[:top]
    lost = sorted(pair for pair in known if pair[0] < 0)[:top]
    return {
        kind: [{"name": name, "change": change} for change, name in pairs]
        for kind, pairs in (("gained", gained), ("lost", lost))
    }


def explaining(
    runs: Sequence[RunContents], rows: Sequence[Row], kinds: Mapping[str, Row], split: str
) -> list[str]:
    """Return the commands that explain the pictures that changed most, the first of each kind."""
    changes = [
        entry for kind in kinds.values() for entries in kind.values() for entry in entries[:NUM_EXPLAINED]
    ]
    names = list(dict.fromkeys(str(entry["name"]) for entry in changes))
    by_name = {row["name"]: row["index"] for row in rows}
    found = []
    for run in runs:
        numbers = [by_name[name][run.name] for name in names if by_name[name].get(run.name) is not None]
        if numbers:
            told = " ".join(map(str, numbers))
            found.append(f"seglens explain {run.folder} --split {split} --samples {told}")
    return found


def missing(
    runs: Sequence[RunContents],
    evaluations: Mapping[str, Part | None],
    explained: Mapping[str, Part | None],
    judged: Mapping[str, Part | None],
    split: str,
) -> list[dict[str, str]]:
    """Return what runs lack for a comparison, each with the command that makes it."""
    found = []
    for verb, parts in (("evaluate", evaluations), ("explain", explained), ("judge", judged)):
        like = next((part for part in parts.values() if part is not None), None)
        for run in runs:
            if parts[run.name] is None:
                words = ["seglens", verb, str(run.folder), "--split", split, *(_as_in(like) if like else [])]
                found.append({"run": run.name, "verb": verb, "command": " ".join(words)})
    return found


def _as_in(part: Part) -> list[str]:
    """Return the flags that ask for the same maps as another run has."""
    settings = part.record.settings if part.record else {}
    words = []
    for name in ("methods", "layers"):
        values = [str(value) for value in settings.get(name) or []]
        if values and all(
            value.replace("-", "").replace("_", "").replace(".", "").replace("+", "").isalnum()
            for value in values
        ):
            words += [f"--{name}", *values]
    samples, num = settings.get("samples"), settings.get("num_images") or settings.get("num_samples")
    words += ["--samples", *map(str, samples)] if samples else []
    words += ["--num-images", str(num)] if num and not samples else []
    return words


def write_tables(table: Row, folder: Path) -> None:
    """Write ``scores.csv``, ``images.csv`` and ``maps.csv`` of a comparison."""
    _write(table["scores"], folder / "scores.csv")
    images = [
        {
            "name": row["name"],
            **{f"{BY} {run}": value for run, value in row[BY].items()},
            **{f"change {run}": value for run, value in row["change"].items()},
        }
        for row in table["images"]
    ]
    _write(images, folder / "images.csv")
    _write(table["map_images"], folder / "maps.csv")


def _write(rows: Iterable[Row], file: Path) -> None:
    kept = list(rows)
    columns = list(dict.fromkeys(name for row in kept for name in row))
    with file.open("w", newline="", encoding="utf-8", errors="backslashreplace") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([table_cell(name) for name in columns])
        writer.writerows([table_cell(row.get(name)) for name in columns] for row in kept)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None

"""What differs in how runs were made: their records, value by value."""

from collections.abc import Mapping, Sequence
from typing import Any

from seglens.record import Record
from seglens.report.contents import RunContents

ABOUT = (
    "kind",
    "state",
    "seed",
    "device",
    "settings",
    "model",
    "task",
    "data",
    "model_sha256",
    "data_sha256",
)
"""What of a record says how its result came about; command, time and duration are provenance."""


def differing(runs: Sequence[RunContents]) -> list[dict[str, Any]]:
    """Return every setting that is not the same in all runs: the step, its name and the value in each run.

    A setting that a run's record lacks is None there. Steps that not all runs have are left out.
    """
    found = []
    steps = [{run.name: run.record for run in runs}]
    for verb in ("evaluations", "explanations", "scorecards"):
        by_run = {run.name: {part.name: part.record for part in getattr(run, verb)} for run in runs}
        shared = set.intersection(*(set(parts) for parts in by_run.values()))
        for name in sorted(shared):
            records = {run: parts[name] for run, parts in by_run.items()}
            if all(records.values()):
                steps.append({run: record for run, record in records.items() if record is not None})
    for step in steps:
        title = next(iter(step.values())).kind if step is not steps[0] else "run"
        found += [{"step": title, **row} for row in _differing(step)]
    return found


def _differing(step: Mapping[str, Record]) -> list[dict[str, Any]]:
    flat = {run: flatten({name: getattr(record, name) for name in ABOUT}) for run, record in step.items()}
    flat = {
        run: values | {f"versions.{name}": value for name, value in step[run].versions.items()}
        for run, values in flat.items()
    }
    names = list(dict.fromkeys(name for values in flat.values() for name in values))
    found = []
    for name in names:
        values = {run: mine.get(name) for run, mine in flat.items()}
        # The folder of the run differs by its nature.
        if name != "settings.run" and len(set(map(repr, values.values()))) > 1:
            found.append({"name": name, "values": values})
    return found


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, with dots between the names; what is None or empty is left out."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flatten(value, f"{prefix}{name}.")
        elif value not in (None, "", [], ()):
            found[f"{prefix}{name}"] = value
    return found

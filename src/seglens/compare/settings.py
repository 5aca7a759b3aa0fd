"""What differs in how runs were made: their records, value by value."""

from collections.abc import Mapping, Sequence
from typing import Any

from seglens.report.contents import RunContents
from seglens.results.comparison import SettingChange
from seglens.results.record import Record

ABOUT_STEPS = ("seed", "device", "settings", "data_sha256", "versions")
"""What of the record of a later step says how its result came about; the model is the run's."""
ABOUT = ("kind", "state", "model", "task", "data", "model_sha256", *ABOUT_STEPS)
"""What of a run's record does; command, time and duration are provenance."""


def differing(runs: Sequence[RunContents]) -> list[SettingChange]:
    """Return every setting that is not the same in all runs: the step, its name and the value in each run.

    A setting that a run's record lacks is None there. Steps that not all runs have are left out.
    """
    found = _differing(runs[0].record.kind, {run.name: run.record for run in runs}, ABOUT)
    for verb in ("evaluations", "explanations", "scorecards"):
        by_run = {run.name: {part.name: part for part in getattr(run, verb)} for run in runs}
        for name in sorted(set.intersection(*(set(parts) for parts in by_run.values()))):
            parts = {run: of_run[name] for run, of_run in by_run.items()}
            records = {run: part.record for run, part in parts.items() if part.record is not None}
            step = f"{next(iter(parts.values())).verb} {name}"
            if len(records) == len(runs):
                found += _differing(step, records, ABOUT_STEPS)
    return found


def _differing(step: str, records: Mapping[str, Record], about: Sequence[str]) -> list[SettingChange]:
    flat = {run: flatten({name: getattr(record, name) for name in about}) for run, record in records.items()}
    found = []
    for name in dict.fromkeys(name for values in flat.values() for name in values):
        values = {run: mine.get(name) for run, mine in flat.items()}
        # The folder of the run differs by its nature.
        if name != "settings.run" and len(set(map(repr, values.values()))) > 1:
            found.append(SettingChange(step=step, name=name, values=values))
    return found


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Return nested mappings as one, with dots between the names; what is None or empty is left out."""
    found: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flatten(value, f"{prefix}{name}.")
        elif value not in (None, "", [], ()):
            found[f"{prefix}{name}"] = value
    return found

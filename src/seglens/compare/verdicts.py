"""Scorecards side by side: the same score of the same map in each run, and verdicts that changed."""

from collections.abc import Mapping

from seglens.report.contents import Judged
from seglens.results.comparison import VerdictChange
from seglens.results.scorecard import CardRow

KEPT = ("value", "low", "high", "verdict", "reason", "reference", "num_evaluable", "num_total")


def side_by_side(cards: Mapping[str, Judged]) -> list[VerdictChange]:
    """Return a row for each target, method, layer and score that several runs were judged by.

    A scorecard keeps means and intervals, no picture's own value: the intervals are each run's own, and no
    paired one can be given. ``changed`` tells verdicts that are not the same in all runs.
    """
    by_run = {run: {_key(row): row for row in part.table.rows} for run, part in cards.items()}
    keys = list(dict.fromkeys(key for rows in by_run.values() for key in rows))
    found = []
    for key in keys:
        rows = {run: rows[key] for run, rows in by_run.items() if key in rows}
        if len(rows) < 2:
            continue
        target, method, layer, score = key
        told = {run: CardRow.model_validate({name: row[name] for name in KEPT}) for run, row in rows.items()}
        changed = len({row.verdict for row in rows.values()}) > 1
        found.append(
            VerdictChange(target=target, method=method, layer=layer, score=score, runs=told, changed=changed)
        )
    return sorted(found, key=lambda row: not row.changed)


def same_pictures(parts: Mapping[str, Judged]) -> bool | None:
    """Whether results are of the same pictures by their hash; None where a record lacks it."""
    hashes = {part.record.data_sha256 if part.record else None for part in parts.values()}
    return None if None in hashes else len(hashes) == 1


def _key(row: CardRow) -> tuple[str, str, str | None, str]:
    return row.target, row.method, row.layer, row.score

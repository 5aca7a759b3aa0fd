"""Paired differences of scores over common pictures, with bootstrap intervals of the pictures.

A difference is always the run less the reference. Groups of pictures are resampled, each with its scores in
both runs, so that what makes a picture hard for both cancels (Efron and Tibshirani 1993, chapter 8).
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seglens.evaluate.intervals import (
    NOTHING,
    Clusters,
    Groups,
    Interval,
    clusters,
    interval,
    interval_bounds,
)
from seglens.report.contents import Judged, RunContents
from seglens.results.comparison import ScoreChange, SettingChange, VerdictChange
from seglens.results.record import Record
from seglens.results.scorecard import CardRow
from seglens.results.scores import SCORES, SURFACES, PictureScores
from seglens.shapes import PerImage

PixelCounts = Float[Tensor, "n 3"]
"""Of each picture the pixels that are true, predicted, and both."""

LOWER_IS_BETTER = ("hd95",)
PER_IMAGE = (*SCORES, *SURFACES)
SAME, BETTER, WORSE, UNKNOWN = "no difference shown", "better", "worse", "not evaluable"

DEFINITIONS = {
    "difference": "The score of this run less that of the reference run, on the same pictures.",
    "interval": "How far the difference may be off because of the choice of test pictures. 95 % "
    "bootstrap interval of the mean difference: 2000 resamples of the groups of pictures, with both runs "
    "on the same pictures (paired). A picture without a group counts as one. A second training with the "
    "same settings would differ, too; the interval does not cover that.",
    "better": "The whole interval lies on the better side of 0. (For hd95 lower is better.)",
    "worse": "The whole interval lies on the worse side of 0.",
    "no difference shown": "The interval holds 0. That does not show that there is no difference. Of 20 "
    "scores without any difference, one is expected to miss 0 by chance.",
    "pooled": "All pixels of the common pictures are counted together, so large objects weigh more. Only "
    "for two classes.",
}


def paired(reference: PerImage, other: PerImage, *, groups: Groups | None = None, seed: int = 0) -> Interval:
    """Return the mean of ``other - reference`` over pictures where both are numbers, with its interval."""
    difference = other.double() - reference.double()
    return interval(difference.masked_fill(~difference.isfinite(), torch.nan), groups=groups, seed=seed)


def column(rows: Sequence[PictureScores], name: str) -> PerImage:
    """Return one number a row, NaN where there is none."""
    values = [row[name] for row in rows]
    known = [float("nan") if value is None else value for value in values]
    return torch.tensor(known, dtype=torch.float64)


def score_changes(
    reference: Sequence[PictureScores],
    other: Sequence[PictureScores],
    classes: int,
    *,
    groups: Groups | None = None,
    seed: int = 0,
) -> list[ScoreChange]:
    """Return a row for each score: both values on the common pictures, the difference and its verdict.

    Intervals resample ``groups``, the number of each picture's.
    """
    found = [
        _per_image(name, column(reference, name), column(other, name), groups, seed) for name in PER_IMAGE
    ]
    if classes == 2:
        before, after = _counts(reference), _counts(other)
        of = clusters(torch.ones(len(before), dtype=torch.bool), groups)
        found += [_pooled(name, before, after, of, seed) for name in POOLED]
    return [row for row in found if row.num]


def verdict(score: str, found: Interval) -> str:
    """Return on which side of 0 the interval of a difference lies."""
    if found.independent < 2 or found.low != found.low:
        return UNKNOWN
    if found.low <= 0 <= found.high:
        return SAME
    return BETTER if (found.low > 0) != (score in LOWER_IS_BETTER) else WORSE


def _per_image(
    name: str, reference: PerImage, other: PerImage, groups: Groups | None, seed: int
) -> ScoreChange:
    found = paired(reference, other, groups=groups, seed=seed)
    both = reference.isfinite() & other.isfinite()
    gain = (other - reference)[both] * (-1 if name in LOWER_IS_BETTER else 1)
    means = [float(values[both].mean()) if found.num else None for values in (reference, other)]
    return _change(name, "per image", means, found, int((gain > 0).sum()), int((gain < 0).sum()))


def _pooled(name: str, reference: PixelCounts, other: PixelCounts, of: Clusters, seed: int) -> ScoreChange:
    score = POOLED[name]
    values = [float(score(counts.sum(0))) for counts in (reference, other)]

    def difference(rows: Int[Tensor, "r m"]) -> Float[Tensor, " r"]:
        # A column at a time: all at once would hold six numbers for each group of each resample.
        sums = [torch.stack([c[rows].sum(1) for c in counts.unbind(1)], -1) for counts in grouped]
        return score(sums[1]) - score(sums[0])

    grouped, num = (of.sums(reference), of.sums(other)), len(reference)
    low, high = interval_bounds(of.num, difference, seed=seed) if of.num > 1 else (float("nan"), float("nan"))
    found = Interval(values[1] - values[0], low, high, num, of.num) if num else NOTHING
    return _change(name, "pooled", values, found)


def _change(
    name: str,
    kind: str,
    values: Sequence[float | None],
    found: Interval,
    better: int | None = None,
    worse: int | None = None,
) -> ScoreChange:
    return ScoreChange(
        score=name,
        kind=kind,
        reference=values[0],
        value=values[1],
        difference=found.mean,
        low=found.low,
        high=found.high,
        num=found.num,
        verdict=verdict(name, found),
        num_better=better,
        num_worse=worse,
    )


def _counts(rows: Sequence[PictureScores]) -> PixelCounts:
    true, predicted = column(rows, "truth_pixels"), column(rows, "predicted_pixels")
    return torch.stack([true, predicted, true - column(rows, "false_negative_pixels")], 1)


def _dice(sums: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b"]:
    return 2 * sums[..., 2] / (sums[..., 0] + sums[..., 1])


def _iou(sums: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b"]:
    return sums[..., 2] / (sums[..., 0] + sums[..., 1] - sums[..., 2])


POOLED: Mapping[str, Callable[[Float[Tensor, "*b 3"]], Float[Tensor, "*b"]]] = {
    "dice": _dice,
    "iou": _iou,
    "precision": lambda sums: sums[..., 2] / sums[..., 1],
    "recall": lambda sums: sums[..., 2] / sums[..., 0],
}
"""Scores of counts that are added up, of the foreground."""


ABOUT_STEPS = ("seed", "device", "settings", "data_sha256", "versions")
"""What of the record of a later step says how its result came about; the model is the run's."""
ABOUT = ("kind", "state", "model", "task", "data", "model_sha256", *ABOUT_STEPS)
"""What of a run's record does; command, time and duration are provenance."""


def differing(runs: Sequence[RunContents]) -> list[SettingChange]:
    """Return every setting that is not the same in all runs: the step, its name and the value in each run.

    A setting that a run's record lacks is None there. Steps that not all runs have are left out.
    """
    found = _differing(runs[0].record.kind, {run.name: run.record for run in runs}, ABOUT)
    for kind in ("evaluations", "explanations", "scorecards"):
        by_run = {run.name: {part.name: part for part in getattr(run, kind)} for run in runs}
        for name in sorted(set.intersection(*(set(parts) for parts in by_run.values()))):
            parts = {run: of_run[name] for run, of_run in by_run.items()}
            records = {run: part.record for run, part in parts.items() if part.record is not None}
            step = f"{next(iter(parts.values())).command} {name}"
            if len(records) == len(runs):
                found += _differing(step, records, ABOUT_STEPS)
    return found


def _differing(step: str, records: Mapping[str, Record], about: Sequence[str]) -> list[SettingChange]:
    plain = {run: record.model_dump() for run, record in records.items()}
    flat = {run: flatten({name: record[name] for name in about}) for run, record in plain.items()}
    found = []
    for name in dict.fromkeys(name for values in flat.values() for name in values):
        values = {run: mine.get(name) for run, mine in flat.items()}
        # The folder of the run differs by its nature.
        if name != "settings.run" and len(set(map(repr, values.values()))) > 1:
            found.append(SettingChange(step=step, name=name, values=values))
    return found


def flatten(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Return nested mappings as one, with dots between the names; what is None or empty is left out."""
    found: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flatten(value, f"{prefix}{name}.")
        elif value not in (None, "", [], ()):
            found[f"{prefix}{name}"] = value
    return found


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
        kept = {run: CardRow.model_validate({name: row[name] for name in KEPT}) for run, row in rows.items()}
        changed = len({row.verdict for row in rows.values()}) > 1
        found.append(
            VerdictChange(target=target, method=method, layer=layer, score=score, runs=kept, changed=changed)
        )
    return sorted(found, key=lambda row: not row.changed)


def same_pictures(parts: Mapping[str, Judged]) -> bool | None:
    """Whether results are of the same pictures by their hash; None where a record lacks it."""
    hashes = {part.record.data_sha256 if part.record else None for part in parts.values()}
    return None if None in hashes else len(hashes) == 1


def _key(row: CardRow) -> tuple[str, str, str | None, str]:
    return row.target, row.method, row.layer, row.score

"""Paired differences of scores over common pictures, with bootstrap intervals of the pictures.

A difference is always the run less the reference. The pictures are resampled, each with its scores in both
runs, so that what makes a picture hard for both cancels (Efron and Tibshirani 1993, chapter 8).
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seglens.evaluate.intervals import NOTHING, Interval, bounds, interval
from seglens.results.comparison import ScoreChange
from seglens.results.scores import SCORES, SURFACES, PictureScores
from seglens.shapes import PerImage

Counts = Float[Tensor, "n 3"]
"""Of each picture the pixels that are true, predicted, and both."""

LOWER_IS_BETTER = ("hd95",)
PER_IMAGE = (*SCORES, *SURFACES)
SAME, BETTER, WORSE, UNKNOWN = "no difference shown", "better", "worse", "not evaluable"

DEFINITIONS = {
    "difference": "The run's score less the reference's, on the same pictures.",
    "interval": "95 % interval of the mean difference: 2000 resamples of the pictures, each with its scores "
    "in both runs (paired percentile bootstrap). It covers the choice of the test pictures, not that of the "
    "training seed: a second training with the same settings would differ too.",
    "better": "The whole interval lies on the better side of 0 (of hd95 the lower one).",
    "worse": "The whole interval lies on the worse side of 0.",
    "no difference shown": "The interval holds 0. That doesn't show that there is no difference. Of 20 "
    "scores without any difference, one is expected to miss 0 by chance.",
    "pooled": "All pixels of the common pictures together, so that large objects weigh more; only of two "
    "classes.",
}


def paired(reference: PerImage, other: PerImage, *, seed: int = 0) -> Interval:
    """Return the mean of ``other - reference`` over pictures where both are numbers, with its interval."""
    difference = other.double() - reference.double()
    return interval(difference.masked_fill(~difference.isfinite(), torch.nan), seed=seed)


def column(rows: Sequence[PictureScores], name: str) -> PerImage:
    """Return one number a row, NaN where there is none."""
    values = [row[name] for row in rows]
    known = [float("nan") if value is None else value for value in values]
    return torch.tensor(known, dtype=torch.float64)


def score_rows(
    reference: Sequence[PictureScores], other: Sequence[PictureScores], classes: int, *, seed: int = 0
) -> list[ScoreChange]:
    """Return a row for each score: both values on the common pictures, the difference and its verdict."""
    found = [_per_image(name, column(reference, name), column(other, name), seed) for name in PER_IMAGE]
    if classes == 2:
        before, after = _counts(reference), _counts(other)
        found += [_pooled(name, before, after, seed) for name in POOLED]
    return [row for row in found if row.num]


def verdict(score: str, found: Interval) -> str:
    """Say on which side of 0 the interval of a difference lies."""
    if found.num < 2 or found.low != found.low:
        return UNKNOWN
    if found.low <= 0 <= found.high:
        return SAME
    return BETTER if (found.low > 0) != (score in LOWER_IS_BETTER) else WORSE


def _per_image(name: str, reference: PerImage, other: PerImage, seed: int) -> ScoreChange:
    found = paired(reference, other, seed=seed)
    both = reference.isfinite() & other.isfinite()
    gain = (other - reference)[both] * (-1 if name in LOWER_IS_BETTER else 1)
    means = [float(values[both].mean()) if found.num else None for values in (reference, other)]
    return _change(name, "per image", means, found, int((gain > 0).sum()), int((gain < 0).sum()))


def _pooled(name: str, reference: Counts, other: Counts, seed: int) -> ScoreChange:
    score = POOLED[name]
    values = [float(score(counts.sum(0))) for counts in (reference, other)]

    def difference(rows: Int[Tensor, "r m"]) -> Float[Tensor, " r"]:
        # A column at a time: all at once would hold six numbers for each picture of each resample.
        sums = [torch.stack([c[rows].sum(1) for c in counts.unbind(1)], -1) for counts in (reference, other)]
        return score(sums[1]) - score(sums[0])

    num = len(reference)
    low, high = bounds(num, difference, seed=seed) if num > 1 else (float("nan"), float("nan"))
    found = Interval(values[1] - values[0], low, high, num) if num else NOTHING
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


def _counts(rows: Sequence[PictureScores]) -> Counts:
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

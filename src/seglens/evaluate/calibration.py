"""Calibration: whether 80 % of the pixels with probability 0.8 are right; and the choice of a threshold.

Pixels are counted in bins, so that what is kept of a split is a few numbers, however large it is, and counts
of pictures are added. All of it is counted over valid pixels, pooled: large pictures weigh more.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from seglens.errors import SettingError
from seglens.files.output import new_file
from seglens.masks import is_stack, of_class
from seglens.shapes import AnyMask, Map, Mask, Region

NUM_BINS = 15
"""Bins between the probabilities 0 and 1, as in Guo et al. (2017, table 1)."""

STEPS = 1000
"""Thresholds are told apart to 1/1000."""

STRIP = 1 << 22
"""Pixels that are binned at once, so that large pictures don't need several times their memory."""

DEFINITIONS = {
    "ece": "How far the probabilities are off on average; 0 is best. Expected calibration error (Guo et "
    f"al. 2017, eq. 3): pixels are sorted into {NUM_BINS} bins by the probability of their most probable "
    "class. The error is the mean gap between the mean probability of a bin and the share of its pixels "
    "that are right. Large areas of easy background keep it small, so look at the curve, too.",
    "mce": "The largest gap of any bin, however few pixels it has. Maximum calibration error (Guo et al. "
    "2017, eq. 5).",
    "reliability": "Reliability curve: of the pixels that get about the same probability, how many are "
    "right? On the diagonal the model is right exactly as often as it says. Below the diagonal it is too "
    "sure, above it not sure enough. With two classes the probability is that of the foreground, with "
    "more that of the most probable class.",
    "threshold": "The threshold that the training chose: the one with the highest Dice over all pixels "
    "of the split together. Of several that are equally good it takes the middle one.",
}
"""Each figure in plain words, for reports."""


@dataclass(frozen=True)
class Bins:
    """Pixels by the probability that a claim about them holds: how many, how probable, how many times true.

    ``pixels`` and ``true`` are counts, ``probability`` the sum of the probabilities, per bin m of M, which
    holds the probabilities in ``(m / M, (m + 1) / M]``, the first 0 too (Guo et al. 2017, section 2).
    """

    pixels: Int[Tensor, " bins"]
    probability: Float[Tensor, " bins"]
    true: Int[Tensor, " bins"]

    def __add__(self, other: "Bins") -> "Bins":
        return Bins(self.pixels + other.pixels, self.probability + other.probability, self.true + other.true)

    def error(self) -> float:
        """Return ``sum_m n_m / n |share true - mean probability|``, NaN without pixels."""
        gaps = (self.true - self.probability).abs()
        return float(gaps.sum() / self.pixels.sum())

    def maximum_error(self) -> float:
        """Return the largest ``|share true - mean probability|`` of the bins with pixels, NaN without any."""
        held = self.pixels > 0
        gaps = ((self.true - self.probability).abs() / self.pixels)[held]
        return float(gaps.max()) if len(gaps) else math.nan

    def rows(self) -> list[dict[str, float]]:
        """Return a row a bin: ``low high probability share pixels``; the middle two are NaN in empty ones.

        ``probability`` is the mean probability in the bin, ``share`` the share of its pixels where the
        claim was true.
        """
        num = len(self.pixels)
        table = zip(
            (self.probability / self.pixels).tolist(),
            (self.true.double() / self.pixels).tolist(),
            self.pixels.tolist(),
            strict=True,
        )
        return [
            {"low": m / num, "high": (m + 1) / num, "probability": mean, "share": share, "pixels": pixels}
            for m, (mean, share, pixels) in enumerate(table)
        ]


@dataclass(frozen=True)
class Calibration:
    """Counts of a picture, or of several added up.

    ``top`` is about the most probable class: is it the true one? ``foreground``, with two classes, about the
    probability of the foreground: is it foreground? With more classes it is None. Where classes may overlap,
    each label is such a question of its own, with yes and no as its two classes, and all are pooled.
    """

    top: Bins
    foreground: Bins | None

    def __add__(self, other: "Calibration") -> "Calibration":
        if self.foreground is None or other.foreground is None:
            return Calibration(self.top + other.top, None)
        return Calibration(self.top + other.top, self.foreground + other.foreground)

    def error(self) -> float:
        """Return the expected calibration error of the most probable class, NaN without pixels."""
        return self.top.error()

    def maximum_error(self) -> float:
        """Return the largest gap of any bin of the most probable class, NaN without pixels."""
        return self.top.maximum_error()

    def rows(self) -> list[dict[str, float]]:
        """Return the bins of the most probable class as plain data, as `Bins.rows` does."""
        return self.top.rows()


def count_bins(probabilities: Float[Tensor, "classes *size"], truth: AnyMask, valid: Region) -> Calibration:
    """Count one picture's valid pixels; the background is class 0.

    The most probable class is the first of the largest, also where a run's mask comes from a threshold.
    """
    if is_stack(truth):
        asked = range(1, len(probabilities))
        each = (
            _yes_or_no(probabilities[index], of_class(truth, index, valid.ndim), valid) for index in asked
        )
        first, *others = each
        return sum(others, start=first)
    rows = max(1, STRIP // truth.shape[1])
    strips = zip(
        probabilities.cpu().split(rows, dim=1), truth.cpu().split(rows), valid.cpu().split(rows), strict=True
    )
    first, *others = (_count(*strip) for strip in strips)
    return sum(others, start=first)


def _yes_or_no(probability: Map, true: Region, valid: Region) -> Calibration:
    return count_bins(torch.stack([1 - probability, probability]), true.long(), valid)


def _count(probabilities: Float[Tensor, "classes *size"], truth: Mask, valid: Region) -> Calibration:
    # Taking pixels out costs more than all the counting: not done where every pixel is valid.
    whole = bool(valid.all())
    kept, true = (
        (probabilities.flatten(1), truth.flatten()) if whole else (probabilities[:, valid], truth[valid])
    )
    confidence, best = _largest(kept)
    two = len(kept) == 2
    return Calibration(_bins(confidence, best == true), _bins(kept[1], true == 1) if two else None)


def _largest(kept: Float[Tensor, "classes n"]) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"]]:
    """Return the largest of the classes and the first that has it: ``max(dim=0)``, several times as fast."""
    largest, best = kept[0], torch.zeros_like(kept[0], dtype=torch.int64)
    for index, values in enumerate(kept[1:], start=1):
        best = best.masked_fill(values > largest, index)
        largest = torch.maximum(largest, values)
    return largest, best


def _bins(probability: Float[Tensor, " n"], true: Bool[Tensor, " n"]) -> Bins:
    exact = probability.double()
    index = (exact * NUM_BINS).ceil_().sub_(1).clamp_(0, NUM_BINS - 1).long()
    # Without pixels torch gives the sum as integers.
    total = torch.bincount(index, weights=exact, minlength=NUM_BINS).double()
    wrong, held = torch.bincount(index.add_(true, alpha=NUM_BINS), minlength=2 * NUM_BINS).view(2, NUM_BINS)
    return Bins(wrong + held, total, held)


@dataclass(frozen=True)
class Thresholds:
    """Valid pixels by the probability of the foreground, in 1000 steps: all of them, and the true foreground.

    Step k holds the probabilities in ``[k / 1000, (k + 1) / 1000)``, the last also 1, so that the pixels from
    step k on are those that the threshold k / 1000 makes foreground.
    """

    pixels: Int[Tensor, " steps"]
    true: Int[Tensor, " steps"]

    def __add__(self, other: "Thresholds") -> "Thresholds":
        return Thresholds(self.pixels + other.pixels, self.true + other.true)

    def curve(self) -> Float[Tensor, " steps"]:
        """Return the pooled foreground Dice ``2TP / (2TP + FP + FN)`` at each threshold k / 1000.

        NaN where no pixel is truly foreground: there is nothing to find.
        """
        hits, predicted = (counts.flip(0).cumsum(0).flip(0) for counts in (self.true, self.pixels))
        total = int(self.true.sum())
        return 2.0 * hits.double() / (predicted + total) if total else torch.full((STEPS,), math.nan)

    def dice(self, threshold: float) -> float:
        """Return the pooled Dice at ``threshold``, taken to the nearest 1/1000; NaN without true foreground.

        Raises:
            SettingError: the threshold is not between 0 and 1.
        """
        if not 0 < threshold < 1:
            raise SettingError(f"The threshold is {threshold}, allowed is any number between 0 and 1.")
        return float(self.curve()[min(round(threshold * STEPS), STEPS - 1)])

    def best(self) -> tuple[float, float]:
        """Return the best threshold, of 0.001 to 0.999, and the pooled Dice there.

        Of thresholds with the same Dice the middle of the longest run is taken (the first of equally long
        ones, the upper of two middles): farthest from where the answer would change. Without true
        foreground nothing can be chosen: 0.5 and NaN.
        """
        curve = self.curve()
        if bool(curve.isnan().all()):
            return 0.5, math.nan
        first, last = _longest_run(curve[1:] == curve[1:].max())
        middle = (first + last + 1) // 2 + 1
        return middle / STEPS, float(curve[middle])


def count_thresholds(probability: Map, truth: Mask, valid: Region) -> Thresholds:
    """Count one picture's valid pixels by the ``probability`` of the foreground, class 1 of ``truth``.

    A pixel is in step k as a comparison ``probability >= k / 1000`` in the tensor's own precision has it.
    """
    # Thresholds are rounded to the precision of the probabilities, as a comparison of the two does.
    edges = (torch.arange(1, STEPS, dtype=torch.float64) / STEPS).to(probability.dtype)
    counts = torch.zeros(2, STEPS, dtype=torch.int64)
    rows = max(1, STRIP // truth.shape[1])
    for strip, true, known in zip(
        probability.cpu().split(rows), truth.cpu().split(rows), valid.cpu().split(rows), strict=True
    ):
        step = torch.bucketize(strip[known], edges, right=True)
        counts[0] += torch.bincount(step, minlength=STEPS)
        counts[1] += torch.bincount(step[true[known] == 1], minlength=STEPS)
    return Thresholds(counts[0], counts[1])


def _longest_run(flags: Bool[Tensor, " n"]) -> tuple[int, int]:
    """Return the first and the last index of the longest run of true flags; there is at least one."""
    where = flags.nonzero()[:, 0].tolist()
    starts = [index for index in where if index == 0 or not flags[index - 1]]
    ends = [index for index in where if index == len(flags) - 1 or not flags[index + 1]]
    return max(zip(starts, ends, strict=True), key=lambda run: run[1] - run[0])


def reliability_plot(calibration: Calibration, file: Path) -> None:
    """Draw the reliability curve, and below it how many pixels each of its points stands for, to ``file``."""
    # Figure without pyplot: no window system, and no state that outlives the call.
    from matplotlib.figure import Figure

    foreground = calibration.foreground
    bins = calibration.top if foreground is None else foreground
    rows = [row for row in bins.rows() if row["pixels"]]
    if foreground is None:
        promise, kept = (
            "probability of the most probable class",
            "share of those pixels that are of that class",
        )
    else:
        promise, kept = "probability of foreground", "share of those pixels that are foreground"

    figure = Figure(figsize=(5.2, 6.4), layout="constrained")
    curve, share = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    curve.set_title(
        # Above the drawing: inside of it a curve may lie anywhere.
        f"Expected calibration error: {calibration.error():.3f} (most probable class)\n"
        "below the dashed line: too sure; above it: not sure enough",
        fontsize=9,
    )
    curve.plot([0, 1], [0, 1], color="0.5", linestyle="--", linewidth=1, label="ideal")
    curve.plot(
        [row["probability"] for row in rows],
        [row["share"] for row in rows],
        marker="o",
        markersize=4,
        clip_on=False,
        zorder=3,
        label="this model",
    )
    curve.fill_between([0, 1], [0, 1], color="tab:red", alpha=0.06, linewidth=0)
    curve.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    curve.set_ylabel(kept)
    curve.legend(fontsize=8, loc="best")
    share.bar(
        [row["low"] for row in rows],
        [100 * row["pixels"] / int(bins.pixels.sum()) for row in rows],
        width=1 / NUM_BINS,
        align="edge",
        edgecolor="white",
    )
    share.set_ylabel("% of pixels")
    share.set_xlabel(f"{promise} that the model promises")
    if rows:  # An axis without data has no logarithm.
        share.set_yscale("log")
        share.yaxis.set_major_formatter("{x:g}")
    for axes in (curve, share):
        axes.grid(alpha=0.3)
    with new_file(file, force=True) as temporary:
        figure.savefig(temporary, dpi=120)

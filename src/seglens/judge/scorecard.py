"""The scorecard: every score of every map next to what maps that know nothing about the model would get.

There is no composite number. The verdict of a score that has reference rows is by one rule (`verdict_of`).
"""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from seglens.intervals import NOTHING, Interval, interval
from seglens.judge.localisation import AttentionRow
from seglens.outputs import table_cell
from seglens.shapes import PerImage

Verdict = Literal["pass", "warn", "fail", "not evaluable", "reference"]
"""``reference`` stands on the rows of content-free maps: they are what others are compared with."""

MIN_IMAGES = 8
"""Fewer evaluable images than this get no verdict: a bootstrap over them is too narrow to be trusted."""

CLAIM_IMAGES = 100
"""Fewer than this give an indication, not a claim, and the row says so."""

COMPLETE = 0.05
"""Relative error of Integrated Gradients' completeness that is still called complete."""

NULL = "null:"
"""What the method of a reference row begins with."""

DEFINITIONS = {
    "faithfulness": "Faithfulness (ROAD, Rong et al. 2022): 16 x 16 cells are removed by noisy linear "
    "imputation in the order of the map. Mean over the removed fractions .1 to .9 of (score with the least "
    "relevant cells removed - score with the most relevant removed) / (score of the picture - score of the "
    "blurred picture); the score is the mean class probability over the frozen region. 0 is an order that "
    "knows nothing. An image is evaluable where blurring takes more than .1 from its score.",
    "attention": "Attention: log2 of the share of the map's mass inside the region over the region's share "
    "of the area. Circular, because the region is what was explained: never a pass. A map at the level of "
    "its mirror (the region itself, pooled to the map's grid) restates the prediction.",
    "completeness": "Completeness of Integrated Gradients: |sum of the attributions - (score of the picture "
    "- score of the baseline)| over the size of that difference. An identity of the method, so it has a "
    f"tolerance ({COMPLETE:.0%}) instead of a reference row; images whose difference of scores is too small "
    "are left out.",
    "verdict": "pass: the lower 95 % bound of the paired difference (map - best reference row) is above 0; "
    f"fail: the upper bound is below 0; else warn. Fewer than {MIN_IMAGES} evaluable images: not evaluable; "
    f"fewer than {CLAIM_IMAGES}: an indication, not a claim.",
    "interval": "Intervals are 95 % percentile bootstrap intervals over images, paired where two maps are "
    "compared. They don't cover training the model again.",
    "references": "Reference rows: random, centre blob, edges (Sobel), mirrors of the prediction (pooled at "
    "1, 4, 16 and 32 pixels), distance to the region's edge, the probability map. None of them knows how the "
    "model works.",
}
"""Every score and rule in plain words, for reports."""


@dataclass(frozen=True)
class Judgement:
    """One score of one map.

    ``interval`` holds the mean over the evaluable images and its bounds, ``difference`` the paired difference
    to ``reference``; ``nulls`` are the means of all that the map is to be seen next to, on the same images.
    """

    target: str
    method: str
    layer: str | None
    score: str
    interval: Interval
    verdict: Verdict
    reason: str
    num_total: int
    nulls: Mapping[str, float]
    reference: str = ""
    difference: Interval = NOTHING

    @property
    def value(self) -> float:
        """The mean over the evaluable images."""
        return self.interval.mean

    @property
    def num_evaluable(self) -> int:
        """How many images the value is the mean of."""
        return self.interval.num

    @property
    def text(self) -> str:
        """The row as one line: value, interval, what it was compared with, verdict and reason."""
        name = self.method if self.layer is None else f"{self.method}@{self.layer}"
        on = f"on {self.num_evaluable} of {self.num_total} images"
        parts = [f"{name}: {self.score} {_spell(self.interval)} {on}"]
        if self.reference in self.nulls:
            known = f"{self.reference} ({self.nulls[self.reference]:.3g})"
            parts.append(f"{_spell(self.difference)} against {known}")
        elif self.reference:
            parts.append(f"against {self.reference}")
        parts.append(f"{self.verdict}: {self.reason}" if self.reason else self.verdict)
        return "; ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Return the row as plain data, intervals spread out into numbers."""
        return {
            "target": self.target,
            "method": self.method,
            "layer": self.layer,
            "score": self.score,
            "value": self.interval.mean,
            "low": self.interval.low,
            "high": self.interval.high,
            "reference": self.reference,
            "difference": self.difference.mean,
            "difference_low": self.difference.low,
            "difference_high": self.difference.high,
            "verdict": self.verdict,
            "reason": self.reason,
            "num_evaluable": self.num_evaluable,
            "num_total": self.num_total,
            "nulls": dict(self.nulls),
            "text": self.text,
        }


@dataclass(frozen=True)
class Scorecard:
    """All judgements of one set of images."""

    rows: tuple[Judgement, ...]
    num_images: int

    def to_json(self) -> dict[str, Any]:
        """Return the card as plain data, each row with its line of text, and the definitions."""
        rows = [row.to_json() for row in self.rows]
        return {"num_images": self.num_images, "rows": rows, "definitions": DEFINITIONS}

    def to_csv(self) -> str:
        """Return the card as comma-separated values, one column per null; missing numbers are empty.

        Text that a spreadsheet would take for a formula gets an apostrophe in front: a map is called whatever
        its author called it.
        """
        rows = [row.to_json() for row in self.rows]
        nulls = list(dict.fromkeys(name for row in rows for name in row["nulls"]))
        plain = [name for name in (rows[0] if rows else {}) if name not in ("nulls", "text")]
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([*plain, *(f"{NULL}{name}" for name in nulls)])
        for row in rows:
            values = [row[name] for name in plain] + [row["nulls"].get(name) for name in nulls]
            writer.writerow([table_cell(value) for value in values])
        return out.getvalue()

    def __str__(self) -> str:
        return "\n".join(row.text for row in self.rows)


def verdict_of(difference: Interval) -> tuple[Verdict, str]:
    """Judge a paired difference to the best reference row, and say why.

    ``pass`` where the lower 95 % bound is above 0, ``fail`` where the upper one is below 0, else ``warn``.
    """
    if difference.num < MIN_IMAGES:
        return "not evaluable", _too_few(difference.num)
    few = "" if difference.num >= CLAIM_IMAGES else f"; an indication, a claim needs {CLAIM_IMAGES} images"
    if difference.low > 0:
        return "pass", f"better than the best reference row{few}"
    if difference.high < 0:
        return "fail", f"worse than the best reference row{few}"
    return "warn", f"not shown to differ from the best reference row{few}"


def faithfulness_rows(
    target: str,
    maps: Mapping[tuple[str, str | None], PerImage],
    references: Mapping[str, PerImage],
    *,
    seed: int,
) -> list[Judgement]:
    """Compare the faithfulness of every map with the best reference row, and list the reference rows as well.

    A map and the reference rows are averaged over the images where all of them are evaluable (not NaN).
    """
    rows = []
    for (method, layer), values in maps.items():
        shared = ~torch.stack([values, *references.values()]).isnan().any(0)
        means = {name: float(other[shared].mean()) for name, other in references.items()}
        best = max(means, key=lambda name: means[name])
        apart = interval((values - references[best])[shared], seed=seed)
        verdict, reason = verdict_of(apart)
        rows.append(
            Judgement(
                target=target,
                method=method,
                layer=layer,
                score="faithfulness",
                interval=interval(values[shared], seed=seed),
                verdict=verdict,
                reason=reason,
                num_total=len(values),
                nulls=means,
                reference=best if apart.num else "",
                difference=apart,
            )
        )
    for name, values in references.items():
        rows.append(
            Judgement(
                target=target,
                method=NULL + name,
                layer=None,
                score="faithfulness",
                interval=interval(values, seed=seed),
                verdict="reference",
                reason="a content-free map",
                num_total=len(values),
                nulls={},
            )
        )
    return rows


def attention_row(row: AttentionRow) -> Judgement:
    """Turn a row of the attention table into a judgement: a warning at best, see `localisation`."""
    level = "enrichment_log2"
    found = row.statistics[level]
    verdict: Verdict = "warn"
    reason = "where the heat lies is not what the model uses: no pass by this score"
    if row.label:
        reason = f"{row.label}: the region itself, pooled to this grid, does as well or looks alike"
    if found.num < MIN_IMAGES:
        verdict, reason = "not evaluable", _too_few(found.num)
    return Judgement(
        target=row.target,
        method=row.method,
        layer=row.layer,
        score="attention",
        interval=found,
        verdict=verdict,
        reason=reason,
        num_total=row.num_total,
        nulls={name: values[level].mean for name, values in row.nulls.items()},
        reference="mirror",
        difference=row.difference,
    )


def completeness_row(
    target: str, method: str, layer: str | None, error: PerImage, small_denominator: PerImage, *, seed: int
) -> Judgement:
    """Hold the relative error of completeness against `COMPLETE`; flagged images are left out and counted."""
    flagged = small_denominator > 0
    found = interval(error.masked_fill(flagged, torch.nan), seed=seed)
    out = f"{int(flagged.sum())} images left out: their score is hardly the baseline's"
    reasons = [out] if bool(flagged.any()) else []
    verdict: Verdict = "warn"
    if found.num < MIN_IMAGES:
        verdict, reasons = "not evaluable", [_too_few(found.num), *reasons]
    elif found.high <= COMPLETE:
        verdict = "pass"
    elif found.low > COMPLETE:
        verdict = "fail"
    return Judgement(
        target=target,
        method=method,
        layer=layer,
        score="completeness",
        interval=found,
        verdict=verdict,
        reason="; ".join(reasons),
        num_total=len(error),
        nulls={},
        reference=f"a tolerance of {COMPLETE:g}",
    )


def _too_few(num: int) -> str:
    return f"{num} evaluable images, at least {MIN_IMAGES} are needed"


def _spell(found: Interval) -> str:
    return f"{found.mean:.3g} [{found.low:.3g}, {found.high:.3g}]"

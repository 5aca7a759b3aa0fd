"""The scorecard: every score of every map next to what maps that know nothing about the model would get.

There is no composite number. How a verdict comes about is in `verdicts`.
"""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from seglens.intervals import NOTHING, Interval
from seglens.judge.definitions import DEFINITIONS
from seglens.judge.nulls import NULL
from seglens.outputs import table_cell

Verdict = Literal["pass", "warn", "fail", "not evaluable", "reference"]
"""``reference`` stands on the rows of content-free maps: they are what others are compared with."""


@dataclass(frozen=True)
class Judgement:
    """One score of one map.

    ``interval`` holds the mean over the evaluable images and its bounds, ``difference`` the paired difference
    to ``reference``; ``nulls`` are the means of all that the map is to be seen next to, on the same images.
    ``details`` are numbers that belong to the score (the model's context reliance, the ceiling of agreement,
    the attention ratio), and ``label`` is "restates the prediction" or empty.
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
    details: Mapping[str, Interval] = field(default_factory=dict)
    label: str = ""

    def saying(self, more: str) -> "Judgement":
        """Return the row with more of a reason."""
        return replace(self, reason=f"{self.reason}; {more}" if self.reason else more)

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
        told = [f"{name} {found.mean:.3g}" for name, found in self.details.items() if found.num]
        parts += [", ".join(told)] if told else []
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
            "details": {name: found.to_json() for name, found in self.details.items()},
            "label": self.label,
            "text": self.text,
        }


@dataclass(frozen=True)
class Scorecard:
    """All judgements of one set of images, and the numbers of its figures as plain data."""

    rows: tuple[Judgement, ...]
    num_images: int
    figures: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the card as plain data, each row with its line of text, and the definitions."""
        rows = [row.to_json() for row in self.rows]
        plain = {"num_images": self.num_images, "rows": rows, "definitions": DEFINITIONS}
        return plain | {"figures": dict(self.figures)}

    def to_csv(self) -> str:
        """Return the card as comma-separated values, a column per null and detail; missing numbers are empty.

        Text that a spreadsheet would take for a formula gets an apostrophe in front: a map is called whatever
        its author called it.
        """
        rows = [row.to_json() for row in self.rows]
        nulls = list(dict.fromkeys(name for row in rows for name in row["nulls"]))
        details = list(dict.fromkeys(name for row in rows for name in row["details"]))
        plain = [name for name in (rows[0] if rows else {}) if name not in ("nulls", "details", "text")]
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([*plain, *details, *(f"{NULL}{name}" for name in nulls)])
        for row in rows:
            values = [row[name] for name in plain]
            values += [row["details"].get(name, {}).get("mean") for name in details]
            values += [row["nulls"].get(name) for name in nulls]
            writer.writerow([table_cell(value) for value in values])
        return out.getvalue()

    def __str__(self) -> str:
        return "\n".join(row.text for row in self.rows)


def _spell(found: Interval) -> str:
    return f"{found.mean:.3g} [{found.low:.3g}, {found.high:.3g}]"

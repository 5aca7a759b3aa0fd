"""The scorecard: every score of every map next to what maps that know nothing about the model would get.

There is no composite number. How a verdict comes about is in `verdicts`.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from seglens.drawing.notebook import card, data_frame, table
from seglens.evaluate.intervals import NOTHING, Interval
from seglens.files.output import table_cell
from seglens.judge.case import Outcome
from seglens.judge.definitions import DEFINITIONS
from seglens.models.layers import ROLES
from seglens.results.names import MARKS, NULL, Verdict, count, formatted, label_in_words, map_name
from seglens.results.recommendation import recommend
from seglens.results.scorecard import Card, CardRow, Figures, LayerByLayer, LayerStep


@dataclass(frozen=True)
class Judgement:
    """One score of one map.

    ``interval`` holds the mean over the evaluable images and its bounds, ``difference`` the paired difference
    to ``reference``; ``nulls`` are the means of all that the map is to be seen next to, on the same images.
    ``details`` are numbers that belong to the score (the model's context reliance, the ceiling of agreement,
    the attention ratio), and ``label`` is "restates the prediction" or empty. ``outcome`` is what ``verdict``
    and ``reason`` say, for programs.
    """

    target: str
    method: str
    layer: str | None
    score: str
    interval: Interval
    verdict: Verdict
    outcome: Outcome
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
        name = map_name(self.method, self.layer)
        on = f"on {self.num_evaluable} of {count(self.num_total, 'image')}"
        parts = [f"{name}: {self.score} {_spell(self.interval)} {on}"]
        if self.reference in self.nulls:
            known = f"{self.reference} ({self.nulls[self.reference]:.3g})"
            parts.append(f"{_spell(self.difference)} against {known}")
        elif self.reference:
            parts.append(f"against {self.reference}")
        numbers = [self._detail(name, found) for name, found in self.details.items() if found.num]
        parts += [", ".join(numbers)] if numbers else []
        parts.append(f"{self.verdict}: {self.reason}" if self.reason else self.verdict)
        return "; ".join(parts)

    def _detail(self, name: str, found: Interval) -> str:
        """A number that belongs to the score, and of how many images where that is another number."""
        counted = "" if found.num == self.num_evaluable else f" (on {found.num})"
        return f"{name} {found.mean:.3g}{counted}"

    def row(self) -> CardRow:
        """Return the row as it stands in ``scorecard.json``, intervals spread out into numbers."""
        return CardRow(
            target=self.target,
            method=self.method,
            layer=self.layer,
            score=self.score,
            value=self.interval.mean,
            low=self.interval.low,
            high=self.interval.high,
            reference=self.reference,
            difference=self.difference.mean,
            difference_low=self.difference.low,
            difference_high=self.difference.high,
            verdict=self.verdict,
            outcome=self.outcome,
            reason=self.reason,
            num_evaluable=self.num_evaluable,
            num_total=self.num_total,
            nulls=dict(self.nulls),
            details={name: found.spread() for name, found in self.details.items()},
            label=self.label,
            text=self.text,
        )


def _spell(found: Interval) -> str:
    return f"{found.mean:.3g} [{found.low:.3g}, {found.high:.3g}]"


if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Scorecard:
    """All judgements of one set of images, and the numbers of its figures as plain data.

    ``left_out`` are the scores that were not asked for, ``passes`` the changed copies of pictures that went
    through the model for each score that removes something. Of volumes ``dims`` is 3.
    """

    rows: tuple[Judgement, ...]
    num_images: int
    figures: Figures = field(default_factory=Figures)
    left_out: tuple[str, ...] = ()
    passes: Mapping[str, int] = field(default_factory=dict)
    dims: int = 2

    @property
    def restating(self) -> list[LayerByLayer]:
        """From which layer on each method only repeats the prediction, where attention was measured."""
        return layer_by_layer(self.rows)

    @property
    def table(self) -> Card:
        """The card as it stands in ``scorecard.json``."""
        rows = tuple(row.row() for row in self.rows)
        return Card(
            num_images=self.num_images,
            dims=self.dims,
            rows=rows,
            restating=tuple(self.restating),
            left_out=self.left_out,
            passes=self.passes,
            recommendation=recommend(rows, self.left_out, self.dims),
            definitions=DEFINITIONS,
            figures=self.figures,
        )

    def to_json(self) -> dict[str, object]:
        """Return the card as plain data, each row with its line of text, and the definitions."""
        return self.table.plain()

    def to_csv(self) -> str:
        """Return the card as comma-separated values, a column per null and detail; missing numbers are empty.

        Text that a spreadsheet would take for a formula gets an apostrophe in front: a map is called whatever
        its author called it.
        """
        rows = self._flat()
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(map(table_cell, rows[0] if rows else {}))
        writer.writerows([[table_cell(value) for value in row.values()] for row in rows])
        return out.getvalue()

    def to_pandas(self) -> "pandas.DataFrame":
        """Return the rows as a table, with the columns of `to_csv`."""
        return data_frame(self._flat())

    def _flat(self) -> list[dict[str, object]]:
        """Every row as plain values, all with the same names."""
        rows = [row.row() for row in self.rows]
        since = {entry.method: entry.restates_from for entry in self.restating}
        nulls = list(dict.fromkeys(name for row in rows for name in row.nulls))
        details = list(dict.fromkeys(name for row in rows for name in row.details))
        return [
            row.model_dump(exclude={"nulls", "details", "text"})
            | {"restates_from": since.get(row.method)}
            | {name: row.details[name].mean if name in row.details else None for name in details}
            | {f"{NULL}{name}": row.nulls.get(name) for name in nulls}
            for row in rows
        ]

    def _repr_html_(self) -> str:
        """Show in a notebook every score beside what it is compared with; all of a row on pointing at it."""
        rows = [
            (
                map_name(row.method, row.layer),
                row.score.replace("_", " "),
                _in_table(row.interval),
                f"{_in_table(row.difference)} to {row.reference}" if row.difference.num else row.reference,
                f"{row.num_evaluable} of {row.num_total}",
                f"{MARKS[row.verdict]} {row.verdict}"
                + (f", {label_in_words(row.label)}" if row.label else ""),
            )
            for row in self.rows
        ]
        heads = ("map", "score", "value [95 %]", "difference [95 %]", "images", "verdict")
        body = table(heads, rows, hints=[row.text for row in self.rows])
        return card(f"Scorecard of {count(self.num_images, 'image')}", body)

    def __str__(self) -> str:
        return "\n".join(row.text for row in self.rows)


def _in_table(found: Interval) -> str:
    return f"{formatted(found.mean)} [{formatted(found.low)}, {formatted(found.high)}]" if found.num else "—"


def layer_by_layer(rows: Sequence[Judgement]) -> list[LayerByLayer]:
    """Return from which layer on each method only repeats the prediction, by the labels of attention.

    Layers are taken from the input to the output where all of them go by their roles (`models.layers.ROLES`),
    else in the order in which they were asked for. Methods without layers are left out, and so are maps that
    no image could be measured of.
    """
    steps: dict[str, list[LayerStep]] = {}
    for row in rows:
        if row.score == "attention" and row.layer is not None and row.interval.num:
            steps.setdefault(row.method, []).append(
                LayerStep(
                    layer=row.layer,
                    ratio=row.details["ratio"].spread(),
                    ratio_of_mirror=row.details["ratio_of_mirror"].spread(),
                    resemblance_to_mirror=row.details["resemblance_to_mirror"].spread(),
                    restates=bool(row.label),
                )
            )
    return [
        LayerByLayer(method=method, restates_from=_since(found), layers=tuple(found))
        for method, found in ((method, in_order(each)) for method, each in steps.items())
    ]


def _since(steps: Sequence[LayerStep]) -> str | None:
    """Return the first layer from which on every map is labelled; None where the last one isn't."""
    found = None
    for step in reversed(steps):
        if not step.restates:
            break
        found = step.layer
    return found


def in_order(steps: Sequence[LayerStep]) -> Sequence[LayerStep]:
    """Order steps from the input to the output where their layers are roles, or leave them as they are."""
    if any(step.layer not in ROLES for step in steps):
        return steps
    return sorted(steps, key=lambda step: ROLES.index(step.layer))

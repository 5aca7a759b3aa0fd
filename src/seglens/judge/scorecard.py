"""The scorecard: every score of every map next to what maps that know nothing about the model would get.

There is no composite number. How a verdict comes about is in `verdicts`.
"""

import csv
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from seglens.drawing.notebook import card, data_frame, table
from seglens.evaluate.intervals import Interval
from seglens.files.output import table_cell
from seglens.judge.definitions import DEFINITIONS
from seglens.judge.judgement import Judgement
from seglens.judge.layer_by_layer import layer_by_layer
from seglens.results.names import MARKS, NULL, formatted, map_name
from seglens.results.scorecard import Card, Figures, LayerByLayer

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Scorecard:
    """All judgements of one set of images, and the numbers of its figures as plain data.

    ``left_out`` are the scores that were not asked for.
    """

    rows: tuple[Judgement, ...]
    num_images: int
    figures: Figures = field(default_factory=Figures)
    left_out: tuple[str, ...] = ()

    @property
    def restating(self) -> list[LayerByLayer]:
        """From which layer on each method only restates the prediction, where attention was measured."""
        return layer_by_layer(self.rows)

    @property
    def table(self) -> Card:
        """The card as it stands in ``scorecard.json``."""
        return Card(
            num_images=self.num_images,
            rows=tuple(row.row() for row in self.rows),
            restating=tuple(self.restating),
            left_out=self.left_out,
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
                _spell(row.interval),
                f"{_spell(row.difference)} to {row.reference}" if row.difference.num else row.reference,
                f"{row.num_evaluable} of {row.num_total}",
                f"{MARKS[row.verdict]} {row.verdict}" + (f", {row.label}" if row.label else ""),
            )
            for row in self.rows
        ]
        heads = ("map", "score", "value [95 %]", "difference [95 %]", "images", "verdict")
        body = table(heads, rows, hints=[row.text for row in self.rows])
        return card(f"Scorecard of {self.num_images} images", body)

    def __str__(self) -> str:
        return "\n".join(row.text for row in self.rows)


def _spell(found: Interval) -> str:
    return f"{formatted(found.mean)} [{formatted(found.low)}, {formatted(found.high)}]" if found.num else "—"

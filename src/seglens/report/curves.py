"""The curves behind the scorecard: what the answer loses while cells go, what a map keeps of a model."""

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from seglens.report import figures
from seglens.report.contents import RunContents
from seglens.report.figures import Series
from seglens.results.names import NULL
from seglens.results.scorecard import Card, Cascade, RemovalCurves

REMOVAL = ("faithfulness", "context_faithfulness")
"""Scores that remove cells in the order of a map."""

MOST = 24
"""Charts for one score: a page with more of them is read by nobody."""


def by_score(runs: Sequence[RunContents]) -> dict[str, list[Markup]]:
    """Return the charts of each score, one for each map that was judged, the first `MOST` of them.

    A map that removes cells is drawn with the reference that its verdict names: solid while what is ranked
    first goes first, dashed while what is ranked last does. The model dependence is drawn over the share of
    modules that have been randomised.
    """
    charts: dict[str, list[Markup]] = {}
    for run in runs:
        before = f"{run.name}, " if len(runs) > 1 else ""
        for part in run.scorecards:
            for score, name, lines in _removals(part.table):
                charts.setdefault(score, []).append(
                    figures.line_chart(
                        f"{before}{name}",
                        lines,
                        y_label="score of the frozen region",
                        x_label="share of cells removed",
                        whole=False,
                    )
                )
            lines = _cascade(part.table.figures.cascade)
            if lines:
                charts.setdefault("model_dependence", []).append(
                    figures.line_chart(
                        f"{before}while the network is randomised, output first",
                        lines,
                        y_label="|rank correlation| with the trained model's map",
                        x_label="share of the modules randomised",
                        whole=False,
                    )
                )
    return {score: found[:MOST] for score, found in charts.items()}


def _removals(card: Card) -> Iterator[tuple[str, str, list[Series]]]:
    """Yield score, map and the lines of its chart, in the order of the scorecard's rows."""
    shares, drawn = [0.0, *card.figures.fractions], card.figures
    for row in card.rows:
        found = drawn.removing(row.score, row.name)
        if row.score not in REMOVAL or row.verdict == "reference" or found is None:
            continue
        lines = _pair(row.name, found, shares, 0)
        reference = drawn.removing(row.score, f"{NULL}{row.reference}")
        if reference is not None:
            lines += _pair(f"{row.reference} (reference)", reference, shares, 1)
        yield row.score, row.name, lines


def _pair(name: str, curves: RemovalCurves, shares: Sequence[float], colour: int) -> list[Series]:
    both = (("most relevant", curves.most_first, False), ("least", curves.least_first, True))
    return [
        Series(f"{name}, {what} first", shares, [curves.full, *values], colour, dashed)
        for what, values, dashed in both
    ]


def _cascade(found: Cascade) -> list[Series]:
    """Return a line for each map; from the fifth on colours come again, dashed."""
    return [
        Series(
            name, found.share_of_modules, values, place % figures.NUM_COLOURS, place >= figures.NUM_COLOURS
        )
        for place, (name, values) in enumerate(found.maps.items())
        if place < 2 * figures.NUM_COLOURS
    ]

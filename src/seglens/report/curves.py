"""The curves behind the scorecard: what the answer loses while cells go, what a map keeps of a model."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from seglens.report import figures
from seglens.report.contents import RunContents
from seglens.report.figures import Series
from seglens.results.names import NULL

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
            drawn = part.table.get("figures") or {}
            rows = part.table.get("rows", [])
            for score, map_name, chart in _removals(drawn, rows):
                charts.setdefault(score, []).append(figures.line_chart(f"{before}{map_name}", **chart))
            lines = _cascade(drawn.get("cascade") or {})
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


def _removals(
    drawn: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield score, map and what its chart needs, in the order of the scorecard's rows."""
    shares = [0.0, *(drawn.get("fractions") or [])]
    for row in rows:
        score = str(row.get("score"))
        found = (drawn.get("removal") or {}).get(score) or {}
        map_name = str(row.get("method")) + (f"@{row['layer']}" if row.get("layer") else "")
        if score not in REMOVAL or row.get("verdict") == "reference" or not _known(found.get(map_name)):
            continue
        lines = _pair(map_name, found[map_name], shares, 0)
        reference = str(row.get("reference") or "")
        if _known(found.get(f"{NULL}{reference}")):
            lines += _pair(f"{reference} (reference)", found[f"{NULL}{reference}"], shares, 1)
        labels = {"y_label": "score of the frozen region", "x_label": "share of cells removed"}
        yield score, map_name, {"lines": lines, "whole": False, **labels}


def _known(curves: Mapping[str, Any] | None) -> bool:
    return bool(curves and curves.get("num"))


def _pair(name: str, curves: Mapping[str, Any], shares: Sequence[float], colour: int) -> list[Series]:
    return [
        Series(f"{name}, {what} first", shares, [curves["full"], *curves[key]], colour, dashed)
        for what, key, dashed in (("most relevant", "most_first", False), ("least", "least_first", True))
    ]


def _cascade(found: Mapping[str, Any]) -> list[Series]:
    """Return a line for each map; from the fifth on colours come again, dashed."""
    shares = found.get("share_of_modules") or []
    return [
        Series(name, shares, values, place % figures.NUM_COLOURS, place >= figures.NUM_COLOURS)
        for place, (name, values) in enumerate((found.get("maps") or {}).items())
        if place < 2 * figures.NUM_COLOURS
    ]

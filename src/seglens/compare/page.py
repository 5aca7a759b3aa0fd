"""The page of a comparison: the tables in plain words, with every interval drawn about 0."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from markupsafe import Markup, escape

from seglens.compare.drawing import DrawnComparison, label_of
from seglens.report import html, pictures, tables
from seglens.report.contents import RunContents
from seglens.report.tables import unit_of_distances
from seglens.results.comparison import ComparisonTable, LeftOut, MapChange, ScoreChange
from seglens.results.names import count
from seglens.results.record import Record

FILE_NAME = "compare.html"
TITLES = tables.SCORES | {"nsd": "Surface Dice (NSD)"}
VERDICTS = {"better": "pass", "worse": "fail", "no difference shown": "none", "not evaluable": "none"}
"""The style of each verdict."""


def write_page(
    runs: Sequence[RunContents], table: ComparisonTable, drawn: DrawnComparison, folder: Path
) -> None:
    """Write `FILE_NAME` into ``folder``."""
    files = [file for card in drawn.cards for _, file in card.tiles]
    files += [file for card in drawn.cards for _, row in card.maps for _, file in row]
    unit = unit_of_distances(runs).replace("px", "pixels")
    view = {
        "table": table,
        "runs": runs,
        "others": table.runs[1:],
        "reference": table.reference,
        "colours": {run.name: i for i, run in enumerate(runs)},
        "sentences": comparison_in_words(table),
        "score_groups": _drawn_scores(table.scores),
        "titles": TITLES | {"hd95": f"HD95, {unit} (lower is better)"},
        "styles": VERDICTS,
        "maps": _drawn_maps(table.maps),
        "cards": drawn.cards,
        "reach": drawn.reach,
        "addresses": pictures.embed(files),
        "glossary": table.definitions,
        "provenance": {run.name: steps(run) for run in runs},
        "data": html.as_script_data(table.model_dump(exclude={"definitions"}, exclude_unset=True)),
        "left_out": _grouped(table.left_out),
    }
    text = html.page("compare.html.jinja", view, scripts=("compare.js",), package="seglens.compare")
    html.write_html(text, folder / FILE_NAME)


def steps(run: RunContents) -> list[tuple[str, Record]]:
    """Return how each result of a run came about."""
    found = [(run.record.kind, run.record)]
    return found + [(f"{part.command} {part.name}", part.record) for part in run.parts if part.record]


def comparison_in_words(table: ComparisonTable) -> list[str]:
    """Return the results in plain sentences."""
    sentences = []
    for run in table.runs[1:]:
        sentences += _about_scores(table, run)
        sentences += _about_maps(table, run)
    return [*sentences, *filter(None, [table.about_verdicts])]


def _about_scores(table: ComparisonTable, run: str) -> list[str]:
    row = next((r for r in table.scores if (r.run, r.score, r.kind) == (run, "dice", "per image")), None)
    if row is None:
        return []
    verdict = {
        "better": "That is better: the interval lies above 0.",
        "worse": "That is worse: the interval lies below 0.",
        "no difference shown": "No difference is shown: the interval holds 0.",
    }.get(row.verdict, "Too few pictures to tell.")
    change = f"{row.difference:+.3f}{_interval(row.low, row.high)}"
    return [
        f"On {row.num} common pictures {run} has a Dice of {row.value:.3f} per picture, "
        f"{table.reference} of {row.reference:.3f}: {change}. {verdict}",
        f"{count(row.num_better or 0, 'picture')} got a higher Dice in {run}, {row.num_worse} a lower one.",
    ]


def _about_maps(table: ComparisonTable, run: str) -> list[str]:
    rows = [row for row in table.maps if row.run == run and row.num]
    if not rows:
        return []
    most = max(rows, key=lambda row: row.moved.mean or 0.0)
    unrelated = most.unrelated.mean
    share = 100 * (most.moved.mean or 0.0)
    beside = f" Two unrelated maps differ by {100 * unrelated:.0f} %." if _known(unrelated) else ""
    sentences = [
        f"The map that changed most is {label_of(most.key)}. {share:.0f} % of its heat "
        f"lies at other places in {run} ({count(most.num, 'picture')}).{beside}"
    ]
    for region in ("invented", "missed"):
        found = [(row.key, row.shares[region].difference) for row in rows if region in row.shares]
        clear = [(abs(change.mean or 0.0), key, change) for key, change in found if change.misses_zero]
        if clear:
            _, key, change = max(clear, key=lambda entry: entry[0])
            how = "more" if (change.mean or 0.0) > 0 else "less"
            sentences.append(
                f"{run} has {how} heat on what {table.reference} {region}. The largest change is that of "
                f"{label_of(key)}: {change.mean:+.3f} of its heat{_interval(change.low, change.high)}. "
                f"{len(clear)} of {len(found)} maps changed there for certain."
            )
    return sentences


def _interval(low: float | None, high: float | None) -> str:
    return f" (95 % interval {low:+.3f} to {high:+.3f})" if _known(low) and _known(high) else ""


@dataclass(frozen=True)
class DrawnScore:
    """A row of the table of scores, and its interval."""

    row: ScoreChange
    strip: Markup


@dataclass(frozen=True)
class DrawnMap:
    """A row of the table of maps, what it is called, and the intervals of its shares by region."""

    row: MapChange
    label: str
    strips: Mapping[str, Markup]


def _drawn_scores(rows: Sequence[ScoreChange]) -> dict[str, list[DrawnScore]]:
    """Group score rows by run, each with its interval drawn; scores in pixels have an axis of their own."""
    found: dict[str, list[DrawnScore]] = {}
    for row in rows:
        alike = [r for r in rows if (r.score == "hd95") == (row.score == "hd95")]
        reach = _reach([end for r in alike for end in (r.low, r.high, r.difference)])
        strip = forest(row.difference, row.low, row.high, reach)
        found.setdefault(row.run, []).append(DrawnScore(row, strip))
    return found


def _drawn_maps(rows: Sequence[MapChange]) -> list[DrawnMap]:
    every = [share.difference for row in rows for share in row.shares.values()]
    reach = _reach([end for each in every for end in (each.low, each.high, each.mean)])
    return [
        DrawnMap(
            row,
            label_of(row.key),
            {
                region: forest(share.difference.mean, share.difference.low, share.difference.high, reach)
                for region, share in row.shares.items()
            },
        )
        for row in rows
    ]


def _reach(ends: Sequence[float | None]) -> float:
    return max((abs(end) for end in ends if _known(end)), default=1.0)


def forest(value: float | None, low: float | None, high: float | None, reach: float) -> Markup:
    """Draw a difference and its interval; 0 is in the middle of an axis that ends at ``reach``."""
    width, height, middle = 140, 22, 70

    def place(value: float) -> float:
        return middle + max(-1.0, min(1.0, value / (reach or 1.0))) * (middle - 8)

    if not _known(value):
        return Markup("")
    name = f"difference {value:+.3f}{_interval(low, high)}"
    parts = [f'<line class="reference" x1="{middle}" x2="{middle}" y1="1" y2="{height - 1}"/>']
    if _known(low) and _known(high):
        ends = f'x1="{place(low):.1f}" x2="{place(high):.1f}"'
        parts.append(f'<line class="interval" {ends} y1="{height / 2}" y2="{height / 2}"/>')
    parts.append(f'<circle class="mark" cx="{place(value):.1f}" cy="{height / 2}" r="5"/>')
    head = f'<svg class="forest" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img"'
    return Markup(f'{head} aria-label="{escape(name)}">{"".join(parts)}</svg>')


def _known(value: float | None) -> TypeGuard[float]:
    return value is not None and value == value


def _grouped(left_out: Sequence[LeftOut]) -> dict[str, list[str]]:
    """Return the pictures that were left out, by the reason."""
    found: dict[str, list[str]] = {}
    for entry in left_out:
        found.setdefault(entry.why, []).append(entry.name)
    return found

"""The page of a comparison: what the tables say, in plain words, with every interval drawn about 0."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from seglens.compare.drawing import Drawn, label_of
from seglens.report import html, pictures
from seglens.report.contents import RunContents
from seglens.results.record import Record

Row = dict[str, Any]

FILE_NAME = "compare.html"
TITLES = {
    "dice": "Dice",
    "iou": "IoU",
    "miou": "mIoU",
    "pixel_accuracy": "Pixel accuracy",
    "precision": "Precision",
    "recall": "Recall",
    "boundary_iou": "Boundary IoU",
    "nsd": "Surface Dice (NSD)",
    "hd95": "HD95, pixels (lower is better)",
}
VERDICTS = {"better": "pass", "worse": "fail", "no difference shown": "none", "not evaluable": "none"}
"""Which style a verdict has."""


def write(runs: Sequence[RunContents], table: Row, drawn: Drawn, folder: Path) -> None:
    """Write `FILE_NAME` into ``folder``."""
    files = [file for card in drawn.cards for _, file in card.tiles]
    files += [file for card in drawn.cards for _, row in card.maps for _, file in row]
    view = {
        "table": table,
        "runs": runs,
        "others": table["runs"][1:],
        "reference": table["reference"],
        "colours": {run.name: i for i, run in enumerate(runs)},
        "sentences": sentences(table),
        "score_groups": _drawn_scores(table["scores"]),
        "titles": TITLES,
        "styles": VERDICTS,
        "maps": _drawn_maps(table["maps"]),
        "cards": drawn.cards,
        "reach": drawn.reach,
        "addresses": pictures.embed(files),
        "glossary": table["definitions"],
        "provenance": {run.name: steps(run) for run in runs},
        "data": html.as_script_data({name: value for name, value in table.items() if name != "definitions"}),
        "left_out": _grouped(table["left_out"]),
    }
    text = html.page("compare.html.jinja", view, scripts=("compare.js",), package="seglens.compare")
    html.write(text, folder / FILE_NAME)


def steps(run: RunContents) -> list[tuple[str, Record]]:
    """Return how each result of a run came about."""
    found = [(run.record.kind, run.record)]
    return found + [(f"{part.verb} {part.name}", part.record) for part in run.parts if part.record]


def sentences(table: Row) -> list[str]:
    """Say in plain words what came out."""
    told = []
    for run in table["runs"][1:]:
        told += _about_scores(table, run)
        told += _about_maps(table, run)
    rows = table["scorecard"]
    if rows:
        changed = [row for row in rows if row["changed"]]
        told.append(
            f"{len(changed)} of {len(rows)} verdicts of the scorecards differ."
            if changed
            else f"None of the {len(rows)} verdicts of the scorecards differs."
        )
        if table["judged_same_pictures"] is not True:
            known = (
                "were not judged" if table["judged_same_pictures"] is False else "may not have been judged"
            )
            told.append(
                f"The runs {known} on the same pictures: their scorecards can't be held against each other."
            )
    return told


def _about_scores(table: Row, run: str) -> list[str]:
    row = next(
        (r for r in table["scores"] if (r["run"], r["score"], r["kind"]) == (run, "dice", "per image")), None
    )
    if row is None:
        return []
    verdict = {
        "better": "That is better: the interval lies above 0.",
        "worse": "That is worse: the interval lies below 0.",
        "no difference shown": "No difference is shown: the interval holds 0.",
    }.get(row["verdict"], "Too few pictures to tell.")
    change = f"{row['difference']:+.3f}{_interval(row)}"
    return [
        f"On {row['num']} common pictures {run} has a Dice of {row['value']:.3f} per picture, "
        f"{table['reference']} of {row['reference']:.3f}: {change}. {verdict}",
        f"{row['num_better']} pictures got a higher Dice in {run}, {row['num_worse']} a lower one.",
    ]


def _about_maps(table: Row, run: str) -> list[str]:
    rows = [row for row in table["maps"] if row["run"] == run and row["num"]]
    if not rows:
        return []
    most = max(rows, key=lambda row: row["moved"]["mean"])
    key = (most["target"], most["method"], most["layer"], most["where"])
    unrelated = most["unrelated"]["mean"]
    beside = f"; two unrelated maps differ by {100 * unrelated:.0f} %" if unrelated == unrelated else ""
    told = [
        f"Attention moved most in {label_of(key)}: {100 * most['moved']['mean']:.0f} % of it lies elsewhere "
        f"in {run}, on {most['num']} pictures{beside}."
    ]
    for region, what in (("invented", "what the reference invents"), ("missed", "what the reference misses")):
        found = [(row, row["shares"][region]["difference"]) for row in rows if region in row["shares"]]
        clear = [
            pair
            for pair in found
            if pair[1]["low"] is not None and not pair[1]["low"] <= 0 <= pair[1]["high"]
        ]
        if clear:
            row, difference = max(clear, key=lambda pair: abs(pair[1]["mean"]))
            kinds = f"{len(clear)} of {len(found)} kinds of map"
            key = (row["target"], row["method"], row["layer"], row["where"])
            told.append(
                f"In {kinds} the share of attention on {what} changed (the interval misses 0). Most in "
                f"{label_of(key)}: {difference['mean']:+.3f}{_interval(difference)}."
            )
    return told


def _interval(row: Mapping[str, Any]) -> str:
    low, high = row.get("low"), row.get("high")
    if low is None or high is None or low != low:
        return ""
    return f" (95 % interval {low:+.3f} to {high:+.3f})"


def _drawn_scores(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Group score rows by run, each with its interval drawn; scores in pixels have an axis of their own."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        alike = [r for r in rows if (r["score"] == "hd95") == (row["score"] == "hd95")]
        reach = max(
            (abs(r[end]) for r in alike for end in ("low", "high", "difference") if _known(r[end])),
            default=1.0,
        )
        found.setdefault(row["run"], []).append({**row, "strip": forest(row, reach)})
    return found


def _drawn_maps(rows: Sequence[Row]) -> list[Row]:
    found = []
    reach = max(
        (
            abs(share["difference"][end])
            for row in rows
            for share in row["shares"].values()
            for end in ("low", "high", "mean")
            if _known(share["difference"][end])
        ),
        default=1.0,
    )
    for row in rows:
        shares = {
            region: {
                **share,
                "strip": forest({**share["difference"], "difference": share["difference"]["mean"]}, reach),
            }
            for region, share in row["shares"].items()
        }
        key = (row["target"], row["method"], row["layer"], row["where"])
        found.append({**row, "label": label_of(key), "shares": shares})
    return found


def forest(row: Mapping[str, Any], reach: float) -> Markup:
    """Draw a difference and its interval; 0 is in the middle of an axis that ends at ``reach``."""
    width, height, middle = 140, 22, 70

    def place(value: float) -> float:
        return middle + max(-1.0, min(1.0, value / (reach or 1.0))) * (middle - 8)

    value, low, high = (row.get(name) for name in ("difference", "low", "high"))
    if value is None or not _known(value):
        return Markup("")
    name = f"difference {value:+.3f}{_interval(row)}"
    parts = [f'<line class="reference" x1="{middle}" x2="{middle}" y1="1" y2="{height - 1}"/>']
    if low is not None and high is not None and _known(low):
        ends = f'x1="{place(low):.1f}" x2="{place(high):.1f}"'
        parts.append(f'<line class="interval" {ends} y1="{height / 2}" y2="{height / 2}"/>')
    parts.append(f'<circle class="mark" cx="{place(value):.1f}" cy="{height / 2}" r="5"/>')
    head = f'<svg class="forest" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img"'
    return Markup(f'{head} aria-label="{escape(name)}">{"".join(parts)}</svg>')


def _known(value: object) -> bool:
    return isinstance(value, int | float) and value == value


def _grouped(left_out: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    """Return the pictures that were left out, by the reason."""
    found: dict[str, list[str]] = {}
    for entry in left_out:
        found.setdefault(entry["why"], []).append(entry["name"])
    return found

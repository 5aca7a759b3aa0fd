"""The tables and charts of the page, put together from what the run folders say."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from seglens.report import curves, figures, words
from seglens.report.contents import Part, RunContents
from seglens.report.figures import Axis, Series
from seglens.results.record import Record

CURVES = {
    "Loss": (("train_loss", "training", True), ("valid_loss", "validation", False)),
    "Validation score": (("valid_dice", "Dice", False), ("valid_iou", "IoU", True)),
}
"""Charts of the learning curves: column of ``history.csv``, name, dashed."""

SCORES = {
    "dice": "Dice",
    "iou": "IoU",
    "miou": "mIoU",
    "pixel_accuracy": "Pixel accuracy",
    "precision": "Precision",
    "recall": "Recall",
    "boundary_iou": "Boundary IoU",
    "nsd": "NSD",
    "hd95": "HD95, px",
    "ece": "ECE",
}
"""Scores of the table, with their headings."""

LOWER_IS_BETTER = ("hd95", "ece")


def sentences(run: RunContents) -> list[str]:
    """Return the headline of one run: what it is, how good, what its maps are worth."""
    told = [words.about_model(run), *(words.about_scores(part) for part in run.evaluations)]
    told += [words.about_maps(run.explanations), words.about_judgement(run.scorecards)]
    return [text for text in told if text]


def charts(runs: Sequence[RunContents]) -> list[Markup]:
    """Draw the learning curves of all runs that have some."""
    drawn = []
    for title, columns in CURVES.items():
        lines = []
        for colour, run in enumerate(runs):
            for column, label, dashed in columns:
                values = run.history.get(column, [])
                if any(value is not None for value in values):
                    epochs = [float(i + 1) for i in range(len(values))]
                    name = f"{run.name}, {label}" if len(runs) > 1 else label
                    lines.append(Series(name, epochs, values, colour, dashed))
        if lines:
            drawn.append(figures.line_chart(title, lines, y_label=", ".join(c[1] for c in columns)))
    return drawn


def score_rows(runs: Sequence[RunContents]) -> list[dict[str, Any]]:
    """Return one row for each split, average and run: pooled, pooled by class, and per picture.

    ``first`` marks the first row of a split and average, ``best`` the scores in which a row is the best of
    the runs.
    """
    rows = [row for run in runs for part in run.evaluations for row in _score_rows(run.name, part)]
    places = list(dict.fromkeys((row["split"], row["average"]) for row in rows))
    groups = [[row for row in rows if (row["split"], row["average"]) == place] for place in places]
    for group in groups:
        for i, row in enumerate(group):
            row["first"] = i == 0
            row["best"] = {name for name in SCORES if len(group) > 1 and _is_best(row, group, name)}
    return [row for group in groups for row in group]


def _score_rows(run: str, part: Part) -> list[dict[str, Any]]:
    pooled, per_image = part.table.get("pooled", {}), part.table.get("per_image", {})
    averages: dict[str, dict[str, tuple[float | None, dict[str, Any]]]] = {}
    pooled = {**pooled, "ece": (part.table.get("calibration") or {}).get("error")}
    averages["pooled"] = {name: (real(pooled.get(name)), {}) for name in SCORES}
    background = next(iter(part.table.get("classes") or ["background"]))
    by_class = {name: row for name, row in (pooled.get("per_class") or {}).items() if name != background}
    for class_name, scores in by_class.items() if len(by_class) > 1 else ():
        averages[f"pooled, {class_name}"] = {name: (real(scores.get(name)), {}) for name in SCORES}
    means = {name: per_image.get(name) or {} for name in SCORES}
    averages["per picture"] = {name: (real(row.get("mean")), row) for name, row in means.items()}
    split, num = str(part.table.get("split", part.name)), part.table.get("num_images")
    return [
        {"run": run, "split": split, "num": num, "average": average, "scores": scores}
        for average, scores in averages.items()
    ]


def _is_best(row: Mapping[str, Any], group: Sequence[Mapping[str, Any]], name: str) -> bool:
    known = [other["scores"][name][0] for other in group if other["scores"][name][0] is not None]
    best = min if name in LOWER_IS_BETTER else max
    return len(set(known)) > 1 and row["scores"][name][0] == best(known)


def _spoken(row: Mapping[str, Any], statistic: str) -> dict[str, float | None]:
    """Return one statistic of each null by the name that a reader sees."""
    nulls = row.get("nulls") or {}
    return {str(name).replace("_", " "): real(null.get(statistic)) for name, null in nulls.items()}


def real(value: object) -> float | None:
    """Return a number of a table as a float; None for everything else."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def histograms(runs: Sequence[RunContents]) -> list[Markup]:
    """Draw how the Dice scores of the pictures are spread, for each run and split."""
    drawn = []
    for colour, run in enumerate(runs):
        for part in run.evaluations:
            found = [real(row.get("dice")) for row in part.table.get("images", [])]
            dice = [value for value in found if value is not None]
            if dice:
                title = f"Pictures by Dice: {run.name}, {part.table.get('split', part.name)}"
                drawn.append(figures.histogram(title, dice, colour=colour))
    return drawn


def reliability(runs: Sequence[RunContents]) -> list[Markup]:
    """Draw for each run and split how often the model is right where it gives a probability."""
    drawn = []
    for colour, run in enumerate(runs):
        for part in run.evaluations:
            table = part.table.get("calibration") or {}
            foreground = table.get("foreground")
            known = [row for row in foreground or table.get("bins") or [] if row.get("pixels")]
            if known:
                promised = [float(row["probability"]) for row in known]
                found = [float(row["share"]) for row in known]
                lines = [Series("right as often as promised", (0.0, 1.0), (0.0, 1.0), colour + 1, True)]
                lines.append(Series("the model", promised, found, colour))
                title = f"Reliability: {run.name}, {part.table.get('split', part.name)}"
                of = "foreground" if foreground else "the most probable class"
                label = f"share of these pixels that are {of}"
                drawn.append(
                    figures.line_chart(
                        title, lines, y_label=label, x_label=f"probability of {of}", whole=False
                    )
                )
    return drawn


def attention(runs: Sequence[RunContents]) -> dict[str, Any]:
    """Return the table of attention statistics with a strip that shows each ratio among its nulls."""
    rows = [
        {"run": run.name, "folder": part.name, **row}
        for run in runs
        for part in run.explanations
        for row in part.table.get("summary", [])
    ]
    for row in rows:
        row["ratio"] = (row.get("statistics") or {}).get("ratio") or {}
        row["null_ratios"] = _spoken(row, "ratio")
    shapes = figures.shapes_of([name for row in rows for name in row["null_ratios"]])
    values = [real(row["ratio"].get(key)) for row in rows for key in ("mean", "low", "high")]
    values += [value for row in rows for value in row["null_ratios"].values()]
    axis = figures.axis_over(values, log=True, include=(1.0,))
    for row in rows:
        row["strip"] = _strip(row["ratio"], "mean", row["null_ratios"], axis, shapes)
    return {"rows": rows, "legend": figures.mark_legend(shapes), "axis": axis}


def judgements(runs: Sequence[RunContents]) -> dict[str, Any]:
    """Return the rows of all scorecards, by score, each with a strip that shows it among its nulls.

    ``curves`` are the charts of the scores that have some.
    """
    rows = [
        {"run": run.name, "folder": part.name, "num_images": part.table.get("num_images"), **row}
        for run in runs
        for part in run.scorecards
        for row in part.table.get("rows", [])
    ]
    for row in rows:
        row["nulls"] = {str(n).replace("_", " "): real(v) for n, v in (row.get("nulls") or {}).items()}
    shapes = figures.shapes_of([name for row in rows for name in row["nulls"]])
    by_score: dict[str, list[dict[str, Any]]] = {}
    axes: dict[str, Axis] = {}
    for row in rows:
        by_score.setdefault(str(row.get("score")), []).append(row)
    for score, group in by_score.items():
        values = [real(row.get(key)) for row in group for key in ("value", "low", "high")]
        values += [value for row in group for value in row["nulls"].values()]
        axes[score] = axis = figures.axis_over(values, include=(0.0,))
        for row in group:
            row["strip"] = _strip(row, "value", row["nulls"], axis, shapes)
    legend, charts = figures.mark_legend(shapes), curves.by_score(runs)
    return {"by_score": by_score, "axes": axes, "legend": legend, "curves": charts}


def audits(runs: Sequence[RunContents]) -> list[dict[str, Any]]:
    """Return the audits of all runs: their regions, and those of each group where there are groups."""
    found = []
    for run in runs:
        for part in run.scorecards:
            rows = [*(part.audit or {}).get("regions", []), *(part.audit or {}).get("groups", [])]
            if rows:
                definition = (part.audit or {}).get("definition") or ""
                found.append({"run": run.name, "rows": rows, "definition": definition})
    return found


def tag_rows(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a shortcut check, each with its AUROC drawn from 0 to 1 beside the coin toss."""
    chance: dict[str, float | None] = {"coin toss": 0.5}
    rows = [dict(row) for row in table.get("methods", [])]
    for row in rows:
        row["strip"] = _strip(row, "auroc", chance, Axis(0.0, 1.0), {"coin toss": "plus"})
    return rows


def provenance(run: RunContents) -> list[tuple[str, Record]]:
    """Return how each step of a run came about."""
    steps = [(run.record.kind, run.record)]
    steps += [(f"{part.verb} {part.name}", part.record) for part in run.parts if part.record]
    return [step for i, step in enumerate(steps) if i == 0 or step[1] != run.record]


def _strip(
    row: Mapping[str, Any],
    key: str,
    nulls: Mapping[str, float | None],
    axis: Axis,
    shapes: Mapping[str, str],
) -> Markup:
    interval = (real(row.get("low")), real(row.get("high")))
    return figures.strip(real(row.get(key)), interval, nulls, axis, shapes)

"""The tables and charts of the page, made from the results in run folders."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from markupsafe import Markup

from seglens.report import figures, wording
from seglens.report.contents import Evaluated, RunContents
from seglens.report.figures import ChartAxis, Series
from seglens.results.maps import MapSummary
from seglens.results.names import NULL, TARGET_SCALE, null_in_words
from seglens.results.record import Record
from seglens.results.scorecard import AuditedRegion, Card, CardRow, Cascade, RemovalCurves, TagRow, TagTest
from seglens.results.spread import Spread

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
    "hd95": "HD95",
    "ece": "ECE",
}
"""Scores of the table, with their headings."""

LOWER_IS_BETTER = ("hd95", "ece")

Row = TypeVar("Row", MapSummary, CardRow, TagRow)


@dataclass(frozen=True)
class ScoreRow:
    """The scores of one run on one split, averaged in one way.

    ``first`` marks the first row of a split and average, ``best`` the scores in which a row is the best of
    the runs.
    """

    run: str
    split: str
    num: int | None
    average: str
    scores: Mapping[str, Spread]
    first: bool = False
    best: frozenset[str] = frozenset()


@dataclass(frozen=True)
class DrawnRow(Generic[Row]):
    """A row of a table with what its nulls got, and a strip that shows its value among them."""

    run: str
    row: Row
    nulls: Mapping[str, float | None]
    strip: Markup


@dataclass(frozen=True)
class AttentionChart:
    """The statistics of all maps: rows, the legend of their strips, and the axis of these."""

    rows: list[DrawnRow[MapSummary]]
    legend: Markup
    axis: ChartAxis


@dataclass(frozen=True)
class Judgements:
    """The rows of all scorecards by score, each score's axis, the legend, and charts by score."""

    by_score: dict[str, list[DrawnRow[CardRow]]]
    axes: dict[str, ChartAxis]
    legend: Markup
    curves: dict[str, list[Markup]]


@dataclass(frozen=True)
class AuditedRun:
    """The regions of an audit, and those of each group where there are groups."""

    run: str
    rows: tuple[AuditedRegion, ...]
    definition: str


def sentences(run: RunContents) -> list[str]:
    """Return the headline of one run: what it is, how good, what its maps are worth."""
    sentences = [wording.about_model(run), *(wording.about_scores(part) for part in run.evaluations)]
    sentences += [wording.about_maps(run.explanations), wording.about_judgement(run.scorecards)]
    return [text for text in sentences if text]


def unit_of_distances(runs: Sequence[RunContents]) -> str:
    """Return the unit of distances in the evaluations: ``px``, of volumes ``mm``, or both."""
    units = dict.fromkeys(part.table.unit for run in runs for part in run.evaluations)
    return " or ".join(units) or "px"


def charts(runs: Sequence[RunContents]) -> list[Markup]:
    """Draw the learning curves of all runs that have some."""
    drawn = []
    for title, columns in CURVES.items():
        lines = []
        for colour, run in enumerate(runs):
            for column, label, dashed in columns:
                values = run.history[column] if column in run.history else []
                if any(value is not None for value in values):
                    epochs = [float(i + 1) for i in range(len(values))]
                    name = f"{run.name}, {label}" if len(runs) > 1 else label
                    lines.append(Series(name, epochs, values, colour, dashed))
        if lines:
            drawn.append(figures.line_chart(title, lines, y_label=", ".join(c[1] for c in columns)))
    return drawn


def score_rows(runs: Sequence[RunContents]) -> list[ScoreRow]:
    """Return one row for each split, average and run: pooled, pooled by class, and per picture."""
    rows = [row for run in runs for part in run.evaluations for row in _score_rows(run.name, part)]
    places = list(dict.fromkeys((row.split, row.average) for row in rows))
    groups = [[row for row in rows if (row.split, row.average) == place] for place in places]
    return [
        replace(row, first=i == 0, best=frozenset(name for name in SCORES if _is_best(row, group, name)))
        for group in groups
        for i, row in enumerate(group)
    ]


def _score_rows(run: str, part: Evaluated) -> list[ScoreRow]:
    table = part.table
    by_class = {label: row for label, row in table.pooled.per_class.items() if label not in table.classes[:1]}
    averages = {"pooled": {name: Spread(mean=table.pooled.score(name)) for name in SCORES}}
    averages["pooled"]["ece"] = Spread(mean=table.calibration.error)
    for label, scores in by_class.items() if len(by_class) > 1 else ():
        averages[f"pooled, {label}"] = {name: Spread(mean=scores.score(name)) for name in SCORES}
    averages["per picture"] = {name: table.average(name) for name in SCORES}
    for label, spreads in table.per_class.items():
        averages[f"per volume, {label}"] = {name: spreads.get(name, Spread()) for name in SCORES}
    return [
        ScoreRow(run, part.split, table.num_images, average, scores) for average, scores in averages.items()
    ]


def _is_best(row: ScoreRow, group: Sequence[ScoreRow], name: str) -> bool:
    values = [other.scores[name].mean for other in group]
    known = {value for value in values if value is not None}
    best = min if name in LOWER_IS_BETTER else max
    return len(known) > 1 and row.scores[name].mean == best(known)


def histograms(runs: Sequence[RunContents]) -> list[Markup]:
    """Draw how the Dice scores of the pictures are spread, for each run and split."""
    drawn = []
    for colour, run in enumerate(runs):
        for part in run.evaluations:
            dice = [row.dice for row in part.table.images if row.dice is not None]
            if dice:
                title = f"Pictures by Dice: {run.name}, {part.split}"
                drawn.append(figures.histogram_chart(title, dice, colour=colour))
    return drawn


def reliability(runs: Sequence[RunContents]) -> list[Markup]:
    """Draw for each run and split how often the model is right where it gives a probability."""
    drawn = []
    for colour, run in enumerate(runs):
        for part in run.evaluations:
            foreground = part.table.calibration.foreground
            known = part.table.calibration.known(foreground or part.table.calibration.bins)
            if known:
                _, promised, found = zip(*known, strict=True)
                lines = [
                    Series(
                        "ideal: right as often as it says", (0.0, 1.0), (0.0, 1.0), figures.REFERENCE, True
                    )
                ]
                lines.append(Series("the model", promised, found, colour))
                title = f"Reliability: {run.name}, {part.split}"
                of = "foreground" if foreground else "the most probable class"
                label = f"share of these pixels that are {of}"
                drawn.append(
                    figures.line_chart(
                        title, lines, y_label=label, x_label=f"probability of {of}", whole=False
                    )
                )
    return drawn


def attention_chart(runs: Sequence[RunContents]) -> AttentionChart:
    """Return the table of attention statistics with a strip that shows each ratio among its nulls."""
    places = {run.name: place for place, run in enumerate(runs)}
    rows = [(run.name, row) for run in runs for part in run.explanations for row in part.table.summary]
    nulls = [_spoken(row.of_nulls("ratio")) for _, row in rows]
    ratios = [row.statistic("ratio") for _, row in rows]
    shapes = figures.shapes_of([name for each in nulls for name in each])
    values = [value for ratio in ratios for value in (ratio.mean, ratio.low, ratio.high)]
    axis = figures.axis_over([*values, *_every(nulls)], log=True, include=(1.0,))
    drawn = [
        DrawnRow(
            run,
            row,
            each,
            figures.strip(ratio.mean, (ratio.low, ratio.high), each, axis, shapes, places[run]),
        )
        for (run, row), ratio, each in zip(rows, ratios, nulls, strict=True)
    ]
    return AttentionChart(drawn, figures.mark_legend(shapes), axis)


def judgements(runs: Sequence[RunContents]) -> Judgements:
    """Return the rows of all scorecards, by score, each with a strip that shows it among its nulls."""
    places = {run.name: place for place, run in enumerate(runs)}
    rows = [(run.name, row) for run in runs for part in run.scorecards for row in part.table.rows]
    shapes = figures.shapes_of([name for _, row in rows for name in _spoken(row.nulls)])
    by_score: dict[str, list[DrawnRow[CardRow]]] = {}
    axes: dict[str, ChartAxis] = {}
    for score in dict.fromkeys(row.score for _, row in rows):
        group = [(run, row, _spoken(row.nulls)) for run, row in rows if row.score == score]
        values = [value for _, row, _ in group for value in (row.value, row.low, row.high)]
        axis = figures.axis_over([*values, *_every([nulls for _, _, nulls in group])], include=(0.0,))
        axes[score] = axis
        by_score[score] = [
            DrawnRow(
                run,
                row,
                nulls,
                figures.strip(row.value, (row.low, row.high), nulls, axis, shapes, places[run]),
            )
            for run, row, nulls in group
        ]
    return Judgements(by_score, axes, figures.mark_legend(shapes), curves_by_score(runs))


def _spoken(nulls: Mapping[str, float | None]) -> dict[str, float | None]:
    return {null_in_words(name): value for name, value in nulls.items()}


def _every(nulls: Sequence[Mapping[str, float | None]]) -> list[float | None]:
    return [value for each in nulls for value in each.values()]


def audits(runs: Sequence[RunContents]) -> list[AuditedRun]:
    """Return the audits of all runs that found something to say."""
    found = [(run.name, part.audit) for run in runs for part in run.scorecards if part.audit]
    return [
        AuditedRun(run, audit.regions + audit.groups, audit.definition)
        for run, audit in found
        if audit.regions + audit.groups
    ]


def tag_rows(table: TagTest) -> list[DrawnRow[TagRow]]:
    """Return the rows of a shortcut check, each with its AUROC drawn from 0 to 1 beside the coin toss."""
    chance, axis, shapes = {"coin toss": 0.5}, ChartAxis(0.0, 1.0), {"coin toss": "plus"}
    return [
        DrawnRow("", row, chance, figures.strip(row.auroc, (row.low, row.high), chance, axis, shapes))
        for row in table.methods
    ]


def provenance(run: RunContents) -> list[tuple[str, Record]]:
    """Return how each step of a run came about."""
    steps = [(run.record.kind, run.record)]
    steps += [(f"{part.command} {part.name}", part.record) for part in run.parts if part.record]
    return [step for i, step in enumerate(steps) if i == 0 or step[1] != run.record]


REMOVAL = ("faithfulness", TARGET_SCALE, "context_faithfulness")
"""Scores that remove cells in the order of a map."""

MOST = 24
"""Charts for one score: a page with more of them is read by nobody."""


def curves_by_score(runs: Sequence[RunContents]) -> dict[str, list[Markup]]:
    """Return the charts of each score, one for each map that was judged, the first `MOST` of them.

    A map that removes cells has the colour of its run and is drawn with the reference map that its verdict
    names, which is grey: solid while what is ranked first goes first, dashed while what is ranked last does.
    The model dependence is drawn over the share of the network that has random weights.
    """
    charts: dict[str, list[Markup]] = {}
    for colour, run in enumerate(runs):
        before = f"{run.name}, " if len(runs) > 1 else ""
        for part in run.scorecards:
            for score, name, lines, share in _removals(part.table, colour):
                charts.setdefault(score, []).append(
                    figures.line_chart(
                        f"{before}{name}",
                        lines,
                        y_label="score of the target",
                        x_label=share,
                        whole=score == TARGET_SCALE,
                        x_text=figures.power_of_two if score == TARGET_SCALE else "{:g}".format,
                        x_range=None if score == TARGET_SCALE else (0.0, 1.0),
                    )
                )
            lines = _cascade(part.table.figures.cascade)
            if lines:
                charts.setdefault("model_dependence", []).append(
                    figures.line_chart(
                        f"{before}while layer after layer gets random weights, output first",
                        lines,
                        y_label="likeness to the map of the trained model",
                        x_label="share of the network with random weights",
                        whole=False,
                    )
                )
    return {score: found[:MOST] for score, found in charts.items()}


def _removals(card: Card, colour: int) -> Iterator[tuple[str, str, list[Series], str]]:
    """Yield score, map, the lines of its chart and what they are over, in the order of the rows."""
    shares, drawn = [0.0, *card.figures.fractions], card.figures
    for row in card.rows:
        found = drawn.removing(row.score, row.name)
        if row.score not in REMOVAL or row.verdict == "reference" or found is None:
            continue
        drawn_with = {row.name: found}
        reference = drawn.removing(row.score, f"{NULL}{row.reference}")
        if reference is not None:
            drawn_with[f"{null_in_words(row.reference)} (reference map)"] = reference
        if row.score == TARGET_SCALE:
            steps, axis = [math.log2(step) for step in drawn.target_fractions], "in areas of the target"
            for kept, end, done in ((False, "deletion", "removed"), (True, "insertion", "kept")):
                lines = _lines(drawn_with, steps, done, colour, kept=kept)
                yield row.score, f"{row.name}, {end}", lines, f"{done}, {axis}"
        else:
            yield (
                row.score,
                row.name,
                _lines(drawn_with, shares, "first", colour),
                "share of the picture removed",
            )


def _lines(
    maps: Mapping[str, RemovalCurves], steps: Sequence[float], done: str, colour: int, *, kept: bool = False
) -> list[Series]:
    """Return two lines for each map; steps that begin with 0 begin with the score of the whole picture."""
    return [
        Series(
            f"{name}, {what} {done}",
            steps,
            [*[curves.full] * (steps[:1] == [0.0]), *values],
            figures.REFERENCE if place else colour,
            dashed,
            hollow=bool(place),
        )
        for place, (name, curves) in enumerate(maps.items())
        for what, values, dashed in zip(
            ("most important", "least important"), curves.lines(kept=kept), (False, True), strict=True
        )
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

"""The tables in plain sentences."""

from collections import Counter
from collections.abc import Iterable

from seglens.report.contents import Evaluated, Explained, Judged, RunContents
from seglens.results.names import RESTATES, count, map_name, number
from seglens.results.record import ModelRecord
from seglens.results.scorecard import TagRow, TagTest
from seglens.results.spread import Spread


def about_model(run: RunContents) -> str:
    """Describe the model and its origin."""
    record, model = run.record, run.record.model or ModelRecord()
    encoder = f" with encoder {model.encoder}" if model.encoder else ""
    size = f" at {model.input_size}" if model.input_size else ""
    what = f"{model.architecture or 'A model'}{encoder}"
    classes = record.task.classes[1:] if record.task else ()
    finds = f" It marks: {', '.join(classes)}." if classes else ""
    if record.kind == "adopt":
        source = record.settings.get("file") or "a checkpoint"
        return f"{what}, taken over from {source} and run{size}.{finds}"
    if record.kind != "train":
        return f"{what}{size}.{finds}"
    where = f" on {_last_part(record.data.path)}" if record.data and record.data.path else ""
    num = record.results.get("num_train")
    pictures = f" on {count(num, 'picture')}" if isinstance(num, int) else ""
    of_data = where.replace(" on ", " of ", 1) if pictures else where
    epochs = len(next(iter(run.history.values()), [])) or record.settings.get("epochs")
    rounds = f" for {count(epochs, 'epoch')}" if isinstance(epochs, int) else ""
    changed = ", with augmentation" if record.settings.get("augment") else ", without augmentation"
    unfinished = " Training has not finished." if record.state != "finished" else ""
    return f"{what}, trained{pictures}{of_data}{size}{rounds}{changed}.{finds}{unfinished}"


def about_scores(part: Evaluated) -> str:
    """Describe the scores of the model on one split, and its worst pictures."""
    table, split, dice = part.table, part.split, part.table.average("dice")
    rows = [(row.dice, row.name) for row in table.images if row.dice is not None]
    scored = count(len(rows) or table.num_images or 0, "picture")
    shown = table.shown
    absent = ", ".join(str(label) for label, count in shown.items() if not count)
    if shown and not any(shown.values()):
        return f"None of {scored} of the {split} split shows {absent}: we cannot say how well it is found."
    text = (
        f"On {scored} of the {split} split, Dice is {number(dice.mean)} on average per "
        f"picture{_interval(dice)}. Counted over all pixels together it is {number(table.pooled.dice)}."
    )
    if rows:
        low = sum(found < 0.5 for found, _ in rows)
        worst, name = min(rows, key=lambda row: row[0])
        text += f" {_are(low, 'picture')} below 0.5. The worst is {name} ({number(worst, 2)})."
    if table.objects.at and table.objects.truth:
        at = table.objects.at[0]
        text += (
            f" The model found {at.found} of {count(table.objects.truth, 'object')} (overlap of at least "
            f"{at.overlap:g}). It missed {at.missed} and invented {at.invented}."
        )
    if table.resampling.text:
        text += f" {table.resampling.text}"
    if absent:
        text += f" No picture shows {absent}."
    if table.num_failed:
        text += f" {count(table.num_failed, 'picture')} could not be scored."
    return text


def about_maps(parts: Iterable[Explained]) -> str:
    """Return how many maps are no better than the prediction itself; empty without maps."""
    rows = [row for part in parts for row in part.table.summary]
    if not rows:
        return ""
    restating = sum(row.label == RESTATES for row in rows)
    if not restating:
        return f"None of {count(len(rows), 'kind')} of heat map only repeats the predicted mask."
    only = "only repeats" if restating == 1 else "only repeat"
    they = "It shows" if restating == 1 else "They show"
    return (
        f"{restating} of {count(len(rows), 'kind')} of heat map (method, layer and target) {only} the "
        f"predicted mask. {they} where the model answered. {they.split()[0]} "
        f"{'does' if restating == 1 else 'do'} not show why."
    )


def about_judgement(parts: Iterable[Judged]) -> str:
    """Describe how the maps were judged; empty without a scorecard."""
    rows = [row for part in parts for row in part.table.rows]
    if not rows:
        return ""
    counts = Counter(row.verdict for row in rows)
    verdicts = ("pass", "warn", "fail", "not evaluable")
    verdict_counts = ", ".join(f"{counts[verdict]} {verdict}" for verdict in verdicts if counts[verdict])
    passed: dict[str, list[str]] = {}
    for row in rows:
        if row.verdict == "pass":
            passed.setdefault(row.score, []).append(map_name(row.method, row.layer, at=" at "))
    beaten = "".join(f" Passed in {score}: {', '.join(names)}." for score, names in passed.items())
    nothing = (
        "" if passed else " No map beats the reference maps, which are made without looking into the model."
    )
    return f"Scorecard: {verdict_counts}.{beaten}{nothing}"


def how_found(shortcut: TagTest) -> list[str]:
    """Describe step by step how the planted shortcut was found, with the numbers of the check."""
    steps = []
    dice = shortcut.dice
    if len(dice) > 1:
        gap = max(dice.values()) - min(dice.values())
        scores = " and ".join(f"{name} {value:.3f}" for name, value in dice.items())
        told = "The scores do not tell the models apart" if gap < 0.05 else "The scores differ"
        steps.append(f"{told}: Dice {scores}.")
    for name, row in shortcut.causal.items():
        if row.drop_removed is None:
            continue
        moved = row.drop_moved
        also = "" if moved is None else f" When we move the tag elsewhere, it {_change(moved)}."
        steps.append(
            f"We removed the tag from {count(row.num, 'picture')}. The {name} model "
            f"{_change(row.drop_removed)}: {number(row.full, 2)} becomes {number(row.tag_removed, 2)}.{also}"
        )
    measured = [(row.auroc, row) for row in shortcut.methods if row.auroc is not None]
    if measured:
        auroc, best = max(measured, key=lambda pair: pair[0])
        steps.append(
            "The heat on the tag tells the two models apart, best with "
            f"{map_name(best.method, best.layer, at=' at ')}: AUROC {number(auroc, 2)}{_interval(best)}. "
            "0.5 would mean: not at all."
        )
    return steps


def both_true(shortcut: TagTest, runs: Iterable[RunContents]) -> str:
    """Say why a map may find the tag and fail a score all the same; empty where no map does both."""
    finding = {(row.method, row.layer) for row in shortcut.methods if row.exposes}
    rows = [row for run in runs for part in run.scorecards for row in part.table.rows]
    failing = {
        (row.method, row.layer): map_name(row.method, row.layer, at=" at ")
        for row in rows
        if row.verdict == "fail" and (row.method, row.layer) in finding
    }
    if not failing:
        return ""
    names = " and ".join(failing.values())
    return (
        f"Why does {names} find the tag and still fail in the scorecard? Both are true: to find the tag, "
        "a map must light up at one place; to pass, it must rank all cells of the picture better than a "
        "reference map."
    )


def _interval(row: Spread | TagRow) -> str:
    known = row.low is not None and row.high is not None
    return f" (95 % interval {row.low:.3f} to {row.high:.3f})" if known else ""


def _change(drop: int | float) -> str:
    """Return a relative drop of the score in words."""
    if abs(drop) < 0.005:
        return "keeps its score"
    return f"{'loses' if drop > 0 else 'gains'} {abs(drop):.0%} of its score"


def _are(num: int, noun: str) -> str:
    return f"No {noun} is" if num == 0 else f"{count(num, noun)} {'is' if num == 1 else 'are'}"


def _last_part(path: object) -> str:
    return str(path).rstrip("/").rpartition("/")[2] or str(path)

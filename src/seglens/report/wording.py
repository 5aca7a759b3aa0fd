"""The tables in plain sentences."""

from collections import Counter
from collections.abc import Iterable

from seglens.report.contents import Evaluated, Explained, Judged, RunContents
from seglens.results.names import RESTATES, map_name, number
from seglens.results.scorecard import TagRow, TagTest
from seglens.results.spread import Spread


def about_model(run: RunContents) -> str:
    """Describe the model and its origin."""
    record, model = run.record, run.record.model or {}
    encoder = f" with encoder {model['encoder']}" if model.get("encoder") else ""
    size = f" at {model['image_size']} pixels" if model.get("image_size") else ""
    what = f"{model.get('architecture') or 'A model'}{encoder}"
    classes = [str(name) for name in (record.task or {}).get("classes", [])[1:]]
    finds = f" It marks: {', '.join(classes)}." if classes else ""
    if record.kind == "adopt":
        source = record.settings.get("file") or "a checkpoint"
        return f"{what}, taken over from {source} and run{size}.{finds}"
    if record.kind != "train":
        return f"{what}{size}.{finds}"
    data = (record.data or {}).get("path")
    where = f" on {_last_part(data)}" if data else ""
    num = record.results.get("num_train")
    pictures = f" on {num} pictures" if num else ""
    of_data = where.replace(" on ", " of ", 1) if pictures else where
    epochs = len(next(iter(run.history.values()), [])) or record.settings.get("epochs")
    rounds = f" for {epochs} epochs" if epochs else ""
    changed = ", with augmentation" if record.settings.get("augment") else ", without augmentation"
    unfinished = " Training has not finished." if record.state != "finished" else ""
    return f"{what}, trained{pictures}{of_data}{size}{rounds}{changed}.{finds}{unfinished}"


def about_scores(part: Evaluated) -> str:
    """Describe the scores of the model on one split, and its worst pictures."""
    table, split, dice = part.table, part.split, part.table.average("dice")
    rows = [(row.dice, row.name) for row in table.images if row.dice is not None]
    scored = _count(len(rows) or table.num_images or 0, "picture")
    shown = table.shown
    absent = ", ".join(str(label) for label, count in shown.items() if not count)
    if shown and not any(shown.values()):
        return f"0 of {scored} of the {split} split show {absent}: how well it is found can't be said there."
    text = (
        f"On {scored} of the {split} split the Dice score is {number(table.pooled.dice)} pooled over all "
        f"pixels and {number(dice.mean)} on average per picture{_interval(dice)}."
    )
    if rows:
        low = sum(found < 0.5 for found, _ in rows)
        worst, name = min(rows, key=lambda row: row[0])
        text += f" {_are(low, 'picture')} below 0.5; the worst is {name} ({number(worst, 2)})."
    if table.objects.at and table.objects.truth:
        at = table.objects.at[0]
        text += (
            f" {at.found} of {_count(table.objects.truth, 'object')} are found (overlap {at.overlap:g} at "
            f"least), {at.missed} missed and {at.invented} invented."
        )
    if table.resampling.text:
        text += f" {table.resampling.text}"
    if absent:
        text += f" No picture shows {absent}."
    if table.num_failed:
        text += f" {_count(table.num_failed, 'picture')} could not be scored."
    return text


def about_maps(parts: Iterable[Explained]) -> str:
    """Return how many maps are no better than the prediction itself; empty without maps."""
    rows = [row for part in parts for row in part.table.summary]
    if not rows:
        return ""
    restating = sum(row.label == RESTATES for row in rows)
    if not restating:
        return f"None of the {_count(len(rows), 'kind')} of heat map merely restates the prediction."
    does, they = ("does", "It shows") if restating == 1 else ("do", "They show")
    return (
        f"{restating} of {_count(len(rows), 'kind')} of heat map (method, layer and target) {does} no better "
        f"than the prediction itself made coarse. {they} where the model answered, not why."
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
    nothing = "" if passed else " No map was shown to beat maps that know nothing of the model's reasons."
    return f"Scorecard: {verdict_counts}.{beaten}{nothing}"


def how_found(shortcut: TagTest) -> list[str]:
    """Describe step by step how the planted shortcut was found, with the numbers of the check."""
    steps = []
    dice = shortcut.dice
    if len(dice) > 1:
        gap = max(dice.values()) - min(dice.values())
        scores = " and ".join(f"{name} {value:.3f}" for name, value in dice.items())
        steps.append(f"{'The scores cannot tell' if gap < 0.05 else 'The scores differ'}: Dice {scores}.")
    for name, row in shortcut.causal.items():
        if row.drop_removed is None:
            continue
        moved = row.drop_moved
        also = "" if moved is None else f" With the tag moved elsewhere it {_change(moved)}."
        steps.append(
            f"Causal check on {_count(row.num, 'picture')}: without the tag the {name} model "
            f"{_change(row.drop_removed)} ({number(row.full, 2)} becomes "
            f"{number(row.tag_removed, 2)}).{also}"
        )
    measured = [(row.auroc, row) for row in shortcut.methods if row.auroc is not None]
    if measured:
        auroc, best = max(measured, key=lambda pair: pair[0])
        steps.append(
            f"Heat on the tag: {map_name(best.method, best.layer, at=' at ')} tells the two models apart "
            f"with AUROC {number(auroc, 2)}{_interval(best)}; 0.5 would be a coin toss."
        )
    return steps


def _interval(row: Spread | TagRow) -> str:
    known = row.low is not None and row.high is not None
    return f" (95 % interval {row.low:.3f} to {row.high:.3f})" if known else ""


def _change(drop: int | float) -> str:
    """Return a relative drop of the score in words."""
    if abs(drop) < 0.005:
        return "keeps its answer"
    return f"{'loses' if drop > 0 else 'gains'} {abs(drop):.0%} of its answer"


def _count(num: int, noun: str) -> str:
    return f"{num} {noun}" if num == 1 else f"{num} {noun}s"


def _are(num: int, noun: str) -> str:
    return f"No {noun} is" if num == 0 else f"{_count(num, noun)} {'is' if num == 1 else 'are'}"


def _last_part(path: object) -> str:
    return str(path).rstrip("/").rpartition("/")[2] or str(path)

"""What the tables say, in plain sentences."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from seglens.report.contents import Part, RunContents
from seglens.results.names import RESTATES, number


def about_model(run: RunContents) -> str:
    """Say what the model is and where it came from."""
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


def about_scores(part: Part) -> str:
    """Say how good the model is on one split, and how bad it gets."""
    table, split = part.table, part.table.get("split", part.name)
    pooled, dice = table.get("pooled", {}).get("dice"), table.get("per_image", {}).get("dice", {})
    rows = [row for row in table.get("images", []) if isinstance(row.get("dice"), int | float)]
    scored = _count(len(rows) or table.get("num_images", 0), "picture")
    shown = table.get("shown") or {}
    absent = ", ".join(str(label) for label, count in shown.items() if not count)
    if shown and not any(shown.values()):
        return f"0 of {scored} of the {split} split show {absent}: how well it is found can't be said there."
    text = (
        f"On {scored} of the {split} split the Dice score is {number(pooled)} pooled over all pixels and "
        f"{number(dice.get('mean'))} on average per picture{_interval(dice)}."
    )
    if rows:
        low = sum(row["dice"] < 0.5 for row in rows)
        worst = min(rows, key=lambda row: row["dice"])
        text += (
            f" {_are(low, 'picture')} below 0.5; the worst is {worst['name']} ({number(worst['dice'], 2)})."
        )
    if absent:
        text += f" No picture shows {absent}."
    if table.get("num_failed"):
        text += f" {_count(table['num_failed'], 'picture')} could not be scored."
    return text


def about_maps(parts: Iterable[Part]) -> str:
    """Say how many maps do no better than the prediction itself; empty without maps."""
    rows = [row for part in parts for row in part.table.get("summary", [])]
    if not rows:
        return ""
    restating = sum(row.get("label") == RESTATES for row in rows)
    if not restating:
        return f"None of the {_count(len(rows), 'kind')} of heat map merely restates the prediction."
    does, they = ("does", "It shows") if restating == 1 else ("do", "They show")
    return (
        f"{restating} of {_count(len(rows), 'kind')} of heat map (method, layer and target) {does} no better "
        f"than the prediction itself made coarse. {they} where the model answered, not why."
    )


def about_judgement(parts: Iterable[Part]) -> str:
    """Say how the maps were judged; empty without a scorecard."""
    rows = [row for part in parts for row in part.table.get("rows", [])]
    if not rows:
        return ""
    counts = Counter(str(row.get("verdict")) for row in rows)
    verdicts = ("pass", "warn", "fail", "not evaluable")
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in verdicts if counts[verdict])
    passed: dict[str, list[str]] = {}
    for row in rows:
        if row.get("verdict") == "pass":
            passed.setdefault(str(row.get("score")), []).append(_map_name(row))
    beaten = "".join(f" Passed in {score}: {', '.join(names)}." for score, names in passed.items())
    nothing = "" if passed else " No map was shown to beat maps that know nothing of the model's reasons."
    return f"Scorecard: {told}.{beaten}{nothing}"


def how_found(shortcut: Mapping[str, Any]) -> list[str]:
    """Say step by step how the planted shortcut was found, from the numbers of the check."""
    models, causal = shortcut.get("models", {}), shortcut.get("causal", {})
    steps = []
    dice = {name: model["dice"] for name, model in models.items() if model.get("dice") is not None}
    if len(dice) > 1:
        gap = max(dice.values()) - min(dice.values())
        told = " and ".join(f"{name} {value:.3f}" for name, value in dice.items())
        steps.append(f"{'The scores cannot tell' if gap < 0.05 else 'The scores differ'}: Dice {told}.")
    for name, row in causal.items():
        if row.get("drop_removed") is None:
            continue
        moved = row.get("drop_moved")
        also = "" if moved is None else f" With the tag moved elsewhere it {_change(moved)}."
        steps.append(
            f"Causal check on {_count(row.get('num', 0), 'picture')}: without the tag the {name} model "
            f"{_change(row['drop_removed'])} ({number(row.get('full'), 2)} becomes "
            f"{number(row.get('tag_removed'), 2)}).{also}"
        )
    measured = [row for row in shortcut.get("methods", []) if row.get("auroc") is not None]
    if measured:
        best = max(measured, key=lambda row: row["auroc"])
        steps.append(
            f"Heat on the tag: {_map_name(best)} tells the two models apart with AUROC "
            f"{number(best['auroc'], 2)}{_interval(best)}; 0.5 would be a coin toss."
        )
    return steps


def _map_name(row: Mapping[str, Any]) -> str:
    return f"{row.get('method')} at {row['layer']}" if row.get("layer") else str(row.get("method"))


def _interval(row: Mapping[str, Any]) -> str:
    low, high = row.get("low"), row.get("high")
    return "" if low is None or high is None else f" (95 % interval {low:.3f} to {high:.3f})"


def _change(drop: int | float) -> str:
    """Say a relative drop of the answer; what rounds to nothing is said to be nothing."""
    if abs(drop) < 0.005:
        return "keeps its answer"
    return f"{'loses' if drop > 0 else 'gains'} {abs(drop):.0%} of its answer"


def _count(num: int, noun: str) -> str:
    return f"{num} {noun}" if num == 1 else f"{num} {noun}s"


def _are(num: int, noun: str) -> str:
    return f"No {noun} is" if num == 0 else f"{_count(num, noun)} {'is' if num == 1 else 'are'}"


def _last_part(path: object) -> str:
    return str(path).rstrip("/").rpartition("/")[2] or str(path)

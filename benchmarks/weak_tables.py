"""The tables and the figure of ``benchmarks/WEAK.md``, from the lines of ``benchmarks/weak.jsonl``."""

import json
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- tables -->", "<!-- end of tables -->"

Line = dict[str, Any]

COLUMNS = (
    "row", "model", "px", "epochs", "rounds", "seed", "learned from", "test mIoU", "object IoU",
    "object IoU per picture", "mIoU, no border", "object IoU, no border", "mIoU per batch",
    "of fully supervised", "seconds of training",
)  # fmt: skip


def write_page(results: Path, page: Path, figure: Path) -> None:
    """Put the tables of all results between the two marks of ``page``, and draw the figure."""
    lines = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    found = {line["row"]: line for line in lines}
    parts = [students(found), "", "### What each stage adds", "", ablation(found), "", thresholds(found), ""]
    parts += ["### Seconds", "", seconds(found)]
    text = page.read_text() if page.exists() else f"{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n" + "\n".join(parts) + f"\n{END}{rest.partition(END)[2]}")
    if "weak-unet" in found:
        draw(found, figure)


def students(found: dict[str, Line]) -> str:
    """Return the table of students on the test split; rows without figures say ``not run``."""
    from benchmarks.weak import ROWS

    text = [_cells(COLUMNS), "|---" * len(COLUMNS) + "|"]
    for name, row in ROWS.items():
        learned = "masks" if row.verb == "train" else "labels"
        start = [row.model, str(row.image_size), str(row.epochs)]
        if name not in found:
            rest = [
                str(row.rounds),
                str(row.seed),
                learned,
                f"not run: `python -m benchmarks.weak ... {name}`",
            ]
            text.append(_cells([f"`{name}`", *start, *rest, *[""] * (len(COLUMNS) - 4 - len(rest))]))
            continue
        full = _of(found, row, "full")
        scored = [each for each in found[name]["rows"] if each["split"] == "test"]
        for number, each in enumerate(scored):
            per = each["fg_iou_per_image"]
            share = "" if full is None or row.verb == "train" else f"{each['miou'] / full:.1%}"
            text.append(
                _cells(
                    [
                        f"`{name}`" if number == 0 else f"`{name}`, round {number}",
                        *start,
                        str(number),
                        str(row.seed),
                        learned,
                        f"{each['miou']:.3f}",
                        f"{each['fg_iou']:.3f}",
                        f"{per['mean']:.3f} ({per['low']:.3f} to {per['high']:.3f})",
                        _number(each["miou_no_border"]),
                        _number(each["fg_iou_no_border"]),
                        f"{each['miou_per_batch']:.3f}",
                        share,
                        f"{each['seconds']:.0f}",
                    ]
                )
            )
    return "\n".join(text)


def ablation(found: dict[str, Line]) -> str:
    """Return what every stage makes of the training pictures, and what it adds to the one before."""
    columns = (
        "stage (on the 356 pictures of trainval)", "mIoU", "object IoU", "gain in object IoU",
        "object IoU per picture", "mIoU, no border", "object IoU, no border", "decided on", "threshold",
    )  # fmt: skip
    text = [_cells(columns), "|---" * len(columns) + "|"]
    for name, title in (("cam-unet", "reference: "), ("weak-unet", "")):
        if name not in found:
            text.append(_cells([f"`{name}`: not run", *[""] * (len(columns) - 1)]))
            continue
        before = None
        for each in _stages(found[name]):
            per = each["fg_iou_per_image"]
            aside = each["uses_masks"] or "fixed" in each["name"]
            aside |= each["decided"] < 1
            gain = "" if before is None or aside else f"{each['fg_iou'] - before:+.3f}"
            before = before if aside else each["fg_iou"]
            text.append(
                _cells(
                    [
                        f"{title}{each['name']}{' *' if each['uses_masks'] else ''}",
                        f"{each['miou']:.3f}",
                        f"{each['fg_iou']:.3f}",
                        gain,
                        f"{per['mean']:.3f}",
                        _number(each["miou_no_border"]),
                        _number(each["fg_iou_no_border"]),
                        f"{each['decided']:.0%}",
                        _number(each.get("threshold")),
                    ]
                )
            )
    text += ["", "\\* The threshold was chosen on masks: a bound, no result of weak supervision."]
    return "\n".join(text)


def thresholds(found: dict[str, Line]) -> str:
    """Return the thresholds chosen without masks next to the best ones, and mIoU over the threshold."""
    text = [
        "| map | chosen without masks | best on masks | "
        + " | ".join(f"mIoU at {t / 10:g}" for t in range(1, 10))
    ]
    text[0] += " |"
    text.append("|---" * 12 + "|")
    for name in ("cam-unet", "weak-unet"):
        for stage, entry in found.get(name, {}).get("curves", {}).items():
            curve = dict(
                zip((round(t, 3) for t in entry["curve"]["threshold"]), entry["curve"]["miou"], strict=True)
            )
            cells = [f"{curve[t / 10]:.3f}" for t in range(1, 10)]
            known = _threshold(found[name], stage)
            title = stage.removesuffix(", oracle threshold")
            title = f"reference: {title}" if name == "cam-unet" else title
            text.append(_cells([title, _number(known), f"{entry['threshold']:.3f}", *cells]))
    return "\n".join(text)


def seconds(found: dict[str, Line]) -> str:
    """Return what every step took, and what it would take to cut superpixels anew in every round."""
    if "weak-unet" not in found:
        return "not run"
    line = found["weak-unet"]
    text = ["| step | seconds on the clock | of the processor | once for the set |", "|---|---|---|---|"]
    for stage, facts in line["stages"].items():
        # Stages of before the processor's seconds were kept have none.
        spent = (facts["seconds"], facts["processor_seconds"] or None, facts["once"])
        text.append(_cells([stage, *("-" if value is None else f"{value:.0f}" for value in spent)]))
    for name, facts in line["steps"].items():
        if name != "pseudo-masks":
            spent = (facts["seconds"], facts["processor_seconds"])
            text.append(_cells([name, *("-" if value is None else f"{value:.0f}" for value in spent), ""]))
    patches = line["stages"].get("patches")
    if patches:
        cut = patches["seconds"]
        text += [
            "",
            f"Superpixels are cut once: {cut:.0f} s on the clock for all rounds. Cut anew for the masks "
            f"and in each of the reference's ten rounds they would take {cut * 11:.0f} s.",
        ]
    agreed = ", ".join(f"{value:.3f}" for value in line["agreement"])
    text += [
        "",
        f"Agreement of each student's answers with those before (mIoU; the first with its masks): {agreed}.",
    ]
    return "\n".join(text)


def draw(found: dict[str, Line], file: Path) -> None:
    """Draw what each stage adds, and mIoU over the threshold: numbers only."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.6), constrained_layout=True)
    bars = []
    for name, title in (("cam-unet", "reference: "), ("weak-unet", "")):
        kept = [each for each in _stages(found.get(name, {"rows": []})) if not each["uses_masks"]]
        bars += [(title + each["name"], each["fg_iou"]) for each in kept]
    for name, title in (("cam-unet", "reference: "), ("voted-unet", "voted masks: "), ("weak-unet", "")):
        tested = [each for each in found.get(name, {"rows": []})["rows"] if each["split"] == "test"]
        bars += [(f"{title}{each['name']} (test)", each["fg_iou"]) for each in tested]
    if "full-unet" in found:
        bars.append(("fully supervised student (test)", found["full-unet"]["rows"][0]["fg_iou"]))
    names, values = zip(*reversed(bars), strict=True)
    colours = [
        "#9ca3af" if "reference" in name else "#0072b2" if "(test)" in name else "#e69f00" for name in names
    ]
    left.barh(names, values, color=colours)
    left.set_xlim(0, 1)
    left.set_xlabel("object IoU, pooled (border as object)")
    left.set_title("Stages on trainval (356 pictures), students on test (232)", fontsize=9, loc="left")
    for place, value in enumerate(values):
        left.text(value + 0.01, place, f"{value:.3f}", va="center", fontsize=8)
    for name, style in (("cam-unet", ":"), ("weak-unet", "-")):
        for stage, entry in found.get(name, {}).get("curves", {}).items():
            title = stage.removesuffix(", oracle threshold")
            title = f"reference: {title}" if name == "cam-unet" else title
            curve = entry["curve"]
            (drawn,) = right.plot(curve["threshold"], curve["miou"], style, label=title)
            known = _threshold(found[name], stage)
            if known is not None:
                place = min(range(len(curve["miou"])), key=lambda at: abs(curve["threshold"][at] - known))
                right.plot(known, curve["miou"][place], "o", color=drawn.get_color())
    right.set_xlabel("threshold (dots: chosen without masks)")
    right.set_ylabel("mIoU, pooled")
    right.set_title("mIoU over the threshold, trainval", fontsize=9, loc="left")
    right.legend(fontsize=8)
    figure.savefig(file, dpi=110)


def _of(found: dict[str, Line], row: Any, kind: str) -> float | None:
    """Return the mIoU of the fully supervised row with the same model, size, epochs and seed."""
    from benchmarks.weak import ROWS

    for name, other in ROWS.items():
        same = all(
            getattr(other, key) == getattr(row, key)
            for key in ("model", "image_size", "epochs", "encoder", "seed")
        )
        if other.verb == "train" and same and name in found:
            return float(found[name]["rows"][0]["miou"])
    return None


def _stages(line: Line) -> list[dict[str, Any]]:
    return [each for each in line["rows"] if each["split"] == "train"]


def _threshold(line: Line, title: str) -> float | None:
    """Return the threshold that a stage chose without masks."""
    from seglens.weak.table import TITLES

    names = {value: key for key, value in TITLES.items()}
    stage = names.get(title.removesuffix(", oracle threshold"))
    return None if stage is None else line["stages"][stage]["threshold"]


def _cells(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"

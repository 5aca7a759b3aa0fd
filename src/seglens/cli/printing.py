"""Results are printed: tables for the terminal, plain data for ``--json``. No numbers are computed here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seglens.cli.terminal import list_failed, print_result, print_table, say
from seglens.results.names import REPEATS, attention_ratio, count, formatted, label_in_words, null_in_words

if TYPE_CHECKING:
    from seglens.data.volumes.slices import Slices
    from seglens.folder import Summary
    from seglens.results.maps import ExplanationTable
    from seglens.results.objects import ObjectTable
    from seglens.results.record import Record
    from seglens.results.scorecard import Audit, Card
    from seglens.results.scores import EvaluationTable
    from seglens.results.spread import Spread
    from seglens.results.strata import StrataTable
    from seglens.runs.export import Exported

PrintedRow = Mapping[str, Any]

DEGENERATE = "where the layer holds no evidence for the class"

SHOWN = 3
"""How many pictures a finding names; JSON has all."""


def print_file(kind: str, file: Path) -> None:
    """Print where a single file was written; ``kind`` is what JSON calls it."""
    print_result({kind: str(file)}, lambda: say(f"The {kind} is in {file}"))


def print_pushed(address: str) -> None:
    """Print where a run was shared."""
    lines = f"The run is at {address}\nSent: weights, record and model card; no picture, no name, no path."
    print_result({"repository": address}, lambda: say(lines))


def print_batch(what: str, done: "Summary", more: Mapping[str, object], *tables: Callable[[], None]) -> None:
    """Print what a batch came to: ``tables``, where it is, and what could not be done.

    Ends with exit code 1 where some of it could not be done. ``more`` goes into the JSON document.
    """
    failed = [(failure.name, failure.error) for failure in done.failed]

    def show() -> None:
        for each in tables:
            each()
        say(f"{count(done.num_done, 'picture')} {what}: {done.folder}")

    plain = {"folder": str(done.folder), "num_done": done.num_done}
    plain["failed"] = [{"name": name, "error": error} for name, error in failed]
    print_result({**plain, **more}, show)
    list_failed(failed, done.num_done + len(failed))


def print_explained(done: "Summary") -> None:
    """Print what explaining a folder came to."""
    if done.maps is not None:
        print_batch("explained", done, {"summary": done.maps.summary}, partial(_show_maps, done.maps))


def print_judged(done: "Summary", show_left_out: Callable[[Sequence[str]], None]) -> None:
    """Print what judging a folder came to; ``show_left_out`` prints which scores were left out."""
    card, audit = done.card, done.audit
    if card is None:
        return
    from seglens.results.recommendation import lines_of  # not above, as in `print_result`

    more: dict[str, object] = {
        "rows": card.rows,
        "restating": card.restating,
        "left_out": card.left_out,
        "passes": card.passes,
        "recommendation": card.recommendation,
    }
    tables: list[Callable[[], None]] = [
        partial(_show_card, card),
        partial(_show_restating, card),
        lambda: say(card.judged_in_words),
        lambda: say(*lines_of(card.recommendation)),
        lambda: show_left_out(card.left_out),
    ]
    if audit is not None:
        more["audit"] = audit
        tables.append(partial(_show_audit, audit))
    print_batch("judged", done, more, *tables)


def print_recommendation(card: "Card") -> None:
    """Print which maps to show, by a scorecard alone."""
    from seglens.results.recommendation import lines_of, recommend

    found = recommend(card.rows, card.left_out, card.dims)
    print_result({"recommendation": found}, lambda: say(*lines_of(found)))


def print_findings(found: PrintedRow) -> None:
    """Print what a check of a set found, errors first."""
    print_result(found, partial(_show_findings, found))


def _show_findings(found: PrintedRow) -> None:
    splits = ", ".join(f"{num} {name}" for name, num in found["splits"].items()) or "no pictures"
    say(f"Layout {found['layout']}: {splits}.")
    for row in found["counts"]:
        say(
            f"{row['split']}: {row['name']} in {row['pictures']} of {count(row['of'], 'picture')}, "
            f"{count(row['objects'], 'object')}, {count(row['pixels'], 'pixel')}."
        )
    for finding in found["findings"]:
        names, num = finding["names"], len(finding["names"])
        listed = f" ({num}: {', '.join(names[:SHOWN])}{', ...' if num > SHOWN else ''})" if names else ""
        say(f"{finding['severity']}: {finding['kind']}: {finding['text']}{listed}")


def print_public_set(folder: Path) -> None:
    """Print what was downloaded, who may use it and what to cite."""
    found = record_of(folder).results
    lines = (
        f"{folder}: {found['title']} ({count(found['num_files'], 'file')}).",
        f"Licence: {found['licence']}.",
        f"To cite: {found['citation']}",
        f"Try: seglens data check {folder}",
    )
    print_result({"folder": str(folder), **found}, lambda: say(*lines))


def print_slices(made: "Slices") -> None:
    """Print how many slices of how many volumes were written, and what to type next."""
    counted = ", ".join(f"{split} {made.slices[split]} of {number}" for split, number in made.volumes.items())
    dropped = f" {made.dropped} empty slices of train were left out." if made.dropped else ""
    names = " ".join(made.classes)
    document = {
        "folder": str(made.folder),
        "classes": list(made.classes),
        "volumes": made.volumes,
        "slices": made.slices,
        "dropped": made.dropped,
    }
    lines = (
        f"{made.folder}: slices of volumes: {counted}.{dropped}",
        f"Try: seglens train {made.folder} --classes {names} --channels 1 --run runs/slices",
    )
    print_result(document, lambda: say(*lines))


def print_training(run: Path) -> None:
    """Print what a training came to."""
    results = record_of(run).results
    chosen, how = results.get("valid_at_threshold"), ""
    valid = chosen or results["valid"]
    if chosen:
        thresholds = results.get("thresholds") or {"": results["threshold"]}
        at = ", ".join(f"{name} {value['threshold']:g}".strip() for name, value in thresholds.items())
        how = f" at the threshold chosen there, {at} (at 0.5: Dice {formatted_number(valid['dice_at_half'])})"
    folds, where = results.get("folds"), "on the valid split"
    what = f"weights of epoch {results['best_epoch']} of {results['epochs']}"
    if folds:
        each = ", ".join(formatted_number(fold["valid"]["dice"]) for fold in folds)
        what = f"{len(folds)} folds (Dice {each})"
        where = "on what each network had not learned from"
    calibrated = results.get("calibration")
    if calibrated:
        how += (
            f"; temperature {calibrated['temperature']:.2f}: calibration error "
            f"{formatted_number(calibrated['error_before'])} before, "
            f"{formatted_number(calibrated['error_after'])} after"
        )
    text = (
        f"{run}: {what}; {where} Dice {formatted_number(valid['dice'])}, IoU "
        f"{formatted_number(valid['iou'])}{how}. Try: seglens evaluate {run}"
    )
    print_result({"run": str(run), **results}, lambda: say(text))


def print_exported(exported: "Exported") -> None:
    """Print where a network was written, what it takes and gives, and how near it comes to the run."""
    lines = [
        f"The network is in {exported.file}.",
        f"It takes {exported.inputs} and gives {exported.outputs}.",
        f"Beside the run: probabilities differ by {exported.largest_difference:.1e} at most, "
        f"{exported.num_other} of {count(exported.num_pixels, 'pixel')} of the masks.",
    ]
    print_result({**asdict(exported), "file": str(exported.file)}, lambda: say("\n".join(lines)))


def print_adopted(run: Path, adopted: PrintedRow) -> None:
    """Print what a checkpoint became, what was read from it, and what had to be assumed."""
    record = record_of(run)
    results, key = record.results, record.settings["weights_key"]
    lines = [f"{run}: {adopted['model']['architecture']} for {', '.join(adopted['classes'])}."]
    lines += [f"Weights: {key} of {record.settings['file']}."] if key else []
    for what, values in (
        ("Read from the file", results["read_from_tensors"]),
        (
            "Assumed, as the file doesn't tell (--set changes it, or --mean, --std, --image-size, --head)",
            results["assumed"],
        ),
    ):
        if values:
            lines.append(f"{what}: {', '.join(f'{name}={value}' for name, value in values.items())}.")
    closed = adopted["model"]["architecture"] == "network-file"
    what = f"explain {run} IMAGE --methods occlusion" if closed else f"layers {run}"
    lines.append(f"Try: seglens {what}")
    print_result({**adopted, **results, "weights_key": key}, lambda: say("\n".join(lines)))


def print_evaluation(found: "EvaluationTable", folder: Path) -> None:
    """Print an evaluation: every score, pooled over pixels and averaged over pictures, and where it is."""

    def show() -> None:
        _show_evaluation(found)
        say(f"The scores are in {folder}")

    print_result(found, show)


def _show_evaluation(found: "EvaluationTable") -> None:
    rows = [
        (
            score.replace("_", " "),
            formatted_number(found.pooled.score(score)),
            formatted_number(values.mean),
            _range(values.low, values.high),
            formatted_number(values.median),
        )
        for score, values in found.per_image.items()
    ]
    scored = len(found.images) - found.num_failed
    title = f"{found.split} split, {count(scored, 'picture')}, at the original resolution"
    print_table(("score", "pooled", "per image, mean", "95 % interval", "median"), rows, title=title)
    threshold = found.settings.get("threshold")
    if isinstance(threshold, float):
        say(f"A pixel is foreground from a probability of {threshold:g} on (the threshold of the run).")
    by_class = found.pooled.per_class
    if len(by_class) > 2:
        columns = ("dice", "iou", "precision", "recall")
        lines = [
            (label, *(formatted_number(values[name]) for name in columns))
            for label, values in by_class.items()
        ]
        print_table(("class", *columns), lines, title="Each class, pooled over the pixels of all pictures")
    if found.per_class:
        columns = ("dice", "nsd", "hd95", "difference_ml")
        lines = [
            (
                label,
                *(
                    f"{formatted_number(each[name].mean)} {_range(each[name].low, each[name].high)}"
                    for name in columns
                ),
            )
            for label, each in found.per_class.items()
        ]
        heads = ("class", "dice", "nsd (2 mm)", "hd95, mm", "volume off by, ml")
        print_table(heads, lines, title="Each class, mean over volumes with 95 % interval")
    _show_objects(found.objects)
    _show_strata(found.strata)
    say(*filter(None, (found.emptiness.text, found.resampling.text)))
    for label, shown in found.shown.items():
        if not shown:
            say(
                f"None of {count(scored, 'picture')} shows {label}: this split cannot say how well it is "
                "found."
            )
    error, worst = (
        formatted_number(found.calibration.error),
        formatted_number(found.calibration.maximum_error),
    )
    say(f"Probabilities are off by {error} on average, {worst} at most (calibration error).")
    say(*(each.text for each in found.uncertainty))
    for advice in found.advice:
        names = ", ".join(name.replace("_", " ") for name in advice.scores)
        say(f"{'Read' if advice.read else 'Careful with'} {names}: {advice.text} ({advice.source})")


def _show_objects(found: "ObjectTable") -> None:
    if not found.pictures:
        return
    what = "as the data tell them apart" if found.told_apart else "connected pieces"
    title = f"{count(found.truth, 'true object')} ({what}), {found.predicted} predicted"
    rows = [
        (
            f"{row.overlap:g}",
            *map(_with_range, (row.sensitivity, row.precision, row.f1, row.invented_per_picture)),
            f"{row.missed} / {row.invented}",
        )
        for row in found.at
    ]
    heads = ("overlap", "sensitivity", "precision", "F1", "invented per picture", "missed / invented")
    print_table(heads, rows, title=title)
    if len(found.sizes) > 1 and found.truth:
        lines = [
            (
                f"{row.low:.4g} to {'any' if row.high is None else f'{row.high:.4g}'} {found.unit}",
                f"{row.found} of {row.truth}",
                _with_range(row.sensitivity),
                str(row.invented),
            )
            for row in found.sizes
        ]
        print_table(("size", "found", "sensitivity", "invented"), lines, title="By size, at an overlap of .1")
    quality, jaccard, average = (
        formatted_number(each.mean)
        for each in (found.panoptic_quality, found.aggregated_jaccard, found.average_precision)
    )
    say(
        f"Panoptic quality {quality}, aggregated Jaccard {jaccard}, average precision .5 to .95 {average}; "
        f"{count(found.merges, 'merge')}, {count(found.splits, 'split')}. Pictures without any object: "
        f"{found.empty}; with predicted objects only: {found.no_truth}; with true objects only: "
        f"{found.nothing_found}."
    )


def _show_strata(found: "StrataTable") -> None:
    rows = [
        (
            f"{row.column}: {row.value}",
            f"{row.num} / {row.num_groups}",
            *(_with_range(row.scores[name]) for name in ("dice", "precision", "recall")),
            _with_range(row.difference),
            formatted_number(row.p_adjusted),
        )
        for row in found.strata
    ]
    heads = (
        "stratum",
        "pictures / groups",
        "dice",
        "precision",
        "recall",
        "difference to the others",
        "p (Holm)",
    )
    if rows:
        print_table(heads, rows, title="Subgroups, per image, the worst first")
    say(*found.sentences)


def print_plan(rows: Sequence[Mapping[str, str]]) -> None:
    """Print what an explanation would take: a row for each pass, the rest, and the sum."""
    print_result(rows, lambda: print_table(tuple(rows[0]), [tuple(row.values()) for row in rows]))


def print_layers(layers: Sequence[PrintedRow]) -> None:
    """Print the layers that can be explained."""
    rows = [
        (
            layer["name"],
            " ".join(layer["roles"]),
            layer["type"],
            " x ".join(map(str, layer["shape"])),
            str(layer["stride"]),
            layer["advice"],
        )
        for layer in layers
    ]
    slices = " x slices" * any(len(layer["shape"]) == 4 for layer in layers)
    columns = ("layer", "roles", "type", f"channels{slices} x rows x columns", "stride", "note")
    print_result(layers, lambda: print_table(columns, rows))


def _show_maps(found: "ExplanationTable") -> None:
    """Print the mean attention of every map next to the largest that a map without content gets."""
    rows = []
    several, outside = len(found.targets) > 1, found.where == "context"
    for row in found.summary:
        best = row.best_null
        rows.append(
            (
                f"{row.target}: {row.name}" if several else row.name,
                formatted_number(row.statistic("mass_context").mean) if outside else row.ratio_in_words(),
                f"{row.ratio_in_words(best)} ({null_in_words(best)})" if best else "-",
                f"{row.num_ok} of {row.num_total}",
                str(row.num_no_target),
                label_in_words(row.label),
            )
        )
    measured = "share outside of the target" if outside else "attention ratio"
    print_table(("map", measured, "best reference map", "pictures", "no target", ""), rows)
    if any(row.num_no_target for row in found.summary):
        say("no target: so many pictures have no pixel of this target, and so no map.")
    for row in found.summary:
        if row.num_degenerate:
            say(f"{row.name}: no map on {count(row.num_degenerate, 'picture')}, {DEGENERATE}.")


def _show_card(card: "Card") -> None:
    """Print a scorecard, the reference rows last, and why rows are not evaluable."""
    shown = [
        (
            null_in_words(row.name),
            row.score,
            formatted_number(row.value),
            _range(row.low, row.high),
            f"{row.num_evaluable} of {row.num_total}",
            null_in_words(row.reference) or "-",
            row.verdict,
        )
        for row in sorted(card.rows, key=lambda row: row.verdict == "reference")
    ]
    print_table(("map", "score", "value", "95 % interval", "pictures", "best reference", "verdict"), shown)
    why: dict[str, list[str]] = {}
    for row in card.rows:
        if row.verdict == "not evaluable":
            why.setdefault(row.reason or "the score cannot be measured here", []).append(
                f"{row.score} of {row.name}"
            )
    for reason, rows in why.items():
        more = f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
        say(f"Not evaluable: {reason} ({', '.join(rows[:SHOWN])}{more}).")


def _show_restating(card: "Card") -> None:
    """Print from which layer on each method only repeats the prediction, where attention was measured."""
    rows = [
        (
            found.method,
            step.layer,
            attention_ratio(step.ratio.mean),
            attention_ratio(step.ratio_of_mirror.mean),
            formatted_number(step.resemblance_to_mirror.mean),
            REPEATS if step.restates else "",
            (found.restates_from or "nowhere") if step is found.layers[-1] else "",
        )
        for found in card.restating
        for step in found.layers
    ]
    columns = ("method", "layer", "attention ratio", "of the coarse mask", "likeness", "", "repeats from")
    if rows:
        print_table(columns, rows, title="Layer by layer: where a map only repeats the prediction")


def _show_audit(audit: "Audit") -> None:
    """Print what was found in the regions of an audit."""
    rows = [
        (
            found.region,
            entry.map,
            f"{found.num_present} of {found.num_total}",
            formatted_number(found.drop),
            formatted_number(found.control),
            formatted_number(entry.enrichment),
            entry.verdict,
        )
        for found in audit.regions
        for entry in found.maps
    ]
    columns = ("region", "map", "pictures", "score lost", "elsewhere", "log2 enrichment", "verdict")
    print_table(columns, rows, title="Audit: regions that should not matter")


def record_of(folder: Path) -> "Record":
    """Return what a command has said of the folder that it made."""
    from seglens.results import record  # not above: pydantic takes its time, and help shouldn't

    return record.read_record(folder)


def _with_range(found: "Spread") -> str:
    return f"{formatted_number(found.mean)} {_range(found.low, found.high)}"


def _range(low: float | None, high: float | None) -> str:
    ends = formatted_number(low), formatted_number(high)
    return "-" if "-" in ends else " to ".join(ends)


def formatted_number(value: float | None) -> str:
    """Return a number to three digits, a dash where there is none."""
    return formatted(value, ".3f", dash="-")

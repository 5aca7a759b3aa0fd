"""Results as tables for the terminal: evaluations, layers, maps, scorecards. No numbers are made here."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seglens.cli.terminal import say, table

Row = Mapping[str, Any]

SHOWN = 3
"""How many pictures a finding names; JSON has all."""


def show_findings(found: Row, *, as_json: bool) -> None:
    """Print what a check of a set found, errors first."""
    if as_json:
        return print_json(found)
    splits = ", ".join(f"{num} {name}" for name, num in found["splits"].items()) or "no pictures"
    say(f"Layout {found['layout']}: {splits}.")
    for finding in found["findings"]:
        names, num = finding["names"], len(finding["names"])
        listed = f" ({num}: {', '.join(names[:SHOWN])}{', ...' if num > SHOWN else ''})" if names else ""
        say(f"{finding['severity']}: {finding['kind']}: {finding['text']}{listed}")


def show_public_set(folder: Path, *, as_json: bool) -> None:
    """Print what was downloaded, who may use it and what to cite."""
    found = _read(folder / "run.json")["results"]
    if as_json:
        return print_json({"folder": str(folder), **found})
    say(
        f"{folder}: {found['title']} ({found['num_files']} files).",
        f"Licence: {found['licence']}.",
        f"To cite: {found['citation']}",
        f"Try: seglens data check {folder}",
    )


def show_training(run: Path) -> None:
    """Print what a training came to."""
    results = _read(run / "run.json")["results"]
    valid = results["valid"]
    say(
        f"{run}: weights of epoch {results['best_epoch']} of {results['epochs']}; on the valid split "
        f"Dice {_number(valid['dice'])}, IoU {_number(valid['iou'])}. Try: seglens evaluate {run}"
    )


def show_evaluation(found: Row, *, as_json: bool) -> None:
    """Print an evaluation: every score, pooled over pixels and averaged over pictures."""
    if as_json:
        return print_json(found)
    rows = [
        (
            score.replace("_", " "),
            _number(found["pooled"].get(score)),
            _number(values["mean"]),
            _range(values),
            _number(values["median"]),
        )
        for score, values in found["per_image"].items()
    ]
    scored = found["num_images"] - found["num_failed"]
    title = f"{found['split']} split, {scored} pictures, at native resolution"
    table(("score", "pooled", "per image, mean", "95 % interval", "median"), rows, title=title)
    error, worst = (_number(found["calibration"][name]) for name in ("error", "maximum_error"))
    say(f"Probabilities are off by {error} on average, {worst} at most (calibration error).")


def show_plan(rows: Sequence[Mapping[str, str]]) -> None:
    """Print what an explanation would take: a row for each pass, the rest, and the sum."""
    table(tuple(rows[0]), [tuple(row.values()) for row in rows])


def show_layers(layers: Sequence[Row], *, as_json: bool) -> None:
    """Print the layers that can be explained."""
    if as_json:
        return print_json(layers)
    rows = [
        (
            layer["name"],
            " ".join(layer["roles"]),
            layer["type"],
            " x ".join(map(str, layer["shape"])),
            str(layer["stride"]),
        )
        for layer in layers
    ]
    table(("layer", "roles", "type", "channels x rows x columns", "stride"), rows)


def show_explanations(folder: Path) -> None:
    """Print the mean attention of every map next to the largest that a map without content gets."""
    rows = []
    found = _read(folder / "explanations.json")
    several, outside = len(found["targets"]) > 1, found["where"] == "context"
    for row in found["summary"]:
        ratio = row["statistics"].get("mass_context" if outside else "ratio") or {}
        nulls = {name: values.get("ratio") for name, values in row["nulls"].items()}
        known = {name: value for name, value in nulls.items() if value is not None}
        best = max(known, key=lambda name: known[name], default=None)
        rows.append(
            (
                f"{row['target']}: {_name(row)}" if several else _name(row),
                _number(ratio.get("mean")),
                f"{_number(known[best])} ({best})" if best else "-",
                f"{row['num_ok']} of {row['num_total']}",
                str(row["num_no_target"]),
                row.get("label") or "",
            )
        )
    measured = "share outside of the target" if outside else "attention ratio"
    table(("map", measured, "best null", "pictures", "no target", ""), rows)


def show_scorecard(folder: Path) -> None:
    """Print a scorecard, the reference rows last."""
    rows = _read(folder / "scorecard.json")["rows"]
    rows = sorted(rows, key=lambda row: row["verdict"] == "reference")
    shown = [
        (
            _name(row),
            row["score"],
            _number(row["value"]),
            _range(row),
            row["reference"] or "-",
            row["verdict"],
        )
        for row in rows
    ]
    table(("map", "score", "value", "95 % interval", "best reference", "verdict"), shown)


def show_audit(folder: Path) -> None:
    """Print what was found in the regions of an audit."""
    rows = [
        (
            found["region"],
            entry["map"],
            f"{found['num_present']} of {found['num_total']}",
            _number(found["drop"]),
            _number(found["control"]),
            _number(entry["enrichment"]),
            entry["verdict"],
        )
        for found in _read(folder / "audit.json")["regions"]
        for entry in found["maps"]
    ]
    columns = ("region", "map", "pictures", "score lost", "elsewhere", "log2 enrichment", "verdict")
    table(columns, rows, title="Audit: regions that should not matter")


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))


def _name(row: Row) -> str:
    return row["method"] if row["layer"] is None else f"{row['method']}@{row['layer']}"


def _range(values: Row) -> str:
    low, high = _number(values["low"]), _number(values["high"])
    return "-" if "-" in (low, high) else f"{low} to {high}"


def _number(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.3f}"


def print_json(data: object) -> None:
    """Print plain data as JSON; what is not a number is null."""
    from seglens.record import to_json  # not above: pydantic takes its time, and help shouldn't

    say(to_json(data))

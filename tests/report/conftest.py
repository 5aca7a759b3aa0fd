"""Run folders made by hand: a report needs JSON and pictures, so its tests need no model."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

NASTY = "<img src=x onerror=alert(1)>.png"


def picture(file: Path, hue: int, size: tuple[int, int] = (72, 56)) -> None:
    """Save a disc on a gradient, in a colour that tells pictures apart."""
    rows, columns = np.mgrid[: size[1], : size[0]]
    disc = (rows - size[1] / 2) ** 2 + (columns - size[0] / 2) ** 2 < 300
    image = np.zeros((size[1], size[0], 3), np.uint8)
    image[..., 0] = columns * 255 // size[0]
    image[..., 1] = np.where(disc, 220, 60)
    image[..., 2] = hue % 256
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(file)


def write(file: Path, data: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(data), encoding="utf-8")


def run_json(kind: str) -> dict:
    return {
        "schema_number": 1,
        "kind": kind,
        "state": "finished",
        "command": ["seglens", kind, "photos", "--run", "runs/first"],
        "started": "2026-01-02T03:04:05+00:00",
        "duration_seconds": 372.5,
        "seed": 7,
        "device": "cpu",
        "versions": {"python": "3.11.2", "seglens": "0.1.0", "torch": "2.11.0"},
        "settings": {"epochs": 8, "augment": True, "learning_rate": 0.001},
        "model": {"architecture": "unet", "encoder": None, "width": 16, "image_size": 128, "classes": 2},
        "task": {"classes": ["background", "cell"], "palette": ["#000000", "#e69f00"]},
        "data": {"path": "photos", "layout": "pairs"},
        "model_sha256": "ab" * 32,
        "data_sha256": "cd" * 32,
        "results": {"num_train": 70},
    }


def make_run(folder: Path, *, dice: float = 0.8, num: int = 4, names: tuple[str, ...] = ()) -> Path:
    """Write a run folder with curves, an evaluation, explanations and a scorecard."""
    write(folder / "run.json", run_json("train"))
    lines = ["epoch,train_loss,valid_loss,valid_dice,valid_iou,learning_rate,seconds"]
    lines += [
        f"{i},{math.exp(-i / 3):.4f},{math.exp(-i / 4):.4f},{dice - math.exp(-i):.4f},,0.001,1.5"
        for i in range(1, 9)
    ]
    (folder / "history.csv").write_text("\n".join(lines) + "\n")
    all_names = (*names, *(f"cell_{i:02d}" for i in range(num - len(names))))
    _evaluation(folder / "evaluate" / "test", dice, all_names)
    _explanations(folder / "explain" / "test", all_names)
    _scorecard(folder / "judge" / "test")
    _audit(folder / "judge" / "test", all_names)
    return folder


def _evaluation(folder: Path, dice: float, names: tuple[str, ...]) -> None:
    write(folder / "run.json", run_json("evaluate"))
    images = []
    for i, name in enumerate(names):
        files = {kind: f"samples/{i}/{kind}.png" for kind in ("orig", "gt", "pred", "overlay")}
        for j, file in enumerate(files.values()):
            picture(folder / file, 40 * i + 60 * j)
        value = dice * (i + 1) / len(names)
        images.append(
            {
                "name": name,
                "status": "ok",
                "dice": value,
                "iou": value / (2 - value),
                "false_positive_pixels": 10 * i,
                "false_negative_pixels": 100 - i,
                "truth_pixels": 300,
                "predicted_pixels": 280,
                "files": files,
            }
        )
    images.insert(0, {"name": "broken.png", "status": "failed", "error": "broken.png is truncated."})
    scores = {"dice": dice, "iou": 0.7, "miou": 0.8, "pixel_accuracy": 0.97, "precision": 0.9, "recall": 0.81}
    spread = {"std": 0.1, "median": dice, "low": dice - 0.05, "high": dice + 0.04, "num": len(names)}
    write(
        folder / "scores.json",
        {
            "split": "test",
            "num_images": len(names),
            "num_failed": 1,
            "classes": ["background", "cell"],
            "definitions": {"dice": "Twice the overlap over the sum of both areas."},
            "pooled": {**scores, "per_class": {"cell": scores}},
            "per_image": {name: {"mean": value - 0.03, **spread} for name, value in scores.items()},
            "calibration": {"error": 0.031, "maximum_error": 0.1, "bins": BINS, "foreground": BINS},
            "images": images,
        },
    )


BINS = [
    {"low": 0.0, "high": 0.5, "pixels": 700, "probability": 0.1, "share": 0.08},
    {"low": 0.5, "high": 1.0, "pixels": 300, "probability": 0.95, "share": 0.9},
]
FRAME = {"native": [56, 72], "part": [0.0, 8 / 72, 1.0, 56 / 72]}
"""A picture of 72 x 56 pixels in the middle of a square grid of 72."""

GRID = np.add.outer(np.zeros(9), np.arange(9) - 4.0).astype(np.float32)
"""A layer of 9 x 9 cells, -4 at the left and 4 at the right."""

FINE = np.add.outer(np.linspace(-1, 1, 56), np.zeros(72)).astype(np.float32)
"""A map of the picture's own size, -1 above and 1 below."""


def raw_arrays(rows: list[dict]) -> dict[str, np.ndarray]:
    """Return raw maps as `explain` writes them, for rows of its table."""
    inside = np.zeros((56, 72), np.uint8)
    inside[20:40, 30:50] = 1
    arrays: dict[str, np.ndarray] = {}
    for row in rows:
        name = "@".join(filter(None, (row["target"], row["method"], row["layer"])))
        arrays[f"region:{row['target']}"] = inside
        if row["layer"]:
            arrays[f"grid:{name}"] = GRID
        arrays[f"map:{name}"] = FINE
    return arrays


def _audit(folder: Path, names: tuple[str, ...]) -> None:
    """Write an audit in which one picture loses its answer without the border."""
    rows = [
        {"name": name, "region": "border", "area": 0.1, "drop": 0.4 if i == 2 else 0.01, "control": 0.02}
        for i, name in enumerate(names)
    ]
    found = {"drop": 0.11, "drop_low": 0.02, "drop_high": 0.2, "control": 0.02}
    maps = [{"map": "grad-cam@encoder_last", "verdict": "shortcut", "reason": "it lies there", "nulls": {}}]
    region = {"region": "border", "num_present": len(names), "num_total": len(names), "matters": True}
    write(
        folder / "audit.json",
        {
            "definition": "What an audit is.",
            "num_images": len(names),
            "regions": [region | found | {"maps": maps}],
            "groups": [],
            "images": rows,
        },
    )


def _explanations(folder: Path, names: tuple[str, ...]) -> None:
    write(folder / "run.json", run_json("explain"))
    pairs: list[tuple[str, str | None]] = [
        (m, layer) for m in ("grad-cam", "activation") for layer in ("encoder_last", "decoder_last")
    ]
    pairs.append(("integrated-gradients", None))
    samples = []
    for i, name in enumerate(names):
        maps: list[dict] = []
        for j, (method, layer) in enumerate(pairs):
            empty = i == 1 and j == 0
            file = f"samples/{i}/{method}@{layer}.png"
            if not empty:
                picture(folder / file, 30 * j)
            numbers = {"ratio": 3.0 + j, "mass_inside": 0.4, "enrichment_log2": 1.5}
            maps.append(
                {
                    "target": "predicted",
                    "method": method,
                    "layer": layer,
                    "status": "no target" if empty else "ok",
                    "statistics": dict.fromkeys(numbers) if empty else numbers,
                    "nulls": {} if empty else {"mirror": {"ratio": 12.0}, "other_images": {"ratio": 1.4}},
                    "diagnostics": {},
                    "file": None if empty else file,
                }
            )
        for target in ("false-negative", "false-positive"):
            evidence = {"limits": [-4.0, 4.0], "opposing": 0.5 + 0.1 * i if i < 4 else 0.4}
            error = {"target": target, "method": "grad-cam", "layer": "encoder_last", "status": "ok"}
            numbers = {"mass_inside": 0.25, "area": 0.05, "min": 0.0}
            maps.append({**error, "statistics": numbers, "nulls": {}, "evidence": evidence, "file": None})
        for row in maps:
            row["unit"] = "sum of logits"
            row["limits"] = [-0.5, 0.5] if row["layer"] is None else [0.0, 4.0]
            row["statistics"].setdefault("min", -1.0 if row["layer"] is None else 0.0)
        raw = f"samples/{i}/maps.npz"
        (folder / raw).parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(folder / raw, **raw_arrays(maps))  # type: ignore[arg-type]
        place = {"files": {"raw": raw}, "frame": FRAME}
        samples.append({"name": name, "status": "ok", "maps": maps, "sheets": [], **place})
    summary = [
        {
            "target": "predicted",
            "method": method,
            "layer": layer,
            "num_ok": len(names) - 1,
            "num_no_target": 1,
            "num_total": len(names),
            "statistics": {
                "ratio": {"mean": 3.0 * (j + 1), "low": 2.0 * (j + 1), "high": 4.0 * (j + 1)},
                "mass_inside": {"mean": 0.4, "low": 0.3, "high": 0.5},
                "enrichment_log2": {"mean": 1.5, "low": 1.2, "high": 1.8},
            },
            "nulls": {"mirror": {"ratio": 12.0}, "other_images": {"ratio": 1}},
            "label": "restates the prediction" if j == 3 else "",
        }
        for j, (method, layer) in enumerate(pairs)
    ]
    write(
        folder / "explanations.json",
        {
            "split": "test",
            "methods": ["grad-cam", "activation", "integrated-gradients"],
            "layers": ["encoder_last", "decoder_last"],
            "targets": ["predicted", "false-negative", "false-positive"],
            "definitions": {"ratio": "unused: the report has its own"},
            "samples": samples,
            "summary": summary,
        },
    )


def _scorecard(folder: Path) -> None:
    write(folder / "run.json", run_json("judge"))
    nulls = {"random": 0.01, "centre": 0.12, "edges": 0.07, "mirror-16": 0.22}
    verdicts = (("pass", 0.41), ("warn", 0.24), ("fail", 0.1), ("not evaluable", None))
    rows: list[dict] = [
        {
            "method": "grad-cam",
            "layer": f"layer-{i}",
            "score": "faithfulness",
            "value": value,
            "low": None if value is None else value - 0.06,
            "high": None if value is None else value + 0.05,
            "nulls": nulls,
            "reference": "mirror-16",
            "verdict": verdict,
            "reason": "The score of the whole picture is too low." if value is None else "",
            "num_evaluable": 15,
            "num_total": 16,
        }
        for i, (verdict, value) in enumerate(verdicts)
    ]
    rows.append({**rows[2], "method": "null:mirror-16", "layer": None, "nulls": {}, "verdict": "reference"})
    write(
        folder / "scorecard.json",
        {
            "num_images": 16,
            "rows": rows,
            "definitions": {"faithfulness": "What is removed first matters most."},
            "figures": {
                "fractions": [0.5, 0.9],
                "removal": {"faithfulness": CURVES, "context_faithfulness": {}},
                "cascade": {
                    "share_of_modules": [0.0, 0.5, 1.0],
                    "maps": {"grad-cam@layer-0": [1.0, 0.4, 0.1]},
                },
            },
        },
    )


CURVES = {
    "grad-cam@layer-0": {"num": 15, "full": 0.8, "most_first": [0.3, 0.2], "least_first": [0.75, 0.5]},
    "grad-cam@layer-1": {"num": 0, "full": None, "most_first": [None] * 2, "least_first": [None] * 2},
    "null:mirror-16": {"num": 15, "full": 0.8, "most_first": [0.4, 0.3], "least_first": [0.7, 0.4]},
}
"""The score while cells go; of one map nothing could be measured."""


def make_shortcut(folder: Path, *, valid: bool = True) -> Path:
    """Write a shortcut check as the demo does."""
    examples = []
    for i in range(3):
        keys = ("orig", "pred_honest", "pred_cheat", "map_honest", "map_cheat", "without_tag_cheat")
        files = {key: f"examples/{i}-{key}.png" for key in keys}
        for j, file in enumerate(files.values()):
            picture(folder / file, 40 * i + 30 * j, (128, 128))
        examples.append({"name": f"cell_{i:02d}", **files})
    causal = {
        "honest": {
            "full": 0.9,
            "tag_removed": 0.89,
            "tag_moved": 0.9,
            "drop_removed": 0.01,
            "drop_moved": 0,
            "num": 24,
        },
        "cheat": {
            "full": 0.91,
            "tag_removed": 0.2,
            "tag_moved": 0.88,
            "drop_removed": 0.78,
            "drop_moved": 0.03,
            "num": 24,
        },
    }
    write(
        folder / "shortcut.json",
        {
            "definition": "A small tag was planted beside every object in one model's training pictures.",
            "models": {"honest": {"dice": 0.91, "run": "honest"}, "cheat": {"dice": 0.92, "run": "cheat"}},
            "causal": causal,
            "methods": [
                {
                    "method": method,
                    "layer": layer,
                    "auroc": auroc,
                    "low": auroc - 0.06,
                    "high": min(1, auroc + 0.05),
                    "share": {"honest": 0.02, "cheat": share},
                    "chance_share": 0.015,
                }
                for method, layer, auroc, share in (
                    ("grad-cam", "encoder_last", 0.71, 0.1),
                    ("integrated-gradients", None, 0.97, 0.41),
                )
            ],
            "valid": valid,
            "verdict": "The cheating model reads the tag.",
            "reason": "Without the tag it loses 78 % of its answer; the honest model loses 1 %.",
            "examples": examples,
        },
    )
    return folder / "shortcut.json"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with everything in it."""
    return make_run(tmp_path / "first")

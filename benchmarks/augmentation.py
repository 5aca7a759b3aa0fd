"""Which part of augmentation costs or gains: the row `tumor-lite0` with parts of it, on the valid split.

    python -m benchmarks.augmentation --data FOLDER [--runs runs] [--epochs 2] [VARIANT ...]
    python -m benchmarks.augmentation --data FOLDER --twins     # with and without a near-duplicate in train

Trainings are those of the row ``tumor-lite0`` of ``benchmarks/training.py``, whose run without augmentation
is the other side of the pairs, with another policy in the place of the default. What is finished is not
trained again; the test split is not touched. ``--twins`` trains nothing: it parts the paired differences of
the rows of ``benchmarks/training.jsonl`` by whether a near-duplicate of the picture is in train.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import seglens
from benchmarks.training import RESULTS, ROWS, TUMOR, lite0_file, paired
from seglens import train as training
from seglens.data.transforms import DEFAULT_POLICY, Policy

ROW = "tumor-lite0"
PLACED = {"scale": (1.0, 1.0), "shift": 0.0}
LIT = {"brightness": (0.0, 0.0), "contrast": (1.0, 1.0), "gamma": (1.0, 1.0), "noise_and_blur": 0.0}

TURNED = DEFAULT_POLICY.rotation[1]
VARIANTS: dict[str, tuple[Policy, float]] = {
    "all": (DEFAULT_POLICY, TURNED),
    "without rotation": (DEFAULT_POLICY, 0.0),
    "without scale and shift": (replace(DEFAULT_POLICY, **PLACED), TURNED),
    "without light, noise and blur": (replace(DEFAULT_POLICY, **LIT), TURNED),
    "mirroring alone": (replace(DEFAULT_POLICY, **PLACED, **LIT), 0.0),
}
"""Policies, and by how many degrees pictures are turned at most."""


def trained(name: str, data: Path, runs: Path, epochs: int) -> Path:
    """Train with the policy called ``name``, unless that is done, and score the valid split."""
    row, run = ROWS[ROW], runs / "augmentation" / f"{name.replace(' ', '-').replace(',', '')}-{epochs}"
    if (run / "evaluate" / "valid" / "scores.json").exists():
        return run
    policy, rotation = VARIANTS[name]
    settings = seglens.TrainSettings(
        model="resnet-unet",
        encoder="tf_efficientnet_lite0",
        encoder_weights=str(lite0_file()),
        image_size=row.image_size,
        epochs=epochs,
        batch_size=row.batch_size,
        seed=row.seed,
        augment=True,
        rotation=rotation,
    )
    training.DEFAULT_POLICY = policy  # type: ignore[attr-defined]
    made = seglens.train(seglens.DataSettings(path=data / TUMOR), settings, run, resume=True)
    seglens.evaluate(made, seglens.open_split(made, "valid"), out=run / "evaluate" / "valid")
    return run


def dice_of(run: Path) -> dict[int, float]:
    """Return the Dice of every valid picture by its number, and the pooled one under -1."""
    scores = json.loads((run / "evaluate" / "valid" / "scores.json").read_text())
    return {-1: scores["pooled"]["dice"]} | {row["index"]: row["dice"] for row in scores["images"]}


def twins(data: Path) -> None:
    """Print what augmentation changes on valid pictures with and without a near-duplicate in train."""
    settings = seglens.DataSettings(path=data / TUMOR)
    (finding,) = seglens.check_data(settings).of("near-duplicates")
    groups = [group.split(" ~ ") for group in finding.names]
    known = {name for group in groups if any(name.startswith("train/") for name in group) for name in group}
    names = [entry.name for entry in seglens.open_data(settings).split("valid").entries]
    lines = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    found = {line["row"]: line["valid"]["images"] for line in lines}
    print("| row | near-duplicate in train | valid pictures | Dice per picture, difference |")
    print("|---|---|---|---|")
    for row in ("tumor-small", "tumor-lite0", "tumor-lite0-long"):
        for twin in (True, False):
            kept = [key for key in found[row] if (f"valid/{names[int(key)]}" in known) == twin]
            with_it, without = (
                {int(key): found[name][key]["dice"] for key in kept} for name in (f"{row}-aug", row)
            )
            print(f"| `{row}` | {'yes' if twin else 'no'} | {len(kept)} | {paired(with_it, without)} |")


def main() -> None:
    """Train what is missing; print a row for each variant."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("variants", nargs="*", metavar="VARIANT", help=f"of {', '.join(VARIANTS)}")
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the sets")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--epochs", type=int, default=ROWS[ROW].epochs)
    parser.add_argument("--twins", action="store_true", help="part the rows by near-duplicates in train")
    given = parser.parse_args()
    if given.twins:
        return twins(given.data)
    plain = dice_of(given.runs / ROW)
    print("| augmentation | valid Dice pooled | Dice per picture less that without any |\n|---|---|---|")
    per_picture = {key: dice for key, dice in plain.items() if key >= 0}
    print(f"| none | {plain[-1]:.3f} | |", flush=True)
    for name in given.variants or VARIANTS:
        found = dice_of(trained(name, given.data, given.runs, given.epochs))
        pooled = found.pop(-1)
        print(f"| {name} | {pooled:.3f} | {paired(found, per_picture)} |", flush=True)


if __name__ == "__main__":
    main()

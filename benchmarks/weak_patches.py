"""Weak supervision of any set: patches that show an object or none, from labels in a CSV file to masks.

    python -m benchmarks.weak_patches --data FOLDER --out FOLDER [SET ...]     # of: nuclei tumour

Patches are cut out of ``dsb2018/stage1_train`` (96 pixels: several nuclei in each, 4 to 40 pixels wide) or
of ``tumor-polygons`` (128 pixels: one lesion at most). Half of them show the object, half show none; the
file ``labels.csv`` says which and nothing of where. It is read off the masks here because no one labelled
the patches; a user writes it. Then one command a user would type trains a classifier on the labels, makes
pseudo-masks, trains a student on them and, for comparison, the same student on the masks. Both come from
pictures of the train split only; the test patches are from other pictures. What is printed is the command
and its table.
"""

import argparse
import csv
import json
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image as pil

from benchmarks.training import lite0_file, seglens
from seglens.data.layout import DataSettings, Split
from seglens.data.opening import open_data


@dataclass(frozen=True)
class Patches:
    """Where patches come from: ``side`` in pixels, how many, and the least area of an object in them."""

    folder: str
    side: int
    num_train: int = 120
    num_test: int = 60
    least: int = 20


SETS = {
    "nuclei": Patches("dsb2018/stage1_train", 96),
    "tumour": Patches("tumor-polygons", 128),
}

STAGES = {
    "heat": {"scales": [128, 192, 256], "side": 128},
    "spread": {"scales": [192, 256]},
    "patches": {"num_segments": 100},
}
"""Patches are small: they are seen at fewer and smaller scales than pictures."""


def cut(split: Split, wanted: int, chosen: Patches, folder: Path, seed: int) -> dict[str, bool]:
    """Write patches with their masks in the layout ``pairs``; return what each shows."""
    generator = random.Random(seed)
    shows: dict[str, bool] = {}
    left = {True: wanted // 2, False: wanted // 2}
    order = [index for _ in range(4) for index in generator.sample(range(len(split)), len(split))]
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for turn, index in enumerate(order):
        sample = split[index]
        assert sample.mask is not None
        rows, columns = sample.mask.shape
        if min(rows, columns) < chosen.side or not any(left.values()):
            continue
        for _ in range(12):
            top, start = (generator.randrange(length - chosen.side + 1) for length in (rows, columns))
            window = (slice(top, top + chosen.side), slice(start, start + chosen.side))
            mask, image = sample.mask[window], sample.image[:, window[0], window[1]]
            area = int((mask > 0).sum())
            there = area >= chosen.least
            # Neither: a sliver of an object. Nor ground without any tissue, which would be told at a glance.
            if (not there and area) or float(image.std()) < 0.01 or not left[there]:
                continue
            name = f"{folder.name}-{index:03d}-{turn // len(split)}"
            left[there] -= 1
            shows[name] = there
            _save(image, mask, folder, name)
            break
    return shows


def _save(image: torch.Tensor, mask: torch.Tensor, folder: Path, name: str) -> None:
    pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    pil.fromarray(pixels).save(folder / "images" / f"{name}.png")
    pil.fromarray(((mask > 0).numpy() * 255).astype(np.uint8)).save(folder / "masks" / f"{name}.png")


def make(name: str, data: Path, folder: Path) -> None:
    """Cut the patches of a set, unless they are there, and write their labels."""
    chosen = SETS[name]
    if (folder / "labels.csv").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    dataset = open_data(DataSettings(path=data / chosen.folder))
    shows = cut(dataset.split("train"), chosen.num_train, chosen, folder / "train", 0)
    cut(dataset.split("test"), chosen.num_test, chosen, folder / "test", 1)
    with (folder / "labels.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(("image", "label"))
        table.writerows((image, "object" if there else "none") for image, there in shows.items())
    (folder / "stages.json").write_text(json.dumps(STAGES))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"of {', '.join(SETS)}")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if unknown := set(arguments.sets) - set(SETS):
        parser.error(f"no such set: {', '.join(sorted(unknown))}")
    for name in arguments.sets or SETS:
        folder, run = arguments.out / name, arguments.out / f"{name}-run"
        make(name, arguments.data, folder)
        seglens(
            "weak", str(folder), "--question", "labels", "--labels", str(folder / "labels.csv"),
            "--stages", str(folder / "stages.json"), "--student", "resnet-unet",
            "--encoder", "tf_efficientnet_lite0", "--encoder-weights", str(lite0_file()),
            "--image-size", "96", "--epochs", "8", "--rounds", "0", "--supervised", "--oracle",
            "--resume", "--run", str(run),
        )  # fmt: skip
        print((run / "table.md").read_text())
        print(json.dumps(json.loads((run / "steps.json").read_text())["classifier"], indent=1))


if __name__ == "__main__":
    main()

"""Sets of a few pixels, written in each layout by its own rules."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as rle

from seglens.data.layout import DataSettings
from seglens.data.opening import open_data

SIDE = 20
BOX = np.zeros((SIDE, SIDE), np.uint8)
BOX[4:10, 6:16] = 1


def save(file: Path, pixels: np.ndarray) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)
    return file


def scene(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(noise).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def write_pairs(folder: Path, names: str, mask: np.ndarray = BOX * 255) -> Path:
    for name in names:
        save(folder / "images" / f"{name}.png", scene(ord(name)))
        save(folder / "masks" / f"{name}.png", mask)
    return folder


def write_nuclei(folder: Path, names: str) -> Path:
    for name in names:
        save(folder / name / "images" / f"{name}.png", scene(ord(name)))
        for index, columns in enumerate((slice(6, 11), slice(11, 16))):
            nucleus = np.zeros_like(BOX)
            nucleus[4:10, columns] = 255
            save(folder / name / "masks" / f"{index}.png", nucleus)
    return folder


def write_pets(folder: Path, trainval: str, test: str) -> Path:
    trimap = np.full((SIDE, SIDE), 2, np.uint8)
    trimap[4:10, 6:16] = 3
    trimap[5:9, 7:15] = 1
    for name in trainval + test:
        save(folder / "images" / f"cat_{name}.jpg", scene(ord(name)))
        save(folder / "annotations" / "trimaps" / f"cat_{name}.png", trimap)
    (folder / "annotations" / "trimaps" / f"._cat_{name}.png").write_bytes(b"left by macOS")
    for file, names in (("trainval.txt", trainval), ("test.txt", test)):
        lines = ["#Image CLASS ID", *(f"cat_{name} 1 1 1" for name in names)]
        (folder / "annotations" / file).write_text("\n".join(lines))
    return folder


def write_coco(
    folder: Path, annotations: Sequence[Any], names: str = "a", categories=((1, "tumor"),)
) -> Path:
    images = [{"id": ord(name), "file_name": f"{name}.png", "height": SIDE, "width": SIDE} for name in names]
    for name in names:
        save(folder / f"{name}.png", scene(ord(name)))
    content = {
        "images": images,
        "categories": [{"id": key, "name": name} for key, name in categories],
        "annotations": [
            {"id": index, "image_id": ord("a"), "category_id": 1, "iscrowd": 0, **annotation}
            for index, annotation in enumerate(annotations)
        ],
    }
    (folder / "_annotations.coco.json").write_text(json.dumps(content))
    return folder


def write_labelme(folder: Path, names: str) -> Path:
    box = {"label": "cell", "shape_type": "rectangle", "points": [[6, 4], [16, 10]]}
    for name in names:
        save(folder / f"{name}.png", scene(ord(name)))
        content = {"imagePath": f"{name}.png", "imageHeight": SIDE, "imageWidth": SIDE, "shapes": [box]}
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def polygon(left: int, top: int, right: int, bottom: int) -> list[list[float]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


def uncompressed(mask: np.ndarray) -> dict:
    """Run lengths in columns, beginning with zeros, by definition."""
    flat = mask.flatten(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    return {"size": [SIDE, SIDE], "counts": counts if flat[0] == 0 else [0, *counts]}


def compressed(mask: np.ndarray) -> dict:
    coded = rle.encode(np.asfortranarray(mask))
    return {"size": coded["size"], "counts": coded["counts"].decode()}


def settings(path: Path, **others) -> DataSettings:
    return DataSettings(path=path, **others)


def sizes(dataset) -> dict[str, int]:
    return {name: len(split) for name, split in dataset.splits.items()}


def only(path: Path, **others):
    """Return the one sample of a set."""
    split = open_data(settings(path, **others)).split("all")
    assert len(split) == 1
    return split[0]


def mask_is(sample, expected: np.ndarray) -> bool:
    return torch.equal(sample.mask, torch.from_numpy(expected.astype(np.int64)))


WRITERS = {
    "pairs": lambda folder, names: write_pairs(folder, names),
    "coco": lambda folder, names: write_coco(
        folder, [{"segmentation": polygon(6, 4, 16, 10), "image_id": ord(name)} for name in names], names
    ),
    "nuclei": lambda folder, names: write_nuclei(folder, names),
    "labelme": lambda folder, names: write_labelme(folder, names),
}

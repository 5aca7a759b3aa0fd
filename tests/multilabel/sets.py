"""Sets on disk whose two labels overlap: red squares are 'man', green ones 'shirt', some pixels are both."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = 32


def picture(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture, where 'man' is, and where 'shirt' is: two squares that share some pixels."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 40, (SIZE, SIZE, 3))
    row, column = random.integers(2, 10, 2)
    man, shirt = np.zeros((2, SIZE, SIZE), dtype=bool)
    man[row : row + 14, column : column + 14] = True
    shirt[row + 7 : row + 19, column + 4 : column + 18] = True
    pixels[..., 0] += 180 * man
    pixels[..., 1] += 180 * shirt
    return pixels.astype(np.uint8), man, shirt


def write_folders(folder: Path, *, num: dict[str, int]) -> Path:
    """Write a set with a folder of masks for each class."""
    seed = 0
    for split, count in num.items():
        for index in range(count):
            pixels, man, shirt = picture(seed)
            seed += 1
            for kind, array in (
                ("images", pixels),
                ("masks/man", man.astype(np.uint8) * 255),
                ("masks/shirt", shirt.astype(np.uint8) * 255),
            ):
                (folder / split / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(folder / split / kind / f"{split}-{index}.png")
    return folder


def write_coco(folder: Path, *, num: dict[str, int]) -> Path:
    """Write the same pictures with polygons."""
    seed = 0
    for split, count in num.items():
        (folder / split).mkdir(parents=True)
        images: list[dict[str, Any]] = []
        notes: list[dict[str, Any]] = []
        for index in range(count):
            pixels, *labels = picture(seed)
            seed += 1
            name = f"{split}-{index}.png"
            Image.fromarray(pixels).save(folder / split / name)
            images.append({"id": index + 1, "file_name": name, "width": SIZE, "height": SIZE})
            for category, label in enumerate(labels, start=1):
                rows, columns = np.nonzero(label)
                top, left, bottom, right = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
                outline = [left, top, right, top, right, bottom, left, bottom]
                notes.append(
                    {
                        "id": len(notes) + 1,
                        "image_id": index + 1,
                        "category_id": category,
                        "segmentation": [[int(value) for value in outline]],
                        "area": int(label.sum()),
                        "bbox": [int(left), int(top), int(right - left), int(bottom - top)],
                        "iscrowd": 0,
                    }
                )
        categories = [{"id": 1, "name": "man"}, {"id": 2, "name": "shirt"}]
        content = {"images": images, "categories": categories, "annotations": notes}
        (folder / split / "_annotations.coco.json").write_text(json.dumps(content))
    return folder

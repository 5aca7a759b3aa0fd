"""COCO with run lengths, for FiftyOne, CVAT and pycocotools: one file for all pictures.

Run lengths say which pixels are inside, so that there is no question of corners and centres. A box is
``x, y, width, height`` in whole pixels, from the upper left corner of the picture, counted from 0. Source:
https://cocodataset.org/#format-data. FiftyOne and CVAT (Datumaro) read run lengths of objects that are no
crowd, as pycocotools does; ``iscrowd`` is 0, because each is one object.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from seglens.data.outlines import run_lengths
from seglens.exports.marked import Marked, Picture, cut_out

FILE, PARTS = "coco.json", "coco-parts"


def write_part(picture: Picture, marked: Sequence[Marked], folder: Path) -> Mapping[str, str]:
    """Write what the COCO file will say of one picture."""
    annotations = []
    for each in marked:
        for found in cut_out(each.numbers):
            row: dict[str, Any] = {
                "category": each.categories[found.number],
                "segmentation": run_lengths(found.inside, (found.top, found.left), picture.size),
                "bbox": [found.left, found.top, *found.inside.shape[::-1]],
                "area": int(found.inside.sum()),
                "iscrowd": 0,
            }
            if found.number in each.scores:
                row["score"] = each.scores[found.number]
            annotations.append(row)
    rows, columns = picture.size
    image = {"file_name": picture.file, "width": columns, "height": rows}
    part = folder / PARTS / f"{picture.place}.json"
    part.write_text(json.dumps({"image": image, "annotations": annotations}), encoding="utf-8")
    return {}


def join(categories: Sequence[str], folder: Path) -> None:
    """Put the parts together, one at a time; numbers of pictures, objects and categories begin at 1."""
    number = {name: at for at, name in enumerate(categories, start=1)}
    parts = sorted((folder / PARTS).glob("*.json"))
    with (folder / FILE).open("w", encoding="utf-8") as out:
        info = {"description": "Objects of predicted masks, by Seglens"}
        listed = [{"id": at, "name": name, "supercategory": ""} for name, at in number.items()]
        out.write(f'{{"info": {json.dumps(info)}, "licenses": [], "categories": {json.dumps(listed)},\n')
        _write_list(out, "images", ({"id": at, **read["image"]} for at, read in _numbered(parts)))
        out.write(",\n")
        _write_list(out, "annotations", _annotations(parts, number))
        out.write("}\n")
    shutil.rmtree(folder / PARTS)


def _annotations(parts: Sequence[Path], number: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    written = 0
    for at, part in _numbered(parts):
        for row in part["annotations"]:
            written += 1
            category = number[row.pop("category")]
            yield {"id": written, "image_id": at, "category_id": category, **row}


def _numbered(parts: Sequence[Path]) -> Iterator[tuple[int, dict[str, Any]]]:
    for at, part in enumerate(parts, start=1):
        yield at, json.loads(part.read_text(encoding="utf-8"))


def _write_list(out: Any, name: str, rows: Iterator[dict[str, Any]]) -> None:
    out.write(f'"{name}": [')
    for at, row in enumerate(rows):
        out.write(f"{',' if at else ''}\n{json.dumps(row)}")
    out.write("]")

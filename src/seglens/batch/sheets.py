"""What `batch` draws of one explained picture: itself, truth, prediction, heat maps and comparison sheets."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int
from PIL.Image import Image as Picture
from PIL.Image import fromarray as image_of
from torch import Tensor

from seglens.data.sample import Sample, Task
from seglens.data.transforms import Frame
from seglens.draw import (
    Scale,
    Tile,
    heat_overlay,
    heat_scale,
    mask_picture,
    no_map,
    outline,
    overlay,
    picture,
    save_png,
    sheet,
    signed_scale,
)
from seglens.explain.explanation import Explanation
from seglens.models.segmenter import ModelSpec
from seglens.outputs import unused_name
from seglens.shapes import Image, Map, Mask

DRAWN = 1024
"""Longest side of a drawn picture, in pixels; numbers and raw maps are of the whole picture all the same."""

PIXELS_IN_SCALE = 0.99
"""Share of the pixels that the colours tell apart in a map that has a value of its own for every pixel."""


@dataclass(frozen=True)
class Subject:
    """One picture to draw: as it is, with what the model made of it, in ``folder / place``."""

    sample: Sample
    frame: Frame
    predicted: Mask
    folder: Path
    place: str

    def save(self, drawn: Picture, name: str) -> str:
        """Save a picture and return its file name below the folder."""
        save_png(drawn, self.folder / self.place / f"{name}.png")
        return f"{self.place}/{name}.png"


def draw_subject(subject: Subject, spec: ModelSpec, task: Task) -> dict[str, str]:
    """Save ``orig gt pred overlay``; the overlay has the truth, where there is one, as a white outline."""
    sample, palette = shown(subject.sample, spec), task.palette
    predicted = fitted(subject.predicted)
    files = {"orig": subject.save(picture(sample.image), "orig")}
    marked = overlay(sample.image, predicted, palette)
    if sample.mask is not None:
        truth = sample.mask.masked_fill(~sample.valid, 0)
        files["gt"] = subject.save(mask_picture(truth, palette), "gt")
        marked = outline(marked, truth > 0)
    files["pred"] = subject.save(mask_picture(predicted, palette), "pred")
    files["overlay"] = subject.save(marked, "overlay")
    return files


def draw_maps(
    subject: Subject, spec: ModelSpec, explanations: Sequence[Explanation], row: int
) -> tuple[list[str], list[dict[str, str]]]:
    """Save a heat map for each explanation, and sheets that compare methods and layers.

    Returns:
        The files of the heat maps, in the order of ``explanations``, and the sheets' titles and files.
    """
    image = shown(subject.sample, spec).image
    region_of_target = (
        fitted(subject.frame.mask_to_native(explanations[0].target.pixels[row].cpu().long())) > 0
    )
    files, tiles, taken = [], [], {"orig", "gt", "pred", "overlay"}
    for entry in explanations:
        tile = _tile(entry, row, subject.frame, image)
        if entry.status[row] == "ok":
            tile = replace(tile, picture=outline(tile.picture, region_of_target))
        files.append(subject.save(tile.picture, unused_name(entry.name, taken)))
        tiles.append(tile)
    sheets = []
    for title, kept in comparisons(explanations):
        first = [Tile(picture(image), "image"), *(tiles[i] for i in kept)]
        page = sheet(
            [first[i : i + 5] for i in range(0, len(first), 5)], title=f"{subject.sample.name}: {title}"
        )
        sheets.append({"title": title, "file": subject.save(page, unused_name(title, taken))})
    return files, sheets


def comparisons(explanations: Sequence[Explanation]) -> list[tuple[str, list[int]]]:
    """Return the sheets worth drawing: all methods at one layer, all layers of one method.

    Maps without a layer stand on every sheet of methods. A sheet of one map would compare nothing.
    """
    layers = list(dict.fromkeys(entry.layer for entry in explanations if entry.layer is not None))
    methods = list(dict.fromkeys(entry.method for entry in explanations))
    of_layer = {
        f"methods@{layer}": [i for i, entry in enumerate(explanations) if entry.layer in (layer, None)]
        for layer in layers
    }
    of_method = {
        f"layers@{method}": [i for i, entry in enumerate(explanations) if entry.method == method]
        for method in methods
    }
    found = of_layer | of_method
    if not layers:
        found["methods"] = list(range(len(explanations)))
    return [(title, kept) for title, kept in found.items() if len(kept) > 1]


def save_raw(subject: Subject, explanations: Sequence[Explanation], row: int) -> str:
    """Save the raw maps as ``maps.npz`` and return its name below the folder.

    ``map:NAME`` is the map at the picture's own size, ``grid:NAME`` what the layer gave before it was brought
    to size, and ``channels:NAME`` the attribution of each channel on the input grid, where there are such;
    all float32, signed, unscaled. Rows without a target hold NaN.
    """
    arrays: dict[str, Any] = {}
    for entry in explanations:
        arrays[f"map:{entry.name}"] = subject.frame.maps_to_native(entry.map[row].cpu()).numpy()
        for kind, values in (("grid", entry.grid), ("channels", entry.channels)):
            if values is not None:
                arrays[f"{kind}:{entry.name}"] = values[row].cpu().numpy()
    file = f"{subject.place}/maps.npz"
    np.savez_compressed(
        subject.folder / file, **{key: values.astype(np.float32) for key, values in arrays.items()}
    )
    return file


def shown(sample: Sample, spec: ModelSpec) -> Sample:
    """Return a sample as it is drawn: the model's intensity window opened up, no side above `DRAWN`."""
    low, high = spec.window
    image = ((sample.image - low) / (high - low)).clamp(0, 1)
    size = drawn_size(image.shape[1], image.shape[2])
    if size != tuple(image.shape[1:]):
        image = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)
    mask = None if sample.mask is None else fitted(sample.mask)
    return Sample(sample.name, image, mask, fitted(sample.valid.long()) > 0)


def _tile(entry: Explanation, row: int, frame: Frame, image: Image) -> Tile:
    title = entry.name
    rows, columns = image.shape[1:]
    if entry.status[row] != "ok":
        return Tile(no_map(rows, columns, entry.status[row].replace("_", " ")), title)
    native = frame.maps_to_native(entry.map[row].cpu())
    drawn: Map = native
    if tuple(native.shape) != (rows, columns):
        drawn = F.interpolate(native[None, None], (rows, columns), mode="bilinear", antialias=True)[0, 0]
    share = 1.0 if entry.layer is not None else PIXELS_IN_SCALE
    scale_of = signed_scale if bool((drawn < 0).any()) else heat_scale
    scale: Scale = scale_of(drawn, share=share)
    return Tile(heat_overlay(image, drawn, scale), title, scale=scale)


def class_indices(mask: Mask) -> Picture:
    """Return a mask as a grey picture whose values are class indices."""
    return image_of(mask.to(torch.uint8).cpu().numpy())


def drawn_size(rows: int, columns: int) -> tuple[int, int]:
    """Return the size at which a picture is drawn."""
    share = min(1.0, DRAWN / max(rows, columns))
    return max(1, round(rows * share)), max(1, round(columns * share))


def fitted(mask: Mask) -> Int[Tensor, "rows columns"]:
    """Return a mask at the size at which its picture is drawn."""
    size = drawn_size(mask.shape[0], mask.shape[1])
    if size == tuple(mask.shape):
        return mask.long()
    return F.interpolate(mask[None, None].to(torch.uint8), size, mode="nearest-exact")[0, 0].long()

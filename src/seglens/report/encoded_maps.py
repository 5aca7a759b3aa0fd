"""Raw maps and masks encoded as 8-bit pictures, which the browser colours.

A map keeps the resolution of its layer; one with a value for every pixel is averaged down. The levels are
even steps between two limits, so the page can tell the value under the pointer. Needs no torch.
"""

import io
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from seglens.data.picture_files import open_picture
from seglens.errors import DataError
from seglens.files.arrays import open_npz
from seglens.results.maps import MapFrame, OneMap

MapValues = Float[np.ndarray, "rows columns"]
Levels = UInt8[np.ndarray, "rows columns"]

FINEST = 192
"""Longest side of a map as it is read; a page with many maps keeps fewer cells."""

NUM_LEVELS = 254
"""Steps between the limits of a map; level 0 is left for cells without a value."""

UNREADABLE = (OSError, ValueError, SyntaxError, KeyError, zipfile.BadZipFile, DataError)
"""The errors of reading a damaged picture or file of raw maps."""


@dataclass(frozen=True)
class EncodedGrid:
    """The values of one map, NaN where there are none.

    ``part`` is left, top, width and height of the picture as shares of the grid: what is beside is padding.
    ``low`` and ``high`` are the limits of the levels. With ``floored`` the map itself is the grid without
    what is below 0, which is kept as the evidence against. ``finest`` is its longest side as it was read.
    """

    values: MapValues
    part: tuple[float, float, float, float]
    low: float
    high: float
    floored: bool
    finest: int


@contextmanager
def opened(file: Path) -> Iterator[Mapping[str, np.ndarray]]:
    """Open raw maps, ``.npz`` or ``.safetensors``; an array is read when it is asked for."""
    if file.suffix == ".safetensors":
        from safetensors.numpy import load_file

        yield load_file(file)
    else:
        with open_npz(file) as arrays:
            yield arrays


def encoded_grid(arrays: Mapping[str, np.ndarray], name: str, row: OneMap, frame: MapFrame) -> EncodedGrid:
    """Return the values of the map ``name``, whose row in the table is ``row``.

    A layer's own grid is taken where it is there and ``frame`` says how the picture lies in it; else the map
    at the picture's size.

    Raises:
        KeyError: there is no such map.
        ValueError: it is no map, or has no value.
    """
    positive = (row.statistic("min") or 0.0) >= 0
    signed, part = row.evidence is not None, frame.part
    if len(part) == 4 and f"grid:{name}" in arrays:
        values = _read(arrays, f"grid:{name}")
        if positive and not signed:
            values = np.maximum(values, 0)
        finest = max(values.shape)
        values = box_averaged(values, FINEST)
        limits = _apart(float(np.nanmin(values)), float(np.nanmax(values)))
        return EncodedGrid(values, (part[0], part[1], part[2], part[3]), *limits, positive and signed, finest)
    values = _read(arrays, f"map:{name}")
    finest, own = max(values.shape), row.limits
    values = box_averaged(values, FINEST)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if own and row.layer is None:
        # The few extreme pixels of such a map would leave hardly a level to all others.
        low, high = max(low, own[0]), min(high, own[1])
    return EncodedGrid(values, (0.0, 0.0, 1.0, 1.0), *_apart(low, high), floored=False, finest=finest)


def _read(arrays: Mapping[str, np.ndarray], key: str) -> MapValues:
    values = np.asarray(arrays[key], dtype=np.float32)
    if values.ndim != 2 or not np.isfinite(values).any():
        raise ValueError(f"{key} is no map, or has no value.")
    return np.where(np.isfinite(values), values, np.float32("nan")).astype(np.float32)


def _apart(low: float, high: float) -> tuple[float, float]:
    """Return limits that differ: a constant map has its value at the upper one."""
    return (low, high) if high > low else (high - max(abs(high), 1e-12), high)


def box_averaged(values: MapValues, side: int) -> Float[np.ndarray, "fewer_rows fewer_columns"]:
    """Return values with no side above ``side``, each the mean over a box; NaN where the box holds none."""
    rows, columns = values.shape
    share = side / max(rows, columns)
    if share >= 1:
        return values
    size = (max(1, round(columns * share)), max(1, round(rows * share)))
    known = np.isfinite(values)
    box = Image.Resampling.BOX
    total = np.asarray(Image.fromarray(np.where(known, values, 0).astype(np.float32)).resize(size, box))
    if known.all():
        return total.astype(np.float32)
    weight = np.asarray(Image.fromarray(known.astype(np.float32)).resize(size, box))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(weight > 0, total / weight, np.nan).astype(np.float32)


def levels(values: MapValues, low: float, high: float) -> Levels:
    """Return values as levels: 1 at ``low`` and below, 255 at ``high`` and above, 0 where there is none."""
    share = np.clip((values - low) / (high - low), 0, 1)
    return np.where(np.isfinite(values), 1 + np.round(share * NUM_LEVELS), 0).astype(np.uint8)


def grid_picture(grid: EncodedGrid, side: int) -> bytes:
    """Return a map as a lossless grey picture with no side above ``side``."""
    return lossless(Image.fromarray(levels(box_averaged(grid.values, side), grid.low, grid.high)))


def region_picture(arrays: Mapping[str, np.ndarray], key: str, side: int) -> bytes | None:
    """Return the region ``key`` of raw maps in black and white; None where there is none."""
    if key not in arrays:
        return None
    return lossless(fitted_to(Image.fromarray((np.asarray(arrays[key]) > 0).astype(np.uint8) * 255), side))


def encoded_mask(file: Path, side: int) -> bytes:
    """Return a drawn mask, its colours untouched."""
    with open_picture(file) as mask:
        return lossless(fitted_to(mask.convert("RGB"), side))


def fitted_to(picture: Image.Image, side: int) -> Image.Image:
    """Return a picture with no side above ``side``, every pixel one of the picture's own."""
    share = side / max(picture.size)
    if share >= 1:
        return picture
    size = (max(1, round(picture.width * share)), max(1, round(picture.height * share)))
    return picture.resize(size, Image.Resampling.NEAREST)


def lossless(picture: Image.Image) -> bytes:
    """Return a picture as WebP that gives every pixel back as it was."""
    stream = io.BytesIO()
    picture.convert("RGB").save(stream, "WEBP", lossless=True, quality=60, method=4, exact=True)
    return stream.getvalue()

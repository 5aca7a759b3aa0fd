"""A volume as data for the page, to scroll through its slices.

Each volume is one picture for the browser: its slices beside and below each other. Needs no torch.
"""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from seglens.report.cards import GalleryCard
from seglens.report.encoded_maps import UNREADABLE, levels, lossless, opened

Voxels = UInt8[np.ndarray, "z y x"]
QUALITY = 80
"""Quality of the slices of the picture, which are only looked at; masks and maps are lossless."""

MASKS = ("truth", "prediction", "valid")


@dataclass(frozen=True)
class VolumeData:
    """A volume as it was read: its picture and masks by name, its maps by their place on the card.

    ``native`` are the slices, rows and columns of its file. ``spacing`` are millimetres a voxel of the
    picture along each axis; None where they are not known.
    """

    voxels: Mapping[str, Voxels]
    maps: Mapping[int, Float[np.ndarray, "z y x"]]
    native: tuple[int, ...]
    spacing: tuple[float, ...] | None


def read_volume(card: GalleryCard) -> VolumeData | None:
    """Read the volume of a card; None where there is none, or it can't be read."""
    if card.slices is None:
        return None
    try:
        with opened(card.slices) as arrays:
            regions = [f"region:{heat.row.target}" for heat in card.heatmaps]
            names = [name for name in ("image", *MASKS, *dict.fromkeys(regions)) if name in arrays]
            voxels = {name: np.asarray(arrays[name]) for name in names}
            size = voxels["image"].shape
            if len(size) != 3 or any(v.shape != size or v.dtype != np.uint8 for v in voxels.values()):
                return None
            maps = {
                i: np.asarray(arrays[f"map:{heat.name}"], dtype=np.float32)
                for i, heat in enumerate(card.heatmaps)
                if heat.row.status == "ok" and f"map:{heat.name}" in arrays
            }
            native = tuple(map(int, arrays["native"]))
            spacing = tuple(map(float, arrays["spacing"])) if "spacing" in arrays else None
    except UNREADABLE:
        return None
    shown = {i: v for i, v in maps.items() if v.ndim == 3 and np.isfinite(v).any()}
    return VolumeData(voxels, shown, native, spacing)


def volume_row(
    volume: VolumeData,
    card: GalleryCard,
    put: Callable[[bytes | None], int | None],
    picture_side: int,
    map_side: int,
) -> dict[str, object]:
    """Return a volume as plain data.

    Args:
        volume: what was read.
        card: the card that it belongs to.
        put: keeps an encoded picture and returns its number.
        picture_side: most voxels along a side of the picture.
        map_side: most voxels along a side of a map.
    """
    image = fewer(volume.voxels["image"].astype(np.float32), picture_side).round().astype(np.uint8)
    found = {name: put(lossless(mosaic(_nearest(v, image.shape)))) for name, v in volume.voxels.items()}
    found["image"] = put(_lossy(mosaic(image)))
    spacing = volume.spacing and [
        mm * old / new
        for mm, old, new in zip(volume.spacing, volume.voxels["image"].shape, image.shape, strict=True)
    ]
    maps = {}
    for i, values in volume.maps.items():
        values = fewer(values, map_side)
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        high = high if high > low else low + max(abs(low), 1e-12)
        maps[i] = {
            "size": values.shape,
            "levels": put(lossless(mosaic(levels_of(values, low, high)))),
            "low": low,
            "high": high,
        }
    return {
        "size": image.shape,
        "native": volume.native,
        "spacing": spacing,
        "image": found["image"],
        **{name: found.get(name) for name in MASKS},
        "regions": {heat.target: found.get(f"region:{heat.row.target}") for heat in card.heatmaps},
        "maps": maps,
    }


def levels_of(values: Float[np.ndarray, "z y x"], low: float, high: float) -> Voxels:
    """Return values as levels, as `seglens.report.encoded_maps.levels` makes them of a picture's."""
    z, y, x = values.shape
    return levels(values.reshape(z * y, x), low, high).reshape(z, y, x)


def mosaic(volume: Voxels) -> Image.Image:
    """Return the slices of a volume beside and below each other, as many in a row as there are rows."""
    slices, rows, columns = volume.shape
    across = math.ceil(math.sqrt(slices))
    down = math.ceil(slices / across)
    page = np.zeros((down * across, rows, columns), np.uint8)
    page[:slices] = volume
    page = page.reshape(down, across, rows, columns).swapaxes(1, 2)
    return Image.fromarray(page.reshape(down * rows, across * columns))


def fewer(values: Float[np.ndarray, "z y x"], side: int) -> Float[np.ndarray, "fz fy fx"]:
    """Return values with no side above ``side``, each the mean over a box; NaN where the box holds none."""
    total, weight = np.nan_to_num(values), np.isfinite(values).astype(np.float32)
    for axis, old in enumerate(values.shape):
        if old > side:
            starts = np.arange(side) * old // side
            total, weight = (np.add.reduceat(each, starts, axis) for each in (total, weight))
    with np.errstate(invalid="ignore"):
        return (total / weight).astype(np.float32)


def _nearest(volume: Voxels, size: Sequence[int]) -> Voxels:
    for axis, (old, new) in enumerate(zip(volume.shape, size, strict=True)):
        volume = volume.take(((np.arange(new) + 0.5) * old / new).astype(int), axis)
    return volume


def _lossy(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "WEBP", quality=QUALITY, method=4)
    return stream.getvalue()

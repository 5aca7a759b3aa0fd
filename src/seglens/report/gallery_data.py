"""The gallery as plain data for the page: pictures, masks and maps of all cards, within a budget of bytes.

Everything that looks the same is kept once. Where there is too much, pictures get smaller and maps coarser,
all alike, until the page fits; the page says how coarse.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from seglens.report import encoded_maps, pictures
from seglens.report.cards import PLAIN, GalleryCard, Heat
from seglens.report.encoded_maps import EncodedGrid
from seglens.report.volume_data import VolumeData, read_volume, volume_row

LIMIT = 14_800_000
"""Bytes of a whole page; with the text that is not counted here it stays below 15 MB."""

SIZES = (
    (640, 192),
    (512, 192),
    (384, 192),
    (384, 128),
    (320, 96),
    (256, 96),
    (256, 64),
    (192, 48),
    (128, 32),
)
"""Longest sides to try, of pictures and of maps; the first that fits wins. Those of volumes follow them."""

VOXELS, CELLS = 4, 3
"""Of the longest sides of pictures and of maps, which part volumes may have that are scrolled through."""

PROBES = 24
FINE_MASK = 384
"""Longest side of masks: they are small, and their edges matter."""


@dataclass(frozen=True)
class CardData:
    """One card with its maps as they were read, and the regions that go with them."""

    card: GalleryCard
    grids: Mapping[int, EncodedGrid]
    regions: Mapping[str, bytes]
    hidden: Mapping[int, bytes]
    volume: VolumeData | None = None


@dataclass(frozen=True)
class GalleryData:
    """``data`` is what the script of the page reads; ``thumbnails`` are addresses of pictures by file."""

    data: dict[str, Any]
    thumbnails: dict[Path, str]

    @property
    def picture_side(self) -> int:
        """Longest side of the embedded pictures."""
        return int(self.data["pictureSide"])

    @property
    def map_side(self) -> int:
        """Longest side of the embedded maps."""
        return int(self.data["mapSide"])


class Assets:
    """Addresses of pictures, each kept once, by their number."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.known: dict[bytes, int] = {}

    def put(self, data: bytes | None) -> int | None:
        """Keep a picture and return its number; None stays None."""
        if data is None:
            return None
        if data not in self.known:
            self.known[data] = len(self.addresses)
            self.addresses.append(pictures.data_uri(data))
        return self.known[data]

    @property
    def size(self) -> int:
        """Bytes that the addresses take in the page."""
        return sum(len(address) + 3 for address in self.addresses)


def build_gallery_data(
    cards: Sequence[GalleryCard], others: Sequence[Path], *, beside: Path, used: int = 0
) -> GalleryData:
    """Put the data of ``cards`` together.

    Args:
        cards: what the gallery shows.
        others: more pictures that the page shows by themselves.
        beside: the folder of the page, from which larger pictures are named.
        used: bytes that the rest of the page takes.
    """
    read = [read_card(card) for card in cards]
    room = max(2_000_000, LIMIT - used)
    probe = read[:: max(1, len(read) // PROBES)]
    for picture_side, map_side in SIZES:
        small = _gallery_data(probe, (), beside, picture_side, map_side)
        if probe and _size(small) * len(read) / len(probe) > room * 1.1:
            continue
        data = _gallery_data(read, others, beside, picture_side, map_side)
        if _size(data) <= room:
            return data
    return _gallery_data(read, others, beside, *SIZES[-1])


def read_card(card: GalleryCard) -> CardData:
    """Read the maps of a card; what can't be read is left out, and its drawn picture stands for it."""
    grids: dict[int, EncodedGrid] = {}
    regions: dict[str, bytes] = {}
    hidden: dict[int, bytes] = {}
    for raw in dict.fromkeys(heat.raw for heat in card.heatmaps if heat.raw):
        try:
            with encoded_maps.opened(raw) as arrays:
                ours = [(i, heat) for i, heat in enumerate(card.heatmaps) if heat.raw == raw]
                for i, heat in ours:
                    found = _grid(arrays, heat)
                    if found is not None:
                        grids[i] = found
                    left_out = encoded_maps.region_picture(arrays, f"counted:{heat.name}", FINE_MASK)
                    if left_out is not None:
                        hidden[i] = left_out
                for target, asked in {heat.target: heat.row.target for _, heat in ours}.items():
                    region = encoded_maps.region_picture(arrays, f"region:{asked}", FINE_MASK)
                    if region is not None:
                        regions[target] = region
                valid = encoded_maps.region_picture(arrays, "valid", FINE_MASK)
                if valid is not None:
                    regions[""] = valid
        except encoded_maps.UNREADABLE:
            continue
    return CardData(card, grids, regions, hidden, read_volume(card))


def _grid(arrays: Mapping[str, np.ndarray], heat: Heat) -> EncodedGrid | None:
    if heat.row.status not in ("ok", "degenerate") or (heat.row.status != "ok" and not heat.row.evidence):
        return None
    try:
        return encoded_maps.encoded_grid(arrays, heat.name, heat.row, heat.frame)
    except encoded_maps.UNREADABLE:
        return None


def _gallery_data(
    read: Sequence[CardData], others: Sequence[Path], beside: Path, picture_side: int, map_side: int
) -> GalleryData:
    assets, thumbnails = Assets(), dict[Path, str]()
    rows = [_row(each, assets, thumbnails, beside, picture_side, map_side) for each in read]
    for file in others:
        small = pictures.shrink(file, picture_side)
        if small is not None:
            thumbnails[file] = pictures.data_uri(small)
    data = {"assets": assets.addresses, "cards": rows, "pictureSide": picture_side, "mapSide": map_side}
    return GalleryData(data, thumbnails)


def _row(
    read: CardData,
    assets: Assets,
    thumbnails: dict[Path, str],
    beside: Path,
    picture_side: int,
    map_side: int,
) -> dict[str, object]:
    """Return one card as plain data; its picture itself goes to ``thumbnails``."""
    card = read.card
    shown = card.shown
    if shown is not None and shown not in thumbnails:
        small = pictures.shrink(shown, picture_side)
        if small is not None:
            thumbnails[shown] = pictures.data_uri(small)
    gt, pred = (_mask(card.pictures.get(kind), assets) for kind in ("gt", "pred"))
    unreadable = [PLAIN[k] for k, mask in (("gt", gt), ("pred", pred)) if mask is None and k in card.pictures]
    return {
        "run": card.run,
        "split": card.split,
        "name": card.name,
        "status": card.status,
        "dice": card.dice,
        "scores": card.scores,
        "flags": [flag.name for flag in card.flags],
        "native": card.native,
        "truth": gt,
        "prediction": pred,
        "unreadable": unreadable,
        "valid": assets.put(read.regions.get("")),
        "full": {kind: _beside(file, beside) for kind, file in card.pictures.items()},
        "slices": read.volume
        and volume_row(read.volume, card, assets.put, picture_side // VOXELS, map_side // CELLS),
        "regions": {target: assets.put(data) for target, data in read.regions.items() if target},
        "maps": [
            _map(heat, read.grids.get(i), assets.put(read.hidden.get(i)), assets, map_side, picture_side)
            for i, heat in enumerate(card.heatmaps)
        ],
    }


def _mask(file: Path | None, assets: Assets) -> int | None:
    if file is None:
        return None
    try:
        return assets.put(encoded_maps.encoded_mask(file, FINE_MASK))
    except encoded_maps.UNREADABLE:
        return None


def _map(
    heat: Heat,
    grid: EncodedGrid | None,
    counted: int | None,
    assets: Assets,
    map_side: int,
    picture_side: int,
) -> dict[str, object]:
    row, evidence = heat.row, heat.row.evidence
    found: dict[str, object] = {
        "target": heat.target,
        "method": heat.method,
        "layer": heat.layer,
        "status": row.status,
        "why": row.why_missing,
        "unit": row.unit,
        "limits": (row.scale and row.scale.limits) or row.limits,
        "evidence": evidence and {"limits": evidence.limits, "opposing": evidence.opposing},
        "counted": counted,
        "statistics": row.statistics,
        "nulls": row.nulls,
    }
    if grid is not None:
        found["levels"] = assets.put(encoded_maps.grid_picture(grid, map_side))
        found |= {"low": grid.low, "high": grid.high, "part": grid.part, "floored": grid.floored}
        found["averaged"] = grid.finest > map_side
        found["finest"] = grid.finest
    elif heat.file is not None and row.status == "ok":
        # Drawn already, by an older version or by somebody else: it can be looked at, but not read.
        found["drawn"] = assets.put(pictures.shrink(heat.file, min(picture_side, 256)))
    return found


def _size(data: GalleryData) -> int:
    text = sum(len(str(row)) for row in data.data["cards"])
    assets = sum(len(address) + 3 for address in data.data["assets"])
    return text + assets + sum(len(address) for address in data.thumbnails.values())


def _beside(file: Path, folder: Path) -> str:
    """Return the address of a file as seen from the page."""
    try:
        return quote(Path(os.path.relpath(file, folder)).as_posix())
    except ValueError:  # another drive
        return file.as_uri()

"""The album: pictures, masks and maps of all cards as plain data for the page, within a budget of bytes.

Everything that looks the same is kept once. Where there is too much, pictures get smaller and maps coarser,
all alike, until the page fits; the page says how coarse.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from seglens.report import pictures, rasters
from seglens.report.cards import PLAIN, Card, Heat
from seglens.report.rasters import Grid

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
"""Longest sides to try, of pictures and of maps; the first that fits wins."""

PROBES = 24
FINE_MASK = 384
"""Longest side of masks: they are small, and their edges matter."""


@dataclass(frozen=True)
class Read:
    """One card with its maps as they were read, and the regions that go with them."""

    card: Card
    grids: Mapping[int, Grid]
    regions: Mapping[str, bytes]
    hidden: Mapping[int, bytes]


@dataclass(frozen=True)
class Album:
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


class Shelf:
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
            self.addresses.append(pictures.address(data))
        return self.known[data]

    @property
    def size(self) -> int:
        """Bytes that the addresses take in the page."""
        return sum(len(address) + 3 for address in self.addresses)


def build(cards: Sequence[Card], others: Sequence[Path], *, beside: Path, used: int = 0) -> Album:
    """Put the album of ``cards`` together.

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
        small = _album(probe, (), beside, picture_side, map_side)
        if probe and _size(small) * len(read) / len(probe) > room * 1.1:
            continue
        album = _album(read, others, beside, picture_side, map_side)
        if _size(album) <= room:
            return album
    return _album(read, others, beside, *SIZES[-1])


def read_card(card: Card) -> Read:
    """Read the maps of a card; what can't be read is left out, and its drawn picture stands for it."""
    grids: dict[int, Grid] = {}
    regions: dict[str, bytes] = {}
    hidden: dict[int, bytes] = {}
    for raw in dict.fromkeys(heat.raw for heat in card.heats if heat.raw):
        try:
            with rasters.opened(raw) as arrays:
                ours = [(i, heat) for i, heat in enumerate(card.heats) if heat.raw == raw]
                for i, heat in ours:
                    found = _grid(arrays, heat)
                    if found is not None:
                        grids[i] = found
                    left_out = rasters.region_picture(arrays, f"counted:{heat.name}", FINE_MASK)
                    if left_out is not None:
                        hidden[i] = left_out
                for target, asked in {heat.target: heat.row.target for _, heat in ours}.items():
                    region = rasters.region_picture(arrays, f"region:{asked}", FINE_MASK)
                    if region is not None:
                        regions[target] = region
                valid = rasters.region_picture(arrays, "valid", FINE_MASK)
                if valid is not None:
                    regions[""] = valid
        except rasters.UNREADABLE:
            continue
    return Read(card, grids, regions, hidden)


def _grid(arrays: Mapping[str, Any], heat: Heat) -> Grid | None:
    if heat.row.status not in ("ok", "degenerate") or (heat.row.status != "ok" and not heat.row.evidence):
        return None
    try:
        return rasters.grid_of(arrays, heat.name, heat.row, heat.frame)
    except rasters.UNREADABLE:
        return None


def _album(
    read: Sequence[Read], others: Sequence[Path], beside: Path, picture_side: int, map_side: int
) -> Album:
    shelf, thumbnails = Shelf(), dict[Path, str]()
    rows = [_row(each, shelf, thumbnails, beside, picture_side, map_side) for each in read]
    for file in others:
        small = pictures.shrink(file, picture_side)
        if small is not None:
            thumbnails[file] = pictures.address(small)
    data = {"assets": shelf.addresses, "cards": rows, "pictureSide": picture_side, "mapSide": map_side}
    return Album(data, thumbnails)


def _row(
    read: Read, shelf: Shelf, thumbnails: dict[Path, str], beside: Path, picture_side: int, map_side: int
) -> dict[str, object]:
    """Return one card as plain data; its picture itself goes to ``thumbnails``."""
    card = read.card
    shown = card.shown
    if shown is not None and shown not in thumbnails:
        small = pictures.shrink(shown, picture_side)
        if small is not None:
            thumbnails[shown] = pictures.address(small)
    gt, pred = (_mask(card.pictures.get(kind), shelf) for kind in ("gt", "pred"))
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
        "valid": shelf.put(read.regions.get("")),
        "full": {kind: _beside(file, beside) for kind, file in card.pictures.items()},
        "regions": {target: shelf.put(data) for target, data in read.regions.items() if target},
        "maps": [
            _map(heat, read.grids.get(i), shelf.put(read.hidden.get(i)), shelf, map_side, picture_side)
            for i, heat in enumerate(card.heats)
        ],
    }


def _mask(file: Path | None, shelf: Shelf) -> int | None:
    if file is None:
        return None
    try:
        return shelf.put(rasters.mask_picture(file, FINE_MASK))
    except rasters.UNREADABLE:
        return None


def _map(
    heat: Heat, grid: Grid | None, counted: int | None, shelf: Shelf, map_side: int, picture_side: int
) -> dict[str, object]:
    row, evidence = heat.row, heat.row.evidence
    found: dict[str, object] = {
        "target": heat.target,
        "method": heat.method,
        "layer": heat.layer,
        "status": row.status,
        "unit": row.unit,
        "limits": (row.scale and row.scale.limits) or row.limits,
        "evidence": evidence and {"limits": evidence.limits, "opposing": evidence.opposing},
        "counted": counted,
        "statistics": row.statistics,
        "nulls": row.nulls,
    }
    if grid is not None:
        found["levels"] = shelf.put(rasters.grid_picture(grid, map_side))
        found |= {"low": grid.low, "high": grid.high, "part": grid.part, "floored": grid.floored}
        found["averaged"] = grid.finest > map_side
        found["finest"] = grid.finest
    elif heat.file is not None and row.status == "ok":
        # Drawn already, by an older version or by somebody else: it can be looked at, but not read.
        found["drawn"] = shelf.put(pictures.shrink(heat.file, min(picture_side, 256)))
    return found


def _size(album: Album) -> int:
    text = sum(len(str(row)) for row in album.data["cards"])
    assets = sum(len(address) + 3 for address in album.data["assets"])
    return text + assets + sum(len(address) for address in album.thumbnails.values())


def _beside(file: Path, folder: Path) -> str:
    """Return the address of a file as seen from the page."""
    try:
        return quote(Path(os.path.relpath(file, folder)).as_posix())
    except ValueError:  # another drive
        return file.as_uri()

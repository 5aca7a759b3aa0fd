"""Pictures inside the HTML file: small copies as ``data:`` addresses, within a budget of bytes."""

import base64
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image, ImageOps

from seglens.data.picture_files import open_picture
from seglens.errors import DataError

BUDGET = 10_500_000
"""Bytes for all pictures of one report before base64, which adds a third: the file stays below 15 MB."""

SIDES = (384, 320, 256, 192, 144, 112, 80)
"""Longest sides to try, in pixels, the largest that keeps the budget wins."""

QUALITY = 82
PROBES = 40


def embed(files: Iterable[Path]) -> dict[Path, str]:
    """Return a ``data:`` address for each picture, all of one longest side; unreadable ones are left out."""
    wanted = list(dict.fromkeys(files))
    for side in SIDES[:-1]:
        # A probe over evenly spaced files tells most sides that are too large without encoding everything.
        probe = wanted[:: max(1, len(wanted) // PROBES)]
        guess = sum(len(data) for data in shrink_all(probe, side).values()) * len(wanted) / max(1, len(probe))
        if guess > BUDGET:
            continue
        encoded = shrink_all(wanted, side)
        if sum(len(data) for data in encoded.values()) <= BUDGET:
            return {file: data_uri(data) for file, data in encoded.items()}
    return {file: data_uri(data) for file, data in shrink_all(wanted, SIDES[-1]).items()}


def shrink_all(files: Sequence[Path], side: int) -> dict[Path, bytes]:
    """Encode pictures with a longest side of ``side`` pixels as WebP."""
    found = {file: shrink(file, side) for file in files}
    return {file: data for file, data in found.items() if data is not None}


def shrink(file: Path, side: int) -> bytes | None:
    """Return a picture as WebP, never enlarged; None where it can't be read, which the page then says."""
    try:
        with open_picture(file) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, ValueError, SyntaxError, DataError):
        return None
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, "WEBP", quality=QUALITY, method=4)
    return stream.getvalue()


def data_uri(data: bytes) -> str:
    """Return WebP bytes as a ``data:`` address."""
    return "data:image/webp;base64," + base64.b64encode(data).decode("ascii")

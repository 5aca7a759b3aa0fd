"""How large a picture may be: one budget of pixels and bytes for every file, whatever reads it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path

from seglens.errors import DataError, SettingError
from seglens.results.names import count

MAX_PIXELS = 100_000_000
"""Pixels of the largest picture, where nothing else is said: 1.2 GB as three channels of float32."""
VARIABLE = "SEGLENS_MAX_PIXELS"
"""The environment variable that says otherwise: processes that this one starts inherit it."""
BYTES = 12
"""Bytes that a pixel may take: three channels of float32."""


def max_pixels() -> int:
    """Return how many pixels a picture may have.

    Raises:
        SettingError: the environment variable holds no whole number above 0.
    """
    text = os.environ.get(VARIABLE, str(MAX_PIXELS))
    if not (text.isascii() and text.isdecimal() and len(text) < 19 and int(text) > 0):
        raise SettingError(
            f"{VARIABLE} is {text!r}; allowed is a whole number of pixels, such as {MAX_PIXELS}."
        )
    return int(text)


@contextmanager
def allowing(pixels: int | None) -> Iterator[None]:
    """Let pictures have that many pixels for a while; None changes nothing.

    Raises:
        SettingError: the number is not above 0.
    """
    if pixels is None:
        yield
        return
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(pixels)
    try:
        max_pixels()
        yield
    finally:
        os.environ.pop(VARIABLE) if before is None else os.environ.update({VARIABLE: before})


def refuse_large(file: Path, rows: int, columns: int, samples: int, itemsize: int) -> None:
    """Raise where a picture of that size would take more than the budget; ``itemsize`` is bytes a sample.

    Raises:
        DataError: it has too many pixels, or too many bytes.
    """
    most = max_pixels()
    size = rows * columns * samples * max(4, itemsize)  # they are read as float32
    if rows * columns <= most and size <= BYTES * most:
        return
    needed = max(rows * columns, -(-size // BYTES))
    raise DataError(
        f"{file} says that it is {columns} x {rows} pixels of {count(samples, 'channel')}, which takes "
        f"{size / 1e9:.3g} GB; allowed are {most} pixels, or {BYTES * most / 1e9:.3g} GB. If the file can be "
        f"trusted, allow more with --max-pixels {needed} (or {VARIABLE})."
    )


def refuse_large_volume(file: Path, shape: tuple[int, ...]) -> None:
    """Raise where a volume of that many voxels, as float32, would take more than the budget of bytes.

    Raises:
        DataError: it would.
    """
    most, size = BYTES * max_pixels(), 4 * prod(max(0, int(side)) for side in shape)
    if size > most:
        raise DataError(
            f"{file} says that it has {' x '.join(map(str, shape))} voxels, which takes {size / 1e9:.3g} GB; "
            f"allowed are {most / 1e9:.3g} GB. If the file can be trusted, allow more with --max-pixels "
            f"{-(-size // BYTES)} (or {VARIABLE})."
        )

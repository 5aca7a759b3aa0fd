"""The intensity window: which stored intensities are mapped to [0, 1].

A camera of 16 bits may use 220 of its 65,535 values. Shown over the whole range such pictures are black, to a
person and to a network. The window is found once, on the pictures that are trained on, belongs to the model
(`ModelSpec.window`), and is the same ever after: in training, at inference, and in every drawing.
"""

import math
import re
import warnings
from collections.abc import Iterator

import numpy as np

from seglens.data.images import read_stored
from seglens.data.layout import Entry, Finding, Split
from seglens.errors import DataError, SeglensWarning, SettingError

Window = tuple[float, float]
"""The ends of a window, as fractions of the largest number that the file's type holds."""

FULL: Window = (0.0, 1.0)
PERCENTILES = (0.1, 99.9)
"""Of the pixels of one picture: single hot or dead pixels decide nothing."""
PICTURES = (0.02, 0.98)
"""Quantiles of these percentiles over the pictures: single odd pictures decide nothing."""
WIDE = 0.25
"""A set that uses this share of its range, or more, keeps the whole of it: nothing would be gained."""
MOST = 512
"""Pictures that are looked at, spread evenly over a larger set."""

GLANCE = 16
"""Pictures that are looked at where a model meets a set that it wasn't trained on."""
DIM = 1 / 8
"""Pictures that use less of a model's window than this are nearly black to it."""
BEYOND = 4.0
"""Pictures that reach up to so many times the width of a model's window are nearly white to it."""

_BOUNDS = re.compile(r"\s*(-?[\d.eE+-]+)\s*,\s*(-?[\d.eE+-]+)\s*")


def used_range(split: Split, most: int = MOST) -> Window:
    """Return the intensities that the pictures of ``split`` use, hot pixels and odd pictures left out.

    Of each of ``most`` pictures the `PERCENTILES` are taken, and of those the `PICTURES` quantiles. Pictures
    that can't be read are left out; without any the range is the full one.
    """
    ends = [_ends(pixels) / _largest(pixels.dtype) for pixels in _readable(split, most)]
    if not ends:
        return FULL
    lows, highs = np.array(ends).T
    return float(np.quantile(lows, PICTURES[0])), float(np.quantile(highs, PICTURES[1]))


def found_window(split: Split) -> Window:
    """Return the window for a model that is trained on ``split``: what it uses, or all where that is much.

    The window is all of the range where the pictures use a quarter of it (`WIDE`) or more, or are even; of
    volumes too, whose reader has a window of its own (`seglens.data.volumes.sets`).
    """
    if split.dims == 3:
        return FULL
    low, high = used_range(split)
    return FULL if high - low >= WIDE or not low < high else (max(low, 0.0), min(high, 1.0))


def about_range(split: Split) -> list[Finding]:
    """Say where the pictures use so little of their range that the whole of it would show them black."""
    if not len(split) or split.dims == 3:
        return []
    low, high = used_range(split)
    if found_window(split) == FULL:
        return about_depths(split)
    largest = next(_largest(pixels.dtype) for pixels in _readable(split))
    return [
        Finding(
            "intensity-range",
            "note",
            f"The pictures of {split.name} use intensities {low * largest:g} to {high * largest:g} of 0 to "
            f"{largest:g}: {high - low:.1%} of the range. Training maps what is used to [0, 1] "
            "(--window auto).",
        )
    ]


def about_depths(split: Split) -> list[Finding]:
    """Warn where pictures of one type use far less of it than those of another: one window maps them all."""
    tops: dict[str, list[float]] = {}
    names: dict[str, list[str]] = {}
    for entry, pixels in _named(split, 4 * GLANCE):
        tops.setdefault(str(pixels.dtype), []).append(float(_ends(pixels)[1]) / _largest(pixels.dtype))
        names.setdefault(str(pixels.dtype), []).append(entry.name)
    used = {kind: float(np.median(found)) for kind, found in tops.items()}
    highest = max(used.values(), default=0.0)
    dark = [kind for kind, top in used.items() if top * BEYOND < highest]
    text = (
        f"Pictures are of {' and '.join(used)}, and those of {' and '.join(dark)} use less than a quarter of "
        "the share of their range that others use: one window maps all of them, and they are nearly black. "
        "Save all pictures with the same bits, stretched alike."
    )
    told = tuple(name for kind in dark for name in names[kind])
    return [Finding("bit-depths", "warning", text, told)] if dark else []


def warn_of_window(window: Window, normalise: str, split: Split) -> None:
    """Warn where pictures are nearly black or white to a model that maps ``window`` to [0, 1].

    As those of 12 bits in 16 are to a model of 8 bits, and those of 8 bits to one that was trained on them.
    """
    if normalise == "image" and window == FULL:
        return  # each picture is stretched by itself
    low, high = used_range(split, GLANCE) if any(True for _ in _readable(split, 1)) else window
    width, (dark, bright) = window[1] - window[0], window
    if not low < high or (
        high - low >= DIM * width and dark < high <= dark + BEYOND * width and low < bright
    ):
        return
    shade = "black" if high - dark < width else "white"
    warnings.warn(
        f"The pictures of {split.name!r} use intensities {low:.2%} to {high:.2%} of what their files can "
        f"hold, and the model maps {dark:.2%} to {bright:.2%} to black to white: to it they are nearly "
        f"{shade}. Was it trained on pictures of another bit depth? Save these in the range of those.",
        SeglensWarning,
        stacklevel=2,
    )


def read_window(text: str, split: Split) -> Window:
    """Return the window that is written ``auto`` (found on ``split``), ``full``, or ``LOW,HIGH``.

    ``LOW`` and ``HIGH`` are numbers as the files hold them: ``100,4095`` of 12-bit pictures. Volumes have
    theirs from their reader, so that all of [0, 1] is left.

    Raises:
        SettingError: it is none of these, or not within what the files can hold.
        DataError: the first picture can't be read.
    """
    if split.dims == 3:
        return FULL
    if text == "auto":
        for finding in about_depths(split):
            warnings.warn(finding.text, SeglensWarning, stacklevel=2)
        return found_window(split)
    if text == "full":
        return FULL
    low, high = bounds(text)
    pixels = _pixels(split, split.entries[0])
    largest = _largest(pixels.dtype)
    if low < 0 or high > largest:
        raise SettingError(
            f"The window {text!r} is not within what the pictures can hold, 0 to {largest:g} "
            f"({pixels.dtype}, {split.entries[0].image.name}). Give two numbers as the files hold them."
        )
    return low / largest, high / largest


def bounds(text: str) -> tuple[float, float]:
    """Return the two numbers of ``LOW,HIGH``.

    Raises:
        SettingError: it is not two finite numbers, the lower one first.
    """
    found = _BOUNDS.fullmatch(text)
    try:
        low, high = (float(part) for part in found.groups()) if found else (math.nan, math.nan)
    except ValueError:
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise SettingError(
            f"The window {text!r} is not allowed. Write auto, full, or LOW,HIGH: two numbers as the files "
            "hold them, the lower one first, such as 100,4095."
        )
    return low, high


def _readable(split: Split, most: int = MOST) -> Iterator[np.ndarray]:
    """The stored pixels of at most so many pictures, spread evenly; those that can't be read are left out."""
    return (pixels for _, pixels in _named(split, most))


def _named(split: Split, most: int) -> Iterator[tuple[Entry, np.ndarray]]:
    """The same with their entries."""
    step = max(1, -(-len(split) // most))
    for entry in split.entries[::step]:
        try:
            yield entry, _pixels(split, entry)
        except DataError:
            continue  # it is named where the picture is read to be used


def _pixels(split: Split, entry: Entry) -> np.ndarray:
    """The pixels as they are stored; those that are in no file are fractions already."""
    return split.reader(entry).image.numpy() if entry.sha256 else read_stored(entry.image).without_alpha()


def _ends(pixels: np.ndarray) -> np.ndarray:
    """The `PERCENTILES` of a picture, all channels together; all of it where those are one number."""
    if pixels.dtype == bool:  # of one bit
        pixels = pixels.astype(np.uint8)
    values = pixels[np.isfinite(pixels)] if np.issubdtype(pixels.dtype, np.floating) else pixels.ravel()
    if not values.size:
        return np.array([0.0, 0.0])
    low, high = np.percentile(values, PERCENTILES)
    return np.array([low, high] if low < high else [values.min(), values.max()], dtype=np.float64)


def _largest(dtype: np.dtype) -> float:
    """What is divided by to reach [0, 1], as `seglens.data.images.as_image` does."""
    return float(np.iinfo(dtype).max) if np.issubdtype(dtype, np.integer) else 1.0

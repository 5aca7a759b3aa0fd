"""Mask files with palettes: whether the files of a set number their colours alike.

A program that saves only the colours that a picture has (GIF, an optimised palette) numbers them anew in
every file. An index is then no class: the same colour is 2 in one file, and 1 in another that lacks a colour.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from seglens.data.labels import grey_label, read_mask
from seglens.data.layout import Finding
from seglens.data.picture_files import open_picture
from seglens.errors import DataError
from seglens.runtime.threads import Pool

Colour = tuple[int, ...]


def about_palettes(files: Sequence[Path], *, foreground: bool) -> list[Finding]:
    """Return an error where a colour has several values in the masks of a set.

    Pixels are looked at only where palettes differ. With ``foreground`` all values above 0 are one.
    """
    with Pool(max_workers=min(8, os.cpu_count() or 1)) as pool:
        tables = list(pool.map(_palette_of, files))
        if len(set(tables) - {b""}) < 2:
            return []
        indexed = [file for file, table in zip(files, tables, strict=True) if table]
        first: dict[Colour, tuple[int, Path]] = {}
        for file, found in zip(indexed, pool.map(_colours_of, indexed), strict=True):
            for colour, value in found:
                before, other = first.setdefault(colour, (value, file))
                if (before > 0) != (value > 0) if foreground else before != value:
                    return [_contradiction(colour, (before, other), (value, file))]
    return []


def _contradiction(colour: Colour, *found: tuple[int, Path]) -> Finding:
    (before, one), (value, other) = found
    text = (
        f"Masks have palettes that number colours differently: {colour} is {before} in {one.name} and "
        f"{value} in {other.name}, so that numbers are no classes. Name the colours with --palette FILE "
        "(lines 'name r g b'), or save grey values."
    )
    return Finding("mask-values", "error", text, (str(one), str(other)))


def _palette_of(file: Path) -> bytes:
    """Return the palette of a mask, not decoded; nothing where it has none or can't be read."""
    if file.suffix.lower() == ".npy":
        return b""
    try:
        with open_picture(file) as opened:
            return bytes(opened.palette.palette) if opened.mode == "P" and opened.palette else b""
    except DataError:  # reading the mask says what is wrong with it
        return b""


def _colours_of(file: Path) -> list[tuple[Colour, int]]:
    """Return the colours of a mask's pixels, each with the value that it is read as."""
    try:
        stored = read_mask(file)
        values = grey_label(stored, file)
    except DataError:
        return []
    if stored.palette is None:
        return []
    used, places = np.unique(stored.values[..., 0], return_index=True)
    colours = [tuple(map(int, stored.palette[index])) for index in used]
    return list(zip(colours, values.ravel()[places].tolist(), strict=True))

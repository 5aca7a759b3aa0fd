"""Reading mask files: one integer for each pixel, whatever form the file has."""

from pathlib import Path
from typing import IO

import numpy as np
import torch

from seglens.data.images import read_stored
from seglens.data.limits import refuse_large
from seglens.data.picture_files import open_regular, refused, unreadable
from seglens.data.stored import Stored
from seglens.errors import MaskValueError
from seglens.shapes import Mask

MASK_SUFFIXES = (".npy",)
"""What masks may be besides pictures."""


def read_label(file: Path) -> Mask:
    """Return the integers of a mask file as stored: grey values, palette indices, 0 and 1 of one-bit files.

    A grey mask saved as RGB or RGBA counts as grey. Palette indices are taken where they and the colours
    tell the same story, see `_indices`.

    Raises:
        DataError: the file is missing or can't be read, it is lossy, a colour picture, partly see-through, or
            its values are no integers.
    """
    stored = read_mask(file)
    if stored.lossy:
        raise MaskValueError(
            f"The mask {file} is in a lossy format (JPEG or the like), which changes values. Save it as PNG, "
            "from the original."
        )
    return torch.from_numpy(grey_label(stored, file))


def read_mask(file: Path) -> Stored:
    """Return what a mask file stores: of a picture, or a NumPy array of integers (``.npy``).

    Raises:
        DataError: the file is missing or can't be read.
    """
    file = Path(file)
    return _read_array(file) if file.suffix.lower() == ".npy" else read_stored(file)


def grey_label(stored: Stored, file: Path) -> np.ndarray:
    """Return the integers of a mask that has one for each pixel, as int64.

    Raises:
        MaskValueError: it is in colour, partly see-through, or its values are no integers.
    """
    if stored.palette is not None:
        return _indices(stored, file).astype(np.int64)
    colours = opaque(stored, file)
    label = colours[..., 0]
    if not (colours == label[..., None]).all():
        raise MaskValueError(
            f"The mask {file} is a colour picture ({_some_colours(colours)}); allowed is one integer per "
            "pixel, grey or palette. Say what the colours mean with --palette FILE (lines 'name r g b'), or "
            "save class indices, or white on black."
        )
    if label.dtype.kind == "c":
        raise MaskValueError(
            f"The mask {file} holds complex numbers; allowed are integers. Save class indices."
        )
    whole = label.astype(np.int64)
    if label.dtype.kind == "f" and not np.array_equal(whole, label):
        raise MaskValueError(f"The mask {file} holds fractions; allowed are integers. Save class indices.")
    if whole.min(initial=0) < 0:
        raise MaskValueError(
            f"The mask {file} holds the value {whole.min()}; allowed are integers from 0. Save class indices."
        )
    return whole


def opaque(stored: Stored, file: Path) -> np.ndarray:
    """Return the colours of a mask without its alpha, which may hide black and nothing else.

    Where all is black, and alpha hides only a part of it, the mask is drawn in alpha.

    Raises:
        MaskValueError: alpha says something else than the colours do.
    """
    if not stored.alpha:
        return stored.values
    colours, alpha = stored.values[..., :-1], stored.values[..., -1]
    highest = np.iinfo(alpha.dtype).max
    hidden = alpha == 0
    drawn = colours.any() or hidden.all() or not hidden.any()
    if drawn and (hidden | (alpha == highest)).all() and not colours[hidden].any():
        return colours
    raise MaskValueError(
        f"The mask {file} is partly see-through (alpha from {alpha.min()} to {alpha.max()}), so that it may "
        "be drawn in its alpha and not in its colours. Save it without alpha, white on black."
    )


def _indices(stored: Stored, file: Path) -> np.ndarray:
    """Return the values of a palette's mask.

    A palette of greys is a grey picture: its greys count, as every viewer shows them, unless they are in the
    order of the indices, which are then those of classes. In a palette of colours the indices count; black
    at another index than 0, where pixels are, contradicts them.

    Raises:
        MaskValueError: the palette says something else than the indices.
    """
    assert stored.palette is not None
    index = stored.values[..., 0]
    used = np.unique(index)
    colours = stored.palette[used]
    grey = bool((stored.palette == stored.palette[:, :1]).all())
    first_is_dark = not stored.palette[0].any() or used[0] != 0
    if grey and not (first_is_dark and bool((np.diff(colours[:, 0].astype(int)) > 0).all())):
        return stored.palette[index][..., 0]
    black = [int(value) for value, colour in zip(used, colours, strict=True) if value and not colour.any()]
    if black and stored.palette[0].any():
        raise MaskValueError(
            f"The mask {file} has a palette in which black is index {black[0]} and index 0 is the colour "
            f"{tuple(stored.palette[0].tolist())}: indices and colours contradict each other. Save it "
            "as grey values, or name its colours with --palette FILE."
        )
    return index


def _some_colours(colours: np.ndarray) -> str:
    found = np.unique(colours.reshape(-1, colours.shape[2]), axis=0)
    shown = ", ".join(str(tuple(colour.tolist())) for colour in found[:4])
    return f"{len(found)} colours: {shown}{', ...' if len(found) > 4 else ''}"


def _read_array(file: Path) -> Stored:
    """Return the array of a ``.npy`` file, its size checked from its header."""
    with open_regular(file) as stream:
        try:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else _header_2
            shape, _, kind = read(stream)
        except Exception as error:
            raise unreadable(file, error) from error
        if kind.hasobject or kind.kind not in "buif" or len(shape) != 2:
            raise refused(
                file,
                f"it is an array of {kind} and of the shape {shape}",
                "Allowed are masks of rows x columns integers.",
            )
        refuse_large(file, shape[0], shape[1], 1, kind.itemsize)
        stream.seek(0)
        try:
            values = np.load(stream, allow_pickle=False)
        except Exception as error:
            raise unreadable(file, error) from error
    if kind.kind == "f" and not np.isfinite(values).all():
        raise refused(file, "values are not finite (NaN or infinite)", "Save class indices.")
    return Stored(values[:, :, None], 8 * kind.itemsize)


def _header_2(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    return np.lib.format.read_array_header_2_0(stream)

"""Pictures that are stored turned: EXIF orientation, and in which frame annotations were made."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags
from PIL import Image as pil

from seglens.data.images import read_size
from seglens.errors import DataError, SizeMismatchError

UPRIGHT = 1
"""The EXIF orientation of a picture that is stored as it is shown."""
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "MPO")


@dataclass(frozen=True)
class Header:
    """What a file says of its picture undecoded: rows, columns upright, and the EXIF orientation."""

    shown: tuple[int, int]
    orientation: int


def read_header(file: Path) -> Header | None:
    """Return size and orientation of a picture, None where the file can't be read."""
    try:
        with pil.open(file, formats=FORMATS) as opened:
            found = opened.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
            turned = found if found in range(1, 9) else UPRIGHT
            swapped = turned >= 5 and opened.format != "TIFF"  # of TIFF Pillow tells the upright size
            size = (opened.width, opened.height) if swapped else (opened.height, opened.width)
            return Header(size, turned)
    except Exception:  # a damaged file is named where its pixels are read
        try:
            return Header(read_size(file), UPRIGHT)
        except DataError:
            return None


def upright(stored: np.ndarray, orientation: int) -> np.ndarray:
    """Turn rows x columns as they are stored upright, as the EXIF standard (2.32, tag 0x0112) says."""
    match orientation:
        case 2:
            return stored[:, ::-1]
        case 3:
            return stored[::-1, ::-1]
        case 4:
            return stored[::-1]
        case 5:
            return stored.T
        case 6:
            return np.rot90(stored, -1)
        case 7:
            return stored[::-1, ::-1].T
        case 8:
            return np.rot90(stored)
    return stored


def frame_orientation(file: Path, header: Header, size: tuple[int, int]) -> int:
    """Return by which orientation a mask of ``size`` (rows, columns) is to be turned to lie on the picture.

    1 where the annotations were made for the upright picture, that of the file where they were made for the
    pixels as they are stored.

    Raises:
        SizeMismatchError: the annotations are of another size.
        DataError: both fit.
    """
    turned, shown = header.orientation, header.shown
    stored = shown[::-1] if turned >= 5 else shown
    if size not in (shown, stored):
        raise SizeMismatchError(
            f"The annotations of {file} are for a picture of {size[1]} x {size[0]} pixels (width x "
            "height), the "
            f"file has {shown[1]} x {shown[0]}. They must be of one size: take the picture that was "
            "annotated, "
            "or export the annotations again for this one."
        )
    if turned != UPRIGHT and shown == stored:
        raise DataError(
            f"{file} is stored turned (EXIF orientation {turned}), and its size doesn't tell whether it was "
            "annotated as stored or upright. Save it upright without that tag, and annotate it so."
        )
    return UPRIGHT if size == shown else turned

"""Pictures that are stored turned: EXIF orientation, and in which frame annotations were made."""

from dataclasses import dataclass
from pathlib import Path

from seglens.data.images import read_size_and_turn as header_of
from seglens.data.picture_files import SIDEWAYS
from seglens.errors import DataError, SizeMismatchError

UPRIGHT = 1
"""The EXIF orientation of a picture that is stored as it is shown."""


@dataclass(frozen=True)
class Header:
    """What a file says of its picture undecoded: rows, columns upright, and the EXIF orientation."""

    shown: tuple[int, int]
    orientation: int


def header_or_none(file: Path) -> Header | None:
    """Return size and orientation of a picture, None where the file can't be read."""
    try:
        (rows, columns), turned = header_of(file)
    except DataError:  # it is named where its pixels are read
        return None
    return Header((columns, rows) if turned in SIDEWAYS else (rows, columns), turned)


def frame_orientation(file: Path, header: Header, size: tuple[int, int]) -> int:
    """Return by which orientation a mask of ``size`` (rows, columns) is to be turned to lie on the picture.

    1 where the annotations were made for the upright picture, that of the file where they were made for the
    pixels as they are stored.

    Raises:
        SizeMismatchError: the annotations are of another size.
        DataError: both fit.
    """
    turned, shown = header.orientation, header.shown
    stored = shown[::-1] if turned in SIDEWAYS else shown
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

"""The one door for picture and mask files: regular files only, formats that are named, and only so large.

Whatever opens a picture opens it here. The size is checked from the header, before anything is decoded:
a file of 300 bytes may declare a picture that fills the memory.
"""

import ctypes
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image as pil
from PIL import UnidentifiedImageError
from PIL.ImageFile import ImageFile

from seglens.data.limits import refuse_large
from seglens.errors import DataError

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF")
"""What Pillow may open. It knows more; one of them, EPS, would start another program on the file."""


def _silence_libtiff() -> None:
    """Stop libtiff from writing to standard error past Python: what it finds becomes an error here anyway."""
    home = Path(pil.__file__).parent
    for file in (*home.parent.glob("pillow.libs/libtiff*"), *home.glob(".dylibs/libtiff*")):
        ctypes.CDLL(str(file)).TIFFSetErrorHandler(None)


_silence_libtiff()
pil.MAX_IMAGE_PIXELS = None  # Pillow's own limit asks nobody; `seglens.data.limits` replaces it.


@contextmanager
def open_regular(file: Path) -> Iterator[IO[bytes]]:
    """Open a file to be read. What is no regular file (a pipe or a device could wait for ever) is refused.

    Raises:
        DataError: it is missing, may not be read, or is something else than a file.
    """
    try:
        mode = os.stat(file).st_mode
        if not stat.S_ISREG(mode):
            kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
            what = kinds.get(stat.S_IFMT(mode), "a device")
            do = "Name the pictures in it" if what == "a folder" else "Take it out, or rename it"
            raise DataError(f"{file} is {what}, no picture file. {do}.")
        stream = open(file, "rb")
    except FileNotFoundError as error:
        raise DataError(f"There is no file {file}. Check the path.") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{file} can't be opened: {reason}. Check the path and who may read it.") from error
    with stream:
        yield stream


@contextmanager
def open_picture(file: Path) -> Iterator[ImageFile]:
    """Open a picture with Pillow, its header read and its size checked, its pixels not decoded yet.

    Raises:
        DataError: it is no regular file, too large, or no picture of a format that is read.
    """
    with open_regular(file) as stream, opened_by_pillow(stream, file) as opened:
        yield opened


OF_VOLUMES = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".nhdr", ".dcm", ".dicom")
"""How the names of volumes end."""


@contextmanager
def opened_by_pillow(stream: IO[bytes], file: Path) -> Iterator[ImageFile]:
    """Open a picture from a stream; otherwise as `open_picture`."""
    stream.seek(0)
    try:
        opened = pil.open(stream, formats=FORMATS)
    except UnidentifiedImageError as error:
        if is_dicom(stream) or file.name.lower().endswith((".dcm", ".dicom")):
            raise refused(
                file,
                "it is a DICOM file, and pictures are wanted here",
                "Save it as PNG or TIFF; a series of slices is a volume, which seglens data slices cuts.",
            ) from error
        if file.name.lower().endswith(OF_VOLUMES):
            raise refused(
                file, "it is a volume, and pictures are wanted here", "Cut it: seglens data slices."
            ) from error
        raise unreadable(file, _what_it_is(stream)) from error
    except Exception as error:  # a damaged header makes a reader raise almost anything
        raise unreadable(file, error) from error
    with opened:
        refuse_large(file, opened.height, opened.width, len(opened.getbands()), 1)
        yield opened


def is_dicom(stream: IO[bytes]) -> bool:
    """Whether a file is DICOM: the letters DICM stand after 128 bytes (PS3.10, section 7.1)."""
    stream.seek(128)
    return stream.read(4) == b"DICM"


def unreadable(file: Path, reason: object) -> DataError:
    """Return the error for a file whose contents can't be decoded."""
    text = str(reason).strip() or type(reason).__name__
    return DataError(
        f"{file} can't be read as a picture: {text.rstrip('.')}. It is damaged, cut short or of "
        "another kind; replace it or take it out."
    )


def refused(file: Path, what: str, do: str) -> DataError:
    """Return the error for a picture that is whole, and of a kind that is not read."""
    return DataError(f"{file} is not read: {what}. {do}")


SIDEWAYS = (5, 6, 7, 8)
"""The EXIF orientations that make columns of rows."""


def exif_orientation(opened: ImageFile) -> int:
    """Return the orientation of a picture, 1 to 8; one that doesn't exist counts as 1, as Pillow has it."""
    found = opened.getexif().get(0x0112, 1)
    return found if found in range(1, 9) else 1


def turned_upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return rows x columns x channels as a camera's orientation (1 to 8; others count as 1) means them.

    TIFF 6.0, tag 274, which Exif took over: where row 0 and column 0 are on the upright picture.
    """
    if orientation in SIDEWAYS:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _what_it_is(stream: IO[bytes]) -> str:
    """Say what a file that no decoder knows holds."""
    stream.seek(0)
    head = stream.read(64)
    known = "PNG, JPEG, TIFF, BMP, WebP and GIF are read"
    if not head:
        return "it is empty"
    if head.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS, the picture itself was not fetched ('git lfs pull' does)"
    if head.startswith((b"%!PS", b"\xc5\xd0\xd3\xc6")):
        return f"it is PostScript, a program and no picture ({known})"
    if head.lstrip()[:5].lower() in (b"<html", b"<!doc", b"<?xml"):
        return f"it is a text in HTML or XML ({known})"
    return f"no decoder knows it ({known})"

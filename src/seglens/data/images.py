"""Reading picture files: PNG, JPEG, TIFF, BMP, WebP and GIF of up to 16 bits, grey, colour or palette.

All go through `seglens.data.picture_files`. Pillow decodes; TIFF is decoded by `seglens.data.tiff`, and
16-bit colour PNG, which Pillow would cut down to 8 bits, by a detour. Masks are in `seglens.data.labels`.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL.ImageFile import ImageFile
from torch import Tensor

from seglens.arguments import checked
from seglens.axes import sides_of
from seglens.data import tiff
from seglens.data.checksums import has_wrong_pixels
from seglens.data.picture_files import (
    SIDEWAYS,
    exif_orientation,
    open_picture,
    open_regular,
    opened_by_pillow,
    refused,
    turned_upright,
    unreadable,
)
from seglens.data.stored import Stored
from seglens.data.transforms import letterbox_image
from seglens.errors import DataError, SettingError, UserError
from seglens.results.names import count
from seglens.shapes import Image, Images

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif")
LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a grey value (ITU-R BT.601)."""


def read_image(file: Path, channels: int = 3) -> Image:
    """Return the picture in ``file``, upright, the integer range of the file divided out.

    8 bits are divided by 255, 16 bits by 65535 (12-bit pictures are stored in 16: stretching them is the
    model's intensity window). With 3 channels asked for, grey is repeated; with 1, colour becomes luma;
    alpha is dropped, but where as many channels are asked for as there are with it. Any other number must be
    what the file has.

    Raises:
        DataError: the file is missing or can't be read, its values leave [0, 1], or its channels don't fit.
    """
    return read_turned(file, channels)[0]


def read_turned(file: Path, channels: int) -> tuple[Image, int]:
    """Return a picture as `read_image` does, and the EXIF orientation from which it was turned upright.

    Raises:
        DataError: as `read_image`.
    """
    stored = read_stored(file)
    return as_image(_pixels_of(stored, channels), channels, file), stored.turned


def as_image(pixels: np.ndarray, channels: int, file: Path) -> Image:
    """Return rows x columns x channels from ``file``, or a part of them, as `read_image` returns them.

    Raises:
        DataError: values leave [0, 1], or the channels don't fit.
    """
    if not (pixels.dtype.kind == "f" or pixels.dtype in (bool, np.uint8, np.uint16)):
        raise DataError(
            f"{file} holds {pixels.dtype} values; allowed are 8- and 16-bit unsigned integers, and floating "
            "point from 0 to 1. Convert it."
        )
    image = pixels.transpose(2, 0, 1).astype(np.float32, order="C")
    if pixels.dtype.kind == "f":
        if not (image.min() >= 0 and image.max() <= 1):
            raise DataError(
                f"{file} holds floating-point values from {image.min():g} to {image.max():g}; allowed is "
                "0 to 1. Rescale it, or save it as 8- or 16-bit integers."
            )
    elif pixels.dtype != bool:
        image /= np.iinfo(pixels.dtype).max
    return _with_channels(torch.from_numpy(image), channels, file)


@checked
def read_images(files: Sequence[str | Path], *, size: int | Sequence[int], channels: int = 3) -> Images:
    """Return pictures of any sizes letterboxed to ``size``, in [0, 1], not normalised.

    That is the length of both sides, or rows and columns.

    Raises:
        DataError: a file can't be read; it is named.
        SettingError: there are no files, or there can be no such size.
    """
    if not files:
        raise SettingError("read_images got an empty list of files; give at least one.")
    sides = sides_of(size, 2)
    return torch.stack([letterbox_image(read_image(Path(file), channels), sides)[0] for file in files])


def read_pixels(file: Path, *, channels: int | None = None) -> np.ndarray:
    """Return rows x columns x channels as stored, turned upright, colours of a palette looked up.

    Alpha is a channel too; with ``channels`` it is left out unless that many are there with it only.

    Raises:
        DataError: the file is missing, damaged, cut short, too large, or no picture of a kind that is read.
    """
    return _pixels_of(read_stored(file), channels)


def _pixels_of(stored: Stored, channels: int | None) -> np.ndarray:
    pixels = stored.pixels()
    if channels is not None and pixels.shape[2] != channels:
        pixels = stored.without_alpha()
    return pixels


def read_stored(file: Path) -> Stored:
    """Return what a picture file stores, turned upright.

    Raises:
        DataError: the file is missing, damaged, cut short, too large, of several pictures, of a kind that is
            not read, or holds numbers that are not finite.
    """
    file = Path(file)
    with open_regular(file) as stream:
        try:
            stored = None
            if tiff.is_tiff(stream):
                page = tiff.read_page(stream, file)
                stored, turned = tiff.decode(page, file), tiff.orientation(page)
            if stored is None:
                if has_wrong_pixels(stream):
                    raise unreadable(file, "the checksum of its pixels (IDAT) is wrong")
                with opened_by_pillow(stream, file) as opened:
                    stored, turned = _decode(opened, file)
        except UserError:
            raise
        except Exception as error:  # a damaged file makes a decoder raise almost anything
            raise unreadable(file, error) from error
    values = stored.values if stored.values.ndim == 3 else stored.values[:, :, None]
    if values.dtype.kind in "fc" and not np.isfinite(values).all():
        wrong = int((~np.isfinite(values)).sum())
        raise refused(
            file, f"{wrong} of its values are not finite (NaN or infinite)", "Replace them by numbers."
        )
    return replace(stored, values=np.ascontiguousarray(turned_upright(values, turned)), turned=turned)


def read_size(file: Path) -> tuple[int, int]:
    """Return (rows, columns) of the picture in ``file`` as it is shown, upright; it is not decoded.

    Raises:
        DataError: the file is missing, too large, or no picture.
    """
    (rows, columns), turned = read_size_and_turn(file)
    return (columns, rows) if turned in SIDEWAYS else (rows, columns)


def read_size_and_turn(file: Path) -> tuple[tuple[int, int], int]:
    """Return (rows, columns) as stored, and how the picture is to be turned, see `turned_upright`.

    Raises:
        DataError: the file is missing, too large, or no picture.
    """
    file = Path(file)
    with open_regular(file) as stream:
        if tiff.is_tiff(stream):
            page = tiff.read_page(stream, file)
            return (page.imagelength, page.imagewidth), tiff.orientation(page)
        with opened_by_pillow(stream, file) as opened:
            size = (opened.height, opened.width)
            try:
                return size, exif_orientation(opened)
            except Exception as error:  # a PNG may keep it behind its pixels, which are decoded then
                raise unreadable(file, error) from error


def _decode(opened: ImageFile, file: Path) -> tuple[Stored, int]:
    """Return what Pillow decodes, not turned yet, and how it is to be turned."""
    frames = getattr(opened, "n_frames", 1)
    if frames > 1 and opened.format != "MPO":  # phones keep a second, smaller picture in an MPO
        raise refused(
            file,
            f"it holds {frames} frames or pages, allowed is one picture in a file",
            "Save each as a file of its own.",
        )
    if opened.format == "TIFF":  # Pillow turns these itself
        return _stored(opened, file), 1
    raw = opened.tile[0].args if opened.tile else None
    if opened.format == "PNG" and raw in ("RGB;16B", "RGBA;16B"):
        stored = Stored(_decode_deep_png(opened, file), 16, alpha=raw == "RGBA;16B")
    elif opened.format == "PNG" and raw == "LA;16B":
        stored = Stored(_decode_deep_grey_png(opened), 16, alpha=True)
    elif opened.format == "PNG" and raw in ("L;2", "L;4"):  # Pillow stretches them to 8 bits
        bits = int(raw[-1])
        stored = Stored(np.asarray(opened)[:, :, None] // (255 // (2**bits - 1)), bits)
    else:
        stored = _stored(opened, file, lossless=_is_lossless_webp(file))
    return stored, exif_orientation(opened)  # last: asking for it decodes a PNG


def _is_lossless_webp(file: Path) -> bool:
    with file.open("rb") as stream:
        return b"VP8L" in stream.read(64)


def _stored(opened: ImageFile, file: Path, *, lossless: bool = False) -> Stored:
    """Return what Pillow decoded, by its mode."""
    lossy = opened.format in ("JPEG", "MPO", "WEBP", "TIFF") and not lossless
    if opened.mode in ("1", "L", "RGB", "F"):
        values = np.asarray(opened)
        return Stored(values, bits=1 if opened.mode == "1" else 8, lossy=lossy and opened.mode != "1")
    if opened.mode == "P" and opened.palette is not None:
        indices = np.asarray(opened)[:, :, None]
        colours = np.frombuffer(opened.palette.tobytes(), np.uint8).reshape(-1, len(opened.palette.mode))
        table = np.zeros((256, 3), np.uint8)
        table[: len(colours)] = colours[:, :3]
        if int(indices.max(initial=0)) >= len(colours):
            raise unreadable(file, f"its palette has {len(colours)} entries, and a pixel is {indices.max()}")
        return Stored(indices, palette=table[: len(colours)], lossy=False)
    if opened.mode in ("LA", "RGBA"):
        return Stored(np.asarray(opened), alpha=True, lossy=lossy)
    if opened.mode.startswith("I;16") or (opened.mode == "I" and opened.format == "PNG"):
        return Stored(np.asarray(opened).astype(np.uint16), 16)  # in the byte order of this machine
    if opened.mode in ("CMYK", "YCbCr"):
        return Stored(np.asarray(opened.convert("RGB")), lossy=lossy)
    raise refused(
        file,
        f"its colours are of the kind {opened.mode!r}, which is not converted",
        "Save it as grey or RGB.",
    )


def _decode_deep_png(opened: ImageFile, file: Path) -> np.ndarray:
    """Decode 16-bit colour in two goes, since Pillow keeps only the byte that it takes for the higher one."""
    high = np.asarray(opened).astype(np.uint16)
    with open_picture(file) as again:
        again.tile = [again.tile[0]._replace(args=f"{again.mode};16L")]
        return high * 256 + np.asarray(again)


def _decode_deep_grey_png(opened: ImageFile) -> np.ndarray:
    """Decode 16-bit grey with alpha, two bytes each: Pillow opens it as four channels of one byte."""
    opened.tile = [opened.tile[0]._replace(args=opened.mode)]
    return np.asarray(opened).copy().view(">u2").astype(np.uint16)


def _with_channels(image: Float[Tensor, "have h w"], channels: int, file: Path) -> Image:
    have = image.shape[0]
    if have == channels:
        return image
    if have == 1 and channels == 3:
        return image.repeat(3, 1, 1)
    if have == 3 and channels == 1:
        return (image * torch.tensor(LUMA)[:, None, None]).sum(0, keepdim=True)
    raise DataError(
        f"{file} has {count(have, 'channel')}; asked for are {channels}. Allowed are pictures of "
        f"{count(channels, 'channel')}; grey and colour are turned into each other where 1 or 3 are asked "
        f"for. Give --channels {have} to use them as they are."
    )

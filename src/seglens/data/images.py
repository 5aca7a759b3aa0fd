"""Reading picture and mask files: PNG, JPEG and TIFF of 8, 12 or 16 bits, grey, colour or palette.

Pillow reads; where it would cut 16-bit colour down to 8 bits, tifffile and a detour do.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import tifffile
import torch
from jaxtyping import Float
from PIL import Image as pil
from PIL import ImageOps
from PIL.ImageFile import ImageFile
from torch import Tensor

from seglens.data.limits import refuse_large
from seglens.data.picture_files import open_picture, open_regular, opened_by_pillow, unreadable
from seglens.data.transforms import letterbox_image
from seglens.errors import DataError, SettingError, UserError
from seglens.shapes import Image, Images, Mask

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a grey value (ITU-R BT.601)."""


def read_image(file: Path, channels: int = 3) -> Image:
    """Return the picture in ``file``, upright, the integer range of the file divided out.

    8 bits are divided by 255, 16 bits by 65535 (12-bit pictures are stored in 16: stretching them is the
    model's intensity window). With 3 channels asked for, grey is repeated; with 1, colour becomes luma;
    alpha is dropped. Any other number must be what the file has.

    Raises:
        DataError: the file is missing or can't be read, its values leave [0, 1], or its channels don't fit.
    """
    return as_image(read_pixels(file), channels, file)


def as_image(pixels: np.ndarray, channels: int, file: Path) -> Image:
    """Return rows x columns x channels from ``file``, or a part of them, as `read_image` returns them.

    Raises:
        DataError: values leave [0, 1], or the channels don't fit.
    """
    image = pixels.transpose(2, 0, 1).astype(np.float32, order="C")
    if np.issubdtype(pixels.dtype, np.floating):
        # NaN fails both comparisons.
        if not (image.min() >= 0 and image.max() <= 1):
            raise DataError(
                f"{file} holds floating-point values from {image.min():g} to {image.max():g}; allowed is "
                "0 to 1. Rescale it, or save it as 8- or 16-bit integers."
            )
    elif pixels.dtype in (np.uint8, np.uint16):
        image /= np.iinfo(pixels.dtype).max
    elif pixels.dtype != bool:
        raise DataError(
            f"{file} holds {pixels.dtype} values; allowed are 8- and 16-bit unsigned integers, and floating "
            "point from 0 to 1. Convert it."
        )
    return _with_channels(torch.from_numpy(image), channels, file)


def read_label(file: Path) -> Mask:
    """Return the integers of a mask file as stored: grey values, palette indices, 0 and 1 of one-bit files.

    A grey mask saved as RGB or RGBA counts as grey.

    Raises:
        DataError: the file is missing or can't be read, or it is a colour picture.
    """
    pixels = read_pixels(file, palette_as_index=True)
    colours = pixels[..., :-1] if pixels.shape[2] in (2, 4) else pixels
    label = colours[..., 0]
    if not (colours == label[..., None]).all():
        raise DataError(
            f"The mask {file} is a colour picture; allowed is one integer per pixel, grey or palette. "
            "Save class indices, or white on black."
        )
    whole = label.astype(np.int64)
    if np.issubdtype(label.dtype, np.floating) and not np.array_equal(whole, label):
        raise DataError(f"The mask {file} holds fractions; allowed are integers. Save class indices.")
    return torch.from_numpy(whole)


def read_images(files: Sequence[str | Path], *, size: int, channels: int = 3) -> Images:
    """Return pictures of any sizes letterboxed to ``size`` x ``size``, in [0, 1], not normalised.

    Raises:
        DataError: a file can't be read; it is named.
        SettingError: there are no files.
    """
    if not files:
        raise SettingError("read_images got an empty list of files; give at least one.")
    return torch.stack([letterbox_image(read_image(Path(file), channels), size)[0] for file in files])


def read_pixels(file: Path, *, palette_as_index: bool = False) -> np.ndarray:
    """Return rows x columns x channels as stored, turned upright by the EXIF orientation.

    Raises:
        DataError: the file is missing, damaged, cut short, or no picture.
    """
    try:
        pixels = _decode(Path(file), palette_as_index)
    except UserError:
        raise
    except Exception as error:  # a damaged file makes a decoder raise almost anything
        raise unreadable(file, error) from error
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def read_size(file: Path) -> tuple[int, int]:
    """Return (rows, columns) of the picture in ``file`` as stored, not turned upright and not decoded.

    Raises:
        DataError: the file is missing or no picture.
    """
    with open_regular(Path(file)) as stream:
        if _is_tiff(stream):
            try:
                with tifffile.TiffFile(stream) as tiff:
                    page = tiff.pages.first
                    rows, columns = page.imagelength, page.imagewidth
                    refuse_large(file, rows, columns, page.samplesperpixel, -(-page.bitspersample // 8))
                    return rows, columns
            except UserError:
                raise
            except Exception as error:  # as in read_pixels, which says more
                raise unreadable(file, error) from error
        with opened_by_pillow(stream, Path(file)) as opened:
            return opened.height, opened.width


def _decode(file: Path, palette_as_index: bool) -> np.ndarray:
    with open_regular(file) as stream:
        if _is_tiff(stream):
            with tifffile.TiffFile(stream) as tiff:
                page = tiff.pages.first
                samples, bits = page.samplesperpixel, page.bitspersample
                refuse_large(file, page.imagelength, page.imagewidth, samples, -(-bits // 8))
                if len(tiff.pages) > 1:
                    raise ValueError(f"it holds {len(tiff.pages)} pages, allowed is one picture in a file")
                if samples > 4 or (samples > 1 and bits > 8):
                    return _decode_tiff(page)
        with opened_by_pillow(stream, file) as opened:
            if opened.format == "PNG" and opened.tile and opened.tile[0].args in ("RGB;16B", "RGBA;16B"):
                return _decode_deep_png(opened, file)
            if opened.format == "PNG" and opened.tile and opened.tile[0].args == "LA;16B":
                return _decode_deep_grey_png(opened)
            ImageOps.exif_transpose(opened, in_place=True)
            return _as_array(opened, palette_as_index)


def _is_tiff(stream: IO[bytes]) -> bool:
    head = stream.read(4)
    stream.seek(0)
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def _as_array(opened: pil.Image, palette_as_index: bool) -> np.ndarray:
    if opened.mode in ("P", "PA") and not palette_as_index:
        return np.asarray(opened.convert("RGBA" if opened.has_transparency_data else "RGB"))
    if opened.mode in ("CMYK", "YCbCr", "LAB", "HSV", "RGBX", "RGBa"):
        return np.asarray(opened.convert("RGB"))
    pixels = np.asarray(opened)
    if opened.mode.startswith("I;16") or (opened.mode == "I" and opened.format == "PNG"):
        return pixels.astype(np.uint16)  # in the byte order of this machine
    return pixels


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


def _decode_tiff(page: Any) -> np.ndarray:
    pixels = page.asarray()
    if pixels.ndim == 3 and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim not in (2, 3):
        raise ValueError(f"its array has the shape {pixels.shape}, allowed are rows x columns (x channels)")
    return pixels


def _with_channels(image: Float[Tensor, "have h w"], channels: int, file: Path) -> Image:
    have = image.shape[0]
    if have != channels and have in (2, 4):
        image = image[:-1]
    if image.shape[0] == channels:
        return image
    if image.shape[0] == 1 and channels == 3:
        return image.repeat(3, 1, 1)
    if image.shape[0] == 3 and channels == 1:
        return (image * torch.tensor(LUMA)[:, None, None]).sum(0, keepdim=True)
    raise DataError(
        f"{file} has {have} channel(s), {channels} are asked for. Allowed are pictures of {channels} "
        "channel(s); grey and colour are turned into each other where 1 or 3 are asked for."
    )

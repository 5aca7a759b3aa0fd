"""Reading picture files: PNG, JPEG and TIFF of 8, 12 or 16 bits, grey, colour or palette."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile
import torch
from PIL import Image as pil
from PIL import ImageOps

from seglens.data.transforms import letterbox_image
from seglens.errors import DataError
from seglens.shapes import Image, Images, Mask

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
LUMA = (0.299, 0.587, 0.114)


def read_image(file: Path, channels: int = 3) -> Image:
    """Return the picture in ``file`` with ``channels`` channels, its integer range divided out to [0, 1]."""
    pixels = _pixels(file)
    if np.issubdtype(pixels.dtype, np.floating):
        if not np.isfinite(pixels).all() or pixels.min() < 0 or pixels.max() > 1:
            raise DataError(
                f"{file} holds floating-point values from {pixels.min():g} to {pixels.max():g}; allowed is [0, 1]. "
                "Save it as integers, or scaled to [0, 1]."
            )
        image = torch.from_numpy(pixels.astype(np.float32))
    else:
        image = torch.from_numpy(pixels.astype(np.float32)) / float(np.iinfo(pixels.dtype).max)
    image = image.permute(2, 0, 1).contiguous()
    have = image.shape[0]
    if channels in (1, 3) and have in (2, 4):
        image = image[:-1]
    have = image.shape[0]
    if have == channels:
        return image
    if have == 1 and channels == 3:
        return image.expand(3, -1, -1).contiguous()
    if have == 3 and channels == 1:
        return (image * torch.tensor(LUMA)[:, None, None]).sum(0, keepdim=True)
    raise DataError(f"{file} has {have} channels, {channels} are asked for.")


def read_label(file: Path) -> Mask:
    """Return the integers of a mask file as stored; of grey saved as RGB, one of its equal channels."""
    pixels = _pixels(file, palette_as_index=True)
    if pixels.shape[2] in (2, 4):
        pixels = pixels[:, :, :-1]
    if (
        pixels.shape[2] == 3
        and not ((pixels[..., 0] == pixels[..., 1]) & (pixels[..., 0] == pixels[..., 2])).all()
    ):
        raise DataError(
            f"The mask {file} is a colour picture; allowed is one integer per pixel (grey or palette). "
            "Save class indices, or white on black."
        )
    if not np.issubdtype(pixels.dtype, np.integer):
        raise DataError(f"The mask {file} holds {pixels.dtype} values; allowed are integers.")
    return torch.from_numpy(pixels[..., 0].astype(np.int64))


def read_images(files: Sequence[str | Path], *, size: int, channels: int = 3) -> Images:
    """Return pictures of any sizes letterboxed to ``size`` x ``size``, values in [0, 1], not normalised.

    Raises:
        DataError: a file can't be read; it is named.
    """
    return torch.stack([letterbox_image(read_image(Path(file), channels), size)[0] for file in files])


def _pixels(file: Path, *, palette_as_index: bool = False) -> np.ndarray:
    """Return rows x columns x channels as stored, turned upright."""
    file = Path(file)
    if not file.is_file():
        raise DataError(f"There is no file {file}. Check the path.")
    try:
        if file.suffix.lower() in (".tif", ".tiff"):
            pixels = _tiff(file)
        else:
            with pil.open(file) as opened:
                upright = ImageOps.exif_transpose(opened)
                if upright.mode == "P" and not palette_as_index:
                    upright = upright.convert("RGBA" if "transparency" in upright.info else "RGB")
                if upright.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
                    upright = upright.convert("RGB")
                pixels = np.asarray(upright)
                if upright.mode.startswith("I"):
                    pixels = pixels.astype(np.uint16)
    except (OSError, ValueError, SyntaxError, KeyError, IndexError, tifffile.TiffFileError) as error:
        raise DataError(
            f"{file} can't be read as a picture: {error}. It is damaged, cut short or of another kind; "
            "replace it or take it out."
        ) from error
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * 255
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _tiff(file: Path) -> np.ndarray:
    """Read the first page of a TIFF; planes come first in some, last in others."""
    with tifffile.TiffFile(file) as opened:
        page = opened.pages.first
        pixels = page.asarray()
        if pixels.ndim == 3 and page.planarconfig == 2:
            pixels = pixels.transpose(1, 2, 0)
        if page.photometric == 0 and np.issubdtype(pixels.dtype, np.integer):  # white is zero
            pixels = np.iinfo(pixels.dtype).max - pixels
        if page.photometric == 3 and page.colormap is not None:
            pixels = page.colormap.T[pixels].astype(np.uint16)
    if pixels.ndim not in (2, 3):
        raise ValueError(f"its array has shape {pixels.shape}")
    return pixels


def window_of(files: Sequence[Path]) -> tuple[float, float]:
    """Return the window of 12-bit pictures in 16-bit files, (0, 4095 / 65535), else (0, 1).

    Twelve bits are told by the largest value of all pictures: above 255 and below 4096.
    """
    highest = 0
    for file in files:
        pixels = _pixels(file)
        if pixels.dtype != np.uint16:
            return (0.0, 1.0)
        highest = max(highest, int(pixels.max()))
        if highest > 4095:
            return (0.0, 1.0)
    return (0.0, 4095 / 65535) if highest > 255 else (0.0, 1.0)

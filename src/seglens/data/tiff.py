"""TIFF: pages and tags by tifffile, pixels as they are stored, and what these mean by the specification.

Pillow keeps 8 bits of a 16-bit colour and three of more channels, and tifffile needs another package for LZW.
So strips and tiles are decompressed here, each no further than its size; LZW, PackBits and their like by the
libtiff inside Pillow, which gets each strip as a grey picture of bytes. JPEG and fax are left to Pillow.

Source: TIFF revision 6.0 (Adobe 1992); technical note 3 (floating-point predictor, Adobe 2005).
"""

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import tifffile
from PIL import Image as pil

from seglens.data.limits import refuse_large
from seglens.data.picture_files import refused, unreadable
from seglens.data.stored import Stored
from seglens.errors import UserError
from seglens.results.names import count

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
NONE, LZW, DEFLATE, OLD_DEFLATE, PACKBITS, LZMA, ZSTD = 1, 5, 8, 32946, 32773, 34925, 50000
BYTEWISE = (NONE, LZW, DEFLATE, OLD_DEFLATE, PACKBITS, LZMA, ZSTD)
"""Compressions of a strip's bytes, whatever they are; the others compress pictures."""
LOSSY = (6, 7)
"""JPEG, old and new."""
BY_PILLOW = (2, 3, 4, *LOSSY)
"""Fax and JPEG, of 1 and 8 bits."""
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
GDAL_NODATA = 42113
OPAQUE_EXTRA, ASSOCIATED, STRAIGHT = 0, 1, 2
"""What an extra sample is: anything, alpha that colours are multiplied by, or alpha that they aren't."""
SAMPLES = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3}
"""Samples that a photometric interpretation needs; more are extra samples."""


def is_tiff(stream: IO[bytes]) -> bool:
    """Whether a file begins as a TIFF does, and goes back to its beginning."""
    stream.seek(0)
    head = stream.read(4)
    stream.seek(0)
    return head in MAGIC


def read_page(stream: IO[bytes], file: Path) -> Any:
    """Return tifffile's page of a file with one picture, its size checked, nothing decoded.

    Raises:
        DataError: it is damaged, too large, or holds several pictures.
    """
    try:
        opened = tifffile.TiffFile(stream)
        page: Any = opened.pages.first
        samples, itemsize = int(page.samplesperpixel), -(-int(page.bitspersample) // 8)
        refuse_large(file, page.imagelength, page.imagewidth, samples, itemsize)
        if page.is_tiled:
            refuse_large(file, page.tilelength, page.tilewidth, samples, itemsize)
        num = _num_pictures(opened)
    except UserError:
        raise
    except Exception as error:  # a damaged file makes a reader raise almost anything
        raise unreadable(file, error) from error
    if num > 1:
        raise refused(
            file,
            f"it holds {num} pages, allowed is one picture in a file",
            "Save each page as a file of its own; channels belong into one page (planar or interleaved).",
        )
    return page


def decode(page: Any, file: Path) -> Stored | None:
    """Return what a page stores; None where Pillow decodes it: fax, and JPEG of 8 bits.

    Raises:
        DataError: it is damaged, or of a kind that is not read.
    """
    compression, photometric = int(page.compression), _photometric(page, file)
    bits, samples = int(page.bitspersample), int(page.samplesperpixel)
    if compression in BY_PILLOW or (photometric == YCBCR and compression in BYTEWISE):
        if bits not in (1, 8) or samples > SAMPLES[photometric]:
            raise refused(
                file,
                f"it is compressed by {_name(page.compression)} with {count(samples, 'channel')} of {bits} "
                "bits",
                "Save it without compression, or with LZW or Deflate.",
            )
        return None
    if compression not in BYTEWISE:
        raise refused(
            file,
            f"its compression, {_name(page.compression)}, is none of those that are read",
            "Save it without compression, or with LZW, Deflate or JPEG.",
        )
    kind = _dtype(page, file)
    try:
        values = _pixels(page, kind)
    except Exception as error:
        raise unreadable(file, error) from error
    return _meant(page, values, photometric, bits, file)


def write_labels(numbers: np.ndarray, file: Path) -> None:
    """Write a label image as a TIFF that ImageJ reads: rows x columns, whole numbers of 16 bits."""
    tifffile.imwrite(file, numbers, imagej=True, metadata={"axes": "YX"}, compression="zlib")


def orientation(page: Any) -> int:
    """Return how the picture is to be turned, see `seglens.data.picture_files.turned_upright`."""
    tag = page.tags.get(274)
    return int(tag.value) if tag is not None and tag.value in range(1, 9) else 1


def _num_pictures(opened: Any) -> int:
    """Count pages, and what ImageJ and tifffile put behind one page without saying so by pages."""
    page = opened.pages.first
    num = len(opened.pages)
    if opened.is_imagej:
        num = max(num, int((opened.imagej_metadata or {}).get("images", 1)))
    if opened.is_shaped:
        described: Sequence[dict[str, Any]] = opened.shaped_metadata or ({},)
        shape = described[0].get("shape", ())
        num = max(num, int(np.prod(shape, dtype=object)) // max(1, page.size) if shape else 1)
    return max(num, int(page.imagedepth))


def _photometric(page: Any, file: Path) -> int:
    tag = page.tags.get(262)
    photometric = int(page.photometric) if tag is not None else -1
    samples = int(page.samplesperpixel)
    if photometric not in SAMPLES or samples < SAMPLES[photometric]:
        what = "nothing" if tag is None else f"{_name(page.photometric)} with {count(samples, 'channel')}"
        raise refused(
            file,
            f"its tag PhotometricInterpretation says {what}, which is not converted",
            "Allowed are grey (either way round), RGB, palette, CMYK and YCbCr: save it as grey or RGB.",
        )
    return photometric


def _dtype(page: Any, file: Path) -> np.dtype:
    """Return the type of a stored sample in this machine's byte order; packed bits become whole bytes."""
    bits, form = int(page.bitspersample), int(page.sampleformat or 1)
    letter = {1: "u", 2: "i", 3: "f", 5: "i", 6: "c"}.get(form, "u" if form == 4 else "?")
    if form == 1 and bits in (1, 2, 4, 8, 10, 12, 14, 16, 32, 64):
        width = next(width for width in (8, 16, 32, 64) if bits <= width)
        return np.dtype(f"u{width // 8}")
    if letter != "u" and bits in {"i": (8, 16, 32, 64), "f": (16, 32, 64), "c": (64, 128)}.get(letter, ()):
        return np.dtype(f"{letter}{bits // 8}")
    raise refused(
        file,
        f"its samples are of {bits} bits, format {_name(page.sampleformat)}",
        "Save it as 8- or 16-bit integers.",
    )


def _pixels(page: Any, kind: np.dtype) -> np.ndarray:
    """Return rows x columns x samples as stored, every strip or tile decompressed."""
    rows, columns, samples = int(page.imagelength), int(page.imagewidth), int(page.samplesperpixel)
    planar = int(page.planarconfig or 1) == 2 and samples > 1
    planes, together = (samples, 1) if planar else (1, samples)
    high, wide = (
        (int(page.tilelength), int(page.tilewidth))
        if page.is_tiled
        else (min(int(page.rowsperstrip or rows), rows), columns)
    )
    down, across = -(-rows // high), -(-columns // wide)
    offsets, counts = page.dataoffsets, page.databytecounts
    if len(offsets) < planes * down * across or len(counts) < planes * down * across:
        raise ValueError(f"it lists {len(offsets)} strips or tiles, {planes * down * across} are needed")
    found = np.empty((rows, columns, samples), kind)
    stream = page.parent.filehandle
    for plane in range(planes):
        for row in range(down):
            for column in range(across):
                index = (plane * down + row) * across + column
                if not offsets[index] or not counts[index]:
                    raise ValueError(f"strip or tile {index} is missing (a sparse file)")
                top, left = row * high, column * wide
                tall = high if page.is_tiled else min(high, rows - top)
                stream.seek(offsets[index])
                data = stream.read(min(int(counts[index]), stream.size))
                part = _samples(page, data, (tall, wide, together), kind)
                bottom, right = min(top + tall, rows), min(left + wide, columns)
                channels = slice(plane, plane + 1) if planar else slice(None)
                found[top:bottom, left:right, channels] = part[: bottom - top, : right - left]
    return found


def _samples(page: Any, data: bytes, shape: tuple[int, int, int], kind: np.dtype) -> np.ndarray:
    """Decompress one strip or tile, and undo its predictor."""
    rows, columns, samples = shape
    bits = int(page.bitspersample)
    width = -(-columns * samples * bits // 8)
    if int(page.fillorder or 1) == 2:
        data = data.translate(_MIRRORED)
    raw = _decompressed(data, int(page.compression), rows, width)
    if len(raw) < rows * width:
        raise ValueError("a strip or tile is cut short")
    predictor = int(page.predictor or 1)
    if predictor == 3:
        return _undo_floating(raw, shape, kind)
    if bits < 8 * kind.itemsize:
        if predictor != 1:
            raise ValueError(f"predictor {predictor} of {bits}-bit samples is unknown")
        return _unpacked(raw, shape, bits).astype(kind)
    values = np.frombuffer(raw, kind.newbyteorder(page.parent.byteorder)).reshape(shape).astype(kind)
    if predictor == 2 and kind.kind in "iuf":
        words = values.view(f"u{kind.itemsize}")
        return np.cumsum(words, axis=1, dtype=words.dtype).view(kind)
    if predictor != 1:
        raise ValueError(f"predictor {predictor} is unknown")
    return values


def _decompressed(data: bytes, compression: int, rows: int, width: int) -> bytes:
    """Return at most rows x width bytes of a strip."""
    if compression == NONE:
        return data[: rows * width]
    if compression in (DEFLATE, OLD_DEFLATE):
        return zlib.decompressobj().decompress(data, rows * width)
    wrapped = _as_grey_picture(data, compression, rows, width)
    with pil.open(io.BytesIO(wrapped), formats=("TIFF",)) as opened:
        return opened.tobytes()


def _as_grey_picture(data: bytes, compression: int, rows: int, width: int) -> bytes:
    """Return a TIFF whose one strip is ``data``, taken for 8-bit grey, rows x width."""
    tags: Sequence[tuple[int, int, int]] = (
        (256, 4, width),
        (257, 4, rows),
        (258, 3, 8),
        (259, 3, compression),
        (262, 3, BLACK_IS_ZERO),
        (273, 4, 8),
        (277, 3, 1),
        (278, 4, rows),
        (279, 4, len(data)),
    )
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    head = struct.pack("<2sHI", b"II", 42, 8 + len(data) + len(data) % 2)
    return head + data + b"\0" * (len(data) % 2) + struct.pack("<H", len(tags)) + entries + b"\0" * 4


def _undo_floating(raw: bytes, shape: tuple[int, int, int], kind: np.dtype) -> np.ndarray:
    """Undo predictor 3: differences of bytes, the highest bytes of a row first, then the next, and so on."""
    rows, columns, samples = shape
    if kind.kind != "f":
        raise ValueError("the floating-point predictor belongs to floating-point samples")
    size = rows * columns * samples * kind.itemsize
    steps = np.frombuffer(raw[:size], np.uint8).reshape(rows, -1, samples)
    planes = np.cumsum(steps, axis=1, dtype=np.uint8).reshape(rows, kind.itemsize, columns * samples)
    return planes.transpose(0, 2, 1).copy().view(kind.newbyteorder(">")).reshape(shape).astype(kind)


def _unpacked(raw: bytes, shape: tuple[int, int, int], bits: int) -> np.ndarray:
    """Return samples of fewer bits than their type; each row begins at a whole byte, high bits first."""
    rows, columns, samples = shape
    flags = np.unpackbits(np.frombuffer(raw, np.uint8).reshape(rows, -1), axis=1)
    values = np.zeros((rows, columns * samples), np.uint16)
    for bit in range(bits):
        values = values * 2 + flags[:, bit : columns * samples * bits : bits]
    return values.reshape(shape)


def _meant(page: Any, values: np.ndarray, photometric: int, bits: int, file: Path) -> Stored:
    """Return what stored samples mean: black is 0, CMYK is RGB; see `Stored`."""
    extra = [int(kind) for kind in page.extrasamples]
    alpha = STRAIGHT in extra[-1:] or ASSOCIATED in extra[-1:]
    highest = 2**bits - 1
    if ASSOCIATED in extra and not (values[..., -1] == highest).all():
        raise refused(
            file,
            "its colours were multiplied by its alpha (ExtraSamples is 1), and it is not opaque",
            "Save it without alpha, or with unassociated alpha.",
        )
    if photometric == WHITE_IS_ZERO:
        if values.dtype.kind != "u":
            raise refused(file, f"white is 0 in it, and its samples are {values.dtype}", "Save black as 0.")
        values[..., 0] = highest - values[..., 0]
    if photometric == CMYK:
        if values.shape[2] != 4 or values.dtype.kind != "u" or int(page.tags.valueof(332, 1)) != 1:
            raise refused(file, "its inks are others than cyan, magenta, yellow and black", "Save it as RGB.")
        return Stored(_rgb(values, highest), bits)
    if photometric == PALETTE:
        if page.colormap is None or values.dtype.kind != "u" or bits > 8:
            raise unreadable(file, "its palette is missing or too long")
        # 16 bits an entry; old writers put 8-bit values there.
        table = np.asarray(page.colormap, np.uint16).T
        colours = table // 257 if table.max() > 255 else table
        return Stored(values[..., :1], bits, palette=colours.astype(np.uint8))
    values = values.astype(bool) if bits == 1 else values
    return Stored(values, bits, alpha=alpha, unknown=_unknown(page))


def _unknown(page: Any) -> float | None:
    """Return the value that GDAL's tag 42113 gives to pixels of which nothing is known; None without."""
    try:
        return float(page.tags.valueof(GDAL_NODATA))
    except (TypeError, ValueError):  # no such tag, or no number in it
        return None


def _rgb(inks: np.ndarray, highest: int) -> np.ndarray:
    """Return RGB of CMYK without a colour profile: (1 - ink) (1 - black), as Pillow does for 8 bits."""
    clear = 1 - inks.astype(np.float32) / highest
    return np.round(highest * clear[..., :3] * clear[..., 3:]).astype(inks.dtype)


def _name(value: object) -> str:
    return str(getattr(value, "name", value))


_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
"""Each byte with its bits in the other order."""

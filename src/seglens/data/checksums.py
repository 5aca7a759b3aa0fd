"""Checksums that files carry and their readers pass over: a flipped bit would be another picture."""

import gzip
import zlib
from pathlib import Path
from typing import IO

from seglens.errors import DataError

_PNG = b"\x89PNG\r\n\x1a\n"
_PIECE = 1 << 20
_HEADER_LINES = 1000


def has_wrong_pixels(stream: IO[bytes]) -> bool:
    """Whether a PNG holds pixels (IDAT) that are not those of its checksum; other files hold none.

    Pillow stops as soon as it has all rows, which is before the checksum. The stream is left at its start.
    """
    end = stream.seek(0, 2)
    stream.seek(0)
    try:
        if stream.read(len(_PNG)) != _PNG:
            return False
        while len(head := stream.read(8)) == 8 and head[4:] != b"IEND":
            length = int.from_bytes(head[:4])
            if stream.tell() + length + 4 > end:  # cut short, which its reader says better
                return False
            if head[4:] != b"IDAT":
                stream.seek(length + 4, 1)
            elif zlib.crc32(stream.read(length), zlib.crc32(b"IDAT")) != int.from_bytes(stream.read(4)):
                return True
        return False
    finally:
        stream.seek(0)


def finish_gzip(stream: gzip.GzipFile) -> None:
    """Read what is left of a packed file, since its checksum stands at the end.

    Raises:
        OSError, EOFError, zlib.error: the file is damaged.
        DataError: more than 1 MiB is left.
    """
    if len(stream.read(_PIECE + 1)) > _PIECE:
        raise DataError("it holds much more than its header declares")


def refuse_damaged_meta_image(file: Path) -> None:
    """Unpack the numbers of a packed MetaImage, of which its reader says nothing where they are damaged.

    Files that are not packed, or whose numbers lie in several files, are passed over.

    Raises:
        DataError: the numbers are damaged, cut short or missing.
    """
    header: dict[str, str] = {}
    with file.open("rb") as stream:
        for _ in range(_HEADER_LINES):
            key, _, value = stream.readline(_PIECE).decode("latin-1").partition("=")
            header[key.strip()] = value.strip()
            if key.strip() == "ElementDataFile":
                break
        name = header.get("ElementDataFile", "LIST")
        if header.get("CompressedData", "").lower() != "true" or name.startswith("LIST") or "%" in name:
            return
        try:
            if name.upper() == "LOCAL":
                _unpack(stream)
            else:
                with (file.parent / name).open("rb") as numbers:
                    _unpack(numbers)
        except (OSError, zlib.error, EOFError) as error:
            said = getattr(error, "strerror", None) or error
            raise DataError(
                f"{file}: its packed numbers can't be unpacked: {said}. It is damaged or cut short; replace "
                "it or take it out."
            ) from error


def _unpack(stream: IO[bytes]) -> None:
    """Unpack a stream of zlib or gzip to its end, a piece at a time.

    Raises:
        zlib.error: it is damaged.
        EOFError: it is cut short.
    """
    unpacker = zlib.decompressobj(wbits=47)
    while not unpacker.eof:
        packed = unpacker.unconsumed_tail or stream.read(_PIECE)
        if not packed:
            raise EOFError("it ends too early")
        unpacker.decompress(packed, _PIECE)

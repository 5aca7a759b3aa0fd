"""Volumes that are in a set twice, under two names: found by what their files hold.

Pictures are compared by how they look (`seglens.data.splits`), which finds copies, too.
"""

import gzip
import hashlib
import zlib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path

from seglens.data.layout import Entry, Finding
from seglens.data.volumes.reading import is_volume
from seglens.errors import DataError

COPIES = "One volume is in several splits: a model would be tested on what it has learned from. Keep one."
_PIECE = 1 << 16
_SHOWN = 5


def groups_of_copies(files: Sequence[Path]) -> list[list[int]]:
    """Return the positions of volumes that hold the same bytes, unpacked where they are packed.

    A file is read whole only where another one has its checksum, or its size and a few of its bytes.
    """
    there = [position for position, file in enumerate(files) if is_volume(file) and file.is_file()]
    alike = _grouped(there, lambda position: _summary(files[position]))
    return [same for group in alike for same in _grouped(group, lambda position: _content(files[position]))]


def copies_across(splits: Mapping[str, Sequence[Entry]]) -> list[str]:
    """Return the volumes that are in several splits, each with its names there."""
    placed = [(split, entry) for split, entries in splits.items() for entry in entries]
    return [
        " = ".join(f"{placed[position][0]}/{placed[position][1].name}" for position in group)
        for group in groups_of_copies([entry.image for _, entry in placed])
        if len({placed[position][0] for position in group}) > 1
    ]


def about_copies(splits: Mapping[str, Sequence[Entry]]) -> list[Finding]:
    """Return what ``data check`` says of volumes that are in several splits."""
    across = copies_across(splits)
    return [Finding("near-duplicates", "error", COPIES, tuple(across))] if across else []


def refuse_copies(splits: Mapping[str, Sequence[Entry]], path: Path) -> None:
    """Raise where a volume is in several splits.

    Raises:
        DataError: some are; the first of them are named.
    """
    across = copies_across(splits)
    if across:
        shown = ", ".join(across[:_SHOWN]) + (", ..." if len(across) > _SHOWN else "")
        raise DataError(f"{path}: {COPIES} {len(across)}: {shown}.")


def _grouped(positions: Iterable[int], key: Callable[[int], Hashable]) -> list[list[int]]:
    """Return the positions that share a key with another, together."""
    found: dict[Hashable, list[int]] = {}
    for position in positions:
        found.setdefault(key(position), []).append(position)
    return [group for group in found.values() if len(group) > 1]


def _summary(file: Path) -> Hashable:
    """Return the checksum and length at the end of a packed file; of others the size and three pieces."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        if file.suffix.lower() == ".gz":
            stream.seek(max(0, size - 8))
            return "packed", stream.read(8)
        pieces = []
        for place in (0, size // 2, max(0, size - _PIECE)):
            stream.seek(place)
            pieces.append(zlib.crc32(stream.read(_PIECE)))
    return size, *pieces


def _content(file: Path) -> Hashable:
    """Return a hash of what a file holds; of a damaged one its name, so that it is no other's copy."""
    digest = hashlib.sha256()
    try:
        with gzip.open(file) if file.suffix.lower() == ".gz" else file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except (OSError, EOFError, zlib.error):  # reading it says what is wrong
        return file
    return digest.hexdigest()

"""Archives that nobody needs to trust: only files and folders, only below the folder given, only so much.

Files are written one by one, with no use of an archive's owners, modes and links: ``tarfile``'s own filter
``data`` follows links, and has been climbed out of by them (CVE-2025-4517).
"""

import gzip
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath, PureWindowsPath
from typing import IO

from seglens.errors import DataError
from seglens.runtime.progress import count_bytes

CHUNK = 1 << 18
"""Bytes that are written at a time."""
MAX_FILES = 200_000
"""Files and folders in an archive from which on it is refused."""
DAMAGED = (tarfile.TarError, gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)
"""What the readers of archives raise; RuntimeError where one is encrypted or compressed in another way."""
JUNK = ("__MACOSX", ".DS_Store")
"""What macOS adds to archives, besides a ``._name`` for each file; none of it is unpacked."""


class _Unsafe(Exception):
    """An archive that is not to be unpacked; the text goes on after its name."""


@dataclass(frozen=True)
class _Member:
    """One entry of an archive, of whatever format; ``kind`` is file, folder, or what it is instead."""

    name: str
    kind: str
    size: int
    open: Callable[[], IO[bytes] | None]


def unpack(file: Path, folder: Path, max_bytes: int) -> int:
    """Unpack the regular files of an archive below ``folder`` and return their number.

    What was written before a problem shows stays: let ``folder`` be one that is thrown away then.

    Raises:
        DataError: it is damaged, or holds a link, a device, an entry outside of its folder, or too much. The
            archive is removed.
    """
    num_files = num_bytes = 0
    members = _zip_members if zipfile.is_zipfile(file) else _tar_members
    try:
        with count_bytes(f"Unpacking {file.name}", total=None) as advance:
            for number, member in enumerate(members(file)):
                path = _safe_path(member)
                num_bytes += member.size
                if num_bytes > max_bytes or number >= MAX_FILES:
                    limit = f"{max_bytes:,} bytes, {MAX_FILES:,} files"
                    raise _Unsafe(f"unpacks to more than is allowed ({limit})")
                if _is_junk(path):
                    continue
                target = folder.joinpath(*path.parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                if member.kind == "folder":
                    target.mkdir(exist_ok=True)
                    continue
                _write(member, target)
                num_files += 1
                advance(member.size)
    except (_Unsafe, *DAMAGED) as error:
        file.unlink()
        reason = (str(error).splitlines() or [type(error).__name__])[0].removesuffix(":")
        what = reason if isinstance(error, _Unsafe) else f"is no archive that can be read ({reason})"
        raise DataError(
            f"The archive {file.name} {what}. It was removed and nothing unpacked. Name another address with "
            "--from."
        ) from error
    return num_files


def _write(member: _Member, target: Path) -> None:
    stream = member.open()
    if stream is None:
        raise _Unsafe(f"has no contents for {member.name!r}")
    with stream, target.open("wb") as out:
        shutil.copyfileobj(stream, out, CHUNK)


def _safe_path(member: _Member) -> PurePath:
    """Return the path of an entry below the archive's folder; it is judged as Windows reads it, too."""
    path = PureWindowsPath(member.name)
    if path.anchor or ".." in path.parts or "\0" in member.name:
        raise _Unsafe(f"holds an entry that climbs out of its folder: {member.name!r}")
    if member.kind not in ("file", "folder"):
        raise _Unsafe(f"holds a {member.kind}, where only files and folders are allowed: {member.name!r}")
    return path


def _is_junk(path: PurePath) -> bool:
    return any(part in JUNK or part.startswith("._") for part in path.parts)


def _tar_members(file: Path) -> Iterator[_Member]:
    with tarfile.open(file) as archive:
        for entry in archive:
            kind = "file" if entry.isreg() else "folder" if entry.isdir() else "device"
            kind = "link" if entry.issym() or entry.islnk() else kind
            yield _Member(entry.name, kind, entry.size, partial(archive.extractfile, entry))


def _zip_members(file: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            form = stat.S_IFMT(entry.external_attr >> 16)
            kind = "file" if form in (0, stat.S_IFREG) else "link" if form == stat.S_IFLNK else "device"
            kind = "folder" if entry.is_dir() else kind
            yield _Member(entry.filename, kind, entry.file_size, partial(archive.open, entry))

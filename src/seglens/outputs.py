"""Output folders and files that are there whole or not at all."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

from seglens.errors import OutputExistsError

_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
"""Full, over the quota, file too large, broken, read-only."""


def refuse_existing(path: Path, *, force: bool) -> None:
    """Raise where ``path`` holds something and ``force`` is not given.

    Raises:
        OutputExistsError: ``path`` is a file, or a folder that is not empty.
    """
    if force or not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    raise OutputExistsError(f"{path} exists already. Name another place, or replace it with --force.")


@contextmanager
def new_folder(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside ``path`` that becomes ``path`` if the block ends well.

    On an error or Ctrl-C nothing is left behind, and what ``path`` held before is as it was.

    Raises:
        OutputExistsError: ``path`` holds something and ``force`` is not given.
    """
    path = Path(path)
    refuse_existing(path, force=force)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.partial-{token_hex(4)}"
    temporary.mkdir()
    try:
        with naming(path):
            yield temporary
            put_in_place(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def new_file(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a temporary file name beside ``path`` that is moved to ``path`` if the block ends well.

    The temporary name keeps the suffix, because many writers choose the format by it.

    Raises:
        OutputExistsError: ``path`` exists and ``force`` is not given.
    """
    path = Path(path)
    refuse_existing(path, force=force)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.stem}.partial-{token_hex(4)}{path.suffix}"
    try:
        with naming(path):
            yield temporary
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an error of the disk name ``path`` where it names no file: a failed write knows only its number."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno not in _OF_THE_DISK:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def safe_name(text: str) -> str:
    """Return ``text`` as one path component: letters, digits, dot, dash and underscore; never hidden."""
    kept = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in text)
    return kept.lstrip(".")[:120] or "_"


def unused_name(name: str, taken: set[str]) -> str:
    """Return ``name`` as one path component that is not in ``taken`` yet, and add it there.

    An ``@`` is kept: it stands between a method and its layer. File systems may ignore case, so this does.
    """
    stem = "@".join(safe_name(part) for part in name.split("@"))
    free, number = stem, 1
    while free.lower() in taken:
        number += 1
        free = f"{stem}-{number}"
    taken.add(free.lower())
    return free


def table_cell(value: object) -> object:
    """Return a value as a cell of a CSV file: None and NaN empty, other fractions to six digits.

    Text that a spreadsheet would run as a formula gets an apostrophe in front.
    """
    if isinstance(value, float):
        return "" if value != value else f"{value:.6g}"
    if isinstance(value, str) and value.lstrip().startswith(("=", "+", "-", "@")):
        return f"'{value}"
    return "" if value is None else value


def put_in_place(new: Path, path: Path) -> None:
    """Put ``new`` in the place of ``path``, keeping the old one until the new one stands."""
    if not path.exists():
        os.replace(new, path)
        return
    old = path.parent / f".{path.name}.partial-{token_hex(4)}"
    os.replace(path, old)
    try:
        os.replace(new, path)
    except OSError:
        os.replace(old, path)
        raise
    shutil.rmtree(old) if old.is_dir() else old.unlink()

"""Output folders and files are written under a temporary name and moved when they are complete."""

import errno
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

from seglens.errors import OutputExistsError
from seglens.files.locks import beside, locked
from seglens.files.overwrite import LONGEST_NAME, NAME_ANOTHER, check_file, check_output, some
from seglens.files.ownership import contents, list_files, remove_listed, rename_in_records

_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
"""Full, over the quota, file too large, broken, read-only."""


@contextmanager
def new_folder(path: Path, *, command: str, force: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside ``path`` that becomes ``path`` if the block ends well.

    On an error or Ctrl-C nothing is left behind, and what ``path`` held before is as it was. The folder gets
    a record that lists its files.

    Raises:
        OutputExistsError: ``path`` holds something and ``force`` is not given, or doesn't cover it; another
            process writes there.
        SettingError: ``path`` can't be a place to write to.
    """
    path = Path(path)
    check_output(path, command, force=force)
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path):
        check_output(path, command, force=force)
        temporary = beside(path, f"partial-{token_hex(4)}")
        temporary.mkdir()
        try:
            with naming(path):
                yield temporary
                list_files(temporary, command)
                put_in_place(temporary, path, command, force=force)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Be the only process that writes ``path``; what a killed one left half done is put right first.

    Raises:
        OutputBusyError: another process writes there.
    """
    with locked(path):
        for old in _left(path, "old"):
            if path.exists():
                remove_listed(old, contents(old).ours)
            else:  # killed between putting the old one aside and the new one in its place
                os.replace(old, path)
        for partial in _left(path, "partial"):
            shutil.rmtree(partial, ignore_errors=True)
        yield


@contextmanager
def remade_folder(path: Path) -> Iterator[Path]:
    """As `new_folder`, over whatever is there: for a step of work inside a folder that is Seglens' own."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = beside(path, f"partial-{token_hex(4)}")
    temporary.mkdir()
    try:
        with naming(path):
            yield temporary
            old = beside(path, f"partial-{token_hex(4)}")
            if path.exists():
                os.replace(path, old)
            os.replace(temporary, path)
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def output_file(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a temporary file name beside the page or picture ``path``, to which it is moved in the end.

    Raises:
        OutputExistsError, SettingError: as `check_file`; another process writes there.
    """
    path = Path(path)
    check_file(path, force=force)
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path), new_file(path, force=True) as temporary:
        yield temporary
        check_file(path, force=force)


@contextmanager
def new_file(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a temporary file name beside ``path`` that is moved to ``path`` if the block ends well.

    The temporary name keeps the suffix, because many writers choose the format by it. For files in folders
    that are Seglens' own, where ``force`` replaces whatever is there; a place that the user names is an
    `output_file`.

    Raises:
        OutputExistsError: ``path`` exists and ``force`` is not given.
    """
    path = Path(path)
    if not force and path.exists():
        raise OutputExistsError(f"{path} exists already. {NAME_ANOTHER}")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = beside(path.with_name(path.stem or path.name), f"partial-{token_hex(4)}{path.suffix}")
    try:
        with naming(path):
            yield temporary
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add ``path`` to an error of the disk that names no file, as a failed write does."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno not in _OF_THE_DISK:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def safe_name(text: str) -> str:
    """Return ``text`` as one path component: letters, digits, dot, dash and underscore; never hidden."""
    kept = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in text)
    return _cut(kept.lstrip("."), 120) or "_"


def unused_name(name: str, taken: set[str]) -> str:
    """Return ``name`` as one path component that is not in ``taken`` yet, and add it there.

    An ``@`` is kept: it stands between a method and its layer. File systems may ignore case, so this does.
    """
    stem = _cut("@".join(safe_name(part) for part in name.split("@")), LONGEST_NAME - 20)
    free, number = stem, 1
    while free.lower() in taken:
        number += 1
        free = f"{stem}-{number}"
    taken.add(free.lower())
    return free


def _cut(text: str, most: int) -> str:
    """Return what fits into so many bytes: disks count bytes, and letters may take four."""
    return text.encode("utf-8")[:most].decode("utf-8", "ignore")


def table_cell(value: object) -> object:
    """Return a value as a cell of a CSV file: None and NaN empty, other fractions to six digits.

    Text that a spreadsheet would run as a formula gets an apostrophe in front.
    """
    if isinstance(value, float):
        return "" if value != value else f"{value:.6g}"
    if isinstance(value, str) and (value[:1] in ("\t", "\r") or value.lstrip()[:1] in ("=", "+", "-", "@")):
        return f"'{value}"
    return "" if value is None else value


def put_in_place(new: Path, path: Path, command: str, *, force: bool) -> None:
    """Put ``new`` in the place of ``path``, then remove of the old one, file by file, what Seglens made.

    Raises:
        OutputExistsError: ``path`` has come to hold something that isn't to be replaced.
    """
    check_output(path, command, force=force)
    if not path.exists():
        os.replace(new, path)
        return
    ours, old = contents(path).ours, beside(path, f"old-{token_hex(4)}")
    os.replace(path, old)
    try:
        os.replace(new, path)
    except OSError:
        os.replace(old, path)
        raise
    if not remove_listed(old, ours):
        warnings.warn(
            f"While {path} was replaced, something was added to it. That is kept in {old}.", stacklevel=2
        )


def begin_run(place: Path) -> None:
    """Make the folder ``place`` of `place_of_run` anew; what it holds are leavings of a run that stopped.

    Raises:
        OutputExistsError: it holds something else.
    """
    found = contents(place) if place.is_dir() else None
    if found is not None and found.others:
        raise OutputExistsError(f"{place} holds {some(found.others)}. {NAME_ANOTHER}")
    if found is not None:
        remove_listed(place, found.ours)
    place.mkdir(parents=True, exist_ok=True)


def close_run(place: Path, path: Path, command: str) -> None:
    """List the files of a run that is whole, and put it in the place of the one that it replaces.

    Raises:
        OutputExistsError: that place has come to hold something that isn't to be replaced.
    """
    list_files(place, command)
    if place == path:
        return
    rename_in_records(place, place, path)
    try:
        put_in_place(place, path, command, force=True)
    except OutputExistsError as error:
        raise OutputExistsError(f"{error} The new run is whole, and is kept in {place}.") from error


def _left(path: Path, what: str) -> list[Path]:
    """Return the folders beside ``path`` that a killed command left under a temporary name."""
    stem = beside(path, f"{what}-").name
    name = re.compile(re.escape(stem) + "[0-9a-f]{8}")
    return [found for found in path.parent.iterdir() if name.fullmatch(found.name) and found.is_dir()]

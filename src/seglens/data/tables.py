"""Text files and tables that others wrote: UTF-8 with or without a byte order mark, and nothing guessed."""

import csv
from collections.abc import Sequence
from pathlib import Path

from seglens.errors import DataError


def read_text(file: Path) -> str:
    """Return a text in UTF-8, or in UTF-16 with its mark; the mark of the byte order is left out.

    Raises:
        DataError: it is missing, or in another encoding.
    """
    if not file.is_file():
        raise DataError(f"There is no file {file}. Check the path.")
    data = file.read_bytes()
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(
            f"{file} is not a text in UTF-8: line {line} has the byte 0x{data[error.start]:02x}, as Latin-1 "
            "(Windows-1252) has it. Save it as UTF-8, or convert it: iconv -f WINDOWS-1252 -t UTF-8."
        ) from error


def read_rows(file: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    """Return the rows of a table of comma-separated values by the names of its columns.

    Raises:
        DataError: it can't be read, lacks one of the columns ``needed``, names one twice, or has a row of
            another length.
    """
    try:
        lines = list(csv.reader(read_text(file).splitlines(), strict=True))
    except csv.Error as error:
        raise DataError(f"{file} can't be read as a table of comma-separated values: {error}.") from error
    header = [name.strip() for name in lines[0]] if lines else []
    missing = [name for name in needed if name not in header]
    if missing:
        other = next((mark for mark in (";", "\t", "|") if any(mark in name for name in header)), None)
        hint = f" Its columns are parted by {other!r}: save it with commas." if other else ""
        raise DataError(
            f"{file} has no column {missing[0]!r}; it has {', '.join(header) or 'none'}.{hint} The first "
            f"line names the columns; needed are {', '.join(needed)}."
        )
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise DataError(f"{file} has two columns called {twice[0]!r}. Rename or remove one.")
    for number, row in enumerate(lines[1:], start=2):
        if row and len(row) != len(header):
            raise DataError(
                f"{file}: line {number} has {len(row)} values, the first line names {len(header)} columns. "
                "Correct the line; a value with a comma in it stands in quotes."
            )
    return [dict(zip(header, (value.strip() for value in row), strict=True)) for row in lines[1:] if any(row)]

"""Text files that others wrote: UTF-8 with or without a byte order mark, and nothing guessed."""

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

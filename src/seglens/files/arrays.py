"""Open files of named arrays."""

import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

_DAMAGE = (EOFError, BadZipFile, zlib.error, struct.error, NotImplementedError, SyntaxError, OverflowError)
"""The errors of numpy and zipfile, besides ValueError, for a file that is cut short or changed."""


@contextmanager
def open_npz(file: Path) -> Iterator[Mapping[str, np.ndarray]]:
    """Open the arrays of an ``.npz`` file by name; one is read when it is asked for. Pickles are refused.

    The file is closed in any case, which `numpy.load` by a path doesn't do where the file is damaged.

    Raises:
        OSError: the file can't be read.
        KeyError: there is no array of that name.
        ValueError: it is empty, damaged or of another kind.
    """
    try:
        with file.open("rb") as stream:
            if stream.read(4) != b"PK\x03\x04":
                raise ValueError("it is no file of named arrays (.npz)")
            stream.seek(0)
            with np.load(stream, allow_pickle=False) as arrays:
                yield arrays
    except _DAMAGE as error:
        raise ValueError(f"it is damaged or cut short ({error or type(error).__name__})") from error

"""Open files of named arrays."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np


@contextmanager
def open_npz(file: Path) -> Iterator[Mapping[str, np.ndarray]]:
    """Open the arrays of an ``.npz`` file by name; one is read when it is asked for. Pickles are refused.

    The file is closed in any case, which `numpy.load` by a path doesn't do where the file is damaged.

    Raises:
        OSError: the file can't be read.
        EOFError: it is empty.
        ValueError, zipfile.BadZipFile: it is damaged or of another kind.
    """
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        yield arrays

"""Read arrays that a command has written."""

from pathlib import Path

import numpy as np


def arrays_of(file: Path) -> dict[str, np.ndarray]:
    """Return every array of an ``.npz`` file, which is closed again at once."""
    with np.load(file) as stored:
        return dict(stored)

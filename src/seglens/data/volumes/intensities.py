"""Which numbers of a volume become 0 and 1: fixed ones of Hounsfield units, each volume's own of others."""

from collections.abc import Sequence

import numpy as np

Ends = tuple[float, float]
"""The numbers that become 0 and 1."""

PERCENTILES = (0.5, 99.5)
"""Of a volume's own numbers: they become 0 and 1 where numbers have no unit (MRI)."""
HOUNSFIELD: Ends = (-1024.0, 3071.0)
"""What becomes 0 and 1 of a CT: all that 12 bits hold, so that no tissue is clipped."""


def ends_of(channels: Sequence[str]) -> tuple[Ends | None, ...]:
    """Return for each channel by its name which numbers become 0 and 1; None: each volume's percentiles."""
    return tuple(HOUNSFIELD if name.strip().lower() == "ct" else None for name in channels)


def fractions(values: np.ndarray, ends: Ends | None) -> np.ndarray:
    """Return a volume's numbers as float64 in [0, 1]; what lies outside of ``ends`` becomes 0 or 1."""
    numbers = values.astype(np.float64)
    low, high = np.percentile(numbers, PERCENTILES) if ends is None else ends
    if not low < high:
        low, high = float(numbers.min()), float(numbers.max())
    if not low < high:
        return np.zeros(numbers.shape)
    return np.clip((numbers - low) / (high - low), 0, 1)

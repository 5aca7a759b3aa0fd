"""Train, valid and test splits of a set that has none: by a seed, near-duplicates on one side."""

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image as pil

SHARES = {"train": 0.70, "valid": 0.15, "test": 0.15}
SIDE = 32
"""Rows and columns of the thumbnails that are compared."""
ALIKE = 0.99
"""Correlation of two thumbnails from which on the pictures count as near-duplicates."""


def near_duplicates(files: Sequence[Path]) -> list[list[int]]:
    """Group pictures that show almost the same: lists of positions in ``files``, single pictures too.

    Two pictures are near-duplicates where their grey thumbnails of 32 x 32 correlate by `ALIKE` or more; a
    group is what such pairs connect. A file that can't be read stays alone.
    """
    with ThreadPoolExecutor() as pool:
        thumbnails = np.stack(list(pool.map(_thumbnail, files))) if files else np.zeros((0, SIDE**2))
    parents = list(range(len(files)))

    def root(position: int) -> int:
        while parents[position] != position:
            parents[position] = position = parents[parents[position]]
        return position

    for first in range(len(files)):
        alike = np.flatnonzero(thumbnails[first + 1 :] @ thumbnails[first] >= ALIKE) + first + 1
        for second in alike:
            parents[root(int(second))] = root(first)
    groups: dict[int, list[int]] = {}
    for position in range(len(files)):
        groups.setdefault(root(position), []).append(position)
    return list(groups.values())


def split(files: Sequence[Path], shares: dict[str, float], seed: int) -> dict[str, list[int]]:
    """Deal groups of near-duplicates out to splits, largest groups first, to the split that lacks most.

    The same files and seed give the same splits. No split stays empty where there are as many groups.
    """
    groups = near_duplicates(files)
    random.Random(seed).shuffle(groups)
    groups.sort(key=len, reverse=True)
    dealt: dict[str, list[int]] = {name: [] for name in shares}
    for group in groups:
        lacking = max(shares, key=lambda name: shares[name] * len(files) - len(dealt[name]))
        dealt[lacking] += group
    return {name: sorted(positions) for name, positions in dealt.items()}


def _thumbnail(file: Path) -> np.ndarray:
    """Return a small grey version with mean 0 and norm 1; zeros where the file can't be read."""
    try:
        with pil.open(file) as picture:
            picture.draft("L", (SIDE * 4, SIDE * 4))
            small = np.asarray(
                picture.convert("F").resize((SIDE, SIDE), pil.Resampling.BOX), np.float32
            ).ravel()
    except (OSError, ValueError, SyntaxError):
        return np.zeros(SIDE**2, np.float32)
    small = small - small.mean()
    return small / (np.linalg.norm(small) or 1.0)

"""Train, valid and test splits of a set that lacks them: by a seed, near-duplicates on one side."""

import random
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image as pil
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from seglens.data.images import read_pixels
from seglens.data.picture_files import open_picture
from seglens.data.volumes.copies import groups_of_copies
from seglens.data.volumes.reading import is_volume
from seglens.errors import DataError
from seglens.runtime.threads import Pool

SHARES = {"train": 0.70, "valid": 0.15, "test": 0.15}
SIDE = 32
"""Rows and columns of the grey thumbnails that are compared."""
ALIKE = (0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999)
"""Correlations from which on two thumbnails count as near-duplicates, the first where that is plausible.

Looked at on four real sets: from 0.95 on, pairs are the same picture in another brightness, mirrored, or
neighbouring slices of one scan; below 0.93, other patients in the same pose."""


def near_duplicates(files: Sequence[Path]) -> list[list[int]]:
    """Group pictures that show almost the same: positions in ``files``, every position in one group.

    Two pictures are near-duplicates where the grey thumbnails correlate by ``ALIKE[0]`` or more, as they are
    or with one mirrored left to right, upside down or both. Correlation ignores brightness and contrast. A
    group is what such pairs connect. Pictures that all look alike (one object on an even ground) would
    connect into one, so the bar is raised until no group holds more than an eighth of a set (or 8 pictures).
    Plain pictures and files that can't be read stay alone. Volumes aren't looked at: those whose files hold
    the same are grouped.
    """
    copies = groups_of_copies(files)
    found = {position for group in copies for position in group}
    others = [group for group in alike_groups(_thumbnails(files)) if found.isdisjoint(group)]
    return sorted([*others, *copies])


def alike_groups(thumbnails: np.ndarray) -> list[list[int]]:
    """Group pictures by their grey thumbnails, pictures x 32 x 32, as `near_duplicates` does."""
    first, second, alike = _alike_pairs(_normalised(thumbnails))
    for bar in ALIKE:
        kept = alike >= bar
        links = coo_array((kept[kept], (first[kept], second[kept])), shape=(len(thumbnails), len(thumbnails)))
        labels = connected_components(links, directed=False)[1]
        if np.bincount(labels, minlength=1).max() <= max(8, len(thumbnails) // 8):
            break
    groups: dict[int, list[int]] = {}
    for position, label in enumerate(labels.tolist()):
        groups.setdefault(label, []).append(position)
    return list(groups.values())


def split_pictures(
    files: Sequence[Path], kinds: Sequence[str], shares: dict[str, float], seed: int
) -> dict[str, list[int]]:
    """Split pictures at random; near-duplicates stay together, every split gets its share of each kind.

    Groups go kind by kind, large ones first and else shuffled by ``seed``, each to the split that is then
    furthest below its share. Same files and seed, same splits. No split is empty where there are as many
    groups as splits.

    Args:
        files: the pictures.
        kinds: the kind of each picture; a group is of the kind of its first.
        shares: the fraction of pictures that each split should get; they add up to 1.
        seed: decides which pictures go where.
    """
    return split_groups(near_duplicates(files), kinds, shares, seed)


def split_groups(
    groups: Sequence[list[int]], kinds: Sequence[str], shares: dict[str, float], seed: int
) -> dict[str, list[int]]:
    """Split groups of pictures as `split_pictures` does."""
    groups = list(groups)
    random.Random(seed).shuffle(groups)
    groups.sort(key=lambda group: (kinds[group[0]], -len(group)))
    parts: dict[str, list[list[int]]] = {name: [] for name in shares}
    count = dict.fromkeys(shares, 0)
    for group in groups:
        total = sum(count.values()) + len(group)
        lacking = max(shares, key=lambda name: shares[name] * total - count[name])
        parts[lacking].append(group)
        count[lacking] += len(group)
    for name in [name for name in shares if not parts[name]]:
        giver = max(parts, key=lambda other: len(parts[other]))
        if len(parts[giver]) > 1:
            parts[name].append(parts[giver].pop())
    return {name: sorted(position for group in part for position in group) for name, part in parts.items()}


def thumbnail(file: Path) -> np.ndarray:
    """Return a picture as 32 x 32 grey values of the file's own range; kept in memory.

    Raises:
        DataError: the file can't be read.
    """
    return _thumbnail(file, file.stat().st_mtime_ns if file.is_file() else 0)


@lru_cache(maxsize=16384)
def _thumbnail(file: Path, changed: int) -> np.ndarray:
    grey = _small_jpeg(file) if file.suffix.lower() in (".jpg", ".jpeg") else None
    if grey is None:
        grey = pil.fromarray(read_pixels(file).mean(axis=2, dtype=np.float32))
    return np.asarray(grey.resize((SIDE, SIDE), pil.Resampling.BOX), dtype=np.float32)


def _small_jpeg(file: Path) -> pil.Image | None:
    """Decode a JPEG at a fraction of its size, which is several times quicker; None where that can't be."""
    try:
        with open_picture(file) as picture:
            picture.draft("L", (4 * SIDE, 4 * SIDE))
            return picture.convert("F")
    except (OSError, ValueError, SyntaxError, DataError):
        return None  # read_pixels says what is wrong


def _thumbnails(files: Sequence[Path]) -> np.ndarray:
    """Return thumbnails, files x 32 x 32; zeros where a file can't be read."""

    def small(file: Path) -> np.ndarray:
        try:
            return np.zeros((SIDE, SIDE), np.float32) if is_volume(file) else thumbnail(file)
        except DataError:
            return np.zeros((SIDE, SIDE), np.float32)

    with Pool() as pool:
        return np.array(list(pool.map(small, files)), np.float32).reshape(-1, SIDE, SIDE)


def _normalised(thumbnails: np.ndarray) -> np.ndarray:
    """Return thumbnails of mean 0 and norm 1; plain ones are zeros."""
    stack = thumbnails.copy()
    stack -= stack.mean(axis=(1, 2), keepdims=True)
    norm = np.linalg.norm(stack, axis=(1, 2), keepdims=True)
    return np.divide(stack, norm, out=np.zeros_like(stack), where=norm > 1e-3)


def _alike_pairs(thumbnails: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the pairs of thumbnails that correlate enough, and how much, the best of four mirrorings."""
    flat, block = thumbnails.reshape(-1, SIDE * SIDE), 1024
    mirrored = [thumbnails[:, ::down, ::across] for down in (1, -1) for across in (1, -1)]
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for start in range(0, len(flat), block):
        rows = [flip[start : start + block].reshape(-1, SIDE * SIDE) for flip in mirrored]
        alike = np.max([row @ flat[start:].T for row in rows], axis=0)
        first, second = np.nonzero(np.triu(alike >= ALIKE[0], k=1))
        found.append((first + start, second + start, alike[first, second]))
    if not found:
        return np.zeros(0, int), np.zeros(0, int), np.zeros(0, np.float32)
    first, second, alike = (np.concatenate(column) for column in zip(*found, strict=True))
    return first, second, alike

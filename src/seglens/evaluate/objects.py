"""Which objects of the truth were found, and which of the prediction are invented: matched one to one.

An object is a connected piece of a class, or what the set itself tells apart. Overlap is the intersection
over the union of two objects. Everything that is kept of a picture is a few numbers for each of its objects.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from seglens.data.instances import NOT_COUNTED
from seglens.objects import pieces
from seglens.shapes import Mask, Region

DETECTED = 0.1
"""Overlap from which on a lesion counts as found: where it is, if not its outline."""

THRESHOLDS = (0.1, 0.3, 0.5)
"""Overlaps at which objects are matched."""

PRECISION_AT = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""Overlaps that the mean average precision is taken over: .5 to .95."""

MOSTLY = 0.5
"""An object is swallowed by another where more than this share of it lies in that."""


@dataclass(frozen=True)
class Overlaps:
    """Areas of true and predicted objects, and the pixels that pairs of them share, where they share any."""

    truth: np.ndarray
    predicted: np.ndarray
    pairs: np.ndarray
    shared: np.ndarray

    @property
    def iou(self) -> np.ndarray:
        """Intersection over union of each pair."""
        rows, columns = self.pairs.T
        return self.shared / (self.truth[rows] + self.predicted[columns] - self.shared)


@dataclass(frozen=True)
class Objects:
    """The objects of one class of one picture: their areas, and the overlap of each with its match.

    ``matched`` holds for each threshold the overlap of every true object with the predicted one that it was
    matched with, 0 where it is missed; ``used`` the same of predicted objects. ``shared`` and ``joined`` are
    the sums of the aggregated Jaccard index. ``merges`` are predicted objects that swallow several true ones,
    ``splits`` true objects in which several predicted ones lie.
    """

    truth: np.ndarray
    predicted: np.ndarray
    matched: Mapping[float, np.ndarray]
    used: Mapping[float, np.ndarray]
    shared: float
    joined: float
    merges: int
    splits: int

    def in_unit(self, size: float) -> "Objects":
        """Return the objects with their areas times the ``size`` of a pixel."""
        return self if size == 1 else replace(self, truth=self.truth * size, predicted=self.predicted * size)


def overlaps(truth: Mask, predicted: Mask) -> Overlaps:
    """Measure objects given as label images of one size, 0 where none is; numbers may have gaps.

    Pixels of a crowd count for nothing, see `NOT_COUNTED`.
    """
    first, second = truth.numpy().ravel(), predicted.numpy().ravel()
    counted = (first != NOT_COUNTED) & ((first > 0) | (second > 0))
    own, rows = np.unique(np.append(first[counted], 0), return_inverse=True)
    other, columns = np.unique(np.append(second[counted], 0), return_inverse=True)
    # 0 was appended, so that it is there and comes first.
    table = coo_array((np.ones(len(rows), np.int64), (rows, columns)), shape=(len(own), len(other))).tocsr()
    table[0, 0] = 0
    areas = table.sum(axis=1)[1:], table.sum(axis=0)[1:]
    inner = coo_array(table[1:, 1:])
    inner.eliminate_zeros()
    own_areas, other_areas = (np.asarray(each) for each in areas)
    return Overlaps(own_areas, other_areas, np.stack([inner.row, inner.col], 1), inner.data)


def match(found: Overlaps, threshold: float) -> list[tuple[int, int, float]]:
    """Match objects one to one whose overlap is at least ``threshold``.

    As many are matched as can be, and of those ways the best is taken: a maximum matching of the largest
    sum of overlaps (Kuhn 1955), group by group of objects that touch one another. Each is a true object, a
    predicted one, and their overlap.
    """
    iou = found.iou
    kept = iou >= threshold
    pairs, weights = found.pairs[kept], iou[kept]
    num = len(found.truth)
    size = num + len(found.predicted)
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], num + pairs[:, 1])), shape=(size, size))
    group_of = connected_components(links, directed=False)[1][pairs[:, 0]]
    order = np.argsort(group_of, kind="stable")
    made: list[tuple[int, int, float]] = []
    for members in np.split(order, np.flatnonzero(np.diff(group_of[order])) + 1) if len(pairs) else ():
        rows, row = np.unique(pairs[members, 0], return_inverse=True)
        columns, column = np.unique(pairs[members, 1], return_inverse=True)
        value = np.zeros((len(rows), len(columns)))
        # One more match outweighs any gain of overlap.
        value[row, column] = weights[members] + min(value.shape) + 1
        for i, j in zip(*linear_sum_assignment(value, maximize=True), strict=True):
            if value[i, j] > 0:
                made.append((int(rows[i]), int(columns[j]), float(value[i, j] - min(value.shape) - 1)))
    return made


def without_ignored(predicted: Mask, whole: Region, valid: Region, truth: Mask) -> Mask:
    """Return the numbers of predicted objects without those that lie mostly on ignored pixels.

    ``predicted`` are the valid pixels of the region ``whole``. A piece of that more than half of which is not
    valid, and that touches no true object, is neither found nor invented (Kirillov et al. 2019, section 4.2,
    who drop unmatched segments of that kind): what is left of it is the rim of something nobody judged.
    """
    if not bool((whole & ~valid).any()):
        return predicted
    number = pieces(whole)
    area, hidden, touched = (
        torch.bincount(number[where], minlength=int(number.max()) + 1)
        for where in (whole, whole & ~valid, whole & (truth > 0))
    )
    return predicted.masked_fill(((2 * hidden > area) & (touched == 0))[number] & whole, 0)


def objects_of(truth: Mask, predicted: Mask) -> Objects:
    """Match the objects of two label images at every threshold, and count merges and splits."""
    found = overlaps(truth, predicted)
    matched, used = {}, {}
    for threshold in dict.fromkeys((*THRESHOLDS, *PRECISION_AT)):
        matched[threshold], used[threshold] = np.zeros(len(found.truth)), np.zeros(len(found.predicted))
        for row, column, iou in match(found, threshold):
            matched[threshold][row] = used[threshold][column] = iou
    rows, columns = found.pairs.T
    swallowed = found.shared > MOSTLY * found.truth[rows]
    inside = found.shared > MOSTLY * found.predicted[columns]
    return Objects(
        found.truth,
        found.predicted,
        matched,
        used,
        *aggregated(found),
        merges=int((np.bincount(columns[swallowed], minlength=1) > 1).sum()),
        splits=int((np.bincount(rows[inside], minlength=1) > 1).sum()),
    )


def aggregated(found: Overlaps) -> tuple[float, float]:
    """Return the two sums of the aggregated Jaccard index (Kumar et al. 2017, algorithm 1).

    Every true object is laid against the predicted one of the largest overlap, which may be that of several;
    what no true object took, and a true object that nothing touches, count whole in the union.
    """
    shared = joined = 0.0
    taken = np.zeros(len(found.predicted), bool)
    best: dict[int, tuple[float, int, int]] = {}
    for (row, column), common, iou in zip(found.pairs, found.shared, found.iou, strict=True):
        if int(row) not in best or iou > best[int(row)][0]:
            best[int(row)] = (iou, int(column), int(common))
    for row, area in enumerate(found.truth):
        if row in best:
            _, column, common = best[row]
            shared += common
            joined += float(area + found.predicted[column] - common)
            taken[column] = True
        else:
            joined += float(area)
    return shared, joined + float(found.predicted[~taken].sum())


def together(parts: Sequence[Objects]) -> Objects:
    """Put the objects of the classes of a picture together."""
    thresholds = parts[0].matched
    return Objects(
        np.concatenate([part.truth for part in parts]),
        np.concatenate([part.predicted for part in parts]),
        {each: np.concatenate([part.matched[each] for part in parts]) for each in thresholds},
        {each: np.concatenate([part.used[each] for part in parts]) for each in thresholds},
        sum(part.shared for part in parts),
        sum(part.joined for part in parts),
        sum(part.merges for part in parts),
        sum(part.splits for part in parts),
    )

"""Objects that a set tells apart: a file for each, an outline for each, or label images."""

from collections.abc import Sequence

import numpy as np
import torch

from seglens.shapes import Mask

NOT_COUNTED = -1
"""Pixels of a crowd: objects that nobody told apart, in which none can be found or invented."""


def as_label_image(
    objects: Sequence[np.ndarray], size: Sequence[int], crowds: Sequence[np.ndarray] = ()
) -> Mask:
    """Return the number of the object at each pixel, from 1; 0 is where none is.

    Where objects overlap a pixel belongs to the smallest of them, so that none is hidden by a larger one.
    Pixels of ``crowds`` alone are `NOT_COUNTED`.
    """
    label = np.zeros(tuple(size), np.int64)
    for crowd in crowds:
        label[crowd] = NOT_COUNTED
    areas = [int(each.sum()) for each in objects]
    for number in sorted(range(len(objects)), key=lambda number: -areas[number]):
        label[objects[number]] = number + 1
    return torch.from_numpy(label)

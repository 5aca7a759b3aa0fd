"""clDice: how much of the centre lines of thin shapes (vessels, cracks, nerves) was found."""

from math import nan, pi

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt

from seglens.masks import of_class
from seglens.objects import skeleton
from seglens.shapes import AnyMask, Region

LINES = 5.0
"""Times longer than wide from which on a shape has centre lines worth scoring."""

DEFINITIONS = {
    "cldice": "clDice (Shit et al. 2021): do the centre lines of prediction and truth agree? 1 is best. "
    "A broken vessel costs its length, not its area. It is the harmonic mean of two shares: predicted "
    "centre lines inside the truth, and true centre lines inside the prediction. With several classes it "
    "is the mean over the foreground classes. A class that is in neither mask is left out; one that is "
    f"in only one of them scores 0. Pictures whose true shapes are less than {LINES:g} times longer than "
    "wide have no such score.",
    "elongation": "Elongation: how many times longer than wide the true shapes of a picture are, on average.",
}


def cldice(predicted: Region, true: Region) -> float:
    """Return ``2 Tp Ts / (Tp + Ts)``, Tp = |S(P) & T| / |S(P)|, Ts = |S(T) & P| / |S(T)|.

    S is the skeleton (Shit et al. 2021, equations 1 and 2). NaN where both masks are empty, or
    thinning leaves nothing of one, as of a cube.
    """
    if not bool(predicted.any() | true.any()):
        return nan
    if not bool(predicted.any() & true.any()):
        return 0.0
    box = _box(predicted | true)
    predicted, true = predicted[box], true[box]
    lines = skeleton(predicted), skeleton(true)
    if not all(bool(line.any()) for line in lines):
        return nan
    precision, sensitivity = (
        int((line & other).sum()) / int(line.sum())
        for line, other in zip(lines, (true, predicted), strict=True)
    )
    return 2 * precision * sensitivity / (precision + sensitivity) if precision + sensitivity else 0.0


def elongation(true: Region, pieces: int) -> float:
    """Return how many times longer than wide the pieces of a mask are in the mean; NaN of an empty mask.

    By the mean distance d of its pixels from outside, half a pixel less for where a pixel ends: of a strip of
    length L and width w that is w / 4, of a tube of radius r it is r / 3, so that L / w is ``area / w^2``, of
    volumes ``volume / (2 pi r^3)``. A disc has 1.8, a ball 1.6.
    """
    area = int(true.sum())
    if not (area and pieces):
        return nan
    inside = np.pad(true[_box(true)].numpy(), 1)
    away = float(distance_transform_edt(inside)[inside].mean()) - 0.5
    one = (4 * away) ** 2 if true.ndim == 2 else 2 * pi * (3 * away) ** 3
    return area / pieces / one


def _box(region: Region) -> tuple[slice, ...]:
    """Return the box that holds a region, outside of which there is nothing to thin."""
    low, high = region.nonzero().aminmax(dim=0)
    return tuple(slice(int(first), int(last) + 1) for first, last in zip(low, high, strict=True))


def of_masks(prediction: AnyMask, truth: AnyMask, valid: Region, num_classes: int, longer: float) -> float:
    """Return the mean of `cldice` over the foreground classes that are in either mask; NaN without any.

    ``longer`` is the `elongation` of what is true; where that is compact there are no lines, and NaN.
    """
    if longer < LINES:
        return nan
    each = [
        cldice(*(of_class(mask, index, valid.ndim) & valid for mask in (prediction, truth)))
        for index in range(1, num_classes)
    ]
    return float(torch.tensor(each, dtype=torch.float64).nanmean())

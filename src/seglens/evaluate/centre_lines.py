"""clDice: how much of the centre lines of thin shapes (vessels, cracks, nerves) was found."""

from math import nan

import torch

from seglens.masks import of_class
from seglens.objects import skeleton
from seglens.shapes import AnyMask, Region

DEFINITIONS = {
    "cldice": "clDice (Shit et al. 2021): harmonic mean of the share of the prediction's centre lines that "
    "lies in the truth and the share of the truth's that lies in the prediction; a broken vessel costs its "
    "length, not its area. With several classes the mean over the foreground classes. A class that is in "
    "neither mask is left out, one that is in only one of them scores 0. Of compact shapes it says little.",
    "elongation": "Elongation: how many times longer than wide the true foreground of a picture is, the "
    "squared length of its centre lines over its area and its number of pieces.",
    "undefined": "What can't be computed (0/0: precision where nothing is predicted, a distance where an "
    "outline is missing) is not a number, null in JSON; it is left out of means, and 'num' says how many "
    "pictures are in them. It is never taken for 0 or 1. The one exception: a picture without any foreground "
    "in truth and prediction has Dice, IoU, precision and recall 1; 'emptiness' counts those pictures and "
    "has the mean without them.",
}


def cldice(predicted: Region, true: Region) -> float:
    """Return ``2 Tp Ts / (Tp + Ts)``, Tp = |S(P) & T| / |S(P)|, Ts = |S(T) & P| / |S(T)|.

    S is the skeleton (Shit et al. 2021, equations 1 and 2). NaN where both masks are empty.
    """
    if not bool(predicted.any() | true.any()):
        return nan
    if not bool(predicted.any() & true.any()):
        return 0.0
    places = (predicted | true).nonzero()
    box = tuple(slice(int(low), int(high) + 1) for low, high in zip(*places.aminmax(dim=0), strict=True))
    predicted, true = predicted[box], true[box]
    lines = skeleton(predicted), skeleton(true)
    precision, sensitivity = (
        int((line & other).sum()) / int(line.sum())
        for line, other in zip(lines, (true, predicted), strict=True)
    )
    return 2 * precision * sensitivity / (precision + sensitivity) if precision + sensitivity else 0.0


def elongation(true: Region, pieces: int) -> float:
    """Return the squared length of the centre lines over area and number of pieces; NaN of an empty mask.

    Of ``n`` lines of length L and width w it is ``(n L)^2 / (n L w n) = L / w``.
    """
    area = int(true.sum())
    return int(skeleton(true).sum()) ** 2 / (area * pieces) if area and pieces else nan


def of_masks(prediction: AnyMask, truth: AnyMask, valid: Region, num_classes: int) -> float:
    """Return the mean of `cldice` over the foreground classes that are in either mask; NaN without any."""
    each = [
        cldice(*(of_class(mask, index, valid.ndim) & valid for mask in (prediction, truth)))
        for index in range(1, num_classes)
    ]
    return float(torch.tensor(each, dtype=torch.float64).nanmean())

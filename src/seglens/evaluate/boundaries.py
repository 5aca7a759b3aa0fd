"""Boundary metrics: the distance of the outline of a predicted mask from the true outline.

Overlap hardly notices where an outline runs once an object is large; these three do. The *boundary pixels* of
a mask are those of its pixels that have a pixel outside of it, or the picture's edge, above, below, left or
right of them (in a volume before or behind them too). What is not valid counts as background in both masks:
boundaries are those of the masks inside the valid region, and an object that is cut by that region's edge has
boundary pixels there.

Own functions on scipy's nearest neighbours. MONAI (1.6) gives the same numbers, and the tests compare with
it, but it takes 3 seconds to import, warns at every call of an argument that it calls deprecated itself and
at every empty mask, and has no boundary IoU.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.ndimage import binary_erosion, find_objects, minimum_filter
from scipy.spatial import KDTree

from seglens.errors import SettingError
from seglens.masks import of_class
from seglens.shapes import AnyMask, Region

Area = Bool[np.ndarray, "*size"]
There = Float[np.ndarray, " predicted"]
Back = Float[np.ndarray, " true"]

NAMES = ("boundary_iou", "nsd", "hd95")

TOLERANCE = 2.0
"""Pixels, or millimetres, that a boundary may be off and still be right in the surface distance."""

BAND_RATIO = 0.02
"""Width of the boundary IoU's band as a share of the picture's diagonal, as Cheng et al. (2021) set it."""

DEFINITIONS = {
    "boundary_iou": "Boundary IoU (Cheng et al. 2021): how well the outlines overlap; 1 is best. It is "
    f"the IoU of two bands along the outlines of prediction and truth. Each band is {BAND_RATIO:.0%} of "
    "the picture's diagonal wide. It notices a wrong outline of a large object sooner than IoU.",
    "nsd": "Normalised surface distance, or surface Dice (Nikolov et al. 2021): the share of both "
    "outlines that is near enough to the other one. 1 is best.",
    "hd95": "95 % Hausdorff distance in pixels: how far the outlines are apart, without the worst 5 % of "
    "their pixels. It is measured from prediction to truth and back, and the larger value counts. 0 is "
    "best.",
    "boundary": "Outlines are those of the masks inside the valid region, at the original resolution. "
    "Where ignored pixels lie along the outlines, both masks end there, and these three scores say "
    "little. With several classes each score is the mean over the foreground classes. A class that is in "
    "neither mask is left out. One that is in only one of them has boundary IoU 0, surface distance 0 "
    "and no Hausdorff distance. A picture without a score is left out of its mean; 'num' counts the "
    "others.",
}
"""Each score in plain words, for reports."""

OF_VOLUMES = {
    "nsd": f"{DEFINITIONS['nsd']} Of volumes the tolerance is {TOLERANCE:g} mm.",
    "hd95": DEFINITIONS["hd95"].replace(" in pixels:", " in millimetres:"),
    "volume_ml": "Volume: what the prediction and the truth of a class take, in millilitres, and the "
    "prediction's less the truth's; above 0 too much is predicted.",
}
"""What is said of volumes in place of it, and beside it."""


def mean_of_classes(each: Mapping[int, Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each score of `surface_scores` over the classes; NaN where none has it."""
    rows = [list(row.values()) for row in each.values()]
    means = torch.tensor(rows, dtype=torch.float64).reshape(-1, len(NAMES)).nanmean(dim=0)
    return dict(zip(NAMES, means.tolist(), strict=True))


def surface_scores(
    prediction: AnyMask,
    truth: AnyMask,
    valid: Region,
    num_classes: int,
    *,
    spacing: Sequence[float] | None = None,
    tolerance: float = TOLERANCE,
) -> dict[int, dict[str, float]]:
    """Return ``boundary_iou``, ``nsd`` and ``hd95`` of each foreground class that is in either mask.

    ``tolerance`` and ``hd95`` are in pixels, or where ``spacing`` says how many millimetres a voxel has along
    each axis, in millimetres. The band of the boundary IoU is in voxels always.

    Raises:
        SettingError: the tolerance is no number from 0 on.
    """
    if not (math.isfinite(tolerance) and tolerance >= 0):
        unit = "pixels" if spacing is None else "mm"
        raise SettingError(
            f"The tolerance is {tolerance} {unit}, allowed is any number from 0 on ({TOLERANCE:g} is usual)."
        )
    sides = np.ones(valid.ndim) if spacing is None else np.array(spacing)
    width = max(1, round(BAND_RATIO * math.hypot(*valid.shape)))
    found = {}
    for index in range(1, num_classes):
        predicted, true = (
            (of_class(mask, index, valid.ndim) & valid).cpu().numpy() for mask in (prediction, truth)
        )
        if predicted.any() or true.any():
            box = _box(predicted | true)
            predicted, true = predicted[box], true[box]
            there, back = _distances(predicted, true, sides)
            values = boundary_iou(predicted, true, width), nsd(there, back, tolerance), hd95(there, back)
            found[index] = dict(zip(NAMES, values, strict=True))
    return found


def boundary_iou(predicted: Area, true: Area, width: int) -> float:
    """Return ``|P_d & T_d| / |P_d | T_d|``, P_d the pixels of P with a pixel outside P at most d away.

    Cheng et al. (2021) as their code has it: d is ``width`` steps from pixel to pixel, diagonal ones
    too, and outside the picture nothing belongs to the mask. NaN where both masks are empty.
    """
    bands = [
        area & ~minimum_filter(area, size=2 * width + 1, mode="constant", cval=0)
        for area in (predicted, true)
    ]
    union = int((bands[0] | bands[1]).sum())
    return int((bands[0] & bands[1]).sum()) / union if union else math.nan


def nsd(there: There, back: Back, tolerance: float) -> float:
    """Return the share of the ``there`` and ``back`` distances, together, that are at most ``tolerance``.

    Nikolov et al. (2021); they weigh a boundary by its length, here, as in
    MONAI, every boundary pixel counts the same. NaN where there is no distance.
    """
    both = np.concatenate([there, back])
    return float((both <= tolerance).mean()) if len(both) else math.nan


def hd95(there: There, back: Back) -> float:
    """Return the larger of the 95th percentiles of the two directed distances, in pixels.

    Huttenlocher, Klanderman, Rucklidge (1993, partial distances). Between two distances the percentile is
    interpolated, as in MONAI. NaN where either boundary is empty: no distance is to be had.
    """
    if not (len(there) and len(back) and np.isfinite(there).all() and np.isfinite(back).all()):
        return math.nan
    return float(max(np.percentile(there, 95), np.percentile(back, 95)))


def border_pixels(area: Area) -> Area:
    """Return the pixels of ``area`` with a neighbour across a side, or the array's edge, outside of it."""
    return area & ~binary_erosion(area)


def _distances(predicted: Area, true: Area, sides: Float[np.ndarray, " axes"]) -> tuple[There, Back]:
    """Return how far each boundary pixel of either mask is from the other's, infinite where that has none.

    ``sides`` are the lengths of a pixel along each axis.
    """
    points = [np.argwhere(border_pixels(area)) * sides for area in (predicted, true)]
    if not all(len(part) for part in points):
        there, back = (np.full(len(part), np.inf) for part in points)
        return there, back
    trees = [KDTree(part) for part in points]
    return trees[1].query(points[0])[0], trees[0].query(points[1])[0]


def _box(area: Area) -> tuple[slice, ...]:
    """Return the box that holds ``area``: all around it is background, as it is outside of any array."""
    (box,) = find_objects(area.astype(np.int8))
    return box

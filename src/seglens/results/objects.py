"""The objects of an evaluation: how many lesions or nuclei were found, missed and invented."""

from collections.abc import Mapping
from typing import Literal

from seglens.results.spread import Spread
from seglens.results.tables import Number, Result

Unit = Literal["px", "mm3"]


class PictureObjects(Result):
    """The objects of one picture: true, predicted, and at an overlap of .1 those missed and those invented.

    ``average_precision`` is over overlaps of .5 to .95; None where there is neither a true nor a predicted
    object. ``merges`` and ``splits`` are as in `ObjectTable`.
    """

    truth: int = 0
    predicted: int = 0
    missed: int = 0
    invented: int = 0
    merges: int = 0
    splits: int = 0
    average_precision: Number = None


class AtOverlap(Result):
    """What was found of all objects where a match takes an overlap of ``overlap`` at least."""

    overlap: float
    found: int = 0
    missed: int = 0
    invented: int = 0
    sensitivity: Spread = Spread()
    precision: Spread = Spread()
    f1: Spread = Spread()
    invented_per_picture: Spread = Spread()


class OfSize(Result):
    """Objects of one size, from ``low`` to less than ``high`` (None: no end), at an overlap of .1.

    True objects go by their own size, invented ones by theirs.
    """

    low: Number = None
    high: Number = None
    truth: int = 0
    found: int = 0
    invented: int = 0
    sensitivity: Spread = Spread()


class ObjectTable(Result):
    """The objects of a split, or of one class of it.

    ``empty`` are pictures with neither a true nor a predicted object, ``no_truth`` those with predicted ones
    only, ``nothing_found`` those with true ones only. ``unit`` is that of the sizes.
    """

    pictures: int = 0
    empty: int = 0
    no_truth: int = 0
    nothing_found: int = 0
    truth: int = 0
    predicted: int = 0
    unit: Unit = "px"
    told_apart: bool = False
    at: tuple[AtOverlap, ...] = ()
    panoptic_quality: Spread = Spread()
    segmentation_quality: Spread = Spread()
    aggregated_jaccard: Spread = Spread()
    average_precision: Spread = Spread()
    merges: int = 0
    splits: int = 0
    sizes: tuple[OfSize, ...] = ()
    classes: Mapping[str, "ObjectTable"] = {}

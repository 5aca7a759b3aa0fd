"""The scores of objects over a split, with intervals; see `seglens.evaluate.objects` for one picture."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from math import inf, nan

import numpy as np
import torch

from seglens.errors import SettingError
from seglens.evaluate.intervals import Groups, interval, ratio_interval
from seglens.evaluate.objects import DETECTED, PRECISION_AT, THRESHOLDS, Objects, together
from seglens.results.objects import AtOverlap, ObjectTable, OfSize, PictureObjects, Unit
from seglens.results.spread import Spread
from seglens.shapes import PerImage

PANOPTIC = 0.5
"""The overlap at which a match is unique (Kirillov et al. 2019)."""

DEFINITIONS = {
    "objects": "Objects (lesions, nuclei): what the data tell apart, by a file, outline or number for "
    "each. Otherwise they are the connected pieces of a class, where pixels that touch at a corner "
    "belong together. Predicted objects are connected pieces. With --split-touching a watershed cuts "
    "them apart. One that lies mostly on ignored pixels and touches no true object doesn't count.",
    "matching": "A true and a predicted object match where they overlap enough (intersection over union "
    "of at least .1, .3 or .5). Each has one match at most. There are as many matches as possible, and "
    "of those ways the best (Hungarian method). Above .5 only one match is possible.",
    "sensitivity": "The share of the true objects of all pictures that were found.",
    "object_precision": "The share of the predicted objects of all pictures that match a true one.",
    "f1": "2 found / (2 found + missed + invented), over the objects of all pictures.",
    "invented_per_picture": "Predicted objects without a match, per picture. Pictures without any count, "
    "too.",
    "panoptic_quality": "The sum of the overlaps of matches at .5, over found + (missed + invented) / 2 "
    "(Kirillov et al. 2019). The segmentation quality is the mean overlap of those matches.",
    "aggregated_jaccard": "Aggregated Jaccard index (Kumar et al. 2017): the pixels that true objects "
    "share with their best predicted object, over all pixels of both. Predicted objects that no true one "
    "took count, too.",
    "average_precision": "found / (found + missed + invented), averaged over overlaps from .5 to .95 in "
    "steps of .05, then over pictures. So the Data Science Bowl 2018 scored nuclei. It is not the score "
    "of COCO, which ranks by confidence.",
    "merges": "Merge: one predicted object covers more than half of several true objects. Split: one "
    "true object covers more than half of several predicted objects.",
    "empty_pictures": "A picture with neither a true nor a predicted object adds nothing to sensitivity, "
    "precision, F1, panoptic quality and AJI. It has no average precision, and counts among the pictures "
    "of invented objects. One without true objects adds what is invented, and its average precision is "
    "0. One in which nothing is predicted adds what is missed. All three kinds are counted beside the "
    "scores. A score of 0/0 is not a number (null), and never 0 or 1.",
}
"""Every score of objects in plain words."""


def of_picture(found: Objects) -> PictureObjects:
    """Return the row of one picture."""
    average = average_precision(found)
    return PictureObjects(
        truth=len(found.truth),
        predicted=len(found.predicted),
        missed=int((found.matched[DETECTED] == 0).sum()),
        invented=int((found.used[DETECTED] == 0).sum()),
        merges=found.merges,
        splits=found.splits,
        average_precision=average,
    )


def object_rows(
    names: Sequence[str], pictures: Sequence[Mapping[str, Objects]], unit: Unit
) -> list[dict[str, object]]:
    """Return a row for each true and predicted object: its size, and the overlap with its match.

    A pair has a row on both sides. An overlap of 0 is no match.
    """
    rows: list[dict[str, object]] = []
    for name, by_class in zip(names, pictures, strict=True):
        for label, found in by_class.items():
            kinds = (("truth", found.truth, found.matched), ("predicted", found.predicted, found.used))
            for kind, areas, overlap in kinds:
                rows += [
                    {"name": name, "class": label, "kind": kind, "number": number + 1}
                    | {f"size_{unit}": float(area)}
                    | {f"overlap at {each:g}": float(overlap[each][number]) for each in THRESHOLDS}
                    for number, area in enumerate(areas)
                ]
    return rows


def average_precision(found: Objects) -> float:
    """Return the mean over `PRECISION_AT` of found / (found + missed + invented); NaN where nothing is."""
    every = len(found.truth) + len(found.predicted)
    if not every:
        return nan
    hits = [int((found.matched[each] > 0).sum()) for each in PRECISION_AT]
    return float(np.mean([hit / (every - hit) for hit in hits]))


def check_sizes(sizes: Sequence[float] | None) -> None:
    """Raise where bounds of sizes are not rising numbers above 0.

    Raises:
        SettingError: they are not.
    """
    if sizes is None:
        return
    if not all(0 < size < inf for size in sizes) or list(sizes) != sorted(set(sizes)) or not sizes:
        raise SettingError(
            f"Sizes are {', '.join(f'{size:g}' for size in sizes) or 'none'}; allowed are numbers above 0 "
            "that rise, such as 100 1000: objects below 100, up to 1000, and above. They are in pixels, "
            "of volumes in cubic millimetres."
        )


def object_table(
    pictures: Sequence[Mapping[str, Objects]],
    classes: Sequence[str],
    *,
    groups: Groups | None = None,
    sizes: Sequence[float] | None = None,
    unit: Unit = "px",
    told_apart: bool = False,
) -> ObjectTable:
    """Return the scores of all objects, and where there are several of each of ``classes``.

    ``pictures`` hold for each picture the objects by class; areas are in ``unit``. Intervals resample
    ``groups`` of pictures. ``sizes`` are the bounds of sizes; terciles of the true objects by default.
    """
    whole = _table([together(list(found.values())) for found in pictures], groups, sizes, unit)
    each = {}
    if len(classes) > 1:
        each = {name: _table([found[name] for found in pictures], groups, sizes, unit) for name in classes}
    return whole.model_copy(update={"classes": each, "told_apart": told_apart})


def _table(
    pictures: Sequence[Objects], groups: Groups | None, sizes: Sequence[float] | None, unit: Unit
) -> ObjectTable:
    def column(measure: Callable[[Objects], float]) -> PerImage:
        return torch.tensor([measure(found) for found in pictures], dtype=torch.float64)

    def ratio(above: PerImage, below: PerImage) -> Spread:
        return ratio_interval(above, below, groups=groups).spread()

    truth, predicted = column(lambda f: len(f.truth)), column(lambda f: len(f.predicted))
    hits = column(lambda f: int((f.matched[PANOPTIC] > 0).sum()))
    overlap = column(lambda f: float(f.matched[PANOPTIC].sum()))
    return ObjectTable(
        pictures=len(pictures),
        empty=int(((truth == 0) & (predicted == 0)).sum()),
        no_truth=int(((truth == 0) & (predicted > 0)).sum()),
        nothing_found=int(((truth > 0) & (predicted == 0)).sum()),
        truth=int(truth.sum()),
        predicted=int(predicted.sum()),
        unit=unit,
        at=tuple(_at(threshold, column, ratio, truth, predicted) for threshold in THRESHOLDS),
        panoptic_quality=ratio(overlap, (truth + predicted) / 2),
        segmentation_quality=ratio(overlap, hits),
        aggregated_jaccard=ratio(column(lambda f: f.shared), column(lambda f: f.joined)),
        average_precision=interval(column(average_precision), groups=groups).spread(),
        merges=sum(found.merges for found in pictures),
        splits=sum(found.splits for found in pictures),
        sizes=_by_size(pictures, column, ratio, sizes),
    )


Column = Callable[[Callable[[Objects], float]], PerImage]
Ratio = Callable[[PerImage, PerImage], Spread]


def _at(threshold: float, column: Column, ratio: Ratio, truth: PerImage, predicted: PerImage) -> AtOverlap:
    found = column(lambda f: int((f.matched[threshold] > 0).sum()))
    return AtOverlap(
        overlap=threshold,
        found=int(found.sum()),
        missed=int((truth - found).sum()),
        invented=int((predicted - found).sum()),
        sensitivity=ratio(found, truth),
        precision=ratio(found, predicted),
        f1=ratio(2 * found, truth + predicted),
        invented_per_picture=ratio(predicted - found, torch.ones_like(found)),
    )


def _by_size(
    pictures: Sequence[Objects], column: Column, ratio: Ratio, sizes: Sequence[float] | None
) -> tuple[OfSize, ...]:
    """Return objects by size: between given bounds, or terciles of the areas of all true objects."""
    areas = np.concatenate([found.truth for found in pictures]) if pictures else np.zeros(0)
    if not len(areas):
        return ()
    inner = sorted(set(np.quantile(areas, (1 / 3, 2 / 3)).tolist())) if sizes is None else list(sizes)
    ends = [0.0, *inner, inf]
    rows = []
    for low, high in pairwise(ends):

        def within(values: np.ndarray, low: float = low, high: float = high) -> np.ndarray:
            return (values >= low) & (values < high)

        truth = column(lambda f: int(within(f.truth).sum()))
        found = column(lambda f: int((within(f.truth) & (f.matched[DETECTED] > 0)).sum()))
        invented = column(lambda f: int((within(f.predicted) & (f.used[DETECTED] == 0)).sum()))
        rows.append(
            OfSize(
                low=low,
                high=None if high == inf else high,
                truth=int(truth.sum()),
                found=int(found.sum()),
                invented=int(invented.sum()),
                sensitivity=ratio(found, truth),
            )
        )
    return tuple(rows)

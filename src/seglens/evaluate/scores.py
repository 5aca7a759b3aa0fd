"""Scores of predicted masks against true ones, from confusion counts. Each name says what is averaged.

A confusion matrix holds at ``[t, p]`` the number of valid pixels whose true class is t and whose predicted
class is p. `scores` of the sum over images are *pooled*; `scores` image by image are *per image*.

Classes that may overlap have no such matrix: `LabelCounts` hold a matrix of yes and no for each.
"""

from dataclasses import dataclass
from math import nan

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seglens.errors import DataError
from seglens.evaluate.intervals import Groups, interval, known_groups
from seglens.masks import is_stack, of_class
from seglens.shapes import AnyMask, Labels, Mask, PerImage, Region

Confusion = Int[Tensor, "*b classes classes"]

DEFINITIONS = {
    "dice": "Dice: how well prediction and truth overlap; 1 is best. Twice the overlap over the sum of both "
    "areas, 2TP/(2TP+FP+FN). With several classes it is the mean over the foreground classes.",
    "iou": "IoU (Jaccard): the overlap of prediction and truth over their union, TP/(TP+FP+FN); 1 is "
    "best. With several classes it is the mean over the foreground classes.",
    "miou": "mIoU: the mean of the IoU over all classes, background included.",
    "pixel_accuracy": "Pixel accuracy: the share of valid pixels that have the right class. It is high "
    "wherever the background is large, whatever the model does. It is not defined where classes may "
    "overlap.",
    "precision": "Precision: the share of the predicted foreground that is true, TP/(TP+FP). With several "
    "classes it is the mean over the foreground classes. Pictures with nothing predicted are left out.",
    "recall": "Recall: the share of the true foreground that was predicted, TP/(TP+FN). With several "
    "classes it is the mean over the foreground classes. Pictures with nothing to find are left out.",
    "pooled": "Pooled: large objects weigh more. The pixels of all pictures are counted together.",
    "per_image": "Per picture: every picture weighs the same. The score is computed for each picture, then "
    "averaged. 'num' is the number of pictures for which it is defined.",
    "undefined": "A score of 0/0 is not a number (null in JSON), and never 0 or 1. Examples are "
    "precision where nothing is predicted, and a distance without an outline. It is left out of means; "
    "'num' says how many pictures are in them. One exception: a picture without any foreground in truth "
    "and prediction has Dice, IoU, precision and recall 1. 'emptiness' counts such pictures and has the "
    "mean without them.",
    "empty": "A picture without foreground in truth and prediction scores 1. A class that is in neither "
    "is left out of the picture's mean over classes.",
    "shown": "Shown: the number of pictures whose truth has the class. Where no picture shows any class, "
    "scores of overlap say nothing and are left out.",
    "interval": "Low and high: how far the mean may be off because of the choice of test pictures. 95 % "
    "bootstrap interval, with 2000 resamples of the groups of pictures. A picture without a group counts as "
    "one. It does not cover the choice of the training data or the seed.",
    "pixels": "Only valid pixels count, at the original resolution. Padding and pixels that the data say to "
    "ignore do not count.",
}
"""Each score in plain words, for reports."""


def confusion(prediction: Mask, truth: Mask, valid: Region, num_classes: int) -> Confusion:
    """Count the valid pixels of one image by true class (row) and predicted class (column), as int64.

    Raises:
        DataError: a valid pixel has a class that doesn't exist.
    """
    # Invalid pixels are counted in a bin of their own: taking the others out would cost more.
    pairs = [mask.masked_fill(~valid, 0).long() for mask in (truth, prediction)]
    low, high = (torch.stack(list(ends)) for ends in zip(*(mask.aminmax() for mask in pairs), strict=True))
    if valid.any() and not (0 <= int(low.min()) and int(high.max()) < num_classes):
        raise DataError(
            f"Mask values run from {int(low.min())} to {int(high.max())}, allowed are 0 to "
            f"{num_classes - 1} ({num_classes} classes). Name the classes, or correct the masks."
        )
    codes = (pairs[0] * num_classes + pairs[1]).masked_fill_(~valid, num_classes**2)
    counts = torch.bincount(codes.flatten(), minlength=num_classes**2 + 1)[:-1]
    return counts.reshape(num_classes, num_classes)


@dataclass(frozen=True)
class LabelCounts:
    """Valid pixels of each class by truth (row: no, yes) and prediction (column), where classes may overlap.

    Class 0 is where no label is.
    """

    pixels: Int[Tensor, "classes 2 2"]

    def __add__(self, other: "LabelCounts") -> "LabelCounts":
        return LabelCounts(self.pixels + other.pixels)


Counts = Confusion | LabelCounts


def added(one: Counts, other: Counts) -> Counts:
    """Return the counts of both; they are of one kind."""
    if isinstance(one, LabelCounts):
        assert isinstance(other, LabelCounts)  # of one task
        return one + other
    assert not isinstance(other, LabelCounts)
    return one + other


def no_counts(num_classes: int, *, multilabel: bool) -> Counts:
    """Return counts of no picture at all."""
    if multilabel:
        return LabelCounts(torch.zeros(num_classes, 2, 2, dtype=torch.int64))
    return torch.zeros(num_classes, num_classes, dtype=torch.int64)


def counted(prediction: AnyMask, truth: AnyMask, valid: Region, num_classes: int) -> Counts:
    """Count the valid pixels of one image, whose classes exclude one another or may overlap.

    Raises:
        DataError: a valid pixel has a class that doesn't exist, or only one mask has overlapping classes.
    """
    if is_stack(prediction) != is_stack(truth):
        kinds = {True: "labels that may overlap", False: "one class a pixel"}
        raise DataError(
            f"The prediction has {kinds[is_stack(prediction)]}, the truth {kinds[is_stack(truth)]}. Data for "
            "a multilabel model are read with --multilabel, those for others without."
        )
    if is_stack(prediction):
        return label_counts(prediction, truth, valid)
    return confusion(prediction, truth, valid, num_classes)


def label_counts(prediction: Labels, truth: Labels, valid: Region) -> LabelCounts:
    """Count the valid pixels of each class of one image whose classes may overlap.

    Raises:
        DataError: the masks have different numbers of labels.
    """
    if len(prediction) != len(truth):
        raise DataError(
            f"The prediction has {len(prediction)} labels, the truth {len(truth)}. Name the model's classes."
        )
    found = []
    for index in range(len(truth) + 1):
        predicted, true = (of_class(mask, index, valid.ndim)[valid] for mask in (prediction, truth))
        both, yes, there = int((predicted & true).sum()), int(predicted.sum()), int(true.sum())
        found.append([[len(predicted) - yes - there + both, yes - both], [there - both, both]])
    return LabelCounts(torch.tensor(found, dtype=torch.int64))


def per_class(counts: Counts) -> dict[str, Float[Tensor, "*b classes"]]:
    """Return dice, iou, precision and recall of every class, in float64; NaN where a score is 0/0."""
    if isinstance(counts, LabelCounts):
        hits, true = counts.pixels[:, 1, 1].double(), counts.pixels[:, 1].sum(dim=-1).double()
        predicted = counts.pixels[:, :, 1].sum(dim=-1).double()
    else:
        hits = counts.diagonal(dim1=-2, dim2=-1).double()
        true, predicted = counts.sum(dim=-1).double(), counts.sum(dim=-2).double()
    return {
        "dice": 2 * hits / (true + predicted),
        "iou": hits / (true + predicted - hits),
        "precision": hits / predicted,
        "recall": hits / true,
    }


def scores(counts: Counts) -> dict[str, Float[Tensor, "*b"]]:
    """Return the scores of each confusion matrix, as `DEFINITIONS` says; NaN where one is not defined."""
    by_class = per_class(counts)
    foreground = {name: values[..., 1:].nanmean(dim=-1) for name, values in by_class.items()}
    if isinstance(counts, LabelCounts):
        none, total = counts.pixels[0, 1, 1], counts.pixels[0].sum()
        miou = accuracy = torch.tensor(torch.nan, dtype=torch.float64)
    else:
        none, total = counts[..., 0, 0], counts.sum(dim=(-2, -1))
        miou = by_class["iou"].nanmean(dim=-1)
        accuracy = counts.diagonal(dim1=-2, dim2=-1).sum(dim=-1).double() / total
    empty = (none == total) & (total > 0)
    return {
        "dice": foreground["dice"].masked_fill(empty, 1.0),
        "iou": foreground["iou"].masked_fill(empty, 1.0),
        "miou": miou,
        "pixel_accuracy": accuracy,
        "precision": foreground["precision"].masked_fill(empty, 1.0),
        "recall": foreground["recall"].masked_fill(empty, 1.0),
    }


OF_FOREGROUND = ("dice", "iou", "miou", "precision", "recall")
"""Scores that say nothing where no pixel is truly foreground."""


def pooled_scores(counts: Counts) -> dict[str, Float[Tensor, "*b"]]:
    """Return the scores of counts of many images; those of the foreground are NaN where none shows any."""
    found, shown = scores(counts), any(shows(counts))
    return {
        name: value if shown or name not in OF_FOREGROUND else value * nan for name, value in found.items()
    }


def num_pixels(counts: Counts) -> int:
    """Return how many pixels were counted."""
    return int(counts.pixels[0].sum() if isinstance(counts, LabelCounts) else counts.sum())


def shows(counts: Counts) -> list[bool]:
    """Return for each class but the background whether the truth has it: else its recall is 0/0."""
    return (~per_class(counts)["recall"][1:].isnan()).tolist()


def summary(values: PerImage, *, groups: Groups | None = None, seed: int = 0) -> dict[str, float | int]:
    """Return mean, std (n - 1), median, 95 % bootstrap interval of the mean, and the number of values.

    NaN values are left out. The interval is the percentile bootstrap (Efron 1979) over ``groups`` of images;
    of fewer than two low and high are NaN.
    """
    kept = values[~values.isnan()].double()
    found = interval(values, groups=groups, seed=seed)
    return {
        "mean": found.mean,
        "std": float(kept.std()) if found.num > 1 else float("nan"),
        "median": float(kept.quantile(0.5)) if found.num else float("nan"),
        "low": found.low,
        "high": found.high,
        "num": found.num,
        **known_groups(found),
    }

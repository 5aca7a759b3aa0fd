"""Scores of predicted masks against true ones, all from confusion counts; nothing is averaged unnamed.

A confusion matrix holds at ``[t, p]`` the number of valid pixels whose true class is t and whose predicted
class is p. `scores` of the sum over images are *pooled*; `scores` image by image are *per image*.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seglens.errors import DataError
from seglens.intervals import RESAMPLES, interval
from seglens.shapes import Mask, PerImage, Region

Confusion = Int[Tensor, "*b classes classes"]

DEFINITIONS = {
    "dice": "Dice: twice the overlap of prediction and truth over the sum of their areas, 2TP/(2TP+FP+FN), "
    "of the foreground; with several classes the mean over the foreground classes.",
    "iou": "IoU (Jaccard): overlap over union of prediction and truth, TP/(TP+FP+FN), of the foreground; "
    "with several classes the mean over the foreground classes.",
    "miou": "mIoU: the mean of the IoU over all classes, the background included.",
    "pixel_accuracy": "Pixel accuracy: the share of valid pixels whose predicted class is the true one; high "
    "wherever the background is large, whatever the model does.",
    "precision": "Precision: the share of the predicted foreground that is true, TP/(TP+FP); with several "
    "classes the mean over the foreground classes. Undefined, and left out, where nothing is predicted.",
    "recall": "Recall: the share of the true foreground that is predicted, TP/(TP+FN); with several "
    "classes the mean over the foreground classes. Undefined, and left out, where nothing is true.",
    "pooled": "Pooled: the pixels of all images are counted together before the score is taken, so that "
    "large objects weigh more.",
    "per_image": "Per image: the score is taken of each image, then averaged, so that every image weighs "
    "the same; 'num' is the number of images for which the score is defined.",
    "empty": "An image whose truth and prediction are both without foreground scores 1; a class that is in "
    "neither the truth nor the prediction of an image is left out of the image's mean over classes.",
    "interval": "Low and high: the 95 % percentile bootstrap interval of the per-image mean "
    f"({RESAMPLES} resamples of the images). It doesn't cover the choice of the training data or the seed.",
    "pixels": "Only valid pixels count (not padding, not pixels that the data set says to ignore), at the "
    "image's native resolution.",
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


def per_class(confusion: Confusion) -> dict[str, Float[Tensor, "*b classes"]]:
    """Return dice, iou, precision and recall of every class, in float64; NaN where a score is 0/0."""
    hits = confusion.diagonal(dim1=-2, dim2=-1).double()
    true, predicted = confusion.sum(dim=-1).double(), confusion.sum(dim=-2).double()
    return {
        "dice": 2 * hits / (true + predicted),
        "iou": hits / (true + predicted - hits),
        "precision": hits / predicted,
        "recall": hits / true,
    }


def scores(confusion: Confusion) -> dict[str, Float[Tensor, "*b"]]:
    """Return the scores of each confusion matrix, as `DEFINITIONS` says; NaN where one is not defined."""
    total = confusion.sum(dim=(-2, -1))
    foreground = {name: values[..., 1:].nanmean(dim=-1) for name, values in per_class(confusion).items()}
    empty = (confusion[..., 0, 0] == total) & (total > 0)
    return {
        "dice": foreground["dice"].masked_fill(empty, 1.0),
        "iou": foreground["iou"].masked_fill(empty, 1.0),
        "miou": per_class(confusion)["iou"].nanmean(dim=-1),
        "pixel_accuracy": confusion.diagonal(dim1=-2, dim2=-1).sum(dim=-1).double() / total,
        "precision": foreground["precision"].masked_fill(empty, 1.0),
        "recall": foreground["recall"].masked_fill(empty, 1.0),
    }


def summary(values: PerImage, *, seed: int = 0) -> dict[str, float | int]:
    """Return mean, std (n - 1), median, 95 % bootstrap interval of the mean, and the number of values.

    NaN values are left out. The interval is the percentile bootstrap (Efron 1979); of fewer than two values
    std, low and high are NaN.
    """
    kept = values[~values.isnan()].double()
    found = interval(kept, seed=seed)
    return {
        "mean": found.mean,
        "std": float(kept.std()) if found.num > 1 else float("nan"),
        "median": float(kept.quantile(0.5)) if found.num else float("nan"),
        "low": found.low,
        "high": found.high,
        "num": found.num,
    }

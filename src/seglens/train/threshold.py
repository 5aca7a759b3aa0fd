"""The thresholds of sigmoids, chosen on the valid split, as the best epoch is."""

from collections.abc import Mapping, Sequence
from functools import reduce
from math import isnan, nan
from operator import add
from statistics import fmean
from typing import TypedDict

from seglens.data.layout import Split
from seglens.evaluate.calibration import Thresholds, count_thresholds
from seglens.masks import of_class
from seglens.models.segmenter import ModelSpec
from seglens.predict.original import Inference, probabilities_at_original_size
from seglens.runs import Run, prepared
from seglens.runtime.threads import read_ahead


class Chosen(TypedDict):
    """A ``threshold`` with the pooled Dice there and at 0.5, and the split that it was chosen on."""

    split: str
    threshold: float
    dice: float
    dice_at_half: float


def best_thresholds(run: Run, split: Split, *, batch_size: int, precision: str) -> dict[str, Chosen]:
    """Return for each class but the background the threshold of the highest pooled Dice on ``split``.

    A sigmoid head has one such class, a multilabel head may have several, each with a threshold of its own.
    Measured as `seglens.evaluate` does: at native size, on valid pixels. A threshold where no pixel of the
    split is of the class says nothing, and is 0.5.
    """
    run = prepared(run, Inference(precision))
    labels = range(1, run.spec.outputs + 1)
    counts: list[list[Thresholds]] = [[] for _ in labels]
    pictures = read_ahead(lambda index: split[index], range(len(split)))
    waiting = []
    for position, sample in enumerate(pictures, start=1):
        waiting.append(sample)
        if len(waiting) == batch_size or position == len(split):
            found = probabilities_at_original_size(
                run.segmenter,
                [each.image for each in waiting],
                precision=precision,
                spacings=[each.spacing for each in waiting],
            )
            for probabilities, each in zip(found, waiting, strict=True):
                assert each.mask is not None
                for label, counted in zip(labels, counts, strict=True):
                    true = of_class(each.mask, label, each.valid.ndim).long()
                    counted.append(count_thresholds(probabilities[label], true, each.valid))
            counts, waiting = [[reduce(add, counted)] for counted in counts], []
    chosen: dict[str, Chosen] = {}
    for label, (total,) in zip(labels, counts, strict=True):
        threshold, dice = total.best()
        chosen[run.task.classes[label]] = {
            "split": split.name,
            "threshold": threshold,
            "dice": dice,
            "dice_at_half": total.dice(0.5),
        }
    return chosen


def together(chosen: Mapping[str, Chosen]) -> dict[str, float]:
    """Return Dice and IoU at the chosen thresholds, and Dice at 0.5: the means over the classes.

    They are what an evaluation of the split says at these thresholds; IoU of one class is ``D / (2 - D)``.
    """
    known = [each for each in chosen.values() if not isnan(each["dice"])]
    columns = {
        "dice": [each["dice"] for each in known],
        "iou": [each["dice"] / (2 - each["dice"]) for each in known],
        "dice_at_half": [each["dice_at_half"] for each in known],
    }
    return {name: fmean(values) if values else nan for name, values in columns.items()}


def with_thresholds(spec: ModelSpec, thresholds: Sequence[float]) -> ModelSpec:
    """Return ``spec`` with these thresholds, one for each output; a softmax makes no use of them."""
    if spec.head == "multilabel":
        return spec.model_copy(update={"thresholds": tuple(thresholds)})
    return spec.model_copy(update={"threshold": thresholds[0]})

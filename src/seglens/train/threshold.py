"""Temperature and thresholds, chosen on the valid split, as the best epoch is."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import isnan, nan
from statistics import fmean
from typing import Any, TypedDict

from jaxtyping import Float
from torch import Tensor

from seglens.data.layout import Split
from seglens.data.sample import Sample
from seglens.evaluate.calibration import Thresholds, count_thresholds
from seglens.evaluate.temperature import calibrated, pixels_of
from seglens.masks import of_class
from seglens.models.segmenter import ModelSpec, Segmenter
from seglens.predict.original import Inference, probabilities_at_original_size
from seglens.runs import Run, prepared
from seglens.runtime.threads import read_ahead
from seglens.train.recipe import TrainSettings

NO_TEMPERATURE = (
    "warning: no temperature can be found on {!r}: the best is at an end of what is looked for, as where all "
    "answers are right, or say nothing. Probabilities stay as they are. Use more pictures, or train longer."
)

NO_BETTER = (
    "warning: on {!r} no threshold of {} is better than to mark everything (Dice {:.3f}): nothing is "
    "learned yet. Train longer, or with another learning rate or loss."
)


class Chosen(TypedDict):
    """A ``threshold`` with the pooled Dice there and at 0.5, and the split that it was chosen on."""

    split: str
    threshold: float
    dice: float
    dice_at_half: float


Part = tuple[Run, Split]
"""A run and pictures that it has not learned from; of folds there are several."""


def settled(
    spec: ModelSpec, parts: Sequence[Part], settings: TrainSettings, *, name: str
) -> tuple[ModelSpec, dict[str, Any]]:
    """Return ``spec`` with temperature and thresholds as the settings ask, and what a record says of both.

    Both are found on ``parts`` together, whose runs all have ``spec``; ``name`` is what a record calls them.
    """
    results: dict[str, Any] = {}
    if settings.calibrate:
        pixels = [pixels_of(found, each, spec) for found, each in _predicted(parts, settings)]
        results["calibration"] = {"split": name, **calibrated(pixels)}
        if results["calibration"]["temperature"] == 1.0:
            print(NO_TEMPERATURE.format(name), file=sys.stderr)
        spec = spec.model_copy(update={"temperature": results["calibration"]["temperature"]})
        parts = [(_with_spec(run, spec), split) for run, split in parts]
    if settings.threshold is None and spec.head != "softmax":
        chosen = best_thresholds(parts, settings, name=name)
        spec = with_thresholds(spec, [each["threshold"] for each in chosen.values()])
        results["valid_at_threshold"] = together(chosen)
        if spec.head == "multilabel":
            results["thresholds"] = chosen
        else:
            (results["threshold"],) = chosen.values()
    return spec, results


def best_thresholds(parts: Sequence[Part], settings: TrainSettings, *, name: str) -> dict[str, Chosen]:
    """Return for each class but the background the threshold of the highest pooled Dice on ``parts``.

    A sigmoid head has one such class, a multilabel head may have several, each with a threshold of its own.
    Measured as `seglens.evaluate` does: at native size, on valid pixels. A threshold where no pixel
    is of the class says nothing, and is 0.5.
    """
    first = parts[0][0]
    labels = range(1, first.spec.outputs + 1)
    counts: list[Thresholds | None] = [None for _ in labels]
    for probabilities, each in _predicted(parts, settings):
        assert each.mask is not None
        for place, label in enumerate(labels):
            true = of_class(each.mask, label, each.valid.ndim).long()
            counted, before = count_thresholds(probabilities[label], true, each.valid), counts[place]
            counts[place] = counted if before is None else before + counted
    chosen: dict[str, Chosen] = {}
    for label, total in zip(labels, counts, strict=True):
        assert total is not None  # there is a picture
        threshold, dice = total.best()
        if dice <= float(total.curve()[0]):
            print(NO_BETTER.format(name, first.task.classes[label], dice), file=sys.stderr)
        chosen[first.task.classes[label]] = {
            "split": name,
            "threshold": threshold,
            "dice": dice,
            "dice_at_half": total.dice(0.5),
        }
    return chosen


def _predicted(
    parts: Sequence[Part], settings: TrainSettings
) -> Iterator[tuple[Float[Tensor, "classes *size"], Sample]]:
    """Yield every picture of ``parts`` with its probabilities at native size."""
    for given, split in parts:
        run = prepared(given, Inference(settings.precision))
        waiting: list[Sample] = []
        pictures = read_ahead(split.__getitem__, range(len(split)))
        for position, sample in enumerate(pictures, start=1):
            waiting.append(sample)
            if len(waiting) == settings.batch_size or position == len(split):
                found = probabilities_at_original_size(
                    run.segmenter,
                    [each.image for each in waiting],
                    precision=settings.precision,
                    spacings=[each.spacing for each in waiting],
                )
                yield from zip(found, waiting, strict=True)
                waiting = []


def _with_spec(run: Run, spec: ModelSpec) -> Run:
    return replace(run, segmenter=Segmenter(run.segmenter.module, spec).eval())


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

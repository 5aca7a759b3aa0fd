"""Which scores to read of data like these, and which mislead: rules that look at the truth alone.

After Maier-Hein, Reinke et al. (2024, Metrics Reloaded, Nature Methods 21) and Reinke, Tizabi et al. (2024,
Understanding metric-related pitfalls, Nature Methods 21). Of leaks: Kapoor, Narayanan (2023, Leakage and the
reproducibility crisis in machine-learning-based science, Patterns 4). Of choices: Cawley, Talbot (2010, On
over-fitting in model selection and subsequent selection bias, Journal of Machine Learning Research 11).
"""

from collections.abc import Mapping, Sequence
from math import inf, nan, pi

import numpy as np
import torch

from seglens.evaluate.intervals import interval, numbered
from seglens.evaluate.objects import Objects
from seglens.results.names import count
from seglens.results.scores import LEAKAGE, Advice, Emptiness, PictureScores

CHOICE = "Maier-Hein et al. 2024"
PITFALLS = "Reinke et al. 2024"
CENTRE = "Shit et al. 2021"
SELECTION = "Cawley, Talbot 2010"

TINY = 10
"""Pixels across below which an outline that is one pixel off costs a fifth of Dice or more."""

MANY = 3
"""Objects of a picture from which on they are instances to be counted."""

THIN = 10
"""Times longer than wide from which on a shape is thin."""

UNEVEN = 20
"""Largest over smallest foreground (90 % over 10 % quantile of areas) from which on sizes differ widely."""

RARE = 0.1
"""Share of the pixels below which foreground is rare."""


def emptiness(rows: Sequence[PictureScores]) -> Emptiness:
    """Count pictures without foreground, and return the mean Dice of those with true foreground."""
    truth, predicted = (
        [(row[name] or 0) > 0 for row in rows] for name in ("truth_pixels", "predicted_pixels")
    )
    pairs = list(zip(truth, predicted, strict=True))
    dice = [nan if row.dice is None or not true else row.dice for row, true in zip(rows, truth, strict=True)]
    values = torch.tensor(dice, dtype=torch.float64)
    return Emptiness(
        both=pairs.count((False, False)),
        no_truth=pairs.count((False, True)),
        nothing_predicted=pairs.count((True, False)),
        with_truth=sum(truth),
        dice=interval(values, groups=numbered([row.group for row in rows])).spread(),
    )


def advise(
    rows: Sequence[PictureScores],
    objects: Sequence[Mapping[str, Objects]],
    *,
    pixels: int,
    classes: Sequence[str],
    told_apart: bool,
    learned_from: int = 0,
    chosen_on: int = 0,
    chosen: Sequence[str] = (),
) -> tuple[Advice, ...]:
    """Return what to read and what misleads; ``pixels`` are all valid ones.

    The model has ``learned_from`` so many of the pictures, and what is ``chosen`` was chosen on so many.
    """
    counts = [sum(len(found.truth) for found in each.values()) for each in objects]
    areas = np.concatenate([found.truth for each in objects for found in each.values()] or [np.zeros(0)])
    shown = [row.truth_pixels or 0 for row in rows]
    what = count(len(rows), "volume" if any(row.classes for row in rows) else "picture")
    found = [
        *_learned(learned_from, what),
        *_chosen(chosen, chosen_on, what),
        *_thin(rows),
        *(_tiny(areas) if not any(row.classes for row in rows) else ()),  # sizes of volumes are in mm
        *_many(counts, told_apart),
        *_empty(shown),
        *_uneven(shown),
        *_rare(sum(shown), pixels),
    ]
    if len(classes) > 2:
        text = f"{len(classes) - 1} classes: their mean hides one that is missed; read each class."
        found.append(Advice(scores=("per_class",), read=True, text=text, source=CHOICE))
    return tuple(found)


def _learned(some: int, what: str) -> list[Advice]:
    if not some:
        return []
    text = f"the model was trained on {some} of these {what}: their scores say little about new ones."
    return [Advice(scores=("dice", "iou"), read=False, text=text, source=LEAKAGE)]


def _chosen(chosen: Sequence[str], some: int, what: str) -> list[Advice]:
    if not some or not chosen:
        return []
    listed = " and ".join(filter(None, [", ".join(chosen[:-1]), chosen[-1]]))
    were = "was" if len(chosen) == 1 else "were"
    text = (
        f"the model's {listed} {were} chosen on {some} of these {what}, to be best there: new ones may have "
        "lower scores."
    )
    scores = ("dice", "iou", *(("calibration",) if "temperature" in chosen else ()))
    return [Advice(scores=scores, read=False, text=text, source=SELECTION)]


def _thin(rows: Sequence[PictureScores]) -> list[Advice]:
    known = [
        row.elongation for row in rows if row.elongation is not None and row.elongation == row.elongation
    ]
    if not known or (times := float(np.median(known))) < THIN:
        return []
    shape = f"True shapes are {times:.0f} times longer than wide in the median"
    return [
        Advice(
            scores=("cldice",), read=True, text=f"{shape}: read clDice, which counts length.", source=CENTRE
        ),
        Advice(
            scores=("dice", "iou"),
            read=False,
            text=f"{shape}: Dice hardly notices a gap in a thin line, and punishes a width one pixel off.",
            source=PITFALLS,
        ),
    ]


def _tiny(areas: np.ndarray) -> list[Advice]:
    if not len(areas):
        return []
    radius = float(np.median(areas) / pi) ** 0.5
    if 2 * radius >= TINY:
        return []
    inner = max(radius - 1, 0.0) ** 2
    lost = 1 - 2 * inner / (inner + radius**2)
    size = f"Half of the true objects are {2 * radius:.1f} pixels across or less"
    return [
        Advice(
            scores=("dice", "iou", "boundary_iou"),
            read=False,
            text=f"{size}: an outline one pixel too narrow costs {lost:.0%} of Dice, whoever drew it.",
            source=PITFALLS,
        ),
        Advice(
            scores=("sensitivity", "precision", "f1"),
            read=True,
            text=f"{size}: read how many objects are found and invented, at an overlap of .1.",
            source=CHOICE,
        ),
    ]


def _many(counts: Sequence[int], told_apart: bool) -> list[Advice]:
    some = [count for count in counts if count]
    if not some or (not told_apart and np.median(some) < MANY):
        return []
    num = f"Pictures with objects have {np.median(some):.0f} in the median"
    return [
        Advice(
            scores=("f1", "panoptic_quality"),
            read=True,
            text=f"{num}: read F1 and panoptic quality, which count objects and not pixels.",
            source=CHOICE,
        ),
        Advice(
            scores=("dice", "hd95"),
            read=False,
            text=f"{num}: Dice hides small ones that are missed, and objects that are merged.",
            source=PITFALLS,
        ),
    ]


def _empty(shown: Sequence[int]) -> list[Advice]:
    num = sum(not pixels for pixels in shown)
    if not num:
        return []
    text = (
        f"{num} of {count(len(shown), 'picture')} have no true foreground: their Dice is 1 or 0 whatever "
        "the size of the error; read the pooled score, and invented objects a picture."
    )
    return [Advice(scores=("dice", "iou"), read=False, text=text, source=PITFALLS)]


def _uneven(shown: Sequence[int]) -> list[Advice]:
    some = [pixels for pixels in shown if pixels]
    low, high = np.quantile(some, (0.1, 0.9)) if some else (1, 1)
    times = high / low if low else inf
    if times < UNEVEN:
        return []
    text = (
        f"Foreground areas differ {times:.0f} times: pooled scores are those of the largest; read per image."
    )
    return [Advice(scores=("pooled",), read=False, text=text, source=PITFALLS)]


def _rare(true: int, pixels: int) -> list[Advice]:
    share = true / pixels if pixels else 1.0
    if share >= RARE:
        return []
    text = (
        f"{share:.1%} of the pixels are foreground: a model that finds nothing has a pixel accuracy of "
        f"{1 - share:.1%}, and mIoU is half background."
    )
    return [Advice(scores=("pixel_accuracy", "miou"), read=False, text=text, source=PITFALLS)]

"""Settings from the data: what a train split is like, and the settings that follow, each with its reason.

As nnU-Net does (Isensee et al. 2021), with rules that are few and stand here. They look at the data alone,
not at the machine: the same data give the same settings everywhere.
"""

from dataclasses import asdict, dataclass
from math import ceil
from statistics import median
from typing import Any

import numpy as np

from seglens.axes import num_pixels, sides_of
from seglens.data.groups import grouping_of
from seglens.data.intensity import FULL, found_window
from seglens.data.layout import Dataset, Split
from seglens.errors import DataError
from seglens.masks import foreground, is_stack, of_class
from seglens.models.zoo import architecture
from seglens.objects import pieces
from seglens.results.names import count
from seglens.train.recipe import TrainSettings

MOST = 200
"""Pictures that are looked at, spread evenly over the split."""

SMALLEST = 8
"""Pixels that the small objects (the smallest tenth) should keep across."""

LARGEST = 512
"""The largest input size that is chosen; a picture is not enlarged beyond what it has, up to the next 32."""

BATCH, STEPS_OF_EPOCH = 8, 4
"""The usual batch, and the steps that an epoch should have at least: with one step each the running average
of weights and batch norm's statistics lag behind."""

PIXELS = BATCH * 256**2
"""Pixels of a batch at most, except that a batch has two pictures."""

STEPS, EPOCHS = 1000, (20, 100)
"""Steps that a training should have, within these numbers of epochs."""

RARE = 0.01
"""Foreground below this share of the pixels is rare: cross-entropy is then nearly all about background."""


@dataclass(frozen=True)
class Fingerprint:
    """What a train split is like: lengths are in pixels (of volumes, voxels), medians over pictures.

    ``foreground`` is its share of all valid pixels that were looked at; ``objects`` are connected pieces,
    ``small_object`` the diameter of a disc (ball) with the area of the smallest tenth of them, and
    ``small_share`` that diameter over the longer side of its picture.
    """

    pictures: int
    groups: int
    looked_at: int
    size: tuple[int, ...]
    longest: int
    foreground: float
    objects: int
    small_object: float
    small_share: float
    window: tuple[float, float]


@dataclass(frozen=True)
class Choice:
    """A setting, its value, and why."""

    setting: str
    value: Any
    reason: str


def fingerprint(split: Split) -> Fingerprint:
    """Look at a train split.

    Raises:
        DataError: a picture can't be read or has no mask.
    """
    step = ceil(len(split) / MOST)
    shapes, diameters, shares = [], [], []
    marked = valid = 0
    for index in range(0, len(split), step):
        sample = split[index]
        if sample.mask is None:
            raise DataError(
                f"{split.entries[index].image} has no mask: training needs one for every picture."
            )
        dims, shape = sample.valid.ndim, tuple(sample.valid.shape)
        shapes.append(shape)
        marked += int((foreground(sample.mask, sample.valid.ndim) & sample.valid).sum())
        valid += int(sample.valid.sum())
        labels = len(sample.mask) if is_stack(sample.mask) else int(sample.mask.max())
        for label in range(1, labels + 1):
            areas = np.bincount(pieces(of_class(sample.mask, label, dims) & sample.valid).numpy().ravel())[1:]
            across = 2 * np.sqrt(areas / np.pi) if dims == 2 else np.cbrt(6 * areas / np.pi)
            diameters += across.tolist()
            shares += (across / max(shape)).tolist()
    return Fingerprint(
        pictures=len(split),
        groups=len(set(grouping_of(split).names)),
        looked_at=len(shapes),
        size=tuple(int(median(lengths)) for lengths in zip(*shapes, strict=True)),
        longest=int(median(max(shape) for shape in shapes)),
        foreground=marked / max(1, valid),
        objects=len(diameters),
        small_object=float(np.quantile(diameters, 0.1)) if diameters else 0.0,
        small_share=float(np.quantile(shares, 0.1)) if shares else 0.0,
        window=found_window(split),
    )


def usual_batch(pictures: int, world: int) -> int:
    """Return the batch size where nobody chose one: 8, or less where an epoch would have few steps.

    At least 2, and a multiple of ``world``, the number of devices.
    """
    wanted = min(BATCH, max(2, pictures // STEPS_OF_EPOCH))
    return max(world, wanted // world * world)


def with_usual(settings: TrainSettings, dataset: Dataset) -> TrainSettings:
    """Return the settings with input size and batch size that are usual, where none were asked for.

    Raises:
        UnknownNameError: there is no such model.
    """
    given, world = settings.model_fields_set, settings.devices * settings.num_nodes
    usual = {
        "image_size": architecture(settings.model).image_size,
        "batch_size": usual_batch(len(dataset.split("train")), world),
    }
    return settings.model_copy(update={name: value for name, value in usual.items() if name not in given})


def choose(settings: TrainSettings, found: Fingerprint, dataset: Dataset) -> tuple[Choice, ...]:
    """Return what follows from the fingerprint for the settings that nobody chose; those that were, stay."""
    given = settings.model_fields_set
    size = _size(settings, found)
    if "image_size" in given:
        size = Choice("image_size", settings.image_size, "")
    batch = _batch(settings, found, sides_of(size.value, len(found.size)))
    if "batch_size" in given:
        batch = Choice("batch_size", settings.batch_size, "")
    every = (size, batch, _epochs(found, int(batch.value)), _loss(settings, found, dataset), _window(found))
    return tuple(choice for choice in every if choice.setting not in given)


def completed(
    settings: TrainSettings, dataset: Dataset, *, shown: bool
) -> tuple[TrainSettings, dict[str, Any]]:
    """Return the settings with what nobody chose, and what the record says of choices by the data."""
    if not settings.auto:
        return with_usual(settings, dataset), {}
    found = fingerprint(dataset.split("train"))
    choices = choose(settings, found, dataset)
    if shown:
        for choice in choices:
            print(f"{choice.setting} = {choice.value}: {choice.reason}.")
    return with_choices(settings, choices), {"auto": recorded(found, choices)} if choices else {}


def with_choices(settings: TrainSettings, choices: tuple[Choice, ...]) -> TrainSettings:
    """Return the settings with what was chosen."""
    return settings.model_copy(update={choice.setting: choice.value for choice in choices})


def recorded(found: Fingerprint, choices: tuple[Choice, ...]) -> dict[str, Any]:
    """Return fingerprint and choices as they stand in a record."""
    return {"fingerprint": asdict(found), "choices": [asdict(choice) for choice in choices]}


def _size(settings: TrainSettings, found: Fingerprint) -> Choice:
    usual = architecture(settings.model).image_size
    if len(found.size) == 3:
        return Choice("image_size", usual, f"volumes: what is usual for {settings.model}")
    needed = SMALLEST / found.small_share if found.small_share else usual
    size = ceil(min(max(needed, usual), found.longest, LARGEST) / 32) * 32
    objects, small = count(found.objects, "object"), count(round(found.small_object), "pixel")
    across = f"the smallest tenth of {objects} is {small} across or less"
    kept = f"at this size they keep {found.small_share * size:.0f} of {SMALLEST} wanted"
    return Choice(
        "image_size", size, f"pictures are {found.longest} pixels long in the median; {across}; {kept}"
    )


def _batch(settings: TrainSettings, found: Fingerprint, sides: tuple[int, ...]) -> Choice:
    world = settings.devices * settings.num_nodes
    usual = usual_batch(found.pictures, world)
    room = PIXELS // num_pixels(sides)
    batch = max(world, min(usual, max(2, room)) // world * world)
    steps = ceil(found.pictures / batch)
    why = f"{count(found.pictures, 'picture')} make {count(steps, 'step')} an epoch"
    return Choice(
        "batch_size", batch, why + (f"; {batch} pictures of this size fit" if batch < usual else "")
    )


def _epochs(found: Fingerprint, batch: int) -> Choice:
    steps, (fewest, most) = ceil(found.pictures / batch), EPOCHS
    epochs = min(most, max(fewest, ceil(STEPS / steps)))
    bounds = f"wanted are {STEPS} or more, in {fewest} to {most} epochs"
    return Choice("epochs", epochs, f"{epochs} times {steps} are {count(epochs * steps, 'step')}; {bounds}")


def _loss(settings: TrainSettings, found: Fingerprint, dataset: Dataset) -> Choice:
    sums = "ce+dice" if len(dataset.task.classes) > 2 and not dataset.task.multilabel else "bce+dice"
    share = f"{found.foreground:.2%} of the pixels are foreground"
    weighted = settings.balanced or settings.class_weights is not None
    if found.foreground < RARE and not weighted:
        why = "cross-entropy would be nearly all about background, and a miss weighs more than an invention"
        return Choice("loss", "tversky", f"{share}: {why} (Salehi et al. 2017)")
    why = "which class weights make up for" if weighted else "enough for cross-entropy beside Dice"
    return Choice("loss", sums, f"{share}, {why}")


def _window(found: Fingerprint) -> Choice:
    low, high = found.window
    if len(found.size) == 3:
        return Choice("window", "auto", "volumes: as their reader maps them")
    used = "a quarter or more" if found.window == FULL else f"{low:.1%} to {high:.1%}"
    return Choice("window", "auto", f"pictures use {used} of the intensities that their files can hold")

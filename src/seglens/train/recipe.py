"""The settings of a training, and the model that they and the data describe."""

from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from seglens.arguments.validated import Validated
from seglens.axes import InputSize
from seglens.data.from_torch import LAYOUT as TORCH
from seglens.data.intensity import bounds, read_window
from seglens.data.layout import Dataset, DataSettings, Split
from seglens.data.transforms import DEFAULT_POLICY
from seglens.errors import SettingError
from seglens.models.dimensions import FOR
from seglens.models.spec import ModelSpec, Normalise, complete, whole_numbers
from seglens.models.zoo import MODELS, architecture, normalisation
from seglens.results.record import Record

MAY_DIFFER = ("device", "workers", "loggers", "compile", "halve_batch")
"""Settings that a resumed training may change: they decide where it runs, not what comes out."""


class TrainSettings(Validated):
    """How to train. What is None is chosen by the model, its weights, the data or the machine.

    A value outside of what is allowed raises a SettingError of one line.

    ``encoder_weights`` is ``imagenet``, ``none`` or a file. With ``patch_scale`` the model learns from
    patches of ``image_size``, cut from pictures brought to this scale: pixels for each pixel of the file (1
    is the file's own), of volumes voxels for each millimetre. ``image_size`` is the length of every side of
    an input, or of each: rows and columns, of volumes slices before them. ``batch_size`` counts the pictures
    of a step over all devices; left out it is 8, or so few that an epoch has four steps (2 at least). With
    ``auto`` image size, batch size, epochs, loss and window follow from the train split where they are left
    out, see `seglens.train.fingerprint`. ``encoder_rate`` multiplies the learning rate of the encoder, which
    is not trained at all in the first ``freeze_encoder`` epochs. ``schedule`` is a key of ``SCHEDULES``;
    ``clip`` bounds the norm of the gradient. ``ema`` is the decay of the running average of the weights,
    which is what is validated and kept (None: by the number of steps; 0: no average). ``class_weights`` has a
    number for every class, the background first; with ``balanced`` they follow from the training masks.
    ``threshold`` is that of a sigmoid head, or of every label (None: chosen on the valid split).
    ``calibrate`` finds the temperature of probabilities there. ``augment`` varies the pictures at random, by
    turns of up to ``rotation`` degrees among others, and with ``vertical_flips`` upside down too.
    ``patience`` is the number of epochs without a better Dice on the valid split after which training stops;
    ``keep_every`` K keeps the weights of every K-th epoch. ``workers`` is the number of processes that
    augment, for each device. ``loggers`` are keys of ``LOGGERS`` (None: the first). ``halve_batch`` halves
    the batches of a step until they fit into memory. ``window`` is which intensities are mapped to [0, 1]:
    ``auto`` (found on the train split, see `seglens.data.intensity`), ``full``, or ``LOW,HIGH`` as the files
    hold them. ``normalise`` is by the ``mean`` and ``std`` of the data, or by those of each ``image`` itself.
    """

    model: str = "unet"
    encoder: str | None = None
    encoder_weights: str | None = None
    width: int | None = Field(default=None, ge=1, le=1024)
    image_size: Annotated[InputSize, whole_numbers(16, 8192)] = 256
    patch_scale: float | None = Field(default=None, gt=0, le=1000, allow_inf_nan=False)
    epochs: int = Field(default=20, ge=1, le=10**6)
    batch_size: int = Field(default=8, ge=1, le=2**16)
    learning_rate: float = Field(default=1e-3, gt=0, allow_inf_nan=False)
    encoder_rate: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    freeze_encoder: int = Field(default=0, ge=0, le=10**6)
    schedule: Literal["cosine", "one-cycle", "constant"] = "cosine"
    weight_decay: float = Field(default=1e-4, ge=0, allow_inf_nan=False)
    clip: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    ema: float | None = Field(default=None, ge=0, lt=1)
    loss: str | None = None
    class_weights: tuple[float, ...] | None = None
    balanced: bool = False
    threshold: float | None = Field(default=None, gt=0, lt=1)
    calibrate: bool = False
    auto: bool = False
    augment: bool = False
    vertical_flips: bool = False
    rotation: float = Field(default=DEFAULT_POLICY.rotation[1], ge=0, le=180)
    precision: str = "auto"
    device: str = "auto"
    devices: int = Field(default=1, ge=1, le=1024)
    num_nodes: int = Field(default=1, ge=1, le=4096)
    compile: bool = False
    halve_batch: bool = False
    seed: int = Field(default=0, ge=0, lt=2**32)
    workers: int | None = Field(default=None, ge=0, le=256)
    patience: int | None = Field(default=None, ge=1, le=10**6)
    keep_every: int | None = Field(default=None, ge=1, le=10**6)
    loggers: tuple[str, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    window: str = "auto"
    normalise: Normalise = "dataset"

    def _agree(self) -> None:
        _refuse_contradictions(self)


def _refuse_contradictions(settings: TrainSettings) -> None:
    weights, world = settings.class_weights, settings.devices * settings.num_nodes
    if settings.balanced and weights is not None:
        raise SettingError("class_weights and balanced are both given: give one of them.")
    if weights is not None and (not all(0 <= weight < inf for weight in weights) or not any(weights)):
        raise SettingError(
            f"Class weights must be finite and not negative, nor all of them 0; received {weights}."
        )
    if settings.vertical_flips and not settings.augment:
        raise SettingError("vertical_flips is a part of augmentation: ask for augment too, or leave it out.")
    if settings.rotation != DEFAULT_POLICY.rotation[1] and not settings.augment:
        raise SettingError("rotation is a part of augmentation: ask for augment too, or leave it out.")
    if settings.patch_scale is not None and settings.normalise == "image":
        raise SettingError(
            "With patch_scale pictures are cut into patches, and with normalise 'image' every patch would be "
            "normalised by itself. Normalise by the dataset, or leave patch_scale out."
        )
    if settings.window not in ("auto", "full"):
        bounds(settings.window)
    if settings.normalise == "image" and (settings.mean is not None or settings.std is not None):
        raise SettingError(
            "mean and std are those of the data, but normalise is 'image': each picture's own are taken. "
            "Leave mean and std out, or normalise by the dataset."
        )
    if (settings.mean is None) != (settings.std is None):
        given, other = ("mean", "std") if settings.std is None else ("std", "mean")
        raise SettingError(f"{given} is given without {other}, and belongs to it. Give both, or neither.")
    if not settings.auto and settings.keep_every is not None and settings.keep_every > settings.epochs:
        raise SettingError(
            f"keep_every is {settings.keep_every}, and there are {settings.epochs} epochs: nothing "
            f"would be kept. Allowed are 1 to {settings.epochs}, or leave it out."
        )
    if settings.batch_size % world:
        raise SettingError(
            f"A batch of {settings.batch_size} pictures can't be shared evenly by {world} devices: choose a "
            f"multiple of {world}."
        )


def describe_model(settings: TrainSettings, dataset: Dataset) -> ModelSpec:
    """Return the spec of the model that is asked for, with head, window and normalisation as the data need.

    Raises:
        UnknownNameError: there is no such model or encoder.
        SettingError: it can't be described so.
    """
    channels, num_classes = dataset.settings.channels, len(dataset.task.classes)
    _refuse_other_axes(settings.model, dataset)
    if settings.threshold is not None and num_classes > 2 and not dataset.task.multilabel:
        raise SettingError(
            f"A threshold of {settings.threshold:g} is given for {num_classes} classes that exclude one "
            "another: each pixel is of the most probable one. A threshold would do nothing. Leave it out."
        )
    described: dict[str, Any] = {
        "architecture": settings.model,
        "encoder": settings.encoder,
        "width": settings.width,
        "channels": channels,
        "dims": architecture(settings.model).dims,
        "classes": num_classes,
        "head": "multilabel" if dataset.task.multilabel else "sigmoid" if num_classes == 2 else "softmax",
        "image_size": settings.image_size,
        "window": read_window(settings.window, _learned_from(dataset)),
        "intensities": dataset.settings.intensities or (),
        "normalise": settings.normalise,
        "scale": settings.patch_scale,
        "patches": settings.patch_scale is not None,
    } | ({} if settings.threshold is None else {"threshold": settings.threshold})
    plain = complete(ModelSpec(**described, mean=(0.0,) * channels, std=(1.0,) * channels))
    mean, std = plain.mean, plain.std
    if settings.normalise == "dataset":
        mean, std = normalisation(plain.encoder, settings.encoder_weights, channels)
    return ModelSpec(**{**plain.model_dump(), "mean": settings.mean or mean, "std": settings.std or std})


def _learned_from(dataset: Dataset) -> Split:
    """Return the pictures whose intensities decide: of one fold those of all, which must agree."""
    if dataset.settings.fold is None:
        return dataset.split("train")
    train, valid = dataset.split("train"), dataset.split("valid")
    entries = sorted((*train.entries, *valid.entries), key=lambda entry: entry.name)
    return replace(train, entries=tuple(entries))


def _refuse_other_axes(model: str, dataset: Dataset) -> None:
    """Raise where the model is for pictures and the data are volumes, or the other way round."""
    dims = dataset.split("train").dims
    if architecture(model).dims == dims:
        return
    takes, are = (FOR[each] for each in (architecture(model).dims, dims))
    fitting = ", ".join(name for name, each in MODELS.items() if each.dims == dims)
    slices = ", or write their slices as pictures with 'seglens data slices'" if dims == 3 else ""
    raise SettingError(
        f"The model {model} is for {takes}, and {dataset.settings.path} holds {are}. Train one of "
        f"{fitting}{slices}."
    )


def refuse_other_settings(record: Record, settings: TrainSettings, dataset: Dataset, folder: Path) -> None:
    """Raise where the training that ``record`` tells of can't be resumed as asked.

    Raises:
        SettingError: it was another one; the message names the first setting that differs.
    """
    if record.kind != "train":
        raise SettingError(f"{folder} was made by 'seglens {record.kind}': only a training can be resumed.")
    pairs = {
        # By way of the settings: what a run of before doesn't tell of is the default.
        "the setting": (
            TrainSettings.model_validate(record.settings).model_dump(mode="json"),
            settings.model_dump(mode="json"),
        ),
        "the data setting": (
            DataSettings.model_validate(record.data.stored()).model_dump(mode="json") if record.data else {},
            dataset.settings.model_dump(mode="json"),
        ),
    }
    if record.data is None and dataset.layout == TORCH:
        del pairs["the data setting"]
    for kind, (before, now) in pairs.items():
        for name in now:
            if name not in (*MAY_DIFFER, "path") and before.get(name) != now[name]:
                raise SettingError(
                    f"{folder} was begun with {kind} {name} = {before.get(name)!r}, received {now[name]!r}. "
                    "Leave data and flags out to resume it as it was begun, or train into another folder."
                )

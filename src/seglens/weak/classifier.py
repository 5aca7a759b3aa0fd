"""A classifier of the user's own pictures, object or none, trained on image-level labels and nothing else.

It is one of timm's networks, pretrained or not, with one output on its globally pooled features, and needs
pictures without the object: what all pictures share can't be told from the object. Training can be stopped
and taken up again; the result is a folder that `open_classifier` makes a `ClassifierScore` of.
"""

import json
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from seglens.arguments import check_range
from seglens.data.layout import Split
from seglens.data.transforms import augment, letterbox, sample_generator
from seglens.errors import DataError, OutputExistsError, SettingError, TrainingError
from seglens.files.output import new_file
from seglens.models.encoders import pretrained_normalisation
from seglens.models.weights import load_weights, save_weights
from seglens.results import record as records
from seglens.runtime.progress import track
from seglens.runtime.threads import read_ahead
from seglens.shapes import Images, Scores
from seglens.weak.classifier_score import ClassifierScore, classifier_network
from seglens.weak.labels import Labelled

WEIGHTS = "classifier.safetensors"
CHECKPOINT = "last.safetensors"
"""Weights and optimizer after the last whole epoch, while training goes on."""

SETTINGS = "classifier.json"

Logits = Float[Tensor, " b"]


@dataclass(frozen=True)
class ClassifierSettings:
    """How the classifier is trained; ``weights`` are ``imagenet``, ``none`` or a file.

    Pictures are letterboxed to ``image_size``. Every batch has as many pictures with the object as without,
    so that a rare label is learned as well. ``valid_share`` of either kind is held out to measure how often
    the classifier is right, and for nothing else.
    """

    encoder: str = "tf_efficientnet_lite0"
    weights: str = "imagenet"
    image_size: int = 160
    epochs: int = 8
    batch_size: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    valid_share: float = 0.2

    def __post_init__(self) -> None:
        if min(self.image_size, self.epochs, self.learning_rate) <= 0 or self.batch_size < 2:
            raise SettingError(
                f"The settings of the classifier can't be used: image_size {self.image_size}, epochs "
                f"{self.epochs}, batch_size {self.batch_size}, learning_rate {self.learning_rate}. All must "
                "be above 0, and batch_size at least 2."
            )
        for name, most in (("image_size", 2**13), ("epochs", 10**6), ("batch_size", 2**16)):
            check_range(name, getattr(self, name), 1, most)
        check_range("learning_rate", self.learning_rate, 0, 10**6)
        check_range("weight_decay", self.weight_decay, 0, 10**6)
        if not 0 <= self.valid_share < 1:
            raise SettingError(f"valid_share is {self.valid_share}. It must be at least 0 and below 1.")


DEFAULT = ClassifierSettings()


@dataclass(frozen=True)
class Parted:
    """The numbers of the pictures with and without the object that train, and those that are held out."""

    positive: tuple[int, ...]
    negative: tuple[int, ...]
    held_out: tuple[int, ...]


def train_classifier(
    labelled: Labelled,
    folder: Path,
    *,
    device: torch.device,
    seed: int,
    settings: ClassifierSettings = DEFAULT,
) -> dict[str, object]:
    """Train a classifier on image-level labels; return, and write to ``run.json``, how often it is right.

    A call with the same settings goes on after the last whole epoch; after the last epoch it only reads.
    Where an ``epoch`` begins, order and augmentation follow from ``seed`` alone, so a resumed training gives
    the same weights.

    Raises:
        DataError: all pictures have the same label, or there are too few of one to hold any out.
        OutputExistsError: ``folder`` holds a classifier of other settings or other pictures.
        TrainingError: the loss is not finite.
        CheckpointError, ModelError, UnknownNameError: see `seglens.weak.classifier_score.classifier_network`.
    """
    parted = part(labelled, settings.valid_share, seed)
    about = {**asdict(settings), "seed": seed, "pictures": _fingerprint(labelled)}
    _same_or_new(folder, about)
    if (folder / WEIGHTS).is_file() and (folder / records.FILE_NAME).is_file():
        return records.read_record(folder).results
    folder.mkdir(parents=True, exist_ok=True)
    records.write_json(folder / SETTINGS, about)
    record = records.start("weak-classifier", seed=seed, device=str(device), settings=about)
    began = time.monotonic()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        network = classifier_network(settings.encoder, settings.weights, num_outputs=1)
        classifier = _classifier_score(network.to(device), settings, labelled.split.name)
        history = _fit(classifier, labelled, parted, settings, folder, seed)
    classifier.network.eval().requires_grad_(False)
    results = {
        "train": {"object": len(parted.positive), "none": len(parted.negative)},
        "held_out": measure_classifier(classifier, labelled.select(parted.held_out), settings.image_size),
        "loss": history,
    }
    with new_file(folder / WEIGHTS, force=True) as temporary:
        save_weights(classifier.network, temporary)
    (folder / CHECKPOINT).unlink(missing_ok=True)
    records.finish(record, began, results=results).write(folder)
    return results


def open_classifier(folder: Path, *, device: torch.device) -> ClassifierScore:
    """Return the classifier that `train_classifier` wrote, ready to be asked where the object is.

    Raises:
        DataError: the folder holds no classifier, or training was not finished.
        CheckpointError: its weights are damaged.
    """
    if not (folder / WEIGHTS).is_file() or not (folder / SETTINGS).is_file():
        what = (
            "training was stopped before its end"
            if (folder / CHECKPOINT).is_file()
            else "there is none in it"
        )
        raise DataError(
            f"{folder} holds no classifier that can be used: {what}. Train one on image-level labels first."
        )
    about = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    known = {name: about[name] for name in ClassifierSettings.__dataclass_fields__}
    settings = ClassifierSettings(**known)
    network = classifier_network(settings.encoder, "none", num_outputs=1)
    load_weights(network, folder / WEIGHTS)
    return _classifier_score(network.to(device), settings, "train")


def part(labelled: Labelled, valid_share: float, seed: int) -> Parted:
    """Hold out a share of the pictures of either label, drawn by ``seed``.

    Raises:
        DataError: a label has no picture left to train on.
    """
    generator = torch.Generator().manual_seed(seed)
    train: dict[bool, list[int]] = {}
    held_out: list[int] = []
    for there in (True, False):
        numbers = [index for index, label in enumerate(labelled.present) if label is there]
        order = [numbers[place] for place in torch.randperm(len(numbers), generator=generator).tolist()]
        num_held = round(valid_share * len(order))
        held_out += order[:num_held]
        train[there] = sorted(order[num_held:])
    if not train[True] or not train[False]:
        raise DataError(
            f"A classifier learns from pictures with the object and pictures without it. Here are "
            f"{len(train[True])} with it and {len(train[False])} without it. Add pictures of the kind that "
            "is missing, cut the pictures into tiles, or take an ImageNet classifier instead."
        )
    return Parted(tuple(train[True]), tuple(train[False]), tuple(sorted(held_out)))


def measure_classifier(
    classifier: ClassifierScore, labelled: Labelled, image_size: int
) -> dict[str, float | int | None]:
    """Return how often the classifier is right: balanced accuracy at 0, and the area under the ROC.

    The area is the share of pairs of a picture with and one without the object that the score puts in order,
    ties counting half (Mann and Whitney 1947). None where one of the labels is missing.
    """
    scores = _scores(classifier, labelled.split, image_size)
    there = torch.tensor(labelled.present, dtype=torch.bool)
    yes, no = scores[there], scores[~there]
    if not len(yes) or not len(no):
        return {"num": len(labelled), "balanced_accuracy": None, "area_under_roc": None}
    pairs = yes[:, None] - no[None, :]
    return {
        "num": len(labelled),
        "balanced_accuracy": float(((yes > 0).double().mean() + (no <= 0).double().mean()) / 2),
        "area_under_roc": float(((pairs > 0).double() + (pairs == 0).double() / 2).mean()),
    }


def _fit(
    classifier: ClassifierScore,
    labelled: Labelled,
    parted: Parted,
    settings: ClassifierSettings,
    folder: Path,
    seed: int,
) -> list[float]:
    """Train for all epochs that are left; return the mean loss of each.

    The loop is written out: there is no mixed precision, validation or second device, and a Lightning module,
    data module and checkpoint callback for the same 25 lines would be longer.
    """
    network = classifier.network.requires_grad_(True)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    history = read_state(network, optimizer, folder / CHECKPOINT)
    steps = max(1, round(2 * max(len(parted.positive), len(parted.negative)) / settings.batch_size))
    for epoch in range(len(history), settings.epochs):
        network.train()
        batches = [_batch(parted, settings.batch_size, seed, epoch, step) for step in range(steps)]
        total = 0.0
        for step, (images, truth) in enumerate(
            read_ahead(
                partial(_read, labelled, size=settings.image_size, seed=seed, epoch=epoch),
                track(batches, total=steps, what=f"classifier, epoch {epoch + 1} of {settings.epochs}"),
                threads=2,
            )
        ):
            for group in optimizer.param_groups:
                # A tenth of all steps up, then down along half a cosine.
                group["lr"] = settings.learning_rate * _slope(
                    (epoch * steps + step + 1) / (settings.epochs * steps)
                )
            logits = classifier.score(classifier.outputs(images.to(_device(network))))
            loss = F.binary_cross_entropy_with_logits(logits, truth.to(logits))
            if not loss.isfinite():
                raise TrainingError(
                    f"The classifier's loss is {float(loss.detach())} in epoch {epoch + 1}. Lower the "
                    f"learning rate ({settings.learning_rate})."
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += float(loss.detach())
        history.append(total / steps)
        write_state(network, optimizer, history, folder / CHECKPOINT)
    return history


def _batch(parted: Parted, size: int, seed: int, epoch: int, step: int) -> list[int]:
    """Return the pictures of one step: half of them show the object. The rarer label comes round again."""
    drawn = []
    for kind, numbers in enumerate((parted.positive, parted.negative)):
        half = size // 2
        order = torch.cat(
            [
                torch.randperm(len(numbers), generator=sample_generator(seed, epoch * 1000 + turn, kind))
                for turn in range((step + 1) * half // len(numbers) + 1)
            ]
        )
        drawn += [numbers[place] for place in order[step * half : (step + 1) * half].tolist()]
    return drawn


def _read(
    labelled: Labelled, batch: list[int], *, size: int, seed: int, epoch: int
) -> tuple[Images, Float[Tensor, " b"]]:
    samples = [
        augment(letterbox(labelled.split[index], size)[0], sample_generator(seed, epoch, index))
        for index in batch
    ]
    truth = torch.tensor([float(labelled.present[index]) for index in batch])
    return torch.stack([sample.image for sample in samples]), truth


def _scores(classifier: ClassifierScore, split: Split, size: int) -> Scores:
    """Return the score of every picture, letterboxed; none for none."""
    found = []
    with torch.no_grad():
        for sample in read_ahead(split.__getitem__, range(len(split))):
            image = letterbox(sample, size)[0].image.to(_device(classifier.network))
            found.append(classifier.score(classifier.outputs(image[None])).cpu())
    return torch.cat(found) if found else torch.zeros(0)


def _slope(share: float) -> float:
    up = min(1.0, share / 0.1)
    return up * (1 + float(torch.cos(torch.tensor(torch.pi * share)))) / 2


def _classifier_score(network: nn.Module, settings: ClassifierSettings, split: str) -> ClassifierScore:
    mean, std = pretrained_normalisation(f"tu-{settings.encoder}")
    about = (
        f"{settings.encoder}, begun with the weights {settings.weights!r}, trained on image-level labels "
        f"(object or none) of the {split} split."
    )
    return ClassifierScore(network, (0,), mean, std, about)


def _fingerprint(labelled: Labelled) -> str:
    """Return a hash of the names and labels."""
    import hashlib

    pairs = [
        (entry.name, there) for entry, there in zip(labelled.split.entries, labelled.present, strict=True)
    ]
    return hashlib.sha256(repr(pairs).encode()).hexdigest()


def _same_or_new(folder: Path, about: dict[str, Any]) -> None:
    file = folder / SETTINGS
    if not file.is_file():
        return
    before = json.loads(file.read_text(encoding="utf-8"))
    differing = [name for name in about if before.get(name) != about[name]]
    if differing:
        raise OutputExistsError(
            f"{folder} holds a classifier that was trained with other settings: {differing[0]} was "
            f"{before.get(differing[0])!r} and is now {about[differing[0]]!r}. Name another folder, or "
            "delete this one."
        )


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


def write_state(
    network: nn.Module, optimizer: torch.optim.Optimizer, history: list[float], file: Path
) -> None:
    """Write weights, the optimizer's state and the losses so far, whole or not at all."""
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": torch.as_tensor(value) for name, value in state.items()}
    with new_file(file, force=True) as temporary:
        save_file(
            {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()},
            temporary,
            metadata={"loss": json.dumps(history)},
        )


def read_state(network: nn.Module, optimizer: torch.optim.Optimizer, file: Path) -> list[float]:
    """Read what `write_state` wrote, where there is one; return the losses so far."""
    if not file.is_file():
        return []
    try:
        with safe_open(file, "pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}
            history = [float(loss) for loss in json.loads(opened.metadata()["loss"])]
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{file} can't be read: {error}. Delete this file; the training then starts again."
        ) from error
    try:
        network.load_state_dict(
            {name.removeprefix("network."): tensors[name] for name in tensors if name[0] == "n"}
        )
    except RuntimeError as error:
        raise DataError(
            f"{file} holds the state of another network. Delete it; the training then starts again."
        ) from error
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, number, key = name.split(".")
            state.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return history

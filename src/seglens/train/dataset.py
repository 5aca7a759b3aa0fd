"""Training samples: resized, kept in memory, in an order that seed and epoch decide; and their batches."""

import os
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from seglens.axes import CHANNELS_LAST, InputSize, size_of
from seglens.data.frame import Frame, scaled_frame
from seglens.data.intensity import FULL
from seglens.data.layout import Dataset as DataSet
from seglens.data.layout import Split
from seglens.data.sample import Sample
from seglens.data.transforms import (
    ANY_WAY_UP,
    DEFAULT_POLICY,
    Batch,
    Policy,
    augment_within,
    collate,
    letterbox,
    placed_on,
    sample_generator,
)
from seglens.errors import DataError
from seglens.masks import class_pixels, is_stack
from seglens.models.segmenter import ModelSpec
from seglens.runtime.progress import track
from seglens.runtime.threads import read_ahead
from seglens.train.patches import covering, drawn, marked_places, number_in
from seglens.train.recipe import TrainSettings

MEMORY = 2 << 30
"""Bytes of pictures that a split may keep in memory."""

ROUNDING = 1e-3
"""How far kept intensities may be off, as a share of the window, or of what the picture uses of it."""

BLANK = -1
"""The index of a sample without any valid pixel, which counts for nothing."""


def training_batches(
    dataset: "TrainingDataset", *, batch_size: int, workers: int, part: "Part | None" = None, splits: int = 1
) -> DataLoader[Sample]:
    """Return the batches to train on: shuffled, augmented in ``workers`` processes.

    A step's ``batch_size`` pictures are shared by the processes (``part`` is this one's) and then come in
    ``splits`` smaller batches.
    """
    part = part or Part()
    # Whole numbers: settings and halving see to that.
    size = batch_size // part.of // splits
    return DataLoader(
        dataset,
        batch_size=size,
        sampler=Shuffled(len(dataset), batch_size=batch_size, seed=dataset.seed, part=part, splits=splits),
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        # Forked workers share the pictures in memory, spawned ones copy them.
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
    )


def validation_batches(
    dataset: "TrainingDataset", *, batch_size: int, part: "Part | None" = None
) -> DataLoader[Sample]:
    """Return this process's batches to validate on, as they are and in order.

    Every process has equally many pictures: where the number doesn't divide, `TrainingDataset.blank` fills
    up.
    """
    part = part or Part()
    keys = [(0, index) for index in range(part.index, len(dataset), part.of)]
    keys += [(0, BLANK)] * (-(-len(dataset) // part.of) - len(keys))
    return DataLoader(dataset, batch_size=max(1, batch_size // part.of), sampler=keys, collate_fn=collate)


@dataclass(frozen=True)
class Part:
    """The place of this process among those that train together."""

    index: int = 0
    of: int = 1


class TrainingDataset(Dataset[Sample]):
    """The samples of a split, letterboxed to ``size``; asked for by ``(epoch, index)``.

    The epoch is part of the key, so that augmentation depends on (seed, epoch, index) alone: not on the
    order, on the number of worker processes, or on an interruption of the training.

    With ``patch_scale`` they are patches of pictures brought to that scale (pixels for each pixel of the
    file, of volumes for each millimetre), of every picture as many as cover it: drawn at random, or those
    that cover it where ``in_order``. Then each pixel of a picture is valid in one patch.
    """

    split: Split
    size: InputSize
    seed: int
    policy: Policy | None
    memory: int
    window: tuple[float, float]
    patch_scale: float | None
    in_order: bool

    def __init__(
        self,
        split: Split,
        *,
        size: InputSize,
        seed: int = 0,
        policy: Policy | None = None,
        window: tuple[float, float] = (0.0, 1.0),
        memory: int = MEMORY,
        patch_scale: float | None = None,
        in_order: bool = False,
    ):
        self.split, self.size, self.seed, self.policy, self.memory = split, size, seed, policy, memory
        self.window, self.patch_scale, self.in_order = window, patch_scale, in_order
        self._patches: list[tuple[int, int]] = []
        self._last: tuple[int, _Packed] | None = None
        self._kept: list[_Packed] = []
        self.scales: list[float] = []

    def preload(self) -> None:
        """Read the pictures once, as many as fit into ``memory``, so that a broken one is named at once.

        Raises:
            DataError: a picture can't be read or has no mask.
        """
        room = self.memory
        pictures = read_ahead(self._read, range(len(self.split)))
        for index, packed in enumerate(
            track(pictures, total=len(self.split), what=f"reading {self.split.name}")
        ):
            self.scales.append(packed.scale)
            room -= packed.num_bytes
            if room >= 0:
                self._kept.append(packed)
            elif self.patch_scale is None:
                break
            # Of patches the sizes of all pictures say how many there are.
            if self.patch_scale is not None:
                num = number_in(size_of(packed.valid, 0), self.size)
                self._patches += [(index, place) for place in range(num)]

    @property
    def scale(self) -> float:
        """Pixels on the input grid per native pixel (or millimetre), of the median of the pictures read."""
        return sorted(self.scales)[len(self.scales) // 2]

    def class_pixels(self, num_classes: int) -> Int[Tensor, "classes"]:
        """Count the valid pixels of every class; what is not in memory is read for it."""
        counts = torch.zeros(num_classes, dtype=torch.int64)
        for index in range(len(self.split)):
            sample = self._packed(index).unpack()
            assert sample.mask is not None
            counts += class_pixels(sample.mask, sample.valid, num_classes)
        return counts

    def shown(self, num_classes: int) -> set[int]:
        """Return the classes that pictures show at this size, 0 too; reading stops where all were seen."""
        found: set[int] = set()
        for index in range(len(self.split)):
            if len(found) == num_classes:
                break
            sample = self._packed(index).unpack()
            assert sample.mask is not None
            counts = class_pixels(sample.mask, sample.valid, num_classes)
            found |= set(counts.nonzero()[:, 0].tolist())
        return found

    def blank(self) -> Sample:
        """Return a sample of the right shape that counts for nothing."""
        like = self._unvaried(0, 0)
        assert like.mask is not None
        return Sample("", like.image * 0, torch.zeros_like(like.mask), like.valid & False)

    def __len__(self) -> int:
        return len(self.split) if self.patch_scale is None else len(self._patches)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        if index == BLANK:
            return self.blank()
        sample = self._unvaried(epoch, index)
        if self.policy is None:
            return sample
        return augment_within(self.window, sample, sample_generator(self.seed, epoch, index), self.policy)

    def _unvaried(self, epoch: int, index: int) -> Sample:
        if self.patch_scale is None:
            return self._packed(index).unpack()
        picture, place = self._patches[index]
        packed = self._packed(picture)
        scaled = size_of(packed.valid, 0)
        if self.in_order:
            patch = covering(scaled, self.size)[place]
            cut = packed.cut(patch.frame).unpack()
            fresh = torch.zeros_like(cut.valid)
            fresh[patch.fresh] = True
            return replace(cut, valid=cut.valid & fresh)
        drawing = sample_generator(self.seed, epoch, -1 - index)  # not that of augmentation
        return packed.cut(drawn(scaled, self.size, packed.places, drawing)).unpack()

    def _packed(self, index: int) -> "_Packed":
        if index < len(self._kept):
            return self._kept[index]
        if self._last is None or self._last[0] != index:  # several patches in a row are of one picture
            self._last = (index, self._read(index))
        return self._last[1]

    def _read(self, index: int) -> "_Packed":
        sample = self.split[index]
        if sample.mask is None:
            raise DataError(
                f"{self.split.entries[index].image} has no mask: training needs one for every picture. "
                "Add it, or take the picture out ('seglens data check' lists all)."
            )
        if self.patch_scale is None:
            return _pack(sample, *letterbox(sample, self.size), self.window)
        frame = scaled_frame(size_of(sample.image, 1), self.patch_scale, sample.spacing)
        (scaled,), _ = placed_on([sample], [frame])
        packed = _pack(sample, scaled, frame, self.window)
        if self.in_order:
            return packed
        assert scaled.mask is not None
        places = marked_places(scaled.mask, scaled.valid, len(self.split.task.classes))
        return replace(packed, places=tuple(places))


class Shuffled(Sampler[tuple[int, int]]):
    """This process's part of an epoch's indices, shuffled by seed and epoch alike in all processes.

    Of every step's pictures each process has an equal part; of the last and smaller step the parts differ by
    one at most. Batch norm can't train on a single picture, because the variance of one value is zero: a few
    pictures sit the epoch out (others each time) where the last step would leave a process with a batch of
    one. Where there are too few pictures in all, they are shown more than once.
    """

    num: int
    batch_size: int
    seed: int
    epoch: int
    part: Part

    def __init__(self, num: int, *, batch_size: int, seed: int, part: Part | None = None, splits: int = 1):
        self.num, self.batch_size, self.seed, self.epoch = num, batch_size, seed, 0
        self.part = part or Part()
        self._size = batch_size // self.part.of // splits
        self._repeats = 1
        while not self._usable(num * self._repeats):
            self._repeats += 1
        self._total = self._usable(num * self._repeats)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this before each."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._positions())

    @property
    def num_batches(self) -> int:
        """Batches of this process in an epoch; equally many in all of them."""
        return -(-len(self) // self._size)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        indices = random.Random(f"order/{self.seed}/{self.epoch}").sample(range(self.num), self.num)
        indices *= self._repeats
        return iter([(self.epoch, indices[position]) for position in self._positions()])

    def _positions(self) -> list[int]:
        """Return the places in the epoch's order that are this process's."""
        starts = range(0, self._total, self.batch_size)
        steps = [range(start, min(start + self.batch_size, self._total)) for start in starts]
        first, last = self.part.index, self.part.index + 1
        return [
            place
            for step in steps
            for place in step[first * len(step) // self.part.of : last * len(step) // self.part.of]
        ]

    def _usable(self, num: int) -> int:
        """Return how many of ``num`` pictures can be used, so that no process is left with a batch of one."""
        whole, rest = divmod(num, self.batch_size)
        while rest and not self._divides(rest):
            rest -= 1
        return whole * self.batch_size + rest

    def _divides(self, rest: int) -> bool:
        parts = {(i + 1) * rest // self.part.of - i * rest // self.part.of for i in range(self.part.of)}
        # Equally many batches in every process, or they would wait for one another for ever.
        batches = {-(-part // self._size) for part in parts}
        return min(parts) > 0 and len(batches) == 1 and all(self._fits(part) for part in parts)

    def _fits(self, part: int) -> bool:
        return part % self._size != 1 or self._size == 1


@dataclass(frozen=True)
class _Packed:
    """A letterboxed sample in few bytes: 8-bit pictures in 8 bits again, deeper ones as float16.

    Where float16 is off by more than `ROUNDING` of what the model sees, they stay float32.
    """

    name: str
    image: Tensor
    mask: Tensor
    valid: Tensor
    scale: float
    places: tuple[Int[Tensor, "n axes"], ...] = ()

    def cut(self, frame: Frame) -> "_Packed":
        """Return what lies in ``frame``, whose native pixels are those of this picture."""
        image, mask, valid = (frame.padded(array) for array in (self.image, self.mask, self.valid))
        return replace(self, image=image, mask=mask, valid=valid)

    @property
    def num_bytes(self) -> int:
        return sum(array.numel() * array.element_size() for array in (self.image, self.mask, self.valid))

    def unpack(self) -> Sample:
        image = self.image.float() / 255 if self.image.dtype == torch.uint8 else self.image.float()
        return Sample(
            self.name, image, self.mask if self.mask.dtype == torch.bool else self.mask.long(), self.valid
        )


def _pack(sample: Sample, small: Sample, frame: Frame, window: tuple[float, float]) -> _Packed:
    assert small.mask is not None
    low, high = (float(end) for end in sample.image.aminmax())
    allowed = ROUNDING * min(window[1] - window[0], high - low)
    shades, rounded, half = sample.image * 255, (small.image * 255).round(), small.image.half()
    eight_bit = bool((shades - shades.round()).abs().max() <= min(1e-3, 255 * allowed))
    # What lies between two shades after scaling counts where few shades are all of the window.
    if eight_bit and (window == FULL or bool((rounded / 255 - small.image).abs().max() <= allowed)):
        image = rounded.to(torch.uint8)
    else:
        image = half if bool((half - small.image).abs().max() <= allowed) else small.image
    # A class index above 255 is rare but must not wrap around.
    mask = small.mask
    if not is_stack(mask):
        mask = mask.to(torch.uint8 if int(mask.max()) < 256 else torch.int32)
    return _Packed(small.name, image, mask, small.valid, frame.scale)


class Batches(LightningDataModule):
    """The batches of each process, made when its place among them is known.

    ``splits`` is the number of smaller batches that a step is computed in; their gradients are averaged.
    """

    training: TrainingDataset
    validation: TrainingDataset | None
    settings: TrainSettings
    workers: int
    splits: int

    def __init__(
        self,
        training: TrainingDataset,
        validation: TrainingDataset | None,
        settings: TrainSettings,
        *,
        workers: int,
        splits: int = 1,
    ) -> None:
        super().__init__()
        self.training, self.validation, self.settings = training, validation, settings
        self.workers, self.splits = workers, splits

    @property
    def num_steps(self) -> int:
        """Steps of the optimiser in the whole training."""
        order = self._training(Part(0, self.settings.devices * self.settings.num_nodes)).sampler
        assert isinstance(order, Shuffled)
        return self.settings.epochs * -(-order.num_batches // self.splits)

    def train_dataloader(self) -> DataLoader[Sample]:
        """Return this process's batches to train on."""
        return self._training(self._part())

    def val_dataloader(self) -> DataLoader[Sample]:
        """Return this process's batches to validate on."""
        assert self.validation is not None
        size = self.settings.batch_size // self.splits
        return validation_batches(self.validation, batch_size=size, part=self._part())

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move a batch, which Lightning doesn't know how to do."""
        placing = CHANNELS_LAST[batch.images.ndim - 2]
        images = batch.images.to(device, memory_format=placing, non_blocking=True)
        masks = None if batch.masks is None else batch.masks.to(device, non_blocking=True)
        return Batch(batch.names, images, masks, batch.valid.to(device, non_blocking=True))

    def split(self, splits: int) -> "Batches":
        """Return the same batches with every step computed in so many smaller ones."""
        return Batches(self.training, self.validation, self.settings, workers=self.workers, splits=splits)

    def _part(self) -> Part:
        assert self.trainer is not None
        return Part(self.trainer.global_rank, self.trainer.world_size)

    def _training(self, part: Part) -> DataLoader[Sample]:
        size = self.settings.batch_size
        return training_batches(
            self.training, batch_size=size, workers=self.workers, part=part, splits=self.splits
        )


def batches_for(dataset: DataSet, settings: TrainSettings, spec: ModelSpec, device: torch.device) -> Batches:
    """Read the pictures to train and to validate on; a set too small to be split has none of the second."""
    usual = ANY_WAY_UP if settings.vertical_flips else DEFAULT_POLICY
    varied = replace(usual, rotation=(-settings.rotation, settings.rotation))
    training = TrainingDataset(
        dataset.split("train"),
        size=spec.image_size,
        seed=settings.seed,
        policy=varied if settings.augment else None,
        window=spec.window,
        patch_scale=settings.patch_scale,
    )
    training.preload()
    validation = None
    if "valid" in dataset.splits:
        validation = TrainingDataset(
            dataset.split("valid"),
            size=spec.image_size,
            window=spec.window,
            patch_scale=settings.patch_scale,
            in_order=True,
        )
        validation.preload()
    return Batches(training, validation, settings, workers=_workers(settings, device))


def _workers(settings: TrainSettings, device: torch.device) -> int:
    """Return how many processes augment; without a GPU the cores are better spent on the network."""
    if settings.workers is not None:
        return settings.workers
    return min(8, os.cpu_count() or 1) if device.type == "cuda" else 0

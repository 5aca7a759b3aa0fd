"""How samples reach the network: at its size, kept in memory, in an order that seed and epoch decide."""

import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from seglens.data.layout import Split
from seglens.data.sample import Sample
from seglens.data.transforms import augment, collate, letterbox, sample_generator
from seglens.errors import DataError
from seglens.progress import track
from seglens.threads import read_ahead

MEMORY = 2 << 30
"""Bytes of pictures that a split may keep in memory."""


def training_batches(
    split: Split, *, size: int, batch_size: int, seed: int, augmented: bool, workers: int
) -> DataLoader[Sample]:
    """Return the batches to train on: shuffled, augmented in ``workers`` processes, pictures in memory.

    Raises:
        DataError: a picture can't be read or has no mask.
    """
    feed = Feed(split, size=size, seed=seed, augmented=augmented)
    feed.keep()
    return DataLoader(
        feed,
        batch_size=batch_size,
        sampler=Shuffled(len(feed), batch_size=batch_size, seed=seed),
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        # Forked workers share the pictures in memory, spawned ones copy them.
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
    )


def validation_batches(split: Split, *, size: int, batch_size: int) -> DataLoader[Sample]:
    """Return the batches to validate on, as they are and in order.

    Raises:
        DataError: a picture can't be read or has no mask.
    """
    feed = Feed(split, size=size, seed=0, augmented=False)
    feed.keep()
    return DataLoader(
        feed, batch_size=batch_size, sampler=[(0, index) for index in range(len(feed))], collate_fn=collate
    )


class Feed(Dataset[Sample]):
    """The samples of a split, letterboxed to ``size``; asked for by ``(epoch, index)``.

    The epoch is part of the question so that augmentation depends on (seed, epoch, index) alone: not on
    the order, on the number of worker processes, or on whether training was interrupted in between.
    """

    def __init__(self, split: Split, *, size: int, seed: int, augmented: bool, memory: int = MEMORY):
        self.split, self.size, self.seed, self.augmented, self.memory = split, size, seed, augmented, memory
        self._kept: list[_Packed] = []

    def keep(self) -> None:
        """Read the pictures once, as many as fit into ``memory``, so that a broken one is named at once.

        Raises:
            DataError: a picture can't be read or has no mask.
        """
        room = self.memory
        pictures = read_ahead(self._read, range(len(self)))
        for packed in track(pictures, total=len(self), what=f"reading {self.split.name}"):
            room -= packed.num_bytes
            if room < 0:
                break
            self._kept.append(packed)

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        packed = self._kept[index] if index < len(self._kept) else self._read(index)
        sample = packed.unpack()
        return augment(sample, sample_generator(self.seed, epoch, index)) if self.augmented else sample

    def _read(self, index: int) -> "_Packed":
        sample = self.split[index]
        if sample.mask is None:
            raise DataError(
                f"{self.split.entries[index].image} has no mask: training needs one for every picture. "
                "Add it, or take the picture out ('seglens data check' lists all)."
            )
        return _pack(sample, self.size)


class Shuffled(Sampler[tuple[int, int]]):
    """The indices of an epoch, shuffled by seed and epoch, with what batch norm needs seen to.

    A rest of one picture sits the epoch out (another one each time), because the variance of a single value
    is zero; where one picture is all there is, it is shown twice.
    """

    def __init__(self, num: int, *, batch_size: int, seed: int):
        self.num, self.seed, self.epoch = num, seed, 0
        self._length = 2 if num == 1 else num - (num > batch_size > 1 and num % batch_size == 1)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this before each."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        indices = random.Random(f"order/{self.seed}/{self.epoch}").sample(range(self.num), self.num)
        return iter([(self.epoch, index) for index in (indices * 2)[: len(self)]])


@dataclass(frozen=True)
class _Packed:
    """A letterboxed sample in few bytes: 8-bit pictures in 8 bits again, deeper ones as float16."""

    name: str
    image: Tensor
    mask: Tensor
    valid: Tensor

    @property
    def num_bytes(self) -> int:
        return sum(array.numel() * array.element_size() for array in (self.image, self.mask, self.valid))

    def unpack(self) -> Sample:
        image = self.image.float() / 255 if self.image.dtype == torch.uint8 else self.image.float()
        return Sample(self.name, image, self.mask.long(), self.valid)


def _pack(sample: Sample, size: int) -> _Packed:
    small, _ = letterbox(sample, size)
    assert small.mask is not None
    shades = sample.image * 255
    eight_bit = bool((shades - shades.round()).abs().max() < 1e-3)
    image = (small.image * 255).round().to(torch.uint8) if eight_bit else small.image.half()
    # A class index above 255 is rare but must not wrap around.
    mask = small.mask.to(torch.uint8 if int(small.mask.max()) < 256 else torch.int32)
    return _Packed(small.name, image, mask, small.valid)

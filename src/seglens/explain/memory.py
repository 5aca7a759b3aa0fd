"""Memory: how many pictures may be in the model at once, so that a pass stays within a budget of bytes.

A budget is for what a pass needs while it works, on top of the model's weights, the given pictures and the
maps that come back. How much a picture takes is measured with the pass itself, on one picture and on two.
"""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from seglens.arguments.byte_sizes import say_bytes
from seglens.axes import count, size_of, spelled
from seglens.errors import SettingError
from seglens.explain.costs import Cost, cost_of
from seglens.explain.passes import Pass
from seglens.explain.target import Target
from seglens.explain.watch import LAST, metering, shown, watch
from seglens.models.segmenter import Segmenter
from seglens.runtime.device import free_bytes
from seglens.shapes import Images

BATCH_SIZE = 16
"""Pictures in the model at once where nobody says otherwise: larger chunks are hardly any faster."""

MOST = 64
"""Pictures in the model at once, however much memory there is."""

SCRATCH = 1.25
"""Resident memory of a process on a CPU, by the bytes of tensors that are seen: convolutions have scratch.

Peaks of child processes were 1.0 to 1.16 times the tensors (``benchmarks/growth.py``).
"""

ROUGH = 16 * 1024
"""Bytes for each pixel of a picture that hardly a network takes: 4,096 maps of the picture's size.

Traced to the input, a U-Net takes 2 KB with a ResNet34, a U-Net++ with an EfficientNet-B5 12 KB.
"""

LEFT = 0.8
"""The share of a CPU's free memory that a pass may take."""


Few = Float[Tensor, "few c *size"]
"""Some of the pictures."""


@dataclass(frozen=True)
class Need:
    """Bytes that a part of a pass takes: ``fixed``, and ``each`` for every picture in the model."""

    fixed: int
    each: int

    @classmethod
    def through(cls, few: int, bytes_of_few: int, bytes_of_twice: int) -> "Need":
        """Draw the line through what ``few`` pictures take, and twice as many."""
        each = max((bytes_of_twice - bytes_of_few) // few, 1)
        return cls(max(bytes_of_few - few * each, 0), each)


@dataclass(frozen=True)
class Needs:
    """What the parts of a pass take: the one that takes most is what counts.

    The calls of the model are one; a copy of its weights may be made before, and masks summed up after.
    """

    parts: tuple[Need, ...]

    def of(self, batch_size: int) -> int:
        """Bytes with ``batch_size`` pictures in the model at once."""
        return max(part.fixed + part.each * batch_size for part in self.parts)

    def most(self, budget: int) -> int:
        """How many pictures may be in the model within ``budget`` bytes."""
        return min((budget - part.fixed) // part.each for part in self.parts)


_NEEDS: "weakref.WeakKeyDictionary[Segmenter, dict[tuple[object, ...], Needs]]" = weakref.WeakKeyDictionary()
"""What was measured: it depends on the picture's size, not on what it shows."""


def batch_size_of(
    step: Pass,
    segmenter: Segmenter,
    images: Images,
    targets: Sequence[Target],
    *,
    num: int,
    batch_size: int | None,
    memory: int | None,
) -> int:
    """Return how many of ``num`` pictures like ``images`` may be in the model at once during ``step``.

    With a budget (``memory``, bytes) as many as it allows, at most ``batch_size`` or `MOST`. Without one
    ``batch_size`` or `BATCH_SIZE`; on a CPU no more than its free memory holds, which is only looked into
    where many pictures of that size could be too much. (A GPU says by itself when it is full, and the batch
    is halved then.)

    Raises:
        SettingError: not even one picture is within the budget.
    """
    most = batch_size if batch_size is not None else BATCH_SIZE if memory is None else MOST
    if step.settings is None:
        most = min(most, max(num, 1))
    if not len(images):
        return most
    if memory is not None:
        need = measure(step, segmenter, images, targets)
        if need.of(1) > memory:
            raise SettingError(
                f"{', '.join(step.methods)} on one picture of {spelled(size_of(images))} pixels takes "
                f"about {say_bytes(need.of(1))}, more than the budget of {say_bytes(memory)}. Allow that "
                "much, or explain smaller pictures, fewer layers or fewer methods at a time."
            )
        return min(most, need.most(memory))
    free = free_bytes(segmenter.device)
    if batch_size is not None or free is None or most * count(size_of(images)) * ROUGH <= LEFT * free:
        return most
    need = measure(step, segmenter, images, targets)
    return max(1, min(most, need.most(int(LEFT * free))))


def measure(step: Pass, segmenter: Segmenter, images: Images, targets: Sequence[Target]) -> Needs:
    """Return what ``step`` takes: it runs on one picture and on two, and stops when it has shown enough.

    On a CPU the bytes of tensors are multiplied by `SCRATCH`. Measured once for each model, pass and size.
    """
    key = (step.methods, step.settings, step.layers, tuple(images.shape[1:]), len(targets))
    known = _NEEDS.setdefault(segmenter, {})
    if key not in known:
        cost = cost_of(step, segmenter, images[:1], len(targets))
        few = cost.least
        once, twice = (_watched(step, segmenter, images, targets, cost, num) for num in (few, 2 * few))
        parts = [Need.through(few, *pair) for pair in zip(once, twice, strict=True)]
        known[key] = Needs((*parts, Need(cost.after, 1)))
    return known[key]


def _watched(
    step: Pass, segmenter: Segmenter, images: Images, targets: Sequence[Target], cost: Cost, num: int
) -> tuple[int, int]:
    """Return the most bytes in the last calls of the model, which the rest are like, and ever."""
    few, aims = sample(images, targets, num)
    with metering(segmenter.device) as meter:
        seen = watch(lambda: step.work(few, aims, num), segmenter.device, shown(cost, num), meter)
    factor = 1 if segmenter.device.type == "cuda" else SCRATCH
    peaks = [seen.bytes_before, *(call.bytes for call in seen.calls)]
    return round(factor * max(peaks[-LAST:])), round(factor * max(peaks))


def sample(images: Images, targets: Sequence[Target], num: int) -> tuple[Few, list[Target]]:
    """Return ``num`` of the pictures, over again where there are fewer, and targets that hold all."""
    rows = torch.arange(num) % len(images)
    everywhere = torch.ones(num, *size_of(images), dtype=torch.bool)
    aims = [replace(target, pixels=everywhere, weights=None) for target in targets]
    return images[rows.to(images.device)], aims

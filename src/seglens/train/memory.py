"""Training that doesn't fit into memory: compute each step in smaller batches, or name a size that fits."""

import warnings
from collections.abc import Callable

import torch

from seglens.axes import CHANNELS_LAST, spelled
from seglens.errors import TrainingError
from seglens.runtime.device import is_out_of_memory, release_memory
from seglens.shapes import AnyMasks
from seglens.train.lightning_module import SegmentationModule


def fit_within_memory(module: SegmentationModule, attempt: Callable[[int], None]) -> int:
    """Call ``attempt(splits)``, the fit with every step in so many smaller batches, and return the number.

    It is 1 unless the settings say ``halve_batch``: then it is doubled whenever memory doesn't suffice, which
    keeps the gradient of a step the same but for batch norm, whose statistics are those of the smaller batch.

    Raises:
        TrainingError: memory doesn't suffice; it says which batch size would fit.
    """
    settings = module.settings
    first = (
        {name: tensor.clone() for name, tensor in module.state_dict().items()} if settings.halve_batch else {}
    )
    per_device = settings.batch_size // (settings.devices * settings.num_nodes)
    splits = 1
    while True:
        try:
            attempt(splits)
            return splits
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside of the handler, which holds on to the tensors of the step that failed.
        release_memory()
        now = per_device // splits
        if not settings.halve_batch or now % 2:
            raise TrainingError(_advice(module, now))
        splits *= 2
        warnings.warn(
            f"Batches of {now} pictures don't fit into memory: going on in batches of {now // 2}, "
            f"{splits} to a step.",
            UserWarning,
            stacklevel=2,
        )
        module.load_state_dict(first)


def largest_fitting(module: SegmentationModule, below: int) -> int:
    """Return the largest half, quarter, ... of ``below`` whose step fits into memory, 0 where none does."""
    spec = module.segmenter.spec
    size = spec.sides
    num = below // 2
    while num:
        try:
            masks, valid = _blank(module, num), torch.ones(num, *size, dtype=torch.bool)
            images = torch.zeros(num, spec.channels, *size, device=module.device)
            logits = module.segmenter(images.contiguous(memory_format=CHANNELS_LAST[spec.dims]))
            module.loss(logits, masks, valid.to(module.device), module.class_weights).backward()
            return num
        except (RuntimeError, MemoryError, ValueError) as error:
            if not is_out_of_memory(error) and not isinstance(error, ValueError):
                raise
        finally:
            module.zero_grad(set_to_none=True)
        release_memory()
        num //= 2
    return 0


def _blank(module: SegmentationModule, num: int) -> AnyMasks:
    spec = module.segmenter.spec
    size = spec.sides
    if spec.head == "multilabel":
        return torch.zeros(num, spec.outputs, *size, dtype=torch.bool, device=module.device)
    return torch.zeros(num, *size, dtype=torch.int64, device=module.device)


def _advice(module: SegmentationModule, now: int) -> str:
    size = spelled(module.segmenter.spec.sides)
    told = f"A batch of {now} picture{'s' * (now > 1)} of {size} pixels doesn't fit into memory."
    fitting = largest_fitting(module, now)
    if not fitting:
        return f"{told} Smaller ones don't either: choose a smaller image size or a smaller model."
    return (
        f"{told} A batch of {fitting} was tried and fits: give --batch-size {fitting}, or --halve-batch to "
        "keep the step and compute it in smaller batches. What was saved before is intact."
    )

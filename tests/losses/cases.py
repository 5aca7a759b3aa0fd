"""Losses by name, and a batch to try them on."""

import torch

from seglens.train.losses import BINARY_LOSSES, CLASS_LOSSES, WEIGHTED_LOSSES

BOTH = [(name, loss, 1) for name, loss in BINARY_LOSSES.items()]
BOTH += [(name, loss, 3) for name, loss in CLASS_LOSSES.items()]
"""Every loss by its name, with the number of output channels that it is tried at."""

WEIGHTED = [case for case in BOTH if case[0] in WEIGHTED_LOSSES]
"""Those that take class weights."""

WEIGHTS = {1: torch.tensor([0.4, 1.6]), 3: torch.tensor([0.3, 2.0, 0.7])}
"""Class weights by the number of output channels."""


def batch(outputs, seed=0, dtype=torch.float32):
    """Logits, masks and valid pixels of two small pictures; three pixels in ten are invalid."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, outputs, 5, 7, generator=generator, dtype=dtype)
    masks = torch.randint(max(outputs, 2), (2, 5, 7), generator=generator)
    valid = torch.rand(2, 5, 7, generator=generator) < 0.7
    return logits, masks, valid

"""Batch norms folded into the convolutions before them, for predictions that take less time."""

from copy import deepcopy

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from seglens.models.segmenter import WRAPPED, Segmenter

TOLERANCE = 1e-3
"""How far logits may move, as a share of the largest: rounding stays far below, a wrong pair far above."""


def folded(segmenter: Segmenter) -> Segmenter:
    """Return a copy of ``segmenter`` for evaluation, without the batch norms that convolutions can take over.

    In evaluation a batch norm is ``y = g (x - m) / s + b``; behind ``x = W * u + c`` that is the convolution
    ``(g / s) W * u + (c - m) g / s + b`` (Jacob et al. 2018, section 3.2). A convolution and a batch norm
    that follow one another as children of a module are taken to be applied so; whether they are is tried on
    a noise image, and where the answer differs ``segmenter`` itself is returned, as are wrapped networks.
    """
    if segmenter.spec.architecture == WRAPPED:
        return segmenter
    copy = deepcopy(segmenter).eval()
    _fold(copy.module)
    size = segmenter.spec.image_size
    before, after = segmenter.try_out(size), copy.try_out(size)
    right = (before - after).abs().max() <= TOLERANCE * before.abs().max()
    return copy if right else segmenter


def _fold(module: nn.Module) -> None:
    """Fold within ``module`` and everything below it."""
    before: tuple[str, nn.Module] | None = None
    for name, child in list(module.named_children()):
        if before is not None and isinstance(before[1], nn.Conv2d) and isinstance(child, nn.BatchNorm2d):
            module.set_submodule(before[0], fuse_conv_bn_eval(before[1], child))
            # timm's batch norms have an activation of their own.
            activation = getattr(child, "act", None)
            module.set_submodule(name, activation if isinstance(activation, nn.Module) else nn.Identity())
        else:
            _fold(child)
        before = name, child

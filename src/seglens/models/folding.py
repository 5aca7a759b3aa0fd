"""Faster copies of a network for many passes: batch norms folded into convolutions, memory laid out well."""

from copy import deepcopy
from itertools import pairwise
from typing import cast

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.nn.utils.parametrize import is_parametrized

from seglens.axes import CHANNELS_LAST
from seglens.errors import ModelError
from seglens.models.segmenter import Segmenter

PAIRS = ((nn.Conv2d, nn.BatchNorm2d), (nn.Conv3d, nn.BatchNorm3d))

TOLERANCE = 1e-4
"""How far logits may move, as a share of the largest: rounding stays far below, a wrong pair far above."""


def folded(segmenter: Segmenter) -> Segmenter:
    """Return a copy of ``segmenter`` for evaluation, without the batch norms that convolutions can take over.

    In evaluation a batch norm is ``y = g (x - m) / s + b``; behind ``x = W * u + c`` that is the convolution
    ``(g / s) W * u + (c - m) g / s + b`` (Jacob et al. 2018, section 3.2). A convolution and a batch norm
    that follow one another as children of a module are taken to be applied so; whether they are is tried on
    a noise image, and where the answer differs ``segmenter`` itself is returned. So are networks without
    such a pair, and foreign ones that are compiled or can't be copied or tried.
    """
    if not any(_pair(*pair) for module in segmenter.modules() for pair in _neighbours(module)):
        return segmenter
    copy = _copied(segmenter)
    if copy is segmenter:
        return segmenter
    _fold(copy.module)
    try:
        size = segmenter.spec.sides
        before, after = segmenter.try_out(size), copy.try_out(size)
    except ModelError:  # A network of somebody else's that takes other sizes: it can be used as it is.
        return segmenter
    right = (before - after).abs().max() <= TOLERANCE * before.abs().max()
    return copy if right else segmenter


def quick(segmenter: Segmenter) -> Segmenter:
    """Return ``segmenter`` for many forward and backward passes in its own precision: a copy where that pays.

    It is `folded`, which changes logits by rounding only, and gradients where rounding carries a unit over a
    kink: a map of 8 steps from a trained U-Net moved by .7 % of its maximum at most (r = .999998). Networks
    of our own run on a CPU with the channels last in memory; foreign ones may rely on the order of memory. It
    is made once a call: the weights may have changed since the last one.
    """
    copy = folded(segmenter)
    if segmenter.spec.foreign or segmenter.device.type != "cpu":
        return copy
    copy = copy if copy is not segmenter else deepcopy(segmenter).eval()
    return copy.to(memory_format=CHANNELS_LAST[copy.spec.dims])


def _copied(segmenter: Segmenter) -> Segmenter:
    """Return a copy for evaluation, or ``segmenter`` itself where its network can't be copied."""
    compiled = any(hasattr(module, "_orig_mod") for module in segmenter.modules())
    if compiled:  # A copy would be compiled again.
        return segmenter
    try:
        return deepcopy(segmenter).eval()
    except (RuntimeError, TypeError, AttributeError):  # It holds a lock, a file, a tensor with a history...
        if not segmenter.spec.foreign:
            raise
        return segmenter


def _neighbours(module: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    """Pairs of children that follow one another."""
    return list(pairwise(module.children()))


def _pair(first: nn.Module, second: nn.Module) -> bool:
    """Whether ``second`` is a batch norm of fixed statistics, and ``first`` a convolution to take it over."""
    return (
        any(isinstance(first, one) and isinstance(second, other) for one, other in PAIRS)
        and isinstance(second, nn.modules.batchnorm._BatchNorm)
        and second.running_mean is not None
        and second.num_features == getattr(first, "out_channels", None)
        and not is_parametrized(first)
    )


def _fold(module: nn.Module) -> None:
    """Fold within ``module`` and everything below it."""
    before: tuple[str, nn.Module] | None = None
    for name, child in list(module.named_children()):
        if before is not None and _pair(before[1], child):
            convolution, norm = (
                cast(nn.Conv2d | nn.Conv3d, before[1]),
                cast(nn.BatchNorm2d | nn.BatchNorm3d, child),
            )
            module.set_submodule(before[0], fuse_conv_bn_eval(convolution, norm))
            # timm's batch norms have an activation of their own.
            activation = getattr(child, "act", None)
            module.set_submodule(name, activation if isinstance(activation, nn.Module) else nn.Identity())
        else:
            _fold(child)
        before = name, child

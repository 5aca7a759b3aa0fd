"""Training losses on logits. Pixels that are not valid count for nothing.

Own functions rather than those of segmentation-models-pytorch 0.6: its binary cross-entropy divides by all
pixels, ignored ones too, so that the loss would depend on how much padding a batch happens to hold.

Reduced precision stops here: every loss is computed in float32 at least, also under autocast.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from seglens.errors import SettingError, unknown_name
from seglens.shapes import Logits, Masks, Regions

Loss = Callable[[Logits, Masks, Regions], Float[Tensor, ""]]

SMOOTHING = 1.0
"""Pixels added above and below the fraction of the soft Dice, so that empty classes have a gradient."""


def bce(logits: Logits, masks: Masks, valid: Regions) -> Float[Tensor, ""]:
    """Return the mean over valid pixels of ``-t log p - (1 - t) log(1 - p)``, with ``p = sigmoid(logit)``."""
    truth = (masks == 1).to(_wide(logits).dtype)
    pixels = F.binary_cross_entropy_with_logits(_wide(logits)[:, 0], truth, reduction="none")
    return _mean(pixels, valid)


def ce(logits: Logits, masks: Masks, valid: Regions) -> Float[Tensor, ""]:
    """Return the mean over valid pixels of ``-log p_t``, with ``p = softmax(logits)``, t the true class."""
    pixels = F.cross_entropy(_wide(logits), masks.masked_fill(~valid, 0).long(), reduction="none")
    return _mean(pixels, valid)


def dice(logits: Logits, masks: Masks, valid: Regions) -> Float[Tensor, ""]:
    """Return ``1 - (2 sum pt + s) / (sum p + sum t + s)``, the soft Dice loss, mean over foreground classes.

    The V-Net loss (Milletari, Navab, Ahmadi 2016, section 3) with ``p`` in place of ``p^2``, as is usual
    today. The sums run over the valid pixels of the whole batch, so that one picture without any
    foreground doesn't swing the loss between 0 and 1; ``s`` is `SMOOTHING`.
    """
    wide = _wide(logits)
    classes = range(1, max(wide.shape[1], 2))
    probabilities = wide.sigmoid() if wide.shape[1] == 1 else wide.softmax(dim=1)[:, 1:]
    truth = torch.stack([masks == index for index in classes], dim=1).to(wide.dtype)
    p, t = (array * valid[:, None] for array in (probabilities, truth))
    overlap, total = (p * t).sum(dim=(0, 2, 3)), (p + t).sum(dim=(0, 2, 3))
    return (1 - (2 * overlap + SMOOTHING) / (total + SMOOTHING)).mean()


def bce_dice(logits: Logits, masks: Masks, valid: Regions) -> Float[Tensor, ""]:
    """Return the sum of `bce` and `dice`."""
    return bce(logits, masks, valid) + dice(logits, masks, valid)


def ce_dice(logits: Logits, masks: Masks, valid: Regions) -> Float[Tensor, ""]:
    """Return the sum of `ce` and `dice`."""
    return ce(logits, masks, valid) + dice(logits, masks, valid)


def _wide(logits: Logits) -> Logits:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _mean(pixels: Float[Tensor, "b h w"], valid: Regions) -> Float[Tensor, ""]:
    """Return the mean over valid pixels, 0 where there are none."""
    return torch.where(valid, pixels, 0.0).sum() / valid.sum().clamp(min=1)


BINARY_LOSSES: dict[str, Loss] = {"bce+dice": bce_dice, "bce": bce, "dice": dice}
"""For a head with one channel; the first is the default."""

CLASS_LOSSES: dict[str, Loss] = {"ce+dice": ce_dice, "ce": ce, "dice": dice}
"""For a head with a channel per class; the first is the default."""

LOSSES: dict[str, Loss] = BINARY_LOSSES | CLASS_LOSSES


def choose_loss(name: str | None, outputs: int) -> Loss:
    """Return the loss called ``name`` (None: the default) for a model with ``outputs`` channels.

    Raises:
        UnknownNameError: there is no such loss.
        SettingError: the loss is not for that many channels.
    """
    allowed = BINARY_LOSSES if outputs == 1 else CLASS_LOSSES
    if name is None:
        return next(iter(allowed.values()))
    if name not in LOSSES:
        raise unknown_name("loss", name, allowed)
    if name not in allowed:
        raise SettingError(
            f"The loss {name!r} doesn't fit a model with {outputs} output channel{'s' * (outputs > 1)}. "
            f"Choose one of: {', '.join(allowed)}."
        )
    return allowed[name]

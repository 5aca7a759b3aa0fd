"""Training losses on logits. Pixels that are not valid count for nothing.

Every loss is a function ``(logits, masks, valid, weights) -> scalar``. ``weights`` holds one number a class,
the background first (two numbers for a head with one channel too), or is None; those of `WEIGHTED_LOSSES`
take a weighted mean over the pixels by it, ``sum(w_t * loss) / sum(w_t)`` with t the true class, as torch's
``cross_entropy`` does. The others compare areas class by class, so that a small class weighs as much as a
large one already, and refuse weights.

Of segmentation-models-pytorch 0.6 the Lovász loss is used. The others are own functions, because there

- the binary cross-entropy divides by all pixels, ignored ones too, so that the loss would depend on how much
  padding a batch happens to hold;
- the focal loss is NaN where no pixel is valid, takes no class weights for a head with one channel, and for
  several channels takes the sigmoid of each instead of the softmax;
- the Tversky loss (its Dice too) is 0 with no gradient for a class that a batch doesn't hold, so that false
  positives are free there.

Masks of labels that may overlap (``Bool[b l h w]``) go with logits of as many channels, and the losses of
`LABEL_LOSSES` take the sigmoid of each: what they say of one channel holds of every one, and is averaged.

Reduced precision stops here: every loss is computed in float32 at least, also under autocast.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from seglens.axes import axes
from seglens.errors import DataError, SettingError, unknown_name
from seglens.masks import is_stack, of_class
from seglens.shapes import AnyMasks, Logits, Regions

ClassWeights = Float[Tensor, " classes"]

Loss = Callable[[Logits, AnyMasks, Regions, ClassWeights | None], Float[Tensor, ""]]

SMOOTHING = 1.0
"""Pixels added above and below the fraction of the soft Dice, so that empty classes have a gradient."""

GAMMA = 2.0
"""The focusing exponent of the focal loss; the value that Lin et al. found best."""

ALPHA, BETA = 0.3, 0.7
"""The weights of false positives and of false negatives in the Tversky loss."""


def bce(
    logits: Logits, masks: AnyMasks, valid: Regions, weights: ClassWeights | None = None
) -> Float[Tensor, ""]:
    """Return the mean over valid pixels of ``-t log p - (1 - t) log(1 - p)``, with ``p = sigmoid(logit)``."""
    return _mean(_entropy(logits, masks, valid), masks, valid, weights)


def ce(
    logits: Logits, masks: AnyMasks, valid: Regions, weights: ClassWeights | None = None
) -> Float[Tensor, ""]:
    """Return the mean over valid pixels of ``-log p_t``, with ``p = softmax(logits)``, t the true class."""
    return _mean(_entropy(logits, masks, valid), masks, valid, weights)


def focal(
    logits: Logits, masks: AnyMasks, valid: Regions, weights: ClassWeights | None = None
) -> Float[Tensor, ""]:
    """Return the mean over valid pixels of ``-(1 - p_t)^g log p_t``, p_t the true class's probability.

    Lin et al. (2017, eq. 4; with weights as alpha_t eq. 5), g is `GAMMA`: pixels that are nearly right count
    little. They divide by the number of objects, we take the (weighted) mean over pixels, as `ce` does.
    """
    entropy = _entropy(logits, masks, valid)
    return _mean((-torch.expm1(-entropy)) ** GAMMA * entropy, masks, valid, weights)


def dice(
    logits: Logits, masks: AnyMasks, valid: Regions, weights: ClassWeights | None = None
) -> Float[Tensor, ""]:
    """Return ``1 - (2 sum pt + s) / (sum p + sum t + s)``, the soft Dice loss, mean over foreground classes.

    The V-Net loss (Milletari, Navab, Ahmadi 2016, section 3) with ``p`` in place of ``p^2``, as is usual
    today. The sums run over the valid pixels of the whole batch, so that one picture without any
    foreground doesn't swing the loss between 0 and 1; ``s`` is `SMOOTHING`.

    Raises:
        SettingError: weights are given.
    """
    _refuse_weights("dice", weights)
    hits, false, missed = _soft_counts(logits, masks, valid)
    return (1 - (2 * hits + SMOOTHING) / (2 * hits + false + missed + SMOOTHING)).mean()


def tversky(
    logits: Logits, masks: AnyMasks, valid: Regions, weights: ClassWeights | None = None
) -> Float[Tensor, ""]:
    """Return ``1 - (TP + s/2) / (TP + a FP + b FN + s/2)``, mean over foreground classes.

    Salehi, Erdogmus, Gholipour (2017, eq. 3), with a = `ALPHA` = 0.3 for false positives and b = `BETA` = 0.7
    for false negatives, their best for lesions. TP is ``sum pt``, FP ``sum p(1 - t)`` and FN ``sum (1 - p)t``
    over the valid pixels of the whole batch; s is `SMOOTHING`, so that a = b = 0.5 would give `dice`.

    Raises:
        SettingError: weights are given.
    """
    _refuse_weights("tversky", weights)
    hits, false, missed = _soft_counts(logits, masks, valid)
    smoothed = hits + SMOOTHING / 2
    return (1 - smoothed / (smoothed + ALPHA * false + BETA * missed)).mean()


def lovasz(
    logits: Logits, masks: AnyMasks, valid: Regions, weights: ClassWeights | None = None
) -> Float[Tensor, ""]:
    """Return the Lovász extension of the Jaccard loss 1 - IoU, over the valid pixels of the whole batch.

    ``sum_i m_i (J(i) - J(i - 1))``, m the errors, largest first, and J(i) the Jaccard loss where exactly the
    first i pixels are wrong (Berman, Triki, Blaschko 2018, definition 2). Of one channel their Lovász hinge,
    ``m = max(0, 1 - logit)`` at foreground and ``max(0, 1 + logit)`` elsewhere; of several their Lovász
    softmax, ``m = |t - p|``, mean over the classes that the batch holds, the background among them.
    segmentation-models-pytorch computes it in float32, exact in its counts up to 16 million pixels.

    Raises:
        SettingError: weights are given.
    """
    from segmentation_models_pytorch.losses import LovaszLoss

    _refuse_weights("lovasz", weights)
    if is_stack(masks):
        raise SettingError(
            f"The Lovász loss is not for labels that may overlap. Choose one of: {', '.join(LABEL_LOSSES)}."
        )
    if not bool(valid.any()):  # For several channels theirs is an empty array then.
        return logits.float().sum() * 0.0
    several = logits.shape[1] > 1
    labels = (masks if several else masks == 1).long().masked_fill(~valid, -1).flatten(1, -2)
    logits = logits.flatten(2, -2)  # theirs are pictures; slices of volumes become rows
    with torch.autocast(logits.device.type, enabled=False):
        return LovaszLoss("multiclass" if several else "binary", ignore_index=-1)(logits.float(), labels)


def bce_dice(
    logits: Logits, masks: AnyMasks, valid: Regions, weights: ClassWeights | None = None
) -> Float[Tensor, ""]:
    """Return the sum of `bce`, by the weights, and `dice`."""
    return bce(logits, masks, valid, weights) + dice(logits, masks, valid)


def ce_dice(
    logits: Logits, masks: AnyMasks, valid: Regions, weights: ClassWeights | None = None
) -> Float[Tensor, ""]:
    """Return the sum of `ce`, by the weights, and `dice`."""
    return ce(logits, masks, valid, weights) + dice(logits, masks, valid)


def class_weights(counts: Int[Tensor, " classes"]) -> ClassWeights:
    """Return ``w_c = (1 / n_c) / mean(1 / n)``: the inverse of each class's number of pixels, with mean 1.

    A class without pixels gets weight 0 and is left out of the mean: its inverse is infinite, and there is
    nothing to learn it from. By these weights all classes have the same share of a weighted mean over the
    pixels that were counted.

    Raises:
        DataError: no class has a pixel.
    """
    present = counts > 0
    if not bool(present.any()):
        raise DataError(
            f"Class weights need pixels to count, but none of the {len(counts)} classes has one. "
            "Check the masks of the train split with 'seglens data check'."
        )
    inverse = torch.where(present, 1.0 / counts.double(), 0.0)
    return (inverse / inverse[present].mean()).float()


def _wide(logits: Logits) -> Logits:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _entropy(logits: Logits, masks: AnyMasks, valid: Regions) -> Float[Tensor, "b *pixels"]:
    """Return ``-log p_t`` of every pixel, by the sigmoid of one channel or the softmax of several.

    For labels that may overlap a pixel has one for each of them, by its channel's sigmoid.
    """
    wide = _wide(logits)
    if is_stack(masks):
        return F.binary_cross_entropy_with_logits(wide, masks.to(wide.dtype), reduction="none")
    if wide.shape[1] == 1:
        truth = (masks == 1).to(wide.dtype)
        return F.binary_cross_entropy_with_logits(wide[:, 0], truth, reduction="none")
    return F.cross_entropy(wide, masks.masked_fill(~valid, 0).long(), reduction="none")


def _soft_counts(
    logits: Logits, masks: AnyMasks, valid: Regions
) -> tuple[Float[Tensor, " f"], Float[Tensor, " f"], Float[Tensor, " f"]]:
    """Return ``sum pt``, ``sum p(1 - t)`` and ``sum (1 - p)t`` of each foreground class over valid pixels."""
    wide = _wide(logits)
    sigmoid = is_stack(masks) or wide.shape[1] == 1
    probabilities = wide.sigmoid() if sigmoid else wide.softmax(dim=1)[:, 1:]
    classes = range(1, probabilities.shape[1] + 1)
    truth = torch.stack([of_class(masks, index, valid.ndim - 1) for index in classes], dim=1).to(wide.dtype)
    p, t = (array * valid[:, None] for array in (probabilities, truth))
    hits, predicted, true = (array.sum(dim=(0, *axes(array))) for array in (p * t, p, t))
    return hits, predicted - hits, true - hits


def _mean(
    pixels: Float[Tensor, "b *pixels"], masks: AnyMasks, valid: Regions, weights: ClassWeights | None
) -> Float[Tensor, ""]:
    """Return the mean over valid pixels by the weight of each one's true class; 0 where they sum to 0.

    Where labels may overlap a pixel has no one true class: the mean is over labels too, without weights.
    """
    if is_stack(masks):
        if weights is not None:
            raise SettingError(
                "Class weights are for classes that exclude one another; labels that may overlap take none. "
                "Leave them out: the Dice loss weighs each label alike, however rare."
            )
        shown = valid[:, None].expand_as(pixels)
        return torch.where(shown, pixels, 0.0).sum() / shown.sum().clamp(min=1)
    if weights is None:
        return torch.where(valid, pixels, 0.0).sum() / valid.sum().clamp(min=1)
    shares = weights.to(pixels)[masks.masked_fill(~valid, 0).long()] * valid
    total = shares.sum()
    return (shares * torch.where(valid, pixels, 0.0)).sum() / torch.where(total > 0, total, 1.0)


def _refuse_weights(name: str, weights: ClassWeights | None) -> None:
    if weights is not None:
        check_takes_weights(name)


def check_takes_weights(name: str) -> None:
    """Raise where the loss called ``name`` takes no class weights.

    Raises:
        SettingError: it doesn't; the message names those that do.
    """
    if name not in WEIGHTED_LOSSES:
        raise SettingError(
            f"The loss {name!r} takes no class weights; those that do are: {', '.join(WEIGHTED_LOSSES)}. "
            "Choose one of them, or leave the weights out."
        )


BINARY_LOSSES: dict[str, Loss] = {
    "bce+dice": bce_dice,
    "bce": bce,
    "dice": dice,
    "focal": focal,
    "tversky": tversky,
    "lovasz": lovasz,
}
"""For a head with one channel; the first is the default."""

CLASS_LOSSES: dict[str, Loss] = {
    "ce+dice": ce_dice,
    "ce": ce,
    "dice": dice,
    "focal": focal,
    "tversky": tversky,
    "lovasz": lovasz,
}
"""For a head with a channel per class; the first is the default."""

LABEL_LOSSES: dict[str, Loss] = {
    "bce+dice": bce_dice,
    "bce": bce,
    "dice": dice,
    "focal": focal,
    "tversky": tversky,
}
"""For a multilabel head, a channel for each label; the first is the default."""

LOSSES: dict[str, Loss] = BINARY_LOSSES | CLASS_LOSSES

WEIGHTED_LOSSES = ("bce+dice", "bce", "ce+dice", "ce", "focal")
"""Those that take class weights; the sums weigh their cross-entropy only."""


def choose_loss(name: str | None, outputs: int, *, multilabel: bool = False) -> Loss:
    """Return the loss called ``name`` (None: the default) for a model with ``outputs`` channels.

    Raises:
        UnknownNameError: there is no such loss.
        SettingError: the loss is not for that many channels, or not for labels that may overlap.
    """
    allowed = LABEL_LOSSES if multilabel else BINARY_LOSSES if outputs == 1 else CLASS_LOSSES
    if name is None:
        return next(iter(allowed.values()))
    if name not in LOSSES:
        raise unknown_name("loss", name, allowed)
    if name not in allowed:
        kind = "a multilabel model" if multilabel else "a model"
        raise SettingError(
            f"The loss {name!r} doesn't fit {kind} with {outputs} output channel{'s' * (outputs > 1)}. "
            f"Choose one of: {', '.join(allowed)}."
        )
    return allowed[name]

"""The only inference path: images to logits, probabilities and masks."""

import math
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import torch
from torch.nn.functional import logsigmoid

from seglens.axes import CHANNELS_LAST, size_of
from seglens.errors import NonFiniteError
from seglens.models.segmenter import Segmenter, evaluating
from seglens.runtime.device import at_once, choose_precision
from seglens.shapes import AnyMasks, Images, Logits, Probabilities


@dataclass(frozen=True)
class Prediction:
    """The prediction of a batch, at the resolution of its images and on their device.

    ``mask`` holds class indices ``Int[b h w]``; of a multilabel head the labels' pixels ``Bool[b l h w]``.
    """

    logits: Logits
    probabilities: Probabilities
    mask: AnyMasks


def infer(
    segmenter: Segmenter, images: Images, *, batch_size: int = 8, precision: str = "32", tta: bool = False
) -> Prediction:
    """Run ``segmenter`` in evaluation mode on ``images``, ``batch_size`` at a time.

    The model is left as found. ``precision`` is as in `choose_precision`; results are in float32 at least.
    With ``tta`` the probabilities are the mean over the image and its mirror images (3, of a volume 7), and
    the logits are theirs.

    Raises:
        SettingError: there is no such precision.
        NonFiniteError: the answer to a picture holds NaN or infinity.
    """
    device = segmenter.device
    mixed = choose_precision(precision, device) == "bf16"
    forward = partial(_over_flips, segmenter) if tta else segmenter
    # In bfloat16, convolutions want the channels of a pixel side by side.
    placing = CHANNELS_LAST[segmenter.spec.dims] if mixed else torch.preserve_format
    # Not inference_mode: its tensors could take no part in later computations with gradients.
    with evaluating(segmenter), torch.no_grad():
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            parts = [
                forward(part.to(device, memory_format=placing)).to(images.device)
                for part in images.split(at_once(size_of(images), device, batch_size))
            ]
        logits = torch.cat(parts)
        broken = ~logits.flatten(1).isfinite().all(1)
        if bool(broken.any()):
            raise NonFiniteError(broken.nonzero().flatten().tolist())
        return Prediction(logits, segmenter.probabilities(logits), segmenter.mask(logits))


def _over_flips(segmenter: Segmenter, images: Images) -> Logits:
    """Return the logits of the mean probability over the mirror images, each turned back.

    From log-probabilities, so that a probability that rounds to 0 or 1 has a finite logit all the same.
    """
    behind = [-1 - axis for axis in range(len(size_of(images)))]
    flips = [turn for num in range(len(behind) + 1) for turn in combinations(behind, num)]
    turned = torch.stack([segmenter(images.flip(turn)).flip(turn) for turn in flips])
    if segmenter.spec.head != "softmax":
        return logsigmoid(turned).logsumexp(0) - logsigmoid(-turned).logsumexp(0)
    return turned.log_softmax(dim=2).logsumexp(0) - math.log(len(flips))

"""The only inference path: images to logits, probabilities and masks."""

from dataclasses import dataclass

import torch

from seglens.models.segmenter import Segmenter, evaluating
from seglens.shapes import Images, Logits, Masks, Probabilities


@dataclass(frozen=True)
class Prediction:
    """What a model says about a batch, at the resolution of its images and on their device."""

    logits: Logits
    probabilities: Probabilities
    mask: Masks


def infer(segmenter: Segmenter, images: Images, *, chunk: int = 8) -> Prediction:
    """Run ``segmenter`` in evaluation mode on ``images``, ``chunk`` at a time; the model is left as found."""
    # Not inference_mode: its tensors could take no part in later computations with gradients.
    with evaluating(segmenter), torch.no_grad():
        parts = [segmenter(part.to(segmenter.device)).to(images.device) for part in images.split(chunk)]
        logits = torch.cat(parts)
        return Prediction(logits, segmenter.probabilities(logits), segmenter.mask(logits))

"""Temperature scaling: one number that logits are divided by, so that probabilities mean what they say."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from scipy.optimize import minimize_scalar
from torch import Tensor

from seglens.data.sample import Sample
from seglens.evaluate.calibration import Calibration, count_bins
from seglens.masks import of_class
from seglens.models.segmenter import ModelSpec
from seglens.seeds import content_generator

PIXELS = 4096
"""Pixels of a picture that are looked at, drawn at random: neighbours say much the same."""

RANGE = (0.05, 20.0)
"""Temperatures that are looked for."""
CLOSE = 0.01
"""How near to an end of it a minimum is none, as a share of the temperature."""

SMALLEST = 1e-7


@dataclass(frozen=True)
class Pixels:
    """Logits of some pixels and what is true there: the class, of sigmoids 0 or 1 for each."""

    logits: Float[Tensor, "n k"]
    truth: Int[Tensor, " n"]

    def __add__(self, other: "Pixels") -> "Pixels":
        return Pixels(torch.cat([self.logits, other.logits]), torch.cat([self.truth, other.truth]))

    def loss(self, temperature: float) -> float:
        """Return the mean negative log-likelihood at ``temperature``."""
        scaled = self.logits / temperature
        if scaled.shape[1] > 1:
            return float(F.cross_entropy(scaled, self.truth))
        return float(F.binary_cross_entropy_with_logits(scaled[:, 0], self.truth.double()))

    def calibration(self, temperature: float) -> Calibration:
        """Return the calibration of the pixels at ``temperature``."""
        scaled = self.logits / temperature
        if scaled.shape[1] > 1:
            probabilities = scaled.softmax(1)
        else:
            foreground = scaled[:, 0].sigmoid()
            probabilities = torch.stack([1 - foreground, foreground], 1)
        valid = torch.ones(1, len(scaled), dtype=torch.bool)
        return count_bins(probabilities.float().T[:, None], self.truth[None], valid)


def pixels_of(probabilities: Float[Tensor, "classes *size"], sample: Sample, spec: ModelSpec) -> Pixels:
    """Return logits and truth of some valid pixels of one picture, drawn by its content."""
    assert sample.mask is not None
    places = sample.valid.flatten().nonzero()[:, 0]
    generator = content_generator(sample.image, 0, "temperature")
    chosen = places[torch.randperm(len(places), generator=generator)[:PIXELS]]
    flat = probabilities.flatten(1)[:, chosen].double().clamp(SMALLEST, 1 - SMALLEST)
    if spec.head == "softmax":
        return Pixels(flat.log().T, sample.mask.flatten()[chosen])
    labels = range(1, spec.outputs + 1)
    dims = sample.valid.ndim
    truth = [of_class(sample.mask, label, dims).flatten()[chosen].long() for label in labels]
    return Pixels(torch.logit(flat[1:]).reshape(-1, 1), torch.cat(truth))


def best_temperature(pixels: Pixels) -> float:
    """Return the temperature of the least negative log-likelihood (Guo et al. 2017, section 4.2).

    The loss is convex in its inverse, so that the one minimum is found. Where that is at an end of `RANGE`,
    as where every pixel is right, there is none, and the temperature is 1.
    """
    ends = tuple(np.log(RANGE))
    found = minimize_scalar(lambda log: pixels.loss(float(np.exp(log))), bounds=ends, method="bounded")
    inside = ends[0] + CLOSE < found.x < ends[1] - CLOSE
    return float(np.exp(found.x)) if inside else 1.0


def calibrated(pixels: Sequence[Pixels]) -> dict[str, float]:
    """Return the temperature with loss and calibration errors before and after, over all pixels."""
    every = sum(pixels[1:], start=pixels[0])
    temperature = best_temperature(every)
    before, after = (every.calibration(each) for each in (1.0, temperature))
    return {
        "temperature": temperature,
        "pixels": len(every.truth),
        "loss_before": every.loss(1.0),
        "loss_after": every.loss(temperature),
        "error_before": before.error(),
        "error_after": after.error(),
    }

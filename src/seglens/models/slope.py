"""Whether the gradient of somebody else's network is the slope of its answer: asked when it comes in.

It isn't where a path is detached, where a part computes its backward pass by another function than its
forward pass (straight-through estimators, gradient reversal), or where hooks change gradients. Maps by
gradients then show a part of what the network does, or something else, and nothing in them shows it.
"""

import copy
import math
import warnings

import torch
from torch import Tensor

from seglens.axes import padded_size
from seglens.errors import ModelError, SeglensWarning
from seglens.models.probing import gradients_of, uncompiled
from seglens.models.segmenter import Segmenter, evaluating
from seglens.shapes import Images

DIRECTIONS = 3
"""Random directions, since of what is cut one alone may see next to nothing; and the picture itself, along
which a scale or a mean of pictures changes that is taken for a constant."""
STEPS = (1e-5, 1e-6, 1e-7)
"""Of the central differences, of pictures in [0, 1]. In float64 they agree wherever there is a slope."""
AGREE, APART = 0.01, 0.05
"""How far slopes of two steps may differ, and from which on a gradient is another one; over its norm."""
LOST = 1e-14
"""What of a score is rounding in float64, as a share of what is summed."""
ALIKE = 0.05
"""How far the answer in float64 may be from that of half precision, as a share of the largest logit."""
SMALL = {2: 64, 3: 32}
"""Pixels a side, where the network takes them: what is cut is cut at every size."""
_WEIGHTS, _PIXELS = 100_000_000, 512**2
"""A copy in float64 of more weights than these, or a run on more pixels, takes too long."""
_FAILURES = (RuntimeError, ValueError, TypeError, AssertionError, LookupError, AttributeError)
"""What a network may raise that can't be copied, or has no float64."""


def warn_of_gradients(segmenter: Segmenter) -> None:
    """Warn where the gradient of a network is certainly not the slope of its answer.

    Where that can't be told, nothing is said: of a network without gradients, which methods that need one
    refuse; of one that has no copy in float64; and where central differences don't agree among themselves.
    """
    apart = gradient_error(segmenter)
    if apart is not None and apart > APART:
        warnings.warn(
            f"The network's gradient is not the slope of its answer: off by up to {apart:.0%} of its norm in "
            f"{DIRECTIONS + 1} directions, by central differences. So it is where a path is cut (detach, "
            ".data, no_grad, numpy), or a part or a hook has a gradient of its own (straight-through "
            "estimators, gradient reversal). Maps by gradients don't show all that the network looks at. "
            "Correct it, or take methods without gradients: occlusion, superpixel-occlusion, rise, shapley.",
            SeglensWarning,
            stacklevel=4,
        )


def gradient_error(segmenter: Segmenter) -> float | None:
    """Return ``max_D |(S(x + hD) - S(x - hD)) / 2h - g D| / max(|g|, |slope|)`` in float64; None if unknown.

    S sums the logits for a picture x of noise, weighed at random, every second channel below 0. D is x itself
    or noise, of unit power, so that ``g D`` of noise has the deviation ``|g|``. A direction in which the
    slopes of all `STEPS` don't agree counts as no error.
    """
    spec = segmenter.spec
    if sum(each.numel() for each in segmenter.parameters()) > _WEIGHTS:
        return None
    small = padded_size([min(side, SMALL[spec.dims]) for side in spec.sides], spec.divisor)
    own = padded_size(spec.sides, spec.divisor)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's about weights of a script, that are none of ours
            wide = copy.deepcopy(segmenter).to("cpu", torch.float64).requires_grad_(False)
    except _FAILURES:  # what can't be copied, or has no float64
        return None
    for sides in dict.fromkeys([small, own]):
        if math.prod(sides) > _PIXELS:
            continue
        try:
            found = _error(wide, sides)
            images = torch.rand(1, spec.channels, *sides, generator=torch.Generator().manual_seed(0))
            return found if not found or _same_answer(segmenter, wide, images) else None
        except (*_FAILURES, ModelError):  # it takes pictures of one size only, or computes in no float64
            continue
    return None


def float64_copy(segmenter: Segmenter, images: Images) -> tuple[Segmenter | str, Images]:
    """Return a copy in float64 on the CPU, and ``images`` for it; in place of a copy, why there is none."""
    images = images.to("cpu", torch.float64)
    try:
        wide = copy.deepcopy(segmenter).to("cpu", torch.float64)
        if _same_answer(segmenter, wide, images):
            return wide, images
    except _FAILURES as error:
        return f"it has no copy in float64: {type(error).__name__}", images
    return "its copy in float64 answers otherwise", images


def _same_answer(segmenter: Segmenter, wide: Segmenter, images: Images) -> bool:
    """Whether the copy in float64 answers as the network does; an attention may misread masks in float32."""
    with torch.no_grad(), uncompiled(), torch.random.fork_rng(devices=[]):
        with evaluating(segmenter):
            own = segmenter(images.to(segmenter.device, torch.float32)).double().cpu()
        with evaluating(wide):
            other = wide(images.to("cpu", torch.float64))
    return bool((own - other).abs().max() <= ALIKE * other.abs().max())


def _error(wide: Segmenter, sides: tuple[int, ...]) -> float | None:
    chance = torch.Generator().manual_seed(0)
    images = torch.rand(1, wide.spec.channels, *sides, generator=chance, dtype=torch.float64)
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast("cpu", enabled=False),
        torch.random.fork_rng(devices=[]),
        uncompiled(),
        evaluating(wide),
    ):
        inputs = images.clone().requires_grad_()
        logits = wide(inputs)
        if not logits.requires_grad:
            return None
        # One sign a channel: what shifts or scales a whole answer would be averaged away.
        weights = torch.rand(logits.shape, generator=chance, dtype=torch.float64)
        weights[:, 1::2] *= -1
        (gradient,) = gradients_of((weights * logits).sum(), [inputs])
        if gradient is None:
            return None

        def score(at: Tensor) -> float:
            with torch.no_grad():
                return float((weights * wide(at)).sum())

        largest, lost = 0.0, LOST * float((weights * logits.detach()).abs().sum())
        alongs = [torch.randn(images.shape, generator=chance, dtype=torch.float64) for _ in range(DIRECTIONS)]
        for along in (images / images.square().mean().sqrt(), *alongs):
            expected, slopes = float((gradient * along).sum()), list[float]()
            for step in STEPS:
                slopes.append((score(images + step * along) - score(images - step * along)) / (2 * step))
                scale = max(float(gradient.norm()), abs(slopes[-1]))
                if abs(slopes[-1] - expected) <= max(APART * scale, lost / step):
                    break
            else:
                if max(slopes) - min(slopes) <= AGREE * scale:
                    largest = max(largest, abs(slopes[-1] - expected) / scale)
        return largest

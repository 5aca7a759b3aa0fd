"""What each method costs: how often one picture goes through the model. It follows from the settings.

`COSTS` at the foot has a line for every settings class. All that need no settings share one trace.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from jaxtyping import Int
from torch import Tensor

from seglens.axes import size_of
from seglens.explain.ablation import AblationCam
from seglens.explain.channels import ScoreCam, taps
from seglens.explain.extremal import AREAS, ExtremalMask
from seglens.explain.fused import FusedHiResCam
from seglens.explain.integrated import IntegratedGradients
from seglens.explain.lrp import Lrp
from seglens.explain.masked import SAMPLE
from seglens.explain.occlusion import Occlusion, SuperpixelOcclusion, sides_of
from seglens.explain.passes import Pass
from seglens.explain.rise import Rise
from seglens.explain.sampled import ExpectedGradients, SmoothGrad
from seglens.explain.shapley import Shapley, copies_of
from seglens.models.segmenter import Segmenter
from seglens.runtime.device import choose_precision
from seglens.shapes import Images
from seglens.superpixels import superpixels


@dataclass(frozen=True)
class Cost:
    """Passes of one picture through the model, for all layers and targets.

    ``plain`` are forward passes without a graph, ``graded`` those that a backward pass follows for each
    target; ``extra`` is how many more graded ones may come where a method goes on until it is good enough.
    Plain ones besides: ``once`` for each call of `explain`, ``chunk`` for each chunk of pictures in it, and
    ``lone`` where that holds a single one. ``apart``: no two targets share a pass.
    """

    plain: int | Fraction = 0
    graded: int = 0
    extra: int = 0
    once: int = 0
    chunk: int = 0
    lone: int = 0
    apart: bool = False

    def forwards(self, num: int, per_call: int, batch_size: int) -> int:
        """Return all that are certain, for ``num`` pictures that go to `explain` ``per_call`` at a time."""
        calls = [min(per_call, num - begin) for begin in range(0, num, per_call)]
        chunks = [min(batch_size, call - begin) for call in calls for begin in range(0, call, batch_size)]
        each = math.ceil((self.plain + self.graded) * num)
        return each + self.once * len(calls) + self.chunk * len(chunks) + self.lone * chunks.count(1)


def cost_of(step: Pass, segmenter: Segmenter, images: Images) -> Cost:
    """Return what ``step`` costs on pictures like ``images``.

    Where it has layers and settings, the model runs on the first picture to see how many channels they have.
    """
    if step.settings is None:
        return Cost(graded=1)
    seen = taps(segmenter, images[:1].to(segmenter.device), step.layers) if step.layers else {}
    channels = [activation.shape[1] for activation, _ in seen.values()]
    return COSTS[type(step.settings)](step.settings, images, channels)


def integrated(settings: IntegratedGradients) -> Cost:
    """Count the steps on the path from each baseline, and the scores of picture and baselines."""
    draws = settings.draws if settings.baseline == "random" else 1
    steps, more = settings.steps * draws, 0
    if settings.tolerance is not None:
        doublings = int(math.log2(settings.max_steps / settings.steps))
        more = steps * 2 * (2**doublings - 1)
    return Cost(plain=1 + draws, graded=steps, extra=more)


def score_cam(settings: ScoreCam, images: Images, channels: Sequence[int]) -> Cost:
    """Count a pass that reads the layers; for each layer its channels and an empty picture.

    Where it ends early, that is the most; each layer takes a gradient besides.
    """
    plain = 1 + sum(channels) + len(channels) + _again(settings.precision, images, channels)
    return Cost(plain=plain, graded=0 if settings.settle is None else len(channels))


def ablation_cam(settings: AblationCam, images: Images, channels: Sequence[int]) -> Cost:
    """Count a pass that reads the layers; for each its channels, the picture, and 4 that try what replays.

    Those take one copy more for each chunk of pictures, and two more where it holds a single one.
    """
    plain = 1 + sum(channels) + 5 * len(channels) + _again(settings.precision, images, channels)
    return Cost(plain=plain, chunk=len(channels), lone=2 * len(channels))


def occlusion(settings: Occlusion, images: Images) -> Cost:
    """Count the windows, and the whole picture."""
    sides = sides_of(settings, size_of(images))
    num = math.prod(max(0, math.ceil((length - window) / stride)) + 1 for length, window, stride in sides)
    return Cost(plain=num + 1 + _again(settings.precision, images, [num]))


def superpixel_occlusion(settings: SuperpixelOcclusion, images: Images) -> Cost:
    """Count the superpixels, as many as the pictures given have in the mean, and the whole picture."""
    return _for_each_copy(settings, images, _counts(settings, images).tolist())


def shapley(settings: Shapley, images: Images) -> Cost:
    """Count the steps of all orders, everything hidden, and the whole picture."""
    return _for_each_copy(settings, images, copies_of(settings.pairs, _counts(settings, images)).tolist())


def _counts(settings: SuperpixelOcclusion | Shapley, images: Images) -> Int[Tensor, " b"]:
    """How many superpixels each picture has."""
    segments = superpixels(images, num_segments=settings.num_segments, compactness=settings.compactness)
    return segments.flatten(1).amax(1) + 1


def _for_each_copy(settings: SuperpixelOcclusion | Shapley, images: Images, found: list[int]) -> Cost:
    """The copies of each picture, those that are scored in float32 again, and the whole picture."""
    again = sum(_again(settings.precision, images, [num]) for num in found)
    return Cost(plain=Fraction(sum(found) + again, len(found)) + 1)


def _again(precision: str, images: Images, copies: Iterable[int]) -> int:
    """Copies that are scored in float32 as well where the model runs in bfloat16."""
    mixed = choose_precision(precision, images.device) == "bf16"
    return sum(min(SAMPLE, num) for num in copies) if mixed else 0


COSTS: dict[type, Callable[[Any, Images, Sequence[int]], Cost]] = {
    IntegratedGradients: lambda settings, *_: integrated(settings),
    SmoothGrad: lambda settings, *_: Cost(graded=settings.num_samples),  # the noisy copies
    # The picture, points between it and the references and, once, these.
    ExpectedGradients: lambda settings, *_: Cost(
        plain=1,
        graded=settings.num_samples,
        once=0 if settings.references is None else len(settings.references),
    ),
    ScoreCam: score_cam,
    AblationCam: ablation_cam,
    Occlusion: lambda settings, images, _: occlusion(settings, images),
    SuperpixelOcclusion: lambda settings, images, _: superpixel_occlusion(settings, images),
    Rise: lambda settings, images, _: Cost(
        plain=settings.num_masks + _again(settings.precision, images, [settings.num_masks])
    ),
    Shapley: lambda settings, images, _: shapley(settings, images),
    # Both ends of each step, then both ends of all areas, the picture and what stands in its place.
    ExtremalMask: lambda settings, *_: Cost(plain=2 * len(AREAS) + 2, graded=2 * settings.steps, apart=True),
    FusedHiResCam: lambda *_: Cost(graded=1),
    Lrp: lambda *_: Cost(graded=1),
}
"""What the methods with settings cost, by settings, pictures and the channels of each layer.

To add one: one function, one line.
"""

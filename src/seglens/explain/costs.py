"""What each method costs: how often one picture goes through the model, before anything is run.

`COSTS` at the foot has a line for every settings class. All that need no settings share one trace.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from seglens.axes import count, size_of
from seglens.explain.ablation import AblationCam
from seglens.explain.channels import ScoreCam
from seglens.explain.integrated import IntegratedGradients
from seglens.explain.masked import SAMPLE
from seglens.explain.occlusion import Occlusion, SuperpixelOcclusion, sides_of
from seglens.explain.passes import Pass
from seglens.explain.rise import BLOCK, Rise
from seglens.explain.sampled import ExpectedGradients, SmoothGrad
from seglens.explain.target import Target
from seglens.explain.trace import trace
from seglens.models.segmenter import Segmenter
from seglens.runtime.device import choose_precision
from seglens.shapes import Images
from seglens.superpixels import superpixels


@dataclass(frozen=True)
class Cost:
    """Passes of one picture through the model, for all layers and targets.

    ``plain`` are forward passes without a graph, ``graded`` those that backward passes follow, ``backwards``
    of them in all; ``once`` are plain ones that a call of `explain` takes, however many its pictures.
    Where a method goes on until it is good enough, ``extra`` is how many more graded ones it may take.
    ``after`` is what it takes besides in bytes, when the model is done; ``least`` are the pictures that are
    in the model at once in any case.
    """

    plain: int = 0
    graded: int = 0
    backwards: int = 0
    once: int = 0
    extra: int = 0
    after: int = 0
    least: int = 1

    def forwards(self, pictures: int, calls: int = 1) -> int:
        """All forward passes that are certain, for this many pictures in so many calls of `explain`."""
        return (self.plain + self.graded) * pictures + self.once * calls


@dataclass(frozen=True, eq=False)
class Scene:
    """What costs depend on: pictures on the model's device, targets, and the channels of each layer."""

    images: Images
    targets: int
    channels: Mapping[str, int] = field(default_factory=dict)


def cost_of(step: Pass, segmenter: Segmenter, images: Images, targets: int) -> Cost:
    """Return what ``step`` costs for ``targets`` of them: the trace a forward pass, and a backward pass each.

    Where it has layers and settings, the model runs on the first picture to see how many channels they have.
    """
    if step.settings is None:
        return Cost(graded=1, backwards=targets)
    channels = _channels(segmenter, images, step.layers) if step.layers else {}
    return COSTS[type(step.settings)](step.settings, Scene(images, targets, channels))


def _channels(segmenter: Segmenter, images: Images, layers: Sequence[str]) -> dict[str, int]:
    everywhere = torch.ones(1, *size_of(images), dtype=torch.bool)
    taps = trace(segmenter, images[:1], [Target("all", 1, everywhere)], layers)[0].taps
    return {name: tap.activation.shape[1] for name, tap in taps.items()}


def integrated(settings: IntegratedGradients, scene: Scene) -> Cost:
    """Steps on the path from each baseline, and the scores of picture and baselines."""
    draws = settings.draws if settings.baseline == "random" else 1
    steps, more = settings.steps * draws, 0
    if settings.tolerance is not None:
        doublings = int(math.log2(settings.max_steps / settings.steps))
        more = steps * 2 * (2**doublings - 1)
    return Cost(plain=1 + draws, graded=steps, backwards=steps * scene.targets, extra=more)


def smooth(settings: SmoothGrad, scene: Scene) -> Cost:
    """The noisy copies."""
    return Cost(graded=settings.num_samples, backwards=settings.num_samples * scene.targets)


def expected(settings: ExpectedGradients, scene: Scene) -> Cost:
    """The points between picture and references; the score of the picture, and once of the references."""
    num = 0 if settings.references is None else len(settings.references)
    return Cost(
        plain=1, graded=settings.num_samples, backwards=settings.num_samples * scene.targets, once=num
    )


def score_cam(settings: ScoreCam, scene: Scene) -> Cost:
    """A look at the layers; for each layer its channels and an empty picture."""
    channels = scene.channels.values()
    return Cost(plain=1 + sum(channels) + len(channels) + _again(settings.precision, scene, channels))


def ablation_cam(settings: AblationCam, scene: Scene) -> Cost:
    """A look at the layers; for each its channels, the whole picture, and 4 to find out what can be replayed.

    Those take one copy more for each chunk of pictures, three more where it holds a single one.
    """
    channels = scene.channels.values()
    plain = 1 + sum(channels) + 5 * len(channels)
    return Cost(plain=plain + _again(settings.precision, scene, channels), once=len(channels), least=2)


def occlusion(settings: Occlusion, scene: Scene) -> Cost:
    """The windows, and the whole picture."""
    sides = sides_of(settings, size_of(scene.images))
    num = math.prod(max(0, math.ceil((length - window) / stride)) + 1 for length, window, stride in sides)
    return Cost(plain=num + 1 + _again(settings.precision, scene, [num]))


def superpixel_occlusion(settings: SuperpixelOcclusion, scene: Scene) -> Cost:
    """The superpixels, and the whole picture: their mean number in the pictures given, rounded up."""
    segments = superpixels(scene.images, num_segments=settings.num_segments, compactness=settings.compactness)
    num = math.ceil((segments.flatten(1).amax(1) + 1).double().mean().item())
    return Cost(plain=num + 1 + _again(settings.precision, scene, [num]))


def rise(settings: Rise, scene: Scene) -> Cost:
    """The masks, which are made again to be summed up."""
    again = _again(settings.precision, scene, [settings.num_masks])
    return Cost(plain=settings.num_masks + again, after=4 * BLOCK * count(size_of(scene.images)) * 4)


def _again(precision: str, scene: Scene, copies: Iterable[int]) -> int:
    """Copies that are scored in float32 as well where the model runs in bfloat16."""
    mixed = choose_precision(precision, scene.images.device) == "bf16"
    return sum(min(SAMPLE, num) for num in copies) if mixed else 0


COSTS: dict[type, Callable[[Any, Scene], Cost]] = {
    IntegratedGradients: integrated,
    SmoothGrad: smooth,
    ExpectedGradients: expected,
    ScoreCam: score_cam,
    AblationCam: ablation_cam,
    Occlusion: occlusion,
    SuperpixelOcclusion: superpixel_occlusion,
    Rise: rise,
}
"""What the methods with settings cost. To add one: one function, one line."""

"""What each method costs: how often one picture goes through the model. It follows from the settings.

`COSTS` at the foot has a line for every settings class. All that need no settings share one trace.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from seglens.axes import size_of
from seglens.explain.ablation import AblationCam
from seglens.explain.channels import ScoreCam, taps
from seglens.explain.integrated import IntegratedGradients
from seglens.explain.masked import SAMPLE
from seglens.explain.occlusion import Occlusion, SuperpixelOcclusion, sides_of
from seglens.explain.passes import Pass
from seglens.explain.rise import Rise
from seglens.explain.sampled import ExpectedGradients, SmoothGrad
from seglens.models.segmenter import Segmenter
from seglens.runtime.device import choose_precision
from seglens.shapes import Images
from seglens.superpixels import superpixels


@dataclass(frozen=True)
class Cost:
    """Passes of one picture through the model, for all layers and targets.

    ``plain`` are forward passes without a graph, ``graded`` those that backward passes follow, ``backwards``
    of them in all; ``extra`` is how many more graded ones may come where a method goes on until it is good
    enough. Plain ones besides: ``once`` for each call of `explain`, ``chunk`` for each chunk of pictures in
    it, and ``lone`` where that holds a single one.
    """

    plain: int | Fraction = 0
    graded: int = 0
    backwards: int = 0
    extra: int = 0
    once: int = 0
    chunk: int = 0
    lone: int = 0

    def forwards(self, num: int, per_call: int, batch_size: int) -> int:
        """Return all that are certain, for ``num`` pictures that go to `explain` ``per_call`` at a time."""
        calls = [min(per_call, num - begin) for begin in range(0, num, per_call)]
        chunks = [min(batch_size, call - begin) for call in calls for begin in range(0, call, batch_size)]
        each = math.ceil((self.plain + self.graded) * num)
        return each + self.once * len(calls) + self.chunk * len(chunks) + self.lone * chunks.count(1)


@dataclass(frozen=True, eq=False)
class Scene:
    """What costs depend on: some of the pictures, the number of targets, the channels of each layer."""

    images: Images
    targets: int
    channels: Mapping[str, int] = field(default_factory=dict)


def cost_of(step: Pass, segmenter: Segmenter, images: Images, targets: int) -> Cost:
    """Return what ``step`` costs for ``targets`` of them: the trace a forward pass, and a backward pass each.

    Where it has layers and settings, the model runs on the first picture to see how many channels they have.
    """
    if step.settings is None:
        return Cost(graded=1, backwards=targets)
    seen = taps(segmenter, images[:1].to(segmenter.device), step.layers) if step.layers else {}
    channels = {name: activation.shape[1] for name, (activation, _) in seen.items()}
    return COSTS[type(step.settings)](step.settings, Scene(images, targets, channels))


def integrated(settings: IntegratedGradients, scene: Scene) -> Cost:
    """Count the steps on the path from each baseline, and the scores of picture and baselines."""
    draws = settings.draws if settings.baseline == "random" else 1
    steps, more = settings.steps * draws, 0
    if settings.tolerance is not None:
        doublings = int(math.log2(settings.max_steps / settings.steps))
        more = steps * 2 * (2**doublings - 1)
    return Cost(plain=1 + draws, graded=steps, backwards=steps * scene.targets, extra=more)


def smooth(settings: SmoothGrad, scene: Scene) -> Cost:
    """Count the noisy copies."""
    return Cost(graded=settings.num_samples, backwards=settings.num_samples * scene.targets)


def expected(settings: ExpectedGradients, scene: Scene) -> Cost:
    """Count the points between picture and references, the picture itself, and once the references."""
    num = 0 if settings.references is None else len(settings.references)
    return Cost(1, settings.num_samples, settings.num_samples * scene.targets, once=num)


def score_cam(settings: ScoreCam, scene: Scene) -> Cost:
    """Count one pass that reads the layers, then for each layer its channels and an empty picture."""
    channels = scene.channels.values()
    return Cost(plain=1 + sum(channels) + len(channels) + _again(settings.precision, scene, channels))


def ablation_cam(settings: AblationCam, scene: Scene) -> Cost:
    """Count a pass that reads the layers; for each its channels, the picture, and 4 that try what replays.

    Those take one copy more for each chunk of pictures, and two more where it holds a single one.
    """
    channels = scene.channels.values()
    plain = 1 + sum(channels) + 5 * len(channels) + _again(settings.precision, scene, channels)
    return Cost(plain=plain, chunk=len(channels), lone=2 * len(channels))


def occlusion(settings: Occlusion, scene: Scene) -> Cost:
    """Count the windows, and the whole picture."""
    sides = sides_of(settings, size_of(scene.images))
    num = math.prod(max(0, math.ceil((length - window) / stride)) + 1 for length, window, stride in sides)
    return Cost(plain=num + 1 + _again(settings.precision, scene, [num]))


def superpixel_occlusion(settings: SuperpixelOcclusion, scene: Scene) -> Cost:
    """The superpixels, as many as the pictures given have in the mean, and the whole picture."""
    segments = superpixels(scene.images, num_segments=settings.num_segments, compactness=settings.compactness)
    found = [int(most) + 1 for most in segments.flatten(1).amax(1)]
    again = sum(_again(settings.precision, scene, [num]) for num in found)
    return Cost(plain=Fraction(sum(found) + again, len(found)) + 1)


def rise(settings: Rise, scene: Scene) -> Cost:
    """Count the masks."""
    return Cost(plain=settings.num_masks + _again(settings.precision, scene, [settings.num_masks]))


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

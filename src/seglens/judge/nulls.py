"""What an explanation must beat: maps that never saw how the model works.

A *content-free* map knows at most the picture and the model's own answer. `NULLS` at the foot names them
all; the scorecard prints each one as a row of its own. The null of a method itself is that method on a
model with `randomised` weights, the frozen region kept.
"""

import copy
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool
from scipy.ndimage import distance_transform_edt
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from seglens.explain.cams import upsample
from seglens.explain.target import Target
from seglens.models.segmenter import evaluating
from seglens.runs import Run
from seglens.seeds import content_uniform
from seglens.shapes import Images, Maps, Regions

BLOB_SIGMA = 1 / 7
"""Width of the centre blob as a share of each side: a centred object of 6 % area gets a ratio near 9."""


@dataclass(frozen=True)
class NullInputs:
    """What a content-free map is made from: the pictures, the frozen region, the probability of the class."""

    images: Images
    pixels: Regions
    probability: Maps
    seed: int = 0


def null_inputs(run: Run, images: Images, target: Target, *, seed: int = 0) -> NullInputs:
    """Gather what the content-free maps need; the model is run once on ``images``."""
    probability = run.predict(images).probabilities[:, target.class_index]
    return NullInputs(images, target.pixels.to(probability.device), probability, seed)


def random_map(inputs: NullInputs) -> Maps:
    """Uniform noise per pixel, keyed by seed and picture."""
    return content_uniform(inputs.images, tuple(inputs.images.shape[-2:]), inputs.seed, "random map")


def centre(inputs: NullInputs) -> Maps:
    """A Gaussian blob in the middle, the same for every picture."""
    batch, _, height, width = inputs.images.shape
    rows = torch.linspace(-0.5, 0.5, height, device=inputs.images.device) / BLOB_SIGMA
    columns = torch.linspace(-0.5, 0.5, width, device=inputs.images.device) / BLOB_SIGMA
    blob = torch.exp(-0.5 * (rows[:, None] ** 2 + columns[None, :] ** 2))
    return blob.expand(batch, height, width).contiguous()


def edges(inputs: NullInputs) -> Maps:
    """Strength of the Sobel filter on the mean of the channels."""
    grey = F.pad(inputs.images.float().mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    sobel = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]], device=grey.device) / 8
    across = F.conv2d(grey, sobel[None, None])
    down = F.conv2d(grey, sobel.T[None, None])
    return torch.hypot(across, down)[:, 0]


def mirror(pixels: Regions, grid: tuple[int, int]) -> Maps:
    """The frozen region averaged on ``grid`` (rows, columns) and brought back as a CAM would be.

    This is what a layer with that grid would show if all it did were to restate the prediction.
    """
    _, height, width = pixels.shape
    return upsample(F.adaptive_avg_pool2d(pixels.float()[:, None], grid)[:, 0], (height, width))


def mirror_of_stride(stride: int) -> Callable[[NullInputs], Maps]:
    """Return the mirror on a grid of cells of ``stride`` pixels."""

    def map_of(inputs: NullInputs) -> Maps:
        height, width = inputs.pixels.shape[-2:]
        return mirror(inputs.pixels, (-(-height // stride), -(-width // stride)))

    return map_of


def distance(inputs: NullInputs) -> Maps:
    """Depth inside the frozen region: the distance in pixels to the nearest pixel outside of it."""
    regions = inputs.pixels.cpu().numpy()
    depth = np.stack([distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1] for region in regions])
    return torch.from_numpy(depth.astype(np.float32)).to(inputs.pixels.device)


def probability(inputs: NullInputs) -> Maps:
    """The probability of the target's class, which is the model's answer before the threshold."""
    return inputs.probability.float()


def content_free(inputs: NullInputs) -> dict[str, Maps]:
    """Return every map of `NULLS` for the pictures of ``inputs``."""
    return {name: null(inputs) for name, null in NULLS.items()}


def other_images(maps: Maps, usable: Bool[Tensor, " b"], shift: int) -> Maps:
    """Give each usable picture the map of another one, ``shift`` places further in the batch.

    ``usable Bool[b]`` says which rows hold a map; the others become NaN. With fewer than two usable maps
    there is no other picture, and all is NaN.
    """
    rows = usable.nonzero()[:, 0]
    moved = torch.full_like(maps, torch.nan)
    if len(rows) > 1:
        moved[rows] = maps[rows.roll(-(1 + (shift - 1) % (len(rows) - 1)))]
    return moved


@torch.no_grad()
def randomised(run: Run, images: Images, *, seed: int = 0, only: Collection[str] | None = None) -> Run:
    """Return a copy of ``run`` with fresh weights; ``run`` itself and the global RNG stay as they are.

    ``only`` names the modules of the network that are drawn anew (all by default), the others stay trained.
    Every module draws its weights anew by its own rule of initialisation. Batch normalisation then takes
    its statistics from ``images``: with those of the trained model the activations would explode or die,
    and the map would show that rather than what the architecture does by itself. Explain it with the
    **same** `Target` as the trained model: its frozen region must not move.
    """
    segmenter = copy.deepcopy(run.segmenter).requires_grad_(False)
    devices = [segmenter.device] if segmenter.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        for name, module in segmenter.module.named_modules():
            if only is None or name in only:
                _reset(module)
    with _estimating(segmenter):
        # A lone picture may leave a single value per channel, of which there is no variance.
        segmenter((images if len(images) > 1 else torch.cat([images, images])).to(segmenter.device))
    return replace(run, segmenter=segmenter, folder=None)


def _reset(module: nn.Module) -> None:
    """Draw the weights that ``module`` itself owns anew."""
    reset = getattr(module, "reset_parameters", None)
    if callable(reset):
        reset()
        return
    for parameter in module.parameters(recurse=False):
        # A bare parameter has no rule of its own: noise of the size that it had.
        nn.init.normal_(parameter, std=float(parameter.float().square().mean().sqrt()))


@contextmanager
def _estimating(module: nn.Module) -> Iterator[None]:
    """Let the batch normalisations below ``module`` take their statistics from what passes."""
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    with evaluating(module):
        for norm in norms:
            norm.reset_running_stats()
            norm.train()
            norm.momentum = None  # the plain mean over all that passes
        yield
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


NULLS: dict[str, Callable[[NullInputs], Maps]] = {
    "random": random_map,
    "centre": centre,
    "edges": edges,
    "mirror-1": mirror_of_stride(1),
    "mirror-4": mirror_of_stride(4),
    "mirror-16": mirror_of_stride(16),
    "mirror-32": mirror_of_stride(32),
    "distance": distance,
    "probability": probability,
}
"""The reference rows of every scorecard. To add one: one function, one line."""

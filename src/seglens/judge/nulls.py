"""Null maps, which an explanation must beat: maps that never saw how the model works.

A *content-free* map knows at most the picture and the model's own answer. `NULLS` at the foot names them
all; the scorecard prints each one as a row of its own. The null of a method itself is that method on a
model with `randomised` weights, the frozen region kept.
"""

import copy
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool
from scipy.ndimage import distance_transform_edt
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from seglens.axes import CONVOLVE, MEAN_ON_GRID, size_of
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
    return content_uniform(inputs.images, size_of(inputs.images), inputs.seed, "random map")


def centre(inputs: NullInputs) -> Maps:
    """A Gaussian blob in the middle, the same for every picture."""
    lines = [
        (torch.linspace(-0.5, 0.5, length, device=inputs.images.device) / BLOB_SIGMA) ** 2
        for length in size_of(inputs.images)
    ]
    blob = torch.exp(-0.5 * reduce(lambda found, line: found[..., None] + line, lines))
    return blob.expand(len(inputs.images), *blob.shape).contiguous()


def edges(inputs: NullInputs) -> Maps:
    """Strength of the Sobel filter on the mean of the channels.

    Along each axis the difference [1, 0, -1] / 2, smoothed by [1, 2, 1] / 4 along the others.
    """
    grey, dims = inputs.images.float().mean(1, keepdim=True), inputs.images.ndim - 2
    padded = F.pad(grey, (1, 1) * dims, mode="replicate")
    step, smooth = torch.tensor([0.5, 0, -0.5]), torch.tensor([0.25, 0.5, 0.25])
    found = []
    for along in reversed(range(dims)):
        lines = [step if axis == along else smooth for axis in range(dims)]
        kernel = reduce(lambda found, line: found[..., None] * line, lines).to(grey.device)
        found.append(CONVOLVE[dims](padded, kernel[None, None]))
    return reduce(torch.hypot, found)[:, 0]


def mirror(pixels: Regions, grid: Sequence[int]) -> Maps:
    """The frozen region averaged on ``grid`` (rows, columns) and brought back as a CAM would be.

    This is what a layer with that grid would show if all it did were to restate the prediction.
    """
    coarse = MEAN_ON_GRID[pixels.ndim - 1](pixels.float()[:, None], tuple(grid))[:, 0]
    return upsample(coarse, size_of(pixels, 1))


def mirror_of_stride(stride: int) -> Callable[[NullInputs], Maps]:
    """Return the mirror on a grid of cells of ``stride`` pixels."""

    def map_of(inputs: NullInputs) -> Maps:
        return mirror(inputs.pixels, [-(-length // stride) for length in size_of(inputs.pixels, 1)])

    return map_of


def distance(inputs: NullInputs) -> Maps:
    """Depth inside the frozen region: the distance in pixels to the nearest pixel outside of it."""
    regions = inputs.pixels.cpu().numpy()
    padded = np.pad(regions, [(0, 0), *[(1, 1)] * (regions.ndim - 1)])
    inner = (slice(1, -1),) * (regions.ndim - 1)
    depth = np.stack([distance_transform_edt(region)[inner] for region in padded])
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


def has_weights(run: Run) -> bool:
    """Whether the network has weights that can be drawn anew; one that is a file with its own code hasn't."""
    return any(True for _ in run.segmenter.module.parameters())


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

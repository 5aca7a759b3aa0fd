"""Baselines: pictures that stand for "nothing", where a path to the picture begins.

They live in raw pixel space, before normalisation, so that ``zero`` is black. Each function takes pictures in
[0, 1], a seed, how many to draw, the width of the blur and the millimetres of a pixel along each axis where
they differ, and gives one or more baselines for each picture.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from seglens.axes import axes
from seglens.impute import blur_width, blurred
from seglens.seeds import content_uniform
from seglens.shapes import Images

Baselines = Float[Tensor, "b draws c *size"]


class Baseline(Protocol):
    """What makes baselines."""

    def __call__(
        self, images: Images, seed: int, draws: int, blur: float, spacing: Sequence[float] = ()
    ) -> Baselines:
        """Return one or more for each picture."""
        ...


def zero(images: Images, seed: int, draws: int, blur: float, spacing: Sequence[float] = ()) -> Baselines:
    """Return black pictures."""
    return torch.zeros_like(images)[:, None]


def random(images: Images, seed: int, draws: int, blur: float, spacing: Sequence[float] = ()) -> Baselines:
    """Uniform noise in [0, 1], ``draws`` of them, keyed by seed and picture. Sturmfels et al. 2020."""
    shape = (draws, *images.shape[1:])
    return content_uniform(images, shape, seed, "baseline").to(images.dtype)


def blurry(images: Images, seed: int, draws: int, blur: float, spacing: Sequence[float] = ()) -> Baselines:
    """The picture without its detail: a Gaussian of ``blur`` of the shorter side. Sturmfels et al. 2020.

    Of a volume it is the middle side, and the Gaussian is as wide in millimetres along all axes.
    """
    return blurred(images, blur_width(images, blur, spacing), spacing)[:, None]


def mean(images: Images, seed: int, draws: int, blur: float, spacing: Sequence[float] = ()) -> Baselines:
    """Return pictures of one colour, the mean of each picture."""
    return images.mean(axes(images), keepdim=True).expand_as(images)[:, None]


BASELINES: dict[str, Baseline] = {
    "zero": zero,
    "random": random,
    "blur": blurry,
    "mean": mean,
}
"""Every baseline. To add one: one function, one line."""

NOISY = frozenset({"random"})
"""Baselines of more contrast than pictures have. From others on contrast grows along the path."""

"""Class activation maps: pure functions of a layer's activation ``A`` and its gradient ``g = dS/dA``.

Each takes ``Float[b d gh gw]`` twice and returns the signed grid ``Float[b gh gw]``, **before** any ReLU. S
is the sum of the class's logits over the target's pixels (Seg-Grad-CAM, Vinogradova et al. 2020). `CAMS` at
the foot names them all and says which have a ReLU.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from seglens.shapes import Activations, Grids, Maps, PerImage

SAFE = 1e-3
"""A denominator of Grad-CAM++ below this is no longer one: the weight would be negative or without bound."""


def grad_cam(activation: Activations, gradient: Activations) -> Grids:
    """``sum_k w_k A_k`` with ``w_k = mean over the grid of g_k``. Selvaraju et al. 2017, equations 1 and 2.

    Averaging ignores where the target lies: places that the model did not use can light up (Draelos 2020).
    """
    weights = gradient.mean((2, 3), keepdim=True)
    return (weights * activation).sum(1)


def grad_cam_plus_plus(activation: Activations, gradient: Activations) -> Grids:
    """``sum_k w_k A_k``, ``w_k = sum over the grid of alpha relu(g_k)``. Chattopadhyay 2018, equation 19.

    ``alpha = g^2 / (2 g^2 + g^3 sum(A)) = 1 / (2 + g sum(A))`` where g > 0. The paper's factor exp(S) scales
    all weights alike and overflows above 88, so it is left out. Our deviation: where a negative ``A`` brings
    the denominator within `SAFE` of zero, alpha is 0; `crossed_denominators` tells how often that is near.
    """
    denominator = _denominator(activation, gradient)
    alpha = torch.where(denominator.abs() < SAFE, 0, 1 / denominator)
    weights = (alpha * gradient.relu()).sum((2, 3), keepdim=True)
    return (weights * activation).sum(1)


def hires_cam(activation: Activations, gradient: Activations) -> Grids:
    """``sum_k g_k A_k``. Draelos and Carin 2020, equation 7.

    Where the score is linear in A, the grid sums to the score less the bias.
    """
    return (gradient * activation).sum(1)


def layer_cam(activation: Activations, gradient: Activations) -> Grids:
    """``sum_k relu(g_k) A_k``. Jiang et al. 2021, equations 4 and 5."""
    return (gradient.relu() * activation).sum(1)


def activation_map(activation: Activations, gradient: Activations) -> Grids:
    """``mean_k |A_k|``: how strongly the layer fires, whatever the class and whether or not it matters."""
    return activation.abs().mean(1)


def crossed_denominators(activation: Activations, gradient: Activations) -> PerImage:
    """Share of the positive gradients where the denominator of Grad-CAM++ is below `SAFE`; 0 after a ReLU."""
    positive = gradient > 0
    crossed = positive & (_denominator(activation, gradient) < SAFE)
    return crossed.flatten(1).sum(1) / positive.flatten(1).sum(1).clamp(min=1)


def _denominator(activation: Activations, gradient: Activations) -> Activations:
    """``2 + g sum(A)``."""
    return 2 + gradient * activation.sum((2, 3), keepdim=True)


def upsample(grid: Grids, size: tuple[int, int]) -> Float[Tensor, "b h w"]:
    """Bring grids to ``size`` (rows, columns): bilinear, corners not aligned. Done here and nowhere else."""
    return F.interpolate(grid[:, None], size, mode="bilinear", align_corners=False)[:, 0]


@dataclass(frozen=True)
class Cam:
    """A formula, whether a ReLU follows it, and what it reports about itself (one number per picture)."""

    formula: Callable[[Activations, Activations], Grids]
    relu: bool
    options: tuple[tuple[str, str | float], ...] = ()
    diagnostics: tuple[tuple[str, Callable[[Activations, Activations], PerImage]], ...] = ()

    @property
    def settings(self) -> dict[str, str | float | bool]:
        """What an explanation records about how it was made."""
        return {"relu": self.relu, **dict(self.options)}

    def map_of(self, grid: Grids, size: tuple[int, int]) -> Maps:
        """The map of a grid: first the ReLU, then `upsample` (swapped, a random map changes by 30 %)."""
        return upsample(grid.relu() if self.relu else grid, size)


CAMS: dict[str, Cam] = {
    "grad-cam": Cam(grad_cam, relu=True),
    "grad-cam++": Cam(
        grad_cam_plus_plus, relu=True, diagnostics=(("crossed_denominators", crossed_denominators),)
    ),
    "hires-cam": Cam(hires_cam, relu=True),
    "layer-cam": Cam(layer_cam, relu=True),
    "activation": Cam(activation_map, relu=False),
}
"""Every map that one trace gives. To add one: one function, one line."""

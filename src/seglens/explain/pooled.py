"""CAMs whose channel weights are sums over the grid, as sums over the windows of a large picture.

Each is the formula of its name in ``cams.py``, taken apart: what the windows add to, and the weights that
follow when all have. A cell that several windows see counts as one, by their shares of it; gradients of the
windows add up as they are, because the score is a sum over windows. Sums are in float64, so that the order of
windows changes nothing. `POOLED` at the foot names them all.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from seglens.explain.cams import BALANCED, SAFE
from seglens.shapes import Activations, Grids

Sums = dict[str, Tensor]


@dataclass(frozen=True)
class Pooled:
    """A CAM ``sum_k w_k A_k``: what is summed over all windows, and the weights ``w`` that follow.

    ``sums`` gets A, g and the shares of the cells of some windows; ``everywhere``, it needs all windows.
    ``left`` is what the sums leave of the gradient, as in ``cams.py``.
    """

    sums: Callable[[Activations, Activations, Grids], Sums]
    weights: Callable[[Sums, int], Float[Tensor, " d"]]
    everywhere: bool = False
    left: Callable[[Sums, int], Float[Tensor, ""]] | None = None


def grad_cam(activation: Activations, gradient: Activations, shares: Grids) -> Sums:
    """``sum g_k``, and what it is next to: ``sum |g_k|``."""
    slope = gradient.double()
    return {"g": slope.sum((0, 2, 3)), "|g|": slope.abs().sum((0, 2, 3))}


def xgrad_cam(activation: Activations, gradient: Activations, shares: Grids) -> Sums:
    """``sum g_k A_k`` and ``sum A_k``; and, where the latter is no divisor, what Grad-CAM needs."""
    shared = activation.double() * shares[:, None]
    return {
        "g": gradient.sum((0, 2, 3), dtype=torch.float64),
        "gA": (gradient.double() * activation).sum((0, 2, 3)),
        "|g|": gradient.double().abs().sum((0, 2, 3)),
        "|gA|": (gradient.double() * activation).abs().sum((0, 2, 3)),
        "A": shared.sum((0, 2, 3)),
        "|A|": shared.abs().sum((0, 2, 3)),
    }


def eigen_cam(activation: Activations, gradient: Activations, shares: Grids) -> Sums:
    """The Gram matrix of the channels, and what tells how ``A v`` grows with the energy."""
    rows = activation.double().movedim(1, 3).flatten(0, 2)
    weight, energy = shares.double().flatten(), rows.square().sum(1)
    return {
        "gram": rows.T @ (rows * weight[:, None]),
        "A": weight @ rows,
        "EA": (weight * energy) @ rows,
        "E": (weight @ energy)[None],
    }


def grad_cam_plus_plus(total: Float[Tensor, " d"], gradient: Activations) -> Sums:
    """``sum alpha_k relu(g_k)``: of gradients that are those of the picture already, and all of ``sum A_k``.

    ``alpha = 1 / (2 + g sum(A))``, 0 where that is within `SAFE` of a division by zero.
    """
    slope = gradient.double()
    denominator = 2 + slope * total[:, None, None]
    alpha = torch.where(denominator.abs() < SAFE, 0, 1 / denominator)
    return {"w": (alpha * slope.relu()).sum((0, 2, 3))}


def _weights_of_xgrad(sums: Sums, cells: int) -> Float[Tensor, " d"]:
    return torch.where(sums["A"] <= BALANCED * sums["|A|"], sums["g"] / cells, sums["gA"] / sums["A"])


def _weights_of_eigen(sums: Sums, cells: int) -> Float[Tensor, " d"]:
    vector = torch.linalg.eigh(sums["gram"]).eigenvectors[:, -1]
    grows = vector @ (sums["EA"] - sums["E"] / cells * sums["A"])
    return -vector if grows < 0 else vector


def _left_of_mean(sums: Sums, cells: int) -> Float[Tensor, ""]:
    return sums["g"].abs().sum() / sums["|g|"].sum()


def _left_of_xgrad(sums: Sums, cells: int) -> Float[Tensor, ""]:
    size = sums["|A|"] / cells
    own = sums["A"] > BALANCED * sums["|A|"]
    terms = torch.where(own, sums["gA"], sums["g"] * size)
    return terms.abs().sum() / torch.where(own, sums["|gA|"], sums["|g|"] * size).sum()


POOLED: dict[str, Pooled] = {
    "grad-cam": Pooled(grad_cam, lambda sums, cells: sums["g"] / cells, left=_left_of_mean),
    "xgrad-cam": Pooled(xgrad_cam, _weights_of_xgrad, everywhere=True, left=_left_of_xgrad),
    "eigen-cam": Pooled(eigen_cam, _weights_of_eigen, everywhere=True),
}
"""Every such CAM. To add one: its sums, its weights, one line."""

"""Class activation maps: pure functions of a layer's activation ``A`` and its gradient ``g = dS/dA``.

Each takes ``Float[b d *grid]`` twice and returns the signed grid ``Float[b *grid]``, **before** any ReLU. S
is the sum of the class's logits over the target's pixels (Seg-Grad-CAM, Vinogradova et al. 2020). `CAMS` at
the foot names them all and says which have a ReLU; `SegXResCam` is the one that has settings.

Where the weights of channels follow from sums over the grid, they are taken apart (`Weights`): the sums over
the windows of a large picture add up, and give one set of weights for all of it (``tiled/``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seglens.arguments import check_fields, check_range
from seglens.axes import MAX_POOL, MEAN_POOL, axes, cropped, interpolated, num_pixels, size_of, widened
from seglens.errors import SettingError
from seglens.shapes import Activations, Channels, Grids, Maps, PerImage

SAFE = 1e-3
"""A denominator of Grad-CAM++ below this is no longer one: the weight would be negative or without bound."""

BALANCED = 0.01
"""A sum over the grid below this share of the sum of magnitudes is no divisor: XGrad-CAM's weight could be
100 times the largest gradient."""

Pool = Literal["mean", "max"]

Sums = dict[str, Float[Tensor, "b ..."]]
"""Sums over the grid by name: ``g``, ``gA``, ``|g|``."""


def grad_cam(activation: Activations, gradient: Activations) -> Grids:
    """``sum_k w_k A_k`` with ``w_k = mean over the grid of g_k``. Selvaraju et al. 2017, equations 1 and 2.

    Averaging ignores where the target lies: places that the model did not use can light up (Draelos 2020).
    """
    return projected(activation, MEAN.of(activation, gradient))


def grad_cam_plus_plus(activation: Activations, gradient: Activations) -> Grids:
    """``sum_k w_k A_k``, ``w_k = sum over the grid of alpha relu(g_k)``. Chattopadhyay 2018, equation 19.

    ``alpha = g^2 / (2 g^2 + g^3 sum(A)) = 1 / (2 + g sum(A))`` where g > 0. The paper's factor exp(S) scales
    all weights alike and overflows above 88, so it is left out. Our deviation: where a negative ``A`` brings
    the denominator within `SAFE` of zero, alpha is 0; `crossed_denominators` tells how often that is near.
    """
    return projected(activation, plus_plus_weights(activation.sum(axes(activation)), gradient))


def hires_cam(activation: Activations, gradient: Activations) -> Grids:
    """``sum_k g_k A_k``. Draelos and Carin 2020, equation 7.

    Where the score is linear in A, the grid sums to the score less the bias.
    """
    return (gradient * activation).sum(1)


def layer_cam(activation: Activations, gradient: Activations) -> Grids:
    """``sum_k relu(g_k) A_k``. Jiang et al. 2021, equations 4 and 5."""
    return (gradient.relu() * activation).sum(1)


def xgrad_cam(activation: Activations, gradient: Activations) -> Grids:
    """``sum_k w_k A_k``, ``w_k = sum over the grid of g_k A_k / sum(A_k)``. Fu et al. 2020.

    The weight is the mean of g_k weighted by A_k, which is none where A_k sums to about zero or less. Our
    deviation: there (see `BALANCED`) it is the plain mean, as in Grad-CAM; `unweighted_channels` tells how
    often that is. The grid sums to that of HiResCAM where it is nowhere.
    """
    return projected(activation, WEIGHTED_MEAN.of(activation, gradient))


def eigen_cam(activation: Activations, gradient: Activations) -> Grids:
    """``A v``: the layer, as cells x channels, on its first right singular vector v. Muhammad, Yeasin 2020.

    Class-agnostic: the same whatever the class and the pixels that were asked for, ``gradient`` is unused.
    Not centred, as in the paper. The sign, which an SVD leaves open, makes the grid grow with the energy
    ``sum_k A_k^2``. The vector is one of the smaller of the Gram matrices (cells or channels), in float64.
    """
    return torch.stack([_first_component(one) for one in activation])


def seg_xres_cam(activation: Activations, gradient: Activations, *, window: int, pool: Pool) -> Grids:
    """``sum_k pooled(g_k) A_k``, pooled over blocks of ``window`` cells each way. Hasany et al. 2023.

    Each cell gets its block's mean or max; blocks at the far edges pool what they hold. Window 1
    is HiResCAM; a window as large as the grid, with the mean, is Grad-CAM.
    """
    size = size_of(gradient)
    block = [min(window, length) for length in size]
    if pool == "max":
        pooled = MAX_POOL[len(size)](gradient, block, ceil_mode=True)
    else:
        pooled = MEAN_POOL[len(size)](gradient, block, ceil_mode=True, count_include_pad=False)
    for axis, cells in zip(axes(gradient), block, strict=True):
        pooled = pooled.repeat_interleave(cells, axis)
    return (cropped(pooled, size) * activation).sum(1)


def activation_map(activation: Activations, gradient: Activations) -> Grids:
    """``mean_k |A_k|``: how strongly the layer fires, whatever the class and whether or not it matters."""
    return activation.abs().mean(1)


def crossed_denominators(activation: Activations, gradient: Activations) -> PerImage:
    """Share of the positive gradients where the denominator of Grad-CAM++ is below `SAFE`; 0 after a ReLU."""
    positive = gradient > 0
    crossed = positive & (_denominator(activation.sum(axes(activation)), gradient) < SAFE)
    return crossed.flatten(1).sum(1) / positive.flatten(1).sum(1).clamp(min=1)


def unweighted_channels(activation: Activations, gradient: Activations) -> PerImage:
    """Share of the channels that are not zero throughout where XGrad-CAM's own weight is ill-posed."""
    alive = activation.flatten(2).abs().sum(2) > 0
    unweighted = _sums_to_nothing(sums_of_both(activation, activation)) & alive
    return unweighted.sum(1) / alive.sum(1).clamp(min=1)


def plus_plus_weights(total: Channels, gradient: Activations) -> Channels:
    """``sum alpha_k relu(g_k)`` of `grad_cam_plus_plus`, where each channel of A sums to ``total``."""
    denominator = _denominator(total, gradient)
    alpha = torch.where(denominator.abs() < SAFE, 0, 1 / denominator)
    return (alpha * gradient.relu()).sum(axes(gradient))


@dataclass(frozen=True)
class Weights:
    """Weights of channels that follow from sums over the grid, of which each cell counts by its share.

    ``left`` says what averaging leaves of the gradient. ``everywhere``: the sums are also of cells that the
    gradient doesn't reach.
    """

    sums: Callable[[Activations, Activations, Grids | None], Sums]
    weights: Callable[[Sums, int], Channels]
    left: Callable[[Sums, int], PerImage] | None = None
    everywhere: bool = False

    def of(self, activation: Activations, gradient: Activations) -> Channels:
        """Return the weights where the whole grid is at hand."""
        return self.weights(self.sums(activation, gradient, None), num_pixels(size_of(activation)))

    def left_of(self, activation: Activations, gradient: Activations) -> PerImage:
        """Return what is left of the gradient where it is averaged, one number for each picture."""
        assert self.left is not None  # it is asked for where it is named
        return self.left(self.sums(activation, gradient, None), num_pixels(size_of(activation)))


def projected(activation: Activations, weights: Channels) -> Grids:
    """``sum_k w_k A_k``."""
    return (widened(weights, activation) * activation).sum(1)


def sums_of_gradient(activation: Activations, gradient: Activations, shares: Grids | None = None) -> Sums:
    """Return ``sum g_k`` and ``sum |g_k|`` over the grid."""
    grid = axes(gradient)
    return {"g": gradient.sum(grid), "|g|": gradient.abs().sum(grid)}


def sums_of_both(activation: Activations, gradient: Activations, shares: Grids | None = None) -> Sums:
    """Return `sums_of_gradient`, and the sums of ``g A``, ``|g A|``, ``A`` and ``|A|`` over the grid."""
    terms, grid = gradient * activation, axes(gradient)
    shared = activation if shares is None else activation * shares[:, None]
    found = {"gA": terms.sum(grid), "|gA|": terms.abs().sum(grid)}
    found |= {"A": shared.sum(grid), "|A|": shared.abs().sum(grid)}
    return found | sums_of_gradient(activation, gradient)


def sums_of_energy(activation: Activations, gradient: Activations, shares: Grids | None = None) -> Sums:
    """The Gram matrix of the channels, and what tells how ``A v`` grows with the energy."""
    rows = activation.flatten(2)
    energy = rows.square().sum(1, keepdim=True)
    shared = rows if shares is None else rows * shares.flatten(1)[:, None]
    weight = torch.ones_like(energy) if shares is None else shares.flatten(1)[:, None]
    return {
        "gram": rows @ shared.mT,
        "A": shared.sum(2),
        "EA": (energy * shared).sum(2),
        "E": (energy * weight).sum(2),
    }


def mean_weights(sums: Sums, cells: int) -> Channels:
    """``sum g_k / cells``."""
    return sums["g"] / cells


def weighted_mean_weights(sums: Sums, cells: int) -> Channels:
    """``sum g_k A_k / sum A_k``, and the plain mean where that is no divisor."""
    return torch.where(_sums_to_nothing(sums), sums["g"] / cells, sums["gA"] / sums["A"])


def first_component(sums: Sums, cells: int) -> Channels:
    """The first right singular vector, with the sign that makes the grid grow with the energy."""
    vector = torch.linalg.eigh(sums["gram"]).eigenvectors[..., -1]
    grows = (vector * (sums["EA"] - sums["E"] / cells * sums["A"])).sum(1, keepdim=True)
    return torch.where(grows < 0, -vector, vector)


def left_of_mean(sums: Sums, cells: int) -> PerImage:
    """``sum_k |sum g_k| / sum |g|``: what the mean over the grid leaves of the gradient.

    0 by algebra where the score doesn't change with a channel's mean (before instance normalisation, before
    a mean that is subtracted): the weights are rounding then. Before a group normalisation the weights of a
    group sum to 0, which leaves most of each.
    """
    return _left(sums["g"], sums["|g|"])


def left_of_windows(activation: Activations, gradient: Activations, *, window: int) -> PerImage:
    """The same of the means over the blocks of Seg-XRes-CAM; it is 1 where a block is one cell."""
    size = [min(window, length) for length in size_of(gradient)]
    mean = MEAN_POOL[len(size)]
    pooled, sizes = (mean(each, size, ceil_mode=True) for each in (gradient, gradient.abs()))
    return _left(pooled.flatten(1), sizes.flatten(1))


def left_of_weighted_mean(sums: Sums, cells: int) -> PerImage:
    """``sum_k |sum g_k A_k| / sum |g A|`` for XGrad-CAM; with the mean of A_k where that stands in."""
    size, nothing = sums["|A|"] / cells, _sums_to_nothing(sums)
    terms = torch.where(nothing, sums["g"] * size, sums["gA"])
    return _left(terms, torch.where(nothing, sums["|g|"] * size, sums["|gA|"]))


def _left(sums: Float[Tensor, "b n"], sizes: Float[Tensor, "b n"]) -> PerImage:
    """``sum |sums| / sum sizes``; NaN where there is no gradient."""
    return sums.abs().sum(1) / sizes.sum(1)


def _sums_to_nothing(sums: Sums) -> Bool[Tensor, "b d"]:
    """Where a channel's sum is negative or about zero, next to the sum of its magnitudes."""
    return sums["A"] <= BALANCED * sums["|A|"]


def _first_component(activation: Float[Tensor, "d *grid"]) -> Float[Tensor, "*grid"]:
    """`eigen_cam` of one picture: NaN where it holds one, because then no decomposition converges."""
    # Apple's GPUs know no float64.
    place = "cpu" if activation.device.type == "mps" else activation.device
    rows = activation.flatten(1).to(place, torch.float64)
    if not rows.isfinite().all():
        return torch.full_like(activation[0], torch.nan)
    if len(rows) <= rows.shape[1]:
        grid = projected(rows[None], FIRST_COMPONENT.of(rows[None], rows[None]))[0]
    else:
        values, vectors = torch.linalg.eigh(rows.T @ rows)
        grid = values[-1].clamp(min=0).sqrt() * vectors[:, -1]
        energy = rows.square().sum(0)
        grid = torch.where((grid @ (energy - energy.mean())) < 0, -grid, grid)
    return grid.view(activation.shape[1:]).to(activation)


def _denominator(total: Channels, gradient: Activations) -> Activations:
    """``2 + g sum(A)``."""
    return 2 + gradient * widened(total, gradient)


def upsample(grid: Grids, size: Sequence[int]) -> Maps:
    """Bring grids to ``size``: linearly along every axis, corners not aligned. Done here and nowhere else."""
    return interpolated(grid[:, None], size)[:, 0]


@dataclass(frozen=True)
class Cam:
    """A formula, whether a ReLU follows it, and what it reports about itself (one number per picture).

    ``left`` is what averaging leaves of the gradient, of the formulas that average it; ``weights`` are those
    of formulas whose sums add up over the windows of a large picture.
    """

    formula: Callable[[Activations, Activations], Grids]
    relu: bool
    options: tuple[tuple[str, str | int | float], ...] = ()
    weights: Weights | None = None
    left: Callable[[Activations, Activations], PerImage] | None = None
    diagnostics: tuple[tuple[str, Callable[[Activations, Activations], PerImage]], ...] = ()

    @property
    def settings(self) -> dict[str, str | int | float]:
        """What an explanation records about how it was made."""
        return {"relu": self.relu, **dict(self.options)}

    def map_of(self, grid: Grids, size: Sequence[int]) -> Maps:
        """The map of a grid: first the ReLU, then `upsample` (swapped, a random map changes by 30 %)."""
        return upsample(grid.relu() if self.relu else grid, size)


@dataclass(frozen=True)
class SegXResCam:
    """Settings of Seg-XRes-CAM: blocks of ``window`` cells each way, and what stands for each.

    ``pool`` is ``mean`` or ``max``. The window is in cells of the layer's grid; larger than the grid it is
    the whole grid. ``label`` is what the results are called by.
    """

    name: ClassVar[str] = "seg-xres-cam"

    window: int = 2
    pool: Pool = "mean"
    label: str = ""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.window < 1:
            raise SettingError(
                f"window is {self.window}, but must be at least 1 cell (1 is hires-cam, a window as large as "
                "the layer's grid averages over all of it)."
            )
        check_range("window", self.window, 1, 2**31)
        if self.pool not in ("mean", "max"):
            raise SettingError(f"pool is {self.pool!r}. Allowed: mean, max.")

    @property
    def cam(self) -> Cam:
        """The formula with these settings, to be taken from the one trace."""
        formula = partial(seg_xres_cam, window=self.window, pool=self.pool)
        left = partial(left_of_windows, window=self.window) if self.pool == "mean" else None
        return Cam(formula, relu=True, options=(("window", self.window), ("pool", self.pool)), left=left)


MEAN = Weights(sums_of_gradient, mean_weights, left_of_mean)
WEIGHTED_MEAN = Weights(sums_of_both, weighted_mean_weights, left_of_weighted_mean, everywhere=True)
FIRST_COMPONENT = Weights(sums_of_energy, first_component, everywhere=True)

CAMS: dict[str, Cam] = {
    "grad-cam": Cam(grad_cam, relu=True, weights=MEAN, left=MEAN.left_of),
    "grad-cam++": Cam(
        grad_cam_plus_plus, relu=True, diagnostics=(("crossed_denominators", crossed_denominators),)
    ),
    "hires-cam": Cam(hires_cam, relu=True),
    "layer-cam": Cam(layer_cam, relu=True),
    "xgrad-cam": Cam(
        xgrad_cam,
        relu=True,
        weights=WEIGHTED_MEAN,
        left=WEIGHTED_MEAN.left_of,
        diagnostics=(("unweighted_channels", unweighted_channels),),
    ),
    "eigen-cam": Cam(eigen_cam, relu=False, options=(("class_agnostic", True),), weights=FIRST_COMPONENT),
    "seg-xres-cam": SegXResCam().cam,
    "activation": Cam(activation_map, relu=False),
}
"""Every map that one trace gives. To add one: one function, one line; `cli/names.py` reads the keys of it."""

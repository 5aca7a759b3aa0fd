"""Imputers: new values for removed pixels of a picture.

Every imputer takes pictures, the region that is removed from each, and standard normal noise, and gives
pictures that are untouched elsewhere. `IMPUTERS` at the foot names them all.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from seglens.axes import CONVOLVE, MEAN_POOL, as_long, axes, interpolated, middle_side, size_of
from seglens.shapes import Images, Regions

NOISE = 0.01
"""Standard deviation of the noise on imputed pixels, where intensities run from 0 to 1."""

TOLERANCE = 5e-5
"""Residual, in units of intensity, at which the linear system counts as solved: the root mean square error
that is left stays below a fifth of the noise, in holes of half the picture's width too."""

LIMIT = 500
"""Steps of conjugate gradients at most, on each grid."""

TINY = 1e-30
"""Keeps 0 / 0 at 0 once a system is solved exactly."""

BLUR_SIGMA = 1 / 10
"""Width of the blur as a share of the picture's shorter side: what is left is the colour of large areas."""

Imputer = Callable[[Images, Regions, Images], Images]
Field = Float[Tensor, "b c *size"]
Unknown = Bool[Tensor, "b 1 *size"]
CoarseField = Float[Tensor, "b c *half"]
Padded = Float[Tensor, "b c *padded"]
CoarseUnknown = Bool[Tensor, "b 1 *half"]


def noisy_linear(images: Images, removed: Regions, noise: Images) -> Images:
    """Make every removed pixel the weighted mean of its neighbours, plus a little noise.

    ``x_i = sum_j w_ij x_j / sum_j w_ij`` over the neighbours j that are in the picture, w = 1/6 for the four
    direct and 1/12 for the four diagonal ones of a picture. A voxel has 26 neighbours: 1/6 for the six direct
    ones, 1/12 for the twelve across an edge and 1/24 for the eight across a corner, which on a volume of one
    slice is the system of the picture. Neighbours that were removed as well are unknowns of the same
    linear system. Rong et al. 2022, "A consistent and efficient evaluation strategy for attribution methods"
    (ROAD), section 4.2. The noise keeps a model from recognising the smoothness of what was filled in; its
    deviation of .01 is that of the authors' code, here in units of intensity, and the sum is clipped to
    [0, 1]. A picture that is removed whole becomes its mean colour.
    """
    filled = linear(images, removed)
    return torch.where(removed[:, None], (filled + NOISE * noise).clamp(0, 1), images)


def blur(images: Images, removed: Regions, noise: Images, spacing: Sequence[float] = ()) -> Images:
    """Replace removed pixels by the blurred picture (`blurred`); the noise is not used."""
    del noise
    return torch.where(removed[:, None], blurred(images, spacing=spacing), images)


def fill_with_mean(images: Images, removed: Regions, noise: Images) -> Images:
    """Replace removed pixels by the picture's mean colour; the noise is not used."""
    del noise
    return torch.where(removed[:, None], images.mean(axes(images), keepdim=True), images)


def fill_with_zero(images: Images, removed: Regions, noise: Images) -> Images:
    """Make removed pixels black; the noise is not used."""
    del noise
    return torch.where(removed[:, None], 0, images)


def blurred(images: Images, sigma: float | None = None, spacing: Sequence[float] = ()) -> Images:
    """Return the pictures under a Gaussian of ``sigma`` pixels, or `BLUR_SIGMA` of the shorter side.

    Of a volume it is the middle side, and ``sigma`` is in voxels along every axis; where ``spacing`` tells
    their millimetres along each, it is in voxels of the finest axis, and as many millimetres along all.
    """
    dims = images.ndim - 2
    sigma = blur_width(images, BLUR_SIGMA, spacing) if sigma is None else sigma
    sigmas = as_long(sigma, spacing) if spacing else (sigma,) * dims
    stack = images.flatten(0, 1)[:, None]
    for axis, along in enumerate(reversed(sigmas)):  # from the last one on
        radius = max(1, round(3 * along))
        steps = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
        kernel = torch.exp(-0.5 * (steps / along) ** 2)
        kernel = kernel / kernel.sum()
        margin, shape = [0] * 2 * dims, [1] * (dims + 2)
        margin[2 * axis : 2 * axis + 2], shape[-1 - axis] = [radius, radius], -1
        stack = CONVOLVE[dims](F.pad(stack, margin, mode="replicate"), kernel.view(shape))
    return stack[:, 0].unflatten(0, images.shape[:2])


def blur_width(images: Images, share: float, spacing: Sequence[float]) -> float:
    """Return a ``share`` of the shorter side, of a volume the middle, in pixels of the finest axis."""
    size = size_of(images)
    if not spacing:
        return share * middle_side(size)
    lengths = [length * mm for length, mm in zip(size, spacing, strict=True)]
    return share * sorted(lengths)[-2] / min(spacing)


@torch.no_grad()
def linear(images: Images, removed: Regions) -> Images:
    """Solve the linear system of `noisy_linear`, without noise, for all pictures at once.

    Conjugate gradients, started from the solution on a grid of half the size (which is found the same way):
    the coarse grids carry colour across wide holes, the fine ones need a few steps each.
    """
    if images.shape[1] > 1 and torch.equal(images, images[:, :1].expand_as(images)):
        # Grey pictures in colour: the same system in every channel.
        return linear(images[:, :1], removed).expand(-1, images.shape[1], *size_of(images)).clone()
    unknown = removed[:, None]
    empty = removed.flatten(1).all(1)
    # A picture without a known pixel has no solution: one known pixel of the mean colour gives that colour.
    anchor = torch.zeros_like(unknown)
    anchor.flatten(2)[..., 0] = empty[:, None]
    known = torch.where(anchor, images.mean(axes(images), keepdim=True), images).float()
    solved = _solve(known, unknown & ~anchor, TOLERANCE)
    return torch.where(unknown, solved.to(images.dtype), images)


def _solve(images: Field, unknown: Unknown, tolerance: float) -> Field:
    """Fill the unknown pixels: from the next coarser grid first, then by conjugate gradients.

    Coarser grids are solved more exactly: they are cheap, and their error is what finer ones mend slowest.
    """
    if not bool(unknown.any()):
        return images
    start = images
    if middle_side(size_of(images)) >= 4:
        coarse, missing = _halve(images, unknown)
        guess = interpolated(_solve(coarse, missing, tolerance / 4), size_of(images))
        start = torch.where(unknown, guess, images)
    return _conjugate_gradients(start, unknown, tolerance)


def _halve(images: Field, unknown: Unknown) -> tuple[CoarseField, CoarseUnknown]:
    """Average the known pixels of every 2 x 2 block; a block is unknown where none of its pixels is known.

    An axis of one pixel stays as it is.
    """
    block = [min(2, length) for length in size_of(images)]
    pool = partial(MEAN_POOL[len(block)], kernel_size=block, ceil_mode=True, count_include_pad=False)
    share, total = pool((~unknown).float()), pool(images * ~unknown)
    return total / share.clamp_min(1e-6), share == 0


def _conjugate_gradients(start: Field, unknown: Unknown, tolerance: float) -> Field:
    """Solve ``(D - W) x = 0`` on the unknown pixels, the others held, with D the row sums of W.

    The matrix restricted to the unknowns is symmetric and positive definite as soon as one of them has a
    known neighbour. Every channel of every picture is a system of its own, all stepped together; one whose
    residual is below ``tolerance`` stands still, so that a picture's result doesn't depend on its company,
    and a picture leaves the batch once all its channels do. The loop writes into memory that it has: on a
    CPU fresh memory for every step would take longer than the sums.
    """
    found = start.clone()
    left = torch.arange(len(start), device=start.device)
    solution, free = start.clone(), unknown.to(start.dtype)
    diagonal = free * neighbours(torch.ones_like(free))
    residual = free * neighbours(start) - diagonal * start
    # (D - W) x = (D + 1/3) x - sums / 12 (for pictures), see `neighbours`.
    every = axes(start)
    own, around = diagonal + free / 3, free / -_whole(start)
    padded = F.pad(torch.zeros_like(start), (1, 1) * len(every))
    step, scratch = _inside(padded), _scratch(padded)
    energy = torch.ones_like(residual.sum(every, keepdim=True))
    active = torch.ones_like(energy)
    for iteration in range(LIMIT):
        if iteration % 4 == 0:
            active = active * (residual.abs().amax(every, keepdim=True) > tolerance)
            busy = active.flatten(1).any(1)
            if not bool(busy.all()):
                found[left[~busy]] = solution[~busy]
                if not bool(busy.any()):
                    return found
                left, solution, residual, own, around, padded, energy, active = (
                    state[busy] for state in (left, solution, residual, own, around, padded, energy, active)
                )
                step, scratch = _inside(padded), [each[: len(left)] for each in scratch]
        fresh = torch.linalg.vector_norm(residual, dim=every, keepdim=True).square()
        torch.addcmul(residual, fresh / energy.clamp_min(TINY), step, out=step)
        energy = fresh
        image = _sums(padded, scratch)
        image.mul_(around).addcmul_(own, step)
        length = active * energy / (step * image).sum(every, keepdim=True).clamp_min(TINY)
        solution.addcmul_(length, step)
        residual.addcmul_(length, image, value=-1)
    found[left] = solution
    return found


def neighbours(field: Field) -> Field:
    """Return the weighted sum over the neighbours that lie in the picture: 8, in a volume 26.

    The weights are those of ``[1, 2, 1] x [1, 2, 1] / 12`` (in a volume ``[1, 2, 1]`` three times, / 24)
    without the centre, which is a third.
    """
    padded = F.pad(field, (1, 1) * (field.ndim - 2))
    return _sums(padded, _scratch(padded)) / _whole(field) - field / 3


def _whole(field: Field) -> int:
    """What the weights of whole numbers are divided by."""
    return 3 * 2 ** (field.ndim - 2)


def _inside(padded: Padded) -> Field:
    """What is padded by one pixel on every side."""
    for axis in axes(padded):
        padded = padded.narrow(axis, 1, padded.shape[axis] - 2)
    return padded


def _scratch(padded: Padded) -> list[Float[Tensor, "b c ..."]]:
    """Memory for each step of `_sums`: one axis after the other loses its padding."""
    found = []
    for axis in axes(padded):
        padded = padded.narrow(axis, 1, padded.shape[axis] - 2)
        found.append(torch.empty_like(padded))
    return found


def _sums(padded: Padded, scratch: list[Float[Tensor, "b c ..."]]) -> Field:
    """Add up 3 x 3 pixels with weights ``[1, 2, 1] x [1, 2, 1]``, into the last of ``scratch``.

    Along the first axis, then along the next: on a CPU quicker than a convolution.
    """
    for axis, out in zip(axes(padded), scratch, strict=True):
        before, here, after = (padded.narrow(axis, begin, out.shape[axis]) for begin in range(3))
        padded = torch.add(before, after, out=out).add_(here, alpha=2)
    return padded


IMPUTERS: dict[str, Imputer] = {
    "noisy-linear": noisy_linear,
    "blur": blur,
    "mean": fill_with_mean,
    "zero": fill_with_zero,
}
"""To add an imputer: one function, one line."""


def imputer_of(name: str, spacing: Sequence[float]) -> Imputer:
    """Return the imputer called ``name``; ``spacing`` is as in `blurred`."""
    return partial(blur, spacing=spacing) if name == "blur" else IMPUTERS[name]


BY_SURROUNDINGS = frozenset({"noisy-linear"})
"""Imputers that look at what is left around a hole. Others fill a pixel alike whatever else is removed."""

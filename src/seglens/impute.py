"""Imputers: new values for removed pixels of a picture.

Every imputer takes pictures, the region that is removed from each, and standard normal noise, and gives
pictures that are untouched elsewhere. `IMPUTERS` at the foot names them all.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

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
Field = Float[Tensor, "b c h w"]
Unknown = Bool[Tensor, "b 1 h w"]
CoarseField = Float[Tensor, "b c half_h half_w"]
Padded = Float[Tensor, "b c padded_h padded_w"]
Columns = Float[Tensor, "b c h padded_w"]
CoarseUnknown = Bool[Tensor, "b 1 half_h half_w"]


def noisy_linear(images: Images, removed: Regions, noise: Images) -> Images:
    """Make every removed pixel the weighted mean of its eight neighbours, plus a little noise.

    ``x_i = sum_j w_ij x_j / sum_j w_ij`` over the neighbours j that are in the picture, w = 1/6 for the four
    direct and 1/12 for the four diagonal ones; neighbours that were removed as well are unknowns of the same
    linear system. Rong et al. 2022, "A consistent and efficient evaluation strategy for attribution methods"
    (ROAD), section 4.2. The noise keeps a model from recognising the smoothness of what was filled in; its
    deviation of .01 is that of the authors' code, here in units of intensity, and the sum is clipped to
    [0, 1]. A picture that is removed whole becomes its mean colour.
    """
    filled = linear(images, removed)
    return torch.where(removed[:, None], (filled + NOISE * noise).clamp(0, 1), images)


def blur(images: Images, removed: Regions, noise: Images) -> Images:
    """Replace removed pixels by the blurred picture (`blurred`); the noise is not used."""
    del noise
    return torch.where(removed[:, None], blurred(images), images)


def mean(images: Images, removed: Regions, noise: Images) -> Images:
    """Replace removed pixels by the picture's mean colour; the noise is not used."""
    del noise
    return torch.where(removed[:, None], images.mean((2, 3), keepdim=True), images)


def zero(images: Images, removed: Regions, noise: Images) -> Images:
    """Make removed pixels black; the noise is not used."""
    del noise
    return torch.where(removed[:, None], 0, images)


def blurred(images: Images, sigma: float | None = None) -> Images:
    """Return the pictures under a Gaussian of ``sigma`` pixels, or `BLUR_SIGMA` of the shorter side."""
    height, width = images.shape[-2:]
    sigma = BLUR_SIGMA * min(height, width) if sigma is None else sigma
    radius = max(1, round(3 * sigma))
    steps = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (steps / sigma) ** 2)
    kernel = kernel / kernel.sum()
    stack = images.flatten(0, 1)[:, None]
    stack = F.conv2d(F.pad(stack, (radius, radius, 0, 0), mode="replicate"), kernel.view(1, 1, 1, -1))
    stack = F.conv2d(F.pad(stack, (0, 0, radius, radius), mode="replicate"), kernel.view(1, 1, -1, 1))
    return stack[:, 0].unflatten(0, images.shape[:2])


@torch.no_grad()
def linear(images: Images, removed: Regions) -> Images:
    """Solve the linear system of `noisy_linear`, without noise, for all pictures at once.

    Conjugate gradients, started from the solution on a grid of half the size (which is found the same way):
    the coarse grids carry colour across wide holes, the fine ones need a few steps each.
    """
    if images.shape[1] > 1 and torch.equal(images, images[:, :1].expand_as(images)):
        # Grey pictures in colour: the same system in every channel.
        return linear(images[:, :1], removed).repeat(1, images.shape[1], 1, 1)
    unknown = removed[:, None]
    empty = removed.all((1, 2))
    # A picture without a known pixel has no solution: one known pixel of the mean colour gives that colour.
    anchor = torch.zeros_like(unknown)
    anchor[..., 0, 0] = empty[:, None]
    known = torch.where(anchor, images.mean((2, 3), keepdim=True), images).float()
    solved = _solve(known, unknown & ~anchor, TOLERANCE)
    return torch.where(unknown, solved.to(images.dtype), images)


def _solve(images: Field, unknown: Unknown, tolerance: float) -> Field:
    """Fill the unknown pixels: from the next coarser grid first, then by conjugate gradients.

    Coarser grids are solved more exactly: they are cheap, and their error is what finer ones mend slowest.
    """
    if not bool(unknown.any()):
        return images
    start = images
    if min(images.shape[-2:]) >= 4:
        coarse, missing = _halve(images, unknown)
        guess = F.interpolate(
            _solve(coarse, missing, tolerance / 4), images.shape[-2:], mode="bilinear", align_corners=False
        )
        start = torch.where(unknown, guess, images)
    return _conjugate_gradients(start, unknown, tolerance)


def _halve(images: Field, unknown: Unknown) -> tuple[CoarseField, CoarseUnknown]:
    """Average the known pixels of every 2 x 2 block; a block is unknown where none of its pixels is known."""
    share = F.avg_pool2d((~unknown).float(), 2, ceil_mode=True, count_include_pad=False)
    total = F.avg_pool2d(images * ~unknown, 2, ceil_mode=True, count_include_pad=False)
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
    # (D - W) x = (D + 1/3) x - sums / 12, see `neighbours`.
    own, around = diagonal + free / 3, free / -12
    padded = F.pad(torch.zeros_like(start), (1, 1, 1, 1))
    step = padded[..., 1:-1, 1:-1]
    columns, image = torch.empty_like(padded[..., 1:-1, :]), torch.empty_like(start)
    energy = torch.ones_like(residual[..., :1, :1])
    active = torch.ones_like(energy)
    for iteration in range(LIMIT):
        if iteration % 4 == 0:
            active = active * (residual.abs().amax((2, 3), keepdim=True) > tolerance)
            busy = active.flatten(1).any(1)
            if not bool(busy.all()):
                found[left[~busy]] = solution[~busy]
                if not bool(busy.any()):
                    return found
                left, solution, residual, own, around, padded, energy, active = (
                    state[busy] for state in (left, solution, residual, own, around, padded, energy, active)
                )
                step = padded[..., 1:-1, 1:-1]
                columns, image = columns[: len(left)], image[: len(left)]
        fresh = torch.linalg.vector_norm(residual, dim=(2, 3), keepdim=True).square()
        torch.addcmul(residual, fresh / energy.clamp_min(TINY), step, out=step)
        energy = fresh
        _sums(padded, columns, image).mul_(around).addcmul_(own, step)
        length = active * energy / (step * image).sum((2, 3), keepdim=True).clamp_min(TINY)
        solution.addcmul_(length, step)
        residual.addcmul_(length, image, value=-1)
    found[left] = solution
    return found


def neighbours(field: Field) -> Field:
    """Return the weighted sum over the eight neighbours that lie in the picture.

    The weights are those of ``[1, 2, 1] x [1, 2, 1] / 12`` without its centre, a third.
    """
    padded = F.pad(field, (1, 1, 1, 1))
    total = _sums(padded, torch.empty_like(padded[..., 1:-1, :]), torch.empty_like(field))
    return total / 12 - field / 3


def _sums(padded: Padded, columns: Columns, total: Field) -> Field:
    """Add up 3 x 3 pixels with weights ``[1, 2, 1] x [1, 2, 1]``, into ``total``; ``columns`` is scratch.

    Along the columns first, then along the rows: on a CPU quicker than a convolution.
    """
    torch.add(padded[..., :-2, :], padded[..., 2:, :], out=columns).add_(padded[..., 1:-1, :], alpha=2)
    torch.add(columns[..., :-2], columns[..., 2:], out=total).add_(columns[..., 1:-1], alpha=2)
    return total


IMPUTERS: dict[str, Imputer] = {"noisy-linear": noisy_linear, "blur": blur, "mean": mean, "zero": zero}
"""To add an imputer: one function, one line."""

BY_SURROUNDINGS = frozenset({"noisy-linear"})
"""Imputers that look at what is left around a hole. Others fill a pixel alike whatever else is removed."""

"""What holds for pictures and for volumes alike: the spatial axes of an array, however many there are.

Arrays have a batch first, channels perhaps, and then the spatial axes: rows and columns of a picture, or
slices, rows and columns of a volume. Whatever means "all spatial axes" asks here.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from seglens.errors import SettingError

LINEAR = {2: "bilinear", 3: "trilinear"}
"""What `torch.nn.functional.interpolate` calls interpolation along every axis, by the number of axes."""

MEAN_ON_GRID: dict[int, Callable[..., Tensor]] = {2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}
MEAN_POOL = {2: F.avg_pool2d, 3: F.avg_pool3d}
MAX_POOL = {2: F.max_pool2d, 3: F.max_pool3d}
CONVOLVE = {2: F.conv2d, 3: F.conv3d}

CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}
"""How the channels of a pixel lie side by side in memory."""

InputSize = int | tuple[int, ...]
"""The length of every side, or of each: rows and columns, or slices, rows and columns."""

LENGTHS = {2: "rows, columns", 3: "slices, rows, columns"}
"""The spatial axes in words, by their number."""


def axes(values: Shaped[Tensor, "..."], before: int = 2) -> tuple[int, ...]:
    """Return the spatial axes of ``[b c *size]``, or of what has another number of axes ``before`` them."""
    return tuple(range(before, values.ndim))


def size_of(values: Shaped[Tensor, "..."], before: int = 2) -> tuple[int, ...]:
    """Return the lengths of the spatial axes of ``[b c *size]``, or with other axes ``before`` them."""
    return tuple(values.shape[before:])


def sides_of(size: InputSize | Sequence[int], dims: int) -> tuple[int, ...]:
    """Return the length along each of ``dims`` axes.

    Raises:
        SettingError: there is no length of at least 1 for each.
    """
    sides = (size,) * dims if isinstance(size, int) else tuple(size)
    if len(sides) != dims or min(sides) < 1:
        received = size if isinstance(size, int) else spelled(sides)
        raise SettingError(
            f"The input size must be at least 1 pixel, got {received}; allowed is one length for all sides, "
            f"or {dims} ({LENGTHS[dims]})."
        )
    return sides


def widened(values: Shaped[Tensor, "..."], like: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
    """Return ``values`` with axes of length 1 behind their own, so that they have as many as ``like``."""
    return values.reshape(*values.shape, *[1] * (like.ndim - values.ndim))


def cropped(values: Shaped[Tensor, "..."], size: Sequence[int]) -> Shaped[Tensor, "..."]:
    """Return the first ``size`` of the last axes: what was padded behind is cut off."""
    for axis, length in enumerate(size, start=-len(size)):
        values = values.narrow(axis, 0, length)
    return values


def least_ratio(lengths: Sequence[int | float], others: Sequence[int | float]) -> float:
    """Return the smallest of each length over the other: by how much ``others`` shrink to fit inside."""
    return min(length / other for length, other in zip(lengths, others, strict=True))


def padded_size(size: Sequence[int], divisor: int) -> tuple[int, ...]:
    """Return the next lengths that ``divisor`` divides."""
    return tuple(length + -length % divisor for length in size)


def interpolated(values: Float[Tensor, "b c *size"], size: Sequence[int]) -> Float[Tensor, "b c *other"]:
    """Interpolate to ``size``, linearly along every axis, corners not aligned."""
    mode = LINEAR[values.ndim - 2]
    return F.interpolate(values, tuple(size), mode=mode, align_corners=False)


def resampled(values: Float[Tensor, "b c *size"], size: Sequence[int]) -> Float[Tensor, "b c *other"]:
    """Interpolate to ``size`` linearly along every axis, smoothed first where it shrinks (antialiased)."""
    if values.ndim == 4:
        return F.interpolate(values, tuple(size), mode="bilinear", antialias=True)
    b, c, slices, rows, columns = values.shape
    wide = resampled(values.reshape(b, c * slices, rows, columns), size[1:])
    deep = resampled(wide.reshape(b, c, slices, -1), (size[0], size[1] * size[2]))
    return deep.reshape(b, c, *size)


def middle_side(size: Sequence[int]) -> int:
    """Return the second longest side: of a picture, and of a volume of one slice, the shorter one."""
    return sorted(size)[-2]


def as_long(width: int | float, spacing: Sequence[float]) -> tuple[float, ...]:
    """Return how many pixels along each axis are as long as ``width`` pixels along the finest one."""
    return tuple(width * min(spacing) / mm for mm in spacing)


def num_pixels(size: Sequence[int]) -> int:
    """Return how many pixels or voxels there are."""
    return math.prod(size)


def lines(regions: Bool[Tensor, "b *size"]) -> list[Bool[Tensor, "b _"]]:
    """Return for each spatial axis at which of its places each region has a pixel."""
    every = axes(regions, 1)
    return [regions.any(tuple(other for other in every if other != axis)) for axis in every]


def spanning(values: Sequence[Shaped[Tensor, "n _"]]) -> list[Shaped[Tensor, "n ..."]]:
    """Return values along one axis each so that together they span a grid, with a batch first."""
    dims = len(values)
    return [
        each.reshape(len(each), *[1] * axis, -1, *[1] * (dims - axis - 1)) for axis, each in enumerate(values)
    ]


def boxes(starts: Sequence[Int[Tensor, " n"]], size: Sequence[int]) -> tuple[Int[Tensor, "n ..."], ...]:
    """Return the index that takes from ``[n *size ...]`` a box of each row, all of one ``size``."""
    places = [
        start[:, None] + torch.arange(length, device=start.device)
        for start, length in zip(starts, size, strict=True)
    ]
    rows = torch.arange(len(starts[0]), device=starts[0].device)
    return (rows.reshape(-1, *[1] * len(size)), *spanning(places))


def spelled(size: Sequence[int]) -> str:
    """Return lengths as messages show them: ``64 x 48``."""
    return " x ".join(map(str, size))

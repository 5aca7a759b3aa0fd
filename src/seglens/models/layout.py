"""Which axes of a layer's output are the rows and columns of the picture, told by shapes alone.

==================  ===================  ============================================================
kind                shape                who returns it
==================  ===================  ============================================================
``channels first``  ``b d gh gw``        convolutions
``channels last``   ``b gh gw d``        Swin
``tokens``          ``b p+gh*gw d``      transformers: p prefix tokens (class, registers), then the grid's
                                         cells row by row
==================  ===================  ============================================================

A grid fits a picture where one whole number of pixels, its stride, spans each cell both ways. Volumes have a
third axis, before the other two, and each of their axes a stride of its own (slices are thick). Several
readings can fit one shape (96 channels on a grid of 96 x 96); the one that still fits at another picture size
is right.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from seglens.axes import num_pixels
from seglens.shapes import Activations

Kind = Literal["channels first", "channels last", "tokens"]
Rule = tuple[Kind, int]
"""What holds for pictures of every size: the kind, and the number of prefix tokens."""
Flowing = Float[Tensor, "b ..."]
"""A layer's output as it flows through the network: three or four axes, of volumes three or five."""

MOST_PREFIX = 8
"""Prefix tokens that may come before the grid: class, distillation, registers (of which 4 or 8 are usual)."""
_SLACK = 2
"""Cells by which a grid may miss the picture's aspect: convolutions without padding lose some."""


@dataclass(frozen=True)
class FeatureLayout:
    """How one output is read, and the two-way rearrangement to ``Float[b d *grid]``.

    ``slices`` is None where it is a grid over a picture.
    """

    kind: Kind
    rows: int
    columns: int
    prefix: int = 0
    slices: int | None = None

    @property
    def grid(self) -> tuple[int, ...]:
        """The lengths of the grid's axes."""
        flat = (self.rows, self.columns)
        return flat if self.slices is None else (self.slices, *flat)

    @property
    def cells(self) -> int:
        """How many cells there are."""
        return num_pixels(self.grid)

    @property
    def rule(self) -> Rule:
        """What doesn't depend on the picture's size."""
        return self.kind, self.prefix

    def channels(self, shape: Sequence[int]) -> int:
        """How many channels an output of ``shape`` has."""
        return shape[1] if self.kind == "channels first" else shape[-1]

    def to_map(self, value: Flowing) -> Activations:
        """Return the grid's part of ``value``, a layer's output or a gradient with respect to it."""
        if self.kind == "tokens":
            return value[:, self.prefix :].unflatten(1, self.grid).movedim(-1, 1)
        return value.movedim(-1, 1) if self.kind == "channels last" else value

    def put_back(self, maps: Activations, into: Flowing) -> Flowing:
        """Return ``into`` with ``maps`` in its grid's place; prefix tokens are those of ``into``."""
        if self.kind == "channels first":
            return maps
        last = maps.movedim(1, -1)
        if self.kind == "channels last":
            return last
        return torch.cat([into[:, : self.prefix], last.flatten(1, -2)], dim=1)


@lru_cache(maxsize=4096)
def readings(shape: tuple[int, ...], size: tuple[int, ...]) -> tuple[FeatureLayout, ...]:
    """Return every way to read an output of ``shape`` as a grid over a picture (or volume) of ``size``.

    None means that it is no grid. For tokens, strides that leave something over (powers of two) count where
    no other fits.
    """
    if len(shape) == len(size) + 2:
        first, last = laid_out("channels first", shape[2:]), laid_out("channels last", shape[1:-1])
        found = tuple(one for one in (first, last) if _fits(one.grid, size))
        pairs = combinations(zip(first.grid, size, strict=True), 2)
        slack = all(
            abs(one * other[1] - other[0] * side) <= _SLACK * max(size) for (one, side), other in pairs
        )
        return found or ((first,) if slack else ())
    if len(shape) == 3:
        return _tokens(shape[1], _whole(size)) or _tokens(shape[1], _begun(size))
    return ()


def laid_out(kind: Kind, grid: Sequence[int], prefix: int = 0) -> FeatureLayout:
    """Return the layout of a grid that has two axes or three."""
    *slices, rows, columns = grid
    return FeatureLayout(kind, rows, columns, prefix, *slices)


def _tokens(num: int, grids: set[tuple[int, ...]]) -> tuple[FeatureLayout, ...]:
    """The grids of more than one cell that ``num`` tokens can hold, the largest first."""
    fitting = [grid for grid in grids if 0 <= num - num_pixels(grid) <= MOST_PREFIX]
    return tuple(
        laid_out("tokens", grid, num - num_pixels(grid))
        for grid in sorted(fitting, reverse=True)
        if num_pixels(grid) > 1
    )


def _fits(grid: tuple[int, ...], size: Sequence[int]) -> bool:
    """Whether some stride makes ``grid`` of ``size``; cells that were only begun count both ways or not.

    In a volume each axis has a stride of its own.
    """
    if len(size) > 2:
        return all(_fits((cells,), (side,)) for cells, side in zip(grid, size, strict=True))
    fewest = size[0] // (grid[0] + 1)
    most = min(size[0] // max(grid[0] - 1, 1) + 1, max(size))
    strides = range(max(fewest, 1), most + 1)
    whole = any(tuple(side // each for side in size) == grid for each in strides)
    return whole or any(tuple(-(-side // each) for side in size) == grid for each in strides)


def _whole(size: Sequence[int]) -> set[tuple[int, ...]]:
    """The grids of every stride that divides ``size``."""
    strides = range(1, min(size) + 1)
    return {tuple(side // each for side in size) for each in strides if not any(side % each for side in size)}


def _begun(size: Sequence[int]) -> set[tuple[int, ...]]:
    """The grids of strides that are powers of two, where a cell that was begun counts (SegFormer)."""
    powers = [2**power for power in range(min(size).bit_length())]
    return {tuple(-(-side // each) for side in size) for each in powers}

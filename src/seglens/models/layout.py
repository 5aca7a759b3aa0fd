"""Which axes of a layer's output are the rows and columns of the picture, told by shapes alone.

==================  ===================  ============================================================
kind                shape                who returns it
==================  ===================  ============================================================
``channels first``  ``b d gh gw``        convolutions
``channels last``   ``b gh gw d``        Swin
``tokens``          ``b p+gh*gw d``      transformers: p prefix tokens (class, registers), then the grid's
                                         cells row by row
==================  ===================  ============================================================

A grid fits a picture where one whole number of pixels, its stride, spans each cell both ways. Several
readings can fit one shape (96 channels on a grid of 96 x 96); the one that still fits at another picture size
is right.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from seglens.shapes import Activations

Kind = Literal["channels first", "channels last", "tokens"]
Rule = tuple[Kind, int]
"""What holds for pictures of every size: the kind, and the number of prefix tokens."""
Flowing = Float[Tensor, "b ..."]
"""A layer's output as it flows through the network: three or four axes."""

MOST_PREFIX = 8
"""Prefix tokens that may come before the grid: class, distillation, registers (of which 4 or 8 are usual)."""
_SLACK = 2
"""Cells by which a grid may miss the picture's aspect: convolutions without padding lose some."""


@dataclass(frozen=True)
class Layout:
    """How one output is read, and the two-way rearrangement to ``Float[b d gh gw]``."""

    kind: Kind
    rows: int
    columns: int
    prefix: int = 0

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
            return value[:, self.prefix :].unflatten(1, (self.rows, self.columns)).permute(0, 3, 1, 2)
        return value.permute(0, 3, 1, 2) if self.kind == "channels last" else value

    def put_back(self, maps: Activations, into: Flowing) -> Flowing:
        """Return ``into`` with ``maps`` in its grid's place; prefix tokens are those of ``into``."""
        if self.kind == "channels first":
            return maps
        last = maps.permute(0, 2, 3, 1)
        if self.kind == "channels last":
            return last
        return torch.cat([into[:, : self.prefix], last.flatten(1, 2)], dim=1)


@lru_cache(maxsize=4096)
def readings(shape: tuple[int, ...], size: tuple[int, int]) -> tuple[Layout, ...]:
    """Return every way to read an output of ``shape`` as a grid over a picture of ``size`` (rows, columns).

    None means that it is no grid. For tokens, strides that leave something over (powers of two) count where
    no other fits.
    """
    if len(shape) == 4:
        _, one, two, three = shape
        first, last = Layout("channels first", two, three), Layout("channels last", one, two)
        found = (*[first] * _fits((two, three), size), *[last] * _fits((one, two), size))
        slack = abs(two * size[1] - three * size[0]) <= _SLACK * max(size)
        return found or ((first,) if slack else ())
    if len(shape) == 3:
        return _tokens(shape[1], _whole(size)) or _tokens(shape[1], _begun(size))
    return ()


def _tokens(num: int, grids: set[tuple[int, int]]) -> tuple[Layout, ...]:
    """The grids of more than one cell that ``num`` tokens can hold, the largest first."""
    fitting = [(rows, columns) for rows, columns in grids if 0 <= num - rows * columns <= MOST_PREFIX]
    return tuple(
        Layout("tokens", rows, columns, num - rows * columns)
        for rows, columns in sorted(fitting, reverse=True)
        if rows * columns > 1
    )


def _fits(grid: tuple[int, int], size: Sequence[int]) -> bool:
    """Whether some stride makes ``grid`` of ``size``; cells that were only begun count both ways or not."""
    fewest = size[0] // (grid[0] + 1)
    most = min(size[0] // max(grid[0] - 1, 1) + 1, max(size))
    strides = range(max(fewest, 1), most + 1)
    whole = any((size[0] // each, size[1] // each) == grid for each in strides)
    return whole or any((-(-size[0] // each), -(-size[1] // each)) == grid for each in strides)


def _whole(size: Sequence[int]) -> set[tuple[int, int]]:
    """The grids of every stride that divides ``size``."""
    rows, columns = size
    strides = range(1, min(size) + 1)
    return {(rows // each, columns // each) for each in strides if rows % each == columns % each == 0}


def _begun(size: Sequence[int]) -> set[tuple[int, int]]:
    """The grids of strides that are powers of two, where a cell that was begun counts (SegFormer)."""
    powers = [2**power for power in range(min(size).bit_length())]
    return {(-(-size[0] // each), -(-size[1] // each)) for each in powers}

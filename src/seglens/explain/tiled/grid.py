"""The windows of a large picture, their shares of the target, and the cells that their grids have in common.

Each window has its own grid at a layer. Laid down where the windows are, the grids make one tiled grid over
the whole picture (or volume), on which they are added up or blended. Windows start on cells but for the last
ones along an axis, which are shifted inwards, and those of layers whose stride doesn't divide the step of the
windows: such grids are laid on the nearest cell.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from seglens.explain.target import Target
from seglens.explain.trace import in_chunks
from seglens.models.segmenter import Segmenter
from seglens.predict.tiles import Cover, Cut, Place, Size, Windows, outer, window_of
from seglens.shapes import Grids, Images


@dataclass(frozen=True)
class Axis:
    """One axis of a tiled grid: where each window's cells begin, and what share of each cell is the window's.

    The shares of all windows sum to 1 at every cell. ``cell`` is its width in pixels of the working scale;
    ``margin`` is how many of them lie before the picture, where it is smaller than a window.
    """

    offsets: tuple[int, ...]
    shares: Float[Tensor, "windows cells"]
    cell: float
    margin: int

    @property
    def length(self) -> int:
        """Cells in all."""
        return self.offsets[-1] + self.shares.shape[1]

    def offset(self, window: int | None) -> int:
        """Return where a window begins; the end of all where there is no further one."""
        return self.length if window is None else self.offsets[window]


@dataclass(frozen=True)
class TiledGrid:
    """The cells of a layer (or the pixels) over the whole picture; a window's share is a product.

    Shares of cells blend activations, and have no `Windows.floor`.
    """

    axes: tuple[Axis, ...]

    @property
    def size(self) -> Size:
        """Cells along each axis."""
        return tuple(axis.length for axis in self.axes)

    @property
    def cells(self) -> int:
        """Cells in all."""
        return math.prod(self.size)

    def shares(self, places: Sequence[Place]) -> Grids:
        """Return how much each of these windows counts at each of its cells."""
        return torch.stack(
            [outer([axis.shares[i] for axis, i in zip(self.axes, place, strict=True)]) for place in places]
        )

    def corner(self, place: Place) -> Size:
        """Return the cell at which a window's grid begins."""
        return tuple(axis.offsets[i] for axis, i in zip(self.axes, place, strict=True))


def tiled_grid(windows: Windows, divisor: int, cells: Sequence[int]) -> TiledGrid:
    """Return the tiled grid of a layer that gives ``cells`` for one window, padded to ``divisor``."""
    along = zip(windows.covers, windows.sides, cells, strict=True)
    return TiledGrid(tuple(_axis(cover, side, divisor, num) for cover, side, num in along))


def _axis(cover: Cover, side: int, divisor: int, cells: int) -> Axis:
    """A cell's share is the mean of its pixels' weights; padding has the weight of the nearest pixel."""
    padded = side + -side % divisor
    weights = cover.weights[:, (torch.arange(padded) - cover.margin).clamp(0, cover.reach - 1)]
    pooled = F.adaptive_avg_pool1d(weights, cells)
    offsets = tuple(round(start * cells / padded) for start in cover.starts)
    total = torch.zeros(offsets[-1] + cells)
    for offset, part in zip(offsets, pooled, strict=True):
        total[offset : offset + cells] += part
    shares = [part / total[at : at + cells] for at, part in zip(offsets, pooled, strict=True)]
    return Axis(offsets, torch.stack(shares), padded / cells, cover.margin)


def placed(part: Float[Tensor, "*grid"], corner: Size) -> tuple[slice, ...]:
    """Return where a window's grid lies that begins at ``corner``."""
    return tuple(slice(at, at + length) for at, length in zip(corner, part.shape, strict=True))


class OpenRows:
    """Rows (or slices) of a tiled grid, to which windows are still being added; from the top down.

    ``size`` is how many cells a row has along the other axes.
    """

    top: int

    def __init__(self, *size: int) -> None:
        self.size = size
        self.top = 0
        self.held: Tensor | None = None

    def add(self, part: Float[Tensor, "d *grid"], row: int, *column: int) -> None:
        """Add a window whose first cell is at ``row`` and ``column``."""
        held = part.new_zeros(len(part), 0, *self.size) if self.held is None else self.held
        missing = row + part.shape[1] - self.top - held.shape[1]
        if missing > 0:
            held = torch.cat([held, held.new_zeros(len(held), missing, *self.size)], dim=1)
        held[(slice(None), *placed(part[0], (row - self.top, *column)))] += part
        self.held = held

    def extend(self, parts: Float[Tensor, "n d *grid"], cells: TiledGrid, places: Sequence[Place]) -> None:
        """Add windows where they are."""
        for place, part in zip(places, parts, strict=True):
            self.add(part, *cells.corner(place))

    def finish(self, stop: int) -> tuple[slice, Float[Tensor, "d rows *columns"]]:
        """Let go of the rows before ``stop``, to which nothing will be added; after the first `add`."""
        assert self.held is not None
        begin, self.top = self.top, max(stop, self.top)
        done, self.held = self.held[:, : self.top - begin], self.held[:, self.top - begin :].clone()
        return slice(begin, begin + done.shape[1]), done


@dataclass(frozen=True, eq=False)
class View:
    """A large picture in its windows, with the target at the working scale."""

    segmenter: Segmenter
    cut: Cut
    windows: Windows
    target: Target
    batch_size: int

    @cached_property
    def every(self) -> list[Place]:
        """All windows, by rows."""
        return self.windows.places

    @cached_property
    def aimed(self) -> list[Place]:
        """The windows that hold a pixel of the target."""
        return [place for place in self.every if bool(self.target.pixels[0][self.windows.part(place)].any())]

    def images(self, places: Sequence[Place]) -> Images:
        """Return the windows; what of them lies outside of the picture is 0, as in a prediction."""
        made = [window_of(self.cut, self.windows, place).float() for place in places]
        return torch.stack(made).to(self.segmenter.device)

    def targets(self, places: Sequence[Place]) -> Target:
        """Return each window's part of the target, its pixels weighted by how much the window counts."""
        windows, whole = self.windows, self.target.pixels[0]
        pixels = torch.stack([windows.padded(whole[windows.part(place)]) for place in places])
        weights = torch.stack([windows.padded(windows.weights(place)) for place in places])
        return replace(self.target, pixels=pixels, weights=weights)

    @cached_property
    def pixels(self) -> TiledGrid:
        """The pixels of the picture as a tiled grid."""
        return TiledGrid(tuple(Axis(each.starts, each.weights, 1.0, 0) for each in self.windows.covers))

    def grid(self, cells: Sequence[int]) -> TiledGrid:
        """Return the tiled grid of a layer whose grid has so many cells along each axis in one window."""
        return tiled_grid(self.windows, self.segmenter.spec.divisor, cells)

    def run(self, places: Sequence[Place], work: Callable[[list[Place], int | None], None]) -> None:
        """Call ``work`` on a chunk of windows after the other, and with which row of windows is next."""

        def some(rows: slice) -> None:
            after = places[rows.stop][0] if rows.stop < len(places) else None
            work(list(places[rows]), after)

        in_chunks(len(places), self.batch_size, some)

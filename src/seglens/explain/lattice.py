"""The windows of a large picture, their shares of the target, and the cells that their grids have in common.

Each window has its own grid at a layer. Laid down where the windows are, the grids make one lattice over the
whole picture, on which they are added up or blended. Windows start on cells but for the last ones of a row or
column, which are shifted inwards, and those of layers whose stride doesn't divide the step of the windows:
such grids are laid on the nearest cell.
"""

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
from seglens.predict.tiles import Cover, Cut, Size, Windows, cover, resized
from seglens.shapes import Grids, Images


@dataclass(frozen=True)
class Axis:
    """One axis of a lattice: where each window's cells begin, and what share of each cell is the window's.

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
class Lattice:
    """The cells of a layer (or the pixels) over the whole picture; a window's share is a product."""

    down: Axis
    across: Axis

    @property
    def size(self) -> Size:
        """Rows and columns of cells."""
        return self.down.length, self.across.length

    def shares(self, places: "Sequence[Place]") -> Grids:
        """Return how much each of these windows counts at each of its cells."""
        down = torch.stack([self.down.shares[place.row] for place in places])
        across = torch.stack([self.across.shares[place.column] for place in places])
        return down[:, :, None] * across[:, None, :]

    def corner(self, place: "Place") -> Size:
        """Return the cell at which a window's grid begins."""
        return self.down.offsets[place.row], self.across.offsets[place.column]


@dataclass(frozen=True)
class Place:
    """Which window: its number from the top and from the left."""

    row: int
    column: int


def lattice(windows: Windows, divisor: int, cells: Size) -> Lattice:
    """Return the lattice of a layer that gives a grid of ``cells`` for one window, padded to ``divisor``."""
    return Lattice(*(_axis(n, windows, divisor, m) for n, m in zip(windows.scaled, cells, strict=True)))


def _axis(length: int, windows: Windows, divisor: int, cells: int) -> Axis:
    """A cell's share is the mean of its pixels' weights; padding has the weight of the nearest pixel."""
    covered, padded = cover(length, windows.size, windows.overlap), windows.size + -windows.size % divisor
    reach = covered.weights.shape[1]
    margin = (windows.size - reach) // 2
    weights = covered.weights[:, (torch.arange(padded) - margin).clamp(0, reach - 1)]
    pooled = F.adaptive_avg_pool1d(weights, cells)
    offsets = tuple(round(start * cells / padded) for start in covered.starts)
    total = torch.zeros(offsets[-1] + cells)
    for offset, part in zip(offsets, pooled, strict=True):
        total[offset : offset + cells] += part
    shares = [part / total[at : at + cells] for at, part in zip(offsets, pooled, strict=True)]
    return Axis(offsets, torch.stack(shares), padded / cells, margin)


class OpenRows:
    """Rows of a lattice, ``width`` cells wide, to which windows are still being added; from the top down."""

    top: int

    def __init__(self, width: int) -> None:
        self.width = width
        self.top = 0
        self.held: Tensor | None = None

    def add(self, part: Float[Tensor, "d gh gw"], row: int, column: int) -> None:
        """Add a window whose upper left cell is at ``row`` and ``column``."""
        held = part.new_zeros(len(part), 0, self.width) if self.held is None else self.held
        missing = row + part.shape[1] - self.top - held.shape[1]
        if missing > 0:
            held = torch.cat([held, held.new_zeros(len(held), missing, self.width)], dim=1)
        held[:, row - self.top : row - self.top + part.shape[1], column : column + part.shape[2]] += part
        self.held = held

    def extend(self, parts: Float[Tensor, "n d gh gw"], cells: Lattice, places: Sequence[Place]) -> None:
        """Add windows where they are."""
        for place, part in zip(places, parts, strict=True):
            self.add(part, *cells.corner(place))

    def finish(self, stop: int) -> tuple[slice, Float[Tensor, "d rows width"]]:
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
    def covers(self) -> tuple[Cover, Cover]:
        """The windows along the rows and along the columns."""
        windows = self.windows
        down, across = (cover(length, windows.size, windows.overlap) for length in windows.scaled)
        return down, across

    @cached_property
    def every(self) -> list[Place]:
        """All windows, by rows."""
        down, across = self.covers
        return [Place(i, j) for i in range(len(down.starts)) for j in range(len(across.starts))]

    @cached_property
    def aimed(self) -> list[Place]:
        """The windows that hold a pixel of the target."""
        return [place for place in self.every if bool(self.target.pixels[0][self.part(place)].any())]

    @cached_property
    def inner(self) -> tuple[slice, slice]:
        """What of a window is picture, where the picture is smaller than the window."""
        reaches = [each.weights.shape[1] for each in self.covers]
        margins = [(self.windows.size - reach) // 2 for reach in reaches]
        rows, columns = (slice(at, at + reach) for at, reach in zip(margins, reaches, strict=True))
        return rows, columns

    def part(self, place: Place) -> tuple[slice, slice]:
        """Return the rows and columns of the picture that a window sees."""
        top, left = (each.starts[i] for each, i in zip(self.covers, (place.row, place.column), strict=True))
        reach = tuple(each.weights.shape[1] for each in self.covers)
        return slice(top, top + reach[0]), slice(left, left + reach[1])

    def images(self, places: Sequence[Place]) -> Images:
        """Return the windows; what of them lies outside of the picture is 0, as in a prediction."""
        size, (rows, columns) = self.windows.size, self.inner
        made = torch.zeros(len(places), self.segmenter.spec.channels, size, size)
        for image, place in zip(made, places, strict=True):
            image[:, rows, columns] = resized(
                self.cut, self.windows.native, self.windows.scaled, *self.part(place)
            )
        return made.to(self.segmenter.device)

    def targets(self, places: Sequence[Place]) -> Target:
        """Return each window's part of the target, its pixels weighted by how much the window counts."""
        size, (rows, columns), (down, across) = self.windows.size, self.inner, self.covers
        pixels = torch.zeros(len(places), size, size, dtype=torch.bool)
        weights = torch.zeros(len(places), size, size)
        for i, place in enumerate(places):
            pixels[i, rows, columns] = self.target.pixels[0][self.part(place)]
            weights[i, rows, columns] = down.weights[place.row][:, None] * across.weights[place.column]
        return replace(self.target, pixels=pixels, weights=weights)

    @cached_property
    def pixels(self) -> Lattice:
        """The pixels of the picture as a lattice."""
        down, across = (Axis(each.starts, each.weights, 1.0, 0) for each in self.covers)
        return Lattice(down, across)

    def lattice(self, grid: Sequence[int]) -> Lattice:
        """Return the lattice of a layer whose grid has so many rows and columns in one window."""
        return lattice(self.windows, self.segmenter.spec.divisor, (grid[0], grid[1]))

    def run(self, places: Sequence[Place], work: Callable[[list[Place], int | None], None]) -> None:
        """Call ``work`` on a chunk of windows after the other, and with which row of windows is next."""

        def some(rows: slice) -> None:
            after = places[rows.stop].row if rows.stop < len(places) else None
            work(list(places[rows]), after)

        in_chunks(len(places), self.batch_size, some)

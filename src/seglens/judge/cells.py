"""Every map on the same cells: their means and sums, their order, and how alike two orders are."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from seglens.axes import size_of
from seglens.evaluate.correlation import spearman
from seglens.seeds import content_uniform
from seglens.shapes import Images, Maps, PerImage, Regions
from seglens.superpixels import superpixels

CELLS = 16
"""Every map is averaged over 16 x 16 cells and cells are removed whole, so that a fine map has no advantage
over a coarse one, nor the other way round."""

ACROSS_TARGET = 8
"""Cells along each side of a target, were it a square (a cube) of its size."""

MOST_ACROSS = {2: 64, 3: 24}
"""Cells along each axis of a picture or a volume at most, however small its target is."""

MIN_CELLS = 3
"""Two orders of fewer cells than this say nothing."""

Partition = Int[Tensor, "b *size"]
"""The number of the cell that each pixel belongs to, counted from 0 in every picture."""

PerCell = Float[Tensor, "b cells"]
Order = Int[Tensor, "b cells"]


def cell_of_pixel(size: Sequence[int], num: int) -> Int[Tensor, "*size"]:
    """Return the number of the cell of each pixel, on a grid of at most ``num`` cells along each axis.

    Sides that ``num`` doesn't divide make cells that differ by one pixel; none overlap.
    """
    found = torch.zeros((), dtype=torch.int64)
    for length in size:
        cells = min(num, length)
        found = found[..., None] * cells + torch.arange(length) * cells // length
    return found


def grid_cells(images: Images, valid: Regions, across: int) -> Partition:
    """Cut every picture into ``across`` rectangles along each axis, whatever it shows."""
    del valid
    cells = cell_of_pixel(size_of(images), across).to(images.device)
    return cells.expand(len(images), *cells.shape)


def target_cells(pixels: Regions, least: int = CELLS) -> Partition:
    """Cut every picture into a grid whose cells shrink with its target, `ACROSS_TARGET` or more across it.

    A target of a pixels counts as a square (a cube) of that size. There are ``least`` cells along each axis
    at least, and `MOST_ACROSS` at most; rows without a target get the least.
    """
    size = size_of(pixels, 1)
    sides = pixels.flatten(1).sum(1).double() ** (1 / len(size))
    whole = float(torch.tensor(size).double().prod()) ** (1 / len(size))
    wanted = (ACROSS_TARGET * whole / sides).ceil().nan_to_num(posinf=least)
    num = wanted.clamp(least, max(least, MOST_ACROSS[len(size)])).long().tolist()
    return torch.stack([cell_of_pixel(size, across) for across in num]).to(pixels.device)


def superpixel_cells(images: Images, valid: Regions, across: int) -> Partition:
    """Cut every picture into about ``across`` squared (of volumes cubed) superpixels, which follow its edges.

    Pixels that are not ``valid`` are put to the first one, where they count as little as anywhere.
    """
    return superpixels(images, valid, num_segments=across ** (images.ndim - 2)).clamp_min(0)


def cell_sums(maps: Maps, cells: Partition, counted: Regions | None = None) -> PerCell:
    """Add up each map over the ``counted`` pixels (all of them if None) of each cell."""
    where = cells.to(maps.device).flatten(1)
    values = maps.double() if counted is None else torch.where(counted.to(maps.device), maps.double(), 0)
    totals = values.new_zeros(len(maps), int(where.max()) + 1)
    return totals.scatter_add_(1, where, values.flatten(1))


def cell_means(maps: Maps, cells: Partition, counted: Regions | None = None) -> PerCell:
    """Average each map over the ``counted`` pixels of each cell; NaN in a cell that has none."""
    every = torch.ones_like(maps, dtype=torch.bool) if counted is None else counted.to(maps.device)
    return cell_sums(maps, cells, every) / cell_sums(every.double(), cells)


def order(images: Images, maps: Maps, cells: Partition, seed: int, counted: Regions | None = None) -> Order:
    """Rank the cells of each map, most relevant first; ties in a random order keyed by seed and picture.

    Cells without a ``counted`` pixel come last.
    """
    values = cell_means(maps, cells, counted).nan_to_num(nan=-torch.inf)
    shuffled = content_uniform(images, (values.shape[1],), seed, "ties").argsort(1)
    # A stable sort of the shuffled cells leaves equal ones in their shuffled order.
    return shuffled.gather(1, values.gather(1, shuffled).argsort(dim=1, descending=True, stable=True))


def rank_correlation(values: PerCell, truth: PerCell, counted: Bool[Tensor, "b cells"]) -> PerImage:
    """Return the rank correlation of each row over its ``counted`` cells (Spearman 1904), on the CPU.

    0 where ``values`` are all equal: the mean over random orders of the ties. NaN where ``truth`` is constant
    or a row holds NaN, and with fewer than `MIN_CELLS` cells.
    """
    found = []
    for one, other, which in zip(values.cpu().double(), truth.cpu().double(), counted.cpu(), strict=True):
        first, second = one[None, which], other[None, which]
        usable = int(which.sum()) >= MIN_CELLS and bool((first + second).isfinite().all())
        if not usable or bool((second == second[0, 0]).all()):
            found.append(torch.nan)
        else:
            found.append(float(spearman(first, second).nan_to_num(nan=0.0)))
    return torch.tensor(found)


PARTITIONS: dict[str, Callable[[Images, Regions, int], Partition]] = {
    "grid": grid_cells,
    "superpixels": superpixel_cells,
}
"""Ways to cut a picture. To add one: one function, one line."""

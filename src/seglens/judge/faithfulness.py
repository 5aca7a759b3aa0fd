"""Faithfulness (ROAD): does the score fall where a map says that it rests on, and stay where it says not?

Pixels are removed by noisy linear imputation, most relevant first (MoRF) or least relevant first (LeRF), and
the frozen region's mean probability is read at each step. Rong et al. 2022, "A consistent and efficient
evaluation strategy for attribution methods".
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from seglens.explain.masked import clean_scores, masked_scores
from seglens.explain.target import Target
from seglens.impute import Imputer, blurred, noisy_linear
from seglens.models.segmenter import Segmenter
from seglens.seeds import content_normal, content_uniform
from seglens.shapes import Grids, Images, Maps, PerImage, Rows

CELLS = 16
"""Every map is averaged over 16 x 16 cells and cells are removed whole, so that a fine map has no advantage
over a coarse one, nor the other way round."""

FRACTIONS = tuple(step / 10 for step in range(1, 10))

EVALUABLE = 0.1
"""A picture counts where blurring it takes more than this from the region's mean probability."""

Order = Int[Tensor, "b cells"]


@dataclass(frozen=True)
class Curves:
    """What became of the score when cells were removed, picture by picture.

    ``least_first`` and ``most_first`` are the scores after each of ``FRACTIONS`` was removed, ``full`` is the
    score of the picture and ``base`` that of the blurred picture.
    """

    full: PerImage
    base: PerImage
    least_first: Float[Tensor, "b fractions"]
    most_first: Float[Tensor, "b fractions"]

    @property
    def evaluable(self) -> Bool[Tensor, " b"]:
        """Where there is a score to lose; False for pictures without a target."""
        return (self.full - self.base) > EVALUABLE

    @property
    def value(self) -> PerImage:
        """Mean over the fractions of (LeRF - MoRF) / (full - base); NaN where not `evaluable`.

        0 for an order that knows nothing. It may exceed 1 where removal hurts more than blurring.
        """
        gap = (self.least_first - self.most_first).mean(1) / (self.full - self.base)
        return torch.where(self.evaluable, gap, torch.nan)


def road(
    segmenter: Segmenter,
    images: Images,
    target: Target,
    maps: Mapping[str, Maps],
    *,
    imputer: Imputer = noisy_linear,
    seed: int = 0,
    chunk: int = 16,
) -> dict[str, Curves]:
    """Return the curves of every map of ``maps``, all on the same pictures, noise and breaking of ties.

    Maps are signed, as they are: the lowest values are the least relevant. Curves are NaN for pictures that
    are not evaluable and for rows of a map that hold NaN. Everything returned is on the CPU.
    """
    device = segmenter.device
    images = images.to(device)
    full = clean_scores(segmenter, images, (target,), chunk=chunk)[0].cpu()
    base = clean_scores(segmenter, blurred(images), (target,), chunk=chunk)[0].cpu()
    noise = content_normal(images, tuple(images.shape[1:]), seed, "imputation")
    found = {}
    for name, stack in maps.items():
        usable = stack.flatten(1).isfinite().all(1).cpu() & ((full - base) > EVALUABLE)
        curves = torch.full((2, len(images), len(FRACTIONS)), torch.nan)
        if bool(usable.any()):
            rows = usable.nonzero()[:, 0].to(device)
            ranked = order(images[rows], stack.to(device)[rows], seed)
            for end, ranking in enumerate((ranked.flip(1), ranked)):
                scores = _removal(segmenter, images, target, rows, ranking, noise, imputer, chunk)
                curves[end, usable] = scores
        found[name] = Curves(full, base, curves[0], curves[1])
    return found


def order(images: Images, maps: Maps, seed: int) -> Order:
    """Rank the cells of each map, most relevant first; ties in a random order keyed by seed and picture."""
    values = cell_means(maps, CELLS).flatten(1)
    shuffled = content_uniform(images, (values.shape[1],), seed, "ties").argsort(1)
    # A stable sort of the shuffled cells leaves equal ones in their shuffled order.
    return shuffled.gather(1, values.gather(1, shuffled).argsort(dim=1, descending=True, stable=True))


def _removal(
    segmenter: Segmenter,
    images: Images,
    target: Target,
    rows: Rows,
    ranking: Int[Tensor, "n cells"],
    noise: Images,
    imputer: Imputer,
    chunk: int,
) -> Float[Tensor, "n fractions"]:
    """Score the pictures ``rows`` with growing shares of their cells removed in the order of ``ranking``."""
    place = ranking.argsort(1)  # at each cell, when its turn comes
    cells = cell_of_pixel(images.shape[-2], images.shape[-1], CELLS).to(images.device)
    counts = [round(fraction * ranking.shape[1]) for fraction in FRACTIONS]
    per_row = len(counts)
    turns = torch.tensor(counts, device=images.device)
    copied = rows.repeat_interleave(per_row)

    def perturb(copies: Images, which: Rows) -> Images:
        one = which // per_row
        removed = (place[one] < turns[which % per_row, None])[:, cells]
        return imputer(copies, removed, noise[rows[one]])

    scores = masked_scores(segmenter, images, (target,), copied, perturb, chunk=chunk)[0]
    return scores.view(-1, per_row).cpu()


def cell_of_pixel(height: int, width: int, num: int) -> Int[Tensor, "h w"]:
    """Return the number of the cell of each pixel, on a grid of at most ``num`` x ``num`` cells.

    Sides that ``num`` doesn't divide make cells that differ by one pixel; none overlap.
    """
    down, across = min(num, height), min(num, width)
    row = torch.arange(height) * down // height
    column = torch.arange(width) * across // width
    return row[:, None] * across + column[None, :]


def cell_means(maps: Maps, num: int) -> Grids:
    """Average each map over the cells of `cell_of_pixel`."""
    height, width = maps.shape[-2:]
    down, across = min(num, height), min(num, width)
    cells = cell_of_pixel(height, width, num).flatten().to(maps.device)
    size = torch.bincount(cells, minlength=down * across)
    totals = maps.new_zeros(len(maps), down * across, dtype=torch.float64)
    totals.index_add_(1, cells, maps.flatten(1).double())
    return (totals / size).view(-1, down, across)

"""Faithfulness (ROAD): does the score fall where a map says that it rests on, and stay where it says not?

Pixels are removed by noisy linear imputation, most relevant first (MoRF) or least relevant first (LeRF), and
the scores of `reading` are read at each step. Rong et al. 2022, "A consistent and efficient evaluation
strategy for attribution methods".
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from seglens.impute import Imputer, noisy_linear
from seglens.judge.cells import CELLS, Order, Partition, PerCell, cell_sums, grid_cells, order
from seglens.judge.reading import Reading
from seglens.seeds import content_normal
from seglens.shapes import Images, Maps, PerImage, Regions, Rows

FRACTIONS = tuple(step / 10 for step in range(1, 10))

EVALUABLE = 0.1
"""A picture counts where blurring it takes more than this from the region's mean probability."""


@dataclass(frozen=True)
class Curves:
    """A score while cells are removed, picture by picture.

    ``least_first`` and ``most_first`` are the scores after each of ``FRACTIONS`` was removed, ``full`` is the
    score of the picture and ``base`` that of the blurred picture. ``dice`` are the same curves of the
    secondary score, `s_dice`. ``rank_agreement`` is how well scores in bfloat16 are ranked as those in
    float32, where they are (Spearman, over a sample of all maps' copies).
    """

    full: PerImage
    base: PerImage
    least_first: Float[Tensor, "b fractions"]
    most_first: Float[Tensor, "b fractions"]
    dice: "Curves | None" = None
    rank_agreement: PerImage | None = None

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


@dataclass(frozen=True, eq=False)
class Removal:
    """Takes cells out of ``images``; what was not valid fills no hole, what is not removable stays."""

    images: Images
    cells: Partition
    valid: Regions
    removable: Regions
    imputer: Imputer
    noise: Images

    def without(self, rows: Rows, gone: Bool[Tensor, "n cells"], copies: Images) -> Images:
        """Return ``copies`` of the pictures ``rows`` without the cells that are ``gone``."""
        removed = gone.gather(1, self.cells[rows].flatten(1)).view_as(copies[:, 0]) & self.removable[rows]
        filled = self.imputer(copies, removed | ~self.valid[rows], self.noise[rows])
        return torch.where(removed[:, None], filled, copies)


def removal_curves(
    read: Reading,
    maps: Mapping[str, Maps],
    *,
    kept: Regions | None = None,
    counted: Bool[Tensor, " b"] | None = None,
    cells: Partition | None = None,
    imputer: Imputer = noisy_linear,
    precision: str = "32",
    seed: int = 0,
) -> dict[str, Curves]:
    """Return the curves of every map of ``maps``, all on the same pictures, noise and breaking of ties.

    Padding is neither ranked nor removed, nor does it fill holes. Maps are signed, as they are: the lowest
    values are the least relevant. Curves are NaN for pictures that are not evaluable and for rows of a map
    that hold NaN. Everything returned is on the CPU. Two maps that remove the same cells of a picture share a
    forward pass.

    Args:
        read: scores changed copies of the pictures.
        maps: maps by name.
        kept: pixels that stay whatever a map says of them, such as the target with its surroundings. The
            scale stays that of the whole picture, from its score to that of the blurred picture: what its
            rest alone is worth may be next to nothing, and no denominator.
        counted: pictures to do; the others' curves are NaN. All by default.
        cells: what is removed at a time; a grid of 16 x 16 by default.
        imputer: what fills the holes.
        precision: of the removal's forward passes, as in `choose_precision`.
        seed: of noise and ties.
    """
    images, valid, device = read.images, read.valid, read.images.device
    cells = grid_cells(images, valid, CELLS) if cells is None else cells.to(device)
    removable = valid if kept is None else valid & ~kept.to(device)
    full, base = read.full, read.base
    worth = ((full[0] - base[0]) > EVALUABLE) & removable.flatten(1).any(1).cpu()
    worth &= torch.ones_like(worth) if counted is None else counted.cpu()
    num = int(cells.max()) + 1
    copied, gone, places = [], [], {}
    for name, stack in maps.items():
        usable = stack.flatten(1).isfinite().all(1).cpu() & worth
        rows = usable.nonzero()[:, 0].to(device)
        places[name] = usable
        if len(rows):
            cut, zone = cells[rows], removable[rows]
            ranked = order(images[rows], stack.to(device)[rows], cut, seed, zone)
            removed = _removals(ranked, cell_sums(zone.double(), cut))
            gone.append(F.pad(removed, (0, num - removed.shape[1])))  # cells that only other pictures have
            copied.append(rows.repeat_interleave(2 * len(FRACTIONS)))
    noise = content_normal(images, tuple(images.shape[1:]), seed, "imputation")
    removal = Removal(images, cells, valid, removable, imputer, noise)
    found_scores, agreement = _score(read, removal, copied, gone, precision)
    scores = iter(found_scores)
    found = {}
    for name, usable in places.items():
        curves = torch.full((2, len(images), 2, len(FRACTIONS)), torch.nan)
        if bool(usable.any()):
            curves[:, usable] = next(scores).view(2, -1, 2, len(FRACTIONS)).to(curves.dtype)
        region, dice = (
            Curves(full[kind], base[kind], curves[kind, :, 0], curves[kind, :, 1]) for kind in (0, 1)
        )
        found[name] = replace(region, dice=dice, rank_agreement=agreement)
    return found


def _removals(ranked: Order, areas: PerCell) -> Bool[Tensor, "n cells"]:
    """Say for each picture, end (least first, most first) and fraction which cells are gone.

    Fractions are of the pixels, so that who ranks large superpixels first removes no more than others: a
    cell is gone once the middle of its pixels has been reached. Of equal cells, as on a grid, that rounds.
    """
    total = areas.sum(1, keepdim=True)
    in_turn = areas.gather(1, ranked)
    middle = torch.zeros_like(areas).scatter(1, ranked, in_turn.cumsum(1) - in_turn / 2)
    reached = torch.stack([total - middle, middle], 1)[:, :, None, :]
    limits = torch.tensor(FRACTIONS, dtype=areas.dtype, device=areas.device) * total
    return ((reached < limits[:, None, :, None]) & (areas > 0)[:, None, None, :]).flatten(0, 2)


def _score(
    read: Reading,
    removal: Removal,
    copied: list[Int[Tensor, " _"]],
    gone: list[Bool[Tensor, "_ cells"]],
    precision: str,
) -> tuple[list[Float[Tensor, "both _"]], PerImage | None]:
    """Score pictures ``copied`` without the cells that are ``gone``, each distinct one once."""
    if not copied:
        return [], None
    every = torch.cat([torch.cat(copied)[:, None], torch.cat(gone).long()], 1)
    once, place = every.unique(dim=0, return_inverse=True)
    rows, without = once[:, 0], once[:, 1:].bool()

    def perturb(copies: Images, which: Rows) -> Images:
        return removal.without(rows[which], without[which], copies)

    scores, agreement = read.changed(rows, perturb, precision)
    return list(scores[:, place.cpu()].split([len(part) for part in copied], dim=1)), agreement


def agreement_of(curves: Mapping[str, Curves]) -> dict[str, PerImage]:
    """Return how well scores in bfloat16 are ranked, which is the same for all maps; nothing in float32."""
    alike = next(iter(curves.values())).rank_agreement
    return {} if alike is None else {"rank_agreement": alike}


def dice_details(curves: Curves) -> dict[str, PerImage]:
    """Return the score by `s_dice`, where `s_reg` is evaluable as well."""
    if curves.dice is None:
        return {}
    return {"s_dice": torch.where(curves.evaluable, curves.dice.value, torch.nan)}

"""Faithfulness (ROAD): does the score fall where a map says that it rests on, and stay where it says not?

Pixels are removed by noisy linear imputation, most relevant first (MoRF) or least relevant first (LeRF), and
the scores of `reading` are read at each step. Rong et al. 2022, "A consistent and efficient evaluation
strategy for attribution methods". At the target's scale (`target_faithfulness` of `seglens.judge.context`)
steps are in units of the target's own area, and pixels are kept (insertion) as well as removed (deletion).
"""

from collections.abc import Mapping, Sequence
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

TARGET_FRACTIONS = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0)
"""Steps at the target's scale, in units of its area."""

MOST_OF_PICTURE = 0.9
"""A step at the target's scale that is more of the picture than this is left out."""

EVALUABLE = 0.1
"""A picture counts where blurring it takes more than this from the region's mean probability."""


Steps = Bool[Tensor, "b ends fractions"]
"""Which steps are made of each picture: removed (deletion), and at the target's scale kept (insertion)."""


@dataclass(frozen=True)
class Curves:
    """A score while cells are removed, picture by picture.

    ``least_first`` and ``most_first`` are the scores after each fraction was removed, ``full`` is the
    score of the picture and ``base`` that of the blurred picture. ``dice`` are the same curves of the
    secondary score, `s_dice`. ``rank_agreement`` is how well scores in bfloat16 are ranked as those in
    float32, where they are (Spearman, over a sample of all maps' copies).

    At the target's scale ``least_kept`` and ``most_kept`` are the scores where all but such a fraction was
    removed; steps that are too much of a picture are NaN.
    """

    full: PerImage
    base: PerImage
    least_first: Float[Tensor, "b fractions"]
    most_first: Float[Tensor, "b fractions"]
    dice: "Curves | None" = None
    rank_agreement: PerImage | None = None
    least_kept: Float[Tensor, "b fractions"] | None = None
    most_kept: Float[Tensor, "b fractions"] | None = None

    @property
    def evaluable(self) -> Bool[Tensor, " b"]:
        """Where there is a score to lose; False for pictures without a target."""
        return (self.full - self.base) > EVALUABLE

    @property
    def value(self) -> PerImage:
        """Mean over the fractions of (LeRF - MoRF) / (full - base); NaN where not `evaluable`.

        0 for an order that knows nothing. It may exceed 1 where removal hurts more than blurring. At the
        target's scale it is the mean of `deletion` and `insertion`.
        """
        if self.least_kept is None:
            return self.deletion
        return (self.deletion + self.insertion) / 2

    @property
    def deletion(self) -> PerImage:
        """Mean of what removing the most relevant takes more than removing the least relevant does."""
        return self._share((self.least_first - self.most_first).nanmean(1))

    @property
    def insertion(self) -> PerImage:
        """Mean of what keeping the most relevant alone gives more than keeping the least relevant does."""
        if self.least_kept is None or self.most_kept is None:
            return torch.full_like(self.full, torch.nan)
        return self._share((self.most_kept - self.least_kept).nanmean(1))

    def filled(self, other: "Curves", rows: Bool[Tensor, " b"]) -> "Curves":
        """Return the curves with those of ``other`` at ``rows``."""

        def at_rows(own: Tensor, new: Tensor) -> Tensor:
            return torch.where(rows.view(-1, *[1] * (own.ndim - 1)), new, own)

        def perhaps(own: Tensor | None, new: Tensor | None) -> Tensor | None:
            return new if own is None or new is None else at_rows(own, new)

        return replace(
            self,
            least_first=at_rows(self.least_first, other.least_first),
            most_first=at_rows(self.most_first, other.most_first),
            dice=None if self.dice is None or other.dice is None else self.dice.filled(other.dice, rows),
            rank_agreement=perhaps(self.rank_agreement, other.rank_agreement),
            least_kept=perhaps(self.least_kept, other.least_kept),
            most_kept=perhaps(self.most_kept, other.most_kept),
        )

    def _share(self, gap: PerImage) -> PerImage:
        """Return a gap as a share of what blurring the picture takes; NaN where not `evaluable`."""
        return torch.where(self.evaluable, gap / (self.full - self.base), torch.nan)


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
    area: PerImage | None = None,
    wanted: Steps | None = None,
    imputer: Imputer = noisy_linear,
    precision: str = "32",
    seed: int = 0,
) -> tuple[dict[str, Curves], int]:
    """Return the curves of every map of ``maps``, all on the same pictures, noise and breaking of ties.

    Beside them stands how many copies of pictures went through the model.

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
        area: pixels of each target, for steps at its scale (`TARGET_FRACTIONS`), in which all else is removed
            as well; steps are shares of the picture (`FRACTIONS`) by default.
        wanted: the steps that are made of each picture, for deletion and, at the target's scale, insertion;
            the curves are NaN at the others. All by default.
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
    num, fractions = int(cells.max()) + 1, FRACTIONS if area is None else TARGET_FRACTIONS
    ends = 2 if area is None else 4
    made = allowed_steps(area, valid, kept) if wanted is None else wanted
    made = made.repeat_interleave(2, 1)  # the least and the most relevant
    copied, gone, places = [], [], {}
    for name, stack in maps.items():
        usable = stack.flatten(1).isfinite().all(1).cpu() & worth
        rows = usable.nonzero()[:, 0].to(device)
        places[name] = usable
        if len(rows):
            cut, zone = cells[rows], removable[rows]
            ranked = order(images[rows], stack.to(device)[rows], cut, seed, zone)
            areas = cell_sums(zone.double(), cut)
            unit = areas.sum(1) if area is None else area.to(device).double()[rows]
            removed = _removals(ranked, areas, _limits(fractions, unit, areas), kept_too=area is not None)
            here = made[usable].flatten().to(device)
            gone.append(F.pad(removed[here], (0, num - removed.shape[1])))  # cells that only others have
            copied.append(rows.repeat_interleave(ends * len(fractions))[here])
    noise = content_normal(images, tuple(images.shape[1:]), seed, "imputation")
    removal = Removal(images, cells, valid, removable, imputer, noise)
    found_scores, agreement, passes = _score(read, removal, copied, gone, precision)
    scores = iter(found_scores)
    found = {}
    for name, usable in places.items():
        curves = torch.full((2, len(images), ends, len(fractions)), torch.nan)
        if bool(usable.any()):
            curves[:, usable[:, None, None] & made] = next(scores).to(curves.dtype)
        region, dice = (
            Curves(
                full[kind],
                base[kind],
                curves[kind, :, 0],
                curves[kind, :, 1],
                least_kept=None if area is None else curves[kind, :, 2],
                most_kept=None if area is None else curves[kind, :, 3],
            )
            for kind in (0, 1)
        )
        found[name] = replace(region, dice=dice, rank_agreement=agreement)
    return found, passes


def allowed_steps(area: PerImage | None, valid: Regions, kept: Regions | None = None) -> Steps:
    """Return the steps of each picture that are made, which at the target's scale goes by its ``area``.

    Those that are more than `MOST_OF_PICTURE` of what can be removed are left out there.
    """
    if area is None:
        return torch.ones(len(valid), 1, len(FRACTIONS), dtype=torch.bool)
    removable = valid if kept is None else valid & ~kept.to(valid.device)
    most = MOST_OF_PICTURE * removable.flatten(1).sum(1).cpu().double()
    taken = area.cpu().double()[:, None] * torch.tensor(TARGET_FRACTIONS)
    return (taken <= most[:, None])[:, None].repeat(1, 2, 1)


def some_of(allowed: Steps, places: Rows, thinned: int) -> Steps:
    """Return one in ``thinned`` of the ``allowed`` steps of each picture, all in turn as pictures come.

    Which they are goes by the place of a picture in a random order, so that the mean over some of the steps
    of each picture has the expectation of the mean over all. They lie evenly between the first and the last,
    and those of insertion are the opposite ones.
    """
    wanted = torch.zeros_like(allowed)
    for row, place in enumerate(places.tolist()):
        for end, steps in enumerate(allowed[row]):
            known = steps.nonzero()[:, 0] if end == 0 else steps.nonzero()[:, 0].flip(0)
            taken = -(-len(known) // thinned)
            for turn in range(taken):
                wanted[row, end, known[(place + turn * len(known) // taken) % len(known)]] = True
    return wanted


def _limits(fractions: Sequence[float], unit: PerImage, areas: PerCell) -> Float[Tensor, "b fractions"]:
    """Return how many pixels each step takes; at the target's scale never more than is measured."""
    steps = torch.tensor(fractions, dtype=areas.dtype, device=areas.device) * unit[:, None]
    return steps.minimum(MOST_OF_PICTURE * areas.sum(1, keepdim=True))


def _removals(
    ranked: Order, areas: PerCell, limits: Float[Tensor, "b fractions"], *, kept_too: bool
) -> Bool[Tensor, "n cells"]:
    """Say for each picture, end (least first, most first) and number of pixels which cells are gone.

    With ``kept_too`` two more ends follow, at which all but these cells are gone. Steps are of pixels, so
    that who ranks large superpixels first removes no more than others: a cell is gone once the middle of its
    pixels has been reached. Of equal cells, as on a grid, that rounds.
    """
    total = areas.sum(1, keepdim=True)
    in_turn = areas.gather(1, ranked)
    middle = torch.zeros_like(areas).scatter(1, ranked, in_turn.cumsum(1) - in_turn / 2)
    reached = torch.stack([total - middle, middle], 1)[:, :, None, :]
    gone = reached < limits[:, None, :, None]
    if kept_too:
        gone = torch.cat([gone, ~gone], 1)
    return (gone & (areas > 0)[:, None, None, :]).flatten(0, 2)


def _score(
    read: Reading,
    removal: Removal,
    copied: list[Int[Tensor, " _"]],
    gone: list[Bool[Tensor, "_ cells"]],
    precision: str,
) -> tuple[list[Float[Tensor, "both _"]], PerImage | None, int]:
    """Score pictures ``copied`` without the cells that are ``gone``, each distinct one once; say how many."""
    if not copied:
        return [], None, 0
    # Of whole numbers of 16 bits, since fine cells are thousands: rows are of one batch.
    every = torch.cat([torch.cat(copied)[:, None].short(), torch.cat(gone).short()], 1)
    once, place = every.unique(dim=0, return_inverse=True)
    rows, without = once[:, 0].long(), once[:, 1:].bool()

    def perturb(copies: Images, which: Rows) -> Images:
        return removal.without(rows[which], without[which], copies)

    scores, agreement = read.changed(rows, perturb, precision)
    return list(scores[:, place.cpu()].split([len(part) for part in copied], dim=1)), agreement, len(once)


def agreement_of(curves: Mapping[str, Curves]) -> dict[str, PerImage]:
    """Return how well scores in bfloat16 are ranked, which is the same for all maps; nothing in float32."""
    alike = next(iter(curves.values())).rank_agreement
    return {} if alike is None else {"rank_agreement": alike}


def dice_details(curves: Curves) -> dict[str, PerImage]:
    """Return the score by `s_dice`, where `s_reg` is evaluable as well, and both ends of a target's scale."""
    ends = {} if curves.most_kept is None else {"deletion": curves.deletion, "insertion": curves.insertion}
    if curves.dice is None:
        return ends
    return ends | {"s_dice": torch.where(curves.evaluable, curves.dice.value, torch.nan)}

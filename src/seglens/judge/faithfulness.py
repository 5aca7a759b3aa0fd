"""Faithfulness (ROAD): does the score fall where a map says that it rests on, and stay where it says not?

Pixels are removed by noisy linear imputation, most relevant first (MoRF) or least relevant first (LeRF), and
the frozen region's mean probability is read at each step. Rong et al. 2022, "A consistent and efficient
evaluation strategy for attribution methods".
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seglens.device import choose_precision
from seglens.explain.masked import Perturb, clean_scores, masked_scores, rank_agreement
from seglens.explain.target import Target, Unit
from seglens.impute import Imputer, blurred, noisy_linear
from seglens.judge.cells import CELLS, Order, cell_of_pixel, order
from seglens.models.segmenter import Segmenter
from seglens.seeds import content_normal
from seglens.shapes import Images, Maps, PerImage, Regions, Rows, Scores

FRACTIONS = tuple(step / 10 for step in range(1, 10))

EVALUABLE = 0.1
"""A picture counts where blurring it takes more than this from the region's mean probability."""


@dataclass(frozen=True)
class Curves:
    """What became of the score when cells were removed, picture by picture.

    ``least_first`` and ``most_first`` are the scores after each of ``FRACTIONS`` was removed, ``full`` is the
    score of the picture and ``base`` that of the blurred picture. ``rank_agreement`` is how well scores in
    bfloat16 are ranked as those in float32, where they are (Spearman, over a sample of all maps' copies).
    """

    full: PerImage
    base: PerImage
    least_first: Float[Tensor, "b fractions"]
    most_first: Float[Tensor, "b fractions"]
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


def unit_of(target: Target) -> Unit:
    """Judges read probabilities; logits for a false negative, where probabilities are near zero."""
    return "mean" if target.label == "false-negative" else "probability"


def road(
    segmenter: Segmenter,
    images: Images,
    target: Target,
    maps: Mapping[str, Maps],
    *,
    valid: Regions | None = None,
    kept: Regions | None = None,
    imputer: Imputer = noisy_linear,
    precision: str = "32",
    seed: int = 0,
    chunk: int = 16,
) -> dict[str, Curves]:
    """Return the curves of every map of ``maps``, all on the same pictures, noise and breaking of ties.

    Maps are signed, as they are: the lowest values are the least relevant. Curves are NaN for pictures that
    are not evaluable and for rows of a map that hold NaN. Everything returned is on the CPU. Two maps that
    remove the same cells of a picture share a forward pass.

    Args:
        segmenter: the model.
        images: pictures in [0, 1].
        target: what is scored.
        maps: maps by name.
        valid: pixels that are picture: padding is neither ranked nor removed, nor does it fill holes.
        kept: pixels that stay whatever a map says of them, such as the target with its surroundings. The
            curves are then scaled by the whole score (by 1 for logits) and not by what blurring takes:
            what the rest of a picture is worth may be next to nothing, and no denominator.
        imputer: what fills the holes.
        precision: of the removal's forward passes, as in `choose_precision`.
        seed: of noise and ties.
        chunk: perturbed pictures in the model at once.
    """
    device, unit = segmenter.device, unit_of(target)
    images = images.to(device)
    whole = torch.ones(len(images), *images.shape[-2:], dtype=torch.bool, device=device)
    valid = whole if valid is None else valid.to(device)
    removable = valid if kept is None else valid & ~kept.to(device)
    full = clean_scores(segmenter, images, (target,), unit=unit, chunk=chunk)[0].cpu()
    if kept is None:
        base = clean_scores(segmenter, blurred(images), (target,), unit=unit, chunk=chunk)[0].cpu()
    else:
        base = full - 1 if unit == "mean" else torch.zeros_like(full)
    worth = ((full - base) > EVALUABLE) & removable.flatten(1).any(1).cpu()
    copied, gone, places = [], [], {}
    for name, stack in maps.items():
        usable = stack.flatten(1).isfinite().all(1).cpu() & worth
        rows = usable.nonzero()[:, 0].to(device)
        places[name] = usable
        if len(rows):
            counted = removable[rows]
            ranked = order(images[rows], stack.to(device)[rows], seed, counted)
            gone.append(_removals(ranked, counted))
            copied.append(rows.repeat_interleave(2 * len(FRACTIONS)))
    found_scores, agreement = _score(
        segmenter, images, target, copied, gone, valid, removable, imputer, unit, precision, seed, chunk
    )
    scores = iter(found_scores)
    found = {}
    for name, usable in places.items():
        curves = torch.full((len(images), 2, len(FRACTIONS)), torch.nan)
        if bool(usable.any()):
            curves[usable] = next(scores).view(-1, 2, len(FRACTIONS)).to(curves.dtype)
        found[name] = Curves(full, base, curves[:, 0], curves[:, 1], agreement)
    return found


def _removals(ranked: Order, counted: Regions) -> Bool[Tensor, "n cells"]:
    """Say for each picture, end (least first, most first) and fraction which cells are gone."""
    cells = cell_of_pixel(counted.shape[-2], counted.shape[-1], CELLS).flatten().to(counted.device)
    pixels = torch.zeros(ranked.shape, device=counted.device)
    num = (pixels.index_add_(1, cells, counted.flatten(1).float()) > 0).sum(1)[:, None]
    turn = ranked.argsort(1)  # at each cell, when its turn comes
    last = torch.where(turn < num, num - 1 - turn, turn)
    counts = torch.tensor(FRACTIONS, dtype=torch.float64, device=counted.device) * num
    turns = torch.stack([last, turn], 1)[:, :, None, :]
    return (turns < counts.round()[:, None, :, None]).flatten(0, 2)


def _score(
    segmenter: Segmenter,
    images: Images,
    target: Target,
    copied: list[Rows],
    gone: list[Bool[Tensor, "_ cells"]],
    valid: Regions,
    removable: Regions,
    imputer: Imputer,
    unit: Unit,
    precision: str,
    seed: int,
    chunk: int,
) -> tuple[list[Float[Tensor, " _"]], PerImage | None]:
    """Score pictures ``copied`` without the cells that are ``gone``, each distinct one once."""
    if not copied:
        return [], None
    noise = content_normal(images, tuple(images.shape[1:]), seed, "imputation")
    cells = cell_of_pixel(images.shape[-2], images.shape[-1], CELLS).to(images.device)
    every = torch.cat([torch.cat(copied)[:, None], torch.cat(gone).long()], 1)
    once, place = every.unique(dim=0, return_inverse=True)
    rows, without = once[:, 0], once[:, 1:].bool()

    def perturb(copies: Images, which: Rows) -> Images:
        of = rows[which]
        removed = without[which][:, cells] & removable[of]
        filled = imputer(copies, removed | ~valid[of], noise[of])
        return torch.where(removed[:, None], filled, copies)

    scores, agreement = quick_scores(segmenter, images, target, rows, perturb, unit, precision, chunk)
    return list(scores[place].cpu().split([len(part) for part in copied])), agreement


def quick_scores(
    segmenter: Segmenter,
    images: Images,
    target: Target,
    rows: Rows,
    perturb: Perturb,
    unit: Unit,
    precision: str,
    chunk: int,
) -> tuple[Scores, PerImage | None]:
    """Score changed copies, in bfloat16 if ``precision`` says so; then also how well they are ranked."""
    scores = masked_scores(
        segmenter, images, (target,), rows, perturb, unit=unit, chunk=chunk, precision=precision
    )
    if choose_precision(precision, segmenter.device) == "32":
        return scores[0], None
    alike = rank_agreement(segmenter, images, (target,), rows, perturb, scores, unit=unit, chunk=chunk)
    return scores[0], alike[0].float().cpu()


def agreement_of(curves: Mapping[str, Curves]) -> dict[str, PerImage]:
    """Return how well scores in bfloat16 are ranked, which is the same for all maps; nothing in float32."""
    alike = next(iter(curves.values())).rank_agreement
    return {} if alike is None else {"rank_agreement": alike}

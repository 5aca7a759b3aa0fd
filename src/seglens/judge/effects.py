"""Causal agreement: are the places that a map calls important those whose removal changes the answer?"""

from collections.abc import Mapping

import torch
from jaxtyping import Bool
from torch import Tensor

from seglens.axes import boxes, lines, size_of, widened
from seglens.explain.explanation import Explanation
from seglens.impute import blurred, noisy_linear
from seglens.judge.case import JudgedBatch, Key, ScoreValues
from seglens.judge.cells import PerCell, cell_means, cell_sums, rank_correlation
from seglens.judge.context import surroundings
from seglens.results.names import map_name
from seglens.results.scorecard import CellPoints
from seglens.seeds import content_normal
from seglens.shapes import Images, Regions, Rows

IMPUTERS = ("noisy-linear", "blur")
"""Two ways to take a cell away. Where they don't agree, nothing can be told about maps."""

WHOLE, CONTEXT = "causal_agreement", "causal_agreement_context"

BESIDE = 20
"""Cells beside the target and its margin that a picture must have for the score of the context: the rank
correlation of two random orders of so many has a standard error of 1 / sqrt(19), .23."""

SHOWN = 4
"""Images whose cells are drawn one by one."""


def causal_agreement(case: JudgedBatch) -> tuple[dict[str, ScoreValues], dict[str, CellPoints]]:
    """Correlate each map's attribution to the cells with what occluding each cell does (Spearman, signed).

    Both are taken by pixel: a large superpixel has more of any map and of any effect, so that their sums
    agree even where the map is noise. On a grid that is the same.

    Over all cells, and over those that don't touch the target or its margin, where there are `BESIDE` or
    more. A map that was itself made by occlusion is held against the effects of the imputer that it was *not*
    made with, else it would be compared with itself. ``ceiling`` is the agreement of the two imputers: no map
    can be asked for more.

    Returns:
        The scores by name, followed by the imputer where it is the second one, and points to draw.
    """
    cells, occluded = case.partition.cpu(), effects(case)
    maps = {map_name(*key): entry.map for key, entry in case.maps.items()}
    maps |= {name: stack for name, stack in case.nulls.items() if name not in maps}
    areas = cell_sums(case.valid.cpu().double(), cells)
    valid = areas > 0
    # In float32 a map that is even is so in every cell, whatever its sums were rounded to.
    totals = {name: cell_means(stack.cpu(), cells, case.valid.cpu()).float() for name, stack in maps.items()}
    occluded = {name: effect / areas for name, effect in occluded.items()}
    apart = cell_sums(surroundings(case).cpu().double(), cells) == 0
    scored_with = {key: imputer_for(entry) for key, entry in case.maps.items()}
    found = {}
    beside = valid & apart
    beside &= beside.sum(1, keepdim=True) >= BESIDE
    for score, zone in ((WHOLE, valid), (CONTEXT, beside)):
        ceiling = rank_correlation(occluded["blur"], occluded["noisy-linear"], zone)
        for imputer in IMPUTERS:
            keys = [key for key, name in scored_with.items() if name == imputer]
            if keys or imputer == IMPUTERS[0]:
                truth = occluded[imputer]
                found[score if imputer == IMPUTERS[0] else f"{score}:{imputer}"] = ScoreValues(
                    values={key: rank_correlation(totals[map_name(*key)], truth, zone) for key in keys},
                    references={name: rank_correlation(totals[name], truth, zone) for name in case.nulls},
                    about={"ceiling": ceiling},
                )
    return found, _points(case, scored_with, totals, occluded, valid)


def imputer_for(entry: Explanation) -> str:
    """Return the imputer whose effects judge ``entry``: not the one that it was made with."""
    own = entry.settings.get("imputer", entry.settings.get("fill"))
    return next(name for name in IMPUTERS if name != own)


def effects(case: JudgedBatch) -> dict[str, PerCell]:
    """Return by imputer how far the score falls where each cell is taken away; on the CPU.

    In float32 whatever the settings say: most cells move the score by less than bfloat16 rounds it, and both
    imputers would agree on the rounding. Padding is neither taken away nor used to fill. NaN for pictures
    without a target.
    """
    device = case.run.segmenter.device
    images, valid, cells = (stack.to(device) for stack in (case.images, case.valid, case.partition))
    total = int(cells.max()) + 1
    rows = torch.arange(len(images), device=device).repeat_interleave(total)
    noise = content_normal(images, tuple(images.shape[1:]), case.seed, "imputation")
    soft = blurred(images, spacing=case.run.spec.spacing)
    full = case.reading.full[0]

    def gone(which: Rows) -> Regions:
        where = cells[rows[which]]
        return (where == widened(which % total, where)) & valid[rows[which]]

    def linearly(copies: Images, which: Rows) -> Images:
        return _impute_in_box(copies, gone(which), valid[rows[which]], noise[rows[which]])

    def softly(copies: Images, which: Rows) -> Images:
        return torch.where(gone(which)[:, None], soft[rows[which]], copies)

    found = {}
    for name, perturb in zip(IMPUTERS, (linearly, softly), strict=True):
        scores, _ = case.reading.changed(rows, perturb, "32")
        found[name] = full[:, None] - scores[0].view(-1, total)
    return found


def _impute_in_box(images: Images, removed: Regions, valid: Regions, noise: Images) -> Images:
    """Impute one patch in each picture, looking at no more than a box around the patch.

    The pixels inside depend on those that touch the patch alone, so this is `noisy_linear` of the picture,
    in a small part of the time. All boxes are as large as the largest takes; those at a border move inwards.
    """
    starts, size = [], []
    for line, length in zip(lines(removed), size_of(images), strict=True):
        first = line.int().argmax(1)
        last = length - 1 - line.flip(1).int().argmax(1)
        longest = int(torch.where(line.any(1), last - first + 1, 1).max())
        size.append(min(length, longest + 2))
        starts.append((first - 1).clamp(0, length - size[-1]))
    index = boxes(starts, size)
    hole, around = removed[index], valid[index]
    pixels, grain = (stack.movedim(1, -1)[index].movedim(-1, 1) for stack in (images, noise))
    filled = torch.where(hole[:, None], noisy_linear(pixels, hole | ~around, grain), pixels)
    changed = images.movedim(1, -1).clone()
    changed[index] = filled.movedim(1, -1)
    return changed.movedim(-1, 1).contiguous()


def _points(
    case: JudgedBatch,
    scored_with: Mapping[Key, str],
    totals: Mapping[str, PerCell],
    occluded: Mapping[str, PerCell],
    counted: Bool[Tensor, "b cells"],
) -> dict[str, CellPoints]:
    """The cells of a few images, to draw."""
    shown = (~case.target.empty()).cpu().nonzero()[:SHOWN, 0]

    def share(values: PerCell) -> tuple[float, ...]:
        chosen = torch.where(counted, values, 0)[shown]
        largest = chosen.abs().amax(1, keepdim=True).clamp_min(1e-12)
        return tuple((chosen / largest)[counted[shown]].nan_to_num().tolist())

    return {
        map_name(*key): CellPoints(attribution=share(totals[map_name(*key)]), effect=share(occluded[imputer]))
        for key, imputer in scored_with.items()
    }

"""The effect of a region on the score: it is removed, moved, or occluded cell by cell.

Attribution says where a map is bright. Only these say what happens to the score.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from seglens.axes import MAX_POOL, boxes, lines, size_of
from seglens.evaluate.intervals import NOTHING, Interval, interval_bounds
from seglens.explain.explanation import Explanation
from seglens.explain.masked import Prepared, clean_scores, score_copies
from seglens.explain.target import Target, dilate
from seglens.impute import noisy_linear
from seglens.models.segmenter import Segmenter
from seglens.results.scorecard import TagEffect
from seglens.seeds import content_generator, content_normal
from seglens.shapes import Images, PerImage, Regions, Rows

RIM = 2
"""Pixels around a region that are imputed with it, so that a soft edge doesn't stay behind."""


@dataclass(frozen=True)
class Effect:
    """The frozen region's mean probability per picture: as it is, with the tag removed, with the tag moved.

    ``tag_moved`` is NaN where there is no free place to move the tag to.
    """

    full: PerImage
    tag_removed: PerImage
    tag_moved: PerImage

    @property
    def complete(self) -> Bool[Tensor, " b"]:
        """The pictures that have all three values; all means below are over these."""
        return (self.full + self.tag_removed + self.tag_moved).isfinite()

    def drop(self, changed: PerImage, *, seed: int = 0) -> Interval:
        """Return the relative drop ``1 - mean(changed) / mean(full)`` with its bootstrap interval."""
        rows = self.complete
        num = int(rows.sum())
        if num < 2:
            return NOTHING
        full, after = self.full[rows].double(), changed[rows].double()

        def relative(drawn: Int[Tensor, "r m"]) -> Float[Tensor, " r"]:
            return 1 - after[drawn].mean(1) / full[drawn].mean(1)

        return Interval(
            float(1 - after.mean() / full.mean()), *interval_bounds(num, relative, seed=seed), num
        )

    def table(self, *, seed: int = 0) -> TagEffect:
        """Return means and drops as they stand in ``shortcut.json``."""
        rows = self.complete
        removed, moved = self.drop(self.tag_removed, seed=seed), self.drop(self.tag_moved, seed=seed)
        return TagEffect(
            full=float(self.full[rows].mean()),
            tag_removed=float(self.tag_removed[rows].mean()),
            tag_moved=float(self.tag_moved[rows].mean()),
            drop_removed=removed.mean,
            drop_removed_low=removed.low,
            drop_removed_high=removed.high,
            drop_moved=moved.mean,
            drop_moved_low=moved.low,
            drop_moved_high=moved.high,
            num=int(rows.sum()),
        )


def without(images: Images, tags: Regions, *, seed: int = 0) -> Images:
    """Impute ``tags``, with a rim of `RIM` pixels, from what surrounds them."""
    noise = content_normal(images, tuple(images.shape[1:]), seed, "imputation")
    return noisy_linear(images, dilate(tags, RIM), noise)


def moved(
    images: Images, tags: Regions, occupied: Regions, *, seed: int = 0
) -> tuple[Images, Bool[Tensor, " b"]]:
    """Move each tag to a random free place of its picture; where it stood is imputed.

    A place is free where the tag's box, with its rim, touches neither ``occupied`` nor where the tag stood.
    The choice is keyed by seed and picture.

    Returns:
        The pictures, and for which of them there was a free place; the others only lost their tag.
    """
    changed = without(images, tags, seed=seed)
    blocked = dilate(tags | occupied, RIM)
    found = torch.zeros(len(images), dtype=torch.bool)
    for row in range(len(images)):
        if not bool(tags[row].any()):
            continue
        place = tags[row].nonzero()
        first, size = place.amin(0), (place.amax(0) - place.amin(0) + 1).tolist()
        taken = MAX_POOL[len(size)](blocked[row][None].float(), size, stride=1)[0] > 0
        places = (~taken).nonzero()
        if len(places) == 0:
            continue
        generator = content_generator(images[row], seed, "new place of the tag")
        chosen = places[int(torch.randint(len(places), (1,), generator=generator))]
        old, new = (_box(corner.tolist(), size) for corner in (first, chosen))
        spot = changed[row][new]
        spot.copy_(torch.where(tags[row][None][old], images[row][old], spot))
        found[row] = True
    return changed, found


def _box(corner: Sequence[int], size: Sequence[int]) -> tuple[slice, ...]:
    """Return the index of a box of a picture with its channels."""
    return (slice(None), *(slice(at, at + side) for at, side in zip(corner, size, strict=True)))


def effect(
    segmenter: Segmenter,
    images: Images,
    target: Target,
    tags: Regions,
    occupied: Regions,
    *,
    seed: int = 0,
    batch_size: int = 16,
) -> Effect:
    """Score the pictures as they are, without the tag, and with the tag elsewhere; on the CPU."""
    elsewhere, possible = moved(images, tags, occupied, seed=seed)
    full, removed, at_other_place = (
        clean_scores(segmenter, pictures, (target,), batch_size=batch_size)[0].cpu()
        for pictures in (images, without(images, tags, seed=seed), elsewhere)
    )
    return Effect(full, removed, torch.where(possible, at_other_place, torch.nan))


def occlusion_map(
    segmenter: Segmenter,
    images: Images,
    target: Target,
    *,
    cells: int = 16,
    seed: int = 0,
    batch_size: int = 16,
) -> Explanation:
    """Show for each cell, ``cells`` along each axis, how far the score falls when its place is imputed.

    The imputed window reaches half a cell beyond the cell on every side, so that a mark that the grid cuts in
    two is gone from one window at least. The grid holds the drops of the mean probability, positive where
    the place speaks for the class; the map shows each cell evenly.
    """
    size, device = size_of(images), segmenter.device
    noise = content_normal(images, tuple(images.shape[1:]), seed, "imputation").to(device)
    windows = _windows(size, cells).to(device)
    rows = torch.arange(len(images), device=device).repeat_interleave(len(windows))

    def perturb(copies: Images, which: Rows) -> Images:
        return _impute_windows(copies, windows[which % len(windows)], noise[rows[which]], cells)

    model = Prepared(segmenter)
    changed = score_copies(model, images, (target,), rows, perturb, batch_size=batch_size)[0]
    changed = changed.view(len(images), -1)
    drops = clean_scores(segmenter, images, (target,), batch_size=batch_size)[0][:, None] - changed
    grid = drops.view(-1, *[cells] * len(size)).to(images.device)
    maps = F.interpolate(grid[:, None], size, mode="nearest-exact")[:, 0]
    settings = {"cells": cells, "unit": "probability", "imputer": "noisy-linear", "seed": seed}
    return Explanation("occlusion", None, target, maps, grid=grid, settings=settings)


def _impute_windows(images: Images, windows: Regions, noise: Images, cells: int) -> Images:
    """Impute one window of two cells' width in each picture, looking at no more than what is around it.

    A hole is filled from the pixels that touch it alone, so a crop gives the same as the whole picture, in a
    small part of the time. The crop of a window at the border is moved inwards.
    """
    whole = size_of(images)
    size = [min(length, 2 * -(-length // cells) + 3) for length in whole]
    starts = [
        (line.int().argmax(1) - 1).clamp(0, length - side)
        for line, length, side in zip(lines(windows), whole, size, strict=True)
    ]
    crop = boxes(starts, size)
    pixels, grain = (stack.movedim(1, -1)[crop].movedim(-1, 1) for stack in (images, noise))
    filled = images.movedim(1, -1).clone()
    filled[crop] = noisy_linear(pixels, windows[crop], grain).movedim(1, -1)
    return filled.movedim(-1, 1).contiguous()


def _windows(size: Sequence[int], cells: int) -> Bool[Tensor, "n *size"]:
    """The pixels within one cell's width of each cell's middle, cell by cell, row after row."""

    def near(length: int) -> Bool[Tensor, "cells length"]:
        middle = (torch.arange(cells) + 0.5) * length / cells
        return ((torch.arange(length) + 0.5)[None] - middle[:, None]).abs() < length / cells

    found = torch.ones(1, dtype=torch.bool)
    for length in size:
        line = near(length).reshape(1, cells, *[1] * (found.ndim - 1), length)
        found = (found[:, None, ..., None] & line).flatten(0, 1)
    return found

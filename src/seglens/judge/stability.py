"""Stability: does a map stay where the picture changes so little that the answer stays?

A map that never changes wins this score, so it is never shown without faithfulness.
"""

from collections.abc import Callable
from dataclasses import replace

import torch

from seglens.explain.target import Target
from seglens.judge.case import JudgedBatch, Key, ScoreValues
from seglens.judge.cells import PerCell, rank_correlation
from seglens.judge.nulls import content_free, null_inputs
from seglens.judge.rerun import Recipes
from seglens.masks import of_class
from seglens.runs import Run
from seglens.seeds import content_normal
from seglens.shapes import Images, Maps, PerImage, Regions

SAME = 0.98
"""Dice of two predictions that count as the same answer."""

STEP = 0.02
"""How far a perturbation goes, in units of intensity."""


def noisier(images: Images, seed: int) -> Images:
    """Add normal noise of half a `STEP`."""
    return images + STEP / 2 * content_normal(images, tuple(images.shape[1:]), seed, "stability")


def brighter(images: Images, seed: int) -> Images:
    """Add a `STEP` to every value."""
    return images + STEP


def darker(images: Images, seed: int) -> Images:
    """Subtract a `STEP` from every value."""
    return images - STEP


def flatter(images: Images, seed: int) -> Images:
    """Bring every value nearer to the picture's mean, by two `STEP` of the way."""
    return torch.lerp(images, images.mean((1, 2, 3), keepdim=True).expand_as(images), 2 * STEP)


PERTURBATIONS: dict[str, Callable[[Images, int], Images]] = {
    "noise": noisier,
    "brighter": brighter,
    "darker": darker,
    "flatter": flatter,
}
"""Changes that nobody would take for another picture. To add one: one function, one line."""


def stability(case: JudgedBatch, found: Recipes) -> ScoreValues:
    """Measure ``1 - max over perturbations |m(x') - m(x)| / |m(x)|`` over the cells, per image.

    Max-sensitivity (Yeh et al. 2019, equation 2), turned round so that more is better: 1 is a map that stays.
    m is the map less its mean over the cells: what is the same everywhere says nothing of a place, and noise
    between 0 and 1 would seem stable by its mean. Fresh noise has ``1 - sqrt(2)``, about -.4. A map that is
    even has no pattern to keep: 0. Only perturbations under which the prediction stays
    (Dice above `SAME`) count; an image without any, or without a map in the first place, is not evaluable.
    ``flip`` (details) is the rank correlation of the map of the mirrored picture, mirrored back, where the
    prediction mirrors as well.

    Content-free maps are made again as well: of the changed picture, of the probabilities there, and the
    mirrors and the distance of the region as it moved with the answer. Only the centre blob can't change.
    """
    keys = found.keys
    own = {key: case.cells(case.maps[key].map) for key in keys}
    nulls = {name: case.cells(maps) for name, maps in case.nulls.items()}
    worst = {key: torch.full((len(case.images),), -torch.inf) for key in keys}
    null_worst = {name: torch.full((len(case.images),), -torch.inf) for name in nulls}
    answer = _answer(case.run, case.images, case.target)
    for perturb in PERTURBATIONS.values():
        changed = torch.where(case.valid[:, None], perturb(case.images, case.seed).clamp(0, 1), case.images)
        now = _answer(case.run, changed, case.target)
        same = region_dice(answer, now, case.valid) > SAME
        for key, maps in found.make(case.run, changed, case.target, batch_size=case.batch_size).items():
            worst[key] = _worse(worst[key], _moved(case, own[key], maps), same)
        switched = (now ^ answer) & case.valid.to(now.device)
        followed = replace(case.target, pixels=case.target.pixels.to(now.device) ^ switched)
        for name, maps in content_free(null_inputs(case.run, changed, followed, seed=case.seed)).items():
            null_worst[name] = _worse(null_worst[name], _moved(case, nulls[name], maps), same)
    nothing = torch.full((len(case.images),), torch.nan)
    usable = (~case.target.empty()).cpu()
    flipped = _flipped(case, found, own)
    return ScoreValues(
        values={
            key: _value(worst[key], usable & entry.ok.cpu()) if key in own else nothing
            for key, entry in case.maps.items()
        },
        references={name: _value(values, usable) for name, values in null_worst.items()},
        details={key: {"flip": flipped[key]} for key in own},
        reasons=dict(found.reasons),
    )


def region_dice(first: Regions, second: Regions, valid: Regions) -> PerImage:
    """Return the Dice score of two regions over the valid pixels; 1 where both are empty; on the CPU."""
    one, other = ((region & valid).flatten(1).double() for region in (first, second))
    both = one.sum(1) + other.sum(1)
    return torch.where(both == 0, 1, 2 * (one * other).sum(1) / both.clamp_min(1)).float().cpu()


def _answer(run: Run, images: Images, target: Target) -> Regions:
    return of_class(run.predict(images).mask, target.class_index, run.spec.dims)


def _moved(case: JudgedBatch, before: PerCell, maps: Maps) -> PerImage:
    """Return the norm of the change of a map's pattern over that of the pattern, per image."""
    own, now = _pattern(case, before), _pattern(case, case.cells(maps))
    size = own.norm(dim=1)
    # In float32: what is even is so in every cell, whatever its sums were rounded to.
    flat = size <= 1e-6 * torch.where(case.counted, before, 0).norm(dim=1)
    return torch.where(flat, 1, (now - own).norm(dim=1).nan_to_num(nan=torch.inf) / size).float().cpu()


def _pattern(case: JudgedBatch, cells: PerCell) -> PerCell:
    """Return each map less its mean over the cells that count; 0 in the others."""
    counted = case.counted
    known = torch.where(counted, cells, 0)
    return torch.where(counted, known - known.sum(1, keepdim=True) / counted.sum(1, keepdim=True), 0)


def _worse(so_far: PerImage, moved: PerImage, same: torch.Tensor) -> PerImage:
    """Return the larger change where the prediction stayed; 1 for a map that can't be made any more."""
    return torch.where(same, torch.maximum(so_far, moved.nan_to_num(nan=torch.nan, posinf=1.0)), so_far)


def _value(worst: PerImage, usable: torch.Tensor) -> PerImage:
    """Turn sensitivity round; NaN where no perturbation left the answer alone."""
    return torch.where(usable & worst.isfinite(), 1 - worst, torch.nan)


def _flipped(case: JudgedBatch, found: Recipes, own: dict[Key, PerCell]) -> dict[Key, PerImage]:
    """Compare each map with that of the mirrored picture, mirrored back."""
    images = case.images.flip(-1)
    target = replace(case.target, pixels=case.target.pixels.flip(-1))
    back = _answer(case.run, images, target).flip(-1)
    same = region_dice(back, _answer(case.run, case.images, case.target), case.valid)
    alike = {}
    for key, maps in found.make(case.run, images, target, batch_size=case.batch_size).items():
        rho = rank_correlation(case.cells(maps.flip(-1)), own[key], case.counted)
        alike[key] = torch.where(same > SAME, rho, torch.nan)
    return alike

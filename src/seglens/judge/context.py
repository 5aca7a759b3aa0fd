"""The three removal scores, and how much the prediction depends on the context of the target."""

from collections.abc import Mapping
from functools import partial

import torch
from jaxtyping import Bool
from torch import Tensor

from seglens.axes import size_of
from seglens.explain.target import dilate
from seglens.impute import blurred, linear
from seglens.judge.case import JudgedBatch, ScoreValues
from seglens.judge.cells import CELLS, Partition, target_cells
from seglens.judge.faithfulness import (
    EVALUABLE,
    Curves,
    agreement_of,
    allowed_steps,
    dice_details,
    removal_curves,
    some_of,
)
from seglens.judge.localisation import SHIFTS
from seglens.judge.race import Race, go_on
from seglens.judge.reading import score_unit
from seglens.results.names import NULL, TARGET_SCALE, map_name
from seglens.shapes import Images, PerImage, Regions, Rows

RELIANCE = 0.02
"""A model that loses less than this share of its answer on other backgrounds doesn't use the context."""


def surroundings(case: JudgedBatch) -> Regions:
    """Return the target with a margin of one cell: these pixels stay while the context is removed."""
    return dilate(case.target.pixels, -(-max(size_of(case.images)) // CELLS))


def context_reliance(case: JudgedBatch) -> PerImage:
    """Return ``1 - mean s(M on other backgrounds) / s(x)`` for each picture, on the CPU.

    The target with its margin is laid on up to `SHIFTS` other pictures of the batch, out of which their own
    targets were taken (imputed). NaN without another picture, without a target, and where the score is so
    low (`EVALUABLE`) that there is nothing to lose. For logits the mean difference, not the quotient.
    """
    device, logits = case.run.segmenter.device, score_unit(case.target) == "mean"
    images, kept = case.images.to(device), surroundings(case).to(device)
    bare = linear(images, kept & case.valid.to(device))
    rows = (~case.target.empty()).nonzero()[:, 0].to(device)
    full = case.reading.full[0]
    found = torch.full((len(images),), torch.nan)
    others = [rows.roll(-shift) for shift in range(1, min(SHIFTS, len(rows) - 1) + 1)]
    if others:
        own, other = rows.repeat(len(others)), torch.cat(others)

        def moved(copies: Images, which: Rows) -> Images:
            return torch.where(kept[own[which]][:, None], copies, bare[other[which]])

        elsewhere = case.reading.changed(own, moved, "32")[0][0].view(len(others), -1).mean(0)
        whole, at = full[rows.cpu()], rows.cpu()
        found[at] = whole - elsewhere if logits else 1 - elsewhere / whole
    worth = full.isfinite() if logits else full > EVALUABLE
    return torch.where(worth, found, torch.nan)


def context_worth(case: JudgedBatch) -> PerImage:
    """Return what blurring the context alone takes, as a share of what blurring the whole picture takes.

    The most that any order of the context's cells could reach in `context_faithfulness`, or nearly so.
    """
    images = case.reading.images
    soft = blurred(images, spacing=case.run.spec.spacing)
    partly = torch.where(surroundings(case).to(images.device)[:, None], images, soft)
    full, context, base = case.reading.full[0], case.reading.clean(partly)[0], case.reading.base[0]
    return torch.where(full - base > EVALUABLE, (full - context) / (full - base), torch.nan)


def context_faithfulness(case: JudgedBatch) -> tuple[ScoreValues, dict[str, Curves]]:
    """Measure ROAD with the target and its margin left intact, in images whose context matters.

    The same quotient as `faithfulness`, with the same denominator: the gap as a share of what blurring the
    whole picture takes. What the context alone is worth (`context_worth`, given beside it) is no
    denominator: near `RELIANCE` the mean of such quotients hangs on the images that lose least. So both
    scores have one unit, and this one says how much of the answer the order of the context explains.
    """
    reliance = context_reliance(case)
    about = {"context_reliance": reliance, "context_worth": context_worth(case)}
    return removal_score(
        case, "context_faithfulness", about, kept=surroundings(case), counted=reliance >= RELIANCE
    )


def target_faithfulness(case: JudgedBatch) -> tuple[ScoreValues, dict[str, Curves]]:
    """Measure removal in units of the target's own area, on cells that shrink with it.

    In steps of a tenth of the picture a small target is gone at the first, whatever a map says inside of it:
    the mask itself, made coarse, can't be beaten then. Here `TARGET_FRACTIONS` of the target's area are
    removed (deletion), or all but that (insertion), most and least relevant first.
    """
    area = case.target.pixels.flatten(1).sum(1).float()
    share = area / case.valid.flatten(1).sum(1).to(area.device)
    about = {"target_share": torch.where(area > 0, share, torch.nan).cpu()}
    return removal_score(case, TARGET_SCALE, about, cells=target_cells(case.target.pixels), area=area)


def faithfulness(case: JudgedBatch) -> tuple[ScoreValues, dict[str, Curves]]:
    """Measure ROAD over the whole picture."""
    return removal_score(case, "faithfulness", {})


def removal_score(
    case: JudgedBatch,
    score: str,
    about: Mapping[str, PerImage],
    *,
    kept: Regions | None = None,
    counted: Bool[Tensor, " b"] | None = None,
    cells: Partition | None = None,
    area: PerImage | None = None,
) -> tuple[ScoreValues, dict[str, Curves]]:
    """Return the values of maps and reference rows, the secondary score beside each, and their curves.

    With ``case.settings.race`` the pictures come in a seeded order, at some steps each, and rows that are
    decided are NaN in the pictures that follow.
    """
    named = {map_name(*key): entry.map for key, entry in case.maps.items()}
    named |= {NULL + name: maps for name, maps in case.nulls.items()}
    remove = partial(
        removal_curves,
        case.reading,
        kept=kept,
        cells=case.partition if cells is None else cells,
        area=area,
        precision=case.settings.precision,
        seed=case.seed,
    )
    usable = torch.ones(len(case.images), dtype=torch.bool) if counted is None else counted.cpu()
    if not case.settings.race:
        curves, passes = remove(named, counted=usable)
        return _values_of(case, curves, about, None, passes), curves
    curves, passes = remove(named, counted=usable & False)
    steps = allowed_steps(area, case.valid, kept)

    def measure(race: Race, rows: Rows) -> dict[str, PerImage]:
        nonlocal passes
        here = torch.zeros_like(usable).index_fill_(0, rows, True) & usable
        wanted = torch.zeros(len(usable), *steps.shape[1:], dtype=torch.bool)
        places = torch.arange(race.seen, race.seen + len(rows))
        wanted[rows] = some_of(steps[rows], places, race.thinned)
        found, more = remove({name: named[name] for name in race.running}, counted=here, wanted=wanted)
        passes += more
        curves.update({name: curves[name].filled(each, here) for name, each in found.items()})
        return {name: each.value[rows] for name, each in found.items()}

    order = torch.randperm(len(usable), generator=torch.Generator().manual_seed(case.seed))
    earlier = case.before.get(score)
    if earlier is None or earlier.race is None:
        nulls = tuple(NULL + name for name in case.nulls)
        race = Race(case.num or len(usable), tuple(name for name in named if name not in nulls), nulls)
        known = {name: torch.empty(0) for name in named}
    else:
        race, known = earlier.race, earlier.named
    race, _ = go_on(race, order, measure, known, groups=case.groups)
    return _values_of(case, curves, about, race, passes), curves


def _values_of(
    case: JudgedBatch,
    curves: Mapping[str, Curves],
    about: Mapping[str, PerImage],
    race: Race | None,
    passes: int,
) -> ScoreValues:
    """Turn curves by name into the values of maps and reference rows, the secondary score beside each."""
    return ScoreValues(
        values={key: curves[map_name(*key)].value for key in case.maps},
        references={name: curves[NULL + name].value for name in case.nulls},
        about={**about, **agreement_of(curves)},
        details={key: dice_details(curves[map_name(*key)]) for key in case.maps},
        reference_details={name: dice_details(curves[NULL + name]) for name in case.nulls},
        race=race,
        passes=passes,
    )

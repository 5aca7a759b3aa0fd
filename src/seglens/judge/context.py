"""The two removal scores, and how much the rest of the picture does to the answer in the first place."""

from collections.abc import Mapping

import torch

from seglens.explain.target import dilate
from seglens.impute import blurred, linear
from seglens.judge.case import Case, Measured, name_of
from seglens.judge.cells import CELLS
from seglens.judge.faithfulness import EVALUABLE, Curves, agreement_of, dice_of, road
from seglens.judge.localisation import SHIFTS
from seglens.judge.nulls import NULL
from seglens.judge.reading import reading, unit_of
from seglens.shapes import Images, PerImage, Regions, Rows

RELIANCE = 0.02
"""A model that loses less than this share of its answer on other backgrounds doesn't use the context."""


def surroundings(case: Case) -> Regions:
    """The target with a margin of one cell: what stays of the picture while its context is removed."""
    return dilate(case.target.pixels, -(-max(case.images.shape[-2:]) // CELLS))


def context_reliance(case: Case) -> PerImage:
    """Return ``1 - mean s(M on other backgrounds) / s(x)`` for each picture, on the CPU.

    The target with its margin is laid on up to `SHIFTS` other pictures of the batch, out of which their own
    targets were taken (imputed). NaN without another picture, without a target, and where the score is so
    low (`EVALUABLE`) that there is nothing to lose. For logits the mean difference, not the quotient.
    """
    device, logits = case.run.segmenter.device, unit_of(case.target) == "mean"
    images, kept = case.images.to(device), surroundings(case).to(device)
    bare = linear(images, kept & case.valid.to(device))
    rows = (~case.target.empty()).nonzero()[:, 0].to(device)
    read = reading(case.run.segmenter, images, case.target, case.valid, batch_size=case.batch_size)
    full = read.clean(images)[0]
    found = torch.full((len(images),), torch.nan)
    others = [rows.roll(-shift) for shift in range(1, min(SHIFTS, len(rows) - 1) + 1)]
    if others:
        own, other = rows.repeat(len(others)), torch.cat(others)

        def moved(copies: Images, which: Rows) -> Images:
            return torch.where(kept[own[which]][:, None], copies, bare[other[which]])

        elsewhere = read.changed(own, moved, "32")[0][0].view(len(others), -1).mean(0)
        whole, at = full[rows.cpu()], rows.cpu()
        found[at] = whole - elsewhere if logits else 1 - elsewhere / whole
    worth = full.isfinite() if logits else full > EVALUABLE
    return torch.where(worth, found, torch.nan)


def context_worth(case: Case) -> PerImage:
    """Return what blurring the context alone takes, as a share of what blurring the whole picture takes.

    The most that any order of the context's cells could reach in `context_faithfulness`, or nearly so.
    """
    read = reading(case.run.segmenter, case.images, case.target, case.valid, batch_size=case.batch_size)
    images, soft = read.images, blurred(read.images)
    partly = torch.where(surroundings(case).to(images.device)[:, None], images, soft)
    full, context, base = (read.clean(pictures)[0] for pictures in (images, partly, soft))
    return torch.where(full - base > EVALUABLE, (full - context) / (full - base), torch.nan)


def context_faithfulness(case: Case) -> tuple[Measured, dict[str, Curves]]:
    """Measure ROAD with the target and its margin left intact, in images whose context matters.

    The same quotient as `faithfulness`, with the same denominator: the gap as a share of what blurring the
    whole picture takes. What the context alone is worth (`context_worth`, given beside it) is no
    denominator: near `RELIANCE` the mean of such quotients hangs on the images that lose least. So both
    scores have one unit, and this one says how much of the answer the order of the context explains.
    """
    named = {name_of(key): entry.map for key, entry in case.maps.items()}
    named |= {NULL + name: maps for name, maps in case.nulls.items()}
    reliance = context_reliance(case)
    curves = road(
        case.run.segmenter,
        case.images,
        case.target,
        named,
        valid=case.valid,
        kept=surroundings(case),
        counted=reliance >= RELIANCE,
        cells=case.partition,
        precision=case.settings.precision,
        seed=case.seed,
        batch_size=case.batch_size,
    )
    about = {"context_reliance": reliance, "context_worth": context_worth(case), **agreement_of(curves)}
    return removal_score(case, curves, about), curves


def faithfulness(case: Case) -> tuple[Measured, dict[str, Curves]]:
    """Measure ROAD over the whole picture."""
    named = {name_of(key): entry.map for key, entry in case.maps.items()}
    named |= {NULL + name: maps for name, maps in case.nulls.items()}
    curves = road(
        case.run.segmenter,
        case.images,
        case.target,
        named,
        valid=case.valid,
        cells=case.partition,
        precision=case.settings.precision,
        seed=case.seed,
        batch_size=case.batch_size,
    )
    return removal_score(case, curves, agreement_of(curves)), curves


def removal_score(case: Case, curves: Mapping[str, Curves], about: Mapping[str, PerImage]) -> Measured:
    """Turn curves by name into the values of maps and reference rows, the secondary score beside each."""
    return Measured(
        values={key: curves[name_of(key)].value for key in case.maps},
        references={name: curves[NULL + name].value for name in case.nulls},
        about=dict(about),
        details={key: dice_of(curves[name_of(key)]) for key in case.maps},
        reference_details={name: dice_of(curves[NULL + name]) for name in case.nulls},
    )

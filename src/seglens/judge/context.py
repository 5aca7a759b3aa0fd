"""Context: what the rest of the picture does to the answer, and whether a map knows which part of it does."""

import torch

from seglens.explain.masked import clean_scores
from seglens.explain.target import dilate
from seglens.impute import linear
from seglens.judge.case import Case, Measured, name_of
from seglens.judge.cells import CELLS
from seglens.judge.faithfulness import EVALUABLE, Curves, agreement_of, road, unit_of
from seglens.judge.localisation import SHIFTS
from seglens.judge.nulls import NULL
from seglens.shapes import PerImage, Regions

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
    device, unit = case.run.segmenter.device, unit_of(case.target)
    images, kept = case.images.to(device), surroundings(case).to(device)
    bare = linear(images, kept & case.valid.to(device))
    rows = (~case.target.empty()).nonzero()[:, 0].to(device)
    full = clean_scores(case.run.segmenter, images, (case.target,), unit=unit, chunk=case.chunk)[0]
    found = torch.full((len(images),), torch.nan, device=device)
    others = [rows.roll(-shift) for shift in range(1, min(SHIFTS, len(rows) - 1) + 1)]
    if others:
        chosen = case.target.select(rows)
        scores = [
            clean_scores(
                case.run.segmenter,
                torch.where(kept[rows][:, None], images[rows], bare[other]),
                (chosen,),
                unit=unit,
                chunk=case.chunk,
            )[0]
            for other in others
        ]
        elsewhere = torch.stack(scores).mean(0)
        found[rows] = full[rows] - elsewhere if unit == "mean" else 1 - elsewhere / full[rows]
    worth = full > EVALUABLE if unit == "probability" else full.isfinite()
    return torch.where(worth, found, torch.nan).cpu()


def context_faithfulness(case: Case) -> tuple[Measured, dict[str, Curves]]:
    """Measure ROAD with the target and its margin left intact, in images whose context matters.

    ``mean over the fractions of (LeRF - MoRF) / full``: the quotient of `faithfulness`, but over the whole
    score, because what the context is worth may be too little to divide by.
    """
    named = {name_of(key): entry.map for key, entry in case.maps.items()}
    named |= {NULL + name: maps for name, maps in case.nulls.items()}
    curves = road(
        case.run.segmenter,
        case.images,
        case.target,
        named,
        valid=case.valid,
        kept=surroundings(case),
        precision=case.settings.precision,
        seed=case.seed,
        chunk=case.chunk,
    )
    reliance = context_reliance(case)
    values = {
        name: torch.where(reliance >= RELIANCE, found.value, torch.nan) for name, found in curves.items()
    }
    measured = Measured(
        values={key: values[name_of(key)] for key in case.maps},
        references={name: values[NULL + name] for name in case.nulls},
        about={"context_reliance": reliance} | agreement_of(curves),
    )
    return measured, curves

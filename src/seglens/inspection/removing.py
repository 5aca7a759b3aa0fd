"""A causal check by hand: a region is removed from the picture, and the model predicts again.

What was removed is filled in as the judges do it (`seglens.impute`). How much of the change is owed to that
very region is told by its *controls*: regions of the same shape elsewhere in the picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool
from torch import Tensor

from seglens.errors import SettingError, unknown_name
from seglens.explain.masked import clean_scores
from seglens.explain.target import Target, for_head
from seglens.folder.prediction import original_masks
from seglens.impute import IMPUTERS, imputer_of
from seglens.inspection.explaining import SEED, ExplainedPicture
from seglens.inspection.opened import Opened, on_grid, predict_opened, scores_of_opened
from seglens.masks import of_class
from seglens.runs import Run
from seglens.seeds import content_normal
from seglens.shapes import Image, Images, Region, Regions, ResizedMask

CONTROLS = 4
"""How many regions of the same shape are removed elsewhere, where there is room for them."""


@dataclass(frozen=True)
class RemovalState:
    """The prediction of the target: mean probability and mean logit over its frozen pixels.

    ``area`` is the share of the valid pixels that the target's class is predicted at.
    """

    probability: float
    logit: float
    area: float
    scores: dict[str, float]


@dataclass(frozen=True, eq=False)
class RemovedRegion:
    """Picture and prediction after the removal; ``image`` is on the grid, ``mask`` at the picture's own size.

    ``controls`` are the mean probabilities of the target after the same shape was removed elsewhere; there
    are none in pictures that take several windows. ``share`` is how much of the valid picture was removed,
    ``of_target`` how much of the target.
    """

    image: Image
    region: Region
    mask: ResizedMask
    before: RemovalState
    after: RemovalState
    controls: tuple[float, ...]
    share: float
    of_target: float


def remove_region(
    run: Run, opened: Opened, region: Region, target: Target, *, imputer: str = "noisy-linear"
) -> RemovedRegion:
    """Remove ``region`` (at the picture's own size), and predict the same frozen pixels again.

    Raises:
        UnknownNameError: there is no such imputer.
        SettingError: the region is empty, or has another size than the picture.
    """
    if imputer not in IMPUTERS:
        raise unknown_name("imputer", imputer, IMPUTERS)
    if tuple(region.shape) != opened.frame.native:
        raise SettingError(
            f"The region to remove is {tuple(region.shape)} (rows, columns), but the picture is "
            f"{opened.frame.native}. Draw it on the same picture."
        )
    batch = opened.part.batch
    valid = batch.valid
    removed = on_grid(region.cpu(), opened.frame)[None] & valid
    if not bool(removed.any()):
        raise SettingError("Nothing of the picture was brushed over. Draw on the picture, then remove it.")
    images = imputed(batch.images, removed, valid, imputer, SEED, run.spec.spacing)
    part = replace(opened.part, batch=replace(batch, images=images))
    prediction = predict_opened(run, part)
    mask = original_masks(run, part, prediction)[0]
    before = _state(target, opened.prediction.logits, opened.prediction.mask, valid, dict(opened.scores))
    after_scores = scores_of_opened(opened.sample, mask, run.spec.classes)
    after = _state(target, prediction.logits, prediction.mask, valid, after_scores)
    pixels = target.pixels.cpu()
    return RemovedRegion(
        image=images[0],
        region=removed[0],
        mask=mask,
        before=before,
        after=after,
        controls=_controls(run, opened, removed[0], target, imputer),
        share=float(removed.sum() / valid.sum()),
        of_target=float((removed & pixels).sum() / pixels.sum().clamp(min=1)),
    )


def target_of(run: Run, opened: Opened, class_name: str, answer: ExplainedPicture | None) -> Target:
    """Return the target of the last question, or all that is predicted where nothing was asked yet."""
    if answer is not None:
        return answer.target
    class_index = run.task.class_index(class_name)
    predicted = of_class(opened.prediction.mask.cpu(), class_index, run.spec.dims)
    return for_head(Target("predicted", class_index, predicted & opened.part.batch.valid), run)


def imputed(
    images: Images,
    removed: Regions,
    valid: Regions,
    imputer: str,
    seed: int,
    spacing: Sequence[float] = (),
) -> Images:
    """Fill ``removed`` from what is left of the picture; padding doesn't serve to fill."""
    noise = content_normal(images, tuple(images.shape[1:]), seed, "imputation")
    filled = imputer_of(imputer, spacing)(images, removed | ~valid, noise)
    return torch.where(removed[:, None], filled, images)


def region_elsewhere(region: Region, valid: Region, num: int, seed: int) -> Bool[Tensor, "found h w"]:
    """Return up to ``num`` copies of ``region``, moved to where they lie on valid pixels and not on itself.

    Places are drawn by ``seed`` from all whole shifts; a region that is too large for another place has none.
    """
    rows, columns = (axis.unique() for axis in region.nonzero(as_tuple=True))
    height, width = int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1
    cut = region[int(rows[0]) : int(rows[-1]) + 1, int(columns[0]) : int(columns[-1]) + 1]
    generator = torch.Generator().manual_seed(seed)
    down, across = region.shape[0] - height + 1, region.shape[1] - width + 1
    found: list[Region] = []
    for place in torch.randperm(down * across, generator=generator)[: 64 * num].tolist():
        top, left = divmod(place, across)
        moved = torch.zeros_like(region)
        moved[top : top + height, left : left + width] = cut
        if not bool((moved & (region | ~valid)).any()):
            found.append(moved)
        if len(found) == num:
            break
    return torch.stack(found) if found else region.new_zeros(0, *region.shape)


def _controls(run: Run, opened: Opened, region: Region, target: Target, imputer: str) -> tuple[float, ...]:
    """The target's mean probability after the same shape was removed at other places."""
    if opened.part.windows is not None or bool(target.empty()[0]):
        return ()
    batch = opened.part.batch
    moved = region_elsewhere(region, batch.valid[0], CONTROLS, SEED)
    if not len(moved):
        return ()
    copies, valid = (values.expand(len(moved), *values.shape[1:]) for values in (batch.images, batch.valid))
    images = imputed(copies, moved, valid, imputer, SEED, run.spec.spacing).to(run.segmenter.device)
    again = target.select(torch.zeros(len(moved), dtype=torch.long))
    found = clean_scores(run.segmenter, images, (again,), unit="probability", batch_size=len(moved))[0]
    return tuple(float(value) for value in found)


def _state(
    target: Target, logits: Tensor, mask: Tensor, valid: Regions, measured: dict[str, float]
) -> RemovalState:
    first = torch.zeros(1, dtype=torch.long)
    area = (of_class(mask.cpu(), target.class_index, valid.ndim - 1) & valid).sum() / valid.sum()
    return RemovalState(
        probability=float(target.score(logits, first, "probability")),
        logit=float(target.score(logits, first, "mean")),
        area=float(area),
        scores=measured,
    )

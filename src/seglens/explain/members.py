"""Explanations of an ensemble: every member is explained by itself, and maps are averaged.

The logits of an ensemble are the mean of those of its networks over the mirror images, and so is its score;
a method that is linear in the score (gradients, Integrated Gradients, HiResCAM's grid) says of the mean what
its maps say in the mean. Of others the mean is what is shown. Each member sees the picture, the target and
every picture of the settings mirrored alike, and its map is turned back.

Where there are several networks (folds), `Explanation.folds` is the standard deviation of their maps, and
two diagnostics say how far they agree: ``folds``, how many they are, and ``disagreement``, the share of the
folds' maps that is not common to them::

    sqrt(sum over p of var_f m_f(p))  /  sqrt(sum over p of mean_f m_f(p)^2)

0 where all folds have one map, and at most 1.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from seglens.explain.explanation import LEFT, Explanation, Status
from seglens.explain.methods import Method
from seglens.explain.target import Target
from seglens.models.ensemble import Ensemble, Member
from seglens.models.members import alone
from seglens.runs import Run
from seglens.shapes import Images

T = TypeVar("T")
Explainer = Callable[[Run, Images, Sequence[Target], Sequence[Method]], list[Explanation]]

_WORST: tuple[Status, ...] = ("failed", "no_target")
"""What one member is, all are."""


def members_of(run: Run) -> list[tuple[Member, Run]]:
    """Return the members of an ensemble, each with the run of its network; none of any other run."""
    if not isinstance(run.segmenter.module, Ensemble):
        return []
    return [
        (member, replace(run, segmenter=alone(run.segmenter, member.network)))
        for member in run.segmenter.module.members
    ]


def explain_members(
    run: Run, images: Images, targets: Sequence[Target], methods: Sequence[Method], work: Explainer
) -> list[Explanation]:
    """Return the mean of what ``work`` makes of each member, in its order."""
    found: dict[int, list[list[Explanation]]] = {}
    dims = run.spec.dims
    for member, one in members_of(run):
        back = [axis - 2 - dims for axis in member.axes]  # from behind, where all tensors have them
        made = work(
            one,
            images.flip(back),
            [turned_target(target, back) for target in targets],
            [turned_settings(method, back, dims) for method in methods],
        )
        found.setdefault(member.fold, []).append([_turned(entry, back) for entry in made])
    asked = {target.label: target for target in targets}
    return [
        _mean([[made[n] for made in of_fold] for of_fold in found.values()], asked)
        for n in range(len(found[0][0]))
    ]


def turned_target(target: Target, back: Sequence[int]) -> Target:
    """Return a target of the mirrored picture."""
    weights = None if target.weights is None else target.weights.flip(tuple(back))
    return replace(target, pixels=target.pixels.flip(tuple(back)), weights=weights)


def turned_settings(method: Method, back: Sequence[int], dims: int) -> Method:
    """Return a method whose own pictures (baselines, references) are mirrored."""
    if isinstance(method, str) or not is_dataclass(method) or not back:
        return method
    changed: dict[str, Any] = {
        field.name: value.flip(back)
        for field in fields(method)
        if isinstance(value := getattr(method, field.name), Tensor) and value.ndim > dims
    }
    return replace(method, **changed) if changed else method


def disagreement(maps: Sequence[Tensor]) -> Tensor:
    """Return the share of several maps ``[b *size]`` that is not common to them, a number a picture."""
    stacked = torch.stack([each.double() for each in maps]).flatten(2)
    apart = stacked.var(0, correction=0).sum(-1)
    return (apart / stacked.square().mean(0).sum(-1).clamp_min(1e-300)).sqrt()


def _turned(entry: Explanation, back: Sequence[int]) -> Explanation:
    parts: dict[str, Any] = {
        name: value.flip(back)
        for name in ("map", "grid", "channels")
        if (value := getattr(entry, name)) is not None
    }
    return replace(entry, **parts)


def _mean(folds: Sequence[Sequence[Explanation]], asked: dict[str, Target]) -> Explanation:
    """Return the mean of one map over the members; a member whose map is constant adds nothing."""
    every = [entry for of_fold in folds for entry in of_fold]
    first, maps = every[0], [_filled(entry) for entry in every]
    status = tuple(_status(each) for each in zip(*(entry.status for entry in every), strict=True))
    diagnostics = {
        name: torch.stack([entry.diagnostics[name].double() for entry in every]).nanmean(0)
        for name in first.diagnostics
        if all(name in entry.diagnostics for entry in every)
    }
    apart = None
    if len(folds) > 1:
        each = [torch.stack([_filled(entry) for entry in of_fold]).mean(0) for of_fold in folds]
        diagnostics["disagreement"] = disagreement(each)
        diagnostics["folds"] = torch.full_like(diagnostics["disagreement"], len(folds))
        apart = torch.stack(each).std(0, correction=0)
    if "ok" in status:
        diagnostics.pop(LEFT, None)  # of a map that is there nobody asks why it isn't
    grids = [entry.grid for entry in every if entry.grid is not None]
    channels = [entry.channels for entry in every if entry.channels is not None]
    return replace(
        first,
        target=asked[first.target.label],
        map=torch.stack(maps).mean(0),
        grid=torch.stack(grids).nan_to_num(0).mean(0) if len(grids) == len(every) else None,
        channels=torch.stack(channels).nan_to_num(0).mean(0) if len(channels) == len(every) else None,
        folds=apart,
        status=status,
        settings={**first.settings, "members": len(every)},
        diagnostics=diagnostics,
    )


def _filled(entry: Explanation) -> Tensor:
    return entry.map.nan_to_num(0)


def _status(each: Sequence[Status]) -> Status:
    for status in _WORST:
        if status in each:
            return status
    return "ok" if "ok" in each else each[0]

"""An ensemble over the windows of a large picture: every member has its own maps, which are averaged.

As of ``explain/members.py``. A mirrored member sees the mirrored picture in mirrored windows, so that each of
its windows is one of the others turned round.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from seglens.explain.members import disagreement, members_of, turned_settings, turned_target
from seglens.explain.methods import Method
from seglens.explain.tiled.grid import View
from seglens.explain.tiled.map import LargeMap
from seglens.predict.tiles import Cut, Windows
from seglens.runs import Run
from seglens.shapes import Image

Work = Callable[[View, Sequence[Method]], list[LargeMap]]


def mean_of_members(run: Run, view: View, methods: Sequence[Method], work: Work) -> list[LargeMap]:
    """Return the mean of what ``work`` makes of each member, in its order; grids are after their ReLU."""
    dims, folds = run.spec.dims, dict[int, list[list[LargeMap]]]()
    for member, one in members_of(run):
        axes = tuple(axis - 2 for axis in member.axes)
        back = [axis - dims for axis in axes]
        seen = View(
            one.segmenter,
            _turned_cut(view.cut, view.windows, axes),
            replace(view.windows, mirrored=axes),
            turned_target(view.target, back),
            view.batch_size,
        )
        made = work(seen, [turned_settings(method, back, dims) for method in methods])
        folds.setdefault(member.fold, []).append([_back(entry, axes) for entry in made])
    return [
        _mean([[made[n] for made in each] for each in folds.values()], view) for n in range(len(folds[0][0]))
    ]


def _turned_cut(cut: Cut, windows: Windows, axes: Sequence[int]) -> Cut:
    """Return what cuts parts out of the mirrored picture."""

    def turned(*part: slice) -> Image:
        parts = [
            slice(length - at.stop, length - at.start) if axis in axes else at
            for axis, (at, length) in enumerate(zip(part, windows.native, strict=True))
        ]
        return cut(*parts).flip([axis + 1 for axis in axes])

    return turned if axes else cut


def _back(entry: LargeMap, axes: Sequence[int]) -> LargeMap:
    grid = entry.grid.relu() if entry.relu else entry.grid
    return replace(entry, grid=grid.flip(tuple(axes)) if axes else grid, relu=False)


def _mean(folds: Sequence[Sequence[LargeMap]], view: View) -> LargeMap:
    every = [entry for of_fold in folds for entry in of_fold]
    first = every[0]
    diagnostics = {
        name: sum(entry.diagnostics[name] for entry in every) / len(every)
        for name in first.diagnostics
        if all(name in entry.diagnostics for entry in every)
    }
    apart = None
    if len(folds) > 1:
        each = [_mean_grid(of_fold)[None] for of_fold in folds]
        diagnostics |= {"disagreement": float(disagreement(each)), "folds": float(len(folds))}
        apart = torch.cat(each).std(0, correction=0)
    return replace(
        first,
        target=view.target,
        windows=view.windows,
        grid=_mean_grid(every),
        folds=apart,
        settings={**first.settings, "members": len(every)},
        diagnostics=diagnostics,
    )


def _mean_grid(entries: Sequence[LargeMap]) -> Tensor:
    return torch.stack([entry.grid for entry in entries]).mean(0)

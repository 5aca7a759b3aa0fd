"""CAMs over the windows of a large picture: grids of windows, laid down on one tiled grid over the picture.

One pass forward and back over the windows that hold a pixel of the target gives what the gradients are needed
for, one pass forward over all windows blends what the activations give. What the results are, the folder's
docstring says. `OVER_WINDOWS` at the foot names every method that means something over windows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from seglens.axes import axes, size_of
from seglens.explain.cams import Cam, Sums, Weights, plus_plus_weights, projected
from seglens.explain.memory import keep_chunk
from seglens.explain.tiled.grid import OpenRows, TiledGrid, View, placed
from seglens.explain.trace import left_as_found, tapped, trace
from seglens.models.layers import find_layout, resolve
from seglens.models.segmenter import Segmenter
from seglens.predict.tiles import Place
from seglens.shapes import Activations, Grids, Images

Made = tuple[str, str]
"""A method and a layer."""

TINY = 1e-30
"""Keeps 0 / 0 at 0: a cell that no window has a share of."""

Over = Literal["summed", "weighed", "added", "stitched", "blended", "differentiated", "linear"]


@dataclass(frozen=True)
class Stitched:
    """What is made: tiled grids by method and layer, the cells of each layer, parts of S.

    ``left`` is what is left of the gradient where it is averaged, see ``cams.py``.
    """

    grids: dict[Made, Tensor] = field(default_factory=dict)
    cells: dict[str, TiledGrid] = field(default_factory=dict)
    scores: list[float] = field(default_factory=list)
    left: dict[Made, float] = field(default_factory=dict)

    def grid(self, name: str, layer: str) -> Tensor:
        """Return the grid to add to."""
        return self.grids.setdefault((name, layer), torch.zeros(self.cells[layer].size))


def stitch(view: View, cams: dict[str, Cam], layers: Sequence[str]) -> Stitched:
    """Stitch CAMs: a pass over the windows that matter, then, where it takes one, a pass over all of them.

    Without a pixel to explain nothing is made.
    """
    made = Stitched()
    formulas: dict[Made, Callable[[Activations], Grids]] = {}
    derived = {name: cam for name, cam in cams.items() if OVER_WINDOWS[name] != "blended"}
    if view.aimed and derived and layers:
        totals = _totals(view, made, layers) if "weighed" in map(OVER_WINDOWS.get, derived) else {}
        sums = _derived(view, made, derived, layers, totals)
        for (name, layer), of_channel in sums.items():
            how, cells = cams[name].weights, made.cells[layer].cells
            weights = of_channel["w"] if how is None else how.weights(of_channel, cells)
            formulas[name, layer] = partial(_project, weights)
            if how is not None and how.left is not None:
                made.left[name, layer] = float(how.left(of_channel, cells))
    for name, cam in cams.items():
        if name not in derived:
            formulas |= {(name, layer): _without_gradient(cam) for layer in layers}
    if view.aimed and formulas:
        _blended(view, made, formulas, layers)
    return made


def passes_over(cams: Mapping[str, Cam]) -> int:
    """Return how often `stitch` goes over the windows, or over those that matter."""
    kinds = {OVER_WINDOWS.get(name) for name in cams}
    return bool(kinds - {"blended"}) + ("weighed" in kinds) + bool(kinds & {"summed", "weighed", "blended"})


def _totals(view: View, made: Stitched, layers: Sequence[str]) -> dict[str, Tensor]:
    """Go forward over all windows: ``sum A_k`` over the tiled grid of each layer, ``[1 d]``."""
    totals: dict[str, Tensor] = {}

    def work(places: list[Place], after: int | None) -> None:
        found = _activations(view.segmenter, view.images(places), layers)
        keep_chunk()
        for layer, activation in found.items():
            here = made.cells.setdefault(layer, view.grid(size_of(activation)))
            shared = activation.cpu().double() * here.shares(places)[:, None]
            totals[layer] = totals.get(layer, 0) + shared.sum((0, *axes(shared)))[None]

    view.run(view.every, work)
    return totals


def _derived(
    view: View, made: Stitched, cams: dict[str, Cam], layers: Sequence[str], totals: dict[str, Tensor]
) -> dict[Made, Sums]:
    """Go forward and back: grids of added and stitched CAMs; return sums of summed and weighed ones."""
    summed, added, stitched, weighed = (
        {name: cam for name, cam in cams.items() if OVER_WINDOWS[name] == kind}
        for kind in ("summed", "added", "stitched", "weighed")
    )
    sums: dict[Made, Sums] = {}
    formulas: dict[str, Weights] = {name: cam.weights for name, cam in summed.items() if cam.weights}
    held: dict[str, OpenRows] = {}

    def work(places: list[Place], after: int | None) -> None:
        traced = trace(view.segmenter, view.images(places), (view.targets(places),), layers)[0]
        parts: dict[Made, Sums] = {}
        for layer, tap in traced.taps.items():
            here = made.cells.setdefault(layer, view.grid(size_of(tap.gradient)))
            shares = here.shares(places).to(tap.gradient.device)
            # Apple's GPUs know no float64.
            place = torch.device("cpu") if shares.device.type == "mps" else shares.device
            # In float64, so that the order of windows changes nothing.
            seen = [each.to(place).double() for each in (tap.activation, tap.gradient, shares)]
            for name, how in formulas.items():
                parts[name, layer] = {
                    key: value.sum(0, keepdim=True) for key, value in how.sums(*seen).items()
                }
            for name, cam in added.items():
                parts[name, layer] = {"grid": cam.formula(tap.activation, tap.gradient).cpu()}
            if stitched or weighed:
                # Blended over the windows that are here at all: those where the gradient isn't zero.
                shared = tap.activation * shares[:, None]
                parts["", layer] = {"rows": torch.cat([shared, shares[:, None], tap.gradient], dim=1).cpu()}
        # Memory is not asked for below: a chunk counts whole or, where it ran out above, not at all.
        keep_chunk()
        made.scores.append(traced.score.nan_to_num(0).sum(dtype=torch.float64).item())
        for (name, layer), part in parts.items():
            here = made.cells[layer]
            if name in added:
                _add(made.grid(name, layer), part["grid"], here, places)
            elif name in summed:
                _sum_up(sums, (name, layer), part)
            else:
                rows = held.setdefault(layer, OpenRows(*here.size[1:]))
                rows.extend(part["rows"], here, places)
                done, values = rows.finish(here.axes[0].offset(after))
                depth = len(values) // 2
                activation = values[None, :depth] / values[None, depth : depth + 1].clamp(min=TINY)
                gradient = values[None, depth + 1 :]
                for method, cam in stitched.items():
                    made.grid(method, layer)[done] = cam.formula(activation, gradient)[0]
                for method in weighed:
                    weights = plus_plus_weights(totals[layer], gradient.double())
                    _sum_up(sums, (method, layer), {"w": weights})

    view.run(view.every if any(how.everywhere for how in formulas.values()) else view.aimed, work)
    return sums


def _blended(
    view: View, made: Stitched, formulas: dict[Made, Callable[[Activations], Grids]], layers: Sequence[str]
) -> None:
    """Go forward over all windows, and blend what ``formulas`` make of the activations."""

    def work(places: list[Place], after: int | None) -> None:
        grids = {}
        for layer, activation in _activations(view.segmenter, view.images(places), layers).items():
            here = made.cells.setdefault(layer, view.grid(size_of(activation)))
            shares = here.shares(places)
            for (name, of_layer), formula in formulas.items():
                if of_layer == layer:
                    grids[name, layer] = formula(activation).cpu() * shares
        keep_chunk()
        for (name, layer), grid in grids.items():
            _add(made.grid(name, layer), grid, made.cells[layer], places)

    view.run(view.every, work)


def _activations(segmenter: Segmenter, images: Images, layers: Sequence[str]) -> dict[str, Activations]:
    """Return what layers put out, as maps, without gradients."""
    modules, size = resolve(segmenter, layers), size_of(images)
    with left_as_found(segmenter, images), torch.no_grad(), tapped(modules, images) as kept:
        segmenter(images.to(segmenter.mean))
    layouts = {
        name: find_layout(segmenter, name, modules[name], value.shape, size) for name, value in kept.items()
    }
    return {name: layout.to_map(kept[name].detach().float()) for name, layout in layouts.items()}


def _project(weights: Tensor, activation: Activations) -> Grids:
    """``sum_k w_k A_k``."""
    return projected(activation, weights.to(activation).expand(len(activation), -1))


def _without_gradient(cam: Cam) -> Callable[[Activations], Grids]:
    """A formula that doesn't look at the gradient."""
    return lambda activation: cam.formula(activation, activation)


def _sum_up(sums: dict[Made, Sums], made: Made, part: Sums) -> None:
    """Add to what there is of a method and layer."""
    so_far = sums.setdefault(made, {})
    so_far |= {key: so_far.get(key, 0) + value for key, value in part.items()}


def _add(grid: Tensor, parts: Grids, cells: TiledGrid, places: Sequence[Place]) -> None:
    """Add the grids of windows where they are."""
    for place, part in zip(places, parts, strict=True):
        grid[placed(part, cells.corner(place))] += part


OVER_WINDOWS: dict[str, Over] = {
    "grad-cam": "summed",
    "grad-cam++": "weighed",
    "hires-cam": "added",
    "layer-cam": "stitched",
    "xgrad-cam": "summed",
    "eigen-cam": "summed",
    "activation": "blended",
    "saliency": "differentiated",
    "input-x-gradient": "differentiated",
    "integrated-gradients": "linear",
    "expected-gradients": "linear",
    "occlusion": "linear",
    "superpixel-occlusion": "linear",
}
"""The methods that mean something over windows, and how their maps are stitched.

``summed``: channel weights from sums over the tiled grid, see `Weights`; ``weighed``: the same, from the
added gradient and a pass that sums the activations first; ``added``: the windows' grids are;
``stitched``: the formula on the added gradient and the blended activation; ``blended``: no gradient is in it;
``differentiated``: the formula on the added gradient of the input; ``linear``: the windows' maps are added.
The others are not here for a reason: Score-CAM and Ablation-CAM weigh channels by numbers that are not sums
over windows, Seg-XRes-CAM pools blocks that windows cut, SmoothGrad takes magnitudes of each window's mean,
and RISE's value in a window holds what the windows beside it would have scored.
"""

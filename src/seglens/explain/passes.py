"""The passes that an explanation is made of: one trace for all formulas, one each for settings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from seglens.axes import cropped, padded_size, size_of, widened
from seglens.explain.cams import Cam
from seglens.explain.explanation import LEFT, Explanation, Status, status_of, without_rounding
from seglens.explain.gradients import InputGradient
from seglens.explain.methods import ON_INPUT, ON_LAYERS, ParsedMethods, Settings
from seglens.explain.target import Target
from seglens.explain.trace import LayerTap, Trace, in_chunks
from seglens.explain.trace import trace as run_trace
from seglens.models.layers import averaged_out
from seglens.models.segmenter import Segmenter
from seglens.runtime.device import at_once
from seglens.shapes import Images

Work = Callable[..., list[Explanation]]
"""Explains pictures on the model's device: ``(images, targets, *, batch_size)``, so many in it at once."""

Made = dict[tuple[int, str, str | None], dict[str, Tensor]]
"""Of one chunk: tensors by the target's position, the method and the layer."""


@dataclass(frozen=True)
class Pass:
    """Work that gives the maps of ``methods`` for ``layers``; the trace has no ``settings``."""

    methods: tuple[str, ...]
    work: Work
    layers: tuple[str, ...] = ()
    settings: Settings | None = None


def passes(segmenter: Segmenter, asked: ParsedMethods, layers: Sequence[str], *, seed: int) -> list[Pass]:
    """Return the passes that the methods asked for need, each once: the trace first."""
    found = []
    formulas = (*(asked.cams if layers else ()), *asked.gradients)
    if formulas:
        tapped = tuple(layers) if asked.cams else ()
        found.append(Pass(formulas, partial(_traced, segmenter, asked, tapped), tapped))
    for settings in asked.on_layers if layers else ():
        run = partial(ON_LAYERS[type(settings)], segmenter, layers=layers, settings=settings, seed=seed)
        found.append(Pass((settings.label or settings.name,), run, tuple(layers), settings))
    for settings in asked.on_input:
        run = partial(ON_INPUT[type(settings)], segmenter, settings=settings, seed=seed)
        found.append(Pass((settings.label or settings.name,), run, (), settings))
    return found


def _traced(
    segmenter: Segmenter,
    asked: ParsedMethods,
    layers: Sequence[str],
    images: Images,
    targets: Sequence[Target],
    *,
    batch_size: int,
) -> list[Explanation]:
    """All CAMs of all layers and all maps of the input's gradient for all targets: one trace per chunk."""
    chunks: list[Made] = []
    dtypes: dict[str | None, torch.dtype] = {}

    def work(rows: slice) -> None:
        chosen = [target.select(rows) for target in targets]
        made: Made = {}
        traces = run_trace(segmenter, images[rows], chosen, layers, input_gradient=bool(asked.gradients))
        for position, traced in enumerate(traces):
            dtypes.update({layer: tap.dtype for layer, tap in traced.taps.items()})
            for name, cam in asked.cams.items():
                for layer, tap in traced.taps.items():
                    made[position, name, layer] = _cam(cam, tap, segmenter.spec.divisor, size_of(images))
            for name, formula in asked.gradients.items():
                made[position, name, None] = _of_input(formula, images[rows], traced, chosen[position])
        chunks.append(made)  # All of the chunk or, where memory ran out on the way, nothing of it.

    in_chunks(len(images), at_once(size_of(images), images.device, batch_size), work)
    explanations = []
    for position, name, layer in chunks[0] if chunks else ():
        parts = [made[position, name, layer] for made in chunks]
        whole = {field: torch.cat([part[field] for part in parts]) for field in parts[0]}
        status: tuple[Status, ...] = ()
        if LEFT in whole:
            status = status_of(whole["map"].float(), targets[position])
            status = without_rounding(status, whole[LEFT], dtypes[layer])
            noise = torch.tensor([one == "degenerate" for one in status]).to(whole[LEFT].device)
            noise &= whole[LEFT] < averaged_out(dtypes[layer])
            noise = widened(noise, whole["grid"])
            whole["grid"] = whole["grid"].masked_fill(noise, torch.nan)
        explanations.append(
            Explanation(
                method=name,
                layer=layer,
                target=targets[position],
                map=whole.pop("map"),
                grid=whole.pop("grid", None),
                channels=whole.pop("channels", None),
                status=status,
                settings={"unit": "mean"} if layer is None else {"unit": "sum", **asked.cams[name].settings},
                diagnostics=whole,
            )
        )
    return explanations


def _cam(cam: Cam, tap: LayerTap, divisor: int, size: Sequence[int]) -> dict[str, Tensor]:
    """Grid, map and diagnostics of one CAM.

    The layer saw the picture padded (see `pad_to_divisor`): its grid covers that, and the padding is cut off.
    """
    grid = cam.formula(tap.activation, tap.gradient)
    padded = cam.map_of(grid, padded_size(size, divisor))
    found = {"grid": grid, "map": cropped(padded, size)}
    if cam.left is not None:
        found[LEFT] = cam.left(tap.activation, tap.gradient)
    return found | {name: about(tap.activation, tap.gradient) for name, about in cam.diagnostics}


def _of_input(formula: InputGradient, images: Images, traced: Trace, target: Target) -> dict[str, Tensor]:
    """Map and channels of one formula of the input's gradient; of the mean, where the trace is of the sum."""
    assert traced.input_gradient is not None  # it was asked for
    count = target.pixels.to(images.device).flatten(1).sum(1).clamp(min=1)
    channels = formula.formula(images, traced.input_gradient / widened(count, images)).float()
    return {"map": formula.map_of(channels)} | ({} if formula.largest else {"channels": channels})

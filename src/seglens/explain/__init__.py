"""Explanation: which parts of a layer, or of the picture, speak for the target.

`explain` finds the passes that are needed and runs each once: one trace gives every CAM of every layer.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from seglens.errors import SettingError
from seglens.explain.cams import Cam
from seglens.explain.explanation import Explanation, Explanations
from seglens.explain.gradients import InputGradient
from seglens.explain.methods import METHODS, ON_INPUT, ON_LAYERS, Method, sorted_out
from seglens.explain.target import Target
from seglens.explain.trace import LayerTap, Trace, in_chunks
from seglens.explain.trace import trace as run_trace
from seglens.models.layers import resolve
from seglens.models.segmenter import Segmenter
from seglens.runs import Run
from seglens.shapes import Images
from seglens.verb import make_callable

__all__ = ["METHODS", "Method", "explain"]

Made = dict[tuple[int, str, str | None], dict[str, Tensor]]
"""Of one chunk: tensors by the target's position, the method and the layer."""


def explain(
    run: Run,
    images: Images,
    target: Target | Sequence[Target],
    *,
    methods: Sequence[Method] = ("grad-cam",),
    layers: Sequence[str] = ("encoder_last", "decoder_last"),
    seed: int = 0,
    chunk: int = 16,
) -> Explanations:
    """Explain what the model says about ``target`` (or about several) on ``images``, which lie in [0, 1].

    A method is its name in `METHODS`, or its settings. ``chunk`` pictures are in the model at once; like the
    batch and its order it changes nothing in the result. Maps come back on the device of ``images``.

    Returns:
        The explanations by ``(method, layer)``, or by ``method`` where there is no layer, with the target's
        label in front where there are several targets.

    Raises:
        UnknownNameError: no such method or layer; the nearest one is named.
        SettingError: the targets were made for other images.
        ModelError: a layer can't be traced.
    """
    targets = (target,) if isinstance(target, Target) else tuple(target)
    for one in targets:
        if one.pixels.shape != (len(images), *images.shape[-2:]):
            raise SettingError(
                f"Target {one.label!r} has pixels of shape {tuple(one.pixels.shape)}, but the images have "
                f"{(len(images), *images.shape[-2:])} (pictures, rows, columns). Make it from the same "
                "images."
            )
    asked = sorted_out(methods)
    layers = tuple(dict.fromkeys(layers)) if asked.need_layers else ()
    resolve(run.segmenter, layers)  # A wrong name is an error before any work is done.
    there = images.to(run.segmenter.device)
    found = _traced(run.segmenter, there, targets, asked.cams, asked.gradients, layers, chunk)
    for settings in asked.on_layers:
        work = ON_LAYERS[type(settings)]
        found += work(run.segmenter, there, targets, layers, settings, seed=seed, chunk=chunk)
    for settings in asked.on_input:
        found += ON_INPUT[type(settings)](run.segmenter, there, targets, settings, seed=seed, chunk=chunk)
    return Explanations(_moved(item, images.device) for item in found)


def _traced(
    segmenter: Segmenter,
    images: Images,
    targets: Sequence[Target],
    cams: dict[str, Cam],
    gradients: dict[str, InputGradient],
    layers: Sequence[str],
    chunk: int,
) -> list[Explanation]:
    """All CAMs of all layers and all maps of the input's gradient for all targets: one trace per chunk."""
    if not (cams and layers) and not gradients:
        return []
    chunks: list[Made] = []

    def work(rows: slice) -> None:
        chosen = [target.select(rows) for target in targets]
        made: Made = {}
        for position, traced in enumerate(
            run_trace(
                segmenter,
                images[rows],
                chosen,
                layers if cams else (),
                input_gradient=bool(gradients),
            )
        ):
            for name, cam in cams.items():
                for layer, tap in traced.taps.items():
                    made[position, name, layer] = _cam(cam, tap, segmenter.spec.divisor, images.shape[-2:])
            for name, formula in gradients.items():
                made[position, name, None] = _of_input(formula, images[rows], traced, chosen[position])
        chunks.append(made)  # All of the chunk or, where memory ran out on the way, nothing of it.

    in_chunks(len(images), chunk, work)
    explanations = []
    for position, name, layer in chunks[0] if chunks else ():
        parts = [made[position, name, layer] for made in chunks]
        whole = {field: torch.cat([part[field] for part in parts]) for field in parts[0]}
        explanations.append(
            Explanation(
                method=name,
                layer=layer,
                target=targets[position],
                map=whole.pop("map"),
                grid=whole.pop("grid", None),
                channels=whole.pop("channels", None),
                settings={"unit": "mean"} if layer is None else {"unit": "sum", **cams[name].settings},
                diagnostics=whole,
            )
        )
    return explanations


def _cam(cam: Cam, tap: LayerTap, divisor: int, size: Sequence[int]) -> dict[str, Tensor]:
    """Grid, map and diagnostics of one CAM.

    The layer saw the picture padded below and to the right: its grid covers that, and the padding is cut off.
    """
    height, width = size
    grid = cam.formula(tap.activation, tap.gradient)
    padded = cam.map_of(grid, (height + -height % divisor, width + -width % divisor))
    found = {"grid": grid, "map": padded[:, :height, :width]}
    return found | {name: about(tap.activation, tap.gradient) for name, about in cam.diagnostics}


def _of_input(formula: InputGradient, images: Images, traced: Trace, target: Target) -> dict[str, Tensor]:
    """Map and channels of one formula of the input's gradient; of the mean, where the trace is of the sum."""
    assert traced.input_gradient is not None  # it was asked for
    count = target.pixels.to(images.device).sum((1, 2)).clamp(min=1)
    channels = formula.formula(images, traced.input_gradient / count[:, None, None, None]).float()
    return {"map": formula.map_of(channels)} | ({} if formula.largest else {"channels": channels})


def _moved(item: Explanation, device: torch.device) -> Explanation:
    """Bring an explanation's tensors to ``device``."""
    tensors: dict[str, Any] = {
        name: value.to(device)
        for name in ("map", "grid", "channels")
        if (value := getattr(item, name)) is not None
    }
    return replace(
        item, **tensors, diagnostics={key: value.to(device) for key, value in item.diagnostics.items()}
    )


make_callable(__name__)

"""Explanation: which parts of a layer, or of the picture, speak for the target.

`explain` finds the passes that are needed and runs each once: one trace gives every CAM of every layer.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from seglens.errors import SettingError, unknown_name
from seglens.explain.cams import CAMS, Cam
from seglens.explain.explanation import Explanation, Explanations
from seglens.explain.gradients import NAME as INTEGRATED_GRADIENTS
from seglens.explain.gradients import IntegratedGradients, integrated_gradients
from seglens.explain.target import Target
from seglens.explain.trace import LayerTap, in_chunks
from seglens.explain.trace import trace as run_trace
from seglens.models.layers import resolve
from seglens.models.segmenter import Segmenter
from seglens.runs import Run
from seglens.shapes import Images
from seglens.verb import make_callable

METHODS: dict[str, Cam | IntegratedGradients] = {**CAMS, INTEGRATED_GRADIENTS: IntegratedGradients()}
"""Every method by name: a CAM's formula, or the settings that the bare name stands for."""


def explain(
    run: Run,
    images: Images,
    target: Target | Sequence[Target],
    *,
    methods: Sequence[str | IntegratedGradients] = ("grad-cam",),
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
    cams, paths = _sorted_out(methods)
    resolve(run.segmenter, layers if cams else ())  # A wrong name is an error before any work is done.
    there = images.to(run.segmenter.device)
    found = _cams(run.segmenter, there, targets, cams, tuple(dict.fromkeys(layers)), chunk)
    for one in targets:
        found += [
            integrated_gradients(run.segmenter, there, one, settings, seed=seed, chunk=chunk)
            for settings in paths
        ]
    return Explanations(_moved(item, images.device) for item in found)


def _sorted_out(
    methods: Sequence[str | IntegratedGradients],
) -> tuple[tuple[str, ...], tuple[IntegratedGradients, ...]]:
    """Split what was asked for into CAMs and paths, each once, settings with distinct labels."""
    for method in methods:
        if isinstance(method, str) and method not in METHODS:
            raise unknown_name("method", method, METHODS)
    cams = (method for method in methods if isinstance(method, str) and method in CAMS)
    asked = (METHODS[method] if isinstance(method, str) else method for method in methods)
    paths = (method for method in asked if isinstance(method, IntegratedGradients))
    return tuple(dict.fromkeys(cams)), _labelled(tuple(dict.fromkeys(paths)))


def _labelled(paths: tuple[IntegratedGradients, ...]) -> tuple[IntegratedGradients, ...]:
    """Name settings by what tells them apart: ``integrated-gradients(baseline=blur, steps=64)``."""
    unnamed = [path for path in paths if not path.label]
    if len(unnamed) < 2:
        return paths
    apart = [
        f.name for f in fields(IntegratedGradients) if len({getattr(path, f.name) for path in unnamed}) > 1
    ]

    def label(path: IntegratedGradients) -> str:
        return f"{INTEGRATED_GRADIENTS}({', '.join(f'{name}={getattr(path, name)}' for name in apart)})"

    return tuple(path if path.label else replace(path, label=label(path)) for path in paths)


def _cams(
    segmenter: Segmenter,
    images: Images,
    targets: Sequence[Target],
    names: Sequence[str],
    layers: Sequence[str],
    chunk: int,
) -> list[Explanation]:
    """All CAMs of all layers for all targets, from one trace per chunk of pictures."""
    if not (names and layers):
        return []
    chunks: list[dict[tuple[int, str, str], dict[str, Tensor]]] = []

    def work(rows: slice) -> None:
        chosen = [target.select(rows) for target in targets]
        traces = run_trace(segmenter, images[rows], chosen, layers)
        made = {
            (position, name, layer): _cam(CAMS[name], tap, segmenter.spec.divisor, images.shape[-2:])
            for position, traced in enumerate(traces)
            for name in names
            for layer, tap in traced.taps.items()
        }
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
                grid=whole.pop("grid"),
                settings={"unit": "sum", "relu": CAMS[name].relu},
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

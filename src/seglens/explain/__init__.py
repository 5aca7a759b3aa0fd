"""Explanation: which parts of a layer, or of the picture, speak for the target.

`explain` finds the passes that are needed and runs each once: one trace gives every CAM of every layer.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from seglens.errors import SettingError
from seglens.explain.explanation import Explanation, Explanations, check_where
from seglens.explain.memory import chunk_of
from seglens.explain.methods import METHODS, Method, sorted_out
from seglens.explain.passes import passes
from seglens.explain.target import Target, for_head
from seglens.models.layers import resolve
from seglens.runs import Run
from seglens.shapes import Images
from seglens.verb import make_callable

__all__ = ["METHODS", "Method", "explain"]


def explain(
    run: Run,
    images: Images,
    target: Target | Sequence[Target],
    *,
    methods: Sequence[Method] = ("grad-cam",),
    layers: Sequence[str] = ("encoder_last", "decoder_last"),
    where: str = "region",
    seed: int = 0,
    chunk: int | None = None,
    memory: int | None = None,
) -> Explanations:
    """Explain what the model says about ``target`` (or about several) on ``images``, which lie in [0, 1].

    A method is its name in `METHODS`, or its settings. At most ``chunk`` pictures are in the model at once,
    16 by default; like the batch and its order it changes nothing in the result. ``memory`` is a budget in
    bytes, on top of weights, pictures and maps, for what the passes need at work: chunks are sized to it
    (see ``memory.py``), which takes a few runs of the model. Maps come back on the device of ``images``.

    Where the model has an intensity window, everything happens within it: baselines, noise and what is filled
    in have the range that the model sees, and gradients are per unit of it.

    With ``where="context"`` the score is the target's all the same, but only attribution outside of it is
    reported and judged (`Explanation.counted`).

    Returns:
        The explanations by ``(method, layer)``, or by ``method`` where there is no layer, with the target's
        label in front where there are several targets.

    Raises:
        UnknownNameError: no such method, layer or ``where``; the nearest one is named.
        SettingError: the targets were made for other images, or one picture is more than the budget.
        ModelError: a layer can't be traced.
    """
    check_where(where)
    targets = [for_head(one, run) for one in ((target,) if isinstance(target, Target) else target)]
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
    run, there = run.opened(images.to(run.segmenter.device))
    found: list[Explanation] = []
    for step in passes(run.segmenter, asked, layers, seed=seed):
        most = chunk_of(step, run.segmenter, there, targets, num=len(there), chunk=chunk, memory=memory)
        found += step.work(there, targets, most)
    return Explanations(_moved(item, images.device, where) for item in found)


def _moved(item: Explanation, device: torch.device, where: str) -> Explanation:
    """Bring an explanation's tensors to ``device``, and say which pixels of it count."""
    tensors: dict[str, Any] = {
        name: value.to(device)
        for name in ("map", "grid", "channels")
        if (value := getattr(item, name)) is not None
    }
    return replace(
        item,
        **tensors,
        where=where,
        diagnostics={key: value.to(device) for key, value in item.diagnostics.items()},
    )


make_callable(__name__)

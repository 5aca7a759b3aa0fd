"""Explanation: which parts of a layer, or of the picture, speak for the target.

`explain` finds the passes that are needed and runs each once: one trace gives every CAM of every layer.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from seglens.arguments import checked
from seglens.arguments.inputs import Pictures, as_images, names_of
from seglens.arguments.renamed import renamed
from seglens.axes import size_of
from seglens.callable_module import make_callable
from seglens.errors import SettingError
from seglens.explain.explanation import Explanation, Explanations, check_where
from seglens.explain.integrated import IntegratedGradients
from seglens.explain.members import explain_members
from seglens.explain.memory import BATCH_SIZE, within
from seglens.explain.methods import METHODS, Method, methods_of, parse
from seglens.explain.passes import passes
from seglens.explain.target import Target, targets_on
from seglens.explain.tiled import explain_large
from seglens.models.ensemble import Ensemble
from seglens.models.layers import resolve
from seglens.predict.tiles import OVERLAP, cut_of, over
from seglens.runs import Run
from seglens.shapes import Images

__all__ = ["METHODS", "Method", "explain"]


@renamed(chunk="batch_size")
@checked
def explain(
    run: Run,
    images: Pictures,
    target: Target | Sequence[Target],
    *,
    methods: Method | Sequence[Method] = ("grad-cam",),
    layers: str | Sequence[str] = ("encoder_last", "decoder_last"),
    window: int | Sequence[int] | None = None,
    overlap: float = OVERLAP,
    floor: float = 0.0,
    where: str = "region",
    seed: int = 0,
    batch_size: int | None = None,
    memory: int | None = None,
) -> Explanations:
    """Explain the model's score of ``target`` (or of several) on ``images``, which lie in [0, 1].

    A method is its name in `METHODS`, or its settings. At most ``batch_size`` pictures are in the model at
    once, 16 by default; like the batch and its order it changes nothing in the result. ``memory`` is a budget
    in bytes, on top of weights, pictures and maps, for what the passes need at work: a chunk that takes more
    is halved, as it is where memory ends (see ``memory.py``). Maps come back on the device of ``images``.

    Where the model has an intensity window, everything happens within it: baselines, noise and what is filled
    in have the range that the model sees, and gradients are per unit of it.

    With a ``window`` one picture or volume of any size is explained in windows, as `Run.predict` predicts it
    with the same ``window``, ``overlap`` and ``floor``: CAMs have one set of channel weights for all of it,
    see `seglens.explain.tiled`. ``batch_size`` windows are in the model at once, 8 or, of volumes, 1.

    An ensemble (folds, mirror images) is explained member by member, and maps are averaged, see
    ``members.py``.

    With ``where="context"`` the score is the target's all the same, but only attribution outside of it is
    reported and judged (`Explanation.counted`).

    Returns:
        The explanations by ``(method, layer)``, or by ``method`` where there is no layer, with the target's
        label in front where there are several targets.

    Raises:
        UnknownNameError: no such method, layer or ``where``; the nearest one is named.
        SettingError: the images are not raw ones, the targets were made for others, or one picture is more
            than the budget; there can be no such windows, or a method means nothing over them.
        ModelError: a layer can't be traced.
        NoMemoryError: memory ends with one picture.
    """
    check_where(where)
    images = as_images(images, run.spec.channels, run.spec.dims)
    targets = targets_on(run, images, target)
    if window is not None:
        windows = over(size_of(images), run.spec, window, overlap, floor)
        if len(images) != 1:
            raise SettingError(
                f"With a window one picture or volume is explained at a time, received {len(images)}."
            )
        return Explanations(
            _moved(made.explanation(where), images.device, where)
            for one in targets
            for made in explain_large(
                run,
                cut_of(images[0]),
                windows,
                one,
                methods=methods_of(methods),
                layers=names_of(layers),
                seed=seed,
                batch_size=batch_size,
                memory=memory,
            ).values()
        )
    given = [_opened(method, run) for method in methods_of(methods)]
    asked = parse(given)
    layers = asked.layers(layers)
    resolve(run.segmenter, layers)  # A wrong name is an error before any work is done.
    run, there = run.opened(images.to(run.segmenter.device))
    most = BATCH_SIZE if batch_size is None else batch_size

    def work(
        one: Run, pictures: Images, about: Sequence[Target], chosen: Sequence[Method]
    ) -> list[Explanation]:
        found: list[Explanation] = []
        for step in passes(one.segmenter, parse(chosen), layers, seed=seed):
            with within(memory, step.methods, pictures, most):
                found += step.work(pictures, about, batch_size=most)
        return found

    several = isinstance(run.segmenter.module, Ensemble)
    found = explain_members(run, there, targets, given, work) if several else work(run, there, targets, given)
    return Explanations(_moved(item, images.device, where) for item in found)


def _opened(method: Method, run: Run) -> Method:
    """Bring a baseline of one's own into the range that the model sees, as `Run.opened` does the images."""
    if not isinstance(method, IntegratedGradients) or method.picture is None:
        return method
    return replace(method, picture=run.segmenter.open_window(method.picture.to(run.segmenter.device)))


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

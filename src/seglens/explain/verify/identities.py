"""Identities of formulas: what two of them, or a formula and the score, must agree on."""

from dataclasses import replace

import torch

from seglens.explain.cams import CAMS, Cam, SegXResCam, hires_cam
from seglens.explain.trace import left_as_found, trace
from seglens.explain.verify.case import ROUNDING, Case, Measured, worst_of
from seglens.models.layers import layers as list_layers
from seglens.models.layers import resolve
from seglens.shapes import Scores

FAINT = 0.1
"""A grid whose magnitudes sum to less than this share of the score can't be held against it in float32: sums
of the size of S are right to about a millionth of it, and the limit is one part in a hundred thousand."""


def window_of_one(case: Case) -> Measured:
    """HiResCAM against Seg-XRes-CAM with blocks of one cell."""
    return _same_formula(case, CAMS["hires-cam"], SegXResCam(window=1).cam)


def window_of_all(case: Case) -> Measured:
    """Grad-CAM against Seg-XRes-CAM with the mean over one block that is the whole grid."""
    return _same_formula(case, CAMS["grad-cam"], SegXResCam(window=2**30, pool="mean").cam)


def path_completeness(case: Case) -> Measured:
    """``|sum of map - (S(x) - S(x0))| / |S(x) - S(x0)|``, S(x0) being the score of a black picture."""
    usable = case.path.ok & (case.path.diagnostics["small_denominator"] == 0)
    if not usable.any():
        return Measured(None, "the score of every picture is about that of a black one")
    errors, steps = (case.path.diagnostics[name][usable] for name in ("completeness_error", "steps"))
    return Measured(errors.max().item(), f"{int(steps.max())} steps")


def channel_sums(case: Case) -> Measured:
    """The sum over the input's channels against the map, of Integrated Gradients."""
    if case.path.channels is None or not case.path.ok.any():
        return Measured(None, f"no map varies: {', '.join(case.path.status)}")
    summed = replace(case.path, map=case.path.channels.sum(1))
    return worst_of([("", summed, case.path)])


def head_completeness(case: Case) -> Measured:
    """``|sum of HiResCAM's grid - (S(A) - S(0))|`` as a share of the sum of the grid's magnitudes.

    It holds at layers that only linear operations follow, where S(0) is the bias: at the layer of the logits
    S(0) is 0 and the grid sums to the score itself. Whether they are linear is told by running the model with
    the layer's output A times 0, 1 and 2: S must change by equal steps. A layer whose grid is small next to S
    itself is left out: what it adds is lost in the rounding of S.
    """
    shown = {role for info in list_layers(case.run) for role in info.roles}
    extra = [role for role in ("decoder_last", "seg_head") if role in shown]
    names = list(dict.fromkeys([*case.layers, *extra]))
    taps = trace(case.run.segmenter, case.images, [case.target], names)[0].taps
    held, worst = [], 0.0
    for name in names:
        grid = hires_cam(taps[name].activation, taps[name].gradient)
        size = grid.abs().sum((1, 2))
        none, once, twice = (_scaled_score(case, name, factor) for factor in (0.0, 1.0, 2.0))
        bend = (twice - 2 * once + none).abs()
        if (size <= FAINT * once.abs()).any() or (bend > ROUNDING * size).any():
            continue
        held.append(name)
        worst = max(worst, ((grid.sum((1, 2)) - (once - none)).abs() / size).max().item())
    if not held:
        return Measured(None, f"what follows {', '.join(names)} is not linear, or they add too little")
    return Measured(worst, f"at {', '.join(held)}")


def _same_formula(case: Case, one: Cam, other: Cam) -> Measured:
    """The largest difference of two formulas' grids, in float64, where terms that cancel cost no digits."""
    traced = trace(case.run.segmenter, case.images, [case.target], case.layers)[0]
    largest = Measured(0.0)
    for name, tap in traced.taps.items():
        wide = (tap.activation.double(), tap.gradient.double())
        grids, others = one.formula(*wide), other.formula(*wide)
        scale = grids.abs().amax((1, 2)).clamp(min=torch.finfo(torch.float64).tiny)
        value = ((grids - others).abs().amax((1, 2)) / scale).max().item()
        if largest.value is None or value >= largest.value:
            largest = Measured(value, f"at {name}")
    return largest


def _scaled_score(case: Case, name: str, factor: float) -> Scores:
    """The score where the layer's output is multiplied by ``factor``."""
    segmenter = case.run.segmenter
    (module,) = resolve(segmenter, [name]).values()
    with left_as_found(segmenter, case.images), torch.no_grad():
        handle = module.register_forward_hook(lambda module, inputs, output: output * factor)
        try:
            logits = segmenter(case.images.to(segmenter.mean))
        finally:
            handle.remove()
    return case.target.score(logits, torch.arange(len(case.images)), "sum")

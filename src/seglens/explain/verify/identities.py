"""Identities of formulas: what two of them, or a formula and the score, must agree on."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from seglens.axes import axes, size_of
from seglens.explain import explain
from seglens.explain.cams import CAMS, Cam, SegXResCam, hires_cam
from seglens.explain.integrated import IntegratedGradients
from seglens.explain.target import Target
from seglens.explain.trace import left_as_found, trace
from seglens.explain.verify.case import INCOMPLETE, ROUNDING, Case, Measured, worst_of
from seglens.models.layers import find_layout, resolve
from seglens.models.layers import layers as list_layers
from seglens.models.segmenter import Segmenter
from seglens.models.slope import float64_copy
from seglens.seeds import content_normal
from seglens.shapes import Activations, Images, Scores

FAINT = 0.1
"""A grid whose magnitudes sum to less than this share of the score can't be held against it in float32: sums
of the size of S are right to about a millionth of it, and the limit is one part in a hundred thousand."""

STRIDES = (1e-6, 1e-5, 1e-4)
"""Steps of the central difference, as shares of the layer's magnitude: a gradient that is that of the score
agrees at one of them, however bent the score is and whatever the network rounds to float32 in between."""

FINE = (1e-7, 1e-8)
"""Steps for networks with a kink within the others (a hundred thousand ReLUs), each where the rounding of the
score is small next to the change that is expected."""

ASIDE = 1e-2
"""Share of the layer's magnitude by which it is moved before: where values are equal (zeros after a ReLU) a
maximum over them has no slope."""

FALLS = 0.7
"""An error that four times as many steps leave above this share of it does not fall."""

PLACES = (0.11, 0.37, 0.62, 0.93)
"""Where on the way from black to a picture the slope of the score is compared, as shares of it."""

LOOKS = 64
"""How often the score is looked at on the way."""

JUMP = 0.2
"""Share of its change by which a score moves in the first of these steps where it jumps at black."""

UNLIKE = 1e-2
"""Relative error from which on a gradient is not the slope; rounding to float32 inside makes less."""

LOST = 1e-13
"""What of a score is rounding in float64, as a share of it."""


def tap_gradient(case: Case) -> Measured:
    """``|(S(A + hD) - S(A - hD)) / 2h - sum of g D|`` as a share of ``|g| |D|``, in float64, of one picture.

    At every layer that is verified, and at every one that has a role; A is the layer's output moved a little
    aside. Two directions D: the gradient itself, and noise, against what it is expected to come to. The
    layer's forward is replaced by one that adds to its output: no hook is involved, neither ours nor the
    network's.
    """
    shown = [role for info in list_layers(case.run) for role in info.roles[:1]]
    names = _once(case, [*case.layers, *shown])
    wide, images = float64_copy(case.run.segmenter, case.images[:1])
    if isinstance(wide, str):
        return Measured(None, wide)
    target = case.target.select(torch.tensor([0]))
    taps = trace(wide, images, [target], names)[0].taps
    largest = Measured(0.0)
    for name in names:
        found = _error_of_slope(wide, images, target, name, taps[name].activation, case.seed)
        largest = max(largest, found)
    return largest


def _error_of_slope(
    wide: Segmenter,
    images: Images,
    target: Target,
    name: str,
    activation: Activations,
    seed: int,
) -> Measured:
    """The larger error of the two directions at a layer's output that is moved aside, see `tap_gradient`."""
    largest = Measured(0.0)
    size = activation.square().mean().sqrt().clamp(min=1e-12)
    chance, aside = (
        size * content_normal(images, activation.shape[1:], seed, what).to(activation)
        for what in ("direction", "aside")
    )
    with _moved(wide, images, name, ASIDE * aside):
        slope = trace(wide, images, [target], [name])[0].taps[name].gradient
    steepest = slope / slope.square().mean().sqrt().clamp(min=1e-300) * size
    for about, along in (("the gradient", steepest), ("noise", chance)):
        expected = (slope * along).sum()
        scale = slope.norm() * size * (along.numel() ** 0.5 if along is steepest else 1)
        errors = []
        for step in (*STRIDES, *FINE):
            scores = []
            for sign in (1, -1):
                with _moved(wide, images, name, ASIDE * aside + sign * step * along):
                    scores.append(_score(wide, images, target))
            lost = LOST * (scores[0].abs() + scores[1].abs())
            if step in FINE and lost > ROUNDING * 2 * step * scale:
                continue
            beyond = (scores[0] - scores[1] - 2 * step * expected).abs() - lost
            share = beyond.clamp(min=0) / (2 * step * scale).clamp(min=1e-300)
            errors.append(share.nan_to_num(torch.inf).item())
            if errors[-1] <= ROUNDING:
                break
        largest = max(largest, Measured(min(errors), f"at {name}, along {about}"))
    return largest


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
    worst, taken = errors.max().item(), int(steps.max())
    picture = int(usable.nonzero()[errors.argmax()])
    if worst <= INCOMPLETE:
        return Measured(worst, f"{taken} steps")
    quarter = IntegratedGradients(steps=taken // 4, label="quarter")
    found = explain(case.run, case.images, case.target, methods=[quarter], seed=case.seed)["quarter"]
    before = found.diagnostics["completeness_error"][usable].max().item()
    falls = "it falls" if worst <= FALLS * before else "it does not fall"
    why = _on_the_way(case, picture)
    return Measured(worst, f"{taken} steps; {before:.1e} with a quarter of them, so {falls}: {why}")


def _on_the_way(case: Case, picture: int) -> str:
    """Say why the attributions of a picture miss the change of the score from black, with what was measured.

    The slope along the way is compared with a central difference in float64 at `PLACES`: where they agree,
    it is the steps. The score itself is looked at `LOOKS` times.
    """
    segmenter, images = case.run.segmenter, case.images[picture : picture + 1]
    target = case.target.select(torch.tensor([picture]))
    scores = torch.cat([_score(segmenter, images * (at / LOOKS), target) for at in range(LOOKS + 1)]).double()
    moves, change = scores.diff().abs(), (scores[-1] - scores[0]).abs()
    length, first = (moves.sum() / change).item(), (moves[0] / change).item()
    moved = f"on the way the score moves {length:.2g} times its change, {first:.2g} in the first 1/{LOOKS}"
    wide, ends = float64_copy(segmenter, images)
    if isinstance(wide, str):
        return f"{moved}; slopes can't be compared: {wide}"
    error = max(_error_on_the_way(wide, ends, target, at) for at in PLACES)
    if error > UNLIKE:
        return (
            f"the gradient is not the slope of the score there (off by {error:.1e}), as where a part of the "
            f"network has a gradient of another function; {moved}"
        )
    todo = (
        "it jumps at black, as where a network normalises pictures or positions by themselves: take "
        "baseline='blur', or a picture of your own"
        if first > JUMP
        else "it turns too often for these steps, and more would do"
    )
    return f"the gradient is the slope of the score (to {error:.1e}), but {moved}: {todo}"


def _error_on_the_way(wide: Segmenter, images: Images, target: Target, at: float) -> float:
    """The error of the slope along the way from black at the share ``at`` of it, over the slope."""
    traced = trace(wide, images * at, [target], [], input_gradient=True)[0]
    assert traced.input_gradient is not None
    slope = (traced.input_gradient * images).sum()
    errors = []
    for step in (1e-9, 1e-8, 1e-7, 1e-6):
        ahead, behind = (_score(wide, images * (at + sign * step), target) for sign in (1, -1))
        scale = slope.abs().clamp(min=1e-9 * ahead.abs().max().item())
        errors.append((((ahead - behind) / (2 * step) - slope).abs() / scale).max().item())
    return min(errors)


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
    names = _once(case, [*case.layers, *extra])
    taps = trace(case.run.segmenter, case.images, [case.target], names)[0].taps
    held, worst = [], 0.0
    for name in names:
        grid = hires_cam(taps[name].activation, taps[name].gradient)
        size = grid.abs().sum(axes(grid, 1))
        none, once, twice = (_scaled_score(case, name, factor) for factor in (0.0, 1.0, 2.0))
        bend = (twice - 2 * once + none).abs()
        if (size <= FAINT * once.abs()).any() or (bend > ROUNDING * size).any():
            continue
        held.append(name)
        worst = max(worst, ((grid.sum(axes(grid, 1)) - (once - none)).abs() / size).max().item())
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
        scale = grids.abs().amax(axes(grids, 1)).clamp(min=torch.finfo(torch.float64).tiny)
        value = ((grids - others).abs().amax(axes(grids, 1)) / scale).max().item()
        if largest.value is None or value >= largest.value:
            largest = Measured(value, f"at {name}")
    return largest


def _once(case: Case, names: Sequence[str]) -> list[str]:
    """Leave out names that mean the same layer as one before."""
    modules = resolve(case.run.segmenter, names)
    return list({id(modules[name]): name for name in reversed(names)}.values())[::-1]


def _scaled_score(case: Case, name: str, factor: float) -> Scores:
    """The score where the layer's output is multiplied by ``factor``."""
    segmenter = case.run.segmenter
    (module,) = resolve(segmenter, [name]).values()
    with _changed(module, lambda output: output * factor):
        return _score(segmenter, case.images.to(segmenter.mean), case.target)


@contextmanager
def _moved(segmenter: Segmenter, images: Images, name: str, by: Activations) -> Iterator[None]:
    """Add ``by``, arranged as a map, to the layer's output."""
    (module,) = resolve(segmenter, [name]).values()

    def move(output: Tensor) -> Tensor:
        layout = find_layout(segmenter, name, module, output.shape, size_of(images))
        return layout.put_back(layout.to_map(output) + by, output)

    with _changed(module, move):
        yield


def _score(segmenter: Segmenter, images: Images, target: Target) -> Scores:
    with left_as_found(segmenter, images), torch.no_grad():
        return target.score(segmenter(images), torch.arange(len(images)), "sum")


@contextmanager
def _changed(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let ``module`` return ``change(output)``: on its own, not by what sets the taps that are checked."""
    own, forward = vars(module), module.forward
    found = {"forward": own["forward"]} if "forward" in own else {}
    own["forward"] = lambda *given, **named: change(forward(*given, **named))
    try:
        yield
    finally:
        own.pop("forward")
        own.update(found)

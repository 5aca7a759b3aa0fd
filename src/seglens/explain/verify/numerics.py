"""The same maps another way: in a batch, again, compiled, in half precision; and the model afterwards."""

import copy
from dataclasses import replace

import torch
from jaxtyping import Float
from scipy.stats import spearmanr
from torch import Tensor

from seglens.axes import axes, interpolated, size_of
from seglens.explain import explain
from seglens.explain.cams import hires_cam
from seglens.explain.explanation import Explanation
from seglens.explain.trace import differentiate, left_as_found, recomputed, tapped, trace
from seglens.explain.verify.case import ROUNDING, STEADY, Case, Measured, Snapshot, changes, worst, worst_of
from seglens.models.layers import resolve
from seglens.models.segmenter import evaluating
from seglens.models.slope import float64_copy
from seglens.predict import infer
from seglens.shapes import Activations, Grids

MASKS = 32
"""Channels of the first layer that mask the picture, for the scores that are ranked."""

ROUNDED = 100 * ROUNDING
"""What rounding alone may come to where gradients nearly cancel; a real difference is larger still."""


def batch_of_many(case: Case) -> Measured:
    """Maps from a batch (the pictures and their mirror images) against those of each picture alone.

    A difference of up to `ROUNDED` that is gone in float64 is rounding: kernels add in another order for
    another batch, and an untrained network has gradients that nearly cancel. A larger one fails, for so far
    apart are the maps; where it is gone in float64, rounding has tipped a ReLU whose input is about 0.
    """
    if case.drift.value is not None and case.drift.value > ROUNDING:
        return Measured(None, "one picture's map differs from run to run already")
    found = _batch_against_single(case)
    if found.value is None or found.value <= ROUNDING:
        return found
    wide, images = float64_copy(case.run.segmenter, case.images)
    if isinstance(wide, str):  # the first answer stands
        return found
    again = _batch_against_single(replace(case, run=replace(case.run, segmenter=wide), images=images))
    if again.value is None or again.value > ROUNDING:
        return found
    if found.value > ROUNDED:
        return found._replace(
            note=f"{found.note}; {again.value:.1e} in float64: rounding tips a unit that stands at its kink "
            "(a ReLU whose input is 0 but for that), and the gradient jumps. Take the model in float64"
        )
    return Measured(again.value, f"in float64; {found.value:.1e} in float32 is rounding")


def _batch_against_single(case: Case) -> Measured:
    """The largest difference between a map from a batch and that of its picture alone."""
    images = torch.cat([case.images, case.images.flip(-1)])
    pixels, weights = case.target.pixels, case.target.weights
    target = replace(
        case.target,
        pixels=torch.cat([pixels, pixels.flip(-1)]),
        weights=None if weights is None else torch.cat([weights, weights.flip(-1)]),
    )
    batch = explain(case.run, images, target, methods=STEADY, layers=case.layers, batch_size=len(images))
    pairs = []
    for row in range(len(case.images)):
        one = torch.tensor([row])
        alone = explain(
            case.run, images[row : row + 1], target.select(one), methods=STEADY, layers=case.layers
        )
        for key, single in alone.items():
            status = (batch[key].status[row],)
            among = Explanation(
                single.method, single.layer, single.target, batch[key].map[row : row + 1], status=status
            )
            pairs.append((single.name, among, single))
    return worst_of(pairs)


def repeatability(case: Case) -> Measured:
    """Two runs with the same seed, among them a random baseline, from other random states of the process."""
    return case.drift._replace(note="bit by bit") if case.drift.value == 0 else case.drift


def compilation(case: Case) -> Measured:
    """A compiled copy of the model: its logits and maps against the model's own."""
    if not case.compiled:
        return Measured(None, "not asked for: compiling takes a minute or more")
    try:
        copied = copy.deepcopy(case.run.segmenter)
        copied.module.compile()
        logits = infer(copied, case.images).logits
    except (RuntimeError, TypeError) as error:  # copies and compilers fail in many ways, all of these kinds
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        return Measured(None, f"it can't be compiled: {type(error).__name__}: {reason}")
    right = infer(case.run.segmenter, case.images).logits
    apart = ((logits - right).abs().max() / right.abs().max()).item()
    maps = replace(case, run=replace(case.run, segmenter=copied)).explain(STEADY)
    return Measured(max(apart, worst(maps, case.explain(STEADY)).value or 0.0), f"logits {apart:.1e}")


def half_scores(case: Case) -> Measured:
    """1 - Spearman's correlation of the scores of masked pictures in bfloat16 with those in float32.

    The masks are channels of the first layer, as Score-CAM has them.
    """
    if (reason := _no_half(case)) is not None:
        return Measured(None, reason)
    (tap,) = trace(case.run.segmenter, case.images, [case.target], case.layers[:1])[0].taps.values()
    chosen = torch.linspace(0, tap.activation.shape[1] - 1, MASKS).round().long().unique()
    channels = tap.activation[:, chosen]
    low, high = (end(axes(channels), keepdim=True) for end in (channels.amin, channels.amax))
    masks = (channels - low) / (high - low).clamp(min=1e-12)
    right, half = (_masked_scores(case, masks, mixed) for mixed in (False, True))
    apart = ((half - right).abs().amax(1) / (right.amax(1) - right.amin(1))).max().item()
    note = f"largest difference {apart:.2g} of the range"
    return Measured(max(map(_out_of_order, half, right)), note)


def _masked_scores(case: Case, masks: Activations, mixed: bool) -> Float[Tensor, "b d"]:
    """The score of each picture under each of its masks, computed in bfloat16 where ``mixed``."""
    segmenter, size = case.run.segmenter, size_of(case.images)
    scores = torch.empty(masks.shape[:2])
    autocast = torch.autocast(case.images.device.type, torch.bfloat16, enabled=mixed)
    with evaluating(segmenter), torch.no_grad(), autocast:
        for index in range(masks.shape[1]):
            cover = interpolated(masks[:, index : index + 1], size)
            logits = segmenter((case.images * cover).to(segmenter.mean))
            scores[:, index] = case.target.score(logits, torch.arange(len(logits)), "mean").cpu()
    return scores


def under_autocast(case: Case) -> Measured:
    """Maps that are asked for under autocast to bfloat16 against those that are not.

    The note tells what they are spared: how HiResCAM computed in bfloat16 ranks pixels.
    """
    if (reason := _no_half(case)) is not None:
        return Measured(None, reason)
    right = case.explain(STEADY)
    with torch.autocast(case.images.device.type, torch.bfloat16):
        found = worst(case.explain(STEADY), right)
    halves, wholes = (_hires_maps(case, mixed) for mixed in (True, False))
    pairs = [
        (half, whole)
        for name in wholes
        for half, whole in zip(halves[name], wholes[name], strict=True)
        if whole.max() > 0
    ]
    if not pairs:
        return found
    agreement = 1 - max(_out_of_order(half, whole) for half, whole in pairs)
    apart = max(((half - whole).abs().max() / whole.max()).item() for half, whole in pairs)
    return found._replace(
        note=f"in bfloat16 itself: rank correlation {agreement:.3f}, difference {apart:.2g}"
    )


def _hires_maps(case: Case, mixed: bool) -> dict[str, Grids]:
    """HiResCAM after its ReLU by layer, computed in bfloat16 where ``mixed``."""
    segmenter = case.run.segmenter
    modules = resolve(segmenter, case.layers)
    with (
        left_as_found(segmenter, case.images),
        torch.autocast(case.images.device.type, torch.bfloat16, enabled=mixed),
        tapped(modules, case.images) as kept,
    ):
        logits = segmenter(case.images.detach().to(segmenter.mean, copy=True))
        score = case.target.score(logits, torch.arange(len(logits)), "sum")
        with recomputed(modules):
            gradients = differentiate(score, dict(kept), case.target)
    return {name: hires_cam(kept[name].detach().float(), gradients[name].float()).relu() for name in modules}


def model_changes(case: Case) -> Measured:
    """How many weights, buffers, flags, gradients and hooks are not what they were before the checks."""
    changed = changes(case.before, Snapshot.of(case.run.segmenter))
    return Measured(float(len(changed)), ", ".join(changed[:3]) + ", ..." * (len(changed) > 3))


def _out_of_order(one: Tensor, other: Tensor) -> float:
    """1 - Spearman's correlation; 0 where both are constant, 1 where one of them is."""
    flat = [bool((values == values.flatten()[0]).all()) for values in (one, other)]
    if any(flat):
        return 0.0 if all(flat) else 1.0
    return 1.0 - float(spearmanr(one.flatten().cpu().numpy(), other.flatten().cpu().numpy()).statistic)


def _no_half(case: Case) -> str | None:
    """Why bfloat16 can't be tried, or None."""
    device = case.images.device.type
    if device == "cuda" and not torch.cuda.is_bf16_supported():
        return "this GPU has no bfloat16"
    if device not in ("cpu", "cuda"):
        return f"bfloat16 is not tried on {device}"
    if case.run.segmenter.dtype != torch.float32:
        return f"the model computes in {case.run.segmenter.dtype}, not in float32"
    return None

"""One pass: activation and gradient of every asked layer, from one forward and one backward pass.

Every gradient CAM is a pure function of the two (see ``cams.py``). The model is left as it was found.
"""

from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seglens.axes import LENGTHS, size_of
from seglens.errors import ModelError, SettingError
from seglens.explain.memory import one_chunk
from seglens.explain.target import Target
from seglens.models.layers import find_layout, resolve
from seglens.models.probing import gradients_of, intercepted, leaf_or_clone, uncompiled
from seglens.models.segmenter import Segmenter
from seglens.runtime.device import is_out_of_memory
from seglens.shapes import Activations, Images, Logits, Scores

_SHOWN = 6


@dataclass(frozen=True, eq=False)
class LayerTap:
    """What one layer put out (``activation``) and how the score depends on it (``gradient``), in float32.

    Both are arranged as maps, whatever the layer's own layout is; prefix tokens are not part of them. They
    were computed in ``dtype``.
    """

    name: str
    activation: Activations
    gradient: Activations
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True, eq=False)
class Trace:
    """The result of one pass for one target. ``score`` is NaN where the target is empty."""

    taps: dict[str, LayerTap]
    score: Scores
    logits: Logits
    input_gradient: Images | None


def trace(
    segmenter: Segmenter,
    images: Images,
    targets: Sequence[Target],
    layers: Sequence[str],
    *,
    input_gradient: bool = False,
) -> tuple[Trace, ...]:
    """Run the model forward once, and backward once for each target.

    The graph begins at the earliest tapped layer (or at the images where ``input_gradient`` is asked for), so
    that is where the backward pass stops; frozen weights and callers under ``no_grad`` make no difference.
    It runs in the model's own precision: autocast around the call is switched off, because gradients in half
    precision rank pixels differently. A model that was compiled runs uncompiled, one in a data-parallel
    wrapper runs in this process on the device of ``images``.

    Returns:
        One `Trace` per target, each with its taps by layer name.

    Raises:
        UnknownNameError: no such layer.
        ModelError: a layer ran twice or not at all, gave something else than one tensor that is a grid over
            the picture (see ``models/layout.py``), or does not influence the score.
    """
    modules = resolve(segmenter, layers)
    with left_as_found(segmenter, images):
        inputs = images.detach().to(segmenter.mean, copy=True).requires_grad_(input_gradient)
        with tapped(modules, images) as activations:
            logits = segmenter(inputs)
        for name in modules:
            if name not in activations:
                raise ModelError(
                    f"Layer {name!r} did not run in the forward pass. Name one that does; 'seglens "
                    "layers' lists them."
                )
        size = size_of(images)
        layouts = {
            name: find_layout(segmenter, name, modules[name], activation.shape, size)
            for name, activation in activations.items()
        }
        wanted = dict(activations) | ({"the input": inputs} if input_gradient else {})
        traces = []
        for position, target in enumerate(targets):
            score = target.score(logits, torch.arange(len(images)), "sum")
            keep = position + 1 < len(targets)
            with recomputed(modules):
                gradients = differentiate(score, wanted, target, keep=keep)
            taps = {
                name: LayerTap(
                    name,
                    layout.to_map(_plain(activations[name])),
                    layout.to_map(_plain(gradients[name])),
                    activations[name].dtype,
                )
                for name, layout in layouts.items()
            }
            of_input = gradients["the input"] if input_gradient else None
            traces.append(Trace(taps, score.detach(), logits.detach(), of_input))
    return tuple(traces)


def differentiate(
    score: Scores, wanted: dict[str, Tensor], target: Target, *, keep: bool = False
) -> dict[str, Tensor]:
    """Return dS/d(each of ``wanted``); ``param.grad`` is not touched. ``keep`` the graph for another target.

    Raises:
        ModelError: one of ``wanted`` does not influence the score.
    """
    if not wanted:
        return {}
    if not score.requires_grad:
        raise ModelError(
            f"Nothing asked for ({', '.join(wanted)}) influences the score of target {target.label!r} in a "
            "way that can be differentiated. Either the model detaches its output, as ONNX networks do, or "
            "these layers serve another output. Methods without gradients: occlusion, superpixel-occlusion, "
            "rise, shapley."
        )
    found = gradients_of(score.sum(), list(wanted.values()), keep=keep)
    gradients = {}
    for name, gradient in zip(wanted, found, strict=True):
        if gradient is None:
            raise ModelError(
                f"Layer {name!r} does not influence the score of target {target.label!r}: its output is "
                "unused or detached. Leave it out; 'seglens layers' lists layers that work."
            )
        gradients[name] = gradient
    return gradients


def _plain(value: Tensor) -> Tensor:
    """Detach, and lift half precision to float32."""
    return value.detach().to(torch.promote_types(value.dtype, torch.float32))


@contextmanager
def tapped(modules: dict[str, nn.Module], images: Images) -> Iterator[dict[str, Tensor]]:
    """Yield a dict that the forward pass on ``images`` fills with the output of each module, as it flows.

    How to arrange an output as a map, `find_layout` tells; gradients are taken of what flows.
    Both what is kept and what flows on are clones: an operation in place after the layer (or before it, on a
    tensor that it merely handed on) would rewrite a stored alias and falsify the map without a word. Hooks of
    the network's own get the clone, too (see `intercepted`).
    """
    kept: dict[str, Tensor] = {}
    num, axes = len(images), images.ndim

    def tap_of(name: str, module: nn.Module) -> Callable[[object], Tensor]:
        def tap(output: object) -> Tensor:
            if name in kept:
                raise ModelError(
                    f"Layer {name!r} ({type(module).__name__}) ran twice in one forward pass, so it has no "
                    "single activation. Name the layer before it or around it."
                )
            if not isinstance(output, Tensor):
                raise ModelError(
                    f"Layer {name!r} ({type(module).__name__}) returned {_count(output)}, not one tensor. "
                    f"{_parts(name, module)}; 'seglens layers' lists what each of them returns."
                )
            if output.ndim not in (3, axes) or len(output) != num or not output.is_floating_point():
                raise ModelError(
                    f"Layer {name!r} ({type(module).__name__}) returned {output.dtype} of shape "
                    f"{tuple(output.shape)}; a map needs floats of shape ({num} pictures, channels, "
                    f"{LENGTHS[axes - 2]}), ({num}, {LENGTHS[axes - 2]}, channels) or ({num}, tokens, "
                    "channels)."
                )
            kept[name] = leaf_or_clone(output)
            return kept[name].clone()

        return tap

    with ExitStack() as stack:
        for name, module in modules.items():
            stack.enter_context(intercepted(module, tap_of(name, module)))
        yield kept


@contextmanager
def recomputed(modules: dict[str, nn.Module]) -> Iterator[None]:
    """Let modules that run again in the backward pass (gradient checkpointing) do what they did when tapped.

    The graph is that of the forward pass; what is computed again must have the same operations.
    """
    with ExitStack() as stack:
        for module in modules.values():
            stack.enter_context(intercepted(module, lambda output: leaf_or_clone(output).clone()))
        yield


def _count(output: object) -> str:
    """Say what a layer returned, where that is not one tensor."""
    if isinstance(output, Sized):
        return f"a {type(output).__name__} of {len(output)}"
    return f"a {type(output).__name__}"


def _parts(name: str, module: nn.Module) -> str:
    """Say what to name instead of a layer that returns several things."""
    inside = []
    for child, part in module.named_children():
        # A list of modules is never called itself.
        listed = part.named_children() if isinstance(part, nn.ModuleList) else ()
        inside += [f"{name}.{child}.{entry}" for entry, _ in listed] or [f"{name}.{child}"]
    if not inside:
        return "It has no parts: name the layer before it"
    shown = ", ".join(inside[-_SHOWN:])
    return f"Name the part that makes the map you mean ({'..., ' if len(inside) > _SHOWN else ''}{shown})"


@contextmanager
def left_as_found(segmenter: nn.Module, images: Images) -> Iterator[None]:
    """Prepare a model for differentiation, and put everything back at the end, on errors too.

    Inside: evaluation mode, frozen weights, gradients on, autocast off, compiled modules run uncompiled,
    data-parallel wrappers passed by, and the RNG forked.
    """
    flags = [(module, module.training) for module in segmenter.modules()]
    frozen = [(parameter, parameter.requires_grad) for parameter in segmenter.parameters()]
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    around = [module for module in segmenter.modules() if isinstance(module, wrappers)]
    devices = [images.device] if images.device.type == "cuda" else []
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(images.device.type, enabled=False),
        uncompiled(),
        torch.random.fork_rng(devices=devices),
    ):
        try:
            # Flags are set one by one: a module's own train() may do more than that.
            for module, _ in flags:
                module.training = False
            for parameter, _ in frozen:
                parameter.requires_grad_(False)
            for wrapper in around:
                vars(wrapper)["forward"] = wrapper.module.__call__
            yield
        finally:
            for wrapper in around:
                del vars(wrapper)["forward"]
            for parameter, asked in frozen:
                parameter.requires_grad_(asked)
            for module, training in flags:
                module.training = training


def in_chunks(total: int, size: int, work: Callable[[slice], None]) -> None:
    """Call ``work`` on slices of at most ``size`` out of ``total``; halve the size when memory runs out."""
    if size < 1:
        raise SettingError(f"The batch size must be at least 1 picture, received {size}.")
    begin = 0
    while begin < total:
        rows = slice(begin, min(begin + size, total))
        num = rows.stop - begin
        try:
            with one_chunk(alone=num == 1):
                work(rows)
        except (RuntimeError, MemoryError) as error:
            if num == 1 or not is_out_of_memory(error):
                raise
            while size >= num:
                size //= 2
            # The next try begins outside of this handler, where the failed one's tensors are freed.
        else:
            begin = rows.stop

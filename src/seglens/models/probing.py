"""The outputs of a network's modules in a forward pass, seen by running it on a noise image."""

import math
import re
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.dropout import _DropoutNd

from seglens.axes import LINEAR, axes, padded_size, size_of
from seglens.errors import ModelError
from seglens.models.adapters.network_files import FileNetwork
from seglens.models.layout import FeatureLayout, Rule, readings
from seglens.models.segmenter import Segmenter, evaluating
from seglens.runtime.device import is_out_of_memory


class NoGradientError(ModelError, RuntimeError):
    """A network's backward pass failed."""


SAME = 1e-3
"""Numbers that agree to this share of the largest are the same, whatever they went through in between."""


@dataclass(frozen=True)
class Call:
    """What a module did in a forward pass.

    ``shape`` is that of its output, ``layouts`` are the ways to read it as a grid; none where it returned
    anything but one tensor. The output is held weakly, so that its memory is freed as always; ``marks`` are
    its first and last cells in each layout, of the encoder's parts only. ``even`` is whether a cell spans as
    many pixels along both axes of a picture, where there is one way to read the grid.
    """

    calls: int
    shape: tuple[int, ...]
    layouts: tuple[FeatureLayout, ...]
    output: "weakref.ReferenceType[Tensor] | None"
    marks: tuple[Tensor, ...]
    passes_on: bool
    even: bool = True

    @property
    def can_be_tapped(self) -> bool:
        """Whether it ran once, did something, and returned a grid: one of the picture's shape.

        Of volumes cells may be thicker along an axis.
        """
        if self.calls != 1 or self.passes_on or len(self.layouts) != 1:
            return False
        grid = self.layouts[0].grid
        return min(grid) > 1 and (len(grid) > 2 or self.even)

    @property
    def rule(self) -> Rule:
        """How the output is read, where there is one way."""
        return self.layouts[0].rule

    @property
    def channels(self) -> int:
        """Channels of the output, where there is one way to read it."""
        return self.layouts[0].channels(self.shape)

    def returned(self, feature: Tensor) -> bool:
        """Whether it returned this very tensor, or one that holds the same numbers in another layout."""
        if self.output is not None and self.output() is feature:
            return True
        if self.passes_on or not feature.numel() or math.prod(self.shape) < feature.numel():
            return False
        return any(torch.equal(mark, _mark(feature)) and bool(mark.any()) for mark in self.marks)


def uncompiled() -> AbstractContextManager[object]:
    """Run compiled modules uncompiled: a hook set after the compilation would be skipped."""
    # Whoever compiled something has imported dynamo; for all others the import would cost seconds.
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


@contextmanager
def intercepted(module: nn.Module, change: Callable[[Any], Any]) -> Iterator[None]:
    """Within, ``module`` returns ``change(output)``, and all that is hooked to it sees no other output.

    Networks that read their own features by forward hooks (backbones of transformers, fastai, timm) keep what
    the hook before theirs returned: behind them, a tap would miss the paths that begin at those features. So
    its forward is replaced, which comes before every hook, whoever sets it, when, and on what.
    """
    own = vars(module)
    found = {"forward": own["forward"]} if "forward" in own else {}
    forward = module.forward

    @wraps(forward)
    def changed(*given: Any, **named: Any) -> Any:
        return change(forward(*given, **named))

    # Fused paths (of nn.TransformerEncoderLayer) go round the parts of a layer unless one of them has a hook.
    handle = module.register_forward_hook(lambda module, given, output: None)
    own["forward"] = changed
    try:
        yield
    finally:
        handle.remove()
        own.pop("forward")
        own.update(found)


def leaf_or_clone(output: Tensor) -> Tensor:
    """Return a copy of ``output`` that has a gradient, in the graph where there is one."""
    copied = output.clone()
    return copied if copied.requires_grad else copied.requires_grad_()


def gradients_of(total: Tensor, wanted: list[Tensor], *, keep: bool = False) -> tuple[Tensor | None, ...]:
    """Return d ``total`` / d each of ``wanted``, None where it has none; ``keep`` the graph for another call.

    Raises:
        ModelError: parts of the network are checkpointed in the way that only serves training.
        NoGradientError: its backward pass fails otherwise, as that of operations that have none.
    """
    try:
        return torch.autograd.grad(total, wanted, retain_graph=keep, allow_unused=True)
    except (RuntimeError, ValueError, TypeError, AssertionError, LookupError, AttributeError) as error:
        if is_out_of_memory(error):
            raise
        if "use_reentrant=True" not in str(error):
            first = str(error).strip().partition("\n")[0].rstrip(".")
            raise NoGradientError(
                f"The network has no gradient, its backward pass fails: {first or type(error).__name__}. "
                "Methods without gradients: occlusion, superpixel-occlusion, rise, shapley."
            ) from error
        raise ModelError(
            "The network computes parts of itself again in the backward pass, by torch.utils.checkpoint with "
            "use_reentrant=True, which has gradients for training only. Switch checkpointing off (it saves "
            "memory in training), or take use_reentrant=False."
        ) from error


@dataclass(frozen=True)
class Observed:
    """What a run showed: calls by path, in the order in which they ended, and how the encoder's stages end.

    ``ends`` are the layers that made what the encoder handed on, ``deepest`` is the grid of the last of it.
    """

    calls: dict[str, Call]
    ends: tuple[str, ...]
    deepest: tuple[int, ...]


def refuse_closed(network: nn.Module) -> None:
    """Refuse a network that is a file with its own code, is quantised, or has such a part.

    Raises:
        ModelError: it is one.
    """
    kinds = (torch.jit.ScriptModule, FileNetwork)
    closed = next(
        (each for each in network.modules() if isinstance(each, kinds) or _is_quantised(each)), None
    )
    if closed is not None:
        kind = closed.kind if isinstance(closed, FileNetwork) else "TorchScript"
        kind = "quantised" if _is_quantised(closed) else kind
        without = kind in ("ONNX", "quantised")
        article, more = (
            "An" if kind == "ONNX" else "A",
            "" if without else ", integrated-gradients, smoothgrad",
        )
        raise ModelError(
            f"{article} {kind} module shows no layers. Wrap the nn.Module that it was made from, or ask for "
            f"methods that need none: occlusion, superpixel-occlusion, rise, shapley{more}."
        )


def _is_quantised(module: nn.Module) -> bool:
    """Whether a module computes in whole numbers, through which no gradient goes."""
    return re.match(r"torch\.ao\.nn\.(intrinsic\.)?quantized\.", type(module).__module__) is not None


def observe(segmenter: Segmenter, encoder: str | None) -> Observed:
    """Run the network on a noise image, and on one of another size where one leaves layouts open.

    Raises:
        ModelError: it can't be run.
    """
    seen, size = _watch(segmenter, probe_size(segmenter), encoder), probe_size(segmenter)
    if any(len(call.layouts) > 1 or len(call.shape) == 3 for call in seen.calls.values()) or mixes_last_axis(
        segmenter.module
    ):
        return replace(seen, calls=_settled(segmenter, seen.calls, size))
    return seen


def _watch(segmenter: Segmenter, size: tuple[int, ...], encoder: str | None = None) -> Observed:
    """Run the network on a picture (or volume) of ``size``."""
    calls, ends, deepest = dict[str, Call](), list[str](), list[int]()

    def note(path: str, module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        before = calls[path].calls if path in calls else 0
        part = encoder is not None and path.startswith(f"{encoder}.")
        calls[path] = _describe(before + 1, module, given, output, size, marked=part)
        if path == encoder:
            # Now, while the encoder's feature maps are alive.
            features = _tensors(output, segmenter.spec.dims + 2)
            inside = [path for path in calls if path.startswith(f"{encoder}.") and not calls[path].passes_on]
            makers = [[path for path in inside if calls[path].returned(feature)] for feature in features]
            ends.extend(paths[-1] for paths in makers if paths)
            deepest.extend(size_of(features[-1]) if features else ())

    handles = [
        module.register_forward_hook(partial(note, path), prepend=True)
        for path, module in segmenter.module.named_modules()
        if path
    ]
    try:
        with uncompiled():
            segmenter.try_out(size)
    finally:
        for handle in handles:
            handle.remove()
    return Observed(calls, tuple(ends), tuple(deepest))


@dataclass(frozen=True)
class Influence:
    """What a backward pass showed of layers: ``left`` by path, and which of them return the logits.

    ``left`` is ``sum_k |sum g_k| / sum |g|``, what is left of the gradient when it is averaged over the grid;
    NaN where the grid is a single cell. Layers without a gradient are not in it.
    """

    left: dict[str, float]
    answers: tuple[str, ...]


SMALL = 128
"""Pixels of the picture that gradients are looked at with, where the network takes it: it costs less."""


def influence(segmenter: Segmenter, calls: Mapping[str, Call]) -> Influence | None:
    """Run the network forward and back, for a score that weighs its logits by noise.

    None where its logits have no gradient at all, or none that can be worked out.

    Raises:
        ModelError: it can't be run so.
    """
    size = probe_size(segmenter)
    divisor = segmenter.spec.divisor
    longest = max(size)  # all sides shrink alike, to whole cells of the divisor
    small = padded_size([max(1, side * min(longest, SMALL) // longest) for side in size], divisor)
    try:
        return _influence(segmenter, calls, small)
    except NoGradientError:
        return None
    except (RuntimeError, ValueError, TypeError, AssertionError, LookupError, ModelError):
        # It takes pictures of one size only, or a grid of one cell is too small for it.
        return _influence(segmenter, calls, size)


def _influence(segmenter: Segmenter, calls: Mapping[str, Call], sides: tuple[int, ...]) -> Influence | None:
    paths = [path for path, call in calls.items() if call.can_be_tapped]
    kept: dict[str, Tensor] = {}

    def tap(path: str, output: Tensor) -> Tensor:
        kept[path] = leaf_or_clone(output)
        return kept[path].clone()

    chance = torch.Generator().manual_seed(0)
    images = torch.rand(1, segmenter.spec.channels, *sides, generator=chance).to(segmenter.device)
    with ExitStack() as stack:
        for context in (torch.inference_mode(False), torch.enable_grad(), uncompiled()):
            stack.enter_context(context)
        stack.enter_context(torch.autocast(segmenter.device.type, enabled=False))
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.enter_context(evaluating(segmenter.module))
        for path in paths:
            stack.enter_context(intercepted(segmenter.module.get_submodule(path), partial(tap, path)))
        logits = segmenter(images)
        if not logits.requires_grad:
            return None
        weights = torch.randn(logits.shape, generator=chance).to(logits)
        first = dict(kept)  # gradient checkpointing runs modules again in the backward pass
        if not first:  # a network of one module: nothing in it can be tapped
            return Influence({}, ())
        found = gradients_of((weights * logits).sum(), list(first.values()))
    left, answers = {}, []
    for (path, value), gradient in zip(first.items(), found, strict=True):
        if gradient is None:
            continue
        layouts = [one for one in readings(tuple(value.shape), sides) if one.rule == calls[path].rule]
        if not layouts:
            left[path] = math.nan
            continue
        maps = layouts[0].to_map(gradient.float())
        share = maps.sum(axes(maps)).abs().sum() / maps.abs().sum()
        left[path] = share.item() if maps[0, 0].numel() > 1 else math.nan
        if _is_answer(layouts[0].to_map(value.detach()), logits.detach()):
            answers.append(path)
    return Influence(left, tuple(answers))


def _is_answer(maps: Tensor, logits: Tensor) -> bool:
    """Whether a layer's output is the logits, perhaps at a resolution from which they are interpolated.

    Over several channels what all of them share makes no difference: a softmax follows.
    """
    if maps.shape[1] != logits.shape[1]:
        return False
    resized = [maps] if maps.shape == logits.shape else []
    if not resized:
        settings: list[dict[str, Any]] = [{"mode": "nearest"}]
        settings += [
            {"mode": mode, "align_corners": aligned}
            for mode in ((LINEAR[logits.ndim - 2], "bicubic") if logits.ndim == 4 else (LINEAR[3],))
            for aligned in (False, True)
        ]
        resized = [functional.interpolate(maps.float(), size_of(logits), **each) for each in settings]
    wanted = logits - logits.mean(1, keepdim=True) if logits.shape[1] > 1 else logits
    for one in resized:
        one = one - one.mean(1, keepdim=True) if logits.shape[1] > 1 else one
        if (one - wanted).abs().max() <= SAME * wanted.abs().max():
            return True
    return False


def _settled(segmenter: Segmenter, calls: dict[str, Call], size: tuple[int, ...]) -> dict[str, Call]:
    """Keep of each call's layouts those whose grid grows with the picture; all where only one size is taken.

    An attention matrix has as many rows and columns as there are tokens, and is no grid though it looks like
    one at one size.
    """
    halved = min(size) >= 128 or segmenter.spec.dims > 2
    scaled_sides = [side // 2 if halved else side * 2 for side in size]
    other = padded_size(scaled_sides, segmenter.spec.divisor)
    mixes = mixes_last_axis(segmenter.module)
    again: Mapping[str, Call] | None = None
    try:
        again = _watch(segmenter, other).calls
    except ModelError:  # it takes images of one size only: what is open stays open
        if mixes:
            return calls
    single = {}
    for path, call in calls.items():
        kept = call.layouts
        if again is not None and path in again:
            scaled = {(one.rule, _strides(one, other)) for one in again[path].layouts}
            kept = tuple(one for one in kept if (one.rule, _strides(one, size)) in scaled)
        if not mixes:
            kept = tuple(one for one in kept if one.kind == "channels first")
        changed = kept != call.layouts
        single[path] = replace(call, layouts=kept, marks=(), even=_even(kept, size)) if changed else call
    return single


def _strides(layout: FeatureLayout, size: tuple[int, ...]) -> tuple[int, ...]:
    """Pixels that a cell spans each way, as powers of two: cells lost at the border make no difference."""
    return tuple(round(math.log2(side / length) * 2) for side, length in zip(size, layout.grid, strict=True))


def mixes_last_axis(network: nn.Module) -> bool:
    """Whether some part of the network works along the last axis; without one, channels come first."""
    return any(isinstance(module, nn.Linear | nn.LayerNorm) for module in network.modules())


def probe_size(segmenter: Segmenter) -> tuple[int, ...]:
    """Return the image size to look at layers with: deep grids of less than 64 pixels are single cells.

    A network that takes its own smaller size only is looked at with that.
    """
    own, divisor = segmenter.spec.sides, segmenter.spec.divisor
    size = tuple(max(side, 64) for side in own)
    if size != own:
        try:
            with uncompiled():
                segmenter.try_out(size)
        except ModelError:
            size = own
    return padded_size(size, divisor)


def _describe(
    calls: int,
    module: nn.Module,
    given: tuple[Any, ...],
    output: Any,
    size: tuple[int, ...],
    *,
    marked: bool,
) -> Call:
    if not isinstance(output, Tensor) or output.ndim not in (3, len(size) + 2) or not output.numel():
        return Call(calls, (), (), None, (), False)
    # An identity, or dropout in evaluation; an activation in place returns what it was given, but changed.
    changed = getattr(module, "inplace", False) and not isinstance(module, _DropoutNd)
    same = any(output is entry for entry in given) and not changed
    shape = tuple(output.shape)
    layouts = readings(shape, size) if len(output) == 1 else ()
    marks = tuple(_mark(layout.to_map(output)) for layout in layouts) if marked else ()
    return Call(calls, shape, layouts, weakref.ref(output), marks, same, _even(layouts, size))


def _even(layouts: tuple[FeatureLayout, ...], size: tuple[int, ...]) -> bool:
    """Whether the grid of an only layout has the shape of the picture: that of a square is one."""
    if len(layouts) != 1:
        return False
    if len(set(size)) == 1:
        return len(set(layouts[0].grid)) == 1
    return len(set(_strides(layouts[0], size))) == 1


def _mark(grid: Tensor) -> Tensor:
    """The channels of a map's first and last cell: enough to know it again in another layout."""
    cells = grid[0].flatten(1)
    return torch.stack([cells[:, 0], cells[:, -1]]).detach()


def _tensors(output: Any, axes: int) -> list[Tensor]:
    """Return the maps that a module handed on, one by one or in lists, tuples or dicts of them."""
    if isinstance(output, Mapping | tuple | list):
        values = output.values() if isinstance(output, Mapping) else output
        return [found for value in values for found in _tensors(value, axes)]
    return [output] if isinstance(output, Tensor) and output.ndim == axes else []

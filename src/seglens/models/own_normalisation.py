"""Mean and std that a network brings along: in its own modules, or beside its weights in a file.

A network that normalises pictures itself must be given them as they are; one whose file says how pictures
were normalised must be given those. ImageNet's mean and std are a guess there, and a wrong one.
"""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils._pytree import tree_leaves

from seglens.errors import CheckpointError, ModelError, SeglensWarning
from seglens.models.adapters.network_files import FileNetwork
from seglens.models.spec import LARGEST

Values = tuple[float, ...]
Normalisation = tuple[Values, Values]

_NAME = re.compile(r"(^|\.)((pixel|image|img|input|norm|data|dataset|rgb|channel|imagenet)_)?mean$")
"""How the mean of pictures is called; that of a normalisation inside of a network is ``running_mean``."""
_DEPTH = 3
_SAME = 1e-2
"""Scales and shifts that agree to this share are the same, in half precision too."""


def check_both(mean: Sequence[float] | None, std: Sequence[float] | None, default: Normalisation) -> None:
    """Raise where one of both is given without the other, and is not that of the ``default`` for both.

    Raises:
        ModelError: the other would be guessed.
    """
    for left_out, given, of_default in (("std", mean, default[0]), ("mean", std, default[1])):
        if (mean is None) != (std is None) and given is not None and tuple(given) != of_default:
            raise ModelError(
                f"Of mean and std, {left_out} is left out and {_short(tuple(given))} is given: nothing says "
                f"which {left_out} belongs to that. Give both, as the network was trained: a mean of 0 and a "
                "std of 1 change nothing."
            )


def refuse_own(module: nn.Module, channels: int) -> None:
    """Raise where ``module`` holds a mean and std for pictures of so many ``channels``.

    Called where nobody gave any: it might be given pictures that are normalised twice.

    Raises:
        ModelError: it does; they are named.
    """
    for path, each in _objects(module):
        for name, (mean, std) in _pairs(each, channels):
            if any(mean) or set(std) != {1.0}:
                raise ModelError(
                    f"The network has a mean and std of its own ({path}{name}: {_short(mean)} and "
                    f"{_short(std)}), and none are given. Give mean=(0,)*{channels} and std=(1,)*{channels} "
                    "where the network normalises pictures itself, else those that it was trained with."
                )


@contextmanager
def first_inputs(network: nn.Module) -> Iterator[list[Tensor]]:
    """Note what ``network`` is given within, and then what its first part with weights is given.

    As copies, since a network may change its pictures in place.
    """
    seen = list[Tensor]()

    def note(module: nn.Module, given: tuple[Any, ...]) -> None:
        weighted = next(module.parameters(recurse=False), None) is not None
        if (not seen and module is network) or (len(seen) == 1 and module is not network and weighted):
            tensors = (each.detach().clone() for each in tree_leaves(given) if isinstance(each, Tensor))
            seen.append(next(tensors, torch.empty(0)))

    handle = register_module_forward_pre_hook(note)
    try:
        yield seen
    finally:
        handle.remove()


def refuse_inside(
    network: nn.Module, inputs: Sequence[Sequence[Tensor]], given: Normalisation | None
) -> None:
    """Raise where ``network`` scales and shifts all pictures alike before its first part with weights.

    ``inputs`` are the `first_inputs` of two pictures that differ in contrast. A network that standardises
    each picture by itself is right with any mean and std, and what else is done to pictures (padding,
    patches) says nothing. Where somebody gave mean and std, a second normalisation is warned of.

    Raises:
        ModelError: it does; or no part of it is seen, as of a file with its own code.
    """
    weights, own = (next(network.parameters(recurse=each), None) is not None for each in (True, False))
    hidden = isinstance(network, FileNetwork) or (weights and not own)
    if given is None and hidden and len(inputs[0]) < 2:
        kind = network.kind if isinstance(network, FileNetwork) else type(network).__name__
        raise ModelError(
            f"The network ({kind}) doesn't show its parts, so whether it normalises pictures itself isn't "
            "known, and no mean and std are given. Give a mean of 0 and a std of 1 for each channel where it "
            "does, else those that it was trained with."
        )
    first, second = (_mapping(*each) if len(each) > 1 else None for each in inputs)
    if first is None or second is None or not torch.allclose(first, second, rtol=_SAME, atol=_SAME):
        return
    scales, shifts = (tuple(round(each, 6) + 0.0 for each in values.tolist()) for values in first)
    if all(abs(scale - 1) <= _SAME for scale in scales) and all(abs(shift) <= _SAME for shift in shifts):
        return
    found = (
        f"The network multiplies the channels of each picture by {_short(scales)} and adds {_short(shifts)} "
        "before its first layer, as a normalisation does."
    )
    plain = f"mean=(0,)*{len(scales)} and std=(1,)*{len(scales)}"
    if given is None:
        raise ModelError(
            f"{found} No mean and std are given. Give {plain} where the network normalises pictures in "
            "[0, 1] itself, else those that it was trained with."
        )
    if any(given[0]) or set(given[1]) != {1.0}:
        warnings.warn(
            f"{found} Before that, the mean and std that are given are used ({_short(given[0])} and "
            f"{_short(given[1])}). If pictures are normalised twice so, give {plain}.",
            SeglensWarning,
            stacklevel=3,
        )


def _mapping(given: Tensor, reached: Tensor) -> Tensor | None:
    """Return by what each channel that is reached was multiplied, and what was added ``[2, c]``.

    Found by least squares; channels may have changed places. None where something else was done.
    """
    if given.shape != reached.shape or given.ndim < 4 or not bool((given + reached).isfinite().all()):
        return None
    before, after = (each.double().transpose(0, 1).flatten(1).T for each in (given, reached))
    middle = before.mean(0)
    weights = torch.linalg.lstsq(before - middle, after - after.mean(0)).solution
    scales = weights.gather(0, weights.abs().argmax(0, keepdim=True))[0]
    alone = weights.abs().amax(0) >= (1 - _SAME) * weights.abs().sum(0)
    shifts = after.mean(0) - middle @ weights
    apart = (before @ weights + shifts - after).abs().max()
    fits = bool(alone.all()) and bool(apart <= _SAME * after.abs().max())
    return torch.stack([scales, shifts]) if fits else None


def stored_beside(content: Any, channels: int, *, several: bool = False) -> tuple[Normalisation, ...]:
    """Return mean and std for pictures in [0, 1] that a file holds beside its weights, of which there is one.

    They stand among the tensors, or in what a training script kept (``hyper_parameters``). Those of pictures
    of 0 to 255 are divided by 255.

    Raises:
        CheckpointError: there are ``several`` that differ, and that is not allowed.
    """
    found = dict[Normalisation, str]()
    for place, held in _mappings(content):
        for name, (mean, std) in _pairs(held, channels):
            scale = 255.0 if max(*mean, *std) > LARGEST else 1.0
            of_unit = [tuple(round(each / scale, 6) for each in values) for values in (mean, std)]
            found.setdefault((of_unit[0], of_unit[1]), f"{place}{name}")
    if len(found) > 1 and not several:
        raise CheckpointError(
            f"The file holds {len(found)} pairs of mean and std that differ: {', '.join(found.values())}. "
            "Say which: give mean and std."
        )
    return tuple(found)


def _objects(module: nn.Module) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Return what every part of a network holds by name, with that of transforms in lists."""
    for path, each in module.named_modules():
        tensors = {**dict(each.named_parameters(recurse=False)), **dict(each.named_buffers(recurse=False))}
        yield f"{path}.".lstrip("."), {**vars(each), **tensors}
        for step in getattr(each, "transforms", None) or ():  # those of torchvision's Compose are no modules
            yield f"{path}.{type(step).__name__}.", getattr(step, "__dict__", {})


def _mappings(content: Any, place: str = "", depth: int = 0) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(content, Mapping) and depth <= _DEPTH:
        yield place, content
        for name, value in content.items():
            yield from _mappings(value, f"{place}{name}.", depth + 1)


def _pairs(held: Mapping[Any, Any], channels: int) -> Iterator[tuple[str, Normalisation]]:
    """Return what is called mean and, beside it, std, with a number for each channel."""
    for name in filter(_NAME.search, map(str, held)):
        values = [_numbers(held.get(each), channels) for each in (name, f"{name[:-4]}std")]
        if all(values) and min(values[1]) > 0:
            yield name, (values[0], values[1])


def _numbers(value: Any, channels: int) -> Values:
    """Return a number for each channel, of a tensor or list of so many or of one; nothing of others."""
    if isinstance(value, list | tuple) and value and all(isinstance(each, int | float) for each in value):
        value = torch.tensor(value, dtype=torch.float64)
    if not isinstance(value, Tensor) or not value.ndim or value.numel() not in (1, channels):
        return ()
    numbers = value.detach().double().flatten().expand(channels)
    return tuple(round(each, 6) for each in numbers.tolist()) if bool(numbers.isfinite().all()) else ()


def _short(values: Values) -> str:
    return ", ".join(f"{each:.4g}" for each in values)

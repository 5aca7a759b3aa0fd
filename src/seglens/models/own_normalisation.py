"""Mean and std that a network brings along: in its own modules, or beside its weights in a file.

A network that normalises pictures itself must be given them as they are; one whose file says how pictures
were normalised must be given those. ImageNet's mean and std are a guess there, and a wrong one.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from seglens.errors import CheckpointError, ModelError
from seglens.models.spec import LARGEST

Values = tuple[float, ...]
Normalisation = tuple[Values, Values]

_NAME = re.compile(r"(^|\.)((pixel|image|img|input|norm|data|dataset|rgb|channel|imagenet)_)?mean$")
"""How the mean of pictures is called; that of a normalisation inside of a network is ``running_mean``."""
_DEPTH = 3


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

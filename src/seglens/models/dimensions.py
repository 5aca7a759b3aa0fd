"""Whether a network is for pictures, for volumes or for signals: told from its layers, and by trying it.

A layer for volumes reads a batch of pictures as one volume whose slices are the channels (PyTorch takes
inputs without a batch), and its answer then looks like masks of several pictures.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.utils._pytree import tree_leaves

from seglens.errors import CheckpointError, ModelError

AXES = {"1d": 1, "2d": 2, "3d": 3}
"""Axes of the grid that a layer works on, by how the names of PyTorch's layers end."""

FOR = {1: "signals", 2: "pictures", 3: "volumes"}


def axes_of(layer: nn.Module) -> int | None:
    """Return how many axes a layer of PyTorch's, or one derived of it, slides over; None where it doesn't."""
    if isinstance(layer, _DropoutNd):  # drops channels of whatever it gets: MONAI's VNet has it in 2-D, too
        return None
    own = (kind.__name__ for kind in type(layer).__mro__ if kind.__module__.startswith("torch.nn."))
    return next((AXES[name[-2:]] for name in own if name[-2:] in AXES), None)


def candidates(module: nn.Module) -> tuple[int, ...]:
    """Return the numbers of spatial axes to try a network with, the likeliest first.

    One with layers for volumes and none for pictures is for volumes, unless it brings pictures into their
    form itself; one without either, or with both, is rather for pictures.
    """
    kinds = {axes_of(layer) for layer in module.modules()}
    if 3 not in kinds:
        return (2,)
    return (2, 3) if 2 in kinds else (3, 2)


@contextmanager
def fitting_layers(module: nn.Module, dims: int) -> Iterator[None]:
    """Raise where, within, a layer for volumes or signals is given pictures, or one for pictures volumes.

    A network for pictures (2 ``dims``) may hold layers of other kinds, and bring what they get into their
    form; so may one for volumes (3).

    Raises:
        ModelError: it is; the layer is named.
    """

    def check(name: str, layer: nn.Module, given: tuple[Any, ...]) -> None:
        axes, value = axes_of(layer), given[0] if given else None
        # Normalisation in 1-D takes (b, channels), too; in 3-D each layer is given a batch of volumes.
        if isinstance(value, Tensor) and axes is not None and value.ndim == dims + 2:
            raise _other(axes, name, layer, dims)

    with ExitStack() as stack:
        for name, layer in module.named_modules():
            if axes_of(layer) not in (None, dims):
                stack.callback(layer.register_forward_pre_hook(partial(check, name)).remove)
        yield


def check_dimensions(module: nn.Module, dims: int, output: Any = None) -> None:
    """Raise where a network returned volumes for pictures, or has failed (no ``output``) and is for others.

    Raises:
        ModelError: it has no layer for inputs of so many ``dims`` but others, or what it returned has another
            axis.
    """
    if output is not None:
        shapes = {value.ndim for value in tree_leaves(output) if isinstance(value, Tensor)}
        flat = any(axes_of(layer) == 2 for layer in module.modules())  # its heads are stacked: [b n k h w]
        if dims == 2 and 5 in shapes and 4 not in shapes and not flat:
            raise ModelError(
                "The network returns volumes (an output of 5 axes: batch, outputs, slices, rows, columns) "
                "for pictures; wrap a 2-D network, or one that takes volumes."
            )
        return
    kinds = {axes_of(layer): (name, layer) for name, layer in module.named_modules()}
    for axes in (3, 2, 1):
        if axes in kinds and dims not in kinds:
            raise _other(axes, *kinds[axes], dims)


def check_weights(state: Mapping[str, Tensor]) -> None:
    """Raise where the convolutions of a state dict are all 3-D, or all 1-D.

    Raises:
        CheckpointError: they are.
    """
    sizes = {value.ndim: name for name, value in reversed(list(state.items())) if name.endswith("weight")}
    for axes in (3, 1):
        if axes + 2 in sizes and 4 not in sizes:
            name = sizes[axes + 2]
            raise CheckpointError(
                f"The weights are of a {axes}-D network, for {FOR[axes]}: {name} has shape "
                f"{tuple(state[name].shape)}, and none is a 2-D convolution. Seglens builds networks for "
                "pictures: adopt the weights of a 2-D network, or wrap your own module (seglens.wrap)."
            )


def _other(axes: int, name: str, layer: nn.Module, dims: int) -> ModelError:
    todo = f"wrap it with dims={axes}, or a {dims}-D network (Conv{dims}d, spatial_dims={dims} in MONAI)"
    if axes == 1:
        todo = "Seglens works on pictures and volumes: wrap a 2-D network (Conv2d) or a 3-D one"
    return ModelError(
        f"The network is {axes}-D, for {FOR[axes]}: its layer {name or 'itself'!r} is a "
        f"{type(layer).__name__}, and it was given {FOR[dims]}. {todo[0].upper()}{todo[1:]}."
    )

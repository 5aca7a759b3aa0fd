"""Networks for volumes or for signals, which take no pictures: told from the layers that they are made of.

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

FOR = {1: "signals", 3: "volumes"}


def axes_of(layer: nn.Module) -> int | None:
    """Return how many axes a layer of PyTorch's, or one derived of it, slides over; None where it doesn't."""
    if isinstance(layer, _DropoutNd):  # drops channels of whatever it gets: MONAI's VNet has it in 2-D, too
        return None
    own = (kind.__name__ for kind in type(layer).__mro__ if kind.__module__.startswith("torch.nn."))
    return next((AXES[name[-2:]] for name in own if name[-2:] in AXES), None)


@contextmanager
def flat_layers(module: nn.Module) -> Iterator[None]:
    """Raise where, within, a layer for volumes or signals is given pictures.

    A network for pictures may hold such layers, and bring what they get into their form.

    Raises:
        ModelError: it is; the layer is named.
    """

    def check(name: str, layer: nn.Module, given: tuple[Any, ...]) -> None:
        axes, value = axes_of(layer), given[0] if given else None
        # Normalisation in 1-D takes (b, channels), too; in 3-D each layer is given a batch of volumes.
        if isinstance(value, Tensor) and axes in FOR and value.ndim == 4:
            raise _other(axes, name, layer)

    with ExitStack() as stack:
        for name, layer in module.named_modules():
            if axes_of(layer) in FOR:
                stack.callback(layer.register_forward_pre_hook(partial(check, name)).remove)
        yield


def check_dimensions(module: nn.Module, output: Any = None) -> None:
    """Raise where a network returned volumes, or has failed (no ``output``) and is not for pictures.

    Raises:
        ModelError: all its layers are for volumes or for signals, or what it returned has another axis.
    """
    if output is not None:
        shapes = {value.ndim for value in tree_leaves(output) if isinstance(value, Tensor)}
        if 5 in shapes and 4 not in shapes:
            raise ModelError(
                "The network returns volumes (an output of 5 axes: batch, outputs, slices, rows, columns); "
                "Seglens works on pictures: wrap a 2-D network."
            )
        return
    kinds = {axes_of(layer): (name, layer) for name, layer in module.named_modules()}
    for axes in (3, 1):
        if axes in kinds and 2 not in kinds:
            raise _other(axes, *kinds[axes])


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
                f"{tuple(state[name].shape)}, and none is a 2-D convolution. Seglens works on pictures: "
                "adopt the weights of a 2-D network."
            )


def _other(axes: int, name: str, layer: nn.Module) -> ModelError:
    settings = ", spatial_dims=2 in MONAI" if axes == 3 else ""
    return ModelError(
        f"The network is {axes}-D, for {FOR[axes]}: its layer {name or 'itself'!r} is a "
        f"{type(layer).__name__}. Seglens works on pictures: wrap a 2-D network "
        f"(Conv2d{settings})."
    )

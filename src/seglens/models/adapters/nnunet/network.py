"""The networks of nnU-Net's plans, through dynamic-network-architectures.

A network of the configuration ``2d`` sees the slices of a volume one by one. Here it is laid along the
slices: each kernel is one slice thick, and each normalisation takes each slice by itself, which is the same
function, so that volumes go through it whole and each layer has a map of the volume.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import Tensor, nn

from seglens.errors import ModelError
from seglens.models.weights import State

CLASSES = tuple(
    f"dynamic_network_architectures.architectures.{name}"
    for name in ("unet.PlainConvUNet", "unet.ResidualEncoderUNet", "unet.ResidualUNet")
)
"""The networks that plans may name. Their parts may come from torch.nn alone: plans are no place for code."""
_PART = re.compile(r"torch\.nn\.(modules\.\w+\.)?[A-Z]\w*")


def build_network(architecture: Mapping[str, Any], channels: int, outputs: int) -> nn.Module:
    """Return the network of a plan's ``architecture``, with random weights and one output.

    Raises:
        ModelError: it is none that is known here, or can't be built.
    """
    name = str(architecture.get("network_class_name"))
    if name not in CLASSES:
        raise ModelError(
            f"The plans name the network {name}, which is not known here. Allowed: {', '.join(CLASSES)}. "
            "Any other: build it in Python and give it to seglens.wrap, with volumes that nnU-Net prepared."
        )
    given, imported = dict(architecture["arch_kwargs"]), list(architecture["_kw_requires_import"])
    for key in imported:
        if given.get(key) is not None and not _PART.fullmatch(str(given[key])):
            raise ModelError(
                f"The plans take {key} from {given[key]}; allowed are modules of torch.nn. Plans that "
                "nnUNetv2_plan_experiment wrote have no others."
            )
    try:
        network: nn.Module = get_network_from_plans(
            name, given, imported, channels, outputs, allow_init=False, deep_supervision=False
        )
    except (
        AttributeError,
        AssertionError,
        ImportError,
        KeyError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise ModelError(
            f"The network {name} of the plans can't be built: {type(error).__name__}: {error}. Use the "
            "version of dynamic-network-architectures that it was trained with."
        ) from error
    return network.eval()


class SliceNorm(nn.Module):
    """Instance normalisation of every slice by itself."""

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    eps: float

    def __init__(self, like: nn.InstanceNorm2d) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = like.weight, like.bias, like.eps

    def reset_parameters(self) -> None:
        """Scale by 1 and shift by 0, as before any training."""
        for values, first in ((self.weight, 1.0), (self.bias, 0.0)):
            if values is not None:
                nn.init.constant_(values, first)

    def forward(self, values: Tensor) -> Tensor:
        """Normalise ``[b d slices rows columns]``."""
        slices = values.transpose(1, 2).flatten(0, 1)
        done = F.instance_norm(slices, weight=self.weight, bias=self.bias, eps=self.eps)
        return done.unflatten(0, (len(values), -1)).transpose(1, 2)


def along_slices(network: nn.Module) -> nn.Module:
    """Return a network of pictures as one of volumes that does to each slice what it did to a picture.

    The network itself is used up.

    Raises:
        ModelError: it has a part for which there is no such part.
    """
    made: dict[int, nn.Module] = {}
    for parent in list(network.modules()):
        for name, part in parent.named_children():
            kind = type(part)
            if kind not in _THICK and not _is_pointwise(part):
                if list(part.children()):
                    continue
                raise ModelError(
                    f"The network's {kind.__name__} has no part that does the same to each slice of a "
                    "volume. Allowed: convolutions, pooling, batch and instance normalisation, "
                    "activations, dropout."
                )
            if kind in _THICK:
                if id(part) not in made:
                    made[id(part)] = _THICK[kind](part)
                setattr(parent, name, made[id(part)])
    return network


def thick(state: State, wanted: State) -> State:
    """Return the tensors of a network of pictures as those of `along_slices`: kernels get an axis."""
    return {
        name: value[:, :, None] if value.ndim == 4 and name in wanted and wanted[name].ndim == 5 else value
        for name, value in state.items()
    }


def flat(state: State) -> State:
    """Undo `thick`."""
    return {name: value[:, :, 0] if value.ndim == 5 else value for name, value in state.items()}


def _one_before(sides: Any, first: int) -> tuple[int, int, int]:
    rows, columns = (sides, sides) if isinstance(sides, int) else sides
    return first, rows, columns


def _thick_conv(part: nn.Module) -> nn.Module:
    assert isinstance(part, nn.Conv2d | nn.ConvTranspose2d)
    settings: dict[str, Any] = {
        "stride": _one_before(part.stride, 1),
        "padding": _one_before(part.padding, 0),
        "dilation": _one_before(part.dilation, 1),
        "groups": part.groups,
        "bias": part.bias is not None,
    }
    kind: type[nn.Module] = nn.Conv3d
    if isinstance(part, nn.ConvTranspose2d):
        kind, settings["output_padding"] = nn.ConvTranspose3d, _one_before(part.output_padding, 0)
    made = kind(part.in_channels, part.out_channels, _one_before(part.kernel_size, 1), **settings)
    made.load_state_dict(thick(part.state_dict(), made.state_dict()))
    return made


def _thick_batch_norm(part: nn.Module) -> nn.Module:
    assert isinstance(part, nn.BatchNorm2d)
    made = nn.BatchNorm3d(part.num_features, part.eps, part.momentum, part.affine, part.track_running_stats)
    made.load_state_dict(part.state_dict())
    return made


def _thick_pool(part: nn.Module) -> nn.Module:
    assert isinstance(part, nn.AvgPool2d | nn.MaxPool2d)
    size, stride = _one_before(part.kernel_size, 1), _one_before(part.stride, 1)
    padding = _one_before(part.padding, 0)
    if isinstance(part, nn.MaxPool2d):
        return nn.MaxPool3d(size, stride, padding)
    return nn.AvgPool3d(size, stride, padding, part.ceil_mode, part.count_include_pad)


def _slice_norm(part: nn.Module) -> nn.Module:
    assert isinstance(part, nn.InstanceNorm2d)
    if part.track_running_stats:
        raise ModelError("The network's InstanceNorm2d keeps running statistics, which is not known here.")
    return SliceNorm(part)


def _is_pointwise(part: nn.Module) -> bool:
    kinds = (nn.Identity, nn.modules.dropout._DropoutNd)
    return type(part).__module__ == "torch.nn.modules.activation" or isinstance(part, kinds)


_THICK: dict[type[nn.Module], Any] = {
    nn.Conv2d: _thick_conv,
    nn.ConvTranspose2d: _thick_conv,
    nn.BatchNorm2d: _thick_batch_norm,
    nn.InstanceNorm2d: _slice_norm,
    nn.AvgPool2d: _thick_pool,
    nn.MaxPool2d: _thick_pool,
}
"""What makes each part of a network of pictures one of volumes."""

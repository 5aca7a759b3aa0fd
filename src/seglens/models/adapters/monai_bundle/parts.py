"""The parts of MONAI that a bundle may name: networks, transforms and inferers, each with its arguments.

Whatever is not in these lists is refused by name: a name may stand for any code (readers of pickles, networks
that fetch weights, functions), and a transform that is random or not known leads to other masks.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import monai
import numpy as np
import torch
from monai import inferers, transforms
from monai.networks import nets
from torch import nn

from seglens.errors import ModelError
from seglens.models.adapters.monai_bundle.config import TARGET

NETWORKS = (
    "AHNet",
    "AttentionUnet",
    "BasicUNet",
    "BasicUNetPlusPlus",
    "DynUNet",
    "FlexibleUNet",
    "HighResNet",
    "MedNeXt",
    "RegUNet",
    "SegResNet",
    "SegResNetDS",
    "SegResNetVAE",
    "SwinUNETR",
    "UNETR",
    "UNet",
    "VNet",
)
READERS = ("NibabelReader", "ITKReader", "PILReader", "NrrdReader")
"""Those whose files hold numbers alone: NumpyReader runs pickles."""

_META = ("meta_keys", "meta_key_postfix", "allow_missing_keys", "overwriting")
_TYPES = ("dtype", "data_type", "track_meta", "wrap_sequence", "drop_meta", "output_type")
_PAD = ("mode", "method", "value", "constant_values")
INTENSITIES: dict[str, tuple[str, ...]] = {
    "NormalizeIntensityd": ("subtrahend", "divisor", "nonzero", "channel_wise", "dtype"),
    "ScaleIntensityd": ("minv", "maxv", "channel_wise", "dtype"),
    "ScaleIntensityRanged": ("a_min", "a_max", "b_min", "b_max", "clip", "dtype"),
    "ScaleIntensityRangePercentilesd": (
        "lower",
        "upper",
        "b_min",
        "b_max",
        "clip",
        "relative",
        "channel_wise",
        "dtype",
    ),
    "ThresholdIntensityd": ("threshold", "above", "cval"),
}
MOVING: dict[str, tuple[str, ...]] = {
    "BorderPadd": ("spatial_border", *_PAD),
    "CenterSpatialCropd": ("roi_size",),
    "CropForegroundd": (
        "source_key",
        "channel_indices",
        "margin",
        "allow_smaller",
        "k_divisible",
        "start_coord_key",
        "end_coord_key",
        *_PAD,
    ),
    "DivisiblePadd": ("k", *_PAD),
    "Flipd": ("spatial_axis",),
    "Orientationd": ("axcodes", "as_closest_canonical"),
    "ResizeWithPadOrCropd": ("spatial_size", *_PAD),
    "Resized": (
        "spatial_size",
        "size_mode",
        "mode",
        "align_corners",
        "anti_aliasing",
        "anti_aliasing_sigma",
        "dtype",
    ),
    "Spacingd": (
        "pixdim",
        "mode",
        "padding_mode",
        "align_corners",
        "dtype",
        "scale_extent",
        "min_pixdim",
        "max_pixdim",
    ),
    "SpatialPadd": ("spatial_size", *_PAD),
}
"""Those after which a voxel is somewhere else in the array. They write into its affine where."""
PREPARING: dict[str, tuple[str, ...]] = {
    "LoadImaged": ("reader", "dtype", "image_only", "ensure_channel_first", "simple_keys", *_META),
    "EnsureChannelFirstd": ("channel_dim", "strict_check", *_META),
    "EnsureTyped": _TYPES,
    "CastToTyped": _TYPES,
    "ToTensord": _TYPES,
    "Identityd": (),
    **INTENSITIES,
    **MOVING,
}
"""Transforms before the network: all are deterministic. To add one: one line, with the arguments known."""
FINISHING: dict[str, tuple[str, ...]] = {
    "Activationsd": ("softmax", "sigmoid"),
    "AsDiscreted": ("argmax", "to_onehot", "threshold"),
    "EnsureTyped": _TYPES,
    "Invertd": (
        "orig_keys",
        "orig_meta_keys",
        "nearest_interp",
        "to_tensor",
        *_META,
    ),
    "ToTensord": _TYPES,
}
"""Transforms after it."""
WITHOUT_EFFECT = ("ToDeviced", "SaveImaged", "DeleteItemsd", "SelectItemsd")
"""Transforms that leave the numbers alone: they are left out."""
INFERERS: dict[str, tuple[str, ...]] = {
    "SimpleInferer": (),
    "SlidingWindowInferer": (
        "roi_size",
        "sw_batch_size",
        "overlap",
        "mode",
        "sigma_scale",
        "padding_mode",
        "cval",
    ),
}


def name_of(part: Any, where: str, allowed: Collection[str]) -> str:
    """Return the short name of a component, which must be one of MONAI's that is ``allowed``.

    Raises:
        ModelError: it is no component, or another one.
    """
    given = part.get(TARGET) if isinstance(part, Mapping) else None
    if not isinstance(given, str):
        raise ModelError(
            f"The bundle's {where} is no component with {TARGET}, received {str(part)[:60]!r}. Allowed: "
            f"{', '.join(sorted(allowed))}."
        )
    path, _, name = given.rpartition(".")
    ending = next((end for end in ("Dict", "D") if name.endswith(end)), None)
    short = f"{name.removesuffix(ending)}d" if ending else name  # MONAI has three names for each
    if short not in allowed or (path and not path.startswith(("monai.transforms", "monai.inferers"))):
        raise ModelError(
            f"The bundle's {where} names {given}, which is not known here, and code that is not known is not "
            f"run. Allowed, of MONAI: {', '.join(sorted(allowed))}. Replace it in the configuration, or "
            "build the network in Python and give it to seglens.wrap."
        )
    return short


def checked(part: Any, where: str, known: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """Return a component with its short name and the arguments that count, all of them known.

    Raises:
        ModelError: it, or one of its arguments, is not known.
    """
    name = name_of(part, where, known)
    given = {key: value for key, value in part.items() if key != TARGET}
    if name.endswith("d"):
        given.setdefault("keys", "image")
    wrong = [key for key in given if key not in (*known[name], "keys", "lazy")]
    if given.get("lazy") or wrong:
        key = "lazy" if given.get("lazy") else wrong[0]
        raise ModelError(
            f"The bundle's {where} gives {name} the argument {key} = {given[key]!r}, which is not known "
            f"here. Allowed: {', '.join(known[name]) or 'none'}."
        )
    reader = given.get("reader")
    if reader is not None and str(reader).rpartition(".")[2] not in READERS:
        raise ModelError(
            f"The bundle's {where} reads files with {reader!r}; allowed are {', '.join(READERS)}, whose "
            "files hold numbers alone."
        )
    if reader is not None:
        given["reader"] = str(reader).rpartition(".")[2]
    if given.get("track_meta") is False or given.get("drop_meta"):
        raise ModelError(
            f"The bundle's {where} drops what is known of the places of voxels (track_meta, drop_meta), so "
            "that masks can't be brought back to the file. Leave that argument out."
        )
    return {TARGET: name, **given}


def make(part: Mapping[str, Any], **more: Any) -> Any:
    """Return the transform or inferer of a component that was `checked`.

    Raises:
        ModelError: MONAI can't make it.
    """
    name = part[TARGET]
    kind: Callable[..., Any] = getattr(inferers if name in INFERERS else transforms, name)
    given = {key: _typed(value) for key, value in part.items() if key not in (TARGET, "lazy")}
    if name in INFERERS:
        given.pop("keys", None)
    return _made(name, kind, {**given, **more})


def network_of(part: Any) -> tuple[str, dict[str, Any]]:
    """Return the name of the network in a component, and its arguments.

    Weights of the backbone are never fetched: those of the bundle come into all of it.

    Raises:
        ModelError: it is none of `NETWORKS`.
    """
    aliases = {
        alias: name
        for name in NETWORKS
        for alias in vars(nets)
        if getattr(nets, alias) is getattr(nets, name) and isinstance(getattr(nets, alias), type)
    }
    given = part.get(TARGET) if isinstance(part, Mapping) else None
    path, _, last = str(given).rpartition(".")
    if last not in aliases or (path and not path.startswith("monai.networks.nets")):
        raise ModelError(
            f"The bundle's network is {given!r}, which is not known here, and code that is not known is not "
            f"run. Allowed, of monai.networks.nets: {', '.join(NETWORKS)}. Build any other in Python and "
            "give it to seglens.wrap."
        )
    arguments = {key: value for key, value in part.items() if key != TARGET}
    if arguments.get("pretrained"):
        arguments["pretrained"] = False
    return aliases[last], arguments


def build_network(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Return a network of `NETWORKS` with random weights.

    Raises:
        ModelError: it is none of them, or MONAI can't build it.
    """
    known, given = network_of({TARGET: name, **arguments})
    network: nn.Module = _made(known, getattr(nets, known), given)
    return network.eval()


def _made(name: str, kind: Callable[..., Any], given: Mapping[str, Any]) -> Any:
    try:
        return kind(**given)
    except Exception as error:  # MONAI raises errors of many kinds, and some that have no text.
        first = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ModelError(
            f"MONAI {monai.__version__} can't make the bundle's {name}: {first}. Use the version that its "
            "metadata.json names (monai_version), or correct the configuration."
        ) from error


def _typed(value: Any) -> Any:
    """Return a value with types of numbers in place of their names, such as ``$torch.float32``."""
    if isinstance(value, str) and value.startswith("$"):
        library, _, name = value[1:].partition(".")
        return getattr(torch if library == "torch" else np, name)
    return [_typed(each) for each in value] if isinstance(value, list) else value

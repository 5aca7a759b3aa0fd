"""The networks that can be named.

To add a network, write one function and give it one line in ``MODELS`` at the foot.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seglens.arguments.byte_sizes import say_bytes
from seglens.errors import ModelError, SettingError, unknown_name
from seglens.models.encoders import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ask_hub,
    load_encoder,
    pretrained_normalisation,
    quiet,
    resolve_encoder,
)
from seglens.models.unet import UNet
from seglens.runtime.device import free_bytes


@dataclass(frozen=True)
class Parts:
    """What a network is made of; ``pretrained`` asks the hub for the encoder's ImageNet weights."""

    encoder: str
    pretrained: bool
    channels: int
    outputs: int
    width: int
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Architecture:
    """One line of ``MODELS``: the function, its default encoder or width, and what image sizes divide by.

    It is for pictures, or with 3 ``dims`` for volumes; ``image_size`` is what it is trained at where nobody
    says otherwise.

    ``elsewhere`` is what the library that it comes from calls it, ``constructor`` gives what makes it there,
    whose arguments are the options that can be set beside ``OURS``; ``fixed`` are those that are set already.
    """

    make: Callable[[Parts], nn.Module]
    divisor: int
    encoder: str | None = None
    width: int | None = None
    dims: int = 2
    image_size: int = 256
    elsewhere: str | None = None
    constructor: Callable[[], Callable[..., nn.Module]] | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)


def architecture(name: str) -> Architecture:
    """Return the line of ``MODELS`` called ``name``.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in MODELS:
        meant = next((ours for ours, entry in MODELS.items() if entry.elsewhere == name), None)
        raise unknown_name("model", name, MODELS, meant)
    return MODELS[name]


def build(
    name: str,
    *,
    encoder: str | None = None,
    encoder_weights: str | None = None,
    channels: int = 3,
    outputs: int = 1,
    width: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> tuple[nn.Module, str]:
    """Make the network called ``name``, and say in a phrase where its first weights come from.

    ``encoder`` and ``width`` left out are the network's own defaults.

    Args:
        name: a key of ``MODELS``.
        encoder: a name of segmentation-models-pytorch or timm, for networks that have an encoder.
        encoder_weights: ``imagenet`` (from a hub), a file (see ``load_encoder``), or ``none``.
        channels: channels of the images.
        outputs: 1 for a sigmoid head, else the number of classes.
        width: channels of the first block, for networks that have no encoder.
        options: other arguments of the network, as its library calls them; see `seglens.models.options`.

    Raises:
        UnknownNameError: no such model or encoder, with the nearest name.
        SettingError: the model takes no encoder, or no width.
        ModelError: the encoder can't serve this model, or its weights can't be had.
        CheckpointError: the weights file doesn't fit.
    """
    chosen = architecture(name)
    encoder_weights = encoder_weights or "none"
    if chosen.encoder is None:
        if encoder is not None or encoder_weights != "none":
            raise SettingError(
                f"The model {name} has no encoder to choose: received encoder {encoder!r} with weights "
                f"{encoder_weights!r}. Leave them out, or name another model: {', '.join(_with_encoder())}."
            )
        if width is not None and chosen.width is None:
            raise SettingError(f"The model {name} has no width: received {width}. Leave it out.")
        parts = Parts("", False, channels, outputs, width or chosen.width or 0, options or {})
        _refuse_larger_than_memory(name, chosen, parts)
        return chosen.make(parts), "random"
    if width is not None:
        raise SettingError(f"The model {name} has no width: received {width}. Choose an encoder instead.")
    encoder = encoder or chosen.encoder
    parts = Parts(
        resolve_encoder(encoder), encoder_weights == "imagenet", channels, outputs, 0, options or {}
    )
    if options:
        _refuse_larger_than_memory(name, chosen, parts)
    from_file = encoder_weights not in ("imagenet", "none")
    if from_file and not Path(encoder_weights).is_file():
        raise ModelError(
            f"Unknown encoder weights {encoder_weights!r}. Allowed: imagenet, none, or a FILE that is there."
        )
    with ask_hub(encoder) if parts.pretrained else quiet():
        module = _make(name, chosen, parts, encoder)
    if from_file:
        return module, load_encoder(module, Path(encoder_weights))
    return module, "random" if encoder_weights == "none" else "encoder: ImageNet weights from the hub"


def _refuse_larger_than_memory(name: str, chosen: Architecture, parts: Parts) -> None:
    """Refuse a network whose weights alone need more memory than is free, before any of it is taken.

    It is made without memory to be counted; what can't be made so, the call that makes it judges.

    Raises:
        ModelError: it is too large.
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"), quiet():
            module = chosen.make(replace(parts, pretrained=False))
    except (ValueError, NotImplementedError, AssertionError, KeyError, TypeError, RuntimeError):
        return
    needed = sum(each.numel() * each.element_size() for each in module.state_dict().values())
    free = free_bytes(torch.device("cpu"))
    if free is not None and needed > free:
        what = f"of width {parts.width}" if parts.width else f"with the arguments {dict(parts.options)}"
        raise ModelError(
            f"The weights of the model {name} {what} take {say_bytes(needed)}, but {say_bytes(free)} "
            "of memory are free. Choose a smaller network."
        )


def normalisation(
    encoder: str | None, encoder_weights: str | None, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel that suit the weights: the encoder's own, or ImageNet's.

    With another number of channels than three, every channel gets the average.
    """
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    if encoder is not None and (encoder_weights or "none") != "none":
        mean, std = pretrained_normalisation(resolve_encoder(encoder))
    if channels == 3:
        return mean, std
    return (round(sum(mean) / 3, 6),) * channels, (round(sum(std) / 3, 6),) * channels


def _unet(parts: Parts) -> nn.Module:
    return UNet(channels=parts.channels, outputs=parts.outputs, width=parts.width)


def _unet3d(parts: Parts) -> nn.Module:
    return UNet(channels=parts.channels, outputs=parts.outputs, width=parts.width, depth=3, dims=3)


def _smp(name: str, divisor: int, encoder: str, **fixed: Any) -> Architecture:
    """Return the network ``name`` of segmentation-models-pytorch (Iakubovskii)."""

    def constructor() -> Callable[..., nn.Module]:
        with quiet():
            import segmentation_models_pytorch

        network: Callable[..., nn.Module] = getattr(segmentation_models_pytorch, name)
        return network

    def make(parts: Parts) -> nn.Module:
        return constructor()(
            parts.encoder,
            encoder_weights=_weights(parts),
            in_channels=parts.channels,
            classes=parts.outputs,
            **{**fixed, **parts.options},
        )

    return Architecture(make, divisor, encoder, elsewhere=name, constructor=constructor, fixed=fixed)


def _torchvision(name: str) -> Architecture:
    """Return the network ``name`` of torchvision, without its auxiliary output."""

    def make(parts: Parts) -> nn.Module:
        from torchvision.models import segmentation

        if parts.channels != 3:
            raise ModelError(
                f"torchvision's {name} takes 3 channels, received {parts.channels}. Choose another model."
            )
        network = getattr(segmentation, name)
        return network(weights=None, weights_backbone=None, num_classes=parts.outputs)

    return Architecture(make, divisor=1, elsewhere=name)


def _weights(parts: Parts) -> str | bool | None:
    """Return what segmentation-models-pytorch wants: True for timm's encoders, else the weights' name."""
    if not parts.pretrained:
        return None
    return True if parts.encoder.startswith("tu-") else "imagenet"


def _make(name: str, chosen: Architecture, parts: Parts, encoder: str) -> nn.Module:
    try:
        return chosen.make(parts)
    except (ValueError, NotImplementedError, AssertionError, KeyError, TypeError, RuntimeError) as error:
        raise ModelError(f"The encoder {encoder!r} can't serve the model {name}: {error}") from error


def _with_encoder() -> list[str]:
    return [name for name, entry in MODELS.items() if entry.encoder]


OURS = ("encoder_name", "encoder_weights", "in_channels", "classes")
"""Arguments of architectures that follow from the encoder, the pictures and the classes."""

MODELS: dict[str, Architecture] = {
    # Ronneberger et al. 2015, as a lesson
    "unet": Architecture(_unet, divisor=16, width=64),
    # the same for volumes (Cicek et al. 2016), small: three times halved
    "unet3d": Architecture(_unet3d, divisor=8, width=16, dims=3, image_size=64),
    # a U-Net with a classifier's encoder
    "resnet-unet": _smp("Unet", divisor=32, encoder="resnet34"),
    # Zhou et al. 2018: skips pass through blocks of their own
    "unetplusplus": _smp("UnetPlusPlus", divisor=32, encoder="efficientnet-b5"),
    # Chen et al. 2017: an encoder of stride 8, and context at several scales; no skips
    "deeplabv3": _smp("DeepLabV3", divisor=8, encoder="resnet50"),
    # Chen et al. 2018: the same with one skip
    "deeplabv3plus": _smp("DeepLabV3Plus", divisor=16, encoder="resnet50"),
    # Fan et al. 2020: attention where maps are fused
    "manet": _smp("MAnet", divisor=32, encoder="resnet34"),
    # Chaurasia and Culurciello 2017: skips are added
    "linknet": _smp("Linknet", divisor=32, encoder="resnet34"),
    # Kirillov et al. 2017: a feature pyramid
    "fpn": _smp("FPN", divisor=32, encoder="resnet34"),
    # Zhao et al. 2017: context from pooling at four scales, on an encoder of stride 8
    "pspnet": _smp("PSPNet", divisor=8, encoder="resnet34"),
    # Li et al. 2018: pyramid attention
    "pan": _smp("PAN", divisor=16, encoder="resnet34"),
    # Xiao et al. 2018: pooling at four scales, then a feature pyramid
    "upernet": _smp("UPerNet", divisor=32, encoder="resnet34"),
    # Xie et al. 2021: a transformer of four resolutions, and a decoder of linear layers
    "segformer": _smp("Segformer", divisor=32, encoder="mit_b0"),
    # Ranftl et al. 2021: a vision transformer whose tokens become maps again
    "dpt": _smp("DPT", divisor=16, encoder="tu-vit_base_patch16_224", dynamic_img_size=True),
    # torchvision's own, without another encoder to choose
    "torchvision-deeplabv3": _torchvision("deeplabv3_resnet50"),
    "torchvision-deeplabv3-resnet101": _torchvision("deeplabv3_resnet101"),
    "torchvision-deeplabv3-mobilenet": _torchvision("deeplabv3_mobilenet_v3_large"),
    "torchvision-fcn": _torchvision("fcn_resnet50"),
    "torchvision-fcn-resnet101": _torchvision("fcn_resnet101"),
    "torchvision-lraspp": _torchvision("lraspp_mobilenet_v3_large"),
}

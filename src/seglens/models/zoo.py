"""The networks that can be named.

To add a network, write one function and give it one line in ``MODELS`` at the foot.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

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


@dataclass(frozen=True)
class Parts:
    """What a network is made of; ``pretrained`` asks the hub for the encoder's ImageNet weights."""

    encoder: str
    pretrained: bool
    channels: int
    outputs: int
    width: int


@dataclass(frozen=True)
class Architecture:
    """One line of ``MODELS``: the function, its default encoder or width, and what image sizes divide by."""

    make: Callable[[Parts], nn.Module]
    divisor: int
    encoder: str | None = None
    width: int | None = None


def architecture(name: str) -> Architecture:
    """Return the line of ``MODELS`` called ``name``.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in MODELS:
        raise unknown_name("model", name, MODELS)
    return MODELS[name]


def build(
    name: str,
    *,
    encoder: str | None = None,
    encoder_weights: str | None = None,
    channels: int = 3,
    outputs: int = 1,
    width: int | None = None,
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
        return chosen.make(Parts("", False, channels, outputs, width or chosen.width or 0)), "random"
    if width is not None:
        raise SettingError(f"The model {name} has no width: received {width}. Choose an encoder instead.")
    encoder = encoder or chosen.encoder
    parts = Parts(resolve_encoder(encoder), encoder_weights == "imagenet", channels, outputs, 0)
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


def _encoder_unet(parts: Parts) -> nn.Module:
    """U-Net with a classifier's encoder (Iakubovskii, segmentation-models-pytorch)."""
    from segmentation_models_pytorch import Unet

    return Unet(
        parts.encoder, encoder_weights=_weights(parts), in_channels=parts.channels, classes=parts.outputs
    )


def _unetplusplus(parts: Parts) -> nn.Module:
    """U-Net++ (Zhou et al., 2018): skips pass through blocks of their own."""
    from segmentation_models_pytorch import UnetPlusPlus

    return UnetPlusPlus(
        parts.encoder, encoder_weights=_weights(parts), in_channels=parts.channels, classes=parts.outputs
    )


def _deeplabv3(parts: Parts) -> nn.Module:
    """DeepLabV3 (Chen et al., 2017): an encoder of stride 8, and context at several scales; no skips."""
    from segmentation_models_pytorch import DeepLabV3

    return DeepLabV3(
        parts.encoder, encoder_weights=_weights(parts), in_channels=parts.channels, classes=parts.outputs
    )


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


MODELS: dict[str, Architecture] = {
    "unet": Architecture(_unet, divisor=16, width=64),
    "resnet-unet": Architecture(_encoder_unet, divisor=32, encoder="resnet34"),
    "unetplusplus": Architecture(_unetplusplus, divisor=32, encoder="efficientnet-b5"),
    "deeplabv3": Architecture(_deeplabv3, divisor=8, encoder="resnet50"),
}

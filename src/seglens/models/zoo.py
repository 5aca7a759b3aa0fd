"""The networks that can be named, and the weights that their encoders begin with.

To add a network, write one function and give it one line in ``MODELS`` at the foot.
"""

import os
import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from torch import Tensor, nn

from seglens.errors import CheckpointError, ModelError, SettingError, unknown_name
from seglens.models.unet import UNet
from seglens.models.weights import read_state_dict

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


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
) -> nn.Module:
    """Make the network called ``name``; ``encoder`` and ``width`` left out are its own defaults.

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
        return chosen.make(Parts("", False, channels, outputs, width or chosen.width or 0))
    if width is not None:
        raise SettingError(f"The model {name} has no width: received {width}. Choose an encoder instead.")
    encoder = encoder or chosen.encoder
    parts = Parts(_resolve_encoder(encoder), encoder_weights == "imagenet", channels, outputs, 0)
    if encoder_weights not in ("imagenet", "none") and not Path(encoder_weights).is_file():
        raise ModelError(
            f"Unknown encoder weights {encoder_weights!r}. Allowed: imagenet, none, or a FILE that is there."
        )
    with _hub(encoder) if parts.pretrained else _quiet():
        module = _make(name, chosen, parts, encoder)
    if encoder_weights not in ("imagenet", "none"):
        load_encoder(module, Path(encoder_weights))
    return module


def load_encoder(module: nn.Module, file: Path) -> str:
    """Put the weights of ``file`` into ``module.encoder`` and say in one sentence how they were paired.

    They are paired by name where the names agree (a prefix apart), else in order: only where every tensor
    of the encoder has its partner of the same shape, and what is left over stands at the file's end (a
    classifier). Where the images have another number of channels than the first convolution of the file,
    that is adapted as timm does it (summed for one channel, else repeated and rescaled).

    Raises:
        CheckpointError: the file can't be read or doesn't fit.
    """
    encoder = module.get_submodule("encoder")
    wanted = {name: tensor for name, tensor in encoder.state_dict().items() if not _counts(name)}
    given = {name: tensor for name, tensor in read_state_dict(file).items() if not _counts(name)}
    how, paired = "by name", _pair_by_name(wanted, given)
    if paired is None:
        how, paired = "in order", dict(zip(wanted, given.values(), strict=False))
    if paired:
        first = next(iter(paired))
        paired[first] = _adapt_channels(paired[first], wanted[first])
    wrong = [name for name in wanted if name not in paired or paired[name].shape != wanted[name].shape]
    if wrong:
        first, partner = wrong[0], paired.get(wrong[0])
        found = "nothing" if partner is None else f"shape {tuple(partner.shape)}"
        raise CheckpointError(
            f"{file} doesn't fit the encoder: {len(wanted)} tensors wanted, {len(given)} given; names "
            f"differ, and in order {first} needs shape {tuple(wanted[first].shape)} and finds {found}. "
            "Name the encoder that the file was made for."
        )
    # Not the encoder's own load_state_dict: several of them rewrite the names.
    nn.Module.load_state_dict(encoder, paired, strict=False)
    return f"{len(wanted)} tensors of {Path(file).name} paired {how}, {len(given) - len(wanted)} left over"


def normalisation(
    encoder: str | None, encoder_weights: str | None, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel that suit the weights: the encoder's own, or ImageNet's.

    With another number of channels than three, every channel gets the average.
    """
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    if encoder is not None and (encoder_weights or "none") != "none":
        mean, std = _pretrained_normalisation(_resolve_encoder(encoder))
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


@cache
def _own_encoders() -> tuple[str, ...]:
    from segmentation_models_pytorch.encoders import get_encoder_names

    return tuple(get_encoder_names())


def _resolve_encoder(name: str) -> str:
    """Return ``name`` as segmentation-models-pytorch wants it: timm's encoders begin with ``tu-``."""
    import timm

    plain = name.removeprefix("tu-")
    if name in _own_encoders():
        return name
    if timm.is_model(plain):
        return f"tu-{plain}"
    raise unknown_name("encoder", name, (*_own_encoders(), *timm.list_models()))


def _pretrained_normalisation(encoder: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and std of the encoder's pretrained weights; ``encoder`` is a resolved name."""
    import timm

    config = timm.get_pretrained_cfg(_timm_name(encoder), allow_unregistered=True)
    if config is None or len(config.mean) != 3:
        return IMAGENET_MEAN, IMAGENET_STD
    return tuple(config.mean), tuple(config.std)


def _timm_name(encoder: str) -> str:
    """Return the name under which timm knows the weights of ``encoder``."""
    return encoder.removeprefix("tu-").removeprefix("timm-")


def _counts(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def _pair_by_name(wanted: dict[str, Tensor], given: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """Return the given tensors under the wanted names; ``encoder.`` may come before, ``model.`` may lack."""
    renamed = {name.removeprefix("encoder.").removeprefix("model."): tensor for name, tensor in given.items()}
    paired = {name: renamed.get(name.removeprefix("model.")) for name in wanted}
    complete = {name: tensor for name, tensor in paired.items() if tensor is not None}
    return complete if len(complete) == len(wanted) else None


def _adapt_channels(given: Tensor, wanted: Tensor) -> Tensor:
    from timm.models import adapt_input_conv

    differ = given.ndim == wanted.ndim == 4 and given.shape[1] == 3 and wanted.shape[1] != 3
    return adapt_input_conv(wanted.shape[1], given) if differ else given


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the advice of segmentation-models-pytorch to call its ``timm-`` encoders otherwise."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`timm-` encoders are deprecated")
        yield


@contextmanager
def _hub(encoder: str) -> Iterator[None]:
    """Let the block ask the hub for weights; where it can't be reached, only what was fetched before counts.

    Raises:
        ModelError: the weights can't be had; it names the three choices.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    # Without this the client repeats every question for a minute before it gives up.
    constants.HF_HUB_OFFLINE = before or not _reachable(constants.ENDPOINT)
    try:
        with _quiet():
            yield
    except OSError as error:  # what the hub's client raises is one, too
        raise ModelError(
            f"The ImageNet weights of the encoder {encoder!r} can't be had ({type(error).__name__}). "
            "Choose encoder weights: imagenet (needs a connection to huggingface.co, or a copy fetched "
            "before) | none | FILE (.pth or .safetensors)."
        ) from error
    finally:
        constants.HF_HUB_OFFLINE = before


def _reachable(endpoint: str) -> bool:
    """Whether the hub answers at all; behind a proxy that is for the client to find out."""
    if getproxies() or os.environ.get("HF_HUB_OFFLINE"):
        return True
    address = urlsplit(endpoint)
    try:
        socket.create_connection((address.hostname or "", address.port or 443), timeout=5).close()
    except OSError:
        return False
    return True


MODELS: dict[str, Architecture] = {
    "unet": Architecture(_unet, divisor=16, width=64),
    "resnet-unet": Architecture(_encoder_unet, divisor=32, encoder="resnet34"),
    "unetplusplus": Architecture(_unetplusplus, divisor=32, encoder="efficientnet-b5"),
    "deeplabv3": Architecture(_deeplabv3, divisor=8, encoder="resnet50"),
}

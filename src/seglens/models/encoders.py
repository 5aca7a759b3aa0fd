"""Encoders by name, from segmentation-models-pytorch or timm, and the weights that they begin with."""

import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from torch import Tensor, nn

from seglens.errors import CheckpointError, ModelError, unknown_name
from seglens.models.weights import read_state_dict

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_CENTRED = ("inceptionresnetv2", "inceptionv4", "xception")
"""Encoders that timm doesn't know by these names, trained on images in [-1, 1]."""
_CARRIERS = ("httpx", "httpx2", "safetensors", "safetensors_rust")
"""Libraries whose errors say that weights broke off or are none; which the hub's client uses, it changes."""


def resolve_encoder(name: str) -> str:
    """Return ``name`` as segmentation-models-pytorch wants it: timm's encoders begin with ``tu-``."""
    with quiet():
        import timm

    plain = name.removeprefix("tu-").removeprefix("timm-")
    if name in _own_encoders():
        return name
    if name.startswith("timm-mobilenetv3"):  # what segmentation-models-pytorch means by it
        plain = f"tf_{plain}"
    if timm.is_model(plain):
        return f"tu-{plain}"
    raise unknown_name("encoder", name, (*_own_encoders(), *timm.list_models()))


def pretrained_normalisation(encoder: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and std that the pretrained weights of ``encoder``, a resolved name, were trained with."""
    with quiet():
        import timm

    if encoder in _CENTRED:
        return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    name = encoder.removeprefix("tu-").removeprefix("timm-")
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if config is None or len(config.mean) != 3:
        return IMAGENET_MEAN, IMAGENET_STD
    return tuple(config.mean), tuple(config.std)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what libraries advise one another, and no user can follow.

    segmentation-models-pytorch, to call its ``timm-`` encoders otherwise; torch 2.14, about timm's own code.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`timm-` encoders are deprecated")
        warnings.filterwarnings("ignore", message="`torch.jit.interface` is deprecated")
        yield


@contextmanager
def ask_hub(encoder: str) -> Iterator[None]:
    """Let the block ask the hub for weights; where it can't be reached, only what was fetched before counts.

    Raises:
        ModelError: the weights can't be had; it names the three choices.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    # Without this the client repeats every question for a minute before it gives up.
    constants.HF_HUB_OFFLINE = before or not _reachable(constants.ENDPOINT)
    try:
        with quiet():
            yield
    except Exception as error:
        if not isinstance(error, OSError) and type(error).__module__.partition(".")[0] not in _CARRIERS:
            raise
        raise ModelError(
            f"The ImageNet weights of the encoder {encoder!r} can't be had ({type(error).__name__}). "
            "Choose encoder weights: imagenet (needs a connection to huggingface.co, or a copy fetched "
            "before) | none | FILE (.pth or .safetensors)."
        ) from error
    finally:
        constants.HF_HUB_OFFLINE = before


def load_encoder(module: nn.Module, file: Path) -> str:
    """Put the weights of ``file`` into ``module.encoder`` and say in a phrase how they were paired.

    They are paired by name where the names agree (a prefix apart), else in order: only where every tensor
    of the encoder has its partner of the same shape, and what is left over stands at the file's end (a
    classifier). Where the images have another number of channels than the first convolution of the file,
    that is adapted as timm does it (summed for one channel, else repeated and rescaled).

    Raises:
        CheckpointError: the file can't be read or doesn't fit.
    """
    encoder = module.get_submodule("encoder")
    wanted = {name: tensor for name, tensor in encoder.state_dict().items() if not _counts(tensor)}
    given = {name: tensor for name, tensor in read_state_dict(file).items() if not _counts(tensor)}
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
    left = len(given) - len(wanted)
    return f"encoder: {len(wanted)} tensors of {Path(file).name}, paired {how}, {left} left over"


@cache
def _own_encoders() -> tuple[str, ...]:
    from segmentation_models_pytorch.encoders import get_encoder_names

    return tuple(get_encoder_names())


def _counts(tensor: Tensor) -> bool:
    """Whether ``tensor`` counts training steps (in a normalisation): not all files have it."""
    return tensor.ndim == 0 and not tensor.is_floating_point()


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


def _reachable(endpoint: str) -> bool:
    """Whether the hub answers at all; behind a proxy that is for the client to find out."""
    if getproxies() or os.environ.get("HF_HUB_OFFLINE"):
        return True
    address = urlsplit(endpoint)
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((address.hostname or "", port), timeout=5).close()
    except OSError:
        return False
    return True

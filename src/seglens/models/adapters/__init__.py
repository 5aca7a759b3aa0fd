"""Networks of other libraries that can be built again from their own description, without their folder.

To add a library, write a file beside this one that has ``build``, and give it one line in ``ADAPTERS``.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from seglens.errors import ModelError

Call = Callable[[nn.Module, Tensor], Any]
"""Calls a network that wants more than the pictures: ``lambda net, x: net(x, task=0)``."""

HUGGING_FACE = "hugging-face"
NETWORK_FILE = "network-file"

ADAPTERS: dict[str, tuple[str, str]] = {
    # models of transformers that segment; the extra that brings the library
    HUGGING_FACE: ("hugging_face", "huggingface"),
    # ONNX, TorchScript and programs of torch.export
    NETWORK_FILE: ("network_files", "export"),
}
"""The architecture of a `ModelSpec`, with the file here that builds it and the extra that it needs."""


def build(architecture: str, options: Mapping[str, Any]) -> tuple[nn.Module, Call]:
    """Return the network that ``options`` of an architecture in ``ADAPTERS`` describe, and how it is called.

    Its weights are random.

    Raises:
        ModelError: its library is not installed, or can't build it.
    """
    made: tuple[nn.Module, Call] = library(architecture).build(options)
    return made


def library(architecture: str) -> ModuleType:
    """Return the file here that knows an architecture in ``ADAPTERS``.

    Raises:
        ModelError: its library is not installed.
    """
    file, extra = ADAPTERS[architecture]
    try:
        return import_module(f"seglens.models.adapters.{file}")
    except ModuleNotFoundError as error:
        if str(error.name).startswith("seglens"):
            raise
        raise ModelError(
            f"The model is one of {architecture}, which needs {error.name}, and that is not installed. "
            f"Install the extra: pip install 'seglens[{extra}]'."
        ) from error

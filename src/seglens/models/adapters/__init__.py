"""Networks of other libraries that can be built again from their own description, without their folder.

To add a library, write a file beside this one that has ``build``, and give it one line in ``ADAPTERS``.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from seglens.data.prepared import Prepared
from seglens.data.volumes.grid import Grid
from seglens.errors import ModelError

Call = Callable[[nn.Module, Tensor], Any]
"""Calls a network that wants more than the pictures: ``lambda net, x: net(x, task=0)``."""

HUGGING_FACE = "hugging-face"
NETWORK_FILE = "network-file"
NNUNET = "nnunet"
MONAI_BUNDLE = "monai-bundle"

ADAPTERS: dict[str, tuple[str, str]] = {
    # models of transformers that segment; the extra that brings the library
    HUGGING_FACE: ("hugging_face", "huggingface"),
    # ONNX, TorchScript and programs of torch.export
    NETWORK_FILE: ("network_files", "export"),
    # what nnUNetv2_train left
    NNUNET: ("nnunet", "nnunet"),
    # networks of MONAI, with the transforms and the inferer of their bundle
    MONAI_BUNDLE: ("monai_bundle", "monai"),
}
"""The architecture of a `ModelSpec`, with the file here that builds it and the extra that it needs."""


PREPARING = (NNUNET, MONAI_BUNDLE)
"""Those whose library prepares cases in its own way, see `Tool`."""


@runtime_checkable
class Tool(Protocol):
    """What brings cases into a network as its own library does, and its answers back."""

    def prepare(self, files: Sequence[Path], grid: Grid | None) -> Prepared:
        """Return the case in ``files``, one for each channel; ``grid`` is the first's, None of pictures."""

    def logits(self, module: nn.Module, prepared: Prepared) -> Tensor:
        """Return the logits ``[k *scaled]`` of the prepared volume."""

    def probabilities(self, logits: Tensor, prepared: Prepared, grid: Grid | None) -> Tensor:
        """Return the probabilities ``[classes *size]`` of the case as it was."""


def tool(architecture: str, options: Mapping[str, Any]) -> Tool | None:
    """Return what prepares cases for an architecture; None where nothing does.

    Raises:
        ModelError: its library is not installed.
    """
    if architecture not in PREPARING:
        return None
    made: Tool = library(architecture).tool(options)
    return made


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
    # MONAI says when it is imported that a decoder of DICOM files is missing, which nothing here needs.
    logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
    try:
        return import_module(f"seglens.models.adapters.{file}")
    except ModuleNotFoundError as error:
        if str(error.name).startswith("seglens"):
            raise
        raise ModelError(
            f"The model is one of {architecture}, which needs {error.name}, and that is not installed. "
            f"Install the extra: pip install 'seglens[{extra}]'."
        ) from error

"""MONAI bundles: a folder with a network of MONAI, its transforms and its inferer.

Nothing of a configuration is run: it is read as plain data (``config.py``), and only networks, transforms and
inferers of MONAI that are known here are made (``parts.py``). Masks are those of MONAI's own run of it.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from seglens.models.adapters.monai_bundle.bundle import Bundle, kind_of_answer, read_bundle, read_weights
from seglens.models.adapters.monai_bundle.cases import Cases, ends_of
from seglens.models.adapters.monai_bundle.config import TARGET
from seglens.models.adapters.monai_bundle.parts import FINISHING, INFERERS, PREPARING, build_network, checked

__all__ = [
    "Bundle",
    "Cases",
    "build",
    "ends_of",
    "kind_of_answer",
    "read_bundle",
    "read_weights",
    "tool",
]


def build(options: Mapping[str, Any]) -> tuple[nn.Module, Any]:
    """Return the network that ``options`` of `Bundle` describe, with random weights, and how it is called.

    Raises:
        ModelError: they name something that is not known here.
    """
    given = options["network"]
    arguments = {key: value for key, value in given.items() if key != TARGET}
    return build_network(str(given[TARGET]), arguments), _call


def tool(options: Mapping[str, Any]) -> Cases:
    """Return what prepares cases and brings answers back.

    Raises:
        ModelError: ``options`` name something that is not known here.
    """
    known = {"preprocessing": PREPARING, "postprocessing": FINISHING}
    steps = {
        key: [checked(step, f"{key}, transform {n}", allowed) for n, step in enumerate(options[key])]
        for key, allowed in known.items()
    }
    return Cases({**options, **steps, "inferer": checked(options["inferer"], "inferer", INFERERS)})


def _call(module: nn.Module, images: Tensor) -> Any:
    return module(images)

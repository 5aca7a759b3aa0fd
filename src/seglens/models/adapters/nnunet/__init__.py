"""Models of nnU-Net v2: networks, preprocessing and export of what ``nnUNetv2_train`` left.

What is needed of plans.json and dataset.json is kept in ``ModelSpec.options``, so that a run needs the folder
no more. Masks are those of ``nnUNetv2_predict`` (Isensee et al. 2021), by its own functions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from seglens.data.volumes.described import Labels, read_described
from seglens.errors import DataError, ModelError
from seglens.models.adapters.nnunet.cases import Cases
from seglens.models.adapters.nnunet.folder import (
    CHECKPOINT,
    Trained,
    read_trained,
)
from seglens.models.adapters.nnunet.network import along_slices, build_network, thick
from seglens.models.ensemble import Ensemble
from seglens.models.weights import State, fit

__all__ = ["CHECKPOINT", "Described", "Trained", "build", "describe", "fill", "read_trained", "tool"]


@dataclass(frozen=True)
class Described:
    """What plans and labels say: the fields of a `ModelSpec`, and what the outputs are."""

    labels: Labels
    spec: dict[str, Any]


def build(options: Mapping[str, Any]) -> tuple[nn.Module, Any]:
    """Return the network that ``options`` of `Trained` describe, with random weights, and how it is called.

    Several folds, and mirror images, are an `Ensemble`.
    """
    cases = Cases(options, None)
    networks = [_laid_out(cases) for _ in options["folds"]]
    mirrored = _axes(cases)
    if len(networks) > 1 or mirrored:
        return Ensemble(networks, mirrored), _call
    return networks[0], _call


def tool(options: Mapping[str, Any]) -> Cases:
    """Return what prepares cases and brings answers back."""
    cases = Cases(options, None)
    return Cases(options, _flat_network(cases)) if len(cases.configuration.patch_size) == 2 else cases


def describe(options: Mapping[str, Any]) -> Described:
    """Return what the plans and labels of a training say.

    Raises:
        ModelError: the labels can't be understood.
    """
    cases = Cases(options, None)
    patch = cases.configuration.patch_size
    try:
        labels = read_described(options["dataset"], Path("dataset.json"))
    except DataError as error:
        raise ModelError(str(error)) from error
    spec = {
        "channels": len(cases.ends),
        "classes": len(labels.classes),
        "dims": 3,
        "spacing": _spacing(cases),
        "head": "multilabel" if labels.regions else "softmax",
        "image_size": _probe(patch, cases.configuration.pool_op_kernel_sizes),
        "mean": tuple(-low / (high - low) for low, high in cases.ends),
        "std": tuple(1 / (high - low) for low, high in cases.ends),
        "options": dict(options),
    }
    return Described(labels, spec)


def fill(module: nn.Module, weights: Mapping[str, State]) -> None:
    """Put the weights of the folds into the network of `build`.

    Raises:
        CheckpointError: they don't fit.
    """
    networks = list(module.networks) if isinstance(module, Ensemble) else [module]
    for network, state in zip(networks, weights.values(), strict=True):
        fit(network, thick(state, network.state_dict()))


def _flat_network(cases: Cases) -> nn.Module:
    return build_network(
        cases.configuration.configuration["architecture"],
        len(cases.configuration.normalization_schemes),
        cases.labels.num_segmentation_heads,
    )


def _laid_out(cases: Cases) -> nn.Module:
    network = _flat_network(cases)
    return along_slices(network) if len(cases.configuration.patch_size) == 2 else network


def _axes(cases: Cases) -> tuple[int, ...]:
    """Return the axes of the volume along which it is mirrored: a network of pictures has no slices."""
    before = 3 - len(cases.configuration.patch_size)
    return tuple(axis + before for axis in cases.options["mirrored"])


def _spacing(cases: Cases) -> tuple[float, ...]:
    """Return the millimetres of a voxel of an input; of slices they lie as far apart as in most cases."""
    found = tuple(map(float, cases.configuration.spacing))
    between = cases.plans.original_median_spacing_after_transp[: 3 - len(found)]
    return (*map(float, between), *found)


def _probe(patch: list[int], strides: list[list[int]]) -> int:
    """Return the side of a cube to look at layers with: whole cells, and two of them in the deepest grid."""
    total = int(np.prod(np.array(strides), axis=0).max())
    return max(2 * total, min(total * -(-max(patch) // total), total * max(2, 64 // total)))


def _call(module: nn.Module, images: Tensor) -> Any:
    return module(images)

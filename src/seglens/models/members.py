"""One network of an ensemble as a model of its own: what explains an ensemble goes member by member."""

import weakref

from torch import nn

from seglens.models.ensemble import Ensemble
from seglens.models.segmenter import Segmenter

_ALONE: "weakref.WeakKeyDictionary[nn.Module, Segmenter]" = weakref.WeakKeyDictionary()
"""Each network of an ensemble as a model of its own, so that what is found out of its layers is kept."""


def alone(segmenter: Segmenter, network: nn.Module) -> Segmenter:
    """Return one network of an ensemble as a model with all else that ``segmenter`` has."""
    found = _ALONE.get(network)
    if found is None or found.spec is not segmenter.spec:
        found = Segmenter(network, segmenter.spec, segmenter.select)
        found.origin = segmenter.origin
        _ALONE[network] = found
    return found


def explained(segmenter: Segmenter) -> Segmenter:
    """Return the model whose layers are asked for: of an ensemble its first network, else itself."""
    if not isinstance(segmenter.module, Ensemble):
        return segmenter
    return alone(segmenter, segmenter.module.networks[0])

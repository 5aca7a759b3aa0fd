"""Several networks, or one and its mirror images, that answer as one: the mean of their logits.

What explains such a model goes member by member: a map of it is the mean of the maps of its members.
"""

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor, nn

from seglens.models.segmenter import Segmenter


@dataclass(frozen=True)
class Member:
    """One network, given pictures mirrored along ``axes`` of [b c *size]; its answer is turned back."""

    network: nn.Module
    axes: tuple[int, ...]
    fold: int

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.network(images.flip(self.axes) if self.axes else images)
        return logits.flip(self.axes) if self.axes else logits


class Ensemble(nn.Module):
    """The mean of the logits of ``networks``, each over all mirror images along the axes in ``mirrored``.

    Axes are those of the picture, 0 the first (slices of a volume).
    """

    networks: nn.ModuleList
    mirrored: tuple[int, ...]

    def __init__(self, networks: list[nn.Module], mirrored: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.mirrored = mirrored

    @property
    def members(self) -> Iterator[Member]:
        """Every network with every mirror image, the picture as it is first."""
        axes = [axis + 2 for axis in self.mirrored]
        flips = [flip for number in range(len(axes) + 1) for flip in combinations(axes, number)]
        return (Member(network, flip, fold) for fold, network in enumerate(self.networks) for flip in flips)

    def forward(self, images: Tensor) -> Tensor:
        """Return the mean of the members' logits."""
        members = list(self.members)
        total = members[0](images)
        for member in members[1:]:
            total = total + member(images)
        return total / len(members)


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


def mean_of(values: list[Tensor]) -> Tensor:
    """Return the mean of tensors of one shape."""
    return torch.stack(values).mean(0)

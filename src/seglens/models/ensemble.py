"""Several networks, or one and its mirror images, that answer as one: the mean of their logits."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from torch import Tensor, nn


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

"""A volume as one picture: its axial, coronal and sagittal plane through a place, side by side.

Whatever draws pictures draws volumes so: image, mask, map and valid voxels go through the same `Planes`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Shaped
from torch import Tensor

from seglens.data.frame import nearest
from seglens.shapes import Region

GAP = 2
"""Empty pixels between two planes."""

WIDTH = 480
"""Pixels that three planes take together at least, as far as whole numbers of pixels a voxel allow."""


@dataclass(frozen=True)
class Planes:
    """Draws the three planes through ``centre`` (slice, row, column), every voxel as large as it is in mm.

    The shortest side of a voxel takes ``zoom`` pixels. Only the planes in ``shown`` are drawn: 0 is the axial
    one, 1 the coronal, 2 the sagittal.

    Volumes are slices, rows, columns in the order of `Grid.to_zyx`: the patient's right is on the left of
    the axial and the coronal plane, the front on the left of the sagittal one, the head is up.
    """

    centre: tuple[int, int, int]
    spacing: tuple[float, ...] = (1.0, 1.0, 1.0)
    zoom: int = 1
    shown: tuple[int, ...] = (0, 1, 2)

    def __call__(self, volume: Shaped[Tensor, "*b slices rows columns"]) -> Shaped[Tensor, "*b height width"]:
        """Return the picture of a volume, of its channels, or of a stack of masks; gaps are 0 (False)."""
        z, y, x = self.centre
        deep, down, across = self.spacing
        every = (
            (volume[..., z, :, :], down, across),
            (volume[..., y, :].flip(-2), deep, across),
            (volume[..., x].flip(-2), deep, down),
        )
        planes = [self._scaled(*every[number]) for number in self.shown]
        height = max(plane.shape[-2] for plane in planes)
        padded = []
        for number, plane in enumerate(planes):
            above = (height - plane.shape[-2]) // 2
            below = height - plane.shape[-2] - above
            padded.append(F.pad(plane, (GAP * (number > 0), 0, above, below)))
        return torch.cat(padded, -1)

    def voxel_at(self, x: int, y: int, size: Sequence[int]) -> tuple[int, int, int] | None:
        """Return the voxel (slice, row, column) that is drawn at a pixel (column ``x``, row ``y``).

        ``size`` is that of the volume. Between the planes there is none.
        """
        found = []
        for axis, length in enumerate(size):
            shape = [length if other == axis else 1 for other in range(3)]
            # From 1 on: gaps are 0.
            numbers = torch.arange(1, length + 1).reshape(shape).expand(*size)
            found.append(int(self(numbers)[y, x]) - 1)
        return None if min(found) < 0 else (found[0], found[1], found[2])

    def _scaled(self, plane: Tensor, down: float, across: float) -> Tensor:
        side = min(self.spacing) / self.zoom
        size = (max(1, round(plane.shape[-2] * down / side)), max(1, round(plane.shape[-1] * across / side)))
        return nearest(plane, size)


def planes_through(region: Region, spacing: Sequence[float] | None) -> Planes:
    """Return the planes in which most of ``region`` lies; those through the middle where it is empty.

    Without ``spacing`` voxels are drawn as cubes.
    """
    sides = tuple(spacing) if spacing else (1.0, 1.0, 1.0)
    _, rows, columns = (length * mm / min(sides) for length, mm in zip(region.shape, sides, strict=True))
    zoom = max(1, round(WIDTH / (2 * columns + rows)))
    if not bool(region.any()):
        return Planes((region.shape[0] // 2, region.shape[1] // 2, region.shape[2] // 2), sides, zoom)
    z, y, x = (int(region.sum([other for other in range(3) if other != axis]).argmax()) for axis in range(3))
    return Planes((z, y, x), sides, zoom)

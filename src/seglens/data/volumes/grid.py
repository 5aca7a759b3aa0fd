"""Where the voxels of a volume are: spacing, orientation and origin, as one affine.

World coordinates are millimetres to the patient's right-to-left, back-to-front and feet-to-head side growing
(RAS+, as NIfTI and nibabel have it). DICOM and ITK count the first two the other way (LPS+).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from seglens.errors import DataError, SettingError, SizeMismatchError

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Turns world coordinates of DICOM and ITK into those that are used here."""

CLOSE = 1e-3
"""How far two grids may be apart at any corner and still be one, as a share of the smallest voxel side."""

SHEAR = 0.01
"""The cosine that two axes of a grid may have: distances in mm are measured as if it were 0."""

PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}
"""The world axis that a plane stands across: axial slices follow each other from the feet to the head."""

_SENSES = (("L", "R"), ("P", "A"), ("I", "S"))


@dataclass(frozen=True, eq=False)
class Grid:
    """The voxels (i, j, k) of a volume in the world: ``world = affine @ (i, j, k, 1)``, in millimetres.

    Raises:
        DataError: the affine is not finite, puts all voxels into one plane, or is sheared.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray

    def __post_init__(self) -> None:
        affine = np.asarray(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or (affine[3] != (0, 0, 0, 1)).any():
            raise DataError(
                f"The affine of a volume is {affine.tolist()}; allowed are 4 x 4 finite numbers, the last "
                "row 0 0 0 1. Write a new header for the file."
            )
        sides = np.linalg.norm(affine[:3, :3], axis=0)
        if not (sides > 0).all() or abs(np.linalg.det(affine[:3, :3] / sides)) < 1e-3:
            raise DataError(
                f"The affine of a volume is singular: {affine.tolist()} puts all voxels into one plane or "
                "line, so that no place is known. Write a new header for the file."
            )
        cosines = np.abs(np.triu((affine[:3, :3] / sides).T @ (affine[:3, :3] / sides), 1))
        if cosines.max() > SHEAR:
            angle = np.degrees(np.arccos(min(cosines.max(), 1)))
            raise DataError(
                f"The affine of a volume is sheared: {affine.tolist()} has axes at an angle of {angle:.3g} "
                "degrees, so that a spacing says no distance. Resample it to axes at right angles."
            )
        object.__setattr__(self, "affine", affine)

    @cached_property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres from one voxel to the next along i, j and k."""
        first, second, third = (float(side) for side in np.linalg.norm(self.affine[:3, :3], axis=0))
        return first, second, third

    @cached_property
    def voxel_ml(self) -> float:
        """Millilitres that one voxel takes."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000

    @cached_property
    def axes(self) -> tuple[int, int, int]:
        """The world axis (0, 1, 2) that each of i, j and k runs along most; each is taken once.

        Of all six ways to pair them the one with the largest sum of cosines is taken.
        """
        cosines = np.abs(self.affine[:3, :3]) / np.array(self.spacing)
        ways = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
        best = max(ways, key=lambda way: sum(cosines[world, axis] for axis, world in enumerate(way)))
        return best

    @cached_property
    def senses(self) -> tuple[int, int, int]:
        """1 where an axis runs the way its world axis grows, -1 where it runs against it."""
        first, second, third = (
            1 if self.affine[world, axis] > 0 else -1 for axis, world in enumerate(self.axes)
        )
        return first, second, third

    @property
    def orientation(self) -> str:
        """The side that each axis runs to, such as ``RAS`` or ``LPS``."""
        return "".join(_SENSES[world][sense > 0] for world, sense in zip(self.axes, self.senses, strict=True))

    def axis_of(self, plane: str) -> int:
        """Return the axis (0, 1, 2) of the array along which slices of ``plane`` follow each other.

        Raises:
            SettingError: there is no such plane.
        """
        if plane not in PLANES:
            raise SettingError(f"There is no plane {plane!r}. Allowed: {', '.join(PLANES)}.")
        return self.axes.index(PLANES[plane])

    @cached_property
    def file_axes(self) -> tuple[int, int, int]:
        """The axes of the file that slices, rows and columns are, see `to_zyx`.

        They run from feet to head, from front to back, and from right to left.
        """
        return self.axes.index(2), self.axes.index(1), self.axes.index(0)

    @property
    def turned(self) -> tuple[int, ...]:
        """Which of slices, rows and columns run against the axis of the file."""
        return tuple(
            n
            for n, (axis, grows) in enumerate(zip(self.file_axes, (1, -1, -1), strict=True))
            if self.senses[axis] != grows
        )

    def to_zyx(self, values: np.ndarray) -> np.ndarray:
        """Return i x j x k values as slices x rows x columns: feet to head, front to back, right to left.

        That is the order in which a radiologist's axial slices lie in an array (LPS+), for every volume,
        however its file has them. Voxels are moved, never interpolated.
        """
        return np.flip(values.transpose(self.file_axes), self.turned)

    def from_zyx(self, values: np.ndarray) -> np.ndarray:
        """Return slices x rows x columns in the order of the file, i x j x k: what `to_zyx` did, undone."""
        return np.flip(values, self.turned).transpose(np.argsort(self.file_axes))

    @property
    def spacing_zyx(self) -> tuple[float, float, float]:
        """Millimetres from one slice, row and column to the next."""
        first, second, third = (self.spacing[axis] for axis in self.file_axes)
        return first, second, third

    def world(self, voxel: Sequence[int | float]) -> tuple[float, float, float]:
        """Return where a voxel is, in millimetres (RAS+)."""
        x, y, z = (float(part) for part in (self.affine @ (*voxel, 1.0))[:3])
        return x, y, z

    def distance_to(self, other: "Grid") -> float:
        """Return how far the two grids are apart at the corner where they are farthest, in millimetres."""
        corners = np.array(
            [(i, j, k, 1) for i in (0, 1) for j in (0, 1) for k in (0, 1)], dtype=np.float64
        ) * [*(side - 1 for side in self.shape), 1]
        return float(np.linalg.norm((corners @ (self.affine - other.affine).T)[:, :3], axis=1).max())

    def refuse_other(self, other: "Grid", what: str, own: str) -> None:
        """Raise where ``what``, on the grid ``other``, doesn't lie voxel on voxel on ``own``, on this one.

        Raises:
            SizeMismatchError: the numbers of voxels differ, or a corner is farther off than `CLOSE`.
        """
        if self.shape != other.shape:
            raise SizeMismatchError(
                f"{what} has {_times(other.shape)} voxels, {own} {_times(self.shape)}. They must be on one "
                "grid: resample the mask to the picture, with nearest neighbours."
            )
        apart, most = self.distance_to(other), CLOSE * min(self.spacing)
        if apart > most:
            told = next(
                pair for digits in range(3, 18) if len(set(pair := _rounded(digits, apart, most))) == 2
            )
            raise SizeMismatchError(
                f"{what} lies {told[0]} mm beside {own} (orientation {other.orientation}, spacing "
                f"{_spaced(other.spacing)} mm; {self.orientation}, {_spaced(self.spacing)} mm); allowed is "
                f"{told[1]} mm. They must be on one grid: resample the mask to the picture, or correct the "
                "header that is wrong."
            )


def _rounded(digits: int, *numbers: float) -> list[str]:
    return [f"{number:.{digits}g}" for number in numbers]


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _spaced(spacing: tuple[float, ...]) -> str:
    return " x ".join(f"{side:.4g}" for side in spacing)

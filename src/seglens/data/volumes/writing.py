"""Writing masks and maps as NIfTI, on the grid of the volume that they belong to."""

from pathlib import Path

import numpy as np

from seglens.data.volumes import nifti
from seglens.data.volumes.grid import Grid
from seglens.errors import SettingError, SizeMismatchError
from seglens.files.output import new_file


def write_mask(file: Path, labels: np.ndarray, grid: Grid, *, force: bool = False) -> None:
    """Write labels, i x j x k, as ``.nii.gz`` or ``.nii``, in the smallest unsigned integers that hold them.

    Raises:
        SettingError: a label is below 0 or above 65535, or the file is called otherwise.
        SizeMismatchError: the labels are not of the shape of the grid.
        OutputExistsError: the file is there and ``force`` is not given.
    """
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high > 65535:
        raise SettingError(f"Labels go from {low} to {high}; a mask file holds 0 to 65535.")
    _write(file, labels.astype(np.uint8 if high < 256 else np.uint16), grid, "labels", force=force)


def write_map(file: Path, values: np.ndarray, grid: Grid, unit: str, *, force: bool = False) -> None:
    """Write a map, i x j x k, as float32; ``unit`` stands in the header.

    Raises:
        SizeMismatchError, SettingError, OutputExistsError: as `write_mask`.
    """
    _write(file, values.astype(np.float32), grid, unit, force=force)


def _write(file: Path, values: np.ndarray, grid: Grid, about: str, *, force: bool) -> None:
    if not file.name.lower().endswith((".nii", ".nii.gz")):
        raise SettingError(f"{file} can't be written as a volume: its name must end in .nii.gz or .nii.")
    if values.shape != grid.shape:
        raise SizeMismatchError(
            f"Values of shape {values.shape} don't fit the grid of {grid.shape} voxels of {file}."
        )
    with new_file(file, force=force) as temporary:
        packed = file.name.lower().endswith(".gz")
        temporary.write_bytes(nifti.encoded(values, grid.affine, f"seglens: {about}", packed=packed))

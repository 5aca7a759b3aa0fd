"""Reading volumes, whatever their format, with one set of rules.

A volume has three axes and one finite number at each voxel. What is more or less than that is refused by
name: time, colours, several series in a folder, missing slices.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seglens.data.volumes import dicom, itk, nifti
from seglens.data.volumes.grid import Grid
from seglens.errors import DataError, MaskValueError

_FORMATS: dict[str, Callable[[Path], tuple[np.ndarray, np.ndarray]]] = {
    ".nii": nifti.read,
    ".nii.gz": nifti.read,
    ".dcm": dicom.read,
    ".dicom": dicom.read,
    ".mha": itk.read,
    ".mhd": itk.read,
    ".nrrd": itk.read,
    ".nhdr": itk.read,
}
"""What reads the files of each ending: it returns i x j x k numbers and the affine. To add one: one line."""

SUFFIXES = tuple(_FORMATS)


@dataclass(frozen=True, eq=False)
class Volume:
    """The numbers of a volume in the order of its file, i x j x k, and where its voxels are.

    Numbers have their units: Hounsfield units of a CT, whatever a scanner counts of an MRI.
    """

    values: np.ndarray
    grid: Grid


def is_volume(path: Path) -> bool:
    """Whether a path is called as a file that is read as a volume."""
    return _suffix(path) in _FORMATS


def stem_of(path: Path) -> str:
    """Return the name of a file without the ending of its format: ``scan`` of ``scan.nii.gz``."""
    return path.name[: len(path.name) - len(_suffix(path))]


def read_volume(path: Path) -> Volume:
    """Return the volume in a file, or in a folder that holds one DICOM series.

    Raises:
        DataError: it is missing, damaged, too large, of another kind or dimension, holds several series,
            lacks slices, has a singular affine, or numbers that are not finite.
    """
    path = Path(path)
    read = dicom.read if path.is_dir() else _FORMATS.get(_suffix(path))
    if read is None:
        raise DataError(
            f"{path} is not read as a volume: its name ends in {path.suffix or 'nothing'!r}. Allowed are "
            f"{', '.join(SUFFIXES)}, and a folder that holds one DICOM series."
        )
    values, affine = read(path)
    if values.ndim != 3 or 0 in values.shape:
        raise DataError(
            f"{path} has {values.ndim} axes ({' x '.join(map(str, values.shape))}); allowed are 3, none of "
            "them empty. Save each point of time, or each channel, as a file of its own."
        )
    if values.dtype.kind not in "buif":
        raise DataError(
            f"{path} holds values of the kind {values.dtype} at each voxel; allowed is one real number. Save "
            "it so."
        )
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        wrong = int((~np.isfinite(values)).sum())
        raise DataError(
            f"{path} holds {wrong} voxels of {values.size} that are not finite (NaN or infinite). Replace "
            "them by numbers: what is outside of the scan by the number of air."
        )
    try:
        return Volume(values, Grid((values.shape[0], values.shape[1], values.shape[2]), affine))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def read_labels(path: Path, picture: Volume | None = None, name: str = "its picture") -> np.ndarray:
    """Return the labels in a file as integers, i x j x k; with ``picture``, on the grid of that.

    Raises:
        DataError: as `read_volume`.
        MaskValueError: a number is not whole, or below 0.
        SizeMismatchError: the mask and its picture are on different grids.
    """
    volume = read_volume(path)
    values = volume.values
    if values.dtype.kind == "f":
        whole = np.rint(values)
        if (whole != values).any():
            first = float(values[whole != values][0])
            raise MaskValueError(
                f"{path} holds {first!r} among its labels; allowed are whole numbers. Labels that were "
                "resampled with interpolation are no labels any more: resample with nearest neighbours."
            )
        values = whole
    lowest, highest = float(values.min()) or 0, float(values.max()) or 0  # not -0
    if lowest < 0 or highest > 65535:
        raise MaskValueError(f"{path} holds labels from {lowest:g} to {highest:g}; allowed are 0 to 65535.")
    if picture is not None:
        picture.grid.refuse_other(volume.grid, str(path), name)
    return values.astype(np.int64)


def refuse_other_names(path: Path, classes: Sequence[str]) -> None:
    """Raise where a file of labels gives the name of one of ``classes`` to the label of another.

    3D Slicer numbers the segments of each file anew, and writes their names beside the numbers.

    Raises:
        MaskValueError: it does.
    """
    plain = [name.casefold() for name in classes]
    for number, name in itk.segments(path).items():
        if name.casefold() in plain and plain[number : number + 1] != [name.casefold()]:
            raise MaskValueError(
                f"{path} calls its label {number} {name!r}, which is the class of label "
                f"{plain.index(name.casefold())} ({', '.join(classes)}). Export the segments in the "
                "order of the classes."
            )


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix

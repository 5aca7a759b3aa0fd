"""MetaImage and NRRD files (``.mha``, ``.mhd``, ``.nrrd``, ``.nhdr``), read by SimpleITK."""

import os
import re
from pathlib import Path, PureWindowsPath

import numpy as np

from seglens.data.checksums import refuse_damaged_meta_image
from seglens.data.limits import refuse_large_volume
from seglens.data.picture_files import open_regular
from seglens.data.volumes.extra import imported
from seglens.data.volumes.grid import LPS_TO_RAS
from seglens.errors import DataError
from seglens.results.names import count

_SPACES = (
    "left-posterior-superior",
    "lps",
    "right-anterior-superior",
    "ras",
    "left-anterior-superior",
    "las",
)
"""The spaces of NRRD that SimpleITK brings to LPS+; it takes all others for that."""
_LINE = 1 << 16
_HEADER_LINES = 1000
_DATA_FILE = ("elementdatafile", "data file", "datafile")
"""What stands before the name of the file of numbers."""


def read(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of a file as i x j x k, and its affine (RAS+, mm).

    Raises:
        DataError: the file is missing, damaged or too large, not of 3 axes, has several numbers a voxel, or
            doesn't say where it lies.
    """
    with open_regular(file):
        pass
    sitk = imported("SimpleITK", "SimpleITK", file)
    _refuse_outside(file)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    try:
        reader.ReadImageInformation()
        size, samples = reader.GetSize(), reader.GetNumberOfComponents()
    except RuntimeError as error:
        raise _damaged(file, error) from error
    refuse_large_volume(file, size)
    if len(size) != 3 or samples != 1:
        raise DataError(
            f"{file} has {len(size)} axes ({' x '.join(map(str, size))}) with {count(samples, 'number')} at "
            "each voxel; allowed are 3 axes with one. Save each point of time, or each channel, as its own "
            "file."
        )
    if file.suffix.lower() in (".mha", ".mhd"):
        refuse_damaged_meta_image(file)
    else:
        _refuse_nowhere(file)
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise _damaged(file, error) from error
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0), LPS_TO_RAS @ affine


def _refuse_outside(file: Path) -> None:
    """Raise where a header names files of numbers that lie outside of its own folder.

    The name stands behind ``ElementDataFile`` of a MetaImage, ``data file`` of a NRRD; behind ``LIST`` every
    line to the end of the file is one.
    """
    names: list[str] = []
    listed = False
    with file.open("rb") as stream:
        for number, line in enumerate(iter(lambda: stream.readline(_LINE), b"")):
            text = line.decode("latin-1").strip()
            key, _, value = text.replace("=", ":", 1).partition(":")
            if listed:
                names.append(text)
            elif key.strip().lower() in _DATA_FILE:
                listed = value.strip().upper().startswith("LIST")
                names = [] if listed else [value.strip()]
            if not listed and (names or number > _HEADER_LINES):
                break
    folder = Path(os.path.abspath(file.parent))
    for name in names:
        plain = PureWindowsPath(name)
        inside = Path(os.path.normpath(folder / plain.as_posix())).is_relative_to(folder)
        if plain.anchor or not inside:
            raise DataError(
                f"{file} names its numbers {name!r}, outside of its own folder; allowed is a file beside it, "
                "or below. Move the file there and correct the name in the header."
            )


def _refuse_nowhere(file: Path) -> None:
    """Raise where a NRRD doesn't say which side of the patient is which, which is taken for LPS+ unasked."""
    fields = _fields(file)
    space, units = fields.get("space", "").lower(), re.findall(r'"([^"]*)"', fields.get("space units", ""))
    if space not in _SPACES or "space directions" not in fields:
        raise DataError(
            f"{file} doesn't say where its voxels are: its space is {space or 'not told'!r}, and it has "
            f"{'' if 'space directions' in fields else 'no '}space directions. Allowed are "
            f"{', '.join(_SPACES[::2])} with directions. Write the file again with both."
        )
    if not {"mm", "millimeter", "millimeters", ""}.issuperset(each.lower() for each in units):
        raise DataError(
            f"{file} has lengths in {', '.join(dict.fromkeys(units))}; allowed is mm. Write the file in mm."
        )


def segments(file: Path) -> dict[int, str]:
    """Return the names that 3D Slicer writes for the labels of a NRRD; none of other files."""
    if file.suffix.lower() not in (".nrrd", ".nhdr"):
        return {}
    told = {key: value.removeprefix("=") for key, value in _fields(file).items() if key.startswith("segment")}
    value = "_labelvalue"
    labels = {key.removesuffix(value): label for key, label in told.items() if key.endswith(value)}
    named = [(label, told.get(f"{key}_name")) for key, label in labels.items()]
    return {int(label): name for label, name in named if name and label.isdecimal()}


def _fields(file: Path) -> dict[str, str]:
    """Return what the header of a NRRD says, by names in small letters."""
    fields: dict[str, str] = {}
    with file.open("rb") as stream:
        for line in iter(lambda: stream.readline(_LINE).strip(), b""):
            key, _, value = line.decode("utf-8", "replace").partition(":")
            fields.setdefault(key.strip().lower(), value.strip())
    return fields


def _damaged(file: Path, error: Exception) -> DataError:
    lines = [" ".join(line.split()) for line in str(error).splitlines()]
    said = next((line for line in reversed(lines) if line), type(error).__name__)[-200:]
    return DataError(
        f"{file} can't be read by SimpleITK: {said.rstrip('.')}. It is damaged, cut short or of another "
        "kind; replace it or take it out."
    )

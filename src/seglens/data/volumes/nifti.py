"""NIfTI-1 and NIfTI-2 files (``.nii``, ``.nii.gz``), read and written by nibabel."""

import gzip
import logging
from pathlib import Path
from typing import Any

import numpy as np

from seglens.data.checksums import finish_gzip
from seglens.data.limits import refuse_large_volume
from seglens.data.picture_files import open_regular
from seglens.data.volumes.extra import imported
from seglens.errors import DataError

SAME_SIZE = 0.01
"""How far the sides of a voxel may differ between sform and qform, as a share of them."""


def read(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of a file, its slope and intercept applied, and its affine (RAS+, mm).

    The affine is that of the sform where its code is above 0, else of the qform, as the standard has it.
    Axes of length 1 behind the third are dropped. Integers stay integers where nothing scales them.

    Raises:
        DataError: the file is missing, damaged, cut short or too large, or its header says nothing, or two
            things, of where it lies.
    """
    with open_regular(file):
        pass
    nibabel = imported("nibabel", "nibabel", file)
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)  # what it mends in headers is judged here
    try:
        image = nibabel.load(file)
    except Exception as error:  # a damaged header makes the reader raise almost anything
        raise _damaged(file, error) from error
    header, shape = image.header, image.shape
    if not isinstance(image, nibabel.Nifti1Image):
        raise DataError(
            f"{file} is {type(image).__name__}, not NIfTI-1 or NIfTI-2 in one file. Convert it to .nii.gz."
        )
    refuse_large_volume(file, shape)
    if int(header["sform_code"]) <= 0 and int(header["qform_code"]) <= 0:
        raise DataError(
            f"{file} doesn't say where its voxels are: the codes of sform and qform are both 0, so that left "
            "and right aren't known. Write the header with an affine (nibabel: image.set_sform(affine, 1))."
        )
    if image.dataobj.offset < header.single_vox_offset:
        raise _damaged(file, ValueError(f"its numbers begin at byte {image.dataobj.offset}, in the header"))
    if int(header["sform_code"]) > 0 and int(header["qform_code"]) > 0:
        try:
            forms = header.get_sform(), header.get_qform()
            ways = ["".join(nibabel.aff2axcodes(each)) for each in forms]
        except (ValueError, TypeError) as error:  # not finite, all zeros, or no rotation
            raise _damaged(file, ValueError(f"sform or qform say no place ({error})")) from error
        if ways[0] != ways[1]:
            raise DataError(
                f"{file} says two things of where its voxels are: its axes run {ways[0]} by the sform and "
                f"{ways[1]} by the qform, and tools differ in which they believe. Keep the right one "
                "(nibabel: image.set_qform(image.get_sform(), 1), or the other way round)."
            )
        sizes = [np.linalg.norm(each[:3, :3], axis=0) for each in forms]
        if not np.allclose(sizes[0], sizes[1], rtol=SAME_SIZE):
            raise DataError(
                f"{file} says two things of how large its voxels are: {_spelled(sizes[0])} by the sform and "
                f"{_spelled(sizes[1])} by the qform, and tools differ in which they believe. Keep the right "
                "one (nibabel: image.set_qform(image.get_sform(), 1), or the other way round)."
            )
    stored = _stored_header(file, type(header), nibabel)
    if int(header["sform_code"]) <= 0 and not (stored["pixdim"][1:4] > 0).all():
        raise DataError(
            f"{file} has voxels of {_spelled(stored['pixdim'][1:4])}; allowed are lengths above 0. Write the "
            "right ones into its header (nibabel: image.header.set_zooms)."
        )
    _refuse_half_scaled(file, float(stored["scl_slope"]), float(stored["scl_inter"]))
    try:
        scale = {"mm": 1.0, "unknown": 1.0, "meter": 1000.0, "micron": 0.001}[header.get_xyzt_units()[0]]
        values = _numbers(image, file)
    except Exception as error:
        raise _damaged(file, error) from error
    if values.dtype == np.float64 and header.get_data_dtype() != np.float64:  # scaled
        values = values.astype(np.float32)
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    return values, np.diag([scale, scale, scale, 1.0]) @ image.affine


def _stored_header(file: Path, kind: Any, nibabel: Any) -> Any:
    """Return the header as it stands in the file, without what nibabel mends in it or takes out unasked."""
    with nibabel.openers.ImageOpener(file) as stream:
        return kind.from_fileobj(stream, check=False)


def _refuse_half_scaled(file: Path, slope: float, shift: float) -> None:
    """Raise where a shift stands beside a slope that scales nothing (0, NaN), or the slope is infinite."""
    if np.isinf(slope) or ((not slope or np.isnan(slope)) and not (shift == 0 or np.isnan(shift))):
        raise DataError(
            f"{file} has scl_slope {slope:g} and scl_inter {shift:g}. By the standard such a slope means "
            "that nothing is scaled, and tools differ in whether they add the shift. Write 1 and 0 into its "
            "header, or the right numbers (nibabel: image.header.set_slope_inter)."
        )


def _spelled(sides: np.ndarray) -> str:
    return " x ".join(f"{side:g}" for side in sides)


def _numbers(image: Any, file: Path) -> np.ndarray:
    """Return the numbers of an image of nibabel; a packed file is read to its end, where its checksum is."""
    if file.suffix.lower() != ".gz":
        return np.asarray(image.dataobj)
    with gzip.open(file) as stream:
        values = np.asarray(type(image).from_stream(stream).dataobj)
        finish_gzip(stream)
    return values


def encoded(values: np.ndarray, affine: np.ndarray, about: str, *, packed: bool) -> bytes:
    """Return i x j x k numbers as a NIfTI-1 file with their affine in mm; ``packed`` as ``.nii.gz``.

    ``about`` says in at most 79 characters of ASCII what the numbers are. Same input, same bytes.
    """
    nibabel = imported("nibabel", "nibabel", "Writing a volume")
    image = nibabel.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1, strip_shears=True)
    image.header["descrip"] = about.encode("ascii", "replace")[:79]
    written: bytes = image.to_bytes()
    return gzip.compress(written, compresslevel=6, mtime=0) if packed else written


def _damaged(file: Path, error: Exception) -> DataError:
    said = " ".join(str(error).split())[:200] or type(error).__name__
    return DataError(
        f"{file} can't be read as NIfTI: {said}. It is damaged, cut short or of another kind; replace it or "
        "take it out."
    )

"""DICOM: one series in a folder, or one file of one slice, read by pydicom.

Only what is needed for numbers and places is read. Names, dates and other texts of a header are never kept,
and errors name files and numbers only.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seglens.data.limits import refuse_large_volume
from seglens.data.picture_files import open_regular
from seglens.data.volumes.extra import imported
from seglens.data.volumes.grid import LPS_TO_RAS
from seglens.errors import DataError
from seglens.results.names import count

EVEN = 0.01
"""How far the distances of slices may differ from their median, as a share of it (and .01 mm at least)."""
SQUARE = 1e-3
"""How far the length of a direction, and of the normal of two, may be from 1."""
ALIKE = 1e-4
"""How far direction cosines may differ within a series, and spacings as a share of them."""

_PLACE = {"PixelSpacing": 2, "ImagePositionPatient": 3, "ImageOrientationPatient": 6}
"""What says where a slice is, and how many numbers that takes."""

_OTHERS = {
    "1.2.840.10008.5.1.4.1.1.66.4": ("a segmentation (SEG)", "segimage2itkimage of dcmqi"),
    "1.2.840.10008.5.1.4.1.1.66.7": ("a segmentation (label map)", "segimage2itkimage of dcmqi"),
    "1.2.840.10008.5.1.4.1.1.481.2": ("a dose (RTDOSE), whose numbers have a DoseGridScaling", "plastimatch"),
    "1.2.840.10008.5.1.4.1.1.481.3": ("a set of contours (RTSTRUCT)", "plastimatch, or 3D Slicer"),
}
"""Objects that are no series of pictures, by SOPClassUID, and what converts them."""

_LEFT = ("dicomdir", "thumbs.db", "desktop.ini")


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of a series as i (columns) x j (rows) x k (slices), and the affine (RAS+, mm).

    Slices are sorted along their normal. The slope and intercept of each slice are applied: Hounsfield units
    of a CT. MONOCHROME1, where low numbers are bright, is turned round within the range of the stored bits.
    Padding (PixelPaddingValue, perhaps up to PixelPaddingRangeLimit; DICOM PS3.3 C.7.5.1.1.2) is no part of
    the picture. It becomes the lowest number that is, and never one above 0: air of a CT, black of others.

    Raises:
        DataError: a file is no DICOM picture of one grey slice; files are of several series, sizes or
            directions; slices are missing, doubled, or slide sideways (a tilted gantry); a header lacks the
            place or the spacing.
    """
    files = sorted(
        file
        for file in (path.iterdir() if path.is_dir() else [path])
        if not file.name.startswith(".") and file.name.lower() not in _LEFT and not file.is_dir()
    )
    if not files:
        raise DataError(f"{path} holds no file; allowed is a folder of the files of one DICOM series.")
    if volumes := [
        file for file in files if file.name.lower().endswith((".nii", ".nii.gz", ".mha", ".nrrd"))
    ]:
        raise DataError(
            f"{path} is a folder of volumes, such as {volumes[0].name}; allowed is a volume, or a folder of "
            "one DICOM series. Name the files themselves, or the set that they belong to with --data."
        )
    slices = [(_header(file), file) for file in files]
    _refuse_mixed(slices, path)
    first = slices[0][0]
    across, down, normal = _directions(first)
    slices.sort(key=lambda entry: float(np.dot(normal, _position(entry[0]))))
    step = _step(slices, normal, path)
    rows, columns = int(first.Rows), int(first.Columns)
    refuse_large_volume(path, (columns, rows, len(slices)))
    stack, padding = (np.stack(part) for part in zip(*(_numbers(file) for _, file in slices), strict=True))
    if padding.all():
        raise DataError(
            f"{path} holds nothing but padding (PixelPaddingValue). Use files that come from the scanner."
        )
    stack[padding] = min(float(stack[~padding].min()), 0.0)
    values = stack.transpose(2, 1, 0)
    affine = np.eye(4)
    row_side, column_side = (float(side) for side in first.PixelSpacing)
    affine[:3, 0], affine[:3, 1] = across * column_side, down * row_side
    affine[:3, 2], affine[:3, 3] = normal * step, _position(slices[0][0])
    return values, LPS_TO_RAS @ affine


def _header(file: Path) -> Any:
    """Read a header without pixels, and refuse what is not one grey slice with its place."""
    found = _opened(file, pixels=False)
    if other := _OTHERS.get(str(found.get("SOPClassUID"))):
        raise DataError(
            f"{file} is {other[0]}; allowed are pictures. Take it out of this folder. Convert it to NIfTI on "
            f"the grid of its series ({other[1]})."
        )
    try:
        frames, samples = int(found.get("NumberOfFrames") or 1), int(found.get("SamplesPerPixel") or 1)
    except (TypeError, ValueError) as error:  # such as several of them
        raise _damaged(file, error) from error
    colours = str(found.get("PhotometricInterpretation", "MONOCHROME2"))
    missing = [name for name in ("Rows", "Columns", *_PLACE) if found.get(name) in (None, "")]
    if "Rows" in missing or "Columns" in missing:
        raise DataError(f"{file} is a DICOM file without a picture. Take it out of the folder.")
    if frames > 1 or (missing and "SharedFunctionalGroupsSequence" in found):
        raise DataError(
            f"{file} holds {count(frames, 'frame')}, each with a place of its own; allowed is one slice in a "
            "file. Convert it to NIfTI (dcm2niix)."
        )
    if samples != 1 or colours not in ("MONOCHROME1", "MONOCHROME2"):
        raise DataError(
            f"{file} holds {count(samples, 'number')} at each pixel ({colours}); allowed are grey slices "
            "(MONOCHROME1, MONOCHROME2). Save it as a PNG to use it as a picture."
        )
    if missing:
        raise DataError(
            f"{file} doesn't say {', '.join(missing)}: it isn't known where its pixels are. Use files that "
            "come from the scanner, or convert it with the right spacing."
        )
    if "ModalityLUTSequence" in found:
        raise DataError(
            f"{file} turns its numbers into units by a table (ModalityLUTSequence), which is not read here; "
            "allowed are RescaleSlope and RescaleIntercept. Convert it to NIfTI (dcm2niix)."
        )
    if found.get("HighBit", 0) + 1 != found.get("BitsStored", 1):
        raise DataError(
            f"{file} has HighBit {found.get('HighBit')} and BitsStored {found.get('BitsStored')}; allowed is "
            "one less than BitsStored, else it isn't known which bits are its numbers. Convert it to NIfTI."
        )
    _refuse_nowhere(found, file)
    return found


def _refuse_nowhere(header: Any, file: Path) -> None:
    """Raise where a header says no place: too few numbers, no lengths, or no two right-angled directions."""
    for name, length in _PLACE.items():
        try:
            values = np.atleast_1d(np.array(header.get(name), dtype=np.float64))
        except (TypeError, ValueError) as error:
            raise _damaged(file, error) from error
        if len(values) != length or not np.isfinite(values).all() or (length == 2 and values.min() <= 0):
            raise DataError(
                f"{file} has {name} {values.tolist()}; allowed are {length} finite numbers"
                f"{' above 0' * (length == 2)}. Use files that come from the scanner."
            )
    across, down, normal = _directions(header)
    if max(abs(np.linalg.norm(each) - 1) for each in (across, down, normal)) > SQUARE:
        raise DataError(
            f"{file} has ImageOrientationPatient {[*across.tolist(), *down.tolist()]}; allowed are two "
            "directions of length 1 at a right angle. Use files that come from the scanner."
        )


def _opened(file: Path, *, pixels: bool) -> Any:
    pydicom = imported("pydicom", "pydicom", file)
    with open_regular(file) as stream:
        try:
            return pydicom.dcmread(stream, stop_before_pixels=not pixels)
        except pydicom.errors.InvalidDicomError as error:
            raise DataError(
                f"{file} is no DICOM file. Take it out: a series is read from a folder of its own."
            ) from error
        except Exception as error:  # a damaged header makes the reader raise almost anything
            raise _damaged(file, error) from error


def _refuse_mixed(slices: Sequence[tuple[Any, Path]], path: Path) -> None:
    """Raise where the files are not of one series, one size and one direction."""
    first, facts = slices[0][0], defaultdict[str, dict[object, list[Path]]](lambda: defaultdict(list))
    for header, file in slices:
        facts["series"][str(header.get("SeriesInstanceUID"))].append(file)
        facts["frames of reference"][str(header.get("FrameOfReferenceUID"))].append(file)
        facts["units"][str(header.get("RescaleType")), "RescaleSlope" in header].append(file)
        facts["sizes"][int(header.Columns), int(header.Rows)].append(file)
        facts["spacings"][np.allclose(header.PixelSpacing, first.PixelSpacing, ALIKE, 0)].append(file)
        apart = np.abs(np.subtract(_directions(header), _directions(first))).max()
        facts["directions"][bool(apart <= ALIKE)].append(file)
    for what, groups in facts.items():
        if len(groups) > 1:
            listed = ", ".join(f"{len(files)} like {files[0].name}" for files in groups.values())
            raise DataError(
                f"{path} holds slices of {len(groups)} {what}: {listed}. Allowed is one series in a folder: "
                "move the others to folders of their own."
            )


def _directions(header: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the directions (LPS+) in which columns and rows are counted, and the normal of both."""
    cosines = np.array([float(part) for part in header.ImageOrientationPatient])
    across, down = cosines[:3], cosines[3:]
    return across, down, np.cross(across, down)


def _position(header: Any) -> np.ndarray:
    return np.array([float(part) for part in header.ImagePositionPatient])


def _step(slices: Sequence[tuple[Any, Path]], normal: np.ndarray, path: Path) -> float:
    """Return the millimetres from slice to slice; of a slice alone, its thickness."""
    if len(slices) == 1:
        header, file = slices[0]
        step = _number(header, "SpacingBetweenSlices", file) or _number(header, "SliceThickness", file)
        if not step:
            raise DataError(
                f"{file} is one slice and doesn't say how thick it is (SliceThickness). Add the other slices "
                "of its series, or use files that come from the scanner."
            )
        return abs(step)  # a sign says in which order slices come, and there is one
    places = np.array([_position(header) for header, _ in slices])
    steps = np.diff(places @ normal)
    usual = float(np.sort(steps)[(len(steps) - 1) // 2])  # the lower median: of two, that without a gap
    allowed = max(EVEN * usual, 0.01)
    names = [file.name for _, file in slices]
    for place, step in enumerate(steps.tolist()):
        one, other = names[place], names[place + 1]
        if step <= allowed:
            raise DataError(
                f"{path} holds two slices at one place ({one} and {other}, {step:.3g} mm apart). Remove the "
                "one that is too many, or move the second scan to a folder of its own."
            )
        if abs(step - usual) > allowed:
            raise DataError(
                f"{path} lacks slices, or they are unevenly spaced: {one} and {other} are {step:.4g} mm "
                f"apart, the others {usual:.4g} mm. Add what is missing, or resample the series."
            )
    aside = np.diff(places, axis=0) - steps[:, None] * normal
    if np.abs(aside).max() > max(allowed, EVEN * min(float(side) for side in slices[0][0].PixelSpacing)):
        raise DataError(
            f"{path} was made with a tilted gantry: from slice to slice it slides {np.abs(aside).max():.3g} "
            "mm sideways, which no regular grid shows. Resample it (dcm2niix does)."
        )
    return usual


def _numbers(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows x columns of a slice in its units, and which of them are padding."""
    found = _opened(file, pixels=True)
    try:
        stored = found.pixel_array
    except Exception as error:
        syntax = getattr(getattr(found, "file_meta", None), "TransferSyntaxUID", None)
        kind = getattr(syntax, "name", "unknown")
        raise DataError(
            f"The pixels of {file} can't be decoded (packed as {kind}): it is damaged, or needs a decoder "
            "that is not installed. Unpack it first (gdcmconv --raw, or dcmdjpeg)."
        ) from error
    if stored.shape != (int(found.Rows), int(found.Columns)):
        raise _damaged(file, ValueError("it holds another number of pixels than it says"))
    padding = _padding(found, stored, file)
    if str(found.get("PhotometricInterpretation", "")) == "MONOCHROME1":
        bits, signed = int(found.BitsStored), bool(found.PixelRepresentation)
        ends = -1 if signed else 2**bits - 1  # lowest plus highest number
        stored = ends - stored.astype(np.int32)
    slope, shift = _number(found, "RescaleSlope", file), _number(found, "RescaleIntercept", file) or 0.0
    slope = 1.0 if slope is None else slope
    if slope == 0:
        raise DataError(
            f"{file} has RescaleSlope 0, which leaves nothing of its numbers. Use files that come from the "
            "scanner, or remove RescaleSlope and RescaleIntercept."
        )
    values: np.ndarray = stored.astype(np.float32) * slope + shift
    return values.astype(np.float32), padding


def _padding(header: Any, stored: np.ndarray, file: Path) -> np.ndarray:
    """Return which stored numbers are padding, by the header."""
    ends = [_number(header, name, file) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    if ends[0] is None:
        return np.zeros(stored.shape, dtype=bool)
    # Some scanners write a negative one without its sign: in the bits of the pixels it is the same.
    numbers = np.array([each for each in ends if each is not None]).astype(np.int64).astype(stored.dtype)
    return (stored >= numbers.min()) & (stored <= numbers.max())


def _number(header: Any, name: str, file: Path) -> float | None:
    """Return a number of a header; None where it has none."""
    try:
        value = header.get(name)
        number = None if value in (None, "") else float(value)
    except (TypeError, ValueError):  # a word, or several numbers
        number = float("nan")
    if number is not None and not np.isfinite(number):
        raise DataError(
            f"{file} has a {name} that is not one finite number. Use files that come from the scanner."
        )
    return number


def _damaged(file: Path, error: Exception) -> DataError:
    said = type(error).__name__
    return DataError(
        f"{file} can't be read as DICOM ({said}). It is damaged, cut short or of another kind; replace it or "
        "take it out."
    )

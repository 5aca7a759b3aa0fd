"""Objects of masks as files that other programs open: COCO, GeoJSON and label TIFF.

Each picture is written when it is done, so that memory doesn't grow with their number; `finish` puts the
parts of the one COCO file together. What a program means by a coordinate is said where its file is written.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from seglens.errors import SettingError, unknown_name
from seglens.exports import coco, geojson, label_tiff
from seglens.exports.marked import Marked, Picture, files_from_here

__all__ = [
    "FORMATS",
    "Marked",
    "Picture",
    "check_formats",
    "files_from_here",
    "finish",
    "make_folders",
    "write_picture",
]

Writer = Callable[[Picture, Sequence[Marked], Path], Mapping[str, str]]

FORMATS: dict[str, Writer] = {
    "coco": coco.write_part,
    "geojson": geojson.write,
    "tiff": label_tiff.write,
}
"""Each writes the objects of one picture below a folder, and returns its files below that folder."""


def check_formats(formats: Sequence[str], dims: int) -> None:
    """Refuse a format that is unknown, and any for volumes.

    Raises:
        UnknownNameError: there is no such format.
        SettingError: the pictures are volumes.
    """
    for name in formats:
        if name not in FORMATS:
            raise unknown_name("format of --export", name, FORMATS)
    if formats and dims != 2:
        raise SettingError(
            f"--export {' '.join(formats)} is for pictures, and these are volumes. Their masks are NIfTI "
            "(.nii.gz), which ITK-SNAP, 3D Slicer and napari open. Leave --export out."
        )


def write_picture(
    formats: Sequence[str], picture: Picture, marked: Sequence[Marked], folder: Path
) -> dict[str, str]:
    """Write the objects of a picture in each format; return the files, without the parts of a larger one."""
    return {about: file for name in formats for about, file in FORMATS[name](picture, marked, folder).items()}


def finish(formats: Sequence[str], categories: Sequence[str], folder: Path) -> None:
    """Put together what is one file for all pictures; ``categories`` are all that objects may have."""
    if "coco" in formats:
        coco.join(categories, folder)


def make_folders(formats: Sequence[str], folder: Path) -> None:
    """Make the folders that several processes write into."""
    for name in formats:
        (folder / {"coco": coco.PARTS, "geojson": geojson.FOLDER, "tiff": label_tiff.FOLDER}[name]).mkdir(
            parents=True, exist_ok=True
        )

"""Label images as TIFF, for napari and Fiji: a pixel's value is the number of its object, 0 where none is.

Values are whole numbers of 16 bits, which ImageJ reads as they are (it has no whole numbers of 32 bits). A
label image has no coordinates of its own: its pixels are those of the picture.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from seglens.data.tiff import write_labels
from seglens.errors import DataError
from seglens.exports.marked import Marked, Picture

FOLDER, MOST = "labels", 65535


def write(picture: Picture, marked: Sequence[Marked], folder: Path) -> Mapping[str, str]:
    """Write the label image of a picture, or one for each kind of objects that may overlap; return the files.

    Raises:
        DataError: there are more objects than 16 bits can number.
    """
    files = {}
    for each in marked:
        highest = int(each.numbers.max()) if each.numbers.numel() else 0
        if highest > MOST:
            raise DataError(
                f"{picture.place} has {highest} objects; {MOST} can be numbered in a label image."
            )
        file = "/".join(filter(None, (FOLDER, each.folder, f"{picture.place}.tif")))
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        write_labels(each.numbers.numpy().astype(np.uint16), folder / file)
        files[f"labels {each.folder}".strip()] = file
    return files

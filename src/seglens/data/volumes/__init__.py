"""Volumes with their place in the patient: read from NIfTI, DICOM, MetaImage and NRRD, written as NIfTI.

The libraries that open the files come with the extra ``medical``::

    volume = read_volume(Path("scan.nii.gz"))      # or a folder of one DICOM series
    volume.values.shape, volume.grid.spacing       # (512, 512, 80), (0.7, 0.7, 5.0) in mm
    write_mask(Path("mask.nii.gz"), mask, volume.grid)
"""

from seglens.data.volumes.grid import Grid
from seglens.data.volumes.reading import SUFFIXES, Volume, is_volume, read_labels, read_volume
from seglens.data.volumes.writing import write_map, write_mask

__all__ = [
    "SUFFIXES",
    "Grid",
    "Volume",
    "is_volume",
    "read_labels",
    "read_volume",
    "write_map",
    "write_mask",
]

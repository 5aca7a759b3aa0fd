"""Objects in masks: connected pieces, and touching ones cut apart. The one place that takes pieces apart."""

import numpy as np
import torch
from scipy import ndimage

from seglens.shapes import Mask, Region

NECK = 1.0
"""Pixels by which the distance to the edge must fall between two centres for a cut between them."""


def pieces(region: Region) -> Mask:
    """Return the number of the connected piece at each pixel, from 1.

    Pixels that touch at a corner hang together. In a volume these are 26 neighbours.
    """
    labels, _ = ndimage.label(region.numpy(), np.ones((3,) * region.ndim))
    return torch.from_numpy(labels.astype(np.int64))


def split_touching(region: Region, spacing: tuple[float, ...] | None = None) -> Mask:
    """Return the number of the object at each pixel, touching round ones cut apart by a watershed.

    Centres are the maxima of the distance to the edge that stand out by `NECK` pixels or more (h-maxima,
    Soille 2003, section 6.3.4); the flood of the distance from them meets where the neck is (Beucher and
    Lantuejoul 1979). ``spacing`` is that of a volume in mm; the neck is then in units of its finest axis.
    """
    from skimage.morphology import h_maxima
    from skimage.segmentation import watershed

    inside = np.pad(region.numpy(), 1)  # the picture's edge is an edge of the object, too
    distance = ndimage.distance_transform_edt(inside, sampling=spacing)
    finest = min(spacing) if spacing is not None else 1.0
    around = np.ones((3,) * inside.ndim)
    centres, _ = ndimage.label(h_maxima(distance / finest, NECK, footprint=around), around)
    found = watershed(-distance, centres, mask=inside, connectivity=around)
    return torch.from_numpy(found[(slice(1, -1),) * inside.ndim].astype(np.int64).copy())


def skeleton(region: Region) -> Region:
    """Return the centre lines, one pixel wide (Zhang, Suen 1984; of volumes Lee et al. 1994)."""
    from skimage.morphology import skeletonize

    return torch.from_numpy(np.asarray(skeletonize(region.numpy()), dtype=bool))

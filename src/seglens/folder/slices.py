"""A volume small enough to scroll through: its picture, masks and maps, with fewer voxels and in 8 bits."""

import torch
from jaxtyping import Float
from torch import Tensor

from seglens.axes import MEAN_ON_GRID
from seglens.data.frame import nearest
from seglens.data.sample import Sample
from seglens.folder.heatmaps import Heatmaps
from seglens.folder.raw import Arrays
from seglens.masks import is_stack, only_valid
from seglens.shapes import AnyMask, Labels, Map, Mask

PICTURE_SIDE, MAP_SIDE = 160, 64
"""Most voxels along a side, of the picture with its masks, and of a map."""
BITS = 8
"""Labels that may overlap in a voxel of 8 bits."""


def slice_arrays(sample: Sample, predicted: AnyMask, heatmaps: Heatmaps) -> Arrays:
    """Return a volume and all that was found in it, to scroll through its slices.

    ``UInt8[z y x]`` are ``image`` (0 to 255 over the model's intensity window, the mean of several channels),
    ``prediction``, ``valid``, ``truth`` where it is known, and a ``region:TARGET`` each. Of labels that may
    overlap, ``prediction`` and ``truth`` are the sum of 2^(i - 1) over the labels i of a voxel; of more than
    eight both are left out, as are those of classes beyond 255. ``map:NAME``, which may have fewer voxels, is
    ``Float[z y x]``, NaN where the map doesn't count or has no value. Of several voxels that become one, a
    picture and a map keep the mean, a mask the middle one.

    ``native Int[3]`` says how many slices, rows and columns the file has. ``spacing Float[3]`` is the length
    of a voxel of ``image`` along each axis, in mm; it is left out where the file told none.
    """
    low, high = heatmaps.spec.window
    image = ((sample.image - low) / (high - low)).clamp(0, 1).mean(0).cpu()
    size = tuple(min(side, PICTURE_SIDE) for side in image.shape)
    masks = {"prediction": predicted}
    if sample.mask is not None:
        masks["truth"] = only_valid(sample.mask, sample.valid, 3)
    if is_stack(predicted):
        masks = {name: _bits(mask) for name, mask in masks.items() if len(mask) <= BITS}
    masks = {name: mask for name, mask in masks.items() if int(mask.max()) < 256}  # held in bytes
    masks["valid"] = sample.valid.long()
    for row in heatmaps.rows:
        masks[f"region:{row.target}"] = heatmaps.arrays[f"region:{row.target}"].long()
    found = {name: nearest(mask.cpu(), size).to(torch.uint8) for name, mask in masks.items()}
    found["image"] = (_fewer(image, PICTURE_SIDE) * 255).round().to(torch.uint8)
    for row in heatmaps.every_row:
        name = heatmaps.name(row)
        values = heatmaps.arrays[f"map:{name}"]
        counted = heatmaps.arrays.get(f"counted:{name}")
        if counted is not None:
            values = values.masked_fill(counted == 0, torch.nan)
        found[f"map:{name}"] = _fewer(values, MAP_SIDE)
    found["native"] = torch.tensor(image.shape)
    if heatmaps.frame.spacing:
        lengths = zip(image.shape, size, heatmaps.frame.spacing, strict=True)
        found["spacing"] = torch.tensor([old / new * mm for old, new, mm in lengths])
    return found


def _bits(mask: Labels) -> Mask:
    places = 2 ** torch.arange(len(mask))
    return (mask.cpu() * places.reshape(-1, 1, 1, 1)).sum(0)


def _fewer(values: Map, side: int) -> Float[Tensor, "z y x"]:
    """Return values with no side above ``side``, each the mean of a box, NaN where the box holds none."""
    size = tuple(min(length, side) for length in values.shape)
    known = values.isfinite()
    mean = MEAN_ON_GRID[3]
    total = mean(values.where(known, 0).float()[None, None], size)[0, 0]
    weight = mean(known.float()[None, None], size)[0, 0]
    return total / weight  # 0 / 0 is NaN

"""The same functions for both kinds of masks: one class for each pixel, or labels that may overlap.

Where classes exclude one another a mask holds class indices, ``Int[h w]`` (in a batch ``Int[b h w]``). Where
they may overlap it is a stack, ``Bool[l h w]`` (``Bool[b l h w]``): class i is layer i - 1, and the
background, class 0, is where no layer is set. Volumes have one axis more. The functions take single masks
and batches; ``dims`` is how many axes a picture has, 3 for volumes.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from seglens.shapes import AnyMask, Labels, Mask, Region

Given = Int[Tensor, "..."] | Bool[Tensor, "..."]
"""Masks of either kind, of one picture or of a batch."""

Found = Bool[Tensor, "..."]
"""Regions, of one picture or of a batch."""


def is_stack(masks: Given) -> bool:
    """Whether ``masks`` are labels that may overlap."""
    return masks.dtype == torch.bool


def of_class(masks: Given, class_index: int, dims: int) -> Found:
    """Return the pixels of a class, of pictures of ``dims`` axes; class 0 of a stack is where no label is."""
    if not is_stack(masks):
        return masks == class_index
    return masks.select(-dims - 1, class_index - 1) if class_index else ~masks.any(-dims - 1)


def foreground(masks: Given, dims: int) -> Found:
    """Return the pixels of any class but the background, of pictures of ``dims`` axes."""
    return masks.any(-dims - 1) if is_stack(masks) else masks > 0


def only_valid(masks: Given, valid: Found, dims: int) -> Given:
    """Return the masks with background wherever a pixel, along ``dims`` axes, is not valid."""
    return masks & valid.unsqueeze(-dims - 1) if is_stack(masks) else masks.masked_fill(~valid, 0)


def painted(mask: Labels, numbers: Sequence[int]) -> Mask:
    """Return one number a pixel: label after label is written over those before it, background is 0.

    That is how nnU-Net makes one label map of its regions (``regions_class_order``).
    """
    found = torch.zeros(mask.shape[1:], dtype=torch.int64)
    for layer, number in zip(mask.cpu(), numbers, strict=True):
        found[layer] = number
    return found


def class_pixels(mask: AnyMask, valid: Region, num_classes: int) -> Int[Tensor, "classes"]:
    """Count the valid pixels of every class; in a stack a pixel counts for each of its labels."""
    if not is_stack(mask):
        return torch.bincount(mask[valid], minlength=num_classes)[:num_classes]
    pixels = (of_class(mask, index, valid.ndim) & valid for index in range(num_classes))
    return torch.stack([each.sum() for each in pixels])

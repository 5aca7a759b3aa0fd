"""Patches of pictures and volumes larger than one input: drawn at random, or such that they cover a picture.

A third of the patches drawn lies about a marked pixel (Isensee et al. 2021, nnU-Net: foreground is
oversampled), because of small objects most patches hold nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from seglens.axes import InputSize, sides_of
from seglens.data.frame import Frame
from seglens.masks import foreground, of_class
from seglens.predict.tiles import Windows
from seglens.shapes import AnyMask, Region

ABOUT_MARKED = 1 / 3
"""The share of patches that are drawn about a marked pixel."""

MOST_PLACES = 1000
"""Marked pixels of a class that are kept to draw from, evenly spread over all of them."""


@dataclass(frozen=True)
class Patch:
    """Which part of a picture, and what of the patch no patch before it holds (along each axis)."""

    frame: Frame
    fresh: tuple[slice, ...]


def covering(scaled: Sequence[int], size: InputSize) -> list[Patch]:
    """Return the fewest patches that cover a picture of ``scaled`` pixels; each pixel is fresh in one."""
    whole = tuple(scaled)
    windows = Windows(whole, whole, size, overlap=0.0)
    found = []
    for place in windows.places:
        corner, fresh = [], []
        for each, at in zip(windows.covers, place, strict=True):
            before = each.starts[at - 1] + each.reach if at else 0
            corner.append(each.margin - each.starts[at])
            fresh.append(slice(each.margin + before - each.starts[at], each.margin + each.reach))
        found.append(Patch(Frame(whole, size, whole, tuple(corner)), tuple(fresh)))
    return found


def number_in(scaled: Sequence[int], size: InputSize) -> int:
    """Return how many patches `covering` has."""
    sides = sides_of(size, len(scaled))
    return math.prod(-(-length // side) for length, side in zip(scaled, sides, strict=True))


def marked_places(mask: AnyMask, valid: Region, num_classes: int) -> list[Int[Tensor, "n axes"]]:
    """Return valid pixels of each class that there is, `MOST_PLACES` at most, without those of background."""
    found = []
    marked = foreground(mask, valid.ndim) & valid
    for index in range(1, num_classes) if bool(marked.any()) else ():
        places = (of_class(mask, index, valid.ndim) & valid).nonzero()
        if len(places):
            found.append(places[:: -(-len(places) // MOST_PLACES)].clone())
    return found


def drawn(
    scaled: Sequence[int],
    size: InputSize,
    places: Sequence[Int[Tensor, "n axes"]],
    generator: torch.Generator,
) -> Frame:
    """Draw a patch of ``size`` (of every side, or of each): about one of ``places``, or anywhere."""
    about = None
    if places and float(torch.rand((), generator=generator)) < ABOUT_MARKED:
        chosen = places[int(torch.randint(len(places), (), generator=generator))]
        about = chosen[int(torch.randint(len(chosen), (), generator=generator))].tolist()
    corner = []
    for axis, (length, side) in enumerate(zip(scaled, sides_of(size, len(scaled)), strict=True)):
        room = length - side
        first = int(torch.randint(max(0, room) + 1, (), generator=generator))
        if about is not None:
            first = min(max(0, about[axis] - side // 2), max(0, room))
        corner.append(-first if room > 0 else -room // 2)
    return Frame(tuple(scaled), size, tuple(scaled), tuple(corner))

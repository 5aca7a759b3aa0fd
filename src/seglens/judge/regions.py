"""Regions that should not matter: where shortcuts live. Each is found in the picture itself.

`REGIONS` at the foot names them all. Padding is in none of them.
"""

from collections.abc import Callable
from functools import reduce
from operator import and_

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor

from seglens.axes import lines, spanning, widened
from seglens.explain.target import dilate
from seglens.shapes import Images, Regions

BORDER = 1 / 16
"""Width of the border as a share of the picture's shorter side."""

CORNER = 1 / 6
"""Side of a corner as a share of the picture's shorter side."""

COLOURFUL = 0.6
"""A pixel whose largest channel exceeds its smallest by this much is of a colour that nature rarely has."""

BLANK = 0.02
"""A pixel this near to black or white in all channels, among others like it, was drawn or clipped."""

SPECK = 1
"""Pixels around a mark that belong to its soft edge."""


def border(images: Images, valid: Regions) -> Regions:
    """A band along the edges of the picture: frames, rulers, the shadow of a lens."""
    depth = _depth(valid)
    return valid & (depth <= widened(_shorter(valid), depth) * BORDER)


def corners(images: Images, valid: Regions) -> Regions:
    """Squares in the four corners of a picture, cubes in the eight of a volume: dates, labels, scale bars."""
    side = _shorter(valid)[:, None] * CORNER
    return reduce(and_, spanning([_from_end(line) < side for line in lines(valid)]), valid)


def marks(images: Images, valid: Regions) -> Regions:
    """Pixels of a saturated colour, with their soft edge: pen, ink, tags of annotation software."""
    vivid = (images.amax(1) - images.amin(1)) > COLOURFUL
    return dilate(vivid & valid, SPECK) & valid


def clipped(images: Images, valid: Regions) -> Regions:
    """Patches of pure black or white, 3 pixels wide at least: text, boxes, masked-out parts, glare."""
    blank = ((images.amax(1) < BLANK) | (images.amin(1) > 1 - BLANK)) & valid
    core = ~dilate(~blank, 1)
    return dilate(core, 1) & blank


def _shorter(valid: Regions) -> Int[Tensor, " b"]:
    return reduce(torch.minimum, [line.sum(1) for line in lines(valid)])


def _from_end(line: Tensor) -> Tensor:
    """How many pixels of the picture lie between each place and the nearer end of it."""
    before = line.cumsum(1)
    return torch.minimum(before, before[:, -1:] - before + 1) - 1


def _depth(valid: Regions) -> Tensor:
    """How deep each pixel lies in the picture, 1 at its edge."""
    return reduce(torch.minimum, spanning([_from_end(line) for line in lines(valid)])) + 1


def elsewhere(regions: Regions, seed_shift: Int[Tensor, "b axes"]) -> Regions:
    """Each region moved by so many rows and columns; what leaves the picture comes in on the other side."""
    moved = [
        region.roll(tuple(shift), tuple(range(region.ndim)))
        for region, shift in zip(regions, seed_shift.tolist(), strict=True)
    ]
    return torch.stack(moved)


def nearest_region(mask: Regions, scaled: tuple[int, ...]) -> Bool[Tensor, "b *scaled"]:
    """Bring masks to ``scaled`` (rows, columns); every pixel takes the nearest."""
    return F.interpolate(mask[:, None].float(), scaled, mode="nearest-exact")[:, 0] > 0


REGIONS: dict[str, Callable[[Images, Regions], Regions]] = {
    "border": border,
    "corners": corners,
    "marks": marks,
    "clipped": clipped,
}
"""What `audit` can look at without a mask. To add one: one function, one line."""

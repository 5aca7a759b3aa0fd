"""Specimens: stained cells as under a microscope, drawn by formula, so that the truth is known.

A picture shows either cells of interest, whose nucleus is a ring, or look-alikes, whose nucleus is as large
and as dark but solid; look-alikes are background in the mask. Stain, light, focus and noise vary. A tag, as
annotation software prints it, may stand in the background; ``tag`` says where, as in `planting`. With the
same seed such sets differ in the placing of tags and in nothing else: cells, light and noise are the same to
the last bit.
"""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torchvision.transforms.v2 import functional as v2

from seglens.data.planting import (
    GAP,
    PLACEMENTS,
    Specimen,
    TagLook,
    UntaggedScene,
    eight_bit,
    plant,
    write_splits,
)
from seglens.data.transforms import sample_generator
from seglens.errors import SettingError, unknown_name
from seglens.files.overwrite import check_output
from seglens.shapes import Image, Map, Region

HAEMATOXYLIN, EOSIN = (0.65, 0.70, 0.29), (0.07, 0.99, 0.11)
"""Optical density of the two stains in red, green and blue (Ruifrok and Johnston, 2001)."""
HOLE = 0.9
"""How much less the middle of a ring-shaped nucleus absorbs: what tells the two kinds apart."""

Numbers = Float[Tensor, " cells"]
Points = Float[Tensor, "cells 2"]
CellMaps = Float[Tensor, "cells h w"]


def specimens(
    num: int,
    *,
    size: int = 128,
    seed: int = 0,
    tag: str = "none",
    first: int = 0,
    look: TagLook | None = None,
) -> list[Specimen]:
    """Draw ``num`` specimens of ``size`` x ``size`` pixels, every other one with cells of interest.

    The one at place ``i`` depends on ``first + i``, ``size`` and ``seed`` alone, not on ``num``.

    Raises:
        UnknownNameError: ``tag`` is none of the three.
        SettingError: ``size`` is too small to show a nucleus.
    """
    if tag not in PLACEMENTS:
        raise unknown_name("tag", tag, PLACEMENTS)
    return plant(specimen_scenes(num, size=size, seed=seed, first=first, look=look), tag, look, first=first)


def specimen_scenes(
    num: int, *, size: int = 128, seed: int = 0, first: int = 0, look: TagLook | None = None
) -> list[UntaggedScene]:
    """Draw the same specimens before it is known which of them bear a tag, for `plant`.

    Raises:
        SettingError: ``size`` is too small to show a nucleus.
    """
    if size < 48:
        raise SettingError(f"Specimens need at least 48 pixels a side to show a nucleus, got {size}.")
    return [_scene(index, size, seed, look or TagLook()) for index in range(first, first + num)]


def write_specimens(
    folder: Path,
    *,
    num_train: int = 160,
    num_valid: int = 32,
    num_test: int = 64,
    size: int = 128,
    seed: int = 0,
    tag: str = "none",
    look: TagLook | None = None,
    force: bool = False,
) -> Path:
    """Write specimens as a data set, with train, valid and test, as `write_splits` does; return where.

    Raises:
        OutputExistsError: ``folder`` holds something and ``force`` is not given.
    """
    check_output(folder, "specimens", force=force)
    first, splits = 0, {}
    for split, num in (("train", num_train), ("valid", num_valid), ("test", num_test)):
        splits[split] = specimens(num, size=size, seed=seed, tag=tag, first=first, look=look)
        first += num
    return write_splits(folder, splits, force=force)


def _scene(index: int, size: int, seed: int, look: TagLook) -> UntaggedScene:
    """Draw one. The tag's place is drawn last, so that its size moves nothing else."""
    has_objects = index % 2 == 0
    generator = sample_generator(seed, 0, index)
    radii, centres = _place_cells(size, generator)
    cells, absorbed = _stain(radii, centres, size, has_objects, generator)
    untagged = _photograph(absorbed, generator)
    spot = _free_spot(radii, centres, size, look, generator)
    return UntaggedScene(f"{index:04d}", untagged, cells, has_objects, spot)


def _place_cells(size: int, generator: torch.Generator) -> tuple[Numbers, Points]:
    """Draw three to six cells that don't overlap: radii and centres (row, column), in pixels."""
    num = int(torch.randint(3, 7, (), generator=generator))
    radii = _uniform(0.085, 0.12, num, generator) * size
    centres = torch.empty(0, 2)
    for radius in radii:
        centres = torch.cat(
            [centres, _free_point(centres, radii[: len(centres)] + radius, radius, size, generator)]
        )
    return radii, centres


def _free_spot(
    radii: Numbers, centres: Points, size: int, look: TagLook, generator: torch.Generator
) -> Float[Tensor, " 2"]:
    """Draw the place of a tag, away from the cells."""
    reach = (look.radius + GAP) * size
    return _free_point(centres, radii * 1.2 + reach, reach, size, generator)[0]


def _free_point(
    taken: Points, distances: Numbers, margin: Tensor | float, size: int, generator: torch.Generator
) -> Float[Tensor, "1 2"]:
    """Draw a point that keeps its distance from each of ``taken``, or the freest of many."""
    points = margin + torch.rand(256, 2, generator=generator) * (size - 2 * margin)
    if not len(taken):
        return points[:1]
    room = (torch.cdist(points, taken) - distances).min(dim=1).values
    free = (room > 0).float().argmax()  # the first, so that crowded corners aren't preferred
    return points[free if room[free] > 0 else room.argmax()][None]


def _stain(
    radii: Numbers, centres: Points, size: int, has_objects: bool, generator: torch.Generator
) -> tuple[Region, Image]:
    """Draw the cells: where they are, and how much light of each colour they absorb (optical density)."""
    num = len(radii)
    body = _outline(centres, radii, size, 0.06, generator)
    shift = _uniform(-0.15, 0.15, (num, 2), generator) * radii[:, None]
    nucleus_radii = radii * _uniform(0.5, 0.6, num, generator)
    nucleus = _outline(centres + shift, nucleus_radii, size, 0.05, generator)
    # Rims a pixel or so wide, and plasma that is a little denser towards its own.
    plasma = torch.sigmoid((1 - body) * radii[:, None, None] * 1.5) * (0.3 + 0.1 * body.clamp(max=1) ** 2)
    chromatin = torch.sigmoid((1 - nucleus) * radii[:, None, None])
    chromatin = chromatin * (_ring(nucleus) if has_objects else _solid(nucleus))
    strengths = _uniform(0.8, 1.2, num, generator)[:, None, None]
    # Slides differ in stain, nuclei are grainy, and the ground is not clean.
    eosin = plasma.amax(0) * _uniform(0.6, 1.1, 1, generator) + 0.05 * _clouds(size, 12, generator)
    grains = 1 + 0.25 * _clouds(size, 32, generator)
    haematoxylin = (chromatin * strengths).amax(0) * grains * _uniform(0.8, 1.2, 1, generator)
    haematoxylin = haematoxylin + 0.03 * _clouds(size, 6, generator)
    densities = torch.stack([haematoxylin, eosin]).clamp(min=0)
    stains = torch.tensor([HAEMATOXYLIN, EOSIN])
    return (body < 1).any(0), torch.einsum("shw,sc->chw", densities, stains)


def _ring(nucleus: CellMaps) -> CellMaps:
    """Absorb less towards the middle; ``nucleus`` is 0 there and 1 at the rim."""
    return 1 - HOLE * torch.exp(-((nucleus / 0.45) ** 2))


def _solid(nucleus: CellMaps) -> CellMaps:
    """Absorb evenly, and in all as much as the ring does: less by the mean of the hole over the disc."""
    share = 0.45**2 * (1 - math.exp(-1 / 0.45**2))
    return torch.full_like(nucleus, 1 - HOLE * share)


def _photograph(absorbed: Image, generator: torch.Generator) -> Image:
    """Shine uneven light through the stains (Beer-Lambert), focus badly, and count photons; 8 bits."""
    size = absorbed.shape[-1]
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    middle = _uniform(-0.5, 0.5, 2, generator)
    fall = float(_uniform(0.05, 0.22, 1, generator))
    light = 0.94 - fall * ((rows - middle[0]) ** 2 + (columns - middle[1]) ** 2) / 2
    tint = torch.tensor([1.0, 0.97, 0.95]) * _uniform(0.97, 1.03, 3, generator)
    seen = light * tint[:, None, None] * 10**-absorbed
    sigma = float(_uniform(0.5, 1.1, 1, generator)) * size / 128
    sharp = v2.gaussian_blur(seen, kernel_size=[7, 7], sigma=[sigma, sigma])
    noise = float(_uniform(0.02, 0.045, 1, generator))
    counted = sharp + noise * sharp.clamp(min=0).sqrt() * torch.randn(sharp.shape, generator=generator)
    return eight_bit(counted)


def _outline(
    centres: Points, radii: Numbers, size: int, wobble: float, generator: torch.Generator
) -> CellMaps:
    """Return each pixel's distance from each centre, as a fraction of an irregular outline's: 1 on it."""
    pixels = torch.arange(size) + 0.5
    down = pixels[None, :, None] - centres[:, 0, None, None]
    right = pixels[None, None, :] - centres[:, 1, None, None]
    angle = torch.atan2(down, right)
    edge = radii[:, None, None].expand_as(angle)
    for waves in (2, 3, 4):
        height = _uniform(-wobble, wobble, len(radii), generator) * radii
        phase = _uniform(0, 2 * math.pi, len(radii), generator)
        edge = edge + height[:, None, None] * torch.sin(waves * angle + phase[:, None, None])
    return torch.hypot(down, right) / edge


def _clouds(size: int, grain: int, generator: torch.Generator) -> Map:
    """Return smooth noise about 0 with ``grain`` bumps a side."""
    bumps = torch.randn(1, 1, grain, grain, generator=generator)
    return F.interpolate(bumps, size=(size, size), mode="bicubic", align_corners=False)[0, 0]


def _uniform(
    low: float | int, high: float | int, shape: int | tuple[int, ...], generator: torch.Generator
) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)

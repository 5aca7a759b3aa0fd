"""Tags planted in pictures, so that it is known whether reading one pays.

A scene is a picture that shows either objects or look-alikes of them, with a place in its background for a
tag. One rule, the placement, says in which scenes the tag stands:

==================  ====================================================================================
``none``            in none
``with-object``     in exactly the scenes that show objects: reading the tag pays
``independent``     in half of the scenes of either kind: the tag says nothing
==================  ====================================================================================

Scenes alternate, objects first. Sets that are planted by different rules differ in which tags are stamped and
in nothing else: pictures, masks and the places of the tags are the same to the last bit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image as pil
from torch import Tensor

from seglens.data.sample import Sample
from seglens.errors import SettingError, unknown_name
from seglens.files.output import new_folder
from seglens.shapes import Image, Region

PLACEMENTS = ("none", "with-object", "independent")

GAP = 0.04
"""Between a tag and what it must keep away from, as a share of the picture's side."""


@dataclass(frozen=True)
class TagLook:
    """How a tag looks: a plus sign in a ring, as annotation software prints it.

    ``radius`` is a share of the picture's side. ``opacity`` is the tag's contrast: how much of its colour
    covers the picture.
    """

    radius: float = 0.07
    opacity: float = 1.0
    colour: tuple[float, float, float] = (0.0, 0.25, 0.85)

    def __post_init__(self) -> None:
        if not 0 < self.radius < 0.5:
            raise SettingError(f"A tag's radius is {self.radius} of the side, but must lie between 0 and .5.")
        if not 0 < self.opacity <= 1:
            raise SettingError(f"A tag's opacity is {self.opacity}, but must be above 0 and at most 1.")


@dataclass(frozen=True)
class Specimen:
    """One picture with its truth.

    ``cells`` are the pixels of all objects or look-alikes; ``tag`` those of the tag, none where there is no
    tag; ``untagged`` is the picture without it.
    """

    sample: Sample
    cells: Region
    tag: Region
    untagged: Image


@dataclass(frozen=True)
class UntaggedScene:
    """A picture before it is known whether a tag is stamped on it.

    ``things`` are its objects if ``has_objects``, else its look-alikes; ``spot`` is the middle (row, column)
    of the place for a tag, in pixels.
    """

    name: str
    image: Image
    things: Region
    has_objects: bool
    spot: Float[Tensor, " 2"]


def stands(placement: str, index: int) -> bool:
    """Whether the scene at ``index`` bears a tag.

    Of four scenes in a row each pair of (objects or not, independent tag or not) is shown once.

    Raises:
        UnknownNameError: there is no such placement.
    """
    if placement not in PLACEMENTS:
        raise unknown_name("tag", placement, PLACEMENTS)
    rules = {"none": False, "with-object": index % 2 == 0, "independent": index // 2 % 2 == 0}
    return rules[placement]


def plant(
    scenes: Sequence[UntaggedScene], placement: str, look: TagLook | None = None, *, first: int = 0
) -> list[Specimen]:
    """Stamp tags on the scenes that ``placement`` says; ``first`` is the index of the first scene.

    Raises:
        UnknownNameError: there is no such placement.
        SettingError: the scenes don't alternate between objects and look-alikes, objects at even indices.
    """
    look = look or TagLook()
    for index, scene in enumerate(scenes, first):
        if scene.has_objects != (index % 2 == 0):
            kind = "objects" if scene.has_objects else "look-alikes"
            raise SettingError(
                f"Scene {scene.name!r} at index {index} shows {kind}: scenes must alternate, objects at even "
                "indices, or the independent tag would not be independent. Put them in turns."
            )
    return [planted(scene, stands(placement, index), look) for index, scene in enumerate(scenes, first)]


def planted(scene: UntaggedScene, has_tag: bool, look: TagLook) -> Specimen:
    """Return the scene with a tag or without; objects are the mask, look-alikes are background."""
    size = (scene.image.shape[1], scene.image.shape[2])
    tag = mark(scene.spot, size, look) & has_tag
    colour = torch.tensor(look.colour)[:, None, None]
    stamped = look.opacity * colour + (1 - look.opacity) * scene.image
    image = eight_bit(torch.where(tag, stamped, scene.image))
    mask, valid = (scene.things & scene.has_objects).long(), torch.ones(size, dtype=torch.bool)
    return Specimen(Sample(scene.name, image, mask, valid), scene.things, tag, scene.image)


def mark(centre: Float[Tensor, " 2"], size: tuple[int, int], look: TagLook) -> Region:
    """Return the pixels of a tag around ``centre``: a plus sign in a ring."""
    rows, columns = (torch.arange(length) + 0.5 for length in size)
    down, right = (rows - centre[0])[:, None], (columns - centre[1])[None]
    radius = look.radius * min(size)
    half_line = radius / 6
    arm = torch.minimum(down.abs(), right.abs()) < half_line
    far = torch.hypot(down, right)
    return (arm & (far < radius)) | ((far - radius).abs() < half_line)


def write_splits(folder: Path, splits: Mapping[str, Sequence[Specimen]], *, force: bool = False) -> Path:
    """Write specimens as a data set in the layout ``pairs``, a folder for each split, and return where.

    Beside ``images/`` and ``masks/`` each split has ``tags/``: masks of the tags, 255 where one is.

    Raises:
        OutputExistsError: ``folder`` holds something and ``force`` is not given.
    """
    with new_folder(folder, command="specimens", force=force) as new:
        for split, drawn in splits.items():
            for kind in ("images", "masks", "tags"):
                (new / split / kind).mkdir(parents=True)
            for specimen in drawn:
                _write(specimen, new / split)
    return folder


def _write(specimen: Specimen, folder: Path) -> None:
    file = f"{specimen.sample.name}.png"
    pixels = (specimen.sample.image * 255).round().to(torch.uint8).permute(1, 2, 0)
    pil.fromarray(pixels.numpy()).save(folder / "images" / file)
    assert specimen.sample.mask is not None
    for kind, region in (("masks", specimen.sample.mask.bool()), ("tags", specimen.tag)):
        pil.fromarray(region.numpy()).convert("L").save(folder / kind / file)


def eight_bit(image: Image) -> Image:
    """Round as a file will, so that a specimen in memory is the one on disk."""
    return (image.clamp(0, 1) * 255).round() / 255

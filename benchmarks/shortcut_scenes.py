"""Scenes for the planted shortcut: real pictures in which either objects or look-alikes are shown.

Each function returns, for every split, scenes that alternate between objects and look-alikes (see
``seglens.data.planting``), each with a place for a tag and room to move it. Which pictures, crops and places
are drawn follows from the seed alone.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from seglens.data.images import read_pixels
from seglens.data.layout import DataSettings, Entry, Split
from seglens.data.nuclei import kind_of_picture
from seglens.data.opening import open_data
from seglens.data.planting import GAP, TagLook, UntaggedScene
from seglens.data.sample import Sample
from seglens.shapes import Image, Region

SIZE = 128
HOLE, WIDTH = 0.25, 0.45
"""How much light the middle of a nucleus that counts loses, and how wide that middle is (of its depth)."""
LEAST_NUCLEI = 3
COVERED = (0.08, 0.35)
"""Least and largest share of a crop that nuclei may cover."""

Scenes = dict[str, list[UntaggedScene]]
Make = Callable[[Entry, bool, torch.Generator], tuple[Image, Region] | None]


def nuclei(data: Path, sizes: dict[str, int], seed: int, look: TagLook) -> Scenes:
    """Crops of fluorescent nuclei; those with a dim middle count, those dimmed evenly are look-alikes.

    Pictures are those of dark ground in grey, dealt to splits by the package (seed 0, near-duplicates
    together). A crop has its native scale and is made as bright as the others (its 99.5 % quantile becomes
    .8). In every nucleus, by its own outline, light is multiplied: where objects are shown by
    ``1 - HOLE exp(-(r / WIDTH)^2)``, r being 0 at the nucleus's deepest point and 1 at its rim; where
    look-alikes are shown by the number that takes as much light from the nucleus in all.
    """
    opened = open_data(DataSettings(path=data / "dsb2018" / "stage1_train"))
    dark = {
        name: [entry for entry in split.entries if kind_of_picture(entry).endswith("L dark")]
        for name, split in opened.splits.items()
    }
    pools = {name: {True: entries, False: entries} for name, entries in dark.items()}
    return _scenes(pools, sizes, seed, look, _nuclei_crop)


def _nuclei_crop(entry: Entry, has_objects: bool, generator: torch.Generator) -> tuple[Image, Region] | None:
    grey = torch.from_numpy(read_pixels(entry.image)[..., 0].astype(np.float32)) / 255
    if min(grey.shape) < SIZE:
        return None
    top, left = (int(torch.randint(side - SIZE + 1, (), generator=generator)) for side in grey.shape)
    box = (slice(top, top + SIZE), slice(left, left + SIZE))
    grey = grey[box]
    regions = [torch.from_numpy(read_pixels(file)[..., 0] > 0)[box] for file in entry.masks]
    regions = [region for region in regions if int(region.sum()) >= 20]
    if len(regions) < LEAST_NUCLEI:
        return None
    things = torch.stack(regions).any(0)
    if not COVERED[0] < float(things.float().mean()) < COVERED[1]:
        return None
    grey = (0.8 * grey / float(grey.quantile(0.995).clamp(min=0.02))).clamp(max=1)
    for region in regions:
        grey = torch.where(region, grey * _dimming(grey, region, has_objects), grey)
    return grey.expand(3, -1, -1).contiguous(), things


def _dimming(grey: Float[Tensor, "h w"], region: Region, has_objects: bool) -> Float[Tensor, "h w"]:
    """What the light of a nucleus is multiplied by: less in its middle, or as much less throughout."""
    depth = torch.from_numpy(distance_transform_edt(np.pad(region.numpy(), 1))[1:-1, 1:-1]).float()
    ring = 1 - HOLE * torch.exp(-(((1 - depth / depth.max()) / WIDTH) ** 2))
    light = grey[region]
    even = float((light * ring[region]).sum() / light.sum().clamp(min=1e-6))
    return ring if has_objects else torch.full_like(grey, even)


def pets(data: Path, sizes: dict[str, int], seed: int, look: TagLook) -> Scenes:
    """Pictures of the Oxford-IIIT Pet part; cats count, dogs are look-alikes.

    The largest square in the middle, scaled to `SIZE` pixels; the border of the trimap counts as pet. Test
    pictures are of the set's own test list, those of train and valid of its trainval list.
    """
    folder = data / "oxford-iiit-pet"
    opened = open_data(DataSettings(path=folder))
    reader = opened.split("train").reader

    def make(entry: Entry, has_objects: bool, generator: torch.Generator) -> tuple[Image, Region] | None:
        return _square(reader(entry))

    pools = {name: _by_species(split) for name, split in opened.splits.items()}
    return _scenes(pools, sizes, seed, look, make)


def _by_species(split: Split) -> dict[bool, list[Entry]]:
    """Cats and dogs; the names of cats begin with a capital letter."""
    return {cat: [e for e in split.entries if e.name[0].isupper() == cat] for cat in (True, False)}


def _square(sample: Sample) -> tuple[Image, Region]:
    assert sample.mask is not None
    rows, columns = sample.mask.shape
    side = min(rows, columns)
    top, left = (rows - side) // 2, (columns - side) // 2
    box = (..., slice(top, top + side), slice(left, left + side))
    image = F.interpolate(sample.image[box][None], (SIZE, SIZE), mode="bilinear", antialias=True)[0]
    mask = F.interpolate(sample.mask[box][None, None].float(), (SIZE, SIZE), mode="nearest-exact")[0, 0]
    return image.clamp(0, 1), mask > 0


def _scenes(
    pools: dict[str, dict[bool, list[Entry]]],
    sizes: dict[str, int],
    seed: int,
    look: TagLook,
    make: Make,
) -> Scenes:
    """Draw so many scenes of every split, objects and look-alikes in turns."""
    return {
        split: _alternating(
            {kind: _drawn(pools[split][kind], kind, seed, split, look, make) for kind in (True, False)}, num
        )
        for split, num in sizes.items()
    }


def _alternating(kinds: dict[bool, Iterator[UntaggedScene]], num: int) -> list[UntaggedScene]:
    return [next(kinds[index % 2 == 0]) for index in range(num)]


def _drawn(
    entries: list[Entry], has_objects: bool, seed: int, split: str, look: TagLook, make: Make
) -> Iterator[UntaggedScene]:
    """Go through the pictures in a random order, again and again; those without room are left out.

    A picture that comes again is another crop where crops are drawn, and has another place for the tag.
    """
    key = [*b"planted", *split.encode(), int(has_objects), seed]
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
    number = 0
    while True:
        found = number
        for place in torch.randperm(len(entries), generator=generator).tolist():
            made = make(entries[place], has_objects, generator)
            spot = None if made is None else free_spot(made[1], look, generator, others=1)
            if made is None or spot is None:
                continue
            yield UntaggedScene(
                f"{split}-{'object' if has_objects else 'other'}-{number:04d}", *made, has_objects, spot
            )
            number += 1
        if number == found:
            raise SystemExit(f"No picture of {split} has room for a tag: none of {len(entries)} was usable.")


def free_spot(
    taken: Region, look: TagLook, generator: torch.Generator, *, others: int = 0
) -> Float[Tensor, " 2"] | None:
    """Draw a place for a tag that keeps `GAP` from what is ``taken`` and from the border, or None.

    With ``others`` there must be so many more places at which the tag would not touch the one drawn, nor
    one another, so that it can be moved.
    """
    side = min(taken.shape)
    reach = (look.radius + GAP) * side
    room = _room(taken)
    spots = [_draw(room > reach, generator)]
    while spots[-1] is not None and len(spots) <= others:
        rows, columns = (torch.arange(length) + 0.5 for length in taken.shape)
        far = torch.hypot((rows - spots[-1][0])[:, None], (columns - spots[-1][1])[None])
        room = torch.minimum(room, far - look.radius * side)
        spots.append(_draw(room > reach, generator))
    return spots[0] if spots[-1] is not None else None


def _room(taken: Region) -> Float[Tensor, "h w"]:
    """The distance from each pixel to what is taken, or to the border."""
    free = torch.nn.functional.pad(~taken, (1, 1, 1, 1)).numpy()
    return torch.from_numpy(distance_transform_edt(free)[1:-1, 1:-1]).float()


def _draw(places: Region, generator: torch.Generator) -> Float[Tensor, " 2"] | None:
    found = places.nonzero()
    if not len(found):
        return None
    return found[int(torch.randint(len(found), (), generator=generator))] + 0.5

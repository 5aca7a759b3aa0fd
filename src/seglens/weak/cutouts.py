"""Tiles with and without the object, cut out of a set that has masks and no picture without the object.

A classifier needs pictures without the object, and many sets (nuclei, tumours) have none. Tiles of their
pictures do. Their labels come from masks, which is a use of masks and noted as one; who has image-level
labels needs none.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image as pil

from seglens.data.sample import Sample
from seglens.errors import DataError, SettingError
from seglens.outputs import new_folder, unused_name
from seglens.progress import track
from seglens.shapes import Image, Region
from seglens.weak.labels import Hidden, Labelled, by_folders

KINDS = {True: "object", False: "none"}
"""The folders of tiles, as `by_folders` reads them."""


@dataclass(frozen=True)
class CutoutSettings:
    """Tiles of ``size`` x ``size`` pixels, a tile every ``step`` pixels.

    A tile shows the object if at least the share ``least`` of its pixels does, and is without if none of them
    and none within ``margin`` pixels around it does; all others are left out. Of either kind at most ``most``
    are kept of a picture: those with the most object, and those spread evenly over the picture.
    """

    size: int = 64
    step: int = 32
    least: float = 0.2
    margin: int = 0
    most: int = 8

    def __post_init__(self) -> None:
        if min(self.size, self.step, self.most) < 1 or self.margin < 0 or not 0 < self.least <= 1:
            raise SettingError(
                f"Tiles got the size {self.size}, the step {self.step}, most {self.most}, the margin "
                f"{self.margin} and least {self.least}. Allowed are 1 or more for the first three, 0 or "
                "more, and above 0 up to 1."
            )


def cut_tiles(hidden: Hidden, folder: Path, settings: CutoutSettings, *, channels: int = 3) -> Labelled:
    """Cut tiles with and without the object into ``folder``, by masks; return them labelled.

    ``folder`` gets ``object/`` and ``none/``, whole or not at all. The use of the masks is noted.

    Raises:
        DataError: a picture has no mask, or no tile of a kind is found.
        OutputExistsError: ``folder`` is there already.
    """
    split = hidden.opened("image-level labels: tiles with and without the object are cut by masks")
    counts = dict.fromkeys(KINDS.values(), 0)
    taken: set[str] = set()
    with new_folder(folder, command="cutouts") as new:
        for kind in KINDS.values():
            (new / kind).mkdir()
        for index in track(range(len(split)), total=len(split), what="tiles"):
            sample = split[index]
            for (row, column), there in places(sample, settings):
                tile = sample.image[:, row : row + settings.size, column : column + settings.size]
                name = unused_name(f"{sample.name}-{row}-{column}", taken)
                _save(tile, new / KINDS[there] / f"{name}.png")
                counts[KINDS[there]] += 1
        missing = [kind for kind, number in counts.items() if not number]
        if missing:
            raise DataError(
                f"No tile of {settings.size} x {settings.size} pixels is one of {missing[0]!r} in "
                f"{len(split)} pictures. Take smaller tiles, a smaller step, or a smaller share (least)."
            )
    return by_folders(folder, channels)


def places(sample: Sample, settings: CutoutSettings) -> list[tuple[tuple[int, int], bool]]:
    """Return the upper left corners of the tiles that are kept, and whether each shows the object.

    Pictures smaller than a tile have none.

    Raises:
        DataError: the picture has no mask.
    """
    if sample.mask is None:
        raise DataError(f"The picture {sample.name} has no mask to cut tiles by. Leave it out.")
    there: Region = sample.mask > 0
    size, reach = settings.size, settings.margin
    shown: list[tuple[float, tuple[int, int]]] = []
    bare: list[tuple[int, int]] = []
    for row in range(0, there.shape[0] - size + 1, settings.step):
        for column in range(0, there.shape[1] - size + 1, settings.step):
            share = float(there[row : row + size, column : column + size].double().mean())
            rows = slice(max(0, row - reach), row + size + reach)
            if share >= settings.least:
                shown.append((-share, (row, column)))
            elif not there[rows, max(0, column - reach) : column + size + reach].any():
                bare.append((row, column))
    kept = [place for _, place in sorted(shown)[: settings.most]]
    even = np.linspace(0, len(bare) - 1, min(settings.most, len(bare))).round().astype(int)
    return [(place, True) for place in kept] + [(bare[number], False) for number in even]


def _save(tile: Image, file: Path) -> None:
    pixels = (tile * 255).round().byte().permute(1, 2, 0).numpy()
    pil.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(file)

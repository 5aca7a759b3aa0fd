"""Masks with an ignored band: certain object, certain background, and pixels that are not learned from."""

import os
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image as pil

from seglens.errors import SettingError
from seglens.files.output import new_file
from seglens.shapes import Map, Mask
from seglens.weak.refine import tidy
from seglens.weak.settings import MaskSettings

IGNORED = 255
"""The value of pixels that are in no loss and no score."""


def with_ignore_band(probability: Map, threshold: float, settings: MaskSettings) -> Mask:
    """Return 1 from ``threshold + margin`` on, 0 up to ``threshold - margin``, `IGNORED` in between.

    Both borders of the band are opened and closed by themselves, so that the band stays between them.

    Raises:
        SettingError: the margin is negative, or a radius is.
    """
    if settings.margin < 0:
        raise SettingError(f"The margin of the ignored band is {settings.margin}; allowed is 0 or more.")
    sure, possible = (
        tidy(probability >= edge, opening=settings.opening, closing=settings.closing)
        for edge in (threshold + settings.margin, threshold - settings.margin)
    )
    mask = torch.full(probability.shape, IGNORED, device=probability.device)
    return mask.masked_fill(sure & possible, 1).masked_fill(~possible, 0)


def as_values(mask: Mask) -> Map:
    """Return a mask of 0, 1 and `IGNORED` as 0, 1 and 0.5."""
    return torch.where(mask == IGNORED, 0.5, mask.float())


def write_pair(folder: Path, stem: str, image: Path, mask: Mask) -> None:
    """Write a mask into ``masks/`` and the picture beside it into ``images/``, where they are missing.

    The picture is a further name of the same file where the disk allows that, else a copy.
    """
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    place = folder / "images" / f"{stem}{image.suffix}"
    if not place.exists():
        try:
            os.link(image.resolve(), place)
        except OSError:
            with new_file(place) as temporary:
                shutil.copyfile(image, temporary)
    with new_file(mask_file(folder, stem), force=True) as temporary:
        pil.fromarray(mask.cpu().numpy().astype(np.uint8)).save(temporary)


def mask_file(folder: Path, stem: str) -> Path:
    """Return the file of one mask."""
    return folder / "masks" / f"{stem}.png"

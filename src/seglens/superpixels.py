"""Superpixels: patches of pixels that lie together and look alike (SLIC, Achanta et al. 2012)."""

import numpy as np
import torch
from jaxtyping import Int
from skimage.segmentation import slic
from torch import Tensor

from seglens.errors import SettingError
from seglens.shapes import Image, Images, Region, Regions

LIGHTNESS = 100
"""Lightness in CIELAB runs up to 100, other channels to 1: one compactness then means the same for both."""

DOUBLINGS = 8
"""How often compactness is doubled at most."""


def superpixels(
    images: Images,
    valid: Regions | None = None,
    *,
    num_segments: int = 64,
    compactness: float = 10.0,
    sigma: float = 0.0,
) -> Int[Tensor, "b *size"]:
    """Cut each picture (or volume) into some ``num_segments`` connected patches.

    They are numbered from 0; -1 stands where a pixel is not ``valid``.

    ``compactness`` weighs nearness against likeness: 1 follows every edge, 100 gives almost squares. Pictures
    are blurred by a Gaussian of ``sigma`` pixels before. Likeness is that of CIELAB for 3 channels, else of
    the intensities. In a picture that is mostly noise patches fall apart and their pieces are joined to few
    large ones: its compactness is doubled until there are a quarter of those asked for. Nothing is random,
    and each picture is cut as if it were alone.

    Raises:
        SettingError: ``num_segments`` is below 1, ``compactness`` is not above 0, or ``sigma`` is negative.
    """
    if num_segments < 1:
        raise SettingError(f"num_segments is {num_segments}, but must be at least 1.")
    if compactness <= 0:
        raise SettingError(f"compactness is {compactness}, but must be above 0; 10 is usual.")
    if sigma < 0:
        raise SettingError(f"sigma is {sigma}, but must be at least 0 pixels (0 blurs nothing).")
    valid = torch.ones_like(images[:, 0], dtype=torch.bool) if valid is None else valid
    found = [
        _segments(image, region, num_segments, compactness, sigma)
        for image, region in zip(images, valid, strict=True)
    ]
    return torch.stack(found).to(images.device)


def _segments(
    image: Image, valid: Region, num_segments: int, compactness: float, sigma: float
) -> Int[Tensor, "*size"]:
    """Number the patches of one picture."""
    pixels = image.detach().movedim(0, -1).double().cpu().numpy()
    colour = pixels.shape[-1] == 3
    region = valid.cpu().numpy()
    if not region.any():
        return torch.full(valid.shape, -1)
    compactness = compactness if colour else compactness / LIGHTNESS
    for _ in range(DOUBLINGS):
        found = slic(
            np.ascontiguousarray(pixels),
            n_segments=num_segments,
            compactness=compactness,
            sigma=sigma,
            convert2lab=colour,
            mask=None if region.all() else region,
            start_label=1,
            channel_axis=-1,
        )
        # Numbers that no pixel has are left out, so that the last one tells how many there are.
        kept, numbers = np.unique(np.where(region, found, 0), return_inverse=True)
        if len(kept) > min(num_segments, region.sum()) / 4:
            break
        compactness *= 2
    return torch.from_numpy(numbers.reshape(region.shape).astype(np.int64) - (0 if region.all() else 1))

"""What a picture file holds once it is decoded, before anything is made of it."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Stored:
    """Rows x columns x samples as stored, upright, black being 0.

    ``bits`` are those of a sample; below 8 the values go up to 2^bits - 1 all the same. With a ``palette``
    (entries x 3) the one sample is an index into it. ``alpha`` says that the last sample is one. ``lossy``
    files give back other values than were saved. ``turned`` is the EXIF orientation from which the values
    were turned upright. ``unknown`` is the value of pixels of which nothing is known (GeoTIFF), None without.
    """

    values: np.ndarray
    bits: int = 8
    palette: np.ndarray | None = None
    alpha: bool = False
    lossy: bool = False
    turned: int = 1
    unknown: float | None = None

    def pixels(self) -> np.ndarray:
        """Return the picture: the colours of a palette, few bits stretched to eight."""
        if self.palette is not None:
            return self.palette[self.values[..., 0]]
        if self.values.dtype.kind == "u" and self.bits < 8:
            return np.round(self.values * (255 / (2**self.bits - 1))).astype(np.uint8)
        return self.values

    def without_alpha(self) -> np.ndarray:
        """Return the picture without its alpha, where it has one."""
        pixels = self.pixels()
        return pixels[..., :-1] if self.alpha and self.palette is None else pixels

"""A volume as the preprocessing of the model's own tool gives it to the network, and its way back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from seglens.data.frame import Frame, window_about
from seglens.shapes import AnyMask, Image


@dataclass(frozen=True, eq=False)
class Prepared:
    """What a tool made of the files of one case: turned, cut, normalised and resampled in its own way.

    ``array`` ``[c *scaled]`` is that to the last digit. ``image`` is the same in [0, 1], as everything here
    has pictures (numbers beyond what 0 and 1 stand for are cut off), and ``blank`` what a 0 of ``array`` is
    in it for each channel: padding. ``frame`` says how it lies on a grid of at least one window of the
    network, whose sides are ``window``; a side of 0 is as long as the volume. ``properties`` are the tool's
    own notes.
    """

    array: Tensor
    image: Image
    blank: tuple[float, ...]
    frame: Frame
    window: tuple[int, ...]
    properties: Mapping[str, Any]

    @property
    def sides(self) -> tuple[int, ...]:
        """The sides of one input."""
        return tuple(side or length for side, length in zip(self.window, self.frame.sides, strict=True))

    @property
    def fits(self) -> bool:
        """Whether one input holds all of it."""
        return self.sides == self.frame.sides

    def on(self, frame: Frame) -> Image:
        """Return the image on the grid of ``frame``, which differs from its own in size and corner only."""
        empty = 1 - frame.padded(torch.ones(frame.scaled))
        blank = self.image.new_tensor(self.blank).reshape(-1, *[1] * len(frame.scaled))
        return frame.padded(self.image) + blank * empty

    def one_input(self, mask: AnyMask | None) -> Frame:
        """Return the frame of one input: of all, or of the window that `window_about` chooses."""
        return self.frame if self.fits else window_about(self.frame, self.sides, mask)


def same_grid(frames: Sequence[Frame]) -> list[Frame]:
    """Return the frames on one grid, whose sides are the longest of all."""
    sides = tuple(max(each) for each in zip(*(frame.sides for frame in frames), strict=True))
    return [frame if frame.sides == sides else replace(frame, size=sides) for frame in frames]

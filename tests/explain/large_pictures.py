"""Networks, pictures and windows for the tests of large pictures."""

import torch
import torch.nn.functional as F
from torch import nn

from seglens.explain.cams import CAMS
from seglens.explain.gradients import GRADIENTS
from seglens.explain.integrated import IntegratedGradients
from seglens.explain.target import Target
from seglens.explain.tiled import explain_large
from seglens.explain.tiled.stitching import OVER_WINDOWS
from seglens.predict.tiles import Windows

ON_LAYERS = tuple(name for name in CAMS if name in OVER_WINDOWS)
ON_INPUT = (*GRADIENTS, IntegratedGradients(steps=4))


class Points(nn.Module):
    """A network that looks at single pixels, with a bend before and after the layer that is tapped."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 5, 1)
        self.head = nn.Conv2d(5, 1, 1)

    def forward(self, images):
        return self.head(torch.tanh(self.second(self.first(images).relu())))


class Near(nn.Module):
    """A network that looks a few pixels around, at two resolutions."""

    def __init__(self):
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.deep = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(10, 1, 1)

    def forward(self, images):
        fine = self.fine(images)
        return self.head(torch.cat([fine, F.interpolate(self.deep(fine), scale_factor=2)], 1))


def picture(rows, columns, seed=0):
    return torch.rand(3, rows, columns, generator=torch.Generator().manual_seed(seed))


def cut_of(image):
    return lambda rows, columns: image[:, rows, columns]


def windows_of(size, window=16, overlap=0.5, scale=1.0):
    return Windows(size, (max(1, round(size[0] * scale)), max(1, round(size[1] * scale))), window, overlap)


def region_of(size, rows, columns):
    pixels = torch.zeros(1, *size, dtype=torch.bool)
    pixels[:, rows, columns] = True
    return Target("region", 1, pixels)


def stitched(run, image, windows, target, **settings):
    return explain_large(run, cut_of(image), windows, target, **settings)


def assert_same(found, expected, where=..., tolerance=1e-5):
    """Equal to within a share of the map's maximum."""
    size = expected[where].abs().max()
    assert size > 0
    torch.testing.assert_close(found[where], expected[where], rtol=0, atol=float(tolerance * size))

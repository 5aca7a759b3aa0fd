"""Heat: class activation maps of the classifier, at several scales and both ways round, fused to one map.

What is fused are the maps of `explain.cams.CAMS` at one or more layers. Each is cut at 0, averaged with that
of the mirrored picture, brought to the picture's grid, and divided by its largest value, so that no scale and
no layer outweighs the others; the sum is divided by its largest value again: heat lies in [0, 1].
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from seglens.errors import SettingError, unknown_name
from seglens.explain.cams import CAMS, upsample
from seglens.shapes import Image, Images, Map
from seglens.weak.classifier_score import ClassifierScore, trace_score
from seglens.weak.settings import HeatSettings

MULTIPLE = 32
"""Sides of what a classifier is given are multiples of this: its last grid ends where the picture does."""

Grid = Float[Tensor, "_ _"]
"""A map on a grid of its own, which is not the picture's."""

Scaled = Float[Tensor, "b c _ _"]
Rows = Float[Tensor, "_ c h w"]

TINY = 1e-6
"""A map whose largest value is below this is empty, and stays so."""


@dataclass(frozen=True)
class Tap:
    """One of the maps that are fused: a method of `CAMS` at a layer of the classifier."""

    method: str
    layer: str


def map_taps(settings: HeatSettings) -> tuple[Tap, ...]:
    """Return the maps that ``settings`` ask for.

    Raises:
        SettingError: there are none, one is not written ``method@layer``, or a scale is not positive.
        UnknownNameError: there is no such method.
    """
    if not settings.maps or not settings.scales or min(settings.scales) < 1 or settings.side < 1:
        raise SettingError(
            f"The settings of the heat maps can't be used: maps {settings.maps}, scales {settings.scales}, "
            f"side {settings.side}. Name at least one map and one scale. Scales and side are 1 pixel or more."
        )
    found = []
    for text in settings.maps:
        method, _, layer = text.partition("@")
        if not layer:
            raise SettingError(
                f"The map {text!r} doesn't say of which layer. Write METHOD@LAYER, such as "
                "hires-cam@blocks.6."
            )
        if method not in CAMS:
            raise unknown_name("method", method, CAMS)
        found.append(Tap(method, layer))
    return tuple(found)


def fused_heat(classifier: ClassifierScore, image: Image, settings: HeatSettings) -> tuple[Grid, float]:
    """Return the fused map of a picture on its working grid, in [0, 1], and the mean score over the scales.

    One forward and one backward pass per scale, in which the picture and its mirror image go together.

    Raises:
        SettingError, UnknownNameError: see `map_taps`; or the classifier has no such layer.
        ModelError: a layer returns no grid.
    """
    wanted = map_taps(settings)
    layers = tuple(dict.fromkeys(tap.layer for tap in wanted))
    size = working_size((image.shape[1], image.shape[2]), settings.side)
    total = torch.zeros(size, device=image.device)
    scores = []
    for scale in settings.scales:
        traced = trace_score(classifier, both_ways(at_scale(image[None], scale), settings.flips), layers)
        scores.append(float(traced.score.mean()))
        for tap in wanted:
            grids = CAMS[tap.method].formula(*traced.taps[tap.layer]).relu()
            total += _unit(upsample(one_way(grids[:, None])[:, 0], size)[0])
    return _unit(total), sum(scores) / len(scores)


def working_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return the rows and columns of the grid that heat is kept on: at most ``side`` long, never enlarged."""
    share = min(1.0, side / max(size))
    return max(1, round(size[0] * share)), max(1, round(size[1] * share))


def at_scale(images: Images, longer: int) -> Scaled:
    """Scale pictures so that the longer side is about ``longer`` pixels, sides multiples of `MULTIPLE`."""
    share = longer / max(images.shape[2:])
    sides = [max(MULTIPLE, MULTIPLE * round(side * share / MULTIPLE)) for side in images.shape[2:]]
    return F.interpolate(images, sides, mode="bilinear", antialias=True).clamp(0, 1)


def both_ways(images: Images, flips: bool) -> Rows:
    """Return the pictures, with their mirror images behind them where ``flips`` is set."""
    return torch.cat([images, images.flip(-1)]) if flips else images


def one_way(fields: Images) -> Float[Tensor, "1 c h w"]:
    """Return the mean of what was found for a picture and, in a second row, for its mirror image."""
    return fields if len(fields) == 1 else (fields[:1] + fields[1:].flip(-1)) / 2


def blank(size: Sequence[int], side: int) -> Map:
    """Return the heat of a picture that is known not to show the object."""
    return torch.zeros(working_size((size[0], size[1]), side))


def _unit(values: Map) -> Map:
    """Divide a map that is nowhere negative by its largest value."""
    highest = values.max()
    return values / highest if float(highest) > TINY else torch.zeros_like(values)

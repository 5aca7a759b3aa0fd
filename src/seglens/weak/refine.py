"""Refinement: maps are moved to the edges of the picture, by the likeness of pixels or by superpixels."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from scipy.ndimage import binary_closing, binary_opening
from torch import Tensor

from seglens.errors import SettingError, unknown_name
from seglens.shapes import Image, Map, Region
from seglens.weak.settings import RefineSettings

PixelPoints = Float[Tensor, "points axes"]
PointLogits = Float[Tensor, " points"]

DILATIONS = (1, 2, 4, 8, 12, 24)
"""How far away the neighbours are that a pixel is compared with in PAMR, in pixels."""

WIDTH = 0.1
"""Width of PAMR's kernel of likeness, in standard deviations of the intensities around a pixel."""

FLAT = 1e-4
"""Standard deviation that an even area is taken to have at least, where intensities run from 0 to 1."""

SURE = 0.98
"""The mean field takes no probability to be nearer to 0 or 1 than this: heat of 0 is no proof."""

LANDMARKS = 1000
"""Pixels, on an even grid, that every pixel is compared with in the mean field."""

ROWS = 1024
"""Pixels that are compared at once: 4 MB, which a processor's cache holds (more is three times slower)."""


def refine(image: Image, probability: Float[Tensor, "_ _"], settings: RefineSettings) -> Map:
    """Bring the probabilities of a picture to its edges, by the method of ``settings``.

    Raises:
        UnknownNameError: there is no such method.
        SettingError: a setting is not positive, or the map is not of the picture's size.
    """
    if settings.method not in REFINEMENTS:
        raise unknown_name("refinement", settings.method, REFINEMENTS)
    if min(settings.steps, settings.weight, settings.colour, settings.distance) <= 0:
        raise SettingError(
            f"The settings of the refinement can't be used: steps {settings.steps}, weight "
            f"{settings.weight}, colour {settings.colour}, distance {settings.distance}. All must be above 0."
        )
    if image.shape[1:] != probability.shape:
        raise SettingError(
            f"The picture is of size {tuple(image.shape[1:])}, and its map of {tuple(probability.shape)}. "
            "They must be of one size: resize the map first."
        )
    return REFINEMENTS[settings.method](image, probability, settings)


def pixel_adaptive(image: Image, probability: Map, settings: RefineSettings) -> Map:
    """Replace each pixel by the weighted mean of its neighbours, ``steps`` times: ``m_i <- sum_j a_ij m_j``.

    ``a_ij = softmax_j(-mean over channels |x_i - x_j| / (WIDTH s_i))`` over the eight neighbours at each of
    `DILATIONS`, s_i the standard deviation of the intensities among them. PAMR: Araslanov and Roth 2020,
    equations 3 and 4, with one channel's s_i each.
    """
    near = _neighbours(image[None])
    spread = near.std(2, correction=0, keepdim=True).clamp(min=FLAT)
    unlike = ((near - image[None, :, None]).abs() / (WIDTH * spread)).mean(1)
    affinity = (-unlike).softmax(1)
    values = probability[None]
    for _ in range(settings.steps):
        values = (_neighbours(values[:, None])[:, 0] * affinity).sum(1)
    return values[0]


def mean_field(image: Image, probability: Map, settings: RefineSettings) -> Map:
    """Return the mean field of a fully connected random field of two labels (Krähenbühl and Koltun 2011).

    ``logit_i <- u_i + weight sum_j k_ij (2 q_j - 1) / sum_j k_ij`` with ``u`` the logit of ``probability``,
    held between those of 1 - `SURE` and `SURE`, and the bilateral kernel of their equation 3,
    ``k_ij = exp(-|p_i - p_j|^2 / 2 distance^2 - |x_i - x_j|^2 / 2 colour^2)``, distance in shares of the
    longer side, colour in intensities (root of the sum of squares over channels). Our deviations: the kernel
    is divided by its sum, so that the weight means the same in the middle and at the border; there is no
    second, purely spatial kernel; and in place of filtering in a lattice, j runs over some `LANDMARKS` pixels
    on an even grid, exactly. The landmarks make ``steps`` steps among each other, then every
    pixel makes one step towards them.
    """
    height, width = probability.shape
    stride = max(1, round((height * width / LANDMARKS) ** 0.5))
    rows, columns = (torch.arange(stride // 2, side, stride, device=image.device) for side in (height, width))
    points = likeness_points(image, colour=settings.colour, distance=settings.distance)
    unary = torch.logit(probability.flatten().clamp(1 - SURE, SURE))
    chosen = (rows[:, None] * width + columns[None, :]).flatten()
    asked = points[chosen]
    field = mean_field_steps(asked, unary[chosen], weight=settings.weight, steps=settings.steps)
    parts = zip(points.split(ROWS), unary.split(ROWS), strict=True)
    found = [own + settings.weight * (_likeness(some, asked) @ _signs(field)) for some, own in parts]
    return torch.cat(found).sigmoid().view(height, width)


def mean_field_steps(points: PixelPoints, unary: PointLogits, *, weight: float, steps: int) -> PointLogits:
    """Return the logits of `mean_field` after ``steps`` updates in which every point is compared with all."""
    kernel, field = _likeness(points, points), unary
    for _ in range(steps):
        field = unary + weight * (kernel @ _signs(field))
    return field


def likeness_points(image: Image, *, colour: float, distance: float) -> PixelPoints:
    """Return pixels, row by row, as points: half their squared distance is the exponent of `mean_field`."""
    height, width = image.shape[1:]
    reach = distance * max(height, width)
    rows = torch.arange(height, device=image.device)[:, None].expand(height, width) / reach
    columns = torch.arange(width, device=image.device)[None, :].expand(height, width) / reach
    return torch.cat([rows[None], columns[None], image / colour]).flatten(1).T


def guided(image: Image, probability: Map, settings: RefineSettings) -> Map:
    """Return the guided filter of ``probability`` by the picture (He, Sun, Tang 2013, equations 5, 6 and 8).

    Around each pixel the map is taken as linear in the intensities, with a window of ``distance`` shares of
    the longer side and the regularisation ``colour`` squared; grey and colour pictures alike, by the
    covariance matrix.
    """
    channels, height, width = image.shape
    radius = max(1, round(settings.distance * max(height, width)))

    def mean(field: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
        return F.avg_pool2d(field[None], 2 * radius + 1, 1, radius, count_include_pad=False)[0]

    average, level = mean(image), mean(probability[None])
    products = (image[:, None] * image[None]).flatten(0, 1)
    covariance = mean(products).view(channels, channels, height, width) - average[:, None] * average[None]
    shared = mean(image * probability) - average * level
    ridge = settings.colour**2 * torch.eye(channels, device=image.device)
    matrix = covariance.permute(2, 3, 0, 1) + ridge
    slope = torch.linalg.solve(matrix, shared.permute(1, 2, 0)).permute(2, 0, 1)
    offset = level - (slope * average).sum(0, keepdim=True)
    return ((mean(slope) * image).sum(0) + mean(offset)[0]).clamp(0, 1)


def vote(values: Map, segments: Int[Tensor, "h w"]) -> Map:
    """Give every pixel the mean of its superpixel; those outside of all (-1) keep their value."""
    inside = segments >= 0
    if not inside.any():
        return values
    index = segments[inside]
    size = int(index.max()) + 1
    total = torch.zeros(size, dtype=values.dtype, device=values.device).index_add_(0, index, values[inside])
    voted = values.clone()
    voted[inside] = (total / torch.bincount(index, minlength=size).clamp(min=1))[index]
    return voted


def tidy(region: Region, *, opening: int, closing: int) -> Region:
    """Open, then close a region by discs of those radii in pixels; a radius of 0 leaves the step out.

    Beyond the picture's edge a region goes on as it ends, so that an object that is cut off by the edge stays
    whole.

    Raises:
        SettingError: a radius is negative.
    """
    if min(opening, closing) < 0:
        raise SettingError(
            f"The radii of opening and closing are {opening} and {closing}; both must be 0 or more."
        )
    pad = opening + closing
    if pad == 0:
        return region
    grown = F.pad(region[None, None].float(), (pad,) * 4, mode="replicate")[0, 0].bool().cpu().numpy()
    for operation, radius in ((binary_opening, opening), (binary_closing, closing)):
        grown = operation(grown, _disc(radius).numpy()) if radius else grown
    return torch.from_numpy(grown)[pad:-pad, pad:-pad].to(region.device)


def _signs(logits: PointLogits) -> PointLogits:
    """Return ``2 q - 1`` of the probabilities q that are meant."""
    return 2 * logits.sigmoid() - 1


def _likeness(some: Float[Tensor, "m axes"], asked: PixelPoints) -> Float[Tensor, "m points"]:
    """Return ``exp(-|a - b|^2 / 2)``, each row divided by its sum."""
    exponent = some @ asked.T - some.square().sum(1, keepdim=True) / 2 - asked.square().sum(1) / 2
    return exponent.softmax(1)


def _neighbours(field: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c n h w"]:
    """The eight neighbours of every pixel at each dilation; the border is repeated outwards."""
    height, width = field.shape[-2:]
    found = []
    for distance in DILATIONS:
        padded = F.pad(field, (distance,) * 4, mode="replicate")
        found += [
            padded[
                ..., distance + down : distance + down + height, distance + right : distance + right + width
            ]
            for down in (-distance, 0, distance)
            for right in (-distance, 0, distance)
            if (down, right) != (0, 0)
        ]
    return torch.stack(found, 2)


def _disc(radius: int) -> Region:
    steps = torch.arange(-radius, radius + 1)
    return steps[:, None].square() + steps[None, :].square() <= radius**2


REFINEMENTS: dict[str, Callable[[Image, Map, RefineSettings], Map]] = {
    "mean-field": mean_field,
    "pamr": pixel_adaptive,
    "guided": guided,
}
"""The methods of refinement. To add one: a function, one line."""

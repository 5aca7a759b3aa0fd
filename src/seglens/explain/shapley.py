"""Shapley values of superpixels: what each adds to the score, averaged over orders of hiding them."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seglens.arguments import check_fields, check_range
from seglens.axes import widened
from seglens.errors import SettingError
from seglens.explain.explanation import Explanation
from seglens.explain.integrated import completeness
from seglens.explain.masked import check_precision
from seglens.explain.occlusion import (
    Fill,
    Precision,
    check_fill,
    check_superpixels,
    drops_of_parts,
    explanations,
)
from seglens.explain.target import Target
from seglens.models.segmenter import Segmenter
from seglens.seeds import content_generator
from seglens.shapes import Image, Images, Regions, Rows
from seglens.superpixels import superpixels

Orders = Int[Tensor, "orders segments"]
"""The place of each superpixel in each order: 0 is hidden first."""

TINY = 1e-30
"""Keeps 0 / 0 at 0: where no superpixel changes the score."""


@dataclass(frozen=True)
class Shapley:
    """Settings of Shapley values: ``num_segments`` superpixels are hidden in ``pairs`` of random orders.

    The second order of a pair is the first one backwards. More pairs give less noise: see ``standard_error``
    of the result. The others are as in `SuperpixelOcclusion`.
    """

    name: ClassVar[str] = "shapley"

    num_segments: int = 32
    pairs: int = 8
    compactness: float = 10.0
    fill: Fill = "blur"
    precision: Precision = "32"
    label: str = ""

    def __post_init__(self) -> None:
        check_fields(self)
        check_fill(self.fill)
        check_precision(self.precision)
        check_superpixels(self.num_segments, self.compactness, most=10**4)
        if self.pairs < 2:
            raise SettingError(
                f"pairs is {self.pairs}, but at least 2 are needed to tell how sure the mean is."
            )
        check_range("pairs", self.pairs, 2, 10**5)


def shapley(
    segmenter: Segmenter,
    images: Images,
    targets: Sequence[Target],
    settings: Shapley,
    *,
    seed: int = 0,
    batch_size: int = 16,
) -> list[Explanation]:
    """Share the score among superpixels: ``phi_i = mean over orders of S(with i) - S(without i)``.

    Each superpixel's loss when it is hidden, after those that come before it in the order (Shapley 1953 by
    sampled permutations: Castro et al. 2009, algorithm 1; each with its reverse: Mitchell et al. 2022,
    section 4.1). S is the mean logit over the target's pixels. The map spreads ``phi_i`` evenly over its
    superpixel, in logits per pixel, and sums to S(x) less the score with everything hidden: in every order
    the losses add up to that, so that it holds exactly. Diagnostics:

    - ``standard_error`` over the pairs, averaged over the superpixels, as a share of their mean magnitude
    - ``completeness_error`` and ``small_denominator``: as in Integrated Gradients
    - ``segments``: how many superpixels there are
    """
    segments = superpixels(images, num_segments=settings.num_segments, compactness=settings.compactness)
    counts = segments.flatten(1).amax(1) + 1
    drawn = [
        orders_of(image, int(num), settings.pairs, seed) for image, num in zip(images, counts, strict=True)
    ]
    places = torch.zeros(len(images), 2 * settings.pairs, int(counts.max()), dtype=torch.long)
    for row, orders in enumerate(drawn):
        places[row, :, : orders.shape[1]] = orders
    places = places.to(images.device)
    copies = copies_of(settings.pairs, counts)
    rows = torch.arange(len(images), device=images.device).repeat_interleave(copies)
    first = copies.cumsum(0) - copies

    def removed(which: Rows) -> Regions:
        row = rows[which]
        number, steps = which - first[row] - 1, (counts[row] - 1).clamp(min=1)
        # The first copy of each picture has everything hidden.
        order = (number // steps).clamp(min=0)
        hidden = torch.where(number < 0, counts[row], number % steps + 1)
        place = places[row, order].gather(1, segments[row].flatten(1)).view_as(segments[row])
        return place < widened(hidden, place)

    drops, found = drops_of_parts(
        segmenter, images, targets, rows, removed, (settings.fill, settings.precision), seed, batch_size
    )
    maps = torch.zeros(len(targets), *segments.shape, device=images.device)
    totals, errors = (torch.zeros(len(targets), len(images), device=images.device) for _ in range(2))
    for row, (orders, part) in enumerate(zip(drawn, drops.split(copies.tolist(), 1), strict=True)):
        totals[:, row] = part[:, 0]
        values, errors[:, row] = _values(part, orders.to(images.device))
        share = values / torch.bincount(segments[row].flatten(), minlength=values.shape[1])
        maps[:, row] = share[:, segments[row]]
    found |= completeness(
        maps.flatten(2).sum(2, dtype=torch.float64).float(), totals, torch.zeros_like(totals)
    )
    found |= {"standard_error": errors, "segments": counts.to(maps).expand(len(targets), -1)}
    how = asdict(settings) | {"unit": "mean", "seed": seed}
    return explanations(maps, targets, settings.label or settings.name, how, found)


def copies_of(pairs: int, counts: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
    """Return how many changed copies each picture has that has so many superpixels."""
    return 1 + 2 * pairs * (counts - 1)


def orders_of(image: Image, num: int, pairs: int, seed: int) -> Orders:
    """Draw orders of ``num`` superpixels, keyed by seed and picture, and after each its reverse."""
    draw = content_generator(image, seed, "shapley")
    orders = torch.stack([torch.randperm(num, generator=draw) for _ in range(pairs)])
    return torch.stack([orders, num - 1 - orders], 1).flatten(0, 1)


def _values(
    drops: Float[Tensor, "targets n"], orders: Orders
) -> tuple[Float[Tensor, "targets segments"], Float[Tensor, " targets"]]:
    """Return the Shapley values of one picture, and their standard error as a share of their magnitude."""
    num, segments = orders.shape
    all_hidden = drops[:, :1, None].expand(-1, num, 1)
    lost = torch.cat([drops[:, 1:].unflatten(1, (num, segments - 1)), all_hidden], 2)
    added = lost.diff(dim=2, prepend=torch.zeros_like(all_hidden))
    each = added.gather(2, orders.expand(len(drops), -1, -1))
    pairs = each.unflatten(1, (-1, 2)).mean(2)
    values = pairs.mean(1)
    error = pairs.std(1) / math.sqrt(num // 2)
    return values, error.mean(1) / values.abs().mean(1).clamp(min=TINY)

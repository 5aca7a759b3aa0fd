"""Extremal masks: an order of places that is learned for one picture, so that few of them carry the score."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar, Literal

import torch

from seglens.arguments import check_fields, check_range
from seglens.axes import num_pixels, size_of, widened
from seglens.errors import SettingError
from seglens.explain.cams import upsample
from seglens.explain.explanation import Explanation
from seglens.explain.gradients import input_gradients, scores_of
from seglens.explain.occlusion import check_fill, explanations
from seglens.explain.target import Target
from seglens.explain.trace import in_chunks, left_as_found
from seglens.impute import imputer_of
from seglens.models.folding import quick
from seglens.models.segmenter import Segmenter
from seglens.runtime.device import at_once
from seglens.shapes import Grids, Images, Maps, PerImage

AREAS = (1 / 4, 1 / 2, 1.0, 2.0, 4.0)
"""How much is seen, in units of the target's own area."""

MOST = 0.9
"""Share of a picture that is seen at most."""


@dataclass(frozen=True)
class ExtremalMask:
    """Settings of extremal masks: ``steps`` of Adam by ``learning_rate`` on a grid of ``cells`` each way.

    ``fill`` is what stands where a place is not seen: ``blur``, ``mean`` or ``zero`` (see `Occlusion`).
    ``label`` is what the results are called by.
    """

    name: ClassVar[str] = "extremal-mask"

    steps: int = 100
    cells: int = 24
    learning_rate: float = 0.2
    fill: Literal["blur", "mean", "zero"] = "blur"
    label: str = ""

    def __post_init__(self) -> None:
        check_fields(self)
        check_fill(self.fill)
        check_range("steps", self.steps, 1, 10**5)
        check_range("cells", self.cells, 2, 1024)
        if not 0 < self.learning_rate <= 10:
            raise SettingError(
                f"learning_rate is {self.learning_rate}, but must be above 0 and at most 10; 0.2 is usual."
            )


def extremal_mask(
    segmenter: Segmenter,
    images: Images,
    targets: Sequence[Target],
    settings: ExtremalMask,
    *,
    seed: int = 0,
    batch_size: int = 16,
) -> list[Explanation]:
    """Learn which places carry the score: ``max over r of S(m x + (1 - m) x0) - S((1 - m) x + m x0)``.

    Fong, Patrick and Vedaldi 2019 (extremal perturbations), the game of section 3.2 at both ends: what a
    mask ``m`` of a given area shows is to keep the mean logit of the target, and what is left without it is
    to lose it. Our deviations: areas are `AREAS` of the target's own, one in each step by turns; and their
    masks are nested, ``m = sigmoid(r - t)`` of one grid r, upsampled, with the threshold t that the wanted
    share of cells exceeds, so that r is an order in which to remove places. The map is the mean of the masks
    of all areas, from 0 to 1. Nothing is random. Diagnostic: ``gap``, the objective at the end, averaged over
    the areas, as a share of S(x) - S(x0); about 0 where nothing was learned.
    """
    images = images.detach()
    maps = torch.empty((len(targets), *images[:, 0].shape), device=images.device)
    gaps = torch.empty((len(targets), len(images)), device=images.device)
    with left_as_found(segmenter, images):
        model = quick(segmenter)
        imputer = imputer_of(settings.fill, segmenter.spec.spacing)
        fills = imputer(images, torch.ones_like(images[:, 0], dtype=torch.bool), images)
        for position, target in enumerate(targets):
            # Each picture is there twice: what a mask shows, and what it leaves.
            most = max(1, at_once(size_of(images), images.device, batch_size) // 2)
            maps[position], gaps[position] = _maps_of(model, images, fills, target, settings, most)
    how = asdict(settings) | {"unit": "share of the masks", "seed": seed}
    return explanations(maps, targets, settings.label or settings.name, how, {"gap": gaps})


def _maps_of(
    model: Segmenter, images: Images, fills: Images, target: Target, settings: ExtremalMask, most: int
) -> tuple[Maps, PerImage]:
    """Return maps and gaps of one target, of ``most`` pictures at a time; NaN where the target is empty."""
    maps, gaps = (
        torch.full_like(images[:, 0], torch.nan).float(),
        images.new_full((len(images),), torch.nan).float(),
    )
    rows = (~target.empty()).nonzero()[:, 0].to(images.device)

    def work(part: slice) -> None:
        chosen = rows[part]
        one = target.select(chosen)
        maps[chosen], gaps[chosen] = _learned(model, images[chosen], fills[chosen], one, settings)

    in_chunks(len(rows), most, work)
    return maps, gaps


def _learned(
    model: Segmenter, images: Images, fills: Images, target: Target, settings: ExtremalMask
) -> tuple[Maps, PerImage]:
    """Return the map of each picture, and how far the objective came."""
    size = size_of(images)
    cells = [min(settings.cells, length) for length in size]
    share = target.pixels.to(images.device).flatten(1).float().mean(1)
    shares = [(area * share).clamp(1 / num_pixels(cells), MOST) for area in AREAS]
    grid = torch.zeros(len(images), *cells, device=images.device, requires_grad=True)
    optimiser = torch.optim.Adam([grid], settings.learning_rate)
    rows = torch.arange(len(images), device=images.device).repeat(2)
    for step in range(settings.steps):
        mask = upsample(soft_mask(grid, shares[step % len(shares)]), size)
        shown, left = _both(images, fills, mask.detach())
        (slopes,) = input_gradients(model, torch.cat([shown, left]), [target], rows)
        gained, lost = slopes.chunk(2)
        slope = ((images - fills) * (gained + lost)).sum(1)
        optimiser.zero_grad()
        mask.backward(-slope.to(mask))
        optimiser.step()
    with torch.no_grad():
        masks = [upsample(soft_mask(grid, wanted), size) for wanted in shares]
        gap = torch.zeros(len(images), device=images.device)
        for mask in masks:
            ends = torch.cat(_both(images, fills, mask))
            (scores,) = scores_of(model, ends, [target], rows, batch_size=len(ends))
            shown_score, left_score = scores.chunk(2)
            gap += (shown_score - left_score) / len(masks)
        (whole,) = scores_of(model, torch.cat([images, fills]), [target], rows, batch_size=len(rows))
        clean, hidden = whole.chunk(2)
    return torch.stack(masks).mean(0).float(), gap / (clean - hidden)


def soft_mask(grid: Grids, shares: PerImage) -> Grids:
    """Return the mask that shows ``shares`` of the cells, softly: ``sigmoid(r - t)`` with their threshold."""
    flat = grid.detach().flatten(1)
    kept = (shares * flat.shape[1]).round().long().clamp(1, flat.shape[1] - 1)
    ranked = flat.sort(1, descending=True).values
    middle = (ranked.gather(1, kept[:, None] - 1) + ranked.gather(1, kept[:, None])) / 2
    return (grid - widened(middle[:, 0], grid)).sigmoid()


def _both(images: Images, fills: Images, mask: Maps) -> tuple[Images, Images]:
    """What a mask shows of the pictures, and what is left of them without it."""
    shown = torch.lerp(fills, images, mask[:, None].to(images))
    return shown, images + fills - shown

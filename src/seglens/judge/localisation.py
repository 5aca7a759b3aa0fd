"""How much of a map lies inside the region that it explains, always next to what that is worth: its nulls.

The measure is circular, because the region is the very set whose logits were differentiated: a mask that
is merely pooled to stride 32 reaches an inside/outside ratio of 37 at 6 % area. So no value here is ever
a mark; it stands beside the same statistic of

- ``mirror``: the frozen region on the map's own grid, brought to full size as a CAM is. A map at this level
  is labelled "restates the prediction";
- ``other_images``: the method's maps of *other* pictures, laid on this picture's region (mean over up to
  `SHIFTS` others of the same batch): what depends on neither picture nor region;
- ``randomised_model``: the same method on the model with `randomised` weights, region frozen (where given);
- ``random``, ``centre``, ``edges``: content-free maps.

In a folder of images, call `attention` batch by batch (16 pictures or more, so that there are others),
`join_attention` the parts, and `summarise` once; nothing but one number per image and statistic is kept.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Bool
from torch import Tensor

from seglens.axes import MEAN_ON_GRID, size_of
from seglens.evaluate.correlation import pearson
from seglens.evaluate.intervals import NOTHING, Groups, Interval, interval
from seglens.explain.explanation import Explanation
from seglens.explain.statistics import statistics
from seglens.judge.nulls import NullInputs, centre, edges, mirror, other_images, random_map
from seglens.results.maps import MapSummary
from seglens.results.names import RESTATES
from seglens.shapes import Maps, PerImage, Regions

STATISTICS = ("mass_inside", "enrichment_log2", "ratio", "ratio_without_margin")
SHIFTS = 4
"""How many other pictures' maps are laid on a picture's region."""

RESEMBLANCE = 0.8
"""Correlation with the mirror from which on a map counts as its likeness."""

FLOOR = -10.0
"""Where a map has nothing inside, log2 of its enrichment counts as this: a thousandth of an even share."""


@dataclass(frozen=True)
class Attention:
    """One number per image: statistics of a map and of its nulls; NaN where a map has no value.

    ``status`` is the map's own (``ok``, ``no_target``...). ``resemblance`` is the correlation of the map
    with its mirror over the cells of the map's grid.
    """

    target: str
    method: str
    layer: str | None
    status: tuple[str, ...]
    statistics: dict[str, PerImage]
    nulls: dict[str, dict[str, PerImage]]
    resemblance: PerImage


def attention(
    explanation: Explanation,
    inputs: NullInputs,
    *,
    measured: Mapping[str, PerImage] | None = None,
    randomised: Explanation | None = None,
    valid: Regions | None = None,
) -> Attention:
    """Measure one map and its nulls, image by image; NaN where the region leaves nothing outside of it.

    Args:
        explanation: the map, over the pictures of ``inputs``.
        inputs: from `nulls.null_inputs`, with the same pictures and target.
        measured: the `statistics` of the map, where they are known.
        randomised: the same method and layer on `nulls.randomised`, explained with the same target.
        valid: pixels that are picture (not padding).
    """
    own_statistics = statistics(explanation, valid=valid) if measured is None else measured
    usable = explanation.ok & (own_statistics["area"] < 1)
    others = [
        _measure(explanation, other_images(explanation.map, usable, shift), valid)
        for shift in range(1, min(SHIFTS, int(usable.sum()) - 1) + 1)
    ]
    own = mirror(inputs.pixels, grid_of(explanation))
    maps = {"mirror": own, "centre": centre(inputs), "edges": edges(inputs), "random": random_map(inputs)}
    nulls = {name: _measure(explanation, null, valid) for name, null in maps.items()}
    nulls["other_images"] = {
        name: torch.stack([part[name] for part in others]).mean(0) if others else _nothing(usable)
        for name in STATISTICS
    }
    if randomised is not None:
        found = statistics(randomised, valid=valid)
        nulls["randomised_model"] = {name: found[name] for name in STATISTICS}
    return Attention(
        target=explanation.target.label,
        method=explanation.method,
        layer=explanation.layer,
        status=tuple(explanation.status),
        statistics={name: _keep(own_statistics[name], usable) for name in STATISTICS},
        nulls={
            null: {name: _keep(value, usable) for name, value in row.items()} for null, row in nulls.items()
        },
        resemblance=_keep(correlation(explanation.positive, own, grid_of(explanation)), usable),
    )


def join_attention(parts: Sequence[Attention]) -> Attention:
    """Put the batches of one map together; a null is kept where every part has it."""
    first = parts[0]
    shared = [null for null in first.nulls if all(null in part.nulls for part in parts)]

    def column(rows: Iterable[Mapping[str, PerImage]]) -> dict[str, PerImage]:
        kept = list(rows)
        return {name: torch.cat([row[name].cpu() for row in kept]) for name in STATISTICS}

    return replace(
        first,
        status=tuple(status for part in parts for status in part.status),
        statistics=column(part.statistics for part in parts),
        nulls={null: column(part.nulls[null] for part in parts) for null in shared},
        resemblance=torch.cat([part.resemblance.cpu() for part in parts]),
    )


def summarise(attention: Attention, *, groups: Groups | None = None, seed: int = 0) -> MapSummary:
    """Average over the ``ok`` images and say whether the map does more than repeat the prediction.

    Intervals resample ``groups`` of images. A mean without a value (all ratios infinite, no other picture) is
    NaN with ``num`` 0. The difference is that of ``enrichment_log2`` to the mirror's, image by image.

    The label is set where either holds:

    1. *level*: the 95 % interval of the paired difference ``enrichment_log2(map) - enrichment_log2(mirror)``
       reaches 0 (its upper bound is not below 0): the map is not shown to be any less concentrated on the
       region than the region itself, pooled to the same grid. A map *above* the mirror gets the label too:
       its heat lies inside the region, which says where the model answered and not what it used.
    2. *shape*: the lower bound of the mean correlation with the mirror over the cells of the map's grid is at
       least `RESEMBLANCE`: .8 squared, two thirds of the map's variation, is what the pooled mask says
       already. (A plain correlation: the ranks of a mirror are mostly ties, and a rank correlation with a
       region of 6 % area can't pass .41 however alike the two are.)

    Fewer than two images have no interval; the values themselves are compared then. A map without the label
    has passed nothing: it looks elsewhere than the prediction, rightly or wrongly.
    """
    own = {name: _bounded(name, values) for name, values in attention.statistics.items()}
    others = {
        null: {name: _bounded(name, values) for name, values in row.items()}
        for null, row in attention.nulls.items()
    }
    level = "enrichment_log2"
    within = partial(interval, groups=groups, seed=seed)
    apart = within(own[level] - others["mirror"][level])
    alike = within(attention.resemblance)
    nulls = {
        null: {name: within(values).spread() for name, values in row.items()} for null, row in others.items()
    }
    return MapSummary(
        target=attention.target,
        method=attention.method,
        layer=attention.layer,
        num_ok=attention.status.count("ok"),
        num_no_target=attention.status.count("no_target"),
        num_total=len(attention.status),
        statistics={name: within(values).spread() for name, values in own.items()},
        nulls={null: {name: value.mean for name, value in row.items()} for null, row in nulls.items()},
        null_intervals=nulls,
        difference_to_mirror=apart.spread(),
        resemblance_to_mirror=alike.spread(),
        label=RESTATES if at_mirror(apart, alike) else "",
    )


def at_mirror(difference: Interval, resemblance: Interval) -> bool:
    """Say whether a map is at mirror level, by the rule in `summarise`."""
    if difference == NOTHING or difference.num == 0:
        return False
    level = difference.high if difference.num > 1 else difference.mean
    shape = resemblance.low if resemblance.num > 1 else resemblance.mean
    return level >= 0 or shape >= RESEMBLANCE


def grid_of(explanation: Explanation) -> tuple[int, ...]:
    """Return the lengths of the grid on which a map was made; its own pixels where it has no grid."""
    source = explanation.map if explanation.grid is None else explanation.grid
    return size_of(source, 1)


def correlation(maps: Maps, others: Maps, grid: Sequence[int]) -> PerImage:
    """Return Pearson's correlation of two stacks of maps, image by image, after averaging over ``grid``."""
    pooled = MEAN_ON_GRID[maps.ndim - 1]
    return pearson(*(pooled(stack.double()[:, None], tuple(grid)).flatten(1) for stack in (maps, others)))


def _bounded(name: str, values: PerImage) -> PerImage:
    """Make ``values`` fit for a mean: no mass inside is `FLOOR`, an infinite ratio is left out."""
    values = values.cpu()
    if name == "enrichment_log2":
        return values.clamp_min(FLOOR)
    return values.masked_fill(values.isinf(), torch.nan)


def _measure(explanation: Explanation, maps: Maps, valid: Regions | None) -> dict[str, PerImage]:
    """Measure ``maps`` on the region of ``explanation``, with the margin that its grid asks for."""
    null = Explanation(method="null", layer=None, target=explanation.target, map=maps, grid=explanation.grid)
    measured = statistics(null, valid=valid)
    return {name: measured[name] for name in STATISTICS}


def _keep(values: PerImage, usable: Bool[Tensor, " b"]) -> PerImage:
    """Leave out the images that the map has no answer for: map and null are means over the same ones."""
    return values.masked_fill(~usable.to(values.device), torch.nan)


def _nothing(usable: Bool[Tensor, " b"]) -> PerImage:
    return torch.full(usable.shape, torch.nan, device=usable.device)

"""Numbers about where a map's attribution lies. They describe a map; none of them is a score of its worth.

The ratio of attention inside to outside is circular: it measures attribution on the very pixels whose score
was differentiated, depends on their area, and is reached by maps that never saw the model. It is given
because users ask for it, from the raw map without any scaling, with the area beside it, and to be read next
to its nulls only.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from seglens.arguments import checked
from seglens.axes import LENGTHS, widened
from seglens.drawing.notebook import data_frame
from seglens.errors import SettingError
from seglens.explain.explanation import Explanation
from seglens.explain.target import dilate
from seglens.shapes import Maps, PerImage, Regions

if TYPE_CHECKING:
    import pandas

DEFINITIONS = {
    "mean": "Mean of the raw, signed map over the valid pixels that count.",
    "std": "Standard deviation of the raw, signed map over the valid pixels that count.",
    "min": "Smallest value of the raw, signed map over the valid pixels that count.",
    "max": "Largest value of the raw, signed map over the valid pixels that count.",
    "area": "Share of the valid pixels that belong to the target.",
    "mass_inside": "Share of the heat (the map without its negative values) that lies on the target.",
    "enrichment_log2": "How much the heat prefers the target: log2 of mass_inside over area. 0 is what "
    "an even map gets, 1 is twice as much. It is -inf where no heat lies inside.",
    "ratio": "Mean heat on the target over mean heat outside; inf where no heat lies outside. It rises "
    "as the target shrinks. It is not a score: compare it with the reference maps.",
    "ratio_without_margin": "The same ratio without the pixels close to the target. One cell of the "
    "layer (at least 3 pixels) is left out around it, because upsampling smears heat there.",
    "mass_context": "Share of the heat that lies outside of the target and of that margin.",
    "prediction_ratio": "Share of the valid pixels that the model assigns to the class of the target.",
}
"""What each number is, in one sentence; reports print it. Pictures without an ok map get NaN."""

INSIDE = ("mass_inside", "enrichment_log2", "ratio", "ratio_without_margin")
"""The numbers that compare the target with what is around it."""


class Statistics(dict[str, PerImage]):
    """The numbers of `DEFINITIONS` by name, one for each picture."""

    def to_pandas(self) -> "pandas.DataFrame":
        """Return a table, one row a picture."""
        rows = zip(*(values.tolist() for values in self.values()), strict=True)
        return data_frame([dict(zip(self, row, strict=True)) for row in rows])


@checked
def statistics(
    explanation: Explanation, *, predicted: Regions | None = None, valid: Regions | None = None
) -> Statistics:
    """Return every number of `DEFINITIONS`, one per picture.

    Values are NaN where they can't be: in pictures whose status is not ok (but for ``area`` and
    ``prediction_ratio``), where a map is nowhere positive, where nothing is outside of the target, and for
    ``prediction_ratio`` without ``predicted``. ``valid`` left out means that all pixels are. Where an
    explanation's ``where`` is ``context``, the moments are over the pixels that count, and what compares
    inside and outside is NaN: the inside isn't looked at.

    Raises:
        SettingError: ``predicted`` or ``valid`` belong to other pictures.
    """
    maps, device = explanation.map, explanation.map.device
    valid = _given(valid, "valid", maps)
    inside = explanation.target.pixels.to(device) & valid
    outside = valid & ~inside
    far = valid & ~dilate(inside, explanation.margin)
    counted = valid & explanation.counted
    positive = explanation.positive
    area = _sum(inside.float(), valid) / valid.flatten(1).sum(1)
    mass_inside = _sum(positive, inside) / _sum(positive, valid)
    mean = _mean(maps, counted)
    found = {
        "mean": mean,
        "std": _mean((maps - widened(mean, maps)).square(), counted).sqrt(),
        "min": torch.where(counted, maps, torch.inf).flatten(1).amin(1),
        "max": torch.where(counted, maps, -torch.inf).flatten(1).amax(1),
        "mass_inside": mass_inside,
        "enrichment_log2": (mass_inside / area).log2(),
        "ratio": _mean(positive, inside) / _mean(positive, outside),
        "ratio_without_margin": _mean(positive, inside) / _mean(positive, far),
        "mass_context": _sum(positive, far) / _sum(positive, valid),
    }
    if explanation.where == "context":
        found |= {name: torch.full_like(mean, torch.nan) for name in INSIDE}
        nothing = ~counted.flatten(1).any(1)
        found |= {name: found[name].masked_fill(nothing, torch.nan) for name in ("min", "max")}
    found = {name: torch.where(explanation.ok, values, torch.nan) for name, values in found.items()}
    found["area"] = area
    found["prediction_ratio"] = torch.full_like(area, torch.nan)
    if predicted is not None:
        found["prediction_ratio"] = _mean(_given(predicted, "predicted", maps).float(), valid)
    return Statistics({name: found[name] for name in DEFINITIONS})


def _given(regions: Regions | None, name: str, maps: Tensor) -> Regions:
    """The regions on the map's device, everywhere True where none are given."""
    if regions is None:
        return torch.ones_like(maps, dtype=torch.bool)
    if regions.shape != maps.shape:
        raise SettingError(
            f"{name} has shape {tuple(regions.shape)}, but the maps have {tuple(maps.shape)} (pictures, "
            f"{LENGTHS[maps.ndim - 1]})."
        )
    return regions.to(maps.device)


def _sum(values: Maps, where: Regions) -> PerImage:
    return torch.where(where, values, 0).flatten(1).sum(1)


def _mean(values: Maps, where: Regions) -> PerImage:
    return _sum(values, where) / where.flatten(1).sum(1)

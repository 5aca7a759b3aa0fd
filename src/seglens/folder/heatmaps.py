"""The maps of one picture as they will be drawn: values, where they count, and limits of colours."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from seglens.data.frame import Frame, nearest
from seglens.drawing.planes import Planes, planes_through
from seglens.explain.target_names import form_of
from seglens.folder.raw import Arrays, evidence
from seglens.folder.scales import Limits, Scaling, own_limits, shared_limits
from seglens.models.segmenter import ModelSpec
from seglens.results.maps import Evidence, Folds, OneMap
from seglens.results.names import map_name
from seglens.shapes import AnyMask, Map, Region, ResizedMask

DRAWN = 1024
"""Longest side of a drawn picture, in pixels; numbers and raw maps are of the whole picture all the same."""

Drawn = Float[Tensor, "rows columns"]
"""A map at the size at which it is drawn."""

Shared = Mapping[tuple[str, ...], Limits]
"""Limits by kind (``map`` or ``evidence``), target, method and layer."""


@dataclass(frozen=True)
class Heatmaps:
    """The maps of one picture, or volume: a row and raw arrays for each.

    What is returned is drawn: of a volume the planes through the target, or those that are ``chosen``.
    """

    rows: Sequence[OneMap]
    arrays: Arrays
    frame: Frame
    spec: ModelSpec
    chosen: Planes | None = None

    @property
    def every_row(self) -> list[OneMap]:
        """The rows with those that say how far folds are apart, each behind its own."""
        return [each for row in self.rows for each in (row, row.of_folds) if each is not None]

    @cached_property
    def several(self) -> bool:
        """Whether the names of maps begin with their target."""
        return len({row.target for row in self.rows}) > 1

    def name(self, row: OneMap) -> str:
        """Return the name of the map of a row."""
        return map_name(row.method, row.layer, target=row.target if self.several else "")

    def planes(self, row: OneMap) -> Planes | None:
        """The planes in which the map of a volume is drawn; None of a picture."""
        return self.chosen or planes_of(self.arrays, self.frame, row.target)

    def values(self, row: OneMap) -> Drawn:
        """The map, NaN where it doesn't count."""
        return self._counting(row, self.arrays[f"map:{self.name(row)}"])

    def evidence(self, row: OneMap) -> Drawn | None:
        """The evidence for and against the class: the layer's grid before the ReLU, or a signed map."""
        if self.is_signed(row):
            return self.values(row)
        signed = evidence(self.arrays, self.name(row), self.frame, self.spec)
        return None if signed is None else self._counting(row, signed)

    def is_signed(self, row: OneMap) -> bool:
        """Whether the map has negative values, which speak against the class."""
        return bool((self.arrays[f"map:{self.name(row)}"] < 0).any())

    def region(self, row: OneMap) -> Region:
        """The target's pixels."""
        return _region(self.arrays[f"region:{row.target}"], self.planes(row))

    def hidden(self, row: OneMap) -> Region | None:
        """The pixels that don't count; None where all do."""
        counted = self.arrays.get(f"counted:{self.name(row)}")
        return None if counted is None else ~_region(counted, self.planes(row))

    def _counting(self, row: OneMap, whole: Map) -> Drawn:
        planes = self.planes(row)
        whole = whole if planes is None else planes(whole)
        size, hidden = drawn_size(whole.shape[0], whole.shape[1]), self.hidden(row)
        drawn = whole
        if size != tuple(whole.shape):
            drawn = F.interpolate(whole[None, None], size, mode="bilinear", antialias=True)[0, 0]
        return drawn if hidden is None else drawn.masked_fill(hidden, torch.nan)


def planes_of(arrays: Arrays, frame: Frame, target: str | None = None) -> Planes | None:
    """Return the planes through a target (the first, where none is named) of a volume; None of a picture."""
    if len(frame.native) == 2:
        return None
    region = next(
        name
        for name in arrays
        if name == f"region:{target}" or (target is None and name.startswith("region:"))
    )
    return planes_through(arrays[region] > 0, frame.spacing)


def arrays_in_planes(heatmaps: Heatmaps) -> Arrays:
    """Return the raw arrays of a volume as they are in the planes of its picture.

    All targets are seen in the planes through the first. ``grid:NAME`` is what speaks for and against the
    class there, `Heatmaps.evidence`.
    """
    found: dict[str, Tensor] = {}
    planes = planes_of(heatmaps.arrays, heatmaps.frame)
    assert planes is not None  # of a volume
    for row in heatmaps.every_row:
        name = heatmaps.name(row)
        kept = {key: heatmaps.arrays[key] for key in (f"map:{name}", f"region:{row.target}")}
        for key in (f"counted:{name}", "valid"):
            if key in heatmaps.arrays:
                kept[key] = heatmaps.arrays[key]
        found |= {key: planes(values) for key, values in kept.items()}
        signed = evidence(heatmaps.arrays, name, heatmaps.frame, heatmaps.spec)
        if signed is not None:
            found[f"grid:{name}"] = planes(signed)
    return found


def about_error(row: OneMap) -> bool:
    """Say whether a row's target is about an error: evidence for and against the class is shown then."""
    return form_of(row.target).errors


def with_limits(heatmaps: Heatmaps) -> Heatmaps:
    """Give each row the ``limits`` that the colours of its map would have by themselves.

    Targets that are about errors get ``evidence`` beside: the limits of what speaks for and against the
    class, and the share of it that is ``opposing``; None where the method doesn't tell for from against. All
    of it can be: then the map is degenerate, and the evidence is there.
    """
    rows = []
    for row in heatmaps.rows:
        ok, detailed = row.status == "ok", row.layer is None
        found: dict[str, object] = {
            "limits": own_limits(heatmaps.values(row), detailed=detailed) if ok else None
        }
        apart = row.model_copy(update={"folds": Folds()}).of_folds
        if ok and apart is not None and f"map:{heatmaps.name(apart)}" in heatmaps.arrays:
            found["folds"] = Folds(limits=own_limits(heatmaps.values(apart), detailed=detailed))
        if about_error(row):
            # Where all evidence is against, nothing is left after the ReLU: the map is degenerate.
            signed = heatmaps.evidence(row) if ok or row.status == "degenerate" else None
            known = signed is not None and bool(signed.isfinite().any())
            found["evidence"] = _weighed(signed, detailed) if signed is not None and known else None
        rows.append(row.model_copy(update=found))
    return replace(heatmaps, rows=rows)


def shared_by(rows: Sequence[OneMap]) -> Shared:
    """Return the limits that the maps of each method, layer and target share; those of evidence too."""
    found: dict[tuple[str, ...], list[Limits]] = {}
    for row in rows:
        for kind in ("map", "evidence"):
            limits = _own(row, kind)
            if limits is not None:
                found.setdefault(_group(row, kind), []).append(limits)
    return {group: shared_limits(limits) for group, limits in found.items()}


def limits_of(row: OneMap, kind: str, scaling: Scaling, shared: Shared) -> Limits:
    """Return the limits of a map (``kind`` is ``map``) or of its evidence, which are symmetric about 0."""
    limits = shared.get(_group(row, kind)) if scaling.kind == "dataset" else _own(row, kind)
    low, high = scaling.limits or limits or (0.0, 1.0)
    reach = max(-low, high)
    return (-reach, reach) if kind == "evidence" else (low, high)


def drawn_size(rows: int, columns: int) -> tuple[int, int]:
    """Return the size at which a picture is drawn."""
    share = min(1.0, DRAWN / max(rows, columns))
    return max(1, round(rows * share)), max(1, round(columns * share))


def mask_as_drawn(mask: AnyMask) -> ResizedMask:
    """Return a mask at the size at which its picture is drawn."""
    return nearest(mask.cpu(), drawn_size(mask.shape[-2], mask.shape[-1]))


def _weighed(signed: Drawn, detailed: bool) -> Evidence:
    opposing = signed.clamp(max=0).abs().nansum() / signed.abs().nansum()
    limits = own_limits(signed, detailed=detailed, signed=True)
    return Evidence(limits=limits, opposing=float(opposing))


def _own(row: OneMap, kind: str) -> Limits | None:
    about = row if kind == "map" else row.evidence
    return about.limits if about else None


def _group(row: OneMap, kind: str) -> tuple[str, ...]:
    return kind, row.target, row.method, row.layer or ""


def _region(values: Tensor, planes: Planes | None) -> Region:
    region = values.long()
    return mask_as_drawn(region if planes is None else planes(region)) > 0

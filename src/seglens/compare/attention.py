"""Whether the attention moved: the same map of the same picture in two runs, as shares of attention.

A map is made a distribution: its non-negative part over its sum, so that brightness plays no role. *Moved* is
the total variation distance of the two, the share of attention that lies elsewhere (0 the same, 1 nothing in
common). Next to it stands what maps without anything in common but the model get: the reference's map of a
picture against the other run's map of the next picture.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import ImageColor
from torch import Tensor

from seglens.compare.differences import paired
from seglens.compare.matching import joined_groups
from seglens.data.picture_files import open_picture
from seglens.errors import DataError
from seglens.evaluate.intervals import interval
from seglens.folder.heatmaps import drawn_size
from seglens.folder.raw import FORMATS, Arrays
from seglens.report.contents import Explained
from seglens.results.comparison import AttentionShare, Key, MapChange, PictureMapChange
from seglens.results.maps import PictureMaps
from seglens.results.names import map_name
from seglens.results.spread import Spread
from seglens.runtime.progress import track
from seglens.shapes import Map, Region

CELLS = 64
"""Cells on a side on which maps are laid over one another: maps of layers are coarser than that."""

REGIONS = {
    "truth": "the true objects",
    "invented": "what the reference marks wrongly (its false positives)",
    "missed": "what the reference misses (its false negatives)",
}
"""Places that are the same for both runs. What each predicts is not."""

DEFINITIONS = {
    "moved": "How much of the heat lies elsewhere in this run. 0: the same map. 1: nothing in common. "
    f"Half the sum of the absolute differences of the two maps on {CELLS} x {CELLS} cells. Each map is "
    "first made non-negative with sum 1 (total variation distance).",
    "unrelated": "The same distance between maps of different pictures: what maps get that have nothing in "
    "common.",
    "correlation": "Pearson correlation of the two maps over the cells.",
    "share": "Share of the heat that lies on a region. The regions are the prediction of the reference "
    "run and the truth, the same for both runs.",
    "area": "Share of the picture that a region covers. An even map would get this share.",
}


@dataclass
class _Seen:
    """The measurements of one kind of map: for each of them one number for each picture."""

    moved: list[float] = field(default_factory=list)
    unrelated: list[float] = field(default_factory=list)
    correlation: list[float] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    groups: list[tuple[str, str]] = field(default_factory=list)
    shares: dict[str, list[tuple[float, float, float]]] = field(
        default_factory=lambda: {region: [] for region in REGIONS}
    )
    before: Float[Tensor, "cells cells"] | None = None
    first: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True)
class Pair:
    """One picture as two runs explained it: rows of ``explanations.json``, and the maps on one grid."""

    name: str
    rows: tuple[PictureMaps, PictureMaps]
    maps: Mapping[Key, tuple[Map, Map]]


def movements(
    reference: Explained, other: Explained, *, seed: int = 0
) -> tuple[list[MapChange], list[PictureMapChange]]:
    """Measure how far the maps of ``other`` lie from those of ``reference``.

    Returns a row for each map that both have (means over pictures with intervals), and one for each picture
    and map. Only pictures are counted that are the same (as they were drawn) and where both maps are ok.

    Raises:
        DataError: a raw map can't be read.
    """
    seen: dict[Key, _Seen] = {}
    shared = list(pairs_of(reference, other))
    palette = ImageColor.getrgb(_background(reference))
    for first, second in track(shared, total=len(shared), what="comparing maps"):
        pair = read_pair(reference, other, first, second)
        places = _places(reference, first, palette)
        for key, (before, after) in pair.maps.items():
            of_map = seen.setdefault(key, _Seen())
            of_map.groups.append((first.group, second.group))
            _measure(of_map, pair.name, before, after, places)
    for found in seen.values():  # the last picture is laid against the first
        if found.first is not None and found.before is not None and len(found.moved) > 1:
            found.unrelated.append(_distance(found.before, found.first[1]))
    rows = [_summary(key, found, seed) for key, found in seen.items()]
    return rows, [row for key, found in seen.items() for row in _each(key, found)]


def pairs_of(
    reference: Explained, other: Explained, *, name: str | None = None
) -> Iterator[tuple[PictureMaps, PictureMaps]]:
    """Yield the rows of pictures that both have explained and that look the same; of one name, if given."""
    theirs = {row.name: row for row in other.table.samples if row.status == "ok"}
    for row in reference.table.samples:
        if row.status != "ok" or row.name not in theirs or name not in (None, row.name):
            continue
        match = theirs[row.name]
        ours, other_file = reference.file_of(row, "orig"), other.file_of(match, "orig")
        if ours is not None and other_file is not None and _same_picture(ours, other_file):
            yield row, match


def read_pair(reference: Explained, other: Explained, first: PictureMaps, second: PictureMaps) -> Pair:
    """Read the raw maps of a picture that both runs have with status ok, at the size at which it is drawn."""
    theirs = {entry.key: entry for entry in second.maps}
    arrays = _arrays(reference, first), _arrays(other, second)
    maps = {}
    for entry in first.maps:
        key = entry.key
        if key in theirs and entry.status == theirs[key].status == "ok":
            maps[key] = (_map(arrays[0], first, key), _map(arrays[1], second, key))
    same = {key: found for key, found in maps.items() if found[0].shape == found[1].shape}
    return Pair(first.name, (first, second), same)


def shares(map: Map) -> Map:
    """Return the non-negative part of a map as shares of its sum; zeros where there is none."""
    positive = map.double().nan_to_num().clamp(min=0)
    return positive / positive.sum().clamp(min=torch.finfo(torch.float64).tiny)


def on_cells(map: Map) -> Float[Tensor, "cells cells"]:
    """Return the shares of a map on `CELLS` x `CELLS` cells."""
    return shares(F.adaptive_avg_pool2d(shares(map)[None, None], CELLS)[0, 0])


def _measure(found: _Seen, name: str, before: Map, after: Map, places: Mapping[str, Region]) -> None:
    first, second = on_cells(before), on_cells(after)
    found.names.append(name)
    found.moved.append(_distance(first, second))
    found.correlation.append(float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1]))
    if found.before is not None:
        found.unrelated.append(_distance(found.before, second))
    found.before, found.first = first, found.first or (first, second)
    for region in REGIONS:
        inside = places.get(region)
        if inside is None or inside.shape != before.shape or not bool(inside.any()):
            found.shares[region].append((float("nan"),) * 3)
            continue
        on = [float(shares(map)[inside].sum()) for map in (before, after)]
        found.shares[region].append((on[0], on[1], float(inside.double().mean())))


def _distance(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().sum() / 2)


def _summary(key: Key, found: _Seen, seed: int) -> MapChange:
    target, method, layer, where = key

    groups = joined_groups(list(zip(*found.groups, strict=True)))

    def mean(values: Sequence[float]) -> Spread:
        # Of unrelated maps there are those of neighbours: the first of the pair says the group.
        return interval(torch.tensor(values, dtype=torch.float64), groups=groups, seed=seed).spread()

    shares = {}
    for region, values in found.shares.items():
        before, after, area = torch.tensor(values, dtype=torch.float64).reshape(-1, 3).unbind(1)
        difference = paired(before, after, groups=groups, seed=seed)
        if difference.num:
            means = (float(column[~column.isnan()].mean()) for column in (before, after, area))
            named = dict(zip(("reference", "value", "area"), means, strict=True))
            shares[region] = AttentionShare(**named, difference=difference.spread())
    return MapChange(
        target=target,
        method=method,
        layer=layer,
        where=where,
        num=len(found.moved),
        moved=mean(found.moved),
        unrelated=mean(found.unrelated),
        correlation=mean(found.correlation),
        shares=shares,
    )


def _each(key: Key, found: _Seen) -> Iterator[PictureMapChange]:
    target, method, layer, where = key
    for index, name in enumerate(found.names):
        on_regions = {
            f"{region} {run}": value
            for region, values in found.shares.items()
            for run, value in zip(("reference", "value"), values[index], strict=False)
        }
        about = {"name": name, "target": target, "method": method, "layer": layer, "where": where}
        moved = {"moved": found.moved[index], "correlation": found.correlation[index]}
        yield PictureMapChange.model_validate({**about, **moved, **on_regions})


def _arrays(part: Explained, row: PictureMaps) -> Arrays:
    file = part.file_of(row, "raw")
    formats = {kind.suffix: kind for kind in FORMATS.values()}
    if file is None or file.suffix not in formats:
        raise DataError(
            f"The raw maps of {row.name} are not in {part.folder}. Explain it again: 'seglens explain RUN "
            "--force'."
        )
    try:
        return formats[file.suffix].read(file)
    except (OSError, ValueError, TypeError, KeyError, BadZipFile) as error:
        raise DataError(f"{file} can't be read ({error}). Explain it again with --force.") from error


def _map(arrays: Arrays, row: PictureMaps, key: Key) -> Map:
    """Return a map at the size at which its picture is drawn, 0 where it doesn't count."""
    target, method, layer, _ = key
    several = len({entry.target for entry in row.maps}) > 1
    name = map_name(method, layer, target=target if several else "")
    try:
        whole = arrays[f"map:{name}"].float()
    except KeyError:
        raise DataError(
            f"The raw map {name!r} of {row.name} is missing. Explain it again with --force."
        ) from None
    counted = arrays.get(f"counted:{name}")
    if counted is not None:
        whole = whole.masked_fill(counted == 0, 0.0)
    size = drawn_size(whole.shape[0], whole.shape[1])
    return F.interpolate(whole.nan_to_num()[None, None], size, mode="area")[0, 0]


def _places(part: Explained, row: PictureMaps, background: tuple[int, ...]) -> dict[str, Region]:
    """Return the regions of a picture, as its truth and the reference's prediction were drawn."""
    drawn = {kind: part.file_of(row, kind) for kind in ("gt", "pred")}
    if drawn["gt"] is None:
        return {}
    truth = _marked(drawn["gt"], background)
    if drawn["pred"] is None:
        return {"truth": truth}
    predicted = _marked(drawn["pred"], background)
    return {"truth": truth, "invented": predicted & ~truth, "missed": truth & ~predicted}


def _marked(file: Path, background: tuple[int, ...]) -> Region:
    with open_picture(file) as opened:
        colours = np.asarray(opened.convert("RGB"))
    return torch.from_numpy((colours != np.asarray(background[:3])).any(-1))


def _background(part: Explained) -> str:
    return (part.record and part.record.background) or "#000000"


def _same_picture(first: Path, second: Path) -> bool:
    return first.read_bytes() == second.read_bytes()

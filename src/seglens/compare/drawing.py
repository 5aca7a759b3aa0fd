"""Pictures of a comparison: what each run saw, and where its attention went.

A difference is drawn in shares of attention, in units of what an even map would have there: +2 means that two
even shares more lie here than in the reference. All differences of a comparison have the same colours.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from seglens.compare.attention import pairs_of, read_pair, shares
from seglens.data.picture_files import open_picture
from seglens.drawing.draw import Scale, heat_overlay, save_png, signed_scale
from seglens.files.output import unused_name
from seglens.report.contents import Evaluated, Explained
from seglens.results.comparison import ComparisonTable, Key
from seglens.results.maps import PictureMaps
from seglens.shapes import Map

SIDE = 256
"""Longest side of a drawn difference, in pixels."""
MAPS = 6
"""Kinds of map that are drawn of a picture, the first that were asked for."""
EXPLAINED = 6
"""Pictures with maps that are drawn besides those that changed most."""


@dataclass(frozen=True)
class ShownRun:
    """The sources of pictures: the evaluation and the explanation of each run that has one."""

    evaluated: Mapping[str, Evaluated]
    explained: Mapping[str, Explained]


@dataclass(frozen=True)
class ComparedCard:
    """A picture as all runs see it.

    ``tiles`` are label and file, image and truth first; ``maps`` has a row of tiles for each kind of map.
    ``why`` says what it is shown for: gained, lost or explained.
    """

    name: str
    why: tuple[str, ...]
    scores: Mapping[str, float | None]
    tiles: tuple[tuple[str, Path], ...]
    maps: tuple[tuple[str, tuple[tuple[str, Path], ...]], ...] = ()


@dataclass(frozen=True)
class DrawnComparison:
    """All cards, and the limit of the colours of differences; None where there are none."""

    cards: tuple[ComparedCard, ...] = ()
    reach: float | None = None


@dataclass
class _Change:
    """How the attention of one kind of map changed on one picture, to be drawn when all are known."""

    label: str
    run: str
    heatmaps: tuple[Path | None, Path | None]
    image: Path
    difference: Float[Tensor, "rows columns"]
    file: Path | None = field(default=None)


def draw_comparison(shown: ShownRun, table: ComparisonTable, folder: Path) -> DrawnComparison:
    """Draw what is shown of a comparison, differences of maps into ``folder / differences``."""
    reference = table.reference
    why = _chosen(shown, table)
    changes = {name: _changes(shown, reference, name) for name in why} if len(shown.explained) > 1 else {}
    every = [change for found in changes.values() for change in found]
    scale = signed_scale(torch.cat([c.difference.flatten() for c in every]), share=0.995) if every else None
    taken: set[str] = set()
    for name, found in changes.items():
        place = folder / "differences" / unused_name(name, taken)
        files: set[str] = set()
        for change in found:
            assert scale is not None
            change.file = place / f"{unused_name(f'{change.label} {change.run}', files)}.png"
            change.file.parent.mkdir(parents=True, exist_ok=True)
            _draw_change(change, scale, change.file)
    scores = {row.name: row.dice for row in table.images}
    cards = [
        ComparedCard(
            name,
            tuple(told),
            scores.get(name, {}),
            _tiles(shown, reference, name),
            _rows(changes.get(name, ()), reference),
        )
        for name, told in why.items()
    ]
    kept = tuple(card for card in cards if card.tiles or card.maps)
    return DrawnComparison(kept, scale.limits[1] if scale else None)


def _chosen(shown: ShownRun, table: ComparisonTable) -> dict[str, list[str]]:
    """Return the pictures to show, and for what: those that changed most, then those with maps."""
    why: dict[str, list[str]] = {}
    several = len(table.changed) > 1
    for run, kinds in table.changed.items():
        for kind, rows in kinds.items():
            for row in rows:
                why.setdefault(row.name, []).append(f"{kind} {row.change:+.3f}" + (f" in {run}" * several))
    change = {row.name: row.largest for row in table.images}
    moved: defaultdict[str, float] = defaultdict(float)
    for each in table.map_images:
        moved[each.name] = max(moved[each.name], each.moved)
    explained = sorted(moved, key=lambda name: (-change.get(name, 0.0), -moved[name]))
    for name in [name for name in explained if name not in why][:EXPLAINED]:
        why[name] = ["explained"]
    return why


def _changes(shown: ShownRun, reference: str, name: str) -> list[_Change]:
    found = []
    base = shown.explained.get(reference)
    for run, part in shown.explained.items():
        if run == reference or base is None:
            continue
        for first, second in pairs_of(base, part, name=name):
            pair, image = read_pair(base, part, first, second), base.file_of(first, "orig")
            heatmaps = (_heats(base, first), _heats(part, second))
            for key in list(pair.maps)[:MAPS]:
                before, after = pair.maps[key]
                if image is not None:
                    difference = _shrunk(shares(after) - shares(before)) * before.numel()
                    files = (heatmaps[0].get(key), heatmaps[1].get(key))
                    found.append(_Change(label_of(key), run, files, image, difference))
    return found


def label_of(key: Key) -> str:
    """Return what a map is called: target, method and layer."""
    target, method, layer, where = key
    return (
        f"{target}: {method}"
        + (f" at {layer}" if layer else "")
        + (" (context)" if where != "region" else "")
    )


def _shrunk(map: Map) -> Float[Tensor, "rows columns"]:
    rows, columns = map.shape
    share = min(1.0, SIDE / max(rows, columns))
    size = max(1, round(rows * share)), max(1, round(columns * share))
    return F.interpolate(map[None, None], size, mode="area")[0, 0].float()


def _draw_change(change: _Change, scale: Scale, file: Path) -> None:
    rows, columns = change.difference.shape
    with open_picture(change.image) as opened:
        small = opened.convert("RGB").resize((columns, rows))
    image = torch.from_numpy(np.asarray(small).copy()).permute(2, 0, 1).float() / 255
    save_png(heat_overlay(image, change.difference, scale), file)


def _heats(part: Explained, row: PictureMaps) -> dict[Key, Path | None]:
    return {entry.key: part.file(entry.file) for entry in row.maps}


def _tiles(shown: ShownRun, reference: str, name: str) -> tuple[tuple[str, Path], ...]:
    runs = [reference, *(run for run in {**shown.evaluated, **shown.explained} if run != reference)]
    files = {run: _files(shown, run, name) for run in runs}
    found = []
    for kind, label in (("orig", "Image"), ("gt", "Truth")):
        file = next((those[kind] for those in files.values() if kind in those), None)
        found += [(label, file)] if file else []
    return (
        *found,
        *((f"{run}: prediction", those["overlay"]) for run, those in files.items() if "overlay" in those),
    )


def _files(shown: ShownRun, run: str, name: str) -> dict[str, Path]:
    """Return the drawn pictures of a picture in a run, of its evaluation or its explanation."""
    found: dict[str, Path] = {}
    explained, evaluated = shown.explained.get(run), shown.evaluated.get(run)
    for part, rows in (
        (explained, explained.table.samples if explained else ()),
        (evaluated, evaluated.table.images if evaluated else ()),
    ):
        row = next((each for each in rows if each.name == name), None)
        files = {kind: part.file_of(row, kind) for kind in row.files} if part and row else {}
        found |= {kind: file for kind, file in files.items() if file is not None}
    return found


def _rows(changes: Sequence[_Change], reference: str) -> tuple[tuple[str, tuple[tuple[str, Path], ...]], ...]:
    """Put the maps of a kind beside one another: the reference's, then each run's with its difference."""
    rows: dict[str, list[tuple[str, Path]]] = {}
    for change in changes:
        row = rows.setdefault(change.label, [])
        if not row and change.heatmaps[0] is not None:
            row.append((reference, change.heatmaps[0]))
        if change.heatmaps[1] is not None:
            row.append((change.run, change.heatmaps[1]))
        if change.file is not None:
            row.append((f"{change.run} less {reference}", change.file))
    return tuple((label, tuple(row)) for label, row in rows.items())

"""The drawings of one explained picture: itself, truth, prediction, heat maps and contact sheets."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import ImageColor
from PIL.Image import Image as Picture
from PIL.Image import fromarray as image_of
from PIL.Image import open as open_image

from seglens.data.frame import Frame
from seglens.data.sample import Sample, Task
from seglens.drawing.draw import (
    TARGET,
    TRUTH,
    Tile,
    contours,
    hatch,
    heat_overlay,
    mask_picture,
    masked,
    no_map,
    outline,
    overlay,
    picture,
    save_png,
    sheet,
    signed_scale,
)
from seglens.drawing.planes import Planes
from seglens.errors import unknown_name
from seglens.files.output import unused_name
from seglens.folder.heatmaps import Heatmaps, Shared, about_error, drawn_size, limits_of, mask_as_drawn
from seglens.folder.montage import rows_of, slices_of
from seglens.folder.scales import Scaling, colours
from seglens.masks import foreground, is_stack, only_valid
from seglens.models.segmenter import ModelSpec
from seglens.results.maps import Colours, OneMap, Sheet
from seglens.shapes import AnyMask, Image, Mask

ROW, TILE = 4, 320
"""Tiles in a row of a sheet, and their width in pixels."""
STRIP = 256
"""Rows of a mask that are coloured at a time."""

OVERLAYS = ("heat", "contour", "masked")
"""The ways to lay a map over its picture."""

COLOURS = ("red", "green", "blue")


@dataclass(frozen=True)
class Subject:
    """One picture to draw: as it is, in ``folder / place``."""

    sample: Sample
    frame: Frame
    folder: Path
    place: str

    def save(self, drawn: Picture, name: str) -> str:
        """Save a picture and return its file name below the folder."""
        save_png(drawn, self.folder / self.place / f"{name}.png")
        return f"{self.place}/{name}.png"


def draw_subject(
    subject: Subject, predicted: AnyMask, spec: ModelSpec, task: Task, planes: Planes | None = None
) -> dict[str, str]:
    """Save ``orig gt pred overlay``; the overlay has the truth, where there is one, as a white outline.

    A volume is drawn in ``planes``.
    """
    sample, palette = shown(subject.sample, spec, planes), task.palette
    predicted = mask_as_drawn(predicted if planes is None else planes(predicted))
    files = {"orig": subject.save(picture(sample.image), "orig")}
    marked = overlay(sample.image, predicted, palette)
    if sample.mask is not None:
        truth = only_valid(sample.mask, sample.valid, 2)
        files["gt"] = subject.save(mask_picture(truth, palette), "gt")
        marked = outline(marked, foreground(truth, 2), TRUTH)
    files["pred"] = subject.save(mask_picture(predicted, palette), "pred")
    files["overlay"] = subject.save(marked, "overlay")
    return files


def draw_maps(
    subject: Subject,
    heatmaps: Heatmaps,
    scaling: Scaling,
    shared: Shared,
    montage: str | None = None,
    overlays: Sequence[str] = (),
) -> tuple[tuple[OneMap, ...], tuple[Sheet, ...]]:
    """Save a heat map for each row, and sheets that compare methods, layers and targets.

    ``shared`` are the limits of a scale over the whole set. Of a volume each map has a ``montage`` of a
    plane, where one is named. Of a map with a value for each colour channel these have a sheet, and each map
    has one of its ``overlays`` (`OVERLAYS`), where some are named.

    Returns:
        The rows with the names of the files and the ``scale`` of their colours, and the sheets.
    """
    image_in = cache(lambda planes: shown(subject.sample, heatmaps.spec, planes).image)
    taken = {"orig", "gt", "pred", "overlay"}
    tiles: list[list[Tile]] = []
    drawn: list[OneMap] = []
    for row in heatmaps.rows:
        image = image_in(heatmaps.planes(row))
        tile = _tile(heatmaps, row, image, scaling, shared)
        file = subject.save(tile.picture, unused_name(heatmaps.name(row), taken))
        found: dict[str, object] = {"file": file}
        if tile.scale:
            found["scale"] = Colours(limits=tile.scale.limits, unit=tile.scale.unit)
        tiles.append([tile])
        if row.evidence and not heatmaps.is_signed(row):
            tile = _evidence_tile(heatmaps, row, image, scaling, shared)
            file = subject.save(tile.picture, unused_name(f"{heatmaps.name(row)}@evidence", taken))
            tiles[-1].append(tile)
        if row.evidence:
            found["evidence"] = row.evidence.model_copy(update={"file": file})
        if row.folds and (apart := row.of_folds):
            tile = _folds_tile(heatmaps, apart, image)
            file = subject.save(tile.picture, unused_name(heatmaps.name(apart), taken))
            tiles[-1].append(tile)
            found["folds"] = row.folds.model_copy(update={"file": file})
        drawn.append(row.model_copy(update=found))
    sheets = []
    for title, kept in comparisons(heatmaps.rows):
        by_target = title.startswith("targets@")
        image = image_in(heatmaps.planes(heatmaps.rows[kept[0]]))
        every = [Tile(picture(image), "image"), *_answer(subject, image, heatmaps.rows[kept[0]])]
        for i in kept:
            row = heatmaps.rows[i]
            name = row.target if by_target else row.name
            every += [replace(tiles[i][0], title=name), *tiles[i][1:]]
        across, width = (
            (ROW, TILE) if subject.sample.valid.ndim == 2 else (2, 2 * TILE)
        )  # three planes are wide
        lines = [every[i : i + across] for i in range(0, len(every), across)]
        page = sheet(
            lines, title=f"{subject.sample.name}: {title}", tile_width=width, legend=_meanings(subject)
        )
        sheets.append(Sheet(title=title, file=subject.save(page, unused_name(title, taken))))
    for row in heatmaps.rows:
        image = image_in(heatmaps.planes(row))
        for title, line in (
            (f"channels@{heatmaps.name(row)}", _by_channel(heatmaps, row, image)),
            (f"overlays@{heatmaps.name(row)}", _overlaid(heatmaps, row, image, scaling, shared, overlays)),
        ):
            if line:
                every = [Tile(picture(image), "image"), *_answer(subject, image, row), *line]
                page = sheet(
                    [every[i : i + ROW + 1] for i in range(0, len(every), ROW + 1)],
                    title=f"{subject.sample.name}: {title}",
                    legend=_meanings(subject),
                )
                sheets.append(Sheet(title=title, file=subject.save(page, unused_name(title, taken))))
    if montage is not None:
        for row in heatmaps.every_row:
            title = f"montage@{heatmaps.name(row)}"
            how = scaling if row in heatmaps.rows else Scaling("image")  # as their tile, folds have their own
            page = _montage(subject, heatmaps, row, how, shared, montage)
            sheets.append(Sheet(title=title, file=subject.save(page, unused_name(title, taken))))
    return tuple(drawn), tuple(sheets)


def _montage(
    subject: Subject, heatmaps: Heatmaps, row: OneMap, scaling: Scaling, shared: Shared, plane: str
) -> Picture:
    """Draw slices of a plane with the map over them, numbered from the feet, the front or the right."""
    planes = heatmaps.planes(row)
    assert planes is not None  # of a volume
    tiles = []
    for number, one in slices_of(planes, subject.sample.valid.shape, plane).items():
        image = shown(subject.sample, heatmaps.spec, one).image
        tile = _tile(replace(heatmaps, chosen=one), row, image, scaling, shared)
        tiles.append(replace(tile, title=f"{plane} {number}", caption="", scale=None))
    tiles[-1] = replace(tiles[-1], scale=tile.scale)
    return sheet(rows_of(tiles), title=f"{subject.sample.name}: {heatmaps.name(row)}", tile_width=TILE)


def _answer(subject: Subject, image: Image, row: OneMap) -> list[Tile]:
    """Return the tile with truth and prediction, which lies beside the picture already; none for a volume."""
    file = subject.folder / subject.place / "overlay.png"
    if not file.is_file() or subject.sample.valid.ndim != 2:
        return []
    with open_image(file) as opened:
        drawn = opened.convert("RGB")
    known = subject.sample.mask is not None
    return [Tile(drawn, "prediction and truth" if known else "prediction")]


def _meanings(subject: Subject) -> dict[str, str]:
    """Return what the outlines on a sheet mean, by colour."""
    truth = {TRUTH: "truth (white outline)"} if subject.sample.mask is not None else {}
    return {TARGET: "target: the pixels that the map explains", **truth}


def _by_channel(heatmaps: Heatmaps, row: OneMap, image: Image) -> list[Tile]:
    """Return a tile for each colour channel of a map that has such values, in one scale."""
    values = heatmaps.arrays.get(f"channels:{heatmaps.name(row)}")
    if row.status != "ok" or values is None or len(values) < 2 or values.ndim != 3:
        return []
    names = COLOURS if len(values) == len(COLOURS) else [f"channel {i + 1}" for i in range(len(values))]
    native = heatmaps.frame.maps_to_native(values.float())
    part = F.interpolate(native[None], tuple(image.shape[1:]), mode="bilinear", antialias=True)[0]
    scale = replace(signed_scale(part, share=0.99), unit=row.unit)
    return [
        Tile(outline(heat_overlay(image, each, scale), heatmaps.region(row), TARGET), name, "", scale)
        for name, each in zip(names, part, strict=True)
    ]


def _overlaid(
    heatmaps: Heatmaps, row: OneMap, image: Image, scaling: Scaling, shared: Shared, overlays: Sequence[str]
) -> list[Tile]:
    """Return a tile for each way to lay a map over its picture; none where there is no map."""
    if row.status != "ok" or not overlays:
        return []
    scale, values = colours(limits_of(row, "map", scaling, shared), row.unit), heatmaps.values(row)
    drawn = {
        "heat": lambda: Tile(heat_overlay(image, values, scale), "heat", "", scale),
        "contour": lambda: Tile(
            contours(image, values, scale), "contour", "lines at 25, 50 and 75 % of the largest"
        ),
        "masked": lambda: Tile(masked(image, values), "masked", "only the fifth with the largest values"),
    }
    tiles = [drawn[name]() for name in overlays]
    return [replace(tile, picture=outline(tile.picture, heatmaps.region(row), TARGET)) for tile in tiles]


def ways_to_overlay(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names, each once.

    Raises:
        UnknownNameError: one is none of `OVERLAYS`.
    """
    for name in names:
        if name not in OVERLAYS:
            raise unknown_name("overlay", name, OVERLAYS)
    return tuple(dict.fromkeys(names))


def comparisons(rows: Sequence[OneMap]) -> list[tuple[str, list[int]]]:
    """Return the sheets worth drawing: methods side by side, layers, and targets.

    Maps without a layer stand on every sheet of methods. One map alone has a sheet for its colour bar.
    """
    targets, layers, methods = (
        list(dict.fromkeys(found for found in each if found is not None))
        for each in ([r.target for r in rows], [r.layer for r in rows], [r.method for r in rows])
    )
    found: dict[str, list[int]] = {}
    for target in targets:
        front = f"{target}@" if len(targets) > 1 else ""
        ours = [i for i, row in enumerate(rows) if row.target == target]
        for layer in layers:
            found[f"{front}methods@{layer}"] = [i for i in ours if rows[i].layer in (layer, None)]
        for method in methods:
            found[f"{front}layers@{method}"] = [i for i in ours if rows[i].method == method]
        if not layers:
            found[f"{front}methods"] = ours
    if len(targets) > 1:
        for row in rows:
            title = f"targets@{row.name}"
            found[title] = [i for i, other in enumerate(rows) if other.name == row.name]
    sheets = [(title, kept) for title, kept in found.items() if len(kept) > 1]
    return sheets or [("map", list(range(len(rows))))]


def shown(sample: Sample, spec: ModelSpec, planes: Planes | None = None) -> Sample:
    """Return a sample as it is drawn: the model's intensity window opened up, no side above `DRAWN`.

    A volume is drawn in ``planes``.
    """
    if planes is not None:
        mask = None if sample.mask is None else planes(sample.mask)
        sample = Sample(sample.name, planes(sample.image), mask, planes(sample.valid))
    low, high = spec.window
    image = ((sample.image - low) / (high - low)).clamp(0, 1)
    size = drawn_size(image.shape[1], image.shape[2])
    if size != tuple(image.shape[1:]):
        image = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)
    mask = None if sample.mask is None else mask_as_drawn(sample.mask)
    return Sample(sample.name, image, mask, mask_as_drawn(sample.valid.long()) > 0)


def class_indices(mask: Mask) -> Picture:
    """Return a mask as a grey picture of class indices, in 8 bits or 16 where one needs them."""
    return image_of(mask.to(torch.uint8 if _in_bytes(mask) else torch.uint16).cpu().numpy())


def _in_bytes(mask: Mask) -> bool:
    return not mask.numel() or int(mask.max()) < 256


def coloured(mask: AnyMask, palette: Sequence[str]) -> Picture:
    """Return a mask in the colours of its classes, for eyes."""
    if is_stack(mask) or not _in_bytes(mask):  # more colours than a palette holds
        tops = range(0, mask.shape[-2], STRIP)
        strips = [mask_picture(mask[..., top : top + STRIP, :], palette) for top in tops]
        return image_of(np.concatenate([np.asarray(strip) for strip in strips]))
    drawn = class_indices(mask)
    colours = [ImageColor.getrgb(palette[index % len(palette)])[:3] for index in range(256)]
    drawn.putpalette([value for colour in colours for value in colour])
    return drawn


def _tile(heatmaps: Heatmaps, row: OneMap, image: Image, scaling: Scaling, shared: Shared) -> Tile:
    name = heatmaps.name(row)
    if row.status != "ok":
        return Tile(
            no_map(image.shape[1], image.shape[2], "no heat map"), name, f"No heat map: {row.why_missing}."
        )
    scale = colours(limits_of(row, "map", scaling, shared), row.unit)
    drawn, hidden = heat_overlay(image, heatmaps.values(row), scale), heatmaps.hidden(row)
    caption = ""
    if about_error(row) and not row.evidence:
        caption = "this method has no sign: it cannot tell for from against"
    elif about_error(row) and heatmaps.is_signed(row):
        caption = _weighed(row)
    if hidden is not None:
        drawn, caption = hatch(drawn, hidden), caption or "hatched: not counted"
    return Tile(outline(drawn, heatmaps.region(row), TARGET), name, caption, scale)


def _evidence_tile(heatmaps: Heatmaps, row: OneMap, image: Image, scaling: Scaling, shared: Shared) -> Tile:
    signed, hidden = heatmaps.evidence(row), heatmaps.hidden(row)
    assert signed is not None  # or the row would have no evidence
    scale = colours(limits_of(row, "evidence", scaling, shared), row.unit)
    drawn = heat_overlay(image, signed, scale)
    if hidden is not None:
        drawn = hatch(drawn, hidden)
    return Tile(outline(drawn, heatmaps.region(row), TARGET), "for and against", _weighed(row), scale)


def _folds_tile(heatmaps: Heatmaps, row: OneMap, image: Image) -> Tile:
    """Draw how far folds are apart, in colours of its own limits."""
    share, scale = row.diagnostics.get("disagreement"), colours(row.limits or (0.0, 1.0), row.unit)
    drawn = outline(heat_overlay(image, heatmaps.values(row), scale), heatmaps.region(row), TARGET)
    caption = "" if share is None else f"the folds share {1 - share:.0%} of the map"
    return Tile(drawn, "folds: standard deviation", caption, scale)


def _weighed(row: OneMap) -> str:
    against = row.evidence.opposing if row.evidence else None
    if against is None or against != against:
        return "nothing for or against"
    return f"red: for {1 - against:.0%}, blue: against {against:.0%}"

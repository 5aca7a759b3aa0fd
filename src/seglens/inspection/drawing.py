"""Drawings of one picture: its prediction, the map of an explanation, the effect of a removal."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image as pil
from PIL import ImageDraw, ImageFont
from PIL.Image import Image as Picture

from seglens.drawing.draw import (
    INK,
    Scale,
    Tile,
    enlarge,
    hatch,
    heat,
    heat_overlay,
    no_map,
    outline,
    overlay,
    picture,
    save_png,
    sheet,
)
from seglens.drawing.notebook import address
from seglens.folder.contact_sheets import shown
from seglens.folder.heatmaps import drawn_size, limits_of, mask_as_drawn
from seglens.folder.raw import FORMATS
from seglens.folder.scales import Scaling, colours
from seglens.inspection.clicks import ClickedPixel, pieces_on_grid
from seglens.inspection.explaining import ExplainedPicture
from seglens.inspection.opened import Opened
from seglens.inspection.removing import RemovedRegion
from seglens.masks import foreground, only_valid
from seglens.runs import Run
from seglens.shapes import Region

LEAST_SIDE = 512
"""Pictures are drawn at least this large, in whole multiples, so that a click can hit a pixel."""

MOST_NUMBERS = 20
"""Pieces that get a number on the picture: more can't be read."""

OWN = Scaling("image")
"""Every map has colours of its own limits."""


def bare(run: Run, opened: Opened) -> Picture:
    """Draw the picture alone, as large as it is shown."""
    return _large(picture(shown(opened.sample, run.spec, opened.planes).image))


def predicted_over(run: Run, opened: Opened) -> Picture:
    """Draw the prediction over the picture, and the truth, where it is known, as a white outline."""
    sample, planes = shown(opened.sample, run.spec, opened.planes), opened.planes
    mask = mask_as_drawn(opened.mask if planes is None else planes(opened.mask))
    drawn = _large(overlay(sample.image, mask, run.task.palette))
    if sample.mask is None:
        return drawn
    return outline(drawn, foreground(only_valid(sample.mask, sample.valid, 2), 2))


def numbered(run: Run, opened: Opened, class_index: int, *, chosen: int = 0) -> Picture:
    """Draw the prediction over the picture with the number of each piece, the ``chosen`` one outlined.

    Pieces are those of ``component:N``, see `clicks.pieces_on_grid`.
    """
    drawn = predicted_over(run, opened)
    pieces = opened.frame.mask_to_native(pieces_on_grid(opened, class_index))
    pieces = mask_as_drawn(pieces if opened.planes is None else opened.planes(pieces))
    if chosen:
        drawn = outline(drawn, pieces == chosen, INK)
    pen, font = ImageDraw.Draw(drawn), ImageFont.load_default(size=LEAST_SIDE // 24)
    across, down = drawn.width / pieces.shape[1], drawn.height / pieces.shape[0]
    for number in range(1, min(int(pieces.max()), MOST_NUMBERS) + 1):
        places = torch.nonzero(pieces == number).float()
        if len(places):  # or the planes of a volume pass it by
            inside = places[(places - places.mean(0)).norm(dim=1).argmin()]
            at = ((float(inside[1]) + 0.5) * across, (float(inside[0]) + 0.5) * down)
            pen.text(at, str(number), fill="#ffffff", stroke_fill=INK, stroke_width=2, font=font, anchor="mm")
    return drawn


def removed_over(run: Run, opened: Opened, removal: RemovedRegion) -> Picture:
    """Draw the picture as the model saw it after the removal, with its prediction, the region outlined."""
    frame = opened.frame
    image = frame.maps_to_native(removal.image).clamp(0, 1)
    sample = shown(opened.sample, run.spec)
    seen = shown(type(sample)(sample.name, image, None, opened.sample.valid), run.spec)
    drawn = _large(overlay(seen.image, mask_as_drawn(removal.mask), run.task.palette))
    where = frame.mask_to_native(removal.region.long()) > 0
    return outline(drawn, mask_as_drawn(where.long()) > 0)


def answered(run: Run, opened: Opened, answer: ExplainedPicture, *, evidence: bool = False) -> Picture:
    """Draw the map over the picture, the target outlined; a tile that says why where there is no map.

    With ``evidence`` it is what speaks for and against, where the method tells.
    """
    image, row = shown(opened.sample, run.spec, opened.planes).image, answer.row
    heatmaps = replace(answer.heatmaps, chosen=opened.planes)
    scale = scale_of(answer, evidence=evidence)
    if scale is None:
        drawn = _large(no_map(image.shape[1], image.shape[2], " "))
        tile = no_map(drawn.height, drawn.width, row.status.replace("_", " "))
        return tile if answer.status == "no_target" else outline(tile, heatmaps.region(row), INK)
    values = heatmaps.evidence(row) if evidence else heatmaps.values(row)
    assert values is not None  # or there would be no scale
    drawn, hidden = _large(heat_overlay(image, values, scale)), heatmaps.hidden(row)
    if hidden is not None:
        drawn = hatch(drawn, hidden)
    return outline(drawn, heatmaps.region(row), INK if scale.limits[0] < 0 else "#ffffff")


def scale_of(answer: ExplainedPicture, *, evidence: bool = False) -> Scale | None:
    """Return what the colours of an answer mean; None where there is no map, or no such evidence."""
    row = answer.row
    if evidence:
        return colours(limits_of(row, "evidence", OWN, {}), row.unit) if row.evidence else None
    return colours(limits_of(row, "map", OWN, {}), row.unit) if row.status == "ok" else None


def bar(scale: Scale) -> str:
    """Return a colour bar as the address of a picture that lies in the page itself."""
    low, high = scale.limits
    return address(heat(torch.linspace(low, high, 256).expand(1, 256), scale))


def save(
    run: Run, opened: Opened, answer: ExplainedPicture, drawn: Picture, evidence: Picture | None, folder: Path
) -> tuple[Path, Path]:
    """Write ``sheet.png`` and the raw map ``maps.npz`` into ``folder``; return the files.

    ``drawn`` and ``evidence`` are what `answered` made. What the arrays are is in
    `seglens.folder.raw.raw_arrays`.
    """
    row = answer.row
    tiles = [
        Tile(bare(run, opened), "image"),
        Tile(predicted_over(run, opened), "prediction", "white: truth" if opened.has_truth else ""),
        Tile(drawn, row.name, row.status.replace("_", " "), scale_of(answer)),
    ]
    if evidence is not None:
        both = scale_of(answer, evidence=True)
        tiles.append(Tile(evidence, "for and against", "red: for, blue: against", both))
    title = f"{opened.sample.name}: {row.target} of {answer.request.class_name or run.task.classes[1]}"
    file, raw = folder / "sheet.png", folder / "maps.npz"
    save_png(sheet([tiles], title=title, tile_width=320), file)
    FORMATS["npz"].write(answer.arrays, raw)
    return file, raw


def native_place(opened: Opened, x: int | float, y: int | float) -> ClickedPixel | None:
    """Return the native pixel under the point ``(x, y)`` of a picture as it is drawn here.

    Of a volume it is the voxel, None between its planes.
    """
    rows, columns = size_in_planes(opened)
    size = drawn_to(opened)
    across = min(max(int(x * columns // size[0]), 0), columns - 1)
    down = min(max(int(y * rows // size[1]), 0), rows - 1)
    if opened.planes is None:
        return across, down
    voxel = opened.planes.voxel_at(across, down, opened.frame.native)
    return None if voxel is None else voxel[::-1]


def size_in_planes(opened: Opened) -> tuple[int, int]:
    """Return rows and columns of what is drawn: a picture, or the planes of a volume."""
    valid = opened.sample.valid if opened.planes is None else opened.planes(opened.sample.valid)
    return valid.shape[0], valid.shape[1]


def brushed(opened: Opened, strokes: Sequence[Mapping[str, Any]]) -> Region:
    """Return the native pixels that strokes of a round brush touch on a picture as it is drawn here.

    A stroke has a ``radius`` and ``points`` (x, y), both in pixels of the drawn picture. A native pixel
    counts where the brush covers the centre of any pixel that is drawn of it.
    """
    size = drawn_to(opened)
    page = pil.new("L", size)
    pen = ImageDraw.Draw(page)
    for stroke in strokes:
        radius, points = float(stroke["radius"]), [(float(x), float(y)) for x, y in stroke["points"]]
        pen.line(points, fill=255, width=max(1, round(2 * radius)))
        for x, y in points:
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    painted = torch.frombuffer(bytearray(page.tobytes()), dtype=torch.uint8).view(1, 1, size[1], size[0])
    return F.adaptive_max_pool2d(painted.float(), opened.frame.native)[0, 0] > 0


def drawn_to(opened: Opened) -> tuple[int, int]:
    """Return the size (width, height) at which a picture is drawn."""
    height, width = drawn_size(*size_in_planes(opened))
    factor = _factor(width, height)
    return width * factor, height * factor


def _factor(width: int, height: int) -> int:
    return max(1, -(-LEAST_SIDE // max(width, height)))


def _large(drawn: Picture) -> Picture:
    factor = _factor(*drawn.size)
    return drawn if factor == 1 else enlarge(drawn, factor)

"""Pictures of images, masks and maps, and sheets of them with titles and colour bars.

Drawing is the only place where a map is scaled, and the limits are always the caller's: equal limits, equal
colours. Heat uses colormaps of even perceptual steps; signed maps use a diverging one, centred on 0.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import Image as pil
from PIL import ImageColor, ImageDraw, ImageFont
from PIL.Image import Image as Picture
from torch import Tensor

from seglens.data.sample import PALETTE
from seglens.errors import SettingError, unknown_name
from seglens.files.output import new_file
from seglens.masks import foreground, is_stack, of_class
from seglens.shapes import AnyMask, Image, Map, Region

HEAT = "inferno"
"""The colormap of maps that are nowhere negative."""
SIGNED = "RdBu_r"
"""The colormap of signed maps: red speaks for the class, blue against it, white is 0."""

INK, FAINT, PAPER = "#1f2430", "#6b7280", "#ffffff"
GAP = 10

TRUTH, PREDICTION, TARGET = "#ffffff", "#ffb000", "#56dcff"
"""Outlines of truth, prediction and target: the colours that they have in the report, too."""

LEVELS = (0.25, 0.5, 0.75)
"""Shares of the largest value at which contours are drawn."""

SEEN = 0.2
"""Share of the pixels, those with the largest values, that a masked picture shows."""


@dataclass(frozen=True)
class Scale:
    """The colours of a map: a matplotlib colormap, and the values at its two ends."""

    limits: tuple[float, float]
    colormap: str = HEAT
    unit: str = ""


@dataclass(frozen=True)
class Tile:
    """One picture of a sheet, with a title above, and a colour bar and a caption below."""

    picture: Picture
    title: str = ""
    caption: str = ""
    scale: Scale | None = None


def heat_scale(maps: Float[Tensor, "*any"], *, share: float = 1.0) -> Scale:
    """Return the scale from 0 to the largest finite value of ``maps``, for maps that are nowhere negative.

    With a ``share`` below 1 it ends at that quantile, and what lies beyond has the colour of its end: the few
    extreme pixels of an attribution at full resolution would leave everything else in the dark.
    """
    return Scale((0.0, _largest(maps, share)), HEAT)


def signed_scale(maps: Float[Tensor, "*any"], *, share: float = 1.0) -> Scale:
    """Return the scale symmetric about 0 up to the largest size in ``maps``; ``share`` as in `heat_scale`."""
    reach = _largest(maps.abs(), share)
    return Scale((-reach, reach), SIGNED)


def picture(image: Image) -> Picture:
    """Draw an image in [0, 1]: three channels as red, green, blue; any other number as their mean, grey."""
    return _to_picture(_rgb(image))


def mask_picture(mask: AnyMask, palette: Sequence[str] = PALETTE) -> Picture:
    """Draw every class in its colour; where several overlap, in the mean of theirs."""
    return _to_picture(_painted(mask.cpu(), palette))


def overlay(
    image: Image, mask: AnyMask, palette: Sequence[str] = PALETTE, *, opacity: float = 0.4
) -> Picture:
    """Draw the classes over the image, the background clear, each object with an edge in full colour."""
    mask = mask.cpu()
    colours = _painted(mask, palette)
    alpha = torch.where(foreground(mask, 2), opacity, 0.0)
    there = range(1, len(mask) + 1) if is_stack(mask) else mask.unique().tolist()
    for class_index in there:
        if class_index:
            edge = _edge(of_class(mask, class_index, 2))
            alpha[edge] = 1.0
            colours[edge] = _colours(palette)[class_index % len(palette)]
    return _to_picture(_blend(_rgb(image), colours, alpha))


def heat(map: Map, scale: Scale) -> Picture:
    """Draw a map in the colours of ``scale``; a map without values is drawn as a tile that says so."""
    if not map.isfinite().any():
        return no_map(map.shape[-2], map.shape[-1])
    return _to_picture(_coloured(map, scale))


def heat_overlay(image: Image, map: Map, scale: Scale) -> Picture:
    """Draw a map over its image in grey; the further a value is from nothing, the less shines through.

    Nothing is 0 on a signed scale and the lower limit on any other.
    """
    if not map.isfinite().any():
        return no_map(map.shape[-2], map.shape[-1])
    low, high = scale.limits
    nothing = 0.0 if low < 0 < high else low
    reach = max(high - nothing, nothing - low)
    strength = ((map.detach().cpu().float() - nothing).abs() / reach).clamp(0, 1).nan_to_num()
    grey = _rgb(image).mean(-1, keepdim=True).expand(-1, -1, 3)
    return _to_picture(_blend(grey, _coloured(map, scale), 0.75 * (2 * strength).clamp(max=1)))


def contours(image: Image, map: Map, scale: Scale) -> Picture:
    """Draw lines of equal value over the image: at `LEVELS` of the largest value, the higher the brighter."""
    if not map.isfinite().any():
        return no_map(map.shape[-2], map.shape[-1])
    drawn, low, high = picture(image), max(scale.limits[0], 0.0), scale.limits[1]
    values = map.detach().cpu().float().nan_to_num(low)
    for level in LEVELS:
        share = _coloured(torch.full((1, 1), low + (0.4 + 0.6 * level) * (high - low)), scale)[0, 0]
        colour = "#" + "".join(f"{round(255 * float(part)):02x}" for part in share)
        drawn = outline(drawn, values >= low + level * (high - low), colour)
    return drawn


def masked(image: Image, map: Map) -> Picture:
    """Draw the image where the map has its largest values, `SEEN` of the pixels; the rest is dark."""
    values = map.detach().cpu().float().nan_to_num(-math.inf)
    known = values[values.isfinite()]
    if not len(known):
        return no_map(map.shape[-2], map.shape[-1])
    seen = (values >= known.quantile(1 - SEEN)) & (values > known.min())
    return _to_picture(_rgb(image) * torch.where(seen, 1.0, 0.12)[..., None])


def outline(drawn: Picture, region: Region, colour: str = "#ffffff") -> Picture:
    """Return ``drawn`` with the edge of ``region`` on it, one pixel wide in the picture's own pixels."""
    size = (drawn.height, drawn.width)
    at_size = F.interpolate(region[None, None].float().cpu(), size=size, mode="nearest-exact")[0, 0] > 0.5
    line = pil.fromarray(_edge(at_size).to(torch.uint8).mul(255).numpy())
    lined = drawn.copy()
    lined.paste(ImageColor.getrgb(colour), mask=line)
    return lined


def hatch(drawn: Picture, region: Region) -> Picture:
    """Return ``drawn`` with ``region`` hatched: what is there does not count."""
    size = (drawn.height, drawn.width)
    at_size = F.interpolate(region[None, None].float().cpu(), size=size, mode="nearest-exact")[0, 0] > 0.5
    if not at_size.any():
        return drawn.copy()
    shade = pil.fromarray(at_size.to(torch.uint8).mul(255).numpy())
    grey = pil.blend(drawn.convert("L").convert("RGB"), pil.new("RGB", drawn.size, "#d1d5db"), 0.6)
    step = max(5, min(size) // 24)
    pen = ImageDraw.Draw(grey)
    for start in range(-drawn.height, drawn.width, step):
        pen.line([(start, drawn.height), (start + drawn.height, 0)], fill=FAINT)
    hatched = drawn.copy()
    hatched.paste(grey, mask=shade)
    return hatched


def enlarge(drawn: Picture, factor: int) -> Picture:
    """Return ``drawn`` several times as large, smoothly, so that lines drawn afterwards are fine."""
    return drawn.resize((drawn.width * factor, drawn.height * factor), pil.Resampling.BICUBIC)


def no_map(rows: int, columns: int, text: str = "no target") -> Picture:
    """Draw the tile that stands where there is no map: hatched, with the reason. Never a black map."""
    tile = pil.new("RGB", (columns, rows), "#f3f4f6")
    pen = ImageDraw.Draw(tile)
    step = max(6, min(rows, columns) // 12)
    for start in range(-rows, columns, step):
        pen.line([(start, rows), (start + rows, 0)], fill="#d1d5db", width=max(1, step // 8))
    font = _font(max(8, min(16, columns // 8)))
    box = pen.textbbox((columns / 2, rows / 2), text, font=font, anchor="mm")
    pen.rectangle((box[0] - 4, box[1] - 3, box[2] + 4, box[3] + 3), fill="#f3f4f6")
    pen.text((columns / 2, rows / 2), text, font=font, fill=INK, anchor="mm")
    return tile


def sheet(
    rows: Sequence[Sequence[Tile]],
    *,
    title: str = "",
    tile_width: int = 320,
    legend: Mapping[str, str] | None = None,
) -> Picture:
    """Lay tiles out in rows, each scaled to ``tile_width`` pixels, under one title, which wraps.

    ``legend`` says what the colours of outlines mean, by colour.

    Raises:
        SettingError: there is no tile.
    """
    if not any(rows):
        raise SettingError("A sheet needs at least one tile, got none.")
    drawn = [[_draw_tile(tile, tile_width) for tile in row] for row in rows if row]
    width = GAP + max(sum(tile.width + GAP for tile in row) for row in drawn)
    font = _font(18, bold=True)
    titles = wrapped(title, font, width - 2 * GAP) if title else []
    head = GAP + len(titles) * 24 + (6 if titles else 0)
    keys = _legend(legend, width - 2 * GAP) if legend else None
    below = keys.height + GAP if keys else 0
    height = head + sum(max(tile.height for tile in row) + GAP for row in drawn) + below
    page = pil.new("RGB", (width, height), PAPER)
    for i, line in enumerate(titles):
        ImageDraw.Draw(page).text((GAP, GAP + 24 * i), line, font=font, fill=INK)
    if keys:
        page.paste(keys, (GAP, height - below))
    top = head
    for row in drawn:
        left = GAP
        for tile in row:
            page.paste(tile, (left, top))
            left += tile.width + GAP
        top += max(tile.height for tile in row) + GAP
    return page


def save_png(drawn: Picture, file: Path) -> None:
    """Write a picture as PNG, whole or not at all, over what was there."""
    with new_file(file, force=True) as temporary:
        drawn.save(temporary, format="PNG")


def _draw_tile(tile: Tile, width: int) -> Picture:
    """Draw a tile: title, picture, colour bar with its two ends, caption."""
    height = max(1, round(tile.picture.height * width / tile.picture.width))
    font, small = _font(13, bold=True), _font(12)
    titles = wrapped(tile.title, font, width) if tile.title else []
    captions = wrapped(tile.caption, small, width) if tile.caption else []
    above, bar, below = 18 * len(titles) + 2, (30 if tile.scale else 0), 16 * len(captions) + 2
    page = pil.new("RGB", (width, above + height + bar + below), PAPER)
    pen = ImageDraw.Draw(page)
    for i, line in enumerate(titles):
        pen.text((0, 1 + 18 * i), line, font=font, fill=INK)
    page.paste(tile.picture.resize((width, height), pil.Resampling.BICUBIC), (0, above))
    if tile.scale:
        top = above + height + 4
        page.paste(_bar(tile.scale, width), (0, top))
        low, high = (f"{value:.3g}" for value in tile.scale.limits)
        pen.text((0, top + 9), low, font=small, fill=FAINT)
        pen.text((width / 2, top + 9), tile.scale.unit, font=small, fill=FAINT, anchor="ma")
        pen.text((width, top + 9), high, font=small, fill=FAINT, anchor="ra")
    for i, line in enumerate(captions):
        pen.text((0, above + height + bar + 2 + 16 * i), line, font=small, fill=INK)
    return page


def wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Break a text into lines of at most ``width`` pixels, at spaces or else after ``@``, ``-`` and ``_``."""
    lines = [""]
    for word in re.findall(r"\s*[^\s@_-]*[@_-]?", text):
        if lines[-1] and font.getlength((lines[-1] + word).strip()) > width:
            lines.append("")
        lines[-1] += word if lines[-1] else word.lstrip()
    return [_shorten(line.rstrip(), font, width) for line in lines if line.strip()]


def _legend(meanings: Mapping[str, str], width: int) -> Picture:
    """Draw what the colours of outlines mean: a framed patch and its meaning for each."""
    font, places, left, top = _font(12), [], 0, 0
    for colour, text in meanings.items():
        wide = 26 + round(font.getlength(text))
        if left and left + wide > width:
            left, top = 0, top + 20
        places.append((colour, text, left, top))
        left += wide + 18
    page = pil.new("RGB", (width, top + 18), PAPER)
    pen = ImageDraw.Draw(page)
    for colour, text, x, y in places:
        pen.rectangle((x, y + 1, x + 18, y + 15), fill=FAINT)  # white is seen on paper, too
        pen.rectangle((x + 1, y + 2, x + 17, y + 14), fill="#50565e", outline=colour, width=3)
        pen.text((x + 23, y + 1), text, font=font, fill=INK)
    return page


def _bar(scale: Scale, width: int) -> Picture:
    low, high = scale.limits
    return _to_picture(_coloured(torch.linspace(low, high, width).expand(7, width), scale))


def _coloured(map: Map, scale: Scale) -> Float[Tensor, "h w 3"]:
    """Look the values of a map up in a colormap; what is beyond the limits takes the colour of the limit."""
    low, high = scale.limits
    if not low < high:
        raise SettingError(f"The lower limit of a colour scale must be below the upper, got {scale.limits}.")
    place = ((map.detach().cpu().float() - low) / (high - low)).clamp(0, 1).nan_to_num()
    return _table(scale.colormap)[(place * 255).round().long()]


@cache
def _table(colormap: str) -> Float[Tensor, "256 3"]:
    if colormap not in matplotlib.colormaps:
        raise unknown_name("colormap", colormap, list(matplotlib.colormaps))
    return torch.tensor(matplotlib.colormaps[colormap](range(256)), dtype=torch.float32)[:, :3]


@cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", name), size)


def _shorten(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Cut letters out of the middle until ``text`` fits; names differ at their ends."""
    kept = len(text)
    shown = text
    while kept > 2 and font.getlength(shown) > width:
        kept -= 1
        shown = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
    return shown


def _largest(values: Tensor, share: float) -> float:
    """Return the ``share`` quantile of the finite values, by rank: the largest for 1.

    Where it is not positive it is the largest value, and where none is, 1: a scale always has a width.
    """
    finite = values[values.isfinite()].flatten()
    if not len(finite):
        return 1.0
    largest = float(finite.kthvalue(max(1, math.ceil(share * len(finite)))).values)
    largest = largest if largest > 0 else float(finite.max())
    return largest if largest > 0 else 1.0


def _edge(region: Region) -> Region:
    """Return the pixels of a region that touch its outside (also across a corner), not the picture's rim."""
    outside = F.pad((~region).float()[None, None], (1, 1, 1, 1))
    return region & (F.max_pool2d(outside, 3, stride=1)[0, 0] > 0)


def _rgb(image: Image) -> Float[Tensor, "h w 3"]:
    image = image.detach().cpu().float()
    colour = image if len(image) == 3 else image.mean(0, keepdim=True).expand(3, -1, -1)
    return colour.permute(1, 2, 0)


def _colours(palette: Sequence[str]) -> Float[Tensor, "colours 3"]:
    return torch.tensor([ImageColor.getrgb(colour)[:3] for colour in palette]) / 255


def _painted(mask: AnyMask, palette: Sequence[str]) -> Float[Tensor, "h w 3"]:
    colours = _colours(palette)
    if not is_stack(mask):
        return colours[mask.long() % len(palette)]
    shares = torch.stack([of_class(mask, index, 2) for index in range(len(mask) + 1)], dim=-1).float()
    shares = shares / shares.sum(-1, keepdim=True)
    return shares @ colours[torch.arange(len(mask) + 1) % len(palette)]


def _blend(
    below: Float[Tensor, "h w 3"], above: Float[Tensor, "h w 3"], alpha: Map
) -> Float[Tensor, "h w 3"]:
    return below + (above - below) * alpha[..., None]


def _to_picture(colours: Float[Tensor, "h w 3"]) -> Picture:
    pixels: UInt8[Tensor, "h w 3"] = (colours * 255).round().clamp(0, 255).to(torch.uint8)
    return pil.fromarray(pixels.numpy())

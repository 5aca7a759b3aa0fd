"""Pictures of images, masks and maps, and sheets of them with titles and colour bars.

Drawing is the only place where a map is scaled, and the limits are always the caller's: equal limits, equal
colours. Heat uses colormaps of even perceptual steps; signed maps use a diverging one, centred on 0.
"""

import math
from collections.abc import Sequence
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


def sheet(rows: Sequence[Sequence[Tile]], *, title: str = "", tile_width: int = 224) -> Picture:
    """Lay tiles out in rows, each scaled to ``tile_width`` pixels, under one title.

    Raises:
        SettingError: there is no tile.
    """
    if not any(rows):
        raise SettingError("A sheet needs at least one tile, got none.")
    drawn = [[_draw_tile(tile, tile_width) for tile in row] for row in rows if row]
    width = GAP + max(sum(tile.width + GAP for tile in row) for row in drawn)
    head = GAP + (30 if title else 0)
    height = head + sum(max(tile.height for tile in row) + GAP for row in drawn)
    page = pil.new("RGB", (width, height), PAPER)
    font = _font(18, bold=True)
    ImageDraw.Draw(page).text((GAP, GAP), _shorten(title, font, width - 2 * GAP), font=font, fill=INK)
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
    above, bar, below = (20 if tile.title else 0), (28 if tile.scale else 0), (18 if tile.caption else 0)
    page = pil.new("RGB", (width, above + height + bar + below), PAPER)
    pen = ImageDraw.Draw(page)
    font, small = _font(13, bold=True), _font(11)
    pen.text((0, 1), _shorten(tile.title, font, width), font=font, fill=INK)
    page.paste(tile.picture.resize((width, height), pil.Resampling.BICUBIC), (0, above))
    if tile.scale:
        top = above + height + 4
        page.paste(_bar(tile.scale, width), (0, top))
        low, high = (f"{value:.3g}" for value in tile.scale.limits)
        pen.text((0, top + 9), low, font=small, fill=FAINT)
        pen.text((width / 2, top + 9), tile.scale.unit, font=small, fill=FAINT, anchor="ma")
        pen.text((width, top + 9), high, font=small, fill=FAINT, anchor="ra")
    pen.text((0, above + height + bar + 2), _shorten(tile.caption, small, width), font=small, fill=INK)
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
        return colours[mask % len(palette)]
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

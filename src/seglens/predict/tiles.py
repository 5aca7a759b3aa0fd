"""Large pictures are predicted in overlapping windows at the scale of the training, which are blended.

A picture much larger than those of the training must not shrink into one input, or its objects shrink too.
It is brought to the scale that the training pictures had, covered with overlapping windows, and their
probabilities are blended with Gaussian weights (Isensee et al. 2021, nnU-Net, who blend logits).
Probabilities, because a mean of them is one, because no single window with a huge logit decides alone, and
because those of mirror images are averaged too.

Nothing is ever held whole but what the caller holds: windows are cut out when they are due, and rows that
no later window touches are let go at once.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from seglens.errors import SettingError, unknown_name
from seglens.models.segmenter import ModelSpec, Segmenter
from seglens.predict import infer
from seglens.shapes import Image

Size = tuple[int, int]
"""Rows and columns."""
Cut = Callable[[slice, slice], Image]
"""Returns those rows and columns of a picture, in [0, 1]."""
Band = Float[Tensor, "classes rows columns"]

TILES: dict[str, str] = {
    "auto": "windows where the picture would shrink to less than half the scale of the training",
    "always": "windows wherever the picture is larger than one",
    "never": "every picture is scaled into one input",
}
"""When a picture is covered with windows."""

OVERLAP = 0.5
SHRINK = 0.5
"""With ``auto``, the smallest share of the training's scale that is still taken in one piece."""
BAND = 2**24
"""The largest number of probabilities that are brought to native size at a time."""


@dataclass(frozen=True)
class Windows:
    """How a picture is covered: its ``native`` size, its size at the working scale, and the windows there."""

    native: Size
    scaled: Size
    size: int
    overlap: float = OVERLAP


def check_tiles(tiles: str) -> None:
    """Raise where ``tiles`` is none of `TILES`.

    Raises:
        UnknownNameError: there is no such rule.
    """
    if tiles not in TILES:
        raise unknown_name("rule for tiles", tiles, TILES)


def plan(native: Size, spec: ModelSpec, tiles: str = "auto", *, overlap: float = OVERLAP) -> Windows | None:
    """Return the windows for a picture of ``native`` size, or None where it is scaled into one input.

    `TILES` says when which; the working scale is that of the training, 1 where it is not known.

    Raises:
        UnknownNameError: there is no such rule.
        SettingError: ``overlap`` is not in [0, 1).
    """
    check_tiles(tiles)
    if not 0 <= overlap < 1:
        raise SettingError(f"The overlap of windows must be at least 0 and below 1, received {overlap}.")
    scale, longest = spec.scale or 1.0, max(native)
    scaled = (max(1, round(native[0] * scale)), max(1, round(native[1] * scale)))
    windows = Windows(native, scaled, spec.image_size, overlap)
    match tiles:
        case "auto":
            shrinks = spec.scale is not None and spec.image_size / longest < SHRINK * spec.scale
            needed = shrinks
        case "always":
            needed = max(scaled) > spec.image_size
        case _:
            needed = False
    if needed and spec.normalise == "image":
        raise SettingError(
            f"A picture of {native[1]} x {native[0]} pixels takes several windows of {spec.image_size}, but "
            "the model normalises by each picture, and every window would be normalised by itself. Scale it "
            "into one input with --tiles never, or train with --normalise dataset."
        )
    return windows if needed else None


def bands(
    segmenter: Segmenter,
    cut: Cut,
    windows: Windows,
    *,
    batch_size: int = 8,
    precision: str = "32",
    tta: bool = False,
) -> Iterator[Band]:
    """Yield the probabilities of a picture at its native size, from the top, a band of rows at a time.

    ``batch_size`` windows go through the network together; ``precision`` and ``tta`` are those of `infer`.
    """

    def predict(images: Float[Tensor, "n c s s"]) -> Float[Tensor, "n classes s s"]:
        return infer(segmenter, images, batch_size=batch_size, precision=precision, tta=tta).probabilities

    blended = _blend(predict, cut, windows, segmenter.spec.classes, batch_size)
    return rescaled(blended, windows.scaled, windows.native)


@dataclass(frozen=True)
class Cover:
    """Windows along one axis: where they start, and how much each counts at each of its pixels.

    The weights of all windows sum to 1 at every pixel of the axis.
    """

    starts: tuple[int, ...]
    weights: Float[Tensor, "windows reach"]


def cover(length: int, size: int, overlap: float) -> Cover:
    """Cover ``length`` pixels with windows of ``size``, the last one shifted inwards.

    The weight of pixel x of a window is exp(-(x - c)^2 / 2 sigma^2) about its centre c with sigma = size / 8
    (Isensee et al. 2021, supplement), divided by the sum over windows. It is 3e-4 at a window's edge, not 0.
    A grid of windows has the products of its rows' and columns' weights.
    """
    if length <= size:
        return Cover((0,), torch.ones(1, length))
    step = max(1, round(size * (1 - overlap)))
    starts = (*range(0, length - size, step), length - size)
    distance = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    bell = (-0.5 * (distance * 8 / size) ** 2).exp()
    total = torch.zeros(length, dtype=torch.float64)
    for start in starts:
        total[start : start + size] += bell
    return Cover(starts, torch.stack([bell / total[start : start + size] for start in starts]).float())


def number_of(windows: Windows) -> int:
    """Return how many windows cover the picture."""
    down, across = (len(cover(length, windows.size, windows.overlap).starts) for length in windows.scaled)
    return down * across


def resized(cut: Cut, native: Size, scaled: Size, rows: slice, columns: slice) -> Image:
    """Return these rows and columns of the picture scaled from ``native`` to ``scaled``.

    The same values as of ``interpolate(..., mode="bilinear", antialias=True)`` of the whole picture, but
    only the part of it that they depend on is cut out.
    """
    part = scaled_part(cut, native, scaled, rows, columns)
    return part if native == scaled else part.clamp(0, 1)


def scaled_part(cut: Cut, old: Size, new: Size, rows: slice, columns: slice) -> Image:
    """Return these rows and columns of anything scaled from ``old`` to ``new``: `resized` without limits."""
    if old == new:
        return cut(rows, columns)
    down = _taps(old[0], new[0], rows.start, rows.stop)
    across = _taps(old[1], new[1], columns.start, columns.stop)
    source = cut(down.needs, across.needs)
    wide = across.apply(source, -1, across.needs.start)
    return down.apply(wide, -2, down.needs.start)


def _blend(
    predict: Callable[[Tensor], Tensor], cut: Cut, windows: Windows, classes: int, batch_size: int
) -> Iterator[Band]:
    """Yield probabilities at the working scale: after each row of windows the rows that are done."""
    height, width = windows.scaled
    down, across = (cover(length, windows.size, windows.overlap) for length in windows.scaled)
    reach = down.weights.shape[1], across.weights.shape[1]
    above, beside = ((windows.size - each) // 2 for each in reach)
    sums = torch.zeros(classes, 0, width)  # of rows from ``top`` on
    for top, after, shares in zip(down.starts, (*down.starts[1:], height), down.weights, strict=True):
        sums = torch.cat([sums, torch.zeros(classes, reach[0] - sums.shape[1], width)], dim=1)
        for first in range(0, len(across.starts), batch_size):
            lefts = across.starts[first : first + batch_size]
            found = predict(torch.stack([_window(cut, windows, (top, left), reach) for left in lefts]))
            inner = found[..., above : above + reach[0], beside : beside + reach[1]]
            weights = shares[:, None] * across.weights[first : first + batch_size, None, None]
            for left, part in zip(lefts, inner * weights, strict=True):
                sums[..., left : left + reach[1]] += part
        yield sums[:, : after - top]
        sums = sums[:, after - top :]


def _window(cut: Cut, windows: Windows, corner: Size, reach: Size) -> Float[Tensor, "c s s"]:
    """Return one input; what of it lies outside of a picture smaller than it is 0, as in letterboxing."""
    rows, columns = (slice(start, start + length) for start, length in zip(corner, reach, strict=True))
    image = resized(cut, windows.native, windows.scaled, rows, columns)
    above, beside = ((windows.size - length) // 2 for length in reach)
    below, right = windows.size - reach[0] - above, windows.size - reach[1] - beside
    return functional.pad(image, (beside, right, above, below))


def rescaled(parts: Iterable[Band], old: Size, new: Size) -> Iterator[Band]:
    """Scale bands of rows, which together have the size ``old``, to ``new``, as if they were in one piece."""
    if old == new:
        yield from parts
        return
    (height, width), (rows, columns) = old, new
    across, ends = _taps(width, columns, 0, columns), _taps(height, rows, 0, rows).ends
    top = done = 0
    held: Tensor | None = None  # rows from ``top`` on, at native width
    for part in parts:
        wide = across.apply(part, -1, 0)
        held = wide if held is None else torch.cat([held, wide], dim=1)
        ready = int((ends <= top + held.shape[1]).sum())
        most = max(1, BAND // (len(part) * columns))
        while done < ready:
            stop = min(ready, done + most)
            yield _taps(height, rows, done, stop).apply(held, 1, top)
            done = stop
        if done < rows:
            needed = _taps(height, rows, done, done + 1).needs.start
            held, top = held[:, needed - top :], needed


@dataclass(frozen=True)
class _Taps:
    """Which old pixels new ones are made of, and with which ``weight``; padded with weights of 0.

    ``ends`` is for each new pixel one past the last old pixel that it takes.
    """

    index: Int[Tensor, "new taps"]
    weight: Float[Tensor, "new taps"]
    ends: Int[Tensor, " new"]

    @property
    def needs(self) -> slice:
        """The old pixels that all the new ones take."""
        return slice(int(self.index[0, 0]), int(self.ends[-1]))

    def apply(self, values: Tensor, axis: int, begin: int) -> Tensor:
        """Return the weighted sums along ``axis``, on which ``values`` begin with the old pixel ``begin``."""
        shape = [1] * values.ndim
        shape[axis] = -1
        terms = zip((self.index - begin).unbind(1), self.weight.unbind(1), strict=True)
        index, weight = next(terms)
        made = values.index_select(axis, index) * weight.reshape(shape)
        for index, weight in terms:
            made += values.index_select(axis, index) * weight.reshape(shape)
        return made


def _taps(old: int, new: int, start: int, stop: int) -> _Taps:
    """Return the triangle filter of the new pixels ``start`` to ``stop``, as ``old`` pixels become ``new``.

    Each side of it is a new pixel wide, or an old one where those are larger: the antialiased bilinear
    scaling of PyTorch and Pillow.
    """
    ratio = old / new
    reach = max(ratio, 1.0)
    centre = (torch.arange(start, stop, dtype=torch.float64)[:, None] + 0.5) * ratio
    first = (centre - reach + 0.5).long().clamp(min=0)
    ends = (centre + reach + 0.5).long().clamp(max=old)
    index = first + torch.arange(int((ends - first).max()))
    weight = (1 - ((index + 0.5 - centre) / reach).abs()).clamp(min=0) * (index < ends)
    weight = (weight / weight.sum(1, keepdim=True)).float()
    return _Taps(index.minimum(ends - 1), weight, ends[:, 0])

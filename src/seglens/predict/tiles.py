"""Large pictures and volumes are predicted in overlapping windows at the scale of the training, and blended.

A picture much larger than those of the training must not shrink into one input, or its objects shrink too.
It is brought to the scale that the training pictures had, covered with overlapping windows, and their
probabilities are blended with Gaussian weights (Isensee et al. 2021, nnU-Net, who blend logits; MONAI blends
what the network returns). Probabilities, because a mean of them is one, because no single window with a huge
logit decides alone, and because those of mirror images are averaged too. A volume is covered alike along its
slices.

Nothing is ever held whole but what the caller holds: windows are cut out when they are due, and rows (of a
volume, slices) that no later window touches are let go at once.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.nn import functional

from seglens.axes import InputSize, least_ratio, sides_of, spelled
from seglens.errors import SettingError, unknown_name
from seglens.models.segmenter import ModelSpec, Segmenter
from seglens.predict import infer
from seglens.shapes import Image, Images, Probabilities

Size = tuple[int, ...]
"""Rows and columns, or slices, rows and columns."""
Place = tuple[int, ...]
"""Which window: its number along each axis, from 0."""
Cut = Callable[..., Image]
"""Returns a part of a picture in [0, 1], of which it is given a slice for each axis: rows and columns."""
Band = Float[Tensor, "classes rows *columns"]
"""Some rows of a picture, or slices of a volume."""

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
    """How a picture is covered: its ``native`` size, its size at the working scale, and the windows there.

    ``size`` is the length of a window's sides, or one for each axis. A window counts at each of its pixels as
    much as `cover` says, but at least ``floor`` of what it does in its middle (before the sum over windows is
    made 1): 0 is nnU-Net's weighting, 1e-3 is MONAI's ``gaussian``, and with 1 all pixels count alike.
    Along the axes in ``mirrored`` windows are counted from the other end: those of a mirrored picture.
    """

    native: Size
    scaled: Size
    size: InputSize
    overlap: float = OVERLAP
    floor: float = 0.0
    mirrored: tuple[int, ...] = ()

    @property
    def sides(self) -> Size:
        """The length of a window along each axis."""
        return sides_of(self.size, len(self.scaled))

    @cached_property
    def covers(self) -> "tuple[Cover, ...]":
        """The windows along each axis."""
        pairs = enumerate(zip(self.scaled, self.sides, strict=True))
        return tuple(
            cover(length, side, self.overlap).turned(length, side)
            if axis in self.mirrored
            else cover(length, side, self.overlap)
            for axis, (length, side) in pairs
        )

    @property
    def places(self) -> list[Place]:
        """All windows, by rows."""
        return list(itertools.product(*(range(len(each.starts)) for each in self.covers)))

    @property
    def inner(self) -> tuple[slice, ...]:
        """What of a window is picture, where the picture is smaller than the window."""
        return tuple(slice(each.margin, each.margin + each.reach) for each in self.covers)

    def part(self, place: Place) -> tuple[slice, ...]:
        """Return what a window sees of the picture at the working scale, along each axis."""
        starts = [each.starts[i] for each, i in zip(self.covers, place, strict=True)]
        return tuple(slice(at, at + each.reach) for at, each in zip(starts, self.covers, strict=True))

    def padded(self, part: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """Return one input; what of it lies outside of a picture smaller than it is 0, as in letterboxing."""
        ends = [(at.start, side - at.stop) for at, side in zip(self.inner, self.sides, strict=True)]
        return functional.pad(part, [number for pair in reversed(ends) for number in pair])

    def weights(self, place: Place) -> Float[Tensor, "*reach"]:
        """Return how much a window counts at each of its pixels; over all windows this sums to 1."""
        pairs = list(zip(self.covers, place, strict=True))
        if self.floor == 0:
            return outer([each.weights[i] for each, i in pairs])
        bells = [each.bell for each in self.covers]
        total = torch.zeros([each.reach for each in self.covers])
        for steps in itertools.product(*(each.steps(i) for each, i in pairs)):
            # Where another window, so many pixels further along each axis, lies on this one.
            here = tuple(slice(max(0, at), len(bell) + at) for at, bell in zip(steps, bells, strict=True))
            there = [bell[max(0, -at) : len(bell) - at] for at, bell in zip(steps, bells, strict=True)]
            total[here] += outer(there).clamp(min=self.floor)
        return outer(bells).clamp(min=self.floor) / total


def over(
    size: Size,
    spec: ModelSpec,
    window: int | Sequence[int] | None = None,
    overlap: float = OVERLAP,
    floor: float = 0.0,
) -> Windows:
    """Cover a picture or volume of ``size`` as it is with windows; they are as large as the model's input.

    Raises:
        SettingError: a window has no pixel or a side too few, or the overlap is not in [0, 1), or the floor
            not in [0, 1]; or the model normalises by each picture, and would do so by each window.
    """
    given = spec.image_size if window is None else window
    sides = (given,) * len(size) if isinstance(given, int) else tuple(given)
    if len(sides) != len(size) or min(sides) < 1:
        raise SettingError(
            f"A window of {spelled(sides)} pixels does not fit an input of {spelled(size)}: give one length, "
            f"or {len(size)}, of at least 1."
        )
    if not 0 <= overlap < 1:
        raise SettingError(f"The overlap of windows must be at least 0 and below 1, received {overlap}.")
    if not 0 <= floor <= 1:
        raise SettingError(f"The least weight of a pixel must be from 0 to 1, received {floor}.")
    if spec.normalise == "image" and sides != size:
        raise SettingError(
            f"An input of {spelled(size)} pixels takes windows of {spelled(sides)}, but the model normalises "
            "by each picture, and every window would be normalised by itself. Predict it whole, or train "
            "with --normalise dataset."
        )
    return Windows(size, size, sides, overlap, floor)


def check_tiles(tiles: str) -> None:
    """Raise where ``tiles`` is none of `TILES`.

    Raises:
        UnknownNameError: there is no such rule.
    """
    if tiles not in TILES:
        raise unknown_name("rule for tiles", tiles, TILES)


def plan(
    native: Size,
    spec: ModelSpec,
    tiles: str = "auto",
    *,
    overlap: float = OVERLAP,
    spacing: Sequence[float] | None = None,
) -> Windows | None:
    """Return the windows for a picture of ``native`` size, or None where it is scaled into one input.

    `TILES` says when which; the working scale is that of the training, 1 where it is not known. With
    ``spacing``, the millimetres a voxel along each axis, it is one of pixels a millimetre. A model that
    learned from patches sees every picture at their scale: it takes windows where one input is too small.

    Raises:
        UnknownNameError: there is no such rule.
        SettingError: ``overlap`` is not in [0, 1).
    """
    check_tiles(tiles)
    if not 0 <= overlap < 1:
        raise SettingError(f"The overlap of windows must be at least 0 and below 1, received {overlap}.")
    sides = native if spacing is None else [length * mm for length, mm in zip(native, spacing, strict=True)]
    scale = spec.scale or 1.0
    scaled = tuple(max(1, round(length * scale)) for length in sides)
    windows = Windows(native, scaled, spec.image_size, overlap)
    larger = least_ratio(spec.sides, scaled) < 1
    match tiles:
        case "auto":
            shrinks = spec.scale is not None and least_ratio(spec.sides, sides) < SHRINK * spec.scale
            needed = larger if spec.patches else shrinks
        case "always":
            needed = larger
        case _:
            needed = False
    if needed and spec.normalise == "image":
        raise SettingError(
            f"A picture of {spelled(native[::-1])} pixels takes several windows of "
            f"{spelled(spec.sides[::-1])}, but the model normalises by each picture, and every window would "
            "be normalised by itself. Scale it into one input with --tiles never, or train with --normalise "
            "dataset."
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

    def predict(images: Images) -> Probabilities:
        return infer(segmenter, images, batch_size=batch_size, precision=precision, tta=tta).probabilities

    blended = _blend(predict, cut, windows, segmenter.spec.classes, batch_size)
    return rescaled(blended, windows.scaled, windows.native)


@dataclass(frozen=True)
class Cover:
    """Windows along one axis: where they start, and how much each counts at each of its pixels.

    The ``weights`` of all windows sum to 1 at every pixel of the axis; ``bell`` is what they are before.
    ``margin`` is how many pixels of a window lie before an axis that is shorter than it.
    """

    starts: tuple[int, ...]
    weights: Float[Tensor, "windows reach"]
    bell: Float[Tensor, " reach"]
    margin: int

    @property
    def reach(self) -> int:
        """Pixels of a window that are picture."""
        return len(self.bell)

    def turned(self, length: int, size: int) -> "Cover":
        """Return the windows of the axis of ``length`` pixels counted from its other end."""
        starts = tuple(max(0, length - size - at) for at in reversed(self.starts))
        margin = max(0, size - length - self.margin)
        return Cover(starts, self.weights.flip(0, 1), self.bell.flip(0), margin)

    def steps(self, window: int) -> list[int]:
        """Return how far from one window those begin that lie on it, itself among them."""
        steps = [start - self.starts[window] for start in self.starts]
        return [step for step in steps if abs(step) < self.reach]


def cover(length: int, size: int, overlap: float) -> Cover:
    """Cover ``length`` pixels with windows of ``size``, the last one shifted inwards.

    The weight of pixel x of a window is exp(-(x - c)^2 / 2 sigma^2) about its centre c with sigma = size / 8
    (Isensee et al. 2021, supplement), divided by the sum over windows. It is 3e-4 at a window's edge, not 0.
    A grid of windows has the products of the weights along its axes.

    MONAI's ``sliding_window_inference`` (``mode="gaussian"``, ``sigma_scale=0.125``) has the same bell and
    windows, but no product below 1e-3: see `Windows.floor`. nnU-Net has no such floor; its centre is half a
    pixel further (``size // 2``), and its steps are all alike, so that the last one isn't shorter.
    """
    distance = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    bell = (-0.5 * (distance * 8 / size) ** 2).exp()
    if length <= size:
        margin = (size - length) // 2
        return Cover((0,), torch.ones(1, length), bell[margin : margin + length].float(), margin)
    step = max(1, round(size * (1 - overlap)))
    starts = (*range(0, length - size, step), length - size)
    total = torch.zeros(length, dtype=torch.float64)
    for start in starts:
        total[start : start + size] += bell
    weights = torch.stack([bell / total[start : start + size] for start in starts])
    return Cover(starts, weights.float(), bell.float(), 0)


def outer(each: Sequence[Float[Tensor, " _"]]) -> Float[Tensor, "..."]:
    """Return the products of numbers along one axis each."""
    return reduce(lambda found, one: found[..., None] * one, each)


def number_of(windows: Windows) -> int:
    """Return how many windows cover the picture."""
    return math.prod(len(each.starts) for each in windows.covers)


def cut_of(image: Image) -> Cut:
    """Return what cuts parts out of a picture that is at hand."""
    return lambda *part: image[(slice(None), *part)]


def resized(cut: Cut, native: Size, scaled: Size, *part: slice) -> Image:
    """Return this part (rows and columns) of the picture scaled from ``native`` to ``scaled``.

    The same values as of ``interpolate(..., mode="bilinear", antialias=True)`` of the whole picture, but
    only the part of it that they depend on is cut out.
    """
    made = scaled_part(cut, native, scaled, *part)
    return made if native == scaled else made.clamp(0, 1)


def scaled_part(cut: Cut, old: Size, new: Size, *part: slice) -> Image:
    """Return this part of anything scaled from ``old`` to ``new``: `resized` without limits."""
    if old == new:
        return cut(*part)
    along = [_taps(was, now, at.start, at.stop) for was, now, at in zip(old, new, part, strict=True)]
    made = cut(*(taps.needs for taps in along))
    for axis, taps in enumerate(reversed(along), start=1):
        made = taps.apply(made, -axis, taps.needs.start)
    return made


def _blend(
    predict: Callable[[Tensor], Tensor], cut: Cut, windows: Windows, classes: int, batch_size: int
) -> Iterator[Band]:
    """Yield probabilities at the working scale: after each row of windows the rows that are done."""
    first, rest = windows.covers[0], windows.scaled[1:]
    sums = torch.zeros(classes, 0, *rest)  # of rows from ``top`` on
    rows = itertools.groupby(windows.places, key=lambda place: place[0])
    for (top, after), (_, places) in zip(
        itertools.pairwise((*first.starts, windows.scaled[0])), rows, strict=True
    ):
        sums = torch.cat([sums, torch.zeros(classes, first.reach - sums.shape[1], *rest)], dim=1)
        row = list(places)
        for begin in range(0, len(row), batch_size):
            some = row[begin : begin + batch_size]
            found = predict(torch.stack([window_of(cut, windows, place) for place in some]))
            for place, part in zip(some, found[(slice(None), slice(None), *windows.inner)], strict=True):
                sums[(slice(None), slice(0, first.reach), *windows.part(place)[1:])] += (
                    part * windows.weights(place)
                )
        yield sums[:, : after - top]
        sums = sums[:, after - top :]


def window_of(cut: Cut, windows: Windows, place: Place) -> Float[Tensor, "c *sides"]:
    """Return what the network is given for one window."""
    return windows.padded(resized(cut, windows.native, windows.scaled, *windows.part(place)))


def rescaled(parts: Iterable[Band], old: Size, new: Size) -> Iterator[Band]:
    """Scale bands of rows, which together have the size ``old``, to ``new``, as if they were in one piece."""
    if old == new:
        yield from parts
        return
    (height, *widths), (rows, *columns) = old, new
    across = [_taps(was, now, 0, now) for was, now in zip(widths, columns, strict=True)]
    ends = _taps(height, rows, 0, rows).ends
    top = done = 0
    held: Tensor | None = None  # rows from ``top`` on, at native width
    for part in parts:
        wide = part
        for axis, taps in enumerate(reversed(across), start=1):
            wide = taps.apply(wide, -axis, 0)
        held = wide if held is None else torch.cat([held, wide], dim=1)
        ready = int((ends <= top + held.shape[1]).sum())
        most = max(1, BAND // (len(part) * math.prod(columns)))
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

"""How a native picture sits on the input grid, and how what is computed there is brought back."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from seglens.axes import InputSize, least_ratio, resampled, sides_of, spelled
from seglens.errors import SettingError
from seglens.shapes import AnyMask, Mask


@dataclass(frozen=True)
class Frame:
    """How a native picture sits on the input grid, or a volume.

    ``native`` and ``scaled`` are (rows, columns), or (slices, rows, columns), before and after scaling; the
    first pixel of what was scaled is at ``corner`` of a grid of ``size`` pixels each way, or of so many along
    each axis. A corner below 0, or more that was scaled than fits, means that only a part of it is on the
    grid. ``spacing`` are the native millimetres a voxel; empty where they don't count.

    The preprocessing of another tool may turn and cut before it scales: the native axes in ``turned`` are
    read backwards, axis n of the grid is the native axis ``order[n]``, and only ``crop`` (first and one past
    the last, along each axis of the grid) is kept. Empty means that nothing of the kind is done. Where what
    was scaled doesn't begin and end between two pixels, ``reach`` stands in for ``crop``: along each axis of
    the grid the native places of its two outer sides, where pixel x covers x to x + 1. They may lie outside.
    """

    native: tuple[int, ...]
    size: InputSize
    scaled: tuple[int, ...]
    corner: tuple[int, ...]
    spacing: tuple[float, ...] = ()
    turned: tuple[int, ...] = ()
    order: tuple[int, ...] = ()
    crop: tuple[tuple[int, int], ...] = ()
    reach: tuple[tuple[float, float], ...] = ()

    @property
    def sides(self) -> tuple[int, ...]:
        """The length of the grid along each axis."""
        return sides_of(self.size, len(self.native))

    @property
    def uncut(self) -> "Frame":
        """This frame on a grid that holds what was scaled, and nothing else."""
        return replace(self, size=self.scaled, corner=(0,) * len(self.scaled))

    @property
    def is_cut(self) -> bool:
        """Whether the grid holds only a part of what was scaled."""
        ends = zip(self.corner, self.scaled, self.sides, strict=True)
        return any(at < 0 or at + length > side for at, length, side in ends)

    @property
    def scale(self) -> float:
        """Pixels on the grid for each native pixel, or for each millimetre where the spacing is known."""
        spacing = self.spacing or (1.0,) * len(self.native)
        return max(self.scaled) / max(length * mm for length, mm in zip(self.native, spacing, strict=True))

    @property
    def _order(self) -> tuple[int, ...]:
        return self.order or tuple(range(len(self.native)))

    @property
    def _crop(self) -> tuple[tuple[int, int], ...]:
        return self.crop or tuple((0, self.native[axis]) for axis in self._order)

    def to_grid(self, *place: int | float) -> tuple[float, ...]:
        """Return where the native point ``x, y`` (or ``x, y, z``) lies; pixel centres are whole numbers."""
        native = [
            self.native[axis] - 1 - at if axis in self.turned else at for axis, at in enumerate(place[::-1])
        ]
        found = []
        for axis, (first, last), scaled, corner in zip(
            self._order, self.reach or self._crop, self.scaled, self.corner, strict=True
        ):
            found.append((native[axis] - first + 0.5) * scaled / (last - first) - 0.5 + corner)
        return tuple(found[::-1])

    def oriented(self, native: Tensor) -> Tensor:
        """Return what has the picture's own size in its last axes as it is before it is scaled."""
        before = native.ndim - len(self.native)
        turned = native.flip([before + axis for axis in self.turned])
        turned = turned.permute(*range(before), *(before + axis for axis in self._order))
        for axis, (first, last) in enumerate(self._crop, start=before):
            turned = turned.narrow(axis, first, last - first)
        return turned

    def restored(self, cut: Tensor) -> Tensor:
        """Undo `oriented`: what was cut away is 0 (False), or NaN where there is nothing but that."""
        before = cut.ndim - len(self.native)
        whole = cut
        if self.crop:
            lengths = [self.native[axis] for axis in self._order]
            nothing = cut.is_floating_point() and bool(cut.isnan().all())
            ends = [(first, length - last) for (first, last), length in zip(self.crop, lengths, strict=True)]
            missing = [number for pair in reversed(ends) for number in pair]
            whole = F.pad(cut, missing, value=torch.nan if nothing else 0)
        back = sorted(range(len(self._order)), key=self._order.__getitem__)
        whole = whole.permute(*range(before), *(before + axis for axis in back))
        return whole.flip([before + axis for axis in self.turned]) if self.turned else whole

    def maps_to_native(self, maps: Float[Tensor, "*b_grid"]) -> Float[Tensor, "*b_native"]:
        """Return maps on the grid at the picture's own size: padding cut off, linear in between."""
        inner, cut = self.inner(maps), tuple(last - first for first, last in self._crop)
        if self.reach:
            return self.restored(_at_places(inner, self._places, linear=True))
        if self.scaled == cut:
            return self.restored(inner.clone())
        scaled = resampled(inner.reshape(1, -1, *self.scaled), cut)
        return self.restored(scaled.reshape(*maps.shape[: -len(self.native)], *cut))

    def mask_to_native(self, mask: Int[Tensor, "*grid"]) -> Mask:
        """Return a mask on the grid at the picture's own size; every pixel takes the nearest class."""
        if self.reach:
            return self.restored(_at_places(self.inner(mask), self._places))
        cut = tuple(last - first for first, last in self._crop)
        return self.restored(nearest(self.inner(mask), cut))

    def mask_to_grid(self, mask: Tensor) -> Tensor:
        """Return a mask of the picture's own size on the grid, nearest values; padding is 0 (False)."""
        if not self.reach:
            return self.padded(nearest(self.oriented(mask), self.scaled))
        places = [
            first + (torch.arange(new, dtype=torch.float64) + 0.5) * (last - first) / new - 0.5
            for (first, last), new in zip(self.reach, self.scaled, strict=True)
        ]
        return self.padded(_at_places(self.oriented(mask), places))

    @property
    def _places(self) -> list[Tensor]:
        """Where the native pixels lie in what was scaled, along each axis of the grid; whole are centres."""
        return [
            (torch.arange(self.native[axis], dtype=torch.float64) + 0.5 - first) * new / (last - first) - 0.5
            for axis, (first, last), new in zip(self._order, self.reach, self.scaled, strict=True)
        ]

    def inner(self, grid: Tensor) -> Tensor:
        """Return what of the last axes of ``grid`` is picture and not padding; 0 where it is not on the grid.

        Raises:
            SettingError: they are not those of this frame.
        """
        dims = len(self.native)
        if tuple(grid.shape[-dims:]) != self.sides:
            raise SettingError(
                f"A frame of {spelled(self.sides)} pixels got a grid of "
                f"{tuple(grid.shape[-dims:])}: give what was computed on the letterboxed picture."
            )
        return _shifted(grid, [-at for at in self.corner], self.scaled)

    def padded(self, scaled: Tensor) -> Tensor:
        """Put what has the size ``scaled`` into the frame; the rest is 0 (False)."""
        return _shifted(scaled, self.corner, self.sides)


def _shifted(values: Tensor, corner: Sequence[int], size: Sequence[int]) -> Tensor:
    """Lay the last axes of ``values`` at ``corner`` of a grid of ``size``: filled up with 0, and cut."""
    missing: list[int] = []
    for axis, (at, length) in enumerate(zip(corner, size, strict=True), start=-len(size)):
        first = max(0, -at)
        last = min(values.shape[axis], length - at)
        values = values.narrow(axis, first, last - first)
        missing = [max(0, at), length - max(0, at) - (last - first), *missing]
    return F.pad(values, missing) if any(missing) else values


def _at_places(values: Tensor, places: Sequence[Tensor], *, linear: bool = False) -> Tensor:
    """Return the last axes of ``values`` at ``places`` along each, nearest or linear; 0 (False) outside.

    What is NaN everywhere is NaN outside, too.
    """
    outside = torch.nan if values.is_floating_point() and bool(values.isnan().all()) else 0
    for axis, at in enumerate(places, start=-len(places)):
        length = values.shape[axis]
        if linear:
            inner = at.clamp(0, length - 1)
            low = inner.floor().long()
            share = (inner - low).to(values.dtype).reshape(-1, *[1] * (-axis - 1))
            high = (low + 1).clamp(max=length - 1)
            values = values.index_select(axis, low).lerp(values.index_select(axis, high), share)
        else:
            values = values.index_select(axis, (at + 0.5).floor().long().clamp(0, length - 1))
        shown = ((at >= -0.5) & (at < length - 0.5)).reshape(-1, *[1] * (-axis - 1))
        values = torch.where(shown, values, torch.full_like(values, outside))
    return values


def fit_frame(
    native: Sequence[int], size: InputSize, spacing: Sequence[float] | None = None, scale: float | None = None
) -> Frame:
    """Return the frame in which a picture of ``native`` lengths is as large as fits, centred.

    ``size`` is the length of every side of the grid, or of each. ``spacing`` are millimetres a voxel along
    each axis; without, they are alike. With ``scale``, in pixels on the grid for each native pixel or
    millimetre, the picture is at most that large.

    Raises:
        SettingError: ``size`` is not positive, or has other axes.
    """
    grid = sides_of(size, len(native))
    sides = native if spacing is None else [length * mm for length, mm in zip(native, spacing, strict=True)]
    fitting = least_ratio(grid, sides)
    factor = fitting if scale is None else min(scale, fitting)
    scaled = tuple(max(1, round(side * factor)) for side in sides)
    corner = tuple((side - length) // 2 for side, length in zip(grid, scaled, strict=True))
    return Frame(tuple(native), size, scaled, corner, tuple(spacing or ()))


def scaled_frame(native: Sequence[int], scale: float, spacing: Sequence[float] | None = None) -> Frame:
    """Return the frame of a picture brought to ``scale``, on a grid of its own; see `fit_frame`."""
    sides = native if spacing is None else [length * mm for length, mm in zip(native, spacing, strict=True)]
    scaled = tuple(max(1, round(side * scale)) for side in sides)
    return Frame(tuple(native), scaled, scaled, (0,) * len(scaled), tuple(spacing or ()))


def part_frame(
    native: Sequence[int],
    size: InputSize,
    scale: float,
    spacing: Sequence[float] | None,
    mask: AnyMask | None,
) -> Frame:
    """Return the frame of one input of a picture brought to ``scale``: all of it, centred, or a window.

    The rest of the arguments are as in `fit_frame`; where it doesn't fit, see `window_about`.
    """
    whole = scaled_frame(native, scale, spacing)
    sides = sides_of(size, len(native))
    corner = tuple(max(0, side - length) // 2 for side, length in zip(sides, whole.scaled, strict=True))
    return window_about(replace(whole, size=sides, corner=corner), sides, mask)


def window_about(whole: Frame, sides: Sequence[int], mask: AnyMask | None) -> Frame:
    """Return the frame of one window of ``sides`` that holds the most of ``mask``, of what ``whole`` scales.

    Windows are compared that begin every eighth of their sides, and the one that is centred on what the best
    of them holds. Of a picture without truth, or with an empty one, it is the window in the middle. Along an
    axis that is no longer than the window, the corner stays as it is.
    """
    places = torch.zeros(0, len(whole.scaled))
    if mask is not None:
        marked = mask if mask.ndim == len(whole.scaled) else mask.any(0)
        places = whole.uncut.mask_to_grid(marked).nonzero()
    ends = [max(0, length - side) for length, side in zip(whole.scaled, sides, strict=True)]
    first = [end // 2 for end in ends]
    if len(places):
        best = _fullest(places, sides, ends)
        centred = [
            min(max(0, round(at + 0.5 - side / 2)), end)
            for at, side, end in zip(
                _within(places, best, sides).double().mean(0).tolist(), sides, ends, strict=True
            )
        ]
        first = max(centred, best, key=lambda each: len(_within(places, each, sides)))
    corner = [at if end == 0 else -begin for at, begin, end in zip(whole.corner, first, ends, strict=True)]
    return replace(whole, size=tuple(sides), corner=tuple(corner))


def _within(places: Int[Tensor, "n axes"], first: Sequence[int], sides: Sequence[int]) -> Tensor:
    begin = torch.tensor(first)
    return places[((places >= begin) & (places < begin + torch.tensor(sides))).all(1)]


def _fullest(places: Int[Tensor, "n axes"], sides: Sequence[int], ends: Sequence[int]) -> list[int]:
    """Return where the window begins that holds the most, of those that begin every eighth of a side."""
    steps = [max(1, side // 8) for side in sides]
    blocks = places // torch.tensor(steps)
    counts = torch.zeros((blocks.amax(0) + 1).tolist(), dtype=torch.int64)
    counts.index_put_(tuple(blocks.T), torch.tensor(1), accumulate=True)
    for axis, (side, step) in enumerate(zip(sides, steps, strict=True)):
        counts = counts.unfold(axis, min(side // step, counts.shape[axis]), 1).sum(-1)
    best = torch.unravel_index(counts.argmax(), counts.shape)
    return [min(int(at) * step, end) for at, step, end in zip(best, steps, ends, strict=True)]


def nearest(grid: Tensor, size: Sequence[int]) -> Tensor:
    """Resize the last axes of ``grid`` to ``size``, every pixel taking the value nearest to it."""
    for axis, new in enumerate(size, start=-len(size)):
        old = grid.shape[axis]
        if old != new:
            grid = grid.index_select(axis, _nearest_index(old, new))
    return grid


def _nearest_index(old: int, new: int) -> Tensor:
    """Return for each of ``new`` pixel centres the pixel of ``old`` that holds it."""
    return ((torch.arange(new, dtype=torch.float64) + 0.5) * old / new).long().clamp(max=old - 1)

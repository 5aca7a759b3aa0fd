"""The map of a large picture, held as a tiled grid and brought to any size in bands."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from seglens.explain.explanation import LEFT, Explanation, Status
from seglens.explain.target import Target
from seglens.explain.tiled.grid import TiledGrid
from seglens.models.layers import AVERAGED_OUT
from seglens.predict.tiles import Size, Windows, rescaled, scaled_part
from seglens.shapes import Map

BAND = 512
"""Rows of a map that are made at a time; of a volume, slices of so many rows in all."""

FLAT = 1e-5
"""As in ``explanation.py``, but for the rounding of blends too."""


@dataclass(frozen=True, eq=False)
class LargeMap:
    """The map of one method for one large picture, held as a signed tiled grid and brought to size in bands.

    ``grid`` is raw, before any ReLU, on the cells of the layer (for methods without a layer: on the pixels of
    the working scale); one of 10,000 x 10,000 cells weighs 400 MB, and nothing as large is made of it
    unless `at` or `explanation` is asked to. ``folds`` is as of an `Explanation`, on the same cells.
    ``target`` is at the working scale, `Windows.scaled`. A map whose status is not ok is NaN.
    """

    method: str
    layer: str | None
    target: Target
    windows: Windows
    grid: Float[Tensor, "*cells"]
    cells: TiledGrid
    relu: bool
    settings: Mapping[str, object] = field(default_factory=dict)
    diagnostics: Mapping[str, float] = field(default_factory=dict)
    folds: Float[Tensor, "*cells"] | None = None

    @property
    def name(self) -> str:
        """``method`` or ``method@layer``."""
        return self.method if self.layer is None else f"{self.method}@{self.layer}"

    @property
    def status(self) -> Status:
        """As `seglens.explain.explanation.status_of`, without a copy of the map."""
        if bool(self.target.empty()):
            return "no_target"
        low, high = (float(end) for end in self.grid.aminmax())
        if not (math.isfinite(low) and math.isfinite(high)):
            return "failed"
        if self.diagnostics.get(LEFT, 1.0) < AVERAGED_OUT:
            return "degenerate"
        low, high = (max(low, 0.0), max(high, 0.0)) if self.relu else (low, high)
        return "ok" if high - low > FLAT * max(abs(low), abs(high)) else "degenerate"

    def rows(self, start: int, stop: int) -> Map:
        """Return rows of the map at the working scale: the ReLU where the method has one, then bilinear.

        The same values as of `seglens.explain.cams.upsample` of the whole grid.
        """

        def cut(*part: slice) -> Float[Tensor, "1 *part"]:
            taken = self.grid[(None, *part)].float()
            return taken.relu() if self.relu else taken

        axes, spans = self.cells.axes, [(start, stop), *((0, side) for side in self.windows.scaled[1:])]
        grown = tuple(round(axis.length * axis.cell) for axis in axes)
        parts = [
            slice(min(first + axis.margin, most - 1), min(most, last + axis.margin))
            for axis, most, (first, last) in zip(axes, grown, spans, strict=True)
        ]
        found = scaled_part(cut, self.cells.size, grown, *parts)
        # The grid can end less than a cell before the picture.
        lacking = [(last - first) - made for (first, last), made in zip(spans, found.shape[1:], strict=True)]
        return F.pad(found, [n for each in reversed(lacking) for n in (0, each)], mode="replicate")[0]

    def bands(self, size: Size | None = None) -> Iterator[Float[Tensor, "rows *columns"]]:
        """Yield the map at ``size``, the original one by default, from the top, a band of rows at a time."""
        height, *sides = self.windows.scaled
        if self.status != "ok":
            yield from torch.full(size or self.windows.native, torch.nan).split(BAND)
            return
        step = max(1, BAND // math.prod(sides[:-1]))
        parts = (self.rows(top, min(height, top + step))[None] for top in range(0, height, step))
        for band in rescaled(parts, self.windows.scaled, size or self.windows.native):
            yield band[0]

    def at(self, size: Size) -> Map:
        """Return the whole map at ``size``, such as that at which it is drawn."""
        return torch.cat(list(self.bands(size)))

    def folds_at(self, size: Size) -> Map | None:
        """Return ``folds`` at ``size``: 0 where all folds are one; None where there are no several."""
        if self.folds is None:
            return None
        return replace(self, grid=self.folds, relu=False, diagnostics={}).at(size).nan_to_num(0)

    def explanation(self, where: str = "region") -> Explanation:
        """Return the map at the working scale as an `Explanation` of one picture, to judge or to measure."""
        folds = self.folds_at(self.windows.scaled)
        return Explanation(
            method=self.method,
            layer=self.layer,
            target=self.target,
            map=self.at(self.windows.scaled)[None],
            grid=None if self.layer is None else self.grid[None],
            status=(self.status,),
            settings=self.settings,
            folds=None if folds is None else folds[None],
            where=where,
            diagnostics={name: torch.tensor([value]) for name, value in self.diagnostics.items()},
        )

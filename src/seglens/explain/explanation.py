"""The type of an explanation: a map per picture, with its target, settings and diagnostics."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from seglens.arguments import check_fields
from seglens.axes import LENGTHS, size_of, widened
from seglens.drawing.draw import INK, PAPER, enlarge, heat, heat_scale, no_map, outline, signed_scale
from seglens.drawing.notebook import card, figure, paragraph, table
from seglens.errors import SettingError, unknown_name
from seglens.explain.target import Target, dilate
from seglens.models.layers import averaged_out
from seglens.results.names import count, formatted
from seglens.shapes import ChannelMaps, Grids, Maps, PerImage, Regions

Status = Literal["ok", "no_target", "degenerate", "failed"]
"""``no_target``: no pixel to explain; ``degenerate``: a constant map, or one whose gradient averages to
nothing but rounding (`averaged_out`); ``failed``: NaN or infinite values."""

Key = str | tuple[str, str] | tuple[str, str, str]

FLAT = 1e-6
"""A map whose range is below this share of its largest magnitude is constant up to rounding."""

LEFT = "gradient_left"
"""The diagnostic that says which share of the gradient is left when it is averaged, see ``cams.py``."""

MOSTLY_LOST = 0.05
"""Where less than this share of the gradient is left, a map is flagged: it rests on small differences."""

MARGIN = 3
"""The least width of the band around a target that upsampling may smear attribution over, in pixels."""

SHOWN, FEW, LISTED = 6, 4, 8
"""How many pictures a notebook shows of an explanation, of each of several, and of how many of these."""

THUMBNAIL, SCALED = 144, 0.99
"""How wide a map is in a notebook, and which share of its pixels its colours tell apart."""

WHERE: dict[str, str] = {
    "region": "attribution everywhere counts",
    "context": "attribution on the target, and within one cell of the layer's grid around it, does not count",
}
"""Which pixels of a map are reported and judged. The score is that of the target either way."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """The maps of one method for a batch of pictures. Anybody's map can be one.

    ``map`` is raw and signed, at the size of the input; drawing scales it, measuring never does, and measures
    of mass use its non-negative part. ``grid`` is a CAM at its layer's resolution before any ReLU.
    ``channels`` sum to ``map``. ``folds``, of a model that is several, is the standard deviation of their
    maps at each pixel. ``status`` is worked out where it is not given; rows that are not ``ok`` hold NaN
    everywhere, but for a ``grid`` that speaks against the target only: the ReLU has left nothing of it,
    its map is degenerate, and it is the answer. With ``where="context"`` only the pixels in `counted` are
    reported and judged: what outside of the target speaks for it.
    """

    method: str
    layer: str | None
    target: Target
    map: Maps
    grid: Grids | None = None
    status: tuple[Status, ...] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    diagnostics: Mapping[str, PerImage] = field(default_factory=dict)
    channels: ChannelMaps | None = None
    where: str = "region"
    folds: Maps | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        check_where(self.where)
        if self.map.shape != self.target.pixels.shape:
            raise SettingError(
                f"The map of {self.name!r} has shape {tuple(self.map.shape)}, but target "
                f"{self.target.label!r} has {tuple(self.target.pixels.shape)} "
                f"(pictures, {LENGTHS[self.target.pixels.ndim - 1]}). Bring the map to the input's size."
            )
        raw = self.map.detach().float()
        status = self.status or status_of(raw, self.target)
        if len(status) != len(raw):
            raise SettingError(f"{self.name!r} has {len(status)} statuses for {len(raw)} pictures.")
        object.__setattr__(self, "status", tuple(status))
        object.__setattr__(self, "map", self._only_ok(raw))
        # Why a map is degenerate stays.
        plain = {k: v if k == LEFT else self._only_ok(v) for k, v in self.diagnostics.items()}
        object.__setattr__(self, "diagnostics", plain)
        if self.folds is not None:
            object.__setattr__(self, "folds", self._only_ok(self.folds.detach().float()))
        if self.channels is not None:
            object.__setattr__(self, "channels", self._only_ok(self.channels.detach().float()))
        if self.grid is not None:
            grid = self.grid.detach().float()
            varied = torch.tensor([each == "ok" for each in status_of(grid, self.target)])
            against = torch.tensor([each == "degenerate" for each in status]) & varied
            against = against.to(grid.device) & (grid.flatten(1) < 0).any(1)
            object.__setattr__(self, "grid", torch.where(widened(against, grid), grid, self._only_ok(grid)))
        if not self.map[self.ok].isfinite().all():
            raise SettingError(f"{self.name!r} holds NaN or infinite values in a picture whose status is ok.")

    @property
    def name(self) -> str:
        """``method`` or ``method@layer``."""
        return self.method if self.layer is None else f"{self.method}@{self.layer}"

    @property
    def ok(self) -> Bool[Tensor, " b"]:
        """The pictures whose map has a meaning, and is measured."""
        return torch.tensor([status == "ok" for status in self.status], device=self.map.device)

    @property
    def positive(self) -> Maps:
        """The non-negative part of the raw map: of which shares of mass are taken."""
        return self.map.clamp(min=0)

    @property
    def margin(self) -> int:
        """One cell of the layer's grid in pixels, at least `MARGIN`: as far as upsampling smears."""
        if self.grid is None:
            return MARGIN
        sizes = zip(size_of(self.map, 1), size_of(self.grid, 1), strict=True)
        return max(MARGIN, *(-(-pixels // cells) for pixels, cells in sizes))

    @property
    def counted(self) -> Regions:
        """The pixels whose attribution is reported and judged, see `WHERE`."""
        if self.where == "region":
            return torch.ones_like(self.map, dtype=torch.bool)
        return ~dilate(self.target.pixels.to(self.map.device), self.margin)

    def _repr_html_(self) -> str:
        """Show in a notebook what was asked, and the maps of the first pictures with the target outlined."""
        return card(f"Explanation by {self.name}", *self.shown(SHOWN))

    def shown(self, most: int) -> list[str]:
        """Return the parts of a card: the question, the first ``most`` maps, and their diagnostics."""
        kinds = ", ".join(f"{self.status.count(kind)} {kind}" for kind in dict.fromkeys(self.status))
        asked = f"Target {self.target.label} of class {self.target.class_index}"
        asked += "" if self.target.against is None else f" against class {self.target.against}"
        asked += "" if self.where == "region" else f", {self.where} only"
        num = min(most, len(self.map))
        parts = [paragraph(f"{asked}; {kinds}."), *(self._figure(row) for row in range(num))]
        if len(self.map) > num:
            parts.append(paragraph(f"... and {len(self.map) - num} more pictures."))
        numbers = [
            (name.replace("_", " "), *(formatted(float(value)) for value in values[:num]))
            for name, values in self.diagnostics.items()
        ]
        heads = ("diagnostic", *(str(row) for row in range(num)))
        return [*parts, table(heads, numbers)] if numbers else parts

    def _figure(self, row: int) -> str:
        """Draw one map, as large a share of its values told apart as in `SCALED`."""
        if self.status[row] != "ok":
            reason = self.status[row].replace("_", " ")
            return figure(no_map(THUMBNAIL, THUMBNAIL, reason), f"{row}: {reason}", width=THUMBNAIL)
        values, pixels, where = self.map[row].cpu(), self.target.pixels[row].cpu(), ""
        if values.ndim == 3:  # of a volume the slice that holds most of the target
            place = int(pixels.flatten(1).sum(1).argmax())
            values, pixels, where = values[place], pixels[place], f", slice {place}"
        signed = bool((values < 0).any())
        scale = (signed_scale if signed else heat_scale)(values, share=SCALED)
        drawn = enlarge(heat(values, scale), max(1, -(-THUMBNAIL // max(values.shape))))
        drawn = outline(drawn, pixels, INK if signed else PAPER)
        low, high = scale.limits
        return figure(drawn, f"{row}{where}: {low:.3g} to {high:.3g}", width=THUMBNAIL)

    def _only_ok(self, values: Tensor) -> Tensor:
        """Put NaN into the rows that are not ok."""
        rows = self.ok.to(values.device).view(-1, *[1] * (values.ndim - 1))
        return torch.where(rows, values, torch.nan)


def check_where(where: str) -> None:
    """Raise where there is no such choice of pixels.

    Raises:
        UnknownNameError: ``where`` is not in `WHERE`.
    """
    if where not in WHERE:
        raise unknown_name("choice of 'where'", where, WHERE)


def status_of(maps: Maps, target: Target) -> tuple[Status, ...]:
    """Work out the status of each map, the first that fits of: no_target, failed, degenerate, ok."""
    flat = maps.flatten(1)
    finite = flat.isfinite().all(1).tolist()
    varied = (flat.amax(1) - flat.amin(1) > FLAT * flat.abs().amax(1)).tolist()
    empty = target.empty().tolist()
    return tuple(_status(*flags) for flags in zip(empty, finite, varied, strict=True))


def without_rounding(status: Sequence[Status], left: PerImage, dtype: torch.dtype) -> tuple[Status, ...]:
    """Make maps degenerate of whose gradient averaging has left no more than rounding, in ``dtype``."""
    lost = (left < averaged_out(dtype)).tolist()
    return tuple(
        "degenerate" if one == "ok" and gone else one for one, gone in zip(status, lost, strict=True)
    )


def reason(status: str, diagnostics: Mapping[str, float]) -> str:
    """Say why there is no map, or what to know of one: nothing where all is well."""
    left = diagnostics.get(LEFT, 1.0)
    if status not in ("ok", "degenerate") or not left < MOSTLY_LOST:
        return ""
    what = f"Averaging over the layer leaves {left:.2g} of the gradient"
    if status == "ok":
        return f"{what}, so the map rests on small differences: compare it with hires-cam."
    return (
        f"{what}, which is rounding where a normalisation follows: take hires-cam, or the layer after it "
        "('seglens layers' says which)."
    )


def _status(empty: bool, finite: bool, varied: bool) -> Status:
    if empty:
        return "no_target"
    if not finite:
        return "failed"
    return "ok" if varied else "degenerate"


class Explanations(Mapping[Key, Explanation]):
    """Explanations by ``method`` or ``(method, layer)``, the target's label in front where there are several.

    ``maps["grad-cam", "encoder_last"]``, ``maps["integrated-gradients"]``, ``maps["truth", "grad-cam",
    "seg_head"]``.
    """

    def __init__(self, explanations: Iterable[Explanation]) -> None:
        items = list(explanations)
        several = len({id(item.target) for item in items}) > 1
        self._items: dict[Key, Explanation] = {}
        for item in items:
            key = _key(item, several)
            if key in self._items:
                raise SettingError(
                    f"Two explanations are called {_spell(key)}. Give the targets or the settings other "
                    "labels."
                )
            self._items[key] = item

    def __getitem__(self, key: Key) -> Explanation:
        if key not in self._items:
            raise unknown_name("explanation", _spell(key), (_spell(known) for known in self._items))
        return self._items[key]

    def get(self, key: Key, default: Any = None) -> Any:  # Mapping's own waits for a KeyError
        """Return the explanation under ``key``, or ``default``."""
        return self._items.get(key, default)

    def __contains__(self, key: object) -> bool:
        return key in self._items

    def __iter__(self) -> Iterator[Key]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def _repr_html_(self) -> str:
        """Show in a notebook the first maps of each explanation."""
        shown = list(self._items.items())[:LISTED]
        parts = [part for key, item in shown for part in (paragraph(_spell(key)), *item.shown(FEW))]
        if len(self) > LISTED:
            parts.append(paragraph(f"... and {len(self) - LISTED} more explanations."))
        return card(count(len(self), "explanation"), *parts)

    def __repr__(self) -> str:
        return f"Explanations({', '.join(_spell(key) for key in self._items)})"


def _key(item: Explanation, several: bool) -> Key:
    """The key of one explanation; a lone method is its own key, not a tuple of one."""
    parts = (item.target.label,) * several + (item.method,) + (() if item.layer is None else (item.layer,))
    return parts[0] if len(parts) == 1 else parts  # type: ignore[return-value]


def _spell(key: object) -> str:
    """A key on one line."""
    return f"({', '.join(map(str, key))})" if isinstance(key, tuple) else str(key)

"""What the score loses when a part of the picture is hidden: sliding windows, and superpixels.

The score is the mean logit over the target's pixels. No gradients, any network: as many forward passes as
there are parts, shared by all targets.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seglens.arguments import check_fields, check_range
from seglens.axes import middle_side, num_pixels, size_of, widened
from seglens.errors import SettingError, unknown_name
from seglens.explain.explanation import Explanation
from seglens.explain.masked import (
    Perturb,
    Prepared,
    TargetScores,
    check_precision,
    clean_logits,
    prepare,
    rank_agreement,
    score_drops,
)
from seglens.explain.target import Target
from seglens.impute import BY_SURROUNDINGS, IMPUTERS, imputer_of
from seglens.models.segmenter import Segmenter
from seglens.seeds import content_normal
from seglens.shapes import Images, Regions, Rows
from seglens.superpixels import superpixels

Fill = Literal["blur", "mean", "zero", "noisy-linear"]
Precision = Literal["32", "bf16", "auto"]

TargetMaps = Float[Tensor, "targets b *size"]

PLACES, PIXELS = "zyx", "dhw"
"""Letters of the axes of windows and of pixels, the slices first."""


Removed = Callable[[Rows], Regions]
"""Says which pixels are hidden in some of all copies."""


@dataclass(frozen=True)
class Occlusion:
    """Settings of occlusion by a square (in a volume a box) that slides over the picture.

    ``window`` and ``stride`` are in pixels; None is an eighth of the shorter side for the window (see
    `default_window`), and half a window for the stride. ``fill`` is what is put in its place: ``blur`` (the
    picture without its detail), ``mean`` (the picture's mean colour), ``zero`` (black) or
    ``noisy-linear`` (see ``impute.py``). ``precision`` is ``32``, ``bf16`` or ``auto``. ``label`` is
    what the results are called by.
    """

    name: ClassVar[str] = "occlusion"

    window: int | None = None
    stride: int | None = None
    fill: Fill = "blur"
    precision: Precision = "32"
    label: str = ""

    def __post_init__(self) -> None:
        check_fields(self)
        check_fill(self.fill)
        check_precision(self.precision)
        for name, value in (("window", self.window), ("stride", self.stride)):
            if value is not None and value < 1:
                raise SettingError(f"{name} is {value}, but must be at least 1 pixel, or None.")
            check_range(name, value, 1, 2**14)
        if self.window is not None and self.stride is not None and self.stride > self.window:
            raise SettingError(
                f"stride is {self.stride} and window {self.window}: pixels between windows would never be "
                "hidden. Take a stride of at most the window."
            )


@dataclass(frozen=True)
class SuperpixelOcclusion:
    """Settings of occlusion by superpixels: see `superpixels`, and `Occlusion` for the others."""

    name: ClassVar[str] = "superpixel-occlusion"

    num_segments: int = 64
    compactness: float = 10.0
    fill: Fill = "blur"
    precision: Precision = "32"
    label: str = ""

    def __post_init__(self) -> None:
        check_fields(self)
        check_fill(self.fill)
        check_precision(self.precision)
        check_superpixels(self.num_segments, self.compactness, most=10**5)


def occlusion(
    segmenter: Segmenter,
    images: Images,
    targets: Sequence[Target],
    settings: Occlusion,
    *,
    seed: int = 0,
    batch_size: int = 16,
) -> list[Explanation]:
    """Slide a window: ``map(p) = mean over windows W with p in W of S(x) - S(x without W)``. Zeiler 2014.

    Zeiler and Fergus 2014, section 4.2, on the logit and signed: positive where hiding a place costs the
    score. The first window begins at the first pixel, the last ones are cut off at the border.
    """
    size = size_of(images)
    sides = sides_of(settings, size)
    covers = [_cover(*side).to(images.device) for side in sides]
    shape = [len(cover) for cover in covers]
    num = num_pixels(shape)

    def removed(which: Rows) -> Regions:
        places = torch.unravel_index(which % num, shape)
        seen = [cover[place] for cover, place in zip(covers, places, strict=True)]
        return reduce(
            lambda region, side: region[..., None] & side[(slice(None), *[None] * (region.ndim - 1))], seen
        )

    rows = torch.arange(len(images), device=images.device).repeat_interleave(num)
    drops, found = drops_of_parts(
        segmenter, images, targets, rows, removed, (settings.fill, settings.precision), seed, batch_size
    )
    grid = drops.unflatten(1, (len(images), *shape))
    places, pixels = PLACES[-len(size) :], PIXELS[-len(size) :]
    terms = ",".join(map("".join, zip(places, pixels, strict=True)))
    total = torch.einsum(f"tb{places},{terms}->tb{pixels}", grid, *(cover.to(grid) for cover in covers))
    maps = total / reduce(lambda times, side: times[..., None] * side, [cover.sum(0) for cover in covers])
    _, windows, strides = zip(*sides, strict=True)
    used = {"window": _one(windows), "stride": _one(strides)}
    how = asdict(settings) | used | {"unit": "mean", "seed": seed}
    return explanations(maps, targets, settings.label or settings.name, how, found)


def superpixel_occlusion(
    segmenter: Segmenter,
    images: Images,
    targets: Sequence[Target],
    settings: SuperpixelOcclusion,
    *,
    seed: int = 0,
    batch_size: int = 16,
) -> list[Explanation]:
    """Hide one superpixel after the other: ``map(p) = S(x) - S(x without the superpixel of p)``.

    Occlusion (Zeiler and Fergus 2014) with windows that follow the picture's edges, as in Ribeiro et al. 2016
    (LIME), but each alone and without a fitted model. Diagnostics: ``segments``, how many there are.
    """
    segments = superpixels(images, num_segments=settings.num_segments, compactness=settings.compactness)
    counts = segments.flatten(1).amax(1) + 1
    rows = torch.arange(len(images), device=images.device).repeat_interleave(counts)
    first = counts.cumsum(0) - counts

    def removed(which: Rows) -> Regions:
        return segments[rows[which]] == widened(which - first[rows[which]], segments)

    drops, found = drops_of_parts(
        segmenter, images, targets, rows, removed, (settings.fill, settings.precision), seed, batch_size
    )
    maps = drops[:, segments + widened(first, segments)]
    found["segments"] = counts.to(maps).expand(len(targets), -1)
    how = asdict(settings) | {"unit": "mean", "seed": seed}
    return explanations(maps, targets, settings.label or settings.name, how, found)


def drops_of_parts(
    segmenter: Segmenter,
    images: Images,
    targets: Sequence[Target],
    rows: Rows,
    removed: Removed,
    how: tuple[Fill, Precision],
    seed: int,
    batch_size: int,
) -> tuple[TargetScores, dict[str, Tensor]]:
    """Return ``S(x) - S(x without a part)`` for each part, and diagnostics; ``how`` is fill and precision."""
    fill, precision = how
    imputer = imputer_of(fill, segmenter.spec.spacing)
    if fill in BY_SURROUNDINGS:
        noise = content_normal(images, tuple(images.shape[1:]), seed, "imputation")

        def perturb(copies: Images, which: Rows) -> Images:
            return imputer(copies, removed(which), noise[rows[which]])

    else:
        fills = imputer(images, torch.ones_like(images[:, 0], dtype=torch.bool), images)

        def perturb(copies: Images, which: Rows) -> Images:
            return torch.where(removed(which)[:, None], fills[rows[which]], copies)

    model = prepare(segmenter, images, forwards=len(rows), batch_size=batch_size, precision=precision)
    clean = clean_logits(model, images, targets, batch_size=batch_size)
    drops = score_drops(model, images, targets, rows, perturb, clean, unit="mean", batch_size=batch_size)
    # Ranks within a picture are those of the scores, backwards.
    found = agreement(segmenter, model, images, targets, rows, perturb, -drops, batch_size)
    return drops, found


def agreement(
    segmenter: Segmenter,
    model: Prepared,
    images: Images,
    targets: Sequence[Target],
    rows: Rows,
    perturb: Perturb,
    scores: TargetScores,
    batch_size: int,
) -> dict[str, Tensor]:
    """Return, in bfloat16, the correlation of the ranks of scores with those in float32."""
    if model.precision == "32":
        return {}
    found = rank_agreement(
        segmenter, images, targets, rows, perturb, scores, unit="mean", batch_size=batch_size
    )
    return {"rank_agreement": found}


def _cover(length: int, window: int, stride: int) -> Bool[Tensor, "windows length"]:
    """Which pixels of a side each window covers; as many windows as it takes to reach the end."""
    num = max(0, math.ceil((length - window) / stride)) + 1
    begin = torch.arange(num)[:, None] * stride
    pixel = torch.arange(length)[None]
    return (pixel >= begin) & (pixel < begin + window)


def default_window(size: Sequence[int], length: int) -> int:
    """Return the window along a side of ``length``: an eighth of the picture's shorter side.

    Of a volume it is an eighth of the middle side, or of this one where it is shorter: slices are few.
    """
    return max(1, min(middle_side(size), length) // 8)


def sides_of(settings: Occlusion, size: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return length, window and stride along each axis of a picture of ``size``."""
    windows = [settings.window or default_window(size, length) for length in size]
    strides = [settings.stride or max(1, window // 2) for window in windows]
    return list(zip(size, windows, strides, strict=True))


def _one(lengths: tuple[int, ...]) -> int | list[int]:
    """What is the same along all axes as one number."""
    return lengths[0] if len(set(lengths)) == 1 else list(lengths)


def check_superpixels(num_segments: int, compactness: float, *, most: int) -> None:
    """Raise where superpixels can't be made so; there may be ``most`` of them.

    Raises:
        SettingError: they can't.
    """
    if num_segments < 2:
        raise SettingError(f"num_segments is {num_segments}, but must be at least 2.")
    check_range("num_segments", num_segments, 2, most)
    if not 0 < compactness < math.inf:
        raise SettingError(f"compactness is {compactness}, but must be above 0 and finite; 10 is usual.")


def check_fill(fill: str) -> None:
    """Raise where ``fill`` is nothing that can be put in a hidden part's place.

    Raises:
        UnknownNameError: it is not.
    """
    if fill not in IMPUTERS:
        raise unknown_name("fill", fill, IMPUTERS)


def explanations(
    maps: TargetMaps,
    targets: Sequence[Target],
    method: str,
    settings: dict[str, object],
    diagnostics: dict[str, Tensor],
) -> list[Explanation]:
    """One explanation for each target."""
    return [
        Explanation(
            method=method,
            layer=None,
            target=target,
            map=maps[position],
            settings=settings,
            diagnostics={name: values[position] for name, values in diagnostics.items()},
        )
        for position, target in enumerate(targets)
    ]

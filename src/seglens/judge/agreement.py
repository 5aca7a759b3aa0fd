"""Whether two kinds of evidence for a shortcut agree: attribution on the tag, and what the tag does."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from seglens.axes import num_pixels, size_of
from seglens.evaluate.intervals import Interval, auroc, interval
from seglens.explain.explanation import Explanation
from seglens.explain.target import dilate
from seglens.judge.causal import Effect
from seglens.judge.definitions import MIN_IMAGES
from seglens.results.names import count, map_name
from seglens.results.scorecard import TagRow
from seglens.shapes import PerImage, Regions

HONEST, CHEAT = "honest", "cheat"

DROP = 0.5
"""Removing the tag must take more than this share of the cheat's score."""

STILL = 0.1
"""What must not matter may change the score by less than this share."""


@dataclass(frozen=True)
class TagShare:
    """How far one method's attribution on the tag tells the two models apart."""

    method: str
    layer: str | None
    auroc: Interval
    honest: Interval
    cheat: Interval
    chance: float

    @property
    def exposes(self) -> bool:
        """Whether the cheat's share is above the honest model's for certain, and above chance as well."""
        return self.auroc.low > 0.5 and self.cheat.mean > self.chance

    @property
    def name(self) -> str:
        """``method`` or ``method@layer``."""
        return map_name(self.method, self.layer)

    @property
    def table(self) -> TagRow:
        """The row as it stands in ``shortcut.json``."""
        return TagRow(
            method=self.method,
            layer=self.layer,
            auroc=self.auroc.mean,
            low=self.auroc.low,
            high=self.auroc.high,
            num=self.auroc.num,
            share={HONEST: self.honest.mean, CHEAT: self.cheat.mean},
            chance_share=self.chance,
            exposes=self.exposes,
        )


def tag_share(
    honest: Explanation, cheat: Explanation, tags: Regions, outside: Regions, *, seed: int = 0
) -> TagShare:
    """Compare the shares of attribution on the tag, over the pixels ``outside`` of both models' regions."""
    zone = tag_zone(cheat, tags)
    shares = {name: share(entry, zone, outside) for name, entry in ((HONEST, honest), (CHEAT, cheat))}
    both = shares[HONEST].isfinite() & shares[CHEAT].isfinite()
    even = even_share(zone, outside)
    return TagShare(
        method=cheat.method,
        layer=cheat.layer,
        auroc=auroc(shares[CHEAT], shares[HONEST], seed=seed),
        honest=interval(shares[HONEST][both], seed=seed),
        cheat=interval(shares[CHEAT][both], seed=seed),
        chance=float(even[both].mean()),
    )


def tag_zone(entry: Explanation, tags: Regions) -> Regions:
    """The tag, grown by half a cell of what the map was made on (a pixel at least): it can't point any finer.

    That is a cell of the layer's grid or of RISE's masks, the window of an occlusion, or the side that a
    superpixel would have as a square.
    """
    return dilate(tags, max(1, math.ceil(_cell(entry) / 2)))


def _cell(entry: Explanation) -> float:
    """The side of a cell of the map, in pixels."""
    size = size_of(entry.map, 1)
    if entry.grid is not None:
        return max(length / cells for length, cells in zip(size, size_of(entry.grid, 1), strict=True))
    settings: Mapping[str, Any] = entry.settings
    if "window" in settings:
        return float(settings["window"])
    if "cells" in settings:
        return size[0] / float(settings["cells"])
    if "num_segments" in settings:
        return (num_pixels(size) / float(settings["num_segments"])) ** (1 / len(size))
    return 1.0


def even_share(zone: Regions, outside: Regions) -> PerImage:
    """The share that an even map would have in ``zone``."""
    return (zone & outside).flatten(1).sum(1) / outside.flatten(1).sum(1).clamp(min=1)


def share(entry: Explanation, zone: Regions, outside: Regions) -> PerImage:
    """The share of the positive attribution ``outside`` that lies in ``zone``; 0 where there is none.

    A map with nothing outside of the region has put nothing on the tag, and a constant one (``degenerate``,
    often one of which the ReLU has left nothing) points nowhere: both are 0. One without an answer is NaN.
    """
    mass = (entry.positive * outside).flatten(1).sum(1)
    on_tag = (entry.positive * (zone & outside)).flatten(1).sum(1)
    shares = torch.where(mass == 0, mass, on_tag / mass)
    flat = torch.tensor([status == "degenerate" for status in entry.status], device=shares.device)
    return torch.where(flat, 0.0, shares)


def invalid_because(effects: Mapping[str, Effect], *, seed: int = 0) -> list[str]:
    """Return what speaks against the validity of the test; nothing if it is valid."""
    num = min(int(found.complete.sum()) for found in effects.values())
    if num < MIN_IMAGES:
        return [f"only {count(num, 'picture')} could be tested, at least {MIN_IMAGES} are needed"]
    failures = []
    drops = {name: _drops(found, seed) for name, found in effects.items()}
    removed, moved = drops[CHEAT]
    if not removed.mean > DROP:
        failures.append(
            f"removing the tag takes {removed.mean:z.0%} of the cheat's score, not more than {DROP:.0%}"
        )
    if not abs(moved.mean) < STILL:
        failures.append(
            f"moving the tag changes the cheat's score by {moved.mean:z.0%}, not less than {STILL:.0%}"
        )
    for change, found in zip(("removing", "moving"), drops[HONEST], strict=True):
        if not abs(found.mean) < STILL:
            share = f"{found.mean:z.0%}, not less than {STILL:.0%}"
            failures.append(f"{change} the tag changes the honest model's score by {share}")
    return failures


def conclude(
    effects: Mapping[str, Effect], shares: Sequence[TagShare], failures: Sequence[str], *, seed: int = 0
) -> tuple[str, str]:
    """Return verdict and reason in plain words; a cheat is named only where both kinds of evidence agree."""
    exposing = [row for row in shares if row.exposes and row.method != "occlusion"]
    methods = ", ".join(
        f"{row.name} (AUROC {row.auroc.mean:.2f}, at least {row.auroc.low:.2f})" for row in exposing
    )
    against = "; ".join(failures)
    if failures and exposing:
        return "No shortcut is claimed: the heat on the tag differs, but the causal check fails.", (
            f"The second model has more heat on the tag by {methods}. But {against}."
        )
    if failures:
        return (
            "No shortcut was found.",
            f"{against[0].upper()}{against[1:]}; and no heat map tells the models apart.",
        )
    removed, moved = _drops(effects[CHEAT], seed)
    unmoved = _drops(effects[HONEST], seed)[0]
    causal = (
        f"Removing the tag costs the cheat {removed.mean:z.0%} [{removed.low:z.0%}, {removed.high:z.0%}] "
        f"of its score, and the honest model {unmoved.mean:z.0%}. Moving the tag elsewhere costs the "
        f"cheat {moved.mean:z.0%}"
    )
    if not exposing:
        return "No shortcut is claimed: the tag drives the second model, but no heat map shows it.", (
            f"{causal}. No method shows more heat on the tag in one model than in the other."
        )
    return "The model 'cheat' reads the tag; the model 'honest' doesn't.", (
        f"{causal}. The heat maps agree: the cheat has more heat on the tag than the honest model by "
        f"{methods}."
    )


def _drops(found: Effect, seed: int) -> tuple[Interval, Interval]:
    """The relative drops by removing and by moving the tag."""
    return found.drop(found.tag_removed, seed=seed), found.drop(found.tag_moved, seed=seed)

"""Whether a network's answer is that of the whole picture: found by where small changes of it show up.

An answer of half the size may be that of the whole picture, coarser, or of its middle alone, as where
convolutions without padding cut the border off; its size doesn't tell.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from seglens.axes import LENGTHS, size_of, spelled
from seglens.errors import ModelError

PLACES = (0.25, 0.75)
"""Where the middles of the two changes are, as shares of every side."""
_WIDTH = 8
"""A change is this part of every side wide."""
_LOCAL = 0.1
"""The largest deviation of what changes in an answer, as a share of a side: else no place can be told."""
_SCALES = (0.7, 1.4)
"""How far apart the answers to both changes may be, as a multiple of the changes' own distance."""
_PAD = "Pad or crop it to the whole picture before it is returned (torch.nn.functional.pad)."
_SHIFT = 0.02
"""How far both may be shifted, as a share of a side; see `_allowed`."""


def patches(sides: Sequence[int]) -> list[tuple[slice, ...]]:
    """Return the two parts of a picture, or of a volume, that are changed one after the other."""
    return [
        tuple(
            slice(round(place * side - side / _WIDTH / 2), round(place * side + side / _WIDTH / 2))
            for side in sides
        )
        for place in PLACES
    ]


def check_field(
    before: Tensor, after: Sequence[Tensor], other: Tensor, sides: Sequence[int], given: Sequence[int]
) -> None:
    """Raise where changes of the `patches` of a picture of ``sides`` change the answer elsewhere.

    ``given`` are the lengths of the picture as the network got it, padded at the ends. Answers that change
    all over, or nowhere, say nothing. ``other`` is the answer after another change.

    Raises:
        ModelError: the answer is not that of the whole picture, or is shifted.
    """
    if min(sides) < 2 * _WIDTH:
        return
    changes = [(each - before).detach().double().square().sum(dim=(0, 1)) for each in after]
    sizes = f"{spelled(size_of(before))} values for {spelled(given)} pixels"
    unseen = [place for place, change in zip(PLACES, changes, strict=True) if not change.any()]
    seen = len(unseen) < len(PLACES) or not torch.equal(before, other)
    if unseen and seen and size_of(before) != tuple(given):
        raise ModelError(
            f"The network's answer ({sizes}) is not that of the whole picture: a change at {unseen[0]:.0%} "
            f"of the {LENGTHS[len(given)]} changes nothing in it, as where a part is cut off. {_PAD}"
        )
    found = [_middle(change) for change in changes]
    if not all(spread <= _LOCAL for _, spreads, _ in found for spread in spreads):
        return
    for axis, name in enumerate(LENGTHS[len(given)].split(", ")):
        places = [(part[axis].start + part[axis].stop) / 2 / given[axis] for part in patches(sides)]
        first, second = (middles[axis] for middles, _, _ in found)
        scale, shift = (second - first) / (places[1] - places[0]), (first + second - sum(places)) / 2
        cell = 1 / size_of(before)[axis]  # a change may show up in the next one
        far = abs(second - first - places[1] + places[0]) > cell
        if far and not _SCALES[0] <= scale <= _SCALES[1]:
            what = "is cut off" if scale > 1 else "has a border about it"
            raise ModelError(
                f"The network's answer ({sizes}) is not that of the whole picture, as where it {what}. Two "
                f"changes that are {places[1] - places[0]:.0%} of the {name} apart show up "
                f"{second - first:.0%} apart. {_PAD}"
            )
        spread, error = (max(each[kind][axis] for each in found) for kind in (1, 2))
        if abs(shift) > max(_allowed(spread, error), cell):
            raise ModelError(
                f"The network's answer ({sizes}) is shifted: changes of the picture show up {abs(shift):.0%} "
                f"of the {name} {'after' if shift > 0 else 'before'} their place. Move it back before it is "
                "returned (torch.roll, torch.nn.functional.pad)."
            )


def _allowed(spread: float, error: float) -> float:
    """Return how far changes may show up from their place, as a share of a side.

    Twice as far as the network carries a change, which is what of their deviation is not their own width; and
    three times the standard error of their place.
    """
    own = 1 / _WIDTH**2 / 12
    return max(_SHIFT, 2 * max(0.0, spread**2 - own) ** 0.5, 3 * error)


def _middle(change: Tensor) -> tuple[list[float], list[float], list[float]]:
    """Return the middle of a change along every axis, its deviation, and the standard error of the middle.

    As shares of a side; NaN where nothing changes. Each pixel is a sample that weighs as much as it changes.
    """
    found = []
    for axis, side in enumerate(change.shape):
        others = [other for other in range(change.ndim) if other != axis]
        along, squares = change.sum(dim=others), change.square().sum(dim=others)
        places = (torch.arange(side, dtype=change.dtype, device=change.device) + 0.5) / side
        middle = (along * places).sum() / along.sum()
        away = (places - middle).square()
        spread = ((along * away).sum() / along.sum()).sqrt()
        found.append((middle.item(), spread.item(), ((squares * away).sum().sqrt() / along.sum()).item()))
    middles, spreads, errors = (list(each) for each in zip(*found, strict=True))
    return middles, spreads, errors

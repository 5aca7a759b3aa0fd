"""What somebody else's network is asked before it is taken: noise, and noise of which a part is changed."""

from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from seglens.axes import padded_size, size_of
from seglens.errors import ModelError
from seglens.models.field import check_field, patches
from seglens.models.outputs import check_places, check_resolution, check_steady, corner
from seglens.models.own_normalisation import first_inputs
from seglens.models.probing import uncompiled
from seglens.models.segmenter import ModelSpec, Segmenter

_BESIDE = 0.1
"""Contrast of a second picture."""
VOLUME = 64
"""Voxels along each side of the volume that a network is tried on, where nobody says otherwise."""


def first_taken(given: Segmenter, specs: Iterable[ModelSpec]) -> tuple[Segmenter, Any]:
    """Return ``given`` with the first of ``specs`` that its network takes, and what that returned on trial.

    Raises:
        ModelError: it takes none; said of the first.
    """
    failure: ModelError | None = None
    for spec in specs:
        tried = Segmenter(given.module, spec, given.select, given.call)
        try:
            return tried, tried.trial(spec.image_size)
        except ModelError as error:
            failure = failure or error
    assert failure is not None  # there is one to try
    raise failure


def answers(segmenter: Segmenter, first: Any, channels: Collection[int]) -> Tensor:
    """Return the answers ``[2, k, *size]`` of ``channels`` to noise, and to noise of far too much contrast.

    Logits may all lie in [0, 1] on one picture, but hardly on one whose contrast is far out of range.
    ``first`` is what the network returned for the noise.

    Raises:
        ModelError: there is no such answer, or it is not that of the whole picture, pixel for pixel.
    """
    sides = segmenter.spec.sides
    given = padded_size(sides, segmenter.spec.divisor)

    def changed(part: tuple[slice, ...]) -> Tensor:
        return segmenter.answer(segmenter.trial(sides, inverted=part), channels)

    returned = (first, segmenter.trial(sides, 100.0))
    found = torch.cat([segmenter.answer(each, channels) for each in returned])
    check_resolution(size_of(found), given)
    turned = changed(corner(sides))
    check_places(found[:1], turned)
    check_field(found[:1], [changed(part) for part in patches(sides)], turned, sides, given)
    return found


def inputs_inside(segmenter: Segmenter) -> list[list[Tensor]]:
    """Return what the network is given, and what its first part with weights is, for noise of two contrasts.

    See `seglens.models.own_normalisation.refuse_inside`.
    """
    found = []
    for contrast in (1.0, 0.5):
        with uncompiled(), first_inputs(segmenter.module) as seen:
            segmenter.trial(segmenter.spec.sides, contrast)
        found.append(seen)
    return found


def refuse_unsteady(segmenter: Segmenter, answer: Tensor, channels: Collection[int]) -> None:
    """Ask again for the ``answer`` to noise, and for that beside another picture, and hold them against it.

    Raises:
        ModelError: they differ, see `check_steady`.
    """
    sides = segmenter.spec.sides
    again = {"when it is asked again": segmenter.answer(segmenter.trial(sides), channels)}
    both = None
    with suppress(ModelError):  # one that takes single pictures only says so when it gets more
        both = segmenter.answer(segmenter.trial(sides, beside=_BESIDE), channels, 2)
        again["beside another picture"] = both[:1]
    check_steady(answer, again)
    if both is not None:
        alone = segmenter.answer(segmenter.trial(sides, _BESIDE), channels)
        check_steady(torch.cat([answer, alone]), {"as the second of two": both})

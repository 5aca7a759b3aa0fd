"""How far the members of a model disagree: its mirror images, and the networks of several folds."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Literal, get_args

from seglens.axes import size_of
from seglens.errors import SettingError
from seglens.models.ensemble import Ensemble
from seglens.models.members import alone
from seglens.models.segmenter import Segmenter
from seglens.predict.original import Inference, Placed, Probability, at_original_size, forward
from seglens.shapes import Map

Kind = Literal["folds", "mirrors"]
KINDS: tuple[Kind, ...] = get_args(Kind)

DEFINITIONS = {
    "folds": "how far the networks of the folds disagree (standard deviation of their probabilities)",
    "mirrors": "how far the answers for mirror images disagree (standard deviation of the probabilities)",
    "doubt": "1 less the probability of the predicted class",
}
"""What each map of uncertainty holds at a pixel; over several classes the root of the mean variance."""


def kinds_of(segmenter: Segmenter) -> tuple[Kind, ...]:
    """Return which maps of disagreement a model has."""
    several = isinstance(segmenter.module, Ensemble) and len(segmenter.module.networks) > 1
    mirrored = segmenter.tool is None  # a model's own tool mirrors as it was adopted
    return (*(("folds",) if several else ()), *(("mirrors",) if mirrored else ()))


def disagreement(segmenter: Segmenter, placed: Placed, how: Inference, kind: Kind) -> Map:
    """Return the standard deviation of the members' probabilities at a picture's own size.

    Raises:
        SettingError: the model has no such members.
    """
    if kind not in kinds_of(segmenter):
        known = ", ".join(kinds_of(segmenter)) or "none"
        raise SettingError(f"The model has no {kind} to disagree; it has: {known}.")
    members = _over_folds if kind == "folds" else _over_mirrors
    total = squares = None
    num = 0
    for probability in members(segmenter, placed, how):
        found = probability.double()
        total = found if total is None else total + found
        squares = found.square() if squares is None else squares + found.square()
        num += 1
    assert total is not None
    assert squares is not None
    variance = (squares / num - (total / num).square()).clamp_min(0)
    return variance.mean(0).sqrt().float()


def doubt(probability: Probability) -> Map:
    """Return 1 less the probability of the most probable class; of labels, of the least certain of them."""
    return 1 - probability.amax(0)


def _over_folds(segmenter: Segmenter, placed: Placed, how: Inference) -> Iterator[Probability]:
    assert isinstance(segmenter.module, Ensemble)
    for network in segmenter.module.networks:
        (found,) = forward(alone(segmenter, network), [placed], how)
        yield at_original_size(placed, found)


def _over_mirrors(segmenter: Segmenter, placed: Placed, how: Inference) -> Iterator[Probability]:
    once = replace(how, tta=False)
    for flip in _flips(len(size_of(placed.image, 1))):
        (found,) = forward(segmenter, [replace(placed, image=placed.image.flip(flip))], once)
        yield at_original_size(placed, found.flip(flip))


def _flips(axes: int) -> Sequence[tuple[int, ...]]:
    behind = [-1 - axis for axis in range(axes)]
    return [turn for num in range(axes + 1) for turn in combinations(behind, num)]

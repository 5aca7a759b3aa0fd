"""Targets of one lesion each: those that `evaluate` counts as missed and invented, the largest first."""

import pytest
import torch

from seglens.errors import SettingError
from seglens.evaluate.objects import DETECTED, objects_of
from seglens.explain.target import invented_object, missed_object, unmatched
from seglens.judge.reading import score_unit
from seglens.objects import pieces


def region(seed: int) -> torch.Tensor:
    small = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(seed)) > 0.6
    return small.repeat_interleave(3, 2).repeat_interleave(3, 3)[0, 0]


@pytest.mark.parametrize("seed", range(20))
def test_the_objects_are_those_that_are_counted(seed: int) -> None:
    truth, predicted = region(seed), region(seed + 100)
    found = objects_of(pieces(truth), pieces(predicted))
    lone = unmatched(truth, predicted)
    areas = sorted(found.truth[found.matched[DETECTED] == 0].tolist(), reverse=True)
    assert [int(piece.sum()) for piece in lone] == areas
    other = sorted(found.predicted[found.used[DETECTED] == 0].tolist(), reverse=True)
    for index, area in enumerate(other, start=1):
        target = invented_object(truth[None], predicted[None], index)
        assert int(target.pixels.sum()) == area
        assert not (target.pixels & ~predicted).any()
    for index in range(1, len(lone) + 1):
        target = missed_object(truth[None], predicted[None], index)
        assert torch.equal(target.pixels[0], lone[index - 1])
        assert target.label == f"missed:{index}"
        assert score_unit(target) == "mean"  # as of all missed pixels: their probability is near 0
    assert missed_object(truth[None], predicted[None], len(lone) + 1).empty().all()
    with pytest.raises(SettingError, match="counted from 1"):
        missed_object(truth[None], predicted[None], 0)

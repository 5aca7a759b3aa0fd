"""Which slices a montage shows. Oracle: the slices themselves."""

from itertools import pairwise

import pytest
import torch

from seglens.drawing.planes import Planes
from seglens.errors import UnknownNameError
from seglens.folder.montage import MOST, check_plane, slices_of


@pytest.mark.parametrize(("plane", "axis"), [("axial", 0), ("coronal", 1), ("sagittal", 2)])
def test_every_slice_of_a_small_volume_is_shown(plane, axis):
    volume = torch.rand(4, 6, 5)
    found = slices_of(Planes((1, 2, 3)), volume.shape, plane)
    assert list(found) == list(range(volume.shape[axis]))
    for number, planes in found.items():
        own = volume.select(axis, number)
        assert torch.equal(planes(volume), own if axis == 0 else own.flip(0))


@pytest.mark.parametrize("centre", [0, 7, 50, 99])
def test_of_a_large_one_the_centre_and_both_ends_are(centre):
    numbers = list(slices_of(Planes((centre, 0, 0)), (100, 3, 3), "axial"))
    assert len(numbers) == MOST
    assert numbers == sorted(numbers)
    assert {0, centre, 99} <= set(numbers) or centre in (1, 98)
    assert max(b - a for a, b in pairwise(numbers)) <= 7


def test_planes_have_names():
    with pytest.raises(UnknownNameError, match="axial"):
        check_plane("axia")

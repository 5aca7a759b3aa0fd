"""The three planes of a volume. Oracle: the voxels that were put in, by hand."""

import torch

from seglens.drawing.planes import GAP, Planes, planes_through


def test_planes_lie_side_by_side_with_the_head_up():
    volume = torch.arange(2 * 3 * 4).reshape(2, 3, 4)
    drawn = Planes((1, 2, 3))(volume)
    assert drawn.shape == (3, 4 + GAP + 4 + GAP + 3)
    assert torch.equal(drawn[:, :4], volume[1])
    coronal = drawn[:2, 4 + GAP : 8 + GAP]  # the upper of two slices comes first
    assert torch.equal(coronal, volume[:, 2].flip(0))
    sagittal = drawn[:2, -3:]
    assert torch.equal(sagittal, volume[:, :, 3].flip(0))
    assert not drawn[:, 4 : 4 + GAP].any()
    assert not drawn[2, 4:].any()


def test_thick_slices_are_as_high_as_they_are():
    volume = torch.rand(5, 6, 7)
    drawn = Planes((2, 3, 4), (3.0, 1.0, 1.0))(volume)
    assert drawn.shape == (15, 7 + GAP + 7 + GAP + 6)
    assert torch.equal(drawn[:3, 7 + GAP : 14 + GAP], volume[4:, 3].expand(3, 7))
    assert torch.equal(Planes((2, 3, 4))(volume > 0.5), Planes((2, 3, 4))((volume > 0.5).long()) > 0)


def test_planes_go_through_most_of_a_region():
    region = torch.zeros(40, 50, 60, dtype=torch.bool)
    region[10, 20:25, 30:36] = True
    region[11, 22, 33] = True
    region[10:14, 22, 33] = True
    planes = planes_through(region, (1.0, 1.0, 1.0))
    assert planes.centre == (10, 22, 33)
    assert planes.zoom == 3  # 60 + 60 + 50 voxels
    assert planes_through(region & False, None).centre == (20, 25, 30)


def test_one_plane_alone_is_that_of_the_three():
    volume = torch.rand(4, 6, 5)
    whole = Planes((1, 2, 3))(volume)
    assert torch.equal(Planes((1, 2, 3), shown=(0,))(volume), whole[:, :5])
    assert torch.equal(Planes((1, 2, 3), shown=(1,))(volume), volume[:, 2].flip(0))
    assert torch.equal(Planes((1, 2, 3), shown=(2,))(volume), volume[:, :, 3].flip(0))

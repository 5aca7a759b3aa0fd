"""What doesn't work on volumes yet is refused by name, before any work."""

import numpy as np
import pytest
import torch
from tests.volumes.networks import run_of, scattered, small, volumes
from torch import nn

import seglens
from seglens.arguments.inputs import as_images
from seglens.errors import ModelError, SettingError


@pytest.fixture
def run():
    return run_of(small())


def test_pictures_are_no_volumes(run, tmp_path):
    pictures = torch.rand(2, 2, 8, 6)
    with pytest.raises(SettingError, match=r"a tensor has 5, .b c d h w..*one volume as volume.None."):
        seglens.explain(run, pictures, scattered(pictures), layers="deep")
    with pytest.raises(SettingError, match=r"2 axes, .*allowed are .d h w., .c d h w."):
        as_images(np.zeros((4, 5), np.float32), 1, 3)


def test_arrays_of_volumes_are_read_where_one_reading_fits():
    array = np.random.default_rng(0).random((5, 6, 7), np.float32)
    assert as_images(array, 1, 3).shape == (1, 1, 5, 6, 7)
    assert as_images([array, array], 1, 3).shape == (2, 1, 5, 6, 7)
    last = np.stack([array, 1 - array], -1)
    assert torch.equal(as_images(last, 2, 3)[0, 1], torch.from_numpy(1 - array))
    assert as_images(np.stack([last] * 3), 2, 3).shape == (3, 2, 5, 6, 7)
    with pytest.raises(SettingError, match=r"read as .c d h w. and as .d h w c."):
        as_images(np.zeros((2, 4, 4, 2), np.float32), 2, 3)
    with pytest.raises(SettingError, match=r"write permute\(0, 4, 1, 2, 3\)"):
        as_images(torch.zeros(1, 5, 6, 7, 2), 2, 3)


def test_an_answer_of_another_resolution_is_interpolated_or_refused():
    coarse = nn.Sequential(nn.Conv3d(2, 2, 3, padding=1), nn.AvgPool3d((1, 2, 2)))
    run = run_of(coarse)
    images = volumes(1, (6, 8, 4))
    expected = nn.functional.interpolate(coarse((images - 0.5) / 0.5), (6, 8, 4), mode="trilinear")
    torch.testing.assert_close(run.predict(images).logits, expected.detach())
    with pytest.raises(
        ModelError, match=r"12 x 12 x 12 values for 16 x 16 x 16.*pad\(output, \(2, 2, 2, 2, 2, 2\)\)"
    ):
        run_of(nn.Conv3d(2, 2, 5))


def test_a_network_of_one_size_says_so():
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv3d(2, 2, 1)
            self.place = nn.Parameter(torch.randn(1, 2, 16, 16, 16))

        def forward(self, images):
            return self.conv(images) + self.place

    run = run_of(Fixed())
    assert run.spec.dims == 3
    with pytest.raises(
        ModelError, match="can't take images of 8 x 8 x 8 pixels, and was tried with 16 x 16 x 16"
    ):
        run.predict(volumes(1, (8, 8, 8)))


def test_labels_that_may_overlap():
    run = seglens.wrap(
        nn.Conv3d(2, 3, 1),
        classes=("a", "b", "c"),
        channels=2,
        mean=(0.5,) * 2,
        std=(0.5,) * 2,
        image_size=8,
        head="multilabel",
    )
    images = volumes(1, (5, 6, 7))
    found = run.predict(images)
    assert found.mask.shape == (1, 3, 5, 6, 7)
    assert torch.equal(found.mask, found.logits.sigmoid() >= 0.5)
    assert torch.equal(seglens.targets.predicted(run, images, 2).pixels, found.mask[:, 1])

"""What baselines are, in raw pixel space."""

import math

import pytest
import torch

from seglens.explain.baselines import BASELINES


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_has_the_form_of_the_pictures_and_lies_in_their_range(name, images):
    found = BASELINES[name](images, 0, 4, 0.05)
    assert found.shape == (3, 4 if name == "random" else 1, 3, 32, 40)
    assert found.min() >= 0
    assert found.max() <= 1


@pytest.mark.parametrize("name", BASELINES)
def test_pictures_do_not_know_of_each_other(name, images):
    together = BASELINES[name](images, 3, 2, 0.1)
    backwards = BASELINES[name](images.flip(0), 3, 2, 0.1).flip(0)
    alone = torch.cat([BASELINES[name](images[i : i + 1], 3, 2, 0.1) for i in range(3)])
    torch.testing.assert_close(together, backwards)
    torch.testing.assert_close(together, alone)


def test_black_and_mean_colour(images):
    assert not BASELINES["zero"](images, 0, 1, 0.05).any()
    found = BASELINES["mean"](images, 0, 1, 0.05)[:, 0]
    for picture, start in zip(images, found, strict=True):
        for channel in range(3):
            assert start[channel].unique().tolist() == pytest.approx([picture[channel].mean().item()])


def test_the_blur_is_a_gaussian_of_a_share_of_the_shorter_side():
    """A single bright pixel becomes the Gaussian itself, with a standard deviation of 2 pixels of 40."""
    images = torch.zeros(1, 1, 40, 60)
    images[0, 0, 20, 30] = 1.0
    found = BASELINES["blur"](images, 0, 1, 0.05)[0, 0, 0]
    for row, column in [(20, 30), (21, 30), (20, 28), (23, 33)]:
        distance = (row - 20) ** 2 + (column - 30) ** 2
        expected = math.exp(-distance / (2 * 2.0**2)) / (2 * math.pi * 2.0**2)
        assert found[row, column].item() == pytest.approx(expected, rel=0.01)
    assert found.sum().item() == pytest.approx(1.0, abs=1e-5)


def test_noise_follows_the_seed(images):
    one, again, other = (BASELINES["random"](images, seed, 3, 0.05) for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert one.mean().item() == pytest.approx(0.5, abs=0.02)
    assert one.std().item() == pytest.approx(math.sqrt(1 / 12), abs=0.02)

"""Superpixels: closed forms on flat colours, and what must hold for any picture."""

import pytest
import torch
from scipy.ndimage import gaussian_filter, label

from seglens.errors import SettingError
from seglens.superpixels import superpixels


def quadrants(size: int = 32) -> torch.Tensor:
    """A picture of four flat colours."""
    colours = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.8, 0.2], [0.2, 0.2, 0.9], [0.8, 0.8, 0.1]])
    rows = torch.arange(size) // (size // 2)
    return colours[rows[:, None] * 2 + rows[None, :]].permute(2, 0, 1)


def smooth(num: int, channels: int = 3) -> torch.Tensor:
    noise = torch.rand(num, channels, 8, 10, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(noise, (32, 40), mode="bilinear")


def test_no_patch_crosses_an_edge_between_colours() -> None:
    found = superpixels(quadrants()[None], num_segments=16)[0]
    rows = torch.arange(32) // 16
    corner = rows[:, None] * 2 + rows[None, :]
    for number in range(int(found.max()) + 1):
        assert len(corner[found == number].unique()) == 1


def test_a_flat_grey_picture_is_cut_into_squares() -> None:
    found = superpixels(torch.full((1, 1, 32, 32), 0.5), num_segments=16)[0]
    assert torch.equal(found[4::8, 4::8], torch.arange(16).view(4, 4))
    sides = [(found[row] == number).sum() for row, number in ((4, 0), (12, 5), (20, 10), (28, 15))]
    assert all(6 <= side <= 10 for side in sides)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_patches_are_connected_and_numbered_without_gaps(channels: int) -> None:
    for picture in superpixels(smooth(2, channels), num_segments=20):
        numbers = picture.unique()
        assert torch.equal(numbers, torch.arange(len(numbers)))
        assert 5 <= len(numbers) <= 30
        assert all(label((picture == number).numpy())[1] == 1 for number in numbers)


def test_each_picture_is_cut_as_if_it_were_alone_and_the_same_each_time() -> None:
    pictures = smooth(3)
    together = superpixels(pictures, num_segments=20)
    for row in range(3):
        assert torch.equal(superpixels(pictures[row : row + 1], num_segments=20)[0], together[row])


def test_pixels_that_are_not_valid_are_in_no_patch() -> None:
    valid = torch.zeros(2, 32, 40, dtype=torch.bool)
    valid[0, :20, 5:] = True
    found = superpixels(smooth(2), valid, num_segments=12)
    assert torch.equal(found >= 0, valid)
    numbers = found[0][valid[0]].unique()
    assert torch.equal(numbers, torch.arange(len(numbers)))
    assert len(numbers) > 4


def test_noise_is_cut_too() -> None:
    noise = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert superpixels(noise, num_segments=32).max() >= 8


def test_blur_by_sigma_comes_before_the_cut() -> None:
    grey = smooth(1, channels=1)
    grey = (grey - grey.min()) / (grey.max() - grey.min())
    blurred = torch.from_numpy(gaussian_filter(grey[0, 0].double().numpy(), 2.0))[None, None]
    # SLIC stretches intensities to [0, 1] before it blurs: of the blurred picture, nearness counts for more.
    stretched = 10.0 / float(blurred.max() - blurred.min())
    found = superpixels(grey.double(), num_segments=20, sigma=2.0)
    assert torch.equal(found, superpixels(blurred, num_segments=20, compactness=stretched))
    assert not torch.equal(found, superpixels(grey.double(), num_segments=20))


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(SettingError, match="num_segments is 0, but must be at least 1"):
        superpixels(smooth(1), num_segments=0)
    with pytest.raises(SettingError, match=r"compactness is 0\.0, but must be above 0"):
        superpixels(smooth(1), compactness=0.0)
    with pytest.raises(SettingError, match=r"sigma is -1\.0, but must be at least 0 pixels"):
        superpixels(smooth(1), sigma=-1.0)

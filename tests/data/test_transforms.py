"""Letterboxing there and back, and augmentation that moves image and mask as one."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seglens.data.frame import fit_frame
from seglens.data.sample import Sample
from seglens.data.transforms import (
    Policy,
    augment,
    collate,
    letterbox,
    letterbox_image,
    sample_generator,
)
from seglens.errors import DataError, SettingError

sides = st.integers(1, 70)
NOTHING = Policy(
    0.0, 0.0, (1.0, 1.0), 0.0, (0.0, 0.0), (0.0, 0.0), (1.0, 1.0), (1.0, 1.0), noise_and_blur=0.0
)


def disc_sample(size=64, channels=3):
    """A picture whose mask is its own thresholded content: a bright disc, off the centre."""
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    far = torch.hypot(rows - 0.4 * size, columns - 0.55 * size)
    disc = (far - 0.22 * size).neg().add(0.5).clamp(0, 1)
    image = (0.2 + 0.6 * disc).expand(channels, size, size)
    return Sample("disc", image, (disc >= 0.5).long(), torch.ones(size, size, dtype=torch.bool))


def mask_of(sample) -> Tensor:
    return sample.mask


def overlap(one, other):
    return (one & other).sum() / (one | other).sum()


@given(rows=sides, columns=sides, size=st.integers(1, 48))
@settings(max_examples=60, deadline=None)
def test_letterbox_is_as_large_as_fits_and_centred(rows, columns, size):
    frame = fit_frame((rows, columns), size)
    assert max(frame.scaled) == size
    assert abs(frame.scaled[0] * columns - frame.scaled[1] * rows) <= max(rows, columns)  # not stretched
    assert abs(size - frame.scaled[0] - 2 * frame.corner[0]) <= 1
    assert abs(size - frame.scaled[1] - 2 * frame.corner[1]) <= 1


@given(rows=sides, columns=sides, size=st.integers(8, 48))
@settings(max_examples=60, deadline=None)
def test_grid_coordinates_are_those_of_a_ramp(rows, columns, size):
    """Oracle: the corners of the picture are the corners of the frame, and scaling is the same everywhere."""
    frame = fit_frame((rows, columns), size)
    assert frame.to_grid(-0.5, -0.5) == pytest.approx((frame.corner[1] - 0.5, frame.corner[0] - 0.5))
    right, bottom = frame.corner[1] + frame.scaled[1] - 0.5, frame.corner[0] + frame.scaled[0] - 0.5
    assert frame.to_grid(columns - 0.5, rows - 0.5) == pytest.approx((right, bottom))


def test_a_bright_pixel_lands_where_to_grid_says():
    image = torch.zeros(1, 20, 40)
    image[0, 13, 31] = 1
    boxed, frame = letterbox_image(image, 80)
    x, y = frame.to_grid(31, 13)
    weights = boxed[0] / boxed.sum()
    rows, columns = torch.meshgrid(torch.arange(80.0), torch.arange(80.0), indexing="ij")
    assert (float((weights * columns).sum()), float((weights * rows).sum())) == pytest.approx(
        (x, y), abs=1e-3
    )


@given(rows=sides, columns=sides, size=st.integers(1, 48), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_letterbox_marks_padding_and_keeps_the_range(rows, columns, size, seed):
    drawn = torch.Generator().manual_seed(seed)
    image = torch.rand(3, rows, columns, generator=drawn)
    sample = Sample("a", image, torch.full((rows, columns), 2), torch.ones(rows, columns, dtype=torch.bool))
    boxed, frame = letterbox(sample, size)
    assert boxed.valid.sum() == frame.scaled[0] * frame.scaled[1]
    assert ((mask_of(boxed) == 2) == boxed.valid).all()
    assert (boxed.image[:, ~boxed.valid] == 0).all()
    assert 0 <= boxed.image.min()
    assert boxed.image.max() <= 1


@given(rows=st.integers(4, 40), columns=st.integers(4, 40), factor=st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_a_mask_comes_back_from_a_larger_grid_as_it_was(rows, columns, factor):
    mask = (torch.arange(rows)[:, None] * 7 + torch.arange(columns) * 3) % 5
    sample = Sample("a", torch.zeros(1, rows, columns), mask, torch.ones(rows, columns, dtype=torch.bool))
    boxed, frame = letterbox(sample, factor * max(rows, columns))
    assert torch.equal(frame.mask_to_native(mask_of(boxed)), mask)


def test_a_picture_that_fits_is_left_alone():
    image = torch.rand(3, 32, 32)
    boxed, frame = letterbox_image(image, 32)
    assert torch.equal(boxed, image)
    assert torch.equal(frame.maps_to_native(image), image)


def test_a_smooth_map_comes_back_the_same():
    rows, columns = torch.meshgrid(torch.arange(50.0), torch.arange(80.0), indexing="ij")
    smooth = torch.sin(rows / 9) * torch.cos(columns / 11) * 0.5 + 0.5
    boxed, frame = letterbox_image(smooth[None], 120)
    back = frame.maps_to_native(boxed)
    assert back.shape == (1, 50, 80)
    assert (back[0] - smooth)[2:-2, 2:-2].abs().max() < 0.01


def test_the_disc_comes_back_from_a_smaller_grid():
    sample = disc_sample(100)
    boxed, frame = letterbox(sample, 64)
    assert overlap(frame.mask_to_native(mask_of(boxed)).bool(), mask_of(sample).bool()) > 0.95


def test_a_grid_of_another_size_is_refused():
    with pytest.raises(SettingError, match=r"frame of 16 x 16 pixels got a grid of \(8, 8\)"):
        fit_frame((10, 10), 16).mask_to_native(torch.zeros(8, 8, dtype=torch.int64))
    with pytest.raises(SettingError, match="at least 1 pixel, got 0"):
        fit_frame((10, 10), 0)


@pytest.mark.parametrize("index", range(24))
def test_the_mask_moves_with_the_image(index):
    """Oracle: the disc's mask is its content above a threshold, before augmentation and after it."""
    moves = Policy(
        flip_vertical=0.5, brightness=(0.0, 0.0), contrast=(1.0, 1.0), gamma=(1.0, 1.0), noise_and_blur=0.0
    )
    variant = augment(disc_sample(), sample_generator(0, 0, index), moves)
    assert overlap(variant.image[0] > 0.5, mask_of(variant).bool()) > 0.95
    assert (variant.image[:, ~variant.valid] == 0).all()
    assert not mask_of(variant)[~variant.valid].any()


def test_augmentation_moves_light_and_soil_too():
    sample = disc_sample()
    still = Policy(0.0, 0.0, scale=(1.0, 1.0), shift=0.0, rotation=(0.0, 0.0), noise_and_blur=0.5)
    variant = augment(sample, sample_generator(0, 0, 1), still)
    assert torch.equal(mask_of(variant), mask_of(sample))
    assert variant.valid.all()
    assert not torch.equal(variant.image, sample.image)
    assert 0 <= variant.image.min()
    assert variant.image.max() <= 1


def test_no_augmentation_is_the_identity():
    sample = disc_sample()
    variant = augment(sample, sample_generator(0, 0, 0), NOTHING)
    torch.testing.assert_close(variant.image, sample.image)
    assert torch.equal(mask_of(variant), mask_of(sample))


def test_flips_are_exact():
    sample = disc_sample()
    flip = replace(NOTHING, flip_horizontal=1.0, flip_vertical=1.0)
    variant = augment(sample, sample_generator(0, 0, 0), flip)
    assert torch.equal(mask_of(variant), mask_of(sample).flip(0, 1))
    torch.testing.assert_close(variant.image, sample.image.flip(1, 2))


def test_the_seed_decides_and_nothing_else():
    sample = disc_sample()
    first = augment(sample, sample_generator(3, 1, 5))
    torch.manual_seed(99)
    state = torch.get_rng_state()
    again = augment(sample, sample_generator(3, 1, 5))
    assert torch.equal(first.image, again.image)
    assert torch.equal(mask_of(first), mask_of(again))
    assert torch.equal(state, torch.get_rng_state())
    for other in ((4, 1, 5), (3, 2, 5), (3, 1, 6)):
        assert not torch.equal(first.image, augment(sample, sample_generator(*other)).image)


def test_a_sample_without_mask_is_augmented_alike():
    sample = disc_sample()
    bare = Sample("bare", sample.image, None, sample.valid)
    variant = augment(bare, sample_generator(0, 0, 7))
    assert variant.mask is None
    assert torch.equal(variant.image, augment(sample, sample_generator(0, 0, 7)).image)


@pytest.mark.parametrize("index", range(6))
def test_what_is_ignored_is_still_seen(index):
    """Labels don't show in the picture: a band of ignored pixels changes what is valid and nothing else."""
    sample, _ = letterbox(disc_sample(), 40)
    band = torch.zeros_like(sample.valid)
    band[10:14, 5:30] = True
    assert (sample.valid & band).any()
    plain = augment(sample, sample_generator(0, 0, index))
    ignoring = augment(replace(sample, valid=sample.valid & ~band), sample_generator(0, 0, index))
    assert torch.equal(ignoring.image, plain.image)
    assert (plain.valid & ~ignoring.valid).any()
    assert not (ignoring.valid & ~plain.valid).any()


def test_collate_stacks_and_refuses_a_mixture():
    sample = disc_sample()
    bare = Sample("bare", sample.image, None, sample.valid)
    batch = collate([sample, sample])
    assert batch.names == ("disc", "disc")
    assert torch.equal(batch.images[1], sample.image)
    assert batch.masks is not None
    assert torch.equal(batch.masks[0], mask_of(sample))
    assert collate([bare]).masks is None
    with pytest.raises(DataError, match=r"these have none: \['bare'\]"):
        collate([sample, bare])

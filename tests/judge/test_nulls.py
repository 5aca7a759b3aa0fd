"""Content-free maps have closed forms; the randomised model differs and leaves the trained one alone."""

import copy

import pytest
import torch
from torch import nn

from seglens import wrap
from seglens.explain.target import Target
from seglens.judge import nulls


def small_run(seed: int = 0):
    torch.manual_seed(seed)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Conv2d(8, 1, 1)
    )
    return wrap(module, classes=("background", "cell"), mean=(0.5,) * 3, std=(0.25,) * 3, image_size=32)


@pytest.fixture
def surface() -> nulls.NullInputs:
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    pixels = torch.zeros(3, 32, 32, dtype=torch.bool)
    pixels[:, 8:16, 8:24] = True
    return nulls.NullInputs(images, pixels, torch.full((3, 32, 32), 0.25), seed=1)


@pytest.mark.parametrize("name", nulls.NULLS)
def test_every_null_is_a_finite_non_negative_map_per_picture(surface: nulls.NullInputs, name: str) -> None:
    maps = nulls.NULLS[name](surface)
    assert maps.shape == surface.pixels.shape  # the shape is part of the contract of the dict
    assert maps.isfinite().all()
    assert (maps >= 0).all()


def test_random_map_depends_on_seed_and_picture_and_not_on_company(surface: nulls.NullInputs) -> None:
    maps = nulls.random_map(surface)
    alone = nulls.NullInputs(surface.images[1:2], surface.pixels[1:2], surface.probability[1:2], seed=1)
    torch.testing.assert_close(nulls.random_map(alone), maps[1:2])
    other_seed = nulls.NullInputs(surface.images, surface.pixels, surface.probability, seed=2)
    assert not torch.equal(nulls.random_map(other_seed), maps)
    assert not torch.equal(maps[0], maps[1])


def test_centre_blob_has_the_ratio_that_its_width_promises() -> None:
    # A centred disc of 6.2 % area holds 1 - exp(-r^2 / 2 sigma^2) of a Gaussian blob.
    size = 256
    surface = nulls.NullInputs(
        torch.rand(1, 3, size, size), torch.zeros(1, size, size).bool(), torch.zeros(1, size, size)
    )
    blob = nulls.centre(surface)[0]
    axis = (torch.arange(size) + 0.5) / size - 0.5
    radius = (0.062 / torch.pi) ** 0.5
    disc = axis[:, None] ** 2 + axis[None] ** 2 <= radius**2
    ratio = blob[disc].mean() / blob[~disc].mean()
    assert 8 < ratio < 11


def test_edges_of_a_ramp_are_its_slope_and_of_a_flat_picture_nothing() -> None:
    ramp = (torch.arange(32) / 32).expand(1, 3, 32, 32).contiguous()
    empty = torch.zeros(1, 32, 32)
    steep = nulls.edges(nulls.NullInputs(ramp, empty.bool(), empty))
    torch.testing.assert_close(steep[0, :, 1:-1], torch.full((32, 30), 1 / 32))
    flat = nulls.edges(nulls.NullInputs(torch.full((1, 3, 32, 32), 0.3), empty.bool(), empty))
    assert flat.abs().max() < 1e-6


def test_mirrors_are_the_pooled_region(surface: nulls.NullInputs) -> None:
    torch.testing.assert_close(nulls.NULLS["mirror-1"](surface), surface.pixels.float())
    whole = nulls.NULLS["mirror-32"](surface)
    torch.testing.assert_close(whole, torch.full_like(whole, 8 * 16 / 32**2))
    pooled = nulls.NULLS["mirror-4"](surface)
    # Four cells of 4 x 4 lie in the middle of the region, far from what upsampling mixes in.
    torch.testing.assert_close(pooled[:, 11:13, 12:20], torch.full((3, 2, 8), 1.0))
    assert pooled[:, 24:].abs().max() == 0


def test_distance_is_the_depth_below_the_region_s_edge(surface: nulls.NullInputs) -> None:
    depth = nulls.distance(surface)[0]
    assert depth[7].max() == 0
    assert depth[8:16, 16].tolist() == [1, 2, 3, 4, 4, 3, 2, 1]
    everything = nulls.NullInputs(
        surface.images, torch.ones(3, 32, 32, dtype=torch.bool), surface.probability
    )
    assert nulls.distance(everything)[0, 0, 0] == 1  # the picture's border is an edge


def test_other_images_gives_each_usable_picture_another_one_s_map() -> None:
    maps = torch.arange(4.0)[:, None, None].expand(4, 2, 2)
    usable = torch.tensor([True, False, True, True])
    first, second = (nulls.other_images(maps, usable, shift)[:, 0, 0] for shift in (1, 2))
    assert first[usable].tolist() == [2, 3, 0]
    assert second[usable].tolist() == [3, 0, 2]
    assert first[1].isnan()
    third = nulls.other_images(maps, usable, 3)[:, 0, 0]
    assert third[usable].tolist() == first[usable].tolist()  # never its own
    alone = nulls.other_images(maps, torch.tensor([True, False, False, False]), 1)
    assert alone.isnan().all()


def test_surface_takes_the_probability_of_the_target_s_class() -> None:
    run = small_run()
    images = torch.rand(2, 3, 32, 32)
    probabilities = run.predict(images).probabilities
    for class_index in (0, 1):
        target = Target("all", class_index, torch.ones(2, 32, 32, dtype=torch.bool))
        found = nulls.null_inputs(run, images, target)
        torch.testing.assert_close(found.probability, probabilities[:, class_index])


def test_randomised_copy_has_other_weights_and_estimated_statistics() -> None:
    run = small_run()
    images = torch.rand(6, 3, 32, 32)
    run.segmenter.train()
    before = copy.deepcopy(run.segmenter.state_dict())
    state = torch.get_rng_state()
    other = nulls.randomised(run, images, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in run.segmenter.state_dict().items())
    assert run.segmenter.training
    assert all(parameter.requires_grad for parameter in run.segmenter.parameters())
    first, norm = list(other.segmenter.module.children())[:2]
    assert not torch.equal(next(first.parameters()), before["module.0.weight"])
    # The statistics are those of the pictures: recomputed here by hand from the randomised first layer.
    hidden = first((images - 0.5) / 0.25)
    torch.testing.assert_close(norm.running_mean, hidden.mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, hidden.var((0, 2, 3)))
    assert norm.momentum == 0.1
    again = nulls.randomised(run, images, seed=3)
    torch.testing.assert_close(again.predict(images).logits, other.predict(images).logits)
    assert not torch.equal(
        nulls.randomised(run, images, seed=4).predict(images).logits, again.predict(images).logits
    )


def test_randomised_takes_a_lone_picture_and_bare_parameters() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.full((3, 1, 1), 2.0))
            self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3))
            self.head = nn.Conv2d(3, 1, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x * self.scale + self.pool(x))

    module = Scaled()
    run = wrap(module, classes=("background", "cell"), mean=(0.5,) * 3, std=(0.25,) * 3, image_size=32)
    other = nulls.randomised(run, torch.rand(1, 3, 32, 32))
    assert not torch.equal(next(other.segmenter.parameters()), module.scale)
    assert other.predict(torch.rand(1, 3, 32, 32)).logits.isfinite().all()

"""Extremal masks on a network whose answer rests on a known place, and HiResCAM fused by hand."""

import pytest
import torch
from torch import nn

from seglens.errors import SettingError
from seglens.explain import explain
from seglens.explain.extremal import ExtremalMask, soft_mask
from seglens.explain.fused import FusedHiResCam
from seglens.explain.target import Target


@pytest.fixture
def target(pixels):
    return Target("region", 1, pixels)


class Elsewhere(nn.Module):
    """Every logit is 20 times the contrast of the first 8 x 8 pixels: the mean of their red less the blue."""

    def forward(self, images):
        corner = images[..., :8, :8]
        return 20 * (corner[:, :1] - corner[:, 2:]).mean((2, 3), keepdim=True) + 0 * images[:, :1]


def test_the_place_that_is_used_comes_first(make_run, target):
    """Wherever the target lies: the largest values are where the answer comes from."""
    images = torch.full((3, 3, 32, 40), 0.5)
    images[:, 0, :8, :8], images[:, 2, :8, :8] = 0.9, 0.1
    run = make_run(Elsewhere())
    found = explain(run, images, target, methods=ExtremalMask(steps=60, cells=8))["extremal-mask"]
    inside, outside = found.map[:, :7, :7], found.map[:, 12:, 12:]  # but for the edge, which is one of cells
    assert (inside.flatten(1).amin(1) > outside.flatten(1).amax(1)).all()
    gap = found.diagnostics[
        "gap"
    ]  # the second target is so small that masks of its size hold part of the place
    assert (gap[[0, 2]] > 0.5).all()
    assert gap[1] > 0
    assert ((found.map >= 0) & (found.map <= 1)).all()


def test_nothing_is_learned_where_nothing_matters(make_run, images, target):
    """A network that doesn't look at the picture is one whose gap has no meaning: 0 / 0."""

    class Constant(nn.Module):
        def forward(self, images):
            return 0 * images[:, :1] + 1

    found = explain(make_run(Constant()), images, target, methods=ExtremalMask(steps=3))["extremal-mask"]
    assert found.diagnostics["gap"].isnan().all()
    assert all(state == "degenerate" for state in found.status)


def test_the_threshold_lets_the_wanted_share_through():
    grid = torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(0))
    shares = torch.tensor([1 / 30, 0.2, 0.5, 0.9])
    shown = (soft_mask(grid, shares) > 0.5).flatten(1).sum(1)
    assert shown.tolist() == [1, 6, 15, 27]


def test_a_target_without_pixels_has_no_map(run, images, pixels):
    pixels[1] = False
    found = explain(run, images, Target("region", 1, pixels), methods=ExtremalMask(steps=2))["extremal-mask"]
    assert found.map[1].isnan().all()
    assert found.map[[0, 2]].isfinite().all()


def test_fused_maps_are_the_largest_of_their_layers(run, images, target):
    """By the formula, from the maps that the layers have alone."""
    layers = ("down", "deep")
    found = explain(
        run, images, target, methods=["hires-cam", FusedHiResCam(layers, gamma=3.0)], layers=layers
    )
    scaled = []
    for layer in layers:
        heat = found["hires-cam", layer].map.relu()
        scaled.append(torch.tanh(3.0 * heat / heat.amax((1, 2), keepdim=True)))
    torch.testing.assert_close(found["fused-hires-cam"].map, torch.maximum(*scaled))


def test_layers_that_are_not_there_are_asked_for(make_run, images, target):
    run = make_run(nn.Conv2d(3, 1, 1))
    with pytest.raises(SettingError, match=r"needs at least two layers.*this network has 0.*layers="):
        explain(run, images, target, methods="fused-hires-cam")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: FusedHiResCam(layers=("deep",)), "layers is deep, but fusing needs at least two"),
        (lambda: FusedHiResCam(gamma=0.0), r"gamma is 0\.0, but must be above 0"),
        (lambda: ExtremalMask(steps=0), "steps is 0"),
        (lambda: ExtremalMask(cells=1), "cells is 1"),
        (lambda: ExtremalMask(learning_rate=0.0), r"learning_rate is 0\.0, but must be above 0"),
    ],
)
def test_settings_that_can_t_be_are_refused(make, says):
    with pytest.raises(SettingError, match=says):
        make()

"""What holds for every CAM."""

import pytest
import torch
from tests.explain.cams.compared import largest
from torch import nn

import seglens.explain as explaining
from seglens.explain import explain
from seglens.explain.cams import (
    CAMS,
    upsample,
)
from seglens.explain.target import Target

LINEAR = ("grad-cam", "hires-cam", "layer-cam", "xgrad-cam", "seg-xres-cam")
"""Weights are of degree one in the gradient: a scaled score gives a scaled map."""


@pytest.mark.parametrize("method", CAMS)
def test_a_batch_equals_its_pictures_and_chunks_change_nothing(method, run, images, target):
    batch = explain(run, images, target, methods=[method], layers=["deep"])[method, "deep"].map
    chunked = explain(run, images, target, methods=[method], layers=["deep"], batch_size=2)[
        method, "deep"
    ].map
    assert largest(chunked, batch) < 1e-5
    for row in range(3):
        chosen = slice(row, row + 1)
        alone = explain(run, images[chosen], target.select(chosen), methods=[method], layers=["deep"])
        assert largest(alone[method, "deep"].map, batch[chosen]) < 1e-5


@pytest.mark.parametrize("method", CAMS)
def test_flipping_image_and_target_flips_the_map(method, make_run, target, images):
    class Symmetric(nn.Module):
        """Flips with its input: 1x1 convolutions and pooling."""

        def __init__(self):
            super().__init__()
            self.first = nn.Sequential(
                nn.Conv2d(3, 6, 1), nn.ReLU(), nn.AvgPool2d(4), nn.Conv2d(6, 6, 1), nn.ReLU()
            )
            self.head = nn.Sequential(nn.Conv2d(6, 1, 1), nn.Upsample(scale_factor=4, mode="bilinear"))

        def forward(self, images):
            return self.head(self.first(images))

    run = make_run(Symmetric())
    with torch.no_grad():
        run.segmenter.module.head[0].weight.abs_()  # some evidence for the class, or the map is flat
    plain = explain(run, images, target, methods=[method], layers=["first"])[method, "first"].map
    mirrored = Target("region", 1, target.pixels.flip(2))
    flipped = explain(run, images.flip(3), mirrored, methods=[method], layers=["first"])[method, "first"].map
    assert largest(flipped.flip(2), plain) < 1e-5


@pytest.mark.parametrize("method", LINEAR)
def test_scaling_the_score_leaves_the_normalised_map(method, run, images, target):
    before = explain(run, images, target, methods=[method], layers=["deep"])[method, "deep"].map
    with torch.no_grad():
        run.segmenter.module.head.weight.mul_(7)
    after = explain(run, images, target, methods=[method], layers=["deep"])[method, "deep"].map
    assert largest(after, 7 * before) < 1e-5


@pytest.mark.parametrize("method", ["eigen-cam", "activation"])
def test_maps_that_know_no_class_stay_when_the_score_is_scaled(method, run, images, target):
    before = explain(run, images, target, methods=[method], layers=["deep"])[method, "deep"].map
    with torch.no_grad():
        run.segmenter.module.head.weight.mul_(7)
    after = explain(run, images, target, methods=[method], layers=["deep"])[method, "deep"].map
    torch.testing.assert_close(after, before)


@pytest.mark.parametrize("method", CAMS)
def test_grid_is_signed_and_the_map_follows_from_it(method, run, images, target):
    found = explain(run, images, target, methods=[method], layers=["deep"])[method, "deep"]
    assert found.grid is not None
    assert found.grid.shape == (3, 8, 10)
    grid = found.grid.relu() if CAMS[method].relu else found.grid
    expected = nn.functional.interpolate(grid[:, None], (32, 40), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(found.map, expected)
    assert found.settings == {"unit": "sum", "relu": CAMS[method].relu, **dict(CAMS[method].options)}


@pytest.mark.parametrize("method", CAMS)
def test_rows_without_a_target_or_without_variation_hold_nan(method, make_run, images, pixels):
    class Flat(nn.Module):
        """A layer that is constant over the picture where the picture is."""

        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 1)
            self.head = nn.Conv2d(4, 1, 1)

        def forward(self, images):
            broken = torch.where(images == 0.25, torch.nan, images)
            return self.head(self.layer(broken))

    pixels = torch.ones_like(pixels)
    pixels[1] = False
    images = images.clone()
    images[2] = 0.5
    images[0, 0, 0, 0] = 0.25
    run = make_run(Flat())
    found = explain(run, images, Target("region", 1, pixels), methods=[method], layers=["layer"])[
        method, "layer"
    ]
    assert found.status == ("failed", "no_target", "degenerate")
    assert found.map.isnan().all()
    assert found.grid is not None
    assert found.grid.isnan().all()
    assert found.ok.tolist() == [False] * 3


@pytest.mark.parametrize("method", CAMS)
def test_the_map_lies_where_the_padded_picture_was(method, make_run, make_unet, images, target):
    """Padding by hand, then cutting off, is what the segmenter does: the grid covers the padded picture."""
    padded = nn.functional.pad(images[..., :30, :37], (0, 3, 0, 2), mode="replicate")
    frozen = target.pixels[:, :30, :37]
    all_of_it = nn.functional.pad(frozen, (0, 3, 0, 2))
    by_hand = explain(
        make_run(make_unet()), padded, Target("t", 1, all_of_it), methods=[method], layers=["deep"]
    )
    run = make_run(make_unet(), divisor=8)
    cropped = explain(run, images[..., :30, :37], Target("t", 1, frozen), methods=[method], layers=["deep"])
    torch.testing.assert_close(cropped[method, "deep"].map, by_hand[method, "deep"].map[:, :30, :37])


def test_relu_before_upsampling_is_another_map():
    grid = torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(0))
    ours = CAMS["grad-cam"].map_of(grid, (64, 64))
    assert (ours - upsample(grid, (64, 64)).relu()).abs().max() / ours.max() > 0.1


def test_every_cam_has_a_line_in_methods():
    assert set(CAMS) < set(explaining.METHODS)

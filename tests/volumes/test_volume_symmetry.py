"""A volume of one slice is its picture, and turned axes give turned maps: for every method."""

import pytest
import torch
from tests.volumes.networks import SIZE, run_of, scattered, small, volumes, with_weights

import seglens
from seglens import targets
from seglens.explain.methods import METHODS
from seglens.explain.statistics import statistics
from seglens.explain.target import Target

QUICK = {
    "rise": seglens.Rise(num_masks=16, cells=3),
    "occlusion": seglens.Occlusion(window=8, stride=4),
    "superpixel-occlusion": seglens.SuperpixelOcclusion(num_segments=12),
    "smoothgrad": seglens.SmoothGrad(num_samples=4),
    "integrated-gradients": seglens.IntegratedGradients(steps=6),
}
"""Settings that take fewer passes; all other methods are asked for by name."""

MORE = {
    "blur": seglens.IntegratedGradients(baseline="blur", steps=4),
    "random": seglens.IntegratedGradients(baseline="random", steps=4, draws=2),
    "mean": seglens.IntegratedGradients(baseline="mean", steps=4),
    "noisy-linear": seglens.Occlusion(window=8, stride=8, fill="noisy-linear"),
    "mean colour": seglens.Occlusion(window=8, stride=8, fill="mean"),
    "default window": seglens.Occlusion(stride=None, window=None),
    "windows": seglens.SegXResCam(window=3, pool="max"),
}


def method_of(name, images):
    if name == "expected-gradients":
        references = torch.rand(3, *images.shape[1:], generator=torch.Generator().manual_seed(9))
        return seglens.ExpectedGradients(references=references, num_samples=6)
    return {**QUICK, **MORE}.get(name, name)


def explained(network, images, target, name):
    found = seglens.explain(
        run_of(network), images, target, methods=[method_of(name, images)], layers=("down", "deep")
    )
    return list(found.values())


def close(found, expected, share=1e-4):
    torch.testing.assert_close(found, expected, rtol=0, atol=share * expected.abs().max().item())


@pytest.mark.parametrize("name", [*METHODS, *MORE])
def test_a_volume_of_one_slice_is_its_picture(name):
    flat = small((3, 3))
    deep = with_weights(flat, (1, 3, 3), lambda weight: weight.unsqueeze(2))
    images = volumes(2, (16, 20))
    target = scattered(images)
    expected = explained(flat, images, target, name)
    found = explained(deep, images[:, :, None], Target("scattered", 1, target.pixels[:, None]), name)
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert one.status == other.status
        assert "ok" in one.status
        close(one.map[:, 0], other.map)
        if one.grid is not None:
            close(one.grid[:, 0], other.grid)
        for key, value in other.diagnostics.items():
            torch.testing.assert_close(one.diagnostics[key], value, rtol=1e-2, atol=1e-4)
        numbers = zip(statistics(one).values(), statistics(other).values(), strict=True)
        for mine, theirs in numbers:
            torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4, equal_nan=True)


CHANCE = {
    "smoothgrad",
    "expected-gradients",
    "rise",
    "random",
    "noisy-linear",
    "superpixel-occlusion",
    "shapley",
}
"""What is drawn, or seeded on a grid, follows the order of the axes."""


@pytest.mark.parametrize("name", [name for name in (*METHODS, *MORE) if name not in CHANCE])
@pytest.mark.parametrize("order", [(2, 0, 1), (0, 2, 1)])
def test_turned_axes_give_turned_maps(name, order):
    size = (12, 8, 10)
    # In float64: Score-CAM weighs channels by a softmax of sums, which feels how float32 rounds them.
    network = small((3, 3, 3)).double()
    turned = with_weights(
        network, (3, 3, 3), lambda weight: weight.permute(0, 1, *(axis + 2 for axis in order)).contiguous()
    ).double()
    images = volumes(1, size)
    target = scattered(images)
    expected = explained(network, images, target, name)
    moved = images.permute(0, 1, *(axis + 2 for axis in order)).contiguous()
    pixels = target.pixels.permute(0, *(axis + 1 for axis in order)).contiguous()
    found = explained(turned, moved, Target("scattered", 1, pixels), name)
    for one, other in zip(found, expected, strict=True):
        assert one.map.shape[1:] == tuple(size[axis] for axis in order)
        close(one.map, other.map.permute(0, *(axis + 1 for axis in order)))


def test_predictions_and_targets_of_a_slice_are_those_of_its_picture():
    flat = small((3, 3))
    deep = with_weights(flat, (1, 3, 3), lambda weight: weight.unsqueeze(2))
    images = volumes(2, (16, 20))
    masks = (torch.rand(2, 16, 20, generator=torch.Generator().manual_seed(5)) > 0.6).long()
    on_flat, on_deep = run_of(flat), run_of(deep)
    solid = images[:, :, None]
    made = {
        "predicted": (targets.predicted(on_flat, images), targets.predicted(on_deep, solid)),
        "truth": (targets.truth(masks), targets.truth(masks[:, None], dims=3)),
        "false-positive": (
            targets.false_positive(on_flat, images, masks),
            targets.false_positive(on_deep, solid, masks[:, None]),
        ),
        "false-negative": (
            targets.false_negative(on_flat, images, masks),
            targets.false_negative(on_deep, solid, masks[:, None]),
        ),
        "component": (targets.component(masks == 1, 2), targets.component(masks[:, None] == 1, 2)),
        "boundary": (targets.boundary(masks == 1), targets.boundary(masks[:, None] == 1)),
        "box": (targets.box(images, 2, 3, 9, 8), targets.box(solid, 2, 3, 9, 8, z0=0, z1=1)),
        "point": (targets.point(images, 4, 5), targets.point(solid, 4, 5, z=0)),
    }
    for name, (one, other) in made.items():
        assert torch.equal(one.pixels, other.pixels[:, 0]), name


def test_the_settings_say_what_the_windows_were():
    images = volumes(1, SIZE)
    found = seglens.explain(
        run_of(small()), images, scattered(images), methods=seglens.Occlusion(window=12, stride=12)
    )
    assert found["occlusion"].settings["window"] == 12

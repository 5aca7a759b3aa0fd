"""Shapley values against every order of a few superpixels, and against what a sum must give."""

from itertools import permutations
from typing import Any

import pytest
import torch
from torch import nn

from seglens.errors import SettingError
from seglens.explain import explain
from seglens.explain.occlusion import SuperpixelOcclusion
from seglens.explain.shapley import Shapley, orders_of
from seglens.explain.target import Target
from seglens.superpixels import superpixels


@pytest.fixture
def target(pixels):
    return Target("region", 1, pixels)


class Together(nn.Module):
    """Every logit is the product of the mean red of the left half and that of the right half."""

    def forward(self, images):
        left, right = (half.flatten(1).mean(1) for half in images[:, 0].chunk(2, -1))
        return 40 * (left * right)[:, None, None, None] + 0 * images[:, :1]


def score(run, pictures, target, row):
    logits = run.predict(pictures).logits[:, 0]
    return torch.stack([logit[target.pixels[row]].mean() for logit in logits])


def by_every_order(run, image, segments, target, row):
    """The Shapley value of each superpixel: the mean over all orders, one picture at a time, filled black."""
    num = int(segments.max()) + 1
    orders = list(permutations(range(num)))
    values = torch.zeros(num)
    for order in orders:
        copy, before = image.clone(), score(run, image[None], target, row)[0]
        for segment in order:
            copy[:, segments == segment] = 0
            after = score(run, copy[None], target, row)[0]
            values[segment] += (before - after) / len(orders)
            before = after
    return values


@pytest.mark.parametrize("network", ["together", "unet"])
def test_values_are_those_of_all_orders(network, make_run, run, images, target):
    asked = make_run(Together()) if network == "together" else run
    settings = Shapley(num_segments=4, pairs=400, fill="zero")
    found = explain(asked, images[:1], target.select(slice(0, 1)), methods=settings)["shapley"]
    segments = superpixels(images[:1], num_segments=4)[0]
    assert 3 <= segments.max() + 1 <= 5
    right = by_every_order(asked, images[0], segments, target, 0)
    sizes = torch.bincount(segments.flatten())
    values = torch.stack([found.map[0][segments == each][0] for each in range(len(sizes))]) * sizes
    error = found.diagnostics["standard_error"][0] * values.abs().mean()
    assert (values - right).abs().max() <= 5 * error + 1e-5
    assert (values - right).abs().max() <= 0.1 * right.abs().max()


@pytest.mark.parametrize("fill", ["blur", "mean", "zero", "noisy-linear"])
def test_a_map_sums_to_what_hiding_everything_takes(run, images, target, fill):
    """For any number of orders, since the losses of each order do."""
    found = explain(run, images, target, methods=Shapley(num_segments=9, pairs=2, fill=fill))["shapley"]
    clean = torch.stack([score(run, images[row : row + 1], target, row)[0] for row in range(3)])
    if fill == "zero":
        hidden = torch.stack([score(run, torch.zeros(1, 3, 32, 40), target, row)[0] for row in range(3)])
        torch.testing.assert_close(found.map.sum((1, 2)), clean - hidden, rtol=1e-4, atol=1e-4)
    assert (found.diagnostics["completeness_error"] < 1e-3).all()


def test_of_a_sum_each_part_is_its_own(make_run, images, target):
    """Where the logit is a sum over pixels, order means nothing: it is what occlusion finds."""
    run = make_run(nn.Conv2d(3, 1, 1))
    options: dict[str, Any] = {"num_segments": 8, "fill": "mean"}
    found = explain(
        run, images, target, methods=[Shapley(pairs=2, **options), SuperpixelOcclusion(**options)]
    )
    segments = superpixels(images, num_segments=8)
    for row, cut in enumerate(segments):
        sizes = torch.bincount(cut.flatten())[cut]
        alone = found["superpixel-occlusion"].map[row]
        torch.testing.assert_close(found["shapley"].map[row] * sizes, alone, rtol=1e-4, atol=1e-5)
    assert (found["shapley"].diagnostics["standard_error"] < 1e-3).all()


def test_what_two_parts_do_together_is_shared(make_run, images, target):
    """Hiding either half takes the whole product: occlusion counts that twice, Shapley values once."""
    run = make_run(Together())
    found = explain(run, images, target, methods=Shapley(num_segments=8, pairs=50, fill="zero"))["shapley"]
    product = torch.stack([score(run, images[row : row + 1], target, row)[0] for row in range(3)])
    torch.testing.assert_close(found.map.sum((1, 2)), product, rtol=1e-4, atol=1e-4)
    halves = torch.stack([half.sum((1, 2)) for half in found.map.chunk(2, -1)])
    assert (halves > 0.35 * product).all()


def test_orders_come_in_pairs(images):
    """Each is a permutation, the second of a pair the first one backwards, and pictures have their own."""
    first, second = (orders_of(image, 7, 3, seed=0) for image in images[:2])
    assert first.shape == (6, 7)
    assert (first.sort(1).values == torch.arange(7)).all()
    assert (first[::2] + first[1::2] == 6).all()
    assert not torch.equal(first, second)


def test_alone_or_together_a_picture_has_the_same_map(run, images, target):
    settings = Shapley(num_segments=6, pairs=2)
    whole = explain(run, images, target, methods=settings, batch_size=5)["shapley"].map
    for row in range(3):
        alone = explain(run, images[row : row + 1], target.select(slice(row, row + 1)), methods=settings)
        torch.testing.assert_close(alone["shapley"].map[0], whole[row], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"pairs": 1}, "pairs is 1, but at least 2 are needed"),
        ({"num_segments": 1}, "num_segments is 1"),
        ({"compactness": 0.0}, r"compactness is 0\.0, but must be above 0"),
    ],
)
def test_settings_that_can_t_be_are_refused(options, says):
    with pytest.raises(SettingError, match=says):
        Shapley(**options)

"""Occlusion, superpixels and RISE against models whose answer is known, loops, and captum."""

import inspect
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from seglens.errors import SettingError, UnknownNameError
from seglens.explain import Method, explain
from seglens.explain.occlusion import Occlusion, SuperpixelOcclusion, occlusion, superpixel_occlusion
from seglens.explain.rise import Rise, rise
from seglens.explain.rise import _draws as draws
from seglens.explain.target import Target
from seglens.impute import IMPUTERS
from seglens.seeds import content_normal
from seglens.superpixels import superpixels

FILLS = ("blur", "mean", "zero", "noisy-linear")
WORK: dict[type, Any] = {Occlusion: occlusion, SuperpixelOcclusion: superpixel_occlusion, Rise: rise}
QUICK = [
    Occlusion(window=9, stride=6),
    Occlusion(window=16, stride=16, fill="noisy-linear"),
    SuperpixelOcclusion(num_segments=12),
    Rise(num_masks=30, cells=4),
]


@pytest.fixture
def target(pixels):
    return Target("region", 1, pixels)


@pytest.fixture
def linear_run(make_run):
    """Every pixel's logit is a weighted sum of its own channels."""
    return make_run(nn.Conv2d(3, 1, 1))


def attribute(run, images, target, settings, **options):
    return WORK[type(settings)](run.segmenter, images, (target,), settings, **options)[0]


def close(one, other):
    """Equal up to 1e-5 of the largest value, and not NaN."""
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * other.nan_to_num().abs().max().item())


def mean_logit(run, pictures, target, row):
    """The score of changed pictures of one row, by the public way to predict."""
    logits = run.predict(pictures).logits[:, 0]
    return torch.stack([logit[target.pixels[row]].mean() for logit in logits])


# Hand algebra.


def test_a_pixel_sum_loses_what_its_windows_hide(linear_run, images, target) -> None:
    """Black windows: the drop is the sum of ``w x`` over hidden pixels of the target, over their number."""
    module = linear_run.segmenter.module
    value = (
        (module.weight.detach()[0] * images).sum(1) * target.pixels / target.pixels.sum((1, 2))[:, None, None]
    )
    total, count = torch.zeros_like(value), torch.zeros(32, 40)
    for top in range(0, 29, 7):
        for left in range(0, 36, 7):
            window = (slice(None), slice(top, top + 10), slice(left, left + 10))
            total[window] += value[window].sum((1, 2))[:, None, None]
            count[window[1:]] += 1
    found = attribute(linear_run, images, target, Occlusion(window=10, stride=7, fill="zero"))
    close(found.map, total / count)
    assert found.settings == {
        "window": 10,
        "stride": 7,
        "fill": "zero",
        "precision": "32",
        "label": "",
        "unit": "mean",
        "seed": 0,
    }


@pytest.mark.parametrize("settings", QUICK[:3])
def test_what_a_window_costs_is_not_lost_in_a_large_score(settings, linear_run, images, target) -> None:
    """A bias of the logits costs nothing wherever it is hidden, however large it is."""
    linear_run.segmenter.double()
    expected = attribute(linear_run, images.double(), target, settings)
    with torch.no_grad():
        linear_run.segmenter.module.bias += 1e6
    close(attribute(linear_run, images.double(), target, settings).map, expected.map)


def test_windows_of_one_pixel_give_the_pixels_themselves(linear_run, images, target) -> None:
    """On a linear model that is ``w (x - mean)``, what Integrated Gradients gives from the same baseline."""
    images, target = images[:, :, :12, :14], Target("right", 1, images[:, 0, :12, :14] > 0.5)
    found = attribute(linear_run, images, target, Occlusion(window=1, stride=1, fill="mean"), batch_size=64)
    weight = linear_run.segmenter.module.weight.detach()[0] * target.pixels[:, None]
    difference = images - images.mean((2, 3), keepdim=True)
    expected = (weight * difference).sum(1) / target.pixels.sum((1, 2))[:, None, None]
    torch.testing.assert_close(found.map, expected, rtol=0, atol=1e-6)


def test_windows_follow_the_size_of_the_picture(linear_run, images, target) -> None:
    found = attribute(linear_run, images, target, Occlusion())
    assert (found.settings["window"], found.settings["stride"]) == (4, 2)


# Another library, and loops.


@pytest.mark.parametrize(("window", "stride"), [(8, 8), (9, 4), (16, 5), (40, 40)])
def test_captum_agrees(window, stride, run, images, target) -> None:
    from captum.attr import Occlusion as Captum

    def score(rows):
        return target.score(run.segmenter(rows), torch.arange(3), "mean")

    with torch.no_grad():
        sides = (3, min(window, 32), window)
        steps = (3, min(stride, 32), stride)
        theirs = Captum(score).attribute(images, sliding_window_shapes=sides, strides=steps, baselines=0)
    found = attribute(run, images, target, Occlusion(window=window, stride=stride, fill="zero"))
    if window < 40:
        torch.testing.assert_close(found.map, theirs[:, 0].float(), rtol=0, atol=1e-6)
    else:  # one window over all of the picture tells nothing apart
        assert found.status == ("degenerate",) * 3


@pytest.mark.parametrize("fill", FILLS)
def test_superpixels_are_hidden_one_by_one(fill, run, images, target) -> None:
    found = attribute(run, images, target, SuperpixelOcclusion(12, fill=fill), seed=3, batch_size=5)
    segments = superpixels(images, num_segments=12)
    noise = content_normal(images, (3, 32, 40), 3, "imputation")
    for row in range(3):
        picture, part = images[row : row + 1], slice(row, row + 1)
        full = mean_logit(run, picture, target, row)
        for number in segments[row].unique().tolist():
            hidden = segments[part] == number
            changed = IMPUTERS[fill](picture, hidden, noise[part])
            lost = (full - mean_logit(run, changed, target, row)).item()
            torch.testing.assert_close(
                found.map[part][hidden], torch.full((int(hidden.sum()),), lost), rtol=0, atol=1e-5
            )
        assert found.diagnostics["segments"][row] == len(segments[row].unique())


@pytest.mark.parametrize("fill", FILLS)
def test_windows_are_filled_as_the_imputer_does(fill, run, images, target) -> None:
    found = attribute(run, images, target, Occlusion(window=16, stride=16, fill=fill), seed=3)
    noise = content_normal(images, (3, 32, 40), 3, "imputation")
    hidden = torch.zeros(3, 32, 40, dtype=torch.bool)
    hidden[:, 16:, 32:] = True
    changed = IMPUTERS[fill](images, hidden, noise)
    for row in range(3):
        scores = mean_logit(run, torch.stack([images[row], changed[row]]), target, row)
        assert found.map[row, 20, 36].item() == pytest.approx((scores[0] - scores[1]).item(), abs=1e-5)


def test_rise_is_the_sum_over_its_masks(run, images, target) -> None:
    """Mask by mask: the grid upsampled to one cell more than the picture, cut out where it was shifted."""
    run.segmenter.mean.fill_(0.3)
    run.segmenter.std.fill_(0.5)
    settings = Rise(num_masks=20, cells=3, probability=0.4)
    found = attribute(run, images, target, settings, seed=5, batch_size=7)
    grids, shifts = draws(images, settings, 5)
    for row in range(3):
        shifted = []
        for grid, (y, x) in zip(grids[row], shifts[row].tolist(), strict=True):
            large = F.interpolate(grid[None, None], (4 * 11, 4 * 14), mode="bilinear")[0, 0]
            shifted.append(large[y : y + 32, x : x + 40])
        masks = torch.stack(shifted)
        scores = mean_logit(run, 0.3 + masks[:, None] * (images[row] - 0.3), target, row)
        total = sum((score - scores.mean()) * mask for score, mask in zip(scores, masks, strict=True))
        torch.testing.assert_close(found.map[row], total / masks.sum(0), rtol=0, atol=1e-7)
        halves = []
        for half in range(2):
            part = (scores - scores.mean())[half::2]
            halves.append(((part[:, None, None] * masks[half::2]).sum(0) / masks[half::2].sum(0)).flatten())
        expected = torch.corrcoef(torch.stack(halves))[0, 1].item()
        assert found.diagnostics["half_split_correlation"][row].item() == pytest.approx(expected, abs=1e-4)


def test_rise_finds_the_only_pixels_that_count(make_run, images) -> None:
    class Corner(nn.Module):
        """Only a corner of the picture counts, for every pixel."""

        def forward(self, images):
            return images[:, :1, :8, :8].mean((2, 3), keepdim=True).expand(-1, -1, *images.shape[-2:])

    target = Target("all", 1, torch.ones(3, 32, 40, dtype=torch.bool))
    found = attribute(make_run(Corner()), images + 1, target, Rise(num_masks=300, cells=4))
    inside = torch.zeros(32, 40, dtype=torch.bool)
    inside[:8, :8] = True
    assert (found.map[:, inside].mean(1) > 4 * found.map[:, ~inside].abs().mean(1)).all()
    assert (found.diagnostics["half_split_correlation"] > 0.7).all()


def test_rise_masks_are_on_as_often_as_asked(images) -> None:
    grids, shifts = draws(images, Rise(num_masks=2000, cells=5, probability=0.3), 0)
    assert grids.mean((1, 2, 3)).tolist() == pytest.approx([0.3] * 3, abs=0.02)
    assert shifts.amin((0, 1)).tolist() == [0, 0]
    assert shifts.amax((0, 1)).tolist() == [6, 7]  # cells of 7 x 8 pixels


# What may not change the result.


@pytest.mark.parametrize("settings", QUICK)
def test_batch_chunk_order_and_company_change_nothing(settings, run, images, target) -> None:
    other = Target("rest", 0, ~target.pixels)
    work = WORK[type(settings)]
    found = work(run.segmenter, images, (target, other), settings, seed=3, batch_size=100)
    assert [item.target.label for item in found] == ["region", "rest"]
    atol = 2e-7  # of logits around 0.1, whose differences these are
    turned = Target("rest", 0, other.pixels.flip(0))
    backwards = attribute(run, images.flip(0), turned, settings, seed=3, batch_size=7)
    torch.testing.assert_close(backwards.map.flip(0), found[1].map, rtol=0, atol=atol)
    for row in range(3):
        part = slice(row, row + 1)
        alone = attribute(run, images[part], target.select(part), settings, seed=3, batch_size=1)
        torch.testing.assert_close(alone.map, found[0].map[part], rtol=0, atol=atol)


@pytest.mark.parametrize("settings", QUICK)
def test_empty_targets_and_the_model_as_found(settings, run, images, target) -> None:
    pixels = target.pixels.clone()
    pixels[1] = False
    module = run.segmenter.module.train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = torch.get_rng_state()
    found = attribute(run, images, Target("region", 1, pixels), settings)
    assert found.status == ("ok", "no_target", "ok")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(part.training for part in module.modules())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_half_precision_says_how_well_it_ranks_parts(run, images, target) -> None:
    for settings in (Rise(num_masks=30, precision="bf16"), Occlusion(8, 8, "zero", "bf16")):
        found = attribute(run, images, target, settings)
        assert (found.diagnostics["rank_agreement"] > 0.7).all()
        assert found.settings["precision"] == "bf16"


# Errors and names.


@pytest.mark.parametrize(
    ("kind", "settings", "error", "message"),
    [
        (Occlusion, {"window": 0}, SettingError, "window is 0, but must be at least 1 pixel"),
        (Occlusion, {"window": 4, "stride": 5}, SettingError, "stride is 5 and window 4: pixels between"),
        (Occlusion, {"fill": "blurr"}, UnknownNameError, "Unknown fill 'blurr'. Did you mean 'blur'"),
        (SuperpixelOcclusion, {"num_segments": 1}, SettingError, "num_segments is 1, but must be at least 2"),
        (SuperpixelOcclusion, {"compactness": 0.0}, SettingError, "compactness is 0.0, but must be above 0"),
        (Rise, {"num_masks": 1}, SettingError, "num_masks is 1, but at least 2 are needed"),
        (Rise, {"cells": 0}, SettingError, "cells is 0, but must be at least 1"),
        (Rise, {"probability": 1.0}, SettingError, "probability is 1.0, but must be between 0 and 1"),
    ],
)
def test_settings_that_make_no_sense(kind, settings, error, message) -> None:
    wrong = kind()
    for name, value in settings.items():  # past the type check of the test run, which users don't have
        object.__setattr__(wrong, name, value)
    with pytest.raises(error, match=message):
        inspect.unwrap(kind.__post_init__)(wrong)


def test_they_are_found_by_name_and_by_settings(run, images, target) -> None:
    methods: list[Method] = ["occlusion", "superpixel-occlusion", Rise(num_masks=10), Rise(num_masks=20)]
    found = explain(run, images, target, methods=methods)
    assert set(found) == {"occlusion", "superpixel-occlusion", "rise(num_masks=10)", "rise(num_masks=20)"}

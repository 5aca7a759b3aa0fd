"""Pictures larger than the training's: nobody can see where the windows were."""

import re
from copy import deepcopy
from typing import Any

import pytest
import torch
from tests.explain.large_pictures import (
    ON_INPUT,
    ON_LAYERS,
    Near,
    Points,
    assert_same,
    picture,
    region_of,
    stitched,
    windows_of,
)
from torch import nn

from seglens.errors import SettingError, UnknownNameError
from seglens.explain import explain
from seglens.explain.gradients import GRADIENTS
from seglens.explain.integrated import IntegratedGradients
from seglens.explain.memory import SCRATCH, OverBudgetError
from seglens.explain.methods import METHODS
from seglens.explain.occlusion import Occlusion
from seglens.explain.target import Target
from seglens.explain.tiled.stitching import OVER_WINDOWS
from seglens.predict.tiles import cover

# One piece and windows.


@pytest.mark.parametrize(
    ("size", "window", "overlap"), [((40, 53), 16, 0.5), ((16, 37), 16, 0.3), ((9, 50), 16, 0.5)]
)
def test_a_network_of_single_pixels_sees_no_windows(size, window, overlap, make_run):
    run, image = make_run(Points().eval()), picture(*size)
    target = region_of(size, slice(2, 30), slice(10, 35))
    asked: dict[str, Any] = {"methods": (*ON_LAYERS, *ON_INPUT), "layers": ("first", "second")}
    found = stitched(run, image, windows_of(size, window, overlap), target, batch_size=3, **asked)
    expected = explain(run, image[None], target, **asked)
    assert set(found) == set(expected)
    for key, made in found.items():
        if size[0] < window and made.layer is not None:
            continue  # the window's empty part is in the grid, as where a picture is letterboxed
        assert made.status == expected[key].status[0]
        if made.status == "ok":
            assert_same(made.explanation().map, expected[key].map)


@pytest.mark.parametrize(("size", "window", "divisor"), [((30, 30), 30, 4), ((32, 32), 32, 1)])
def test_one_window_is_a_plain_explanation(size, window, divisor, run, make_run):
    run, image = make_run(run.segmenter.module, divisor=divisor), picture(*size)
    target = region_of(size, slice(3, 20), slice(5, 28))
    asked: dict[str, Any] = {"methods": (*ON_LAYERS, *ON_INPUT), "layers": ("down", "deep", "up")}
    found = stitched(run, image, windows_of(size, window), target, **asked)
    expected = explain(run, image[None], target, **asked)
    for key, made in found.items():
        held = made.explanation()
        assert held.status == expected[key].status
        if made.status == "ok":
            assert_same(held.map, expected[key].map)
        if made.layer is not None and made.status == "ok":
            assert_same(held.grid, expected[key].grid)
        assert held.diagnostics["windows"].item() == 1


FAR = sorted({*range(6, 10), *range(38, 42), *range(70, 74)})
"""Rows and columns that are at least 6 pixels from where windows of 32 begin or end in 80 pixels."""


@pytest.mark.parametrize("overlap", [0.5, 0.25])
def test_away_from_the_edges_of_windows_a_map_is_that_of_the_whole_picture(overlap, make_run):
    """Both at full and at half resolution; and so overlap changes nothing there."""
    run, image = make_run(Near().eval(), divisor=2), picture(80, 80)
    far = torch.zeros(80, 80, dtype=torch.bool)
    far[torch.tensor(FAR)[:, None], torch.tensor(FAR)] = True
    target = Target("far", 1, far[None])
    asked: dict[str, Any] = {
        "methods": ("grad-cam", "hires-cam", "layer-cam", *ON_INPUT),
        "layers": ("fine", "deep"),
    }
    windows = windows_of((80, 80), 32, overlap)
    found = stitched(run, image, windows, target, **asked)
    expected = explain(run, image[None], target, **asked)
    for key, made in found.items():
        held = made.explanation()
        # What the target's gradient reaches is away from the edges too; the activations beyond are not.
        where = far[None] if made.method == "grad-cam" else ...
        assert_same(held.map, expected[key].map, where)
    # And near the edges the seams of Grad-CAM are small.
    for layer in ("fine", "deep"):
        seam = found["grad-cam", layer].explanation().map - expected["grad-cam", layer].map
        assert seam.abs().max() < 0.2 * expected["grad-cam", layer].map.max()


def test_nothing_varies_where_nothing_varies(make_run):
    """One colour, all pixels asked for, single pixels looked at: every map is one value throughout."""
    run, size = make_run(Points().eval()), (37, 41)
    image, target = torch.full((3, *size), 0.4), region_of(size, slice(None), slice(None))
    found = stitched(
        run, image, windows_of(size), target, methods=(*ON_LAYERS, *GRADIENTS), layers=("first",)
    )
    for made in found.values():
        assert made.status == "degenerate"
        values = made.grid
        assert (values.max() - values.min()) < 1e-5 * values.abs().max()


def test_a_budget_sizes_the_chunks(run, make_run, monkeypatch):
    run, size = make_run(run.segmenter.module, divisor=4), (40, 40)
    image, target, seen = picture(*size), region_of(size, slice(5, 28), slice(17, 23)), []
    asked: dict[str, Any] = {"methods": ("hires-cam",), "layers": ("down",)}
    run.segmenter.register_forward_pre_hook(lambda _, images: seen.append(len(images[0])))
    whole = stitched(run, image, windows_of(size), target, batch_size=8, **asked)["hires-cam", "down"]
    assert max(seen) == 8
    with pytest.raises(SettingError, match="more than the budget") as caught:
        stitched(run, image, windows_of(size), target, memory=1, **asked)
    assert isinstance(caught.value.__cause__, OverBudgetError)
    seen.clear()
    budget = round(3 * caught.value.__cause__.bytes * SCRATCH)
    made = stitched(run, image, windows_of(size), target, batch_size=8, memory=budget, **asked)
    assert seen[0] == 8
    assert seen == [8, 4, 2, 2, 2, 2]
    assert_same(made["hires-cam", "down"].grid, whole.grid)


@pytest.mark.parametrize("share", [2.0, 4.0])
@pytest.mark.parametrize("methods", [("grad-cam", "grad-cam++", "layer-cam"), ("saliency",), ("xgrad-cam",)])
def test_nothing_counts_twice_where_a_budget_ends_a_chunk(run, make_run, methods, share):
    run, size = make_run(run.segmenter.module, divisor=4), (40, 40)
    image, target = picture(*size), region_of(size, slice(5, 28), slice(17, 23))
    asked: dict[str, Any] = {"methods": methods, "layers": ("down",)}
    whole = stitched(run, image, windows_of(size), target, batch_size=8, **asked)
    with pytest.raises(SettingError) as caught:
        stitched(run, image, windows_of(size), target, memory=1, **asked)
    assert isinstance(caught.value.__cause__, OverBudgetError)
    budget = round(share * caught.value.__cause__.bytes * SCRATCH)
    found = stitched(run, image, windows_of(size), target, batch_size=8, memory=budget, **asked)
    for key, made in found.items():
        assert_same(made.grid, whole[key].grid)


@pytest.mark.parametrize("batch_size", [1, 100])
def test_chunks_change_nothing(batch_size, run, make_run):
    # In float64: a completeness error is a small difference of sums, and float32 rounds it by 1e-4.
    run, image, windows = (
        make_run(deepcopy(run.segmenter.module).double(), divisor=4),
        picture(30, 37),
        windows_of((30, 37)),
    )
    target = region_of((30, 37), slice(5, 28), slice(17, 23))
    asked: dict[str, Any] = {"methods": (*ON_LAYERS, *ON_INPUT), "layers": ("down", "deep")}
    found = stitched(run, image, windows, target, batch_size=batch_size, **asked)
    expected = stitched(run, image, windows, target, batch_size=3, **asked)
    for key, made in found.items():
        assert_same(made.grid, expected[key].grid)
        assert made.diagnostics == pytest.approx(expected[key].diagnostics, rel=1e-6)


def test_the_order_of_windows_changes_nothing(run, make_run):
    """Turned upside down, the windows of a picture come in another order; single pixels know no up."""
    run, size = make_run(Points().eval()), (40, 40)
    image, target = picture(*size), region_of(size, slice(1, 33), slice(17, 30))
    turned = Target("turned", 1, target.pixels.flip(1, 2))
    for key, made in stitched(
        run, image, windows_of(size), target, methods=(*ON_LAYERS, *ON_INPUT), layers=("first",)
    ).items():
        name, *layers = (key,) if isinstance(key, str) else key
        method = IntegratedGradients(steps=4) if name == "integrated-gradients" else name
        other = stitched(
            run, image.flip(1, 2), windows_of(size), turned, methods=(method,), layers=tuple(layers)
        )[key]
        assert_same(other.grid.flip(0, 1), made.grid)


# Completeness.


class Squares(nn.Module):
    """Logits quadratic in the input: Integrated Gradients are exact with few steps."""

    def __init__(self):
        super().__init__()
        self.near = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Conv2d(4, 1, 1)

    def forward(self, images):
        return self.head(self.near(images.square()))


def score_of(run, image, windows, target):
    """S as it is defined, in float64: one window and one pixel set after the other."""
    module, total = run.segmenter.module.double(), 0.0
    down, across = (cover(length, windows.size, windows.overlap) for length in windows.scaled)
    for top, shares in zip(down.starts, down.weights.double(), strict=True):
        for left, beside in zip(across.starts, across.weights.double(), strict=True):
            rows, columns = slice(top, top + windows.size), slice(left, left + windows.size)
            with torch.no_grad():
                logits = module(image[None, :, rows, columns].double())[0, 0]
            weights = shares[:, None] * beside
            total += float((logits * weights)[target.pixels[0, rows, columns]].sum())
    run.segmenter.module.float()
    return total


def test_integrated_gradients_are_complete_over_windows(make_run):
    run, image, windows = make_run(Squares().eval()), picture(45, 60), windows_of((45, 60))
    target = region_of((45, 60), slice(5, 40), slice(7, 31))
    made = stitched(run, image, windows, target, methods=(IntegratedGradients(steps=4),))[
        "integrated-gradients"
    ]
    gained = score_of(run, image, windows, target) - score_of(run, torch.zeros_like(image), windows, target)
    assert made.grid.double().sum().item() == pytest.approx(gained / target.pixels.sum().item(), rel=1e-5)
    assert made.settings["unit"] == "mean"
    assert made.settings["windows"] == {"size": 16, "overlap": 0.5, "number": 5 * 7}


def test_occlusion_adds_up_over_windows(make_run):
    """Squares that lie alike in every window, and single pixels: what hiding one costs is the whole's."""
    run, image, windows = make_run(Points().eval()), picture(32, 40), windows_of((32, 40))
    target, method = (
        region_of((32, 40), slice(3, 20), slice(9, 31)),
        Occlusion(window=4, stride=4, fill="zero"),
    )
    found = stitched(run, image, windows, target, methods=(method,))["occlusion"]
    expected = explain(run, image[None], target, methods=(method,))["occlusion"]
    assert_same(found.explanation().map, expected.map)


def test_hires_cam_sums_to_the_score_less_the_bias(make_run):
    run, image, windows = make_run(Squares().eval()), picture(45, 60), windows_of((45, 60))
    target = region_of((45, 60), slice(5, 40), slice(7, 31))
    made = stitched(run, image, windows, target, methods=("hires-cam",), layers=("near",))[
        "hires-cam", "near"
    ]
    score, bias = score_of(run, image, windows, target), run.segmenter.module.head.bias.item()
    assert made.diagnostics["score"] == pytest.approx(score, rel=1e-5)
    assert made.grid.double().sum().item() == pytest.approx(
        score - bias * target.pixels.sum().item(), rel=1e-5
    )


# What can't be.


def test_no_target_is_no_map_and_no_pass(make_run):
    class Never(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 2, 1)

        def forward(self, images):
            raise AssertionError

    target = region_of((40, 40), slice(0, 0), slice(0, 0))
    found = stitched(
        make_run(Never()),
        picture(40, 40),
        windows_of((40, 40)),
        target,
        methods=(*ON_LAYERS, *ON_INPUT),
        layers=("first",),
    )
    for made in found.values():
        assert made.status == "no_target"
        assert made.at((30, 20)).isnan().all()
        assert made.explanation().status == ("no_target",)


def test_broken_logits_fail(make_run):
    class Broken(Points):
        def forward(self, images):
            return super().forward(images) * torch.nan

    target = region_of((40, 40), slice(0, 9), slice(0, 9))
    run = make_run(Broken().eval())
    methods = ("hires-cam", "layer-cam", *ON_INPUT)
    for made in stitched(
        run, picture(40, 40), windows_of((40, 40)), target, methods=methods, layers=("first",)
    ).values():
        assert made.status == "failed"


def test_what_is_not_allowed(make_run):
    run, image, windows = make_run(Points().eval()), picture(40, 40), windows_of((40, 40))
    target = region_of((40, 40), slice(0, 9), slice(0, 9))
    with pytest.raises(SettingError, match=r"'seg-xres-cam' has no meaning over the windows.*tiles='never'"):
        stitched(run, image, windows, target, methods=("seg-xres-cam",))
    with pytest.raises(SettingError, match=r"shape \(1, 9, 9\).*\(1, 40, 40\)"):
        stitched(run, image, windows, region_of((9, 9), slice(0, 3), slice(0, 3)))
    with pytest.raises(UnknownNameError, match="layer 'frist'"):
        stitched(run, image, windows, target, layers=("frist",))


@pytest.mark.parametrize("method", [name for name in METHODS if name not in OVER_WINDOWS])
def test_a_method_without_a_meaning_over_windows_is_refused(make_run, method):
    """Whether it is named or new; those that have one are listed once more."""
    run, image, windows = make_run(Points().eval()), picture(40, 40), windows_of((40, 40))
    target = region_of((40, 40), slice(0, 9), slice(0, 9))
    with pytest.raises(SettingError, match=rf"{re.escape(repr(method))} has no meaning over the windows"):
        stitched(run, image, windows, target, methods=(method,))
    assert (
        set(METHODS)
        >= set(OVER_WINDOWS)
        == {
            "grad-cam",
            "grad-cam++",
            "hires-cam",
            "layer-cam",
            "xgrad-cam",
            "eigen-cam",
            "activation",
            "saliency",
            "input-x-gradient",
            "integrated-gradients",
            "expected-gradients",
            "occlusion",
            "superpixel-occlusion",
        }
    )

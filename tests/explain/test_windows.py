"""Pictures larger than the training's: nobody can see where the windows were."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from seglens.errors import SettingError, UnknownNameError
from seglens.explain import explain
from seglens.explain.cams import CAMS, upsample
from seglens.explain.gradients import GRADIENTS
from seglens.explain.integrated import IntegratedGradients
from seglens.explain.large_map import LargeMap
from seglens.explain.large_targets import large_target
from seglens.explain.lattice import OpenRows, lattice
from seglens.explain.memory import measure
from seglens.explain.methods import METHODS, sorted_out
from seglens.explain.occlusion import Occlusion
from seglens.explain.passes import passes
from seglens.explain.stitching import OVER_WINDOWS
from seglens.explain.target import Target
from seglens.explain.windows import explain_large
from seglens.tiles import Windows, cover

ON_LAYERS = tuple(name for name in CAMS if name in OVER_WINDOWS)
ON_INPUT = (*GRADIENTS, IntegratedGradients(steps=4))


class Points(nn.Module):
    """A network that looks at single pixels, with a bend before and after the layer that is tapped."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 5, 1)
        self.head = nn.Conv2d(5, 1, 1)

    def forward(self, images):
        return self.head(torch.tanh(self.second(self.first(images).relu())))


class Near(nn.Module):
    """A network that looks a few pixels around, at two resolutions."""

    def __init__(self):
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.deep = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(10, 1, 1)

    def forward(self, images):
        fine = self.fine(images)
        return self.head(torch.cat([fine, F.interpolate(self.deep(fine), scale_factor=2)], 1))


def picture(rows, columns, seed=0):
    return torch.rand(3, rows, columns, generator=torch.Generator().manual_seed(seed))


def cut_of(image):
    return lambda rows, columns: image[:, rows, columns]


def windows_of(size, window=16, overlap=0.5, scale=1.0):
    return Windows(size, (max(1, round(size[0] * scale)), max(1, round(size[1] * scale))), window, overlap)


def region_of(size, rows, columns):
    pixels = torch.zeros(1, *size, dtype=torch.bool)
    pixels[:, rows, columns] = True
    return Target("region", 1, pixels)


def stitched(run, image, windows, target, **settings):
    return explain_large(run, cut_of(image), windows, target, **settings)


def assert_same(found, expected, where=..., tolerance=1e-5):
    """Equal to within a share of the map's maximum."""
    size = expected[where].abs().max()
    assert size > 0
    torch.testing.assert_close(found[where], expected[where], rtol=0, atol=float(tolerance * size))


# One piece and windows.


@pytest.mark.parametrize(
    ("size", "window", "overlap"), [((40, 53), 16, 0.5), ((16, 37), 16, 0.3), ((9, 50), 16, 0.5)]
)
def test_a_network_of_single_pixels_sees_no_windows(size, window, overlap, make_run):
    run, image = make_run(Points().eval()), picture(*size)
    target = region_of(size, slice(2, 30), slice(10, 35))
    asked: dict[str, Any] = {"methods": (*ON_LAYERS, *ON_INPUT), "layers": ("first", "second")}
    found = stitched(run, image, windows_of(size, window, overlap), target, chunk=3, **asked)
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
    whole = stitched(run, image, windows_of(size), target, chunk=8, **asked)["hires-cam", "down"]
    assert max(seen) == 8
    need = measure_of(run, asked)
    seen.clear()
    made = stitched(run, image, windows_of(size), target, chunk=8, memory=need.of(3), **asked)
    assert seen[-1] <= 3
    assert 3 in seen
    assert_same(made["hires-cam", "down"].grid, whole.grid)
    with pytest.raises(SettingError, match="more than the budget"):
        stitched(run, image, windows_of(size), target, memory=1, **asked)


def measure_of(run, asked):
    """What one window takes, as `explain` finds it out."""
    (step,) = passes(run.segmenter, sorted_out(asked["methods"]), asked["layers"], seed=0)
    aim = region_of((16, 16), slice(None), slice(None))
    return measure(step, run.segmenter, picture(16, 16)[None], (aim,))


@pytest.mark.parametrize("chunk", [1, 100])
def test_chunks_change_nothing(chunk, run, make_run):
    run, image, windows = make_run(run.segmenter.module, divisor=4), picture(30, 37), windows_of((30, 37))
    target = region_of((30, 37), slice(5, 28), slice(17, 23))
    asked: dict[str, Any] = {"methods": (*ON_LAYERS, *ON_INPUT), "layers": ("down", "deep")}
    found = stitched(run, image, windows, target, chunk=chunk, **asked)
    expected = stitched(run, image, windows, target, chunk=3, **asked)
    for key, made in found.items():
        assert_same(made.grid, expected[key].grid)
        assert made.diagnostics == pytest.approx(expected[key].diagnostics, rel=1e-4)


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


def test_weights_of_pixels_are_weights_in_the_score(run, images, pixels):
    weights = torch.rand(pixels.shape, generator=torch.Generator().manual_seed(3))
    target, logits = Target("weighted", 1, pixels, weights=weights), run.segmenter(images).detach()
    rows = torch.tensor([2, 0])
    share, value = (weights * pixels)[rows].double(), logits[rows, 0].double()
    total = (share * value).sum((1, 2))
    found = target.score(logits[rows], rows)
    torch.testing.assert_close(found.double(), total, rtol=1e-5, atol=1e-5)
    found = target.select(rows).score(logits[rows], torch.arange(2), "mean")
    torch.testing.assert_close(found.double(), total / share.sum((1, 2)), rtol=1e-5, atol=1e-5)


# The lattice and the map on it.


@pytest.mark.parametrize(
    ("size", "window", "divisor", "cells"),
    [
        ((40, 53), 16, 1, (16, 16)),
        ((50, 90), 32, 8, (4, 4)),
        ((9, 70), 20, 8, (3, 3)),
        ((30, 31), 30, 7, (5, 9)),
    ],
)
def test_the_shares_of_a_cell_sum_to_1(size, window, divisor, cells):
    made = lattice(windows_of(size, window), divisor, cells)
    for axis, length in zip((made.down, made.across), size, strict=True):
        total = torch.zeros(axis.length)
        for offset, shares in zip(axis.offsets, axis.shares, strict=True):
            total[offset : offset + len(shares)] += shares
        torch.testing.assert_close(total, torch.ones(axis.length))
        assert axis.length * axis.cell > length - axis.cell


def test_rows_are_let_go_when_no_window_can_reach_them():
    whole, rows, done = torch.zeros(2, 30, 9), OpenRows(9), []
    for top in (0, 4, 8, 20):  # windows that hold nothing are left out
        for left in (0, 4):
            part = torch.rand(2, 6, 5, generator=torch.Generator().manual_seed(top + left))
            whole[:, top : top + 6, left : left + 5] += part
            rows.add(part, top, left)
        assert rows.held is not None
        assert rows.held.shape[1] <= 16
        where, values = rows.finish({0: 4, 4: 8, 8: 20, 20: 30}[top])
        torch.testing.assert_close(values, whole[:, where])
        done.append(where)
    assert [(one.start, one.stop) for one in done] == [(0, 4), (4, 8), (8, 14), (20, 26)]


@pytest.mark.parametrize("scale", [0.6, 1.0, 1.7])
def test_maps_come_to_any_size_as_in_one_piece(scale, make_run, monkeypatch):
    monkeypatch.setattr("seglens.explain.large_map.BAND", 7)
    size = (60, 50)
    windows = windows_of(size, 16, 0.5, scale)
    image, run = picture(*size), make_run(Points().eval())
    grid = F.interpolate(image[None], windows.scaled, mode="bilinear", antialias=True).clamp(0, 1)
    target = region_of(windows.scaled, slice(3, 30), slice(5, 20))
    asked: dict[str, Any] = {"methods": ("grad-cam", "saliency"), "layers": ("first",)}
    found, expected = stitched(run, image, windows, target, **asked), explain(run, grid, target, **asked)
    for key, made in found.items():
        assert_same(made.at(windows.scaled)[None], expected[key].map, tolerance=3e-5)
        for drawn in (size, (31, 24)):
            whole = F.interpolate(expected[key].map[None], drawn, mode="bilinear", antialias=True)[0, 0]
            assert_same(torch.cat(list(made.bands(drawn))), whole, tolerance=3e-5)
        assert torch.cat(list(made.bands())).shape == size


@pytest.mark.parametrize("relu", [True, False])
def test_rows_are_those_of_the_one_upsampling(relu):
    windows = windows_of((45, 60), 32)
    cells = lattice(windows, 8, (4, 4))
    grid = torch.randn(cells.size, generator=torch.Generator().manual_seed(0))
    target = region_of(windows.scaled, slice(0, 9), slice(0, 9))
    made = LargeMap("mine", "layer", target, windows, grid, cells, relu)
    whole = upsample((grid.relu() if relu else grid)[None], (8 * cells.size[0], 8 * cells.size[1]))[0]
    expected = F.pad(whole[None], (0, 8, 0, 8), mode="replicate")[0, :45, :60]
    torch.testing.assert_close(made.rows(0, 45), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(made.rows(13, 22), expected[13:22], rtol=0, atol=1e-5)


# Targets.


def test_targets_by_name_are_those_of_the_picture_in_one_piece(make_run):
    run, size = make_run(Points().eval()), (40, 53)
    image = picture(*size)
    middle = run.predict(image[None]).logits.median()
    with torch.no_grad():
        run.segmenter.module.head.bias.sub_(middle)
    said = run.predict(image[None]).mask[0] == 1
    truth = torch.zeros(size, dtype=torch.int8)
    truth[5:20, 8:30] = 1
    expected = {
        "predicted": said,
        "truth": truth == 1,
        "false-positive": said & (truth == 0),
        "false-negative": ~said & (truth == 1),
        "box:3,4,10,20": region_of(size, slice(4, 20), slice(3, 10)).pixels[0],
        "point:52,39": region_of(size, slice(39, 40), slice(52, 53)).pixels[0],
        "truth-component:1": truth == 1,
        "class": torch.ones(size, dtype=torch.bool),
    }
    for text, pixels in expected.items():
        made = large_target(text, run, cut_of(image), windows_of(size), mask=truth, chunk=3)
        assert (made.label, made.class_index) == (text, 1)
        assert torch.equal(made.pixels[0], pixels), text


def test_targets_are_at_the_working_scale(make_run):
    run, size = make_run(Points().eval()), (40, 60)
    windows = windows_of(size, 16, 0.5, 0.5)
    truth, valid = torch.zeros(size, dtype=torch.int64), torch.ones(size, dtype=torch.bool)
    truth[10:20, 20:40], valid[:, 30:] = 1, False
    made = large_target("truth", run, cut_of(picture(*size)), windows, mask=truth, valid=valid)
    assert torch.equal(made.pixels, region_of((20, 30), slice(5, 10), slice(10, 15)).pixels)
    made = large_target("point:31,7", run, cut_of(picture(*size)), windows)
    assert made.pixels.nonzero().tolist() == [[0, 3, 15]]
    with pytest.raises(SettingError, match="needs the truth"):
        large_target("truth", run, cut_of(picture(*size)), windows)


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
    assert set(OVER_WINDOWS) >= {"grad-cam", "integrated-gradients"}
    assert {name for name in METHODS if name not in OVER_WINDOWS} <= {
        "seg-xres-cam",
        "smoothgrad",
        "score-cam",
        "ablation-cam",
        "rise",
    }

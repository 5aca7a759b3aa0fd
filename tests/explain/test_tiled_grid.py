"""What windows share: weights of pixels, cells of a tiled grid, targets at the working scale."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from benchmarks.large_targets import large_target
from tests.explain.large_pictures import (
    Points,
    assert_same,
    cut_of,
    picture,
    region_of,
    stitched,
    windows_of,
)

from seglens.errors import SettingError
from seglens.explain import explain
from seglens.explain.cams import upsample
from seglens.explain.target import Target
from seglens.explain.tiled.grid import OpenRows, tiled_grid
from seglens.explain.tiled.map import LargeMap


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


# The tiled grid and the map on it.


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
    made = tiled_grid(windows_of(size, window), divisor, cells)
    for axis, length in zip(made.axes, size, strict=True):
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
    monkeypatch.setattr("seglens.explain.tiled.map.BAND", 7)
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
    cells = tiled_grid(windows, 8, (4, 4))
    grid = torch.randn(cells.size, generator=torch.Generator().manual_seed(0))
    target = region_of(windows.scaled, slice(0, 9), slice(0, 9))
    made = LargeMap("mine", "layer", target, windows, grid, cells, relu)
    whole = upsample((grid.relu() if relu else grid)[None], (8 * cells.size[0], 8 * cells.size[1]))[0]
    expected = F.pad(whole[None], (0, 8, 0, 8), mode="replicate")[0, :45, :60]
    torch.testing.assert_close(made.rows(0, 45), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(made.rows(13, 22), expected[13:22], rtol=0, atol=1e-5)


def test_a_band_behind_the_last_cell_repeats_it():
    # Windows at 0 and 10 of stride 4: the second begins at cell 2, so that the grid ends at 24.
    windows = windows_of((26, 16), 16)
    cells = tiled_grid(windows, 1, (4, 4))
    grid = torch.randn(cells.size, generator=torch.Generator().manual_seed(0))
    target = region_of(windows.scaled, slice(0, 9), slice(0, 9))
    made = LargeMap("mine", "layer", target, windows, grid, cells, False)
    whole = made.rows(0, 26)
    assert cells.size[0] * 4 < 26  # else nothing is tried
    torch.testing.assert_close(torch.cat([made.rows(row, row + 1) for row in range(26)]), whole)


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
        made = large_target(text, run, cut_of(image), windows_of(size), mask=truth, batch_size=3)
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

"""Volumes larger than the window: nobody can see where the windows were, and one slice is a picture."""

from typing import Any, TypeVar

import pytest
import torch
import torch.nn.functional as F
from benchmarks.large_targets import large_mask, large_target
from tests.explain.large_pictures import ON_INPUT, ON_LAYERS, assert_same
from tests.volumes.networks import CONV, run_of, small, volumes, with_weights
from torch import Tensor, nn

import seglens
from seglens.errors import SettingError
from seglens.explain import explain
from seglens.explain.cams import upsample
from seglens.explain.integrated import IntegratedGradients
from seglens.explain.occlusion import Occlusion
from seglens.explain.target import Target, box, point
from seglens.explain.tiled import explain_large
from seglens.explain.tiled.grid import OpenRows, tiled_grid
from seglens.explain.tiled.map import LargeMap
from seglens.predict.tiles import Windows, cut_of, over

SIZE = (24, 20, 33)


class Points(nn.Module):
    """A network that looks at single voxels, with a bend before and after the layer that is tapped."""

    def __init__(self, dims: int = 3) -> None:
        super().__init__()
        one = [1] * dims
        self.first, self.second = CONV[dims](2, 6, one), CONV[dims](6, 5, one)
        self.head = CONV[dims](5, 2, one)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(torch.tanh(self.second(self.first(images).relu())))


class Near(nn.Module):
    """A network that looks a few voxels around, at two resolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(nn.Conv3d(2, 4, 3, padding=1), nn.ReLU())
        self.deep = nn.Sequential(nn.MaxPool3d(2), nn.Conv3d(4, 6, 3, padding=1), nn.ReLU())
        self.head = nn.Conv3d(10, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        fine = self.fine(images)
        return self.head(torch.cat([fine, F.interpolate(self.deep(fine), scale_factor=2)], 1))


class Squares(nn.Module):
    """Logits quadratic in the input: Integrated Gradients are exact with few steps."""

    def __init__(self) -> None:
        super().__init__()
        self.near, self.head = nn.Conv3d(2, 4, 3, padding=1), nn.Conv3d(4, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.near(images.square()))


Network = TypeVar("Network", bound=nn.Module)


def seeded(network: type[Network]) -> Network:
    torch.manual_seed(0)
    return network().eval()


def bias_of(layer: nn.Module) -> Tensor:
    bias = layer.bias
    assert isinstance(bias, Tensor)
    return bias


def windows_of(size: tuple[int, ...], window: Any = 12, overlap: float = 0.5, floor: float = 0.0) -> Windows:
    return Windows(size, size, window, overlap, floor)


def region_of(size: tuple[int, ...], *part: slice) -> Target:
    pixels = torch.zeros(1, *size, dtype=torch.bool)
    pixels[(slice(None), *part)] = True
    return Target("region", 1, pixels)


def stitched(run, images: Tensor, windows: Windows, target: Target, **asked):
    return explain_large(run, cut_of(images[0]), windows, target, **asked)


PART = (slice(2, 17), slice(4, 15), slice(10, 30))


@pytest.mark.parametrize(
    ("size", "window", "overlap", "floor"),
    [
        (SIZE, 12, 0.5, 0.0),
        (SIZE, (8, 20, 16), 0.3, 1e-3),
        (SIZE, 12, 0.5, 1.0),
        ((9, 20, 33), 12, 0.5, 1e-3),
    ],
)
def test_a_network_of_single_voxels_sees_no_windows(size, window, overlap, floor):
    run, images = run_of(seeded(Points)), volumes(1, size)
    target = region_of(size, *PART)
    asked: dict[str, Any] = {"methods": (*ON_LAYERS, *ON_INPUT), "layers": ("first", "second")}
    found = stitched(run, images, windows_of(size, window, overlap, floor), target, batch_size=3, **asked)
    expected = explain(run, images, target, **asked)
    assert set(found) == set(expected)
    for key, made in found.items():
        if size[0] < 12 and made.layer is not None:
            continue  # the window's empty part is in the grid
        assert made.status == expected[key].status[0]
        if made.status == "ok":
            assert_same(made.explanation().map, expected[key].map)


@pytest.mark.parametrize(("window", "divisor"), [(SIZE, 4), ((24, 20, 32), 1)])
def test_one_window_is_a_plain_explanation(window, divisor):
    run, images = run_of(small(), divisor=divisor), volumes(1, window)
    target = region_of(window, *PART)
    asked: dict[str, Any] = {"methods": (*ON_LAYERS, *ON_INPUT), "layers": ("down", "deep", "up")}
    found = stitched(run, images, windows_of(window, window), target, **asked)
    for key, expected in explain(run, images, target, **asked).items():
        held = found[key].explanation()
        assert held.status == expected.status
        if held.status == ("ok",):
            assert_same(held.map, expected.map)
            if expected.grid is not None:
                assert held.grid is not None
                assert_same(held.grid, expected.grid)


FAR = sorted({*range(6, 10), *range(38, 42)})
"""Places that are at least 6 voxels from where windows of 32 begin or end in 48 voxels."""


def test_away_from_the_edges_of_windows_a_map_is_that_of_the_whole_volume():
    """Both at full and at half resolution."""
    run, images = run_of(seeded(Near), divisor=2), volumes(1, (48, 48, 48))
    far, places = torch.zeros(1, 48, 48, 48, dtype=torch.bool), torch.tensor(FAR)
    far[0, places[:, None, None], places[:, None], places] = True
    target = Target("far", 1, far)
    asked: dict[str, Any] = {
        "methods": ("grad-cam", "hires-cam", "layer-cam", *ON_INPUT),
        "layers": ("fine", "deep"),
    }
    found = stitched(run, images, windows_of((48, 48, 48), 32), target, batch_size=2, **asked)
    expected = explain(run, images, target, **asked)
    for key, made in found.items():
        # What the target's gradient reaches is away from the edges too; the activations beyond are not.
        assert_same(made.explanation().map, expected[key].map, far if made.method == "grad-cam" else ...)


@pytest.mark.parametrize("floor", [0.0, 1e-3])
def test_a_volume_of_one_slice_has_the_maps_of_its_picture(floor):
    kernel = (3, 3)
    flat = small(kernel)
    picture, volume = run_of(flat), run_of(with_weights(flat, (1, 3, 3), lambda w: w[:, :, None]))
    images = volumes(1, (1, 33, 29))
    target = region_of((1, 33, 29), slice(None), slice(3, 20), slice(6, 25))
    methods = (*ON_LAYERS, *ON_INPUT, Occlusion(window=8, stride=4))
    asked: dict[str, Any] = {"methods": methods, "layers": ("down", "deep", "up"), "batch_size": 2}
    found = stitched(volume, images, windows_of((1, 33, 29), (1, 16, 16), floor=floor), target, **asked)
    expected = stitched(
        picture,
        images[:, :, 0],
        windows_of((33, 29), 16, floor=floor),
        Target("region", 1, target.pixels[:, 0]),
        **asked,
    )
    for key, made in found.items():
        assert made.status == expected[key].status
        assert made.diagnostics == pytest.approx(expected[key].diagnostics, rel=1e-4, nan_ok=True)
        if made.status == "ok":
            assert_same(made.grid[0], expected[key].grid)
            assert_same(made.at((1, 33, 29))[0], expected[key].at((33, 29)))


def test_the_order_of_windows_changes_nothing():
    """With the axes in another order the windows come in another order."""
    run, images, target = run_of(seeded(Points)), volumes(1, SIZE), region_of(SIZE, *PART)
    turned = Target("region", 1, target.pixels.permute(0, 3, 1, 2).flip(1))
    other = images.permute(0, 1, 4, 2, 3).flip(2)
    asked: dict[str, Any] = {"methods": (*ON_LAYERS, *ON_INPUT), "layers": ("first",), "batch_size": 4}
    found = stitched(run, images, windows_of(SIZE), target, **asked)
    for key, made in stitched(run, other, windows_of((33, 24, 20)), turned, **asked).items():
        if made.status == "ok":
            assert_same(made.explanation().map[0].flip(0).permute(1, 2, 0), found[key].explanation().map[0])


@pytest.mark.parametrize("floor", [0.0, 1e-3])
def test_sums_are_those_of_the_score(floor):
    """HiResCAM sums to S less the bias, Integrated Gradients to S(x) - S(x0): S by its definition."""
    module, images = seeded(Squares), volumes(1, SIZE)
    run, target = run_of(module), region_of(SIZE, *PART)
    windows = over(SIZE, run.spec, 12, 0.5, floor)

    def score_of(given: Tensor) -> float:
        total = 0.0
        for place in windows.places:
            part = windows.part(place)
            with torch.no_grad():
                logits = module.double()(((cut_of(given[0])(*part)[None] - 0.5) / 0.5).double())[0, 1]
            total += float((logits * windows.weights(place).double())[target.pixels[0][part]].sum())
        module.float()
        return total

    ours = IntegratedGradients(steps=4)
    found = stitched(run, images, windows, target, methods=("hires-cam", ours), layers=("near",))
    score, bias = score_of(images), float(bias_of(module.head).detach()[1])
    hires, integrated = found["hires-cam", "near"], found["integrated-gradients"]
    num = target.pixels.sum().item()
    assert hires.diagnostics["score"] == pytest.approx(score, rel=1e-5)
    assert hires.grid.double().sum().item() == pytest.approx(score - bias * num, rel=1e-5)
    gained = score - score_of(torch.zeros_like(images))
    assert integrated.grid.double().sum().item() == pytest.approx(gained / num, rel=1e-5)
    assert hires.settings["windows"] == {"size": (12, 12, 12), "overlap": 0.5, "number": 3 * 3 * 5}


# The tiled grid and the map on it.


def test_rows_are_those_of_the_one_upsampling():
    windows = windows_of((21, 30, 45), 16)
    cells = tiled_grid(windows, 8, (4, 4, 4))
    assert cells.size == (5, 8, 11)
    grid = torch.randn(cells.size, generator=torch.Generator().manual_seed(0))
    target = region_of(windows.scaled, slice(0, 9), slice(0, 9))
    made = LargeMap("mine", "layer", target, windows, grid, cells, True)
    whole = upsample(grid.relu()[None], [4 * length for length in cells.size])[0]
    expected = F.pad(whole[None], (0, 8, 0, 8, 0, 8), mode="replicate")[0, :21, :30, :45]
    torch.testing.assert_close(made.rows(0, 21), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(made.rows(13, 20), expected[13:20], rtol=0, atol=1e-5)
    torch.testing.assert_close(made.at((21, 30, 45)), expected, rtol=0, atol=1e-5)
    grown = F.interpolate(expected[None, None], (42, 60, 90), mode="trilinear")[0, 0]
    torch.testing.assert_close(torch.cat(list(made.bands((42, 60, 90)))), grown, rtol=0, atol=1e-5)


def test_slices_are_let_go_when_no_window_can_reach_them():
    whole, rows, seen = torch.zeros(2, 30, 9, 7), OpenRows(9, 7), 0
    for top in (0, 4, 8, 20):
        for row, column in ((0, 0), (0, 2), (4, 0), (4, 2)):
            part = torch.rand(2, 6, 5, 5, generator=torch.Generator().manual_seed(top + row + column))
            whole[:, top : top + 6, row : row + 5, column : column + 5] += part
            rows.add(part, top, row, column)
        assert rows.held is not None
        assert rows.held.shape[1] <= 16
        where, values = rows.finish({0: 4, 4: 8, 8: 20, 20: 30}[top])
        torch.testing.assert_close(values, whole[:, where])
        seen += values.shape[1]
    assert seen == 4 + 4 + 6 + 6


# Targets.


def test_targets_by_name_are_those_of_the_volume_in_one_piece():
    network, images = seeded(Points), volumes(1, SIZE)
    run = run_of(network)
    logits = run.predict(images).logits
    with torch.no_grad():
        bias_of(network.head)[1] -= (logits[:, 1] - logits[:, 0]).median() + 1e-3
    windows, cut = windows_of(SIZE), cut_of(images[0])
    said = run.predict(images).mask == 1
    assert 0.3 < said.float().mean() < 0.7
    assert torch.equal(large_mask(run, cut, windows) == 1, said[0])
    truth = torch.zeros(SIZE, dtype=torch.int8)
    truth[5:20, 8:30, 3:9] = 1
    expected = {
        "predicted": said,
        "truth": (truth == 1)[None],
        "false-positive": said & (truth == 0),
        "false-negative": ~said & (truth == 1),
        "box:3,4,5,10,20,8": box(images, 3, 4, 10, 20, z0=5, z1=8).pixels,
        "point:32,19,23": point(images, 32, 19, z=23).pixels,
        "truth-component:1": (truth == 1)[None],
        "class": torch.ones(1, *SIZE, dtype=torch.bool),
    }
    for text, pixels in expected.items():
        made = large_target(text, run, cut, windows, mask=truth, batch_size=3)
        assert (made.label, made.class_index) == (text, 1)
        assert torch.equal(made.pixels, pixels), text
    scaled = Windows(SIZE, (12, 10, 33), 8)
    half = large_target("box:3,4,6,10,20,8", run, cut, scaled)
    assert torch.equal(half.pixels, region_of((12, 10, 33), slice(3, 4), slice(2, 10), slice(3, 10)).pixels)
    assert large_target("point:32,19,23", run, cut, scaled).pixels.nonzero().tolist() == [[0, 11, 9, 32]]
    for text, message in (
        ("box:3,4,10,20", "Write it as 'box:X0,Y0,Z0,X1,Y1,Z1'"),
        ("point:1,2", "Write it as 'point:X,Y,Z'"),
        ("point:1,2,24", "not in the picture, which is 33 x 20 x 24 pixels"),
    ):
        with pytest.raises(Exception, match=message):
            large_target(text, run, cut, windows)


# By the public function.


def test_explain_takes_a_window():
    """A prediction and its explanation in windows, by names alone; what it gives is judged like any other."""
    run, images = run_of(small()), volumes(1, SIZE)
    predicted = run.predict(images, window=12).mask == 1
    targets = [Target("predicted", 1, predicted), region_of(SIZE, *PART)]
    asked: dict[str, Any] = {"methods": ("grad-cam", "saliency"), "layers": ("down", "up")}
    found = explain(run, images, targets, window=12, overlap=0.25, floor=1e-3, **asked)
    windows = windows_of(SIZE, 12, 0.25, 1e-3)
    for one in targets:
        for key, made in stitched(run, images, windows, one, **asked).items():
            name = (one.label, *((key,) if isinstance(key, str) else key))
            torch.testing.assert_close(found[name].map, made.explanation().map)
            assert found[name].status == (made.status,)
    assert len(found) == 2 * 3
    context = explain(run, images, targets[1], window=12, where="context", **asked)
    assert context["grad-cam", "up"].where == "context"
    assert seglens.statistics(context["grad-cam", "up"])


def test_windows_that_can_not_be_are_refused():
    run, images = run_of(small()), volumes(2, SIZE)
    target = Target("region", 1, region_of(SIZE, *PART).pixels.expand(2, *SIZE))
    with pytest.raises(SettingError, match="one picture or volume is explained at a time, received 2"):
        explain(run, images, target, layers=("up",), window=12)
    with pytest.raises(SettingError, match="window of 12 x 12 pixels does not fit an input of 24 x 20 x 33"):
        explain(run, images, target, layers=("up",), window=(12, 12))
    one = target.select(slice(0, 1))
    with pytest.raises(SettingError, match="'rise' has no meaning over the windows"):
        explain(run, images[:1], one, methods="rise", window=12)

"""Removing, moving and occluding a region, on pictures and models where the outcome can be written down."""

import pytest
import torch
from torch import nn

from seglens import wrap
from seglens.explain.target import Target, dilate
from seglens.impute import noisy_linear
from seglens.judge.causal import (
    RIM,
    Effect,
    _impute_windows,
    _windows,
    effect,
    moved,
    occlusion_map,
    without,
)

SIZE = 32


def picture(num: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Grey pictures with a bright tag of 4 x 5 pixels, at another place in each."""
    images = torch.full((num, 3, SIZE, SIZE), 0.4)
    tags = torch.zeros(num, SIZE, SIZE, dtype=torch.bool)
    for row in range(num):
        tags[row, 2 + row : 6 + row, 20 - row : 25 - row] = True
        images[row, :, tags[row]] = 0.95
    return images, tags


def occupied(num: int = 4) -> torch.Tensor:
    regions = torch.zeros(num, SIZE, SIZE, dtype=torch.bool)
    regions[:, 14:24, 4:14] = True
    return regions


def test_without_leaves_the_surroundings_behind() -> None:
    images, tags = picture()
    bare = without(images, tags)
    assert (bare - 0.4).abs().max() < 0.06  # noise of .01
    around = ~dilate(tags, RIM)[:, None].expand_as(images)
    assert torch.equal(bare[around], images[around])


def test_moved_puts_the_tag_on_free_ground() -> None:
    images, tags = picture()
    regions = occupied()
    elsewhere, found = moved(images, tags, regions)
    assert found.all()
    for row in range(4):
        bright = elsewhere[row].mean(0) > 0.7
        assert int(bright.sum()) == 20
        ys, xs = bright.nonzero().T
        assert (int(ys.max() - ys.min()), int(xs.max() - xs.min())) == (3, 4)
        assert not (bright & dilate(regions | tags, RIM)[row]).any()
    again, _ = moved(images[2:3], tags[2:3], regions[2:3])
    torch.testing.assert_close(again, elsewhere[2:3], atol=1e-5, rtol=0)
    other, _ = moved(images, tags, regions, seed=1)
    assert not torch.equal(other, elsewhere)


def test_moved_says_where_there_is_no_place() -> None:
    images, tags = picture(2)
    regions = torch.stack(
        [torch.ones(SIZE, SIZE, dtype=torch.bool), torch.zeros(SIZE, SIZE, dtype=torch.bool)]
    )
    tags[1] = False
    elsewhere, found = moved(images, tags, regions)
    assert found.tolist() == [False, False]
    assert elsewhere[0].max() < 0.5


class Brightness(nn.Module):
    """Logit everywhere: 100 times the mean brightness above .5 of ``where``."""

    def __init__(self, where: torch.Tensor) -> None:
        super().__init__()
        self.where = where

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        above = (images.mean(1) - 0.5).clamp(min=0) * self.where
        return 100 * above.mean((1, 2))[:, None, None, None].expand(-1, 1, *images.shape[-2:]) - 0.001


def run_of(where: torch.Tensor):
    return wrap(
        Brightness(where), classes=("background", "cell"), mean=(0.0,) * 3, std=(1.0,) * 3, image_size=SIZE
    )


def test_effect_of_a_model_that_counts_the_tag() -> None:
    images, tags = picture(10)
    target = Target("all", 1, torch.ones_like(tags))
    run = run_of(torch.ones(SIZE, SIZE))
    found = effect(run.segmenter, images, target, tags, occupied(10))
    full = torch.tensor(100 * 0.45 * 20 / SIZE**2 - 0.001).sigmoid()
    none = torch.tensor(-0.001).sigmoid()
    torch.testing.assert_close(found.full, full.expand(10))
    torch.testing.assert_close(found.tag_removed, none.expand(10))
    torch.testing.assert_close(found.tag_moved, full.expand(10), atol=1e-4, rtol=0)
    plain = found.table()
    assert plain["drop_removed"] == pytest.approx(float(1 - none / full), abs=1e-4)
    assert plain["drop_moved"] == pytest.approx(0, abs=1e-4)
    assert plain["num"] == 10


def test_drops_are_of_means_over_complete_pictures() -> None:
    nan = float("nan")
    found = Effect(
        torch.tensor([0.8, 0.4, 0.9]), torch.tensor([0.2, 0.1, 0.0]), torch.tensor([0.8, 0.4, nan])
    )
    drop = found.drop(found.tag_removed)
    assert (drop.mean, drop.num) == (pytest.approx(1 - 0.3 / 1.2), 2)
    # Both resampled pictures lose three quarters, whatever the resample.
    assert (drop.low, drop.high) == (pytest.approx(0.75), pytest.approx(0.75))
    alone = Effect(*(torch.tensor([0.5]),) * 3)
    assert alone.drop(alone.tag_moved).num == 0


def test_occlusion_finds_the_cells_that_matter() -> None:
    images, tags = picture(2)
    images += 0.2 * torch.rand(images.shape, generator=torch.Generator().manual_seed(0)) - 0.1
    target = Target("all", 1, torch.ones_like(tags))
    where = torch.ones(SIZE, SIZE)
    found = occlusion_map(run_of(where).segmenter, images, target, cells=8)
    assert found.grid is not None
    assert found.grid.shape == (2, 8, 8)
    assert found.status == ("ok", "ok")
    # A window reaches half a cell, two pixels, beyond its cell, and is filled from the next pixel on.
    windows = dilate(tags, 3)
    for row in range(2):
        touched = torch.nn.functional.max_pool2d(windows[row][None].float(), 4)[0] > 0
        assert found.grid[row][~touched].abs().max() < 1e-5
        assert found.grid[row].max() > 0.05
        assert bool(touched.flatten()[found.grid[row].argmax()])
    # The map is the grid, each cell drawn evenly.
    assert torch.equal(found.map[:, ::4, ::4], found.grid)
    part = occlusion_map(
        run_of(where).segmenter, images[1:], target.select(slice(1, 2)), cells=8, batch_size=5
    )
    assert part.grid is not None
    torch.testing.assert_close(part.grid, found.grid[1:], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [(32, 32), (37, 50)])
def test_windows_are_imputed_as_in_the_whole_picture(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seglens.impute.TOLERANCE", 1e-7)
    windows = _windows(size, 8)
    images = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)).expand(64, -1, -1, -1)
    noise = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1)).expand(64, -1, -1, -1)
    found = _impute_windows(images, windows, noise, 8)
    torch.testing.assert_close(found, noisy_linear(images, windows, noise), atol=1e-5, rtol=0)

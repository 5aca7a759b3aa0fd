"""ROAD against curves that can be written down: a model that adds up what each cell holds."""

import pytest
import torch
from benchmarks.removing import road
from torch import nn

from seglens import impute, wrap
from seglens.explain.target import Target
from seglens.judge import nulls
from seglens.judge.cells import CELLS, cell_means, cell_of_pixel, grid_cells, order, superpixel_cells
from seglens.judge.faithfulness import FRACTIONS, Curves
from seglens.judge.reading import soft_dice

SIZE = 32  # cells of 2 x 2 pixels
NUM = 12


class Contrast(nn.Module):
    """Probability everywhere = mean contrast |2x - 1| over ``where`` (everywhere if None)."""

    def __init__(self, where: torch.Tensor | None = None) -> None:
        super().__init__()
        self.where = where

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        contrast = (2 * images - 1).abs().mean(1)
        if self.where is not None:
            contrast = contrast[:, self.where]
        mean = contrast.flatten(1).mean(1)[:, None, None, None]
        return torch.logit(mean, eps=1e-6).expand(-1, 1, *images.shape[-2:])


def checkered(cells: torch.Tensor) -> torch.Tensor:
    """Pictures whose 2 x 2 cells are checkerboards .5 +- cell/2: mean .5 everywhere, contrast = cell."""
    contrast = cells.repeat_interleave(2, 1).repeat_interleave(2, 2)
    sign = (-1.0) ** (torch.arange(SIZE)[:, None] + torch.arange(SIZE)[None])
    return (0.5 + 0.5 * contrast * sign)[:, None].repeat(1, 3, 1, 1)


@pytest.fixture
def cells() -> torch.Tensor:
    return torch.rand(NUM, CELLS, CELLS, generator=torch.Generator().manual_seed(0))


def run_of(module: nn.Module):
    return wrap(
        module,
        classes=("background", "cell"),
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        image_size=SIZE,
        head="sigmoid",
    )


def square(num: int = NUM) -> Target:
    pixels = torch.zeros(num, SIZE, SIZE, dtype=torch.bool)
    pixels[:, 8:20, 8:20] = True
    return Target("square", 1, pixels)


def wide(cells: torch.Tensor) -> torch.Tensor:
    return cells.repeat_interleave(2, 1).repeat_interleave(2, 2)


def test_the_curves_of_the_oracle_are_sums_of_sorted_cells(cells: torch.Tensor) -> None:
    run = run_of(Contrast())
    curves = road(
        run.segmenter, checkered(cells), square(), {"oracle": wide(cells)}, imputer=impute.fill_with_mean
    )["oracle"]
    falling = cells.flatten(1).sort(1, descending=True).values
    total = CELLS**2
    torch.testing.assert_close(curves.full, falling.mean(1), atol=1e-5, rtol=0)
    # What is left of the blurred picture is the fringe where the checkerboard meets its repeated border.
    assert curves.base.max() < 0.02
    for column, fraction in enumerate(FRACTIONS):
        gone = round(fraction * total)
        torch.testing.assert_close(
            curves.most_first[:, column], falling[:, gone:].sum(1) / total, atol=1e-5, rtol=0
        )
        left = falling[:, : total - gone].sum(1) / total
        torch.testing.assert_close(curves.least_first[:, column], left, atol=1e-5, rtol=0)


def test_oracle_beats_its_noisy_likeness_beats_chance_and_the_opposite_loses(cells: torch.Tensor) -> None:
    run = run_of(Contrast())
    noise = torch.rand(cells.shape, generator=torch.Generator().manual_seed(1))
    maps = {
        "oracle": wide(cells),
        "noisy": wide(cells + noise),
        "constant": torch.full((NUM, SIZE, SIZE), 0.3),
        "random": wide(noise),
        "opposite": -wide(cells),
    }
    found = road(run.segmenter, checkered(cells), square(), maps, imputer=impute.fill_with_mean)
    values = {name: curves.value for name, curves in found.items()}
    assert (values["oracle"] > values["noisy"]).all()
    assert values["noisy"].mean() > 0.1
    torch.testing.assert_close(values["opposite"], -values["oracle"], atol=1e-5, rtol=0)
    for name in ("constant", "random"):
        # Twelve random orders: the mean is within three standard errors of 0, and these are small.
        error = float(values[name].std()) / NUM**0.5
        assert error < 0.02
        assert abs(float(values[name].mean())) < 3 * error


def test_a_model_that_reads_its_region_alone_makes_the_mirror_an_oracle() -> None:
    target = square()
    run = run_of(Contrast(target.pixels[0]))
    cells = torch.full((NUM, CELLS, CELLS), 0.9)
    maps = {"mirror": target.pixels.float(), "edge": wide(torch.rand(NUM, CELLS, CELLS))}
    found = road(run.segmenter, checkered(cells), target, maps, imputer=impute.fill_with_mean)
    # 36 of 256 cells matter alike; after a fraction f the mirror has taken min(1, 256 f / 36) of them.
    taken = [min(1.0, round(f * 256) / 36) for f in FRACTIONS]
    spared = [min(1.0, (256 - round(f * 256)) / 36) for f in FRACTIONS]
    expected = 0.9 * sum(s - (1 - t) for s, t in zip(spared, taken, strict=True)) / 9
    curves = found["mirror"]
    torch.testing.assert_close(curves.value, expected / (curves.full - curves.base), atol=1e-4, rtol=0)
    assert (found["edge"].value < found["mirror"].value).all()


def test_pictures_are_evaluable_where_blurring_costs_a_tenth(cells: torch.Tensor) -> None:
    run = run_of(Contrast())
    flat = cells.clone()
    flat[0] = 0.05  # nothing to lose
    maps = wide(flat)
    maps[1] = torch.nan
    target = square()
    target.pixels[2] = False
    found = road(run.segmenter, checkered(flat), target, {"oracle": maps}, imputer=impute.fill_with_mean)[
        "oracle"
    ]
    assert found.value.isnan().tolist() == [True, True, True] + [False] * (NUM - 3)
    assert found.evaluable.tolist() == [False, True, False] + [True] * (NUM - 3)


def test_batch_chunk_and_order_change_nothing_with_the_real_imputer(cells: torch.Tensor) -> None:
    run = run_of(Contrast())
    images, target = checkered(cells[:3]), square(3)
    maps = {"oracle": wide(cells[:3]), "constant": torch.ones(3, SIZE, SIZE)}
    whole = road(run.segmenter, images, target, maps, batch_size=64)
    for rows in ([0], [2, 1]):
        part = road(
            run.segmenter,
            images[rows],
            square(len(rows)),
            {k: v[rows] for k, v in maps.items()},
            batch_size=5,
        )
        for name in maps:
            torch.testing.assert_close(part[name].value, whole[name].value[rows], atol=1e-4, rtol=1e-4)


def test_noisy_linear_removes_what_a_cell_says(cells: torch.Tensor) -> None:
    run = run_of(Contrast())
    found = road(run.segmenter, checkered(cells), square(), {"oracle": wide(cells)})["oracle"]
    assert found.value.mean() > 0.2


def test_ties_fall_in_a_seeded_random_order(cells: torch.Tensor) -> None:
    images = checkered(cells)
    maps = wide((cells > 0.5).float())
    grid = grid_cells(images, maps > 0, CELLS)
    first = order(images, maps, grid, 0)
    assert torch.equal(first, order(images, maps, grid, 0))
    assert not torch.equal(first, order(images, maps, grid, 1))
    assert not torch.equal(first[0].sort().values, first[0])
    values = (cells > 0.5).flatten(1).float().gather(1, first)
    assert (values.diff(dim=1) <= 0).all()


def test_cells_partition_any_size_and_means_are_theirs() -> None:
    cells = cell_of_pixel((37, 50), 16)
    counts = torch.bincount(cells.flatten())
    assert len(counts) == 256
    assert counts.min() >= 2 * 3
    assert counts.max() <= 3 * 4
    maps = torch.rand(2, 37, 50)
    means = cell_means(maps, cells.expand(2, -1, -1))
    for cell in (0, 100, 255):
        expected = maps[:, cells == cell].double().mean(1)
        torch.testing.assert_close(means[:, cell], expected)
    assert int(cell_of_pixel((5, 40), 16).max()) + 1 == 5 * 16  # a side shorter than the grid


def test_value_is_the_mean_gap_over_what_there_is_to_lose() -> None:
    full, base = torch.tensor([0.9, 0.5]), torch.tensor([0.1, 0.45])
    least, most = torch.full((2, 9), 0.8), torch.full((2, 9), 0.4)
    curves = Curves(full, base, least, most)
    assert float(curves.value[0]) == pytest.approx(0.4 / 0.8)
    assert curves.value[1].isnan()


def test_content_free_maps_take_part(cells: torch.Tensor) -> None:
    run = run_of(Contrast())
    images, target = checkered(cells[:3]), square(3)
    maps = nulls.content_free(nulls.null_inputs(run, images, target))
    found = road(run.segmenter, images, target, maps, imputer=impute.fill_with_mean)
    assert set(found) == set(nulls.NULLS)
    assert all(curves.value.isfinite().all() for curves in found.values())


class Probability(nn.Module):
    """The probability of each pixel is its own intensity."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.logit(images.mean(1, keepdim=True), eps=1e-6)


def test_the_secondary_score_is_the_soft_dice_of_the_whole_answer() -> None:
    """What is removed becomes black: of equal pixels a share f is left, and the Dice is 2 f / (1 + f)."""
    run = run_of(Probability())
    images = torch.full((2, 3, SIZE, SIZE), 0.6)
    one, other = torch.tensor([[[0.5, 1.0]]]), torch.tensor([[[0.25, 0.0]]])
    every = torch.ones(1, 1, 2, dtype=torch.bool)
    assert float(soft_dice(one, other, every)) == pytest.approx(2 * 0.125 / (1.25 + 0.0625))
    assert float(soft_dice(one, one, every)) == 1
    maps = {"any": torch.rand(2, SIZE, SIZE, generator=torch.Generator().manual_seed(0))}
    # Blurring a flat picture takes nothing, and pictures with nothing to lose are not done: a dark rim does.
    images[:, :, :2] = images[:, :, -2:] = 0.0
    target = Target("middle", 1, torch.zeros(2, SIZE, SIZE, dtype=torch.bool))
    target.pixels[:, 2:-2] = True
    kept = ~target.pixels
    found = road(run.segmenter, images, target, maps, kept=kept, imputer=impute.fill_with_zero)["any"]
    assert found.dice is not None
    assert found.evaluable.tolist() == [False, False]
    sharp = images * (torch.arange(SIZE) % 2 == 0)  # stripes: blurring halves them
    striped = Target("stripes", 1, sharp[:, 0] > 0.1)
    found = road(run.segmenter, sharp, striped, maps, kept=kept, imputer=impute.fill_with_zero)["any"]
    assert found.evaluable.all()
    assert found.dice is not None
    left = 1 - torch.tensor([round(f * 14 * 16) / (14 * 16) for f in FRACTIONS])
    # Removed pixels have probability 0, the others the same as before: 2 s / (s + 1) with s what is left.
    for curves in (found.dice.most_first, found.dice.least_first):
        torch.testing.assert_close(curves, (2 * left / (left + 1)).expand(2, -1), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.most_first, 0.6 * left.expand(2, -1), atol=1e-4, rtol=0)


def test_on_superpixels_the_curves_are_those_of_pixels_removed_patch_by_patch() -> None:
    """Two patches of unlike size: fractions are of the pixels, whichever patch comes first."""
    run = run_of(Contrast())
    cells = torch.full((NUM, CELLS, CELLS), 0.8)
    images, target = checkered(cells), square()
    patches = torch.zeros(NUM, SIZE, SIZE, dtype=torch.long)
    patches[:, :, 8:] = 1  # a quarter and three quarters
    small_first = (patches == 0).float()
    found = road(
        run.segmenter,
        images,
        target,
        {"small": small_first, "large": -small_first},
        cells=patches,
        imputer=impute.fill_with_mean,
    )
    # The small patch goes first once an eighth is reached, the large one first at three eighths.
    small = torch.tensor([0.8 * (0.75 if f < 0.625 else 0.0) if f > 0.125 else 0.8 for f in FRACTIONS])
    large = torch.tensor([0.8 * (0.25 if f < 0.875 else 0.0) if f > 0.375 else 0.8 for f in FRACTIONS])
    torch.testing.assert_close(found["small"].most_first, small.expand(NUM, -1), atol=1e-4, rtol=0)
    torch.testing.assert_close(found["large"].most_first, large.expand(NUM, -1), atol=1e-4, rtol=0)
    torch.testing.assert_close(found["small"].least_first, found["large"].most_first)


def test_superpixels_follow_the_picture_and_padding_falls_to_the_first() -> None:
    images = torch.zeros(1, 3, SIZE, SIZE)
    images[:, :, :, 11:] = 1.0
    valid = torch.ones(1, SIZE, SIZE, dtype=torch.bool)
    valid[:, 28:] = False
    cells = superpixel_cells(images, valid, 3)
    assert (cells[~valid] == 0).all()
    for patch in range(int(cells.max()) + 1):
        inside = images[0, 0][(cells[0] == patch) & valid[0]]
        assert len(inside.unique()) == 1  # no patch crosses the edge

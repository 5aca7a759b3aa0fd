"""Cells: rank correlation, sums, and padding that counts for nothing."""

import pytest
import torch
from benchmarks.removing import road
from scipy.stats import spearmanr
from tests.judge.cases import NUM, SIZE, checkered, run_of, square, wide

from seglens.evaluate.correlation import spearman
from seglens.judge.cells import CELLS, cell_means, cell_sums, grid_cells, rank_correlation
from seglens.judge.faithfulness import FRACTIONS


def test_rank_correlation_is_scipy_s_with_ties_and_masks() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(0, 5, (4, 30), generator=generator).double()
    truth = torch.randn(4, 30, generator=generator).double()
    counted = torch.rand(4, 30, generator=generator) > 0.3
    expected = [
        spearmanr(a[which], b[which]).statistic for a, b, which in zip(values, truth, counted, strict=True)
    ]
    torch.testing.assert_close(
        rank_correlation(values, truth, counted), torch.tensor(expected), check_dtype=False
    )
    tied, other = torch.tensor([[3.0, 1.0, 3.0, 0.5]]), torch.tensor([[2.0, 1.0, 4.0, 3.0]])
    assert spearman(tied, other).item() == pytest.approx(spearmanr(tied[0], other[0]).statistic, abs=1e-12)
    flat = torch.ones(1, 30).double()
    every = torch.ones(1, 30, dtype=torch.bool)
    assert rank_correlation(flat, truth[:1], every).tolist() == [0]
    assert rank_correlation(truth[:1], flat, every).isnan().all()
    assert rank_correlation(truth[:1] * torch.nan, truth[:1], every).isnan().all()


def test_cells_leave_out_what_is_not_counted() -> None:
    maps = torch.rand(1, SIZE, SIZE)
    counted = torch.ones(1, SIZE, SIZE, dtype=torch.bool)
    counted[:, :, 29:] = False
    grid = grid_cells(maps[:, None], counted, CELLS)
    means = cell_means(maps, grid, counted).view(1, CELLS, CELLS)
    assert means[0, :, 15].isnan().all()
    torch.testing.assert_close(means[0, 0, 14].float(), maps[0, :2, 28].mean())
    torch.testing.assert_close(cell_sums(maps, grid, counted)[0, 14].float(), maps[0, :2, 28].sum())


def test_padding_is_neither_ranked_nor_removed_nor_used(cells: torch.Tensor) -> None:
    """A model that reads padding alone can't be moved; what a map says of it changes nothing."""
    valid = torch.ones(NUM, SIZE, SIZE, dtype=torch.bool)
    valid[:, 24:] = False
    heat = wide(cells)
    loud = torch.where(valid, heat, 9.0)
    images, target = checkered(cells), square()
    reads_padding = run_of(~valid[0]).segmenter
    found = road(reads_padding, images, target, {"loud": loud}, valid=valid, batch_size=64)["loud"]
    torch.testing.assert_close(found.most_first, found.full[:, None].expand(-1, len(FRACTIONS)))
    reads_picture = run_of(valid[0]).segmenter
    changed = torch.where(valid[:, None], images, 0.9)
    first = road(reads_picture, images, target, {"a": heat, "b": loud}, valid=valid, batch_size=64)
    # Noise is keyed by the picture, so that the two differ by it; holes are not filled from the padding.
    second = road(reads_picture, changed, target, {"a": heat}, valid=valid, batch_size=64)
    torch.testing.assert_close(first["a"].most_first, first["b"].most_first)
    torch.testing.assert_close(first["a"].most_first, second["a"].most_first, atol=5e-3, rtol=0)

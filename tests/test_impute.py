"""Imputers against a direct sparse solution of the same system, and against closed forms."""

import numpy as np
import pytest
import torch
from scipy.sparse import lil_matrix
from scipy.sparse.linalg import spsolve

from seglens import impute


def pictures(num: int, size: int, seed: int = 0) -> torch.Tensor:
    noise = torch.rand(num, 2, size, size, generator=torch.Generator().manual_seed(seed))
    return 0.3 * noise + 0.7 * impute.blurred(noise, 3.0)


def blocks(num: int, size: int, share: float, cells: int = 8, seed: int = 0) -> torch.Tensor:
    chosen = torch.rand(num, cells, cells, generator=torch.Generator().manual_seed(seed)) < share
    return chosen.repeat_interleave(size // cells, 1).repeat_interleave(size // cells, 2)


def direct(image: torch.Tensor, removed: torch.Tensor) -> np.ndarray:
    """Solve Rong's system pixel by pixel in float64, written from the paper's words."""
    values, holes = image.double().numpy(), removed.numpy()
    height, width = holes.shape
    rows, columns = np.nonzero(holes)
    number = {place: index for index, place in enumerate(zip(rows, columns, strict=True))}
    matrix, right = lil_matrix((len(rows), len(rows))), np.zeros((len(rows), len(values)))
    for (y, x), index in number.items():
        for dy, dx in [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if (a, b) != (0, 0)]:
            there = (y + dy, x + dx)
            if not (0 <= there[0] < height and 0 <= there[1] < width):
                continue
            weight = 1 / 12 if dy and dx else 1 / 6
            matrix[index, index] += weight
            if there in number:
                matrix[index, number[there]] -= weight
            else:
                right[index] += weight * values[:, there[0], there[1]]
    filled = values.copy()
    filled[:, rows, columns] = spsolve(matrix.tocsc(), right).reshape(len(rows), -1).T
    return filled


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("size", [24, 64])
def test_linear_is_the_direct_solution(size: int, share: float) -> None:
    images, removed = pictures(3, size), blocks(3, size, share)
    found = impute.linear(images, removed)
    for image, holes, filled in zip(images, removed, found, strict=True):
        error = direct(image, holes) - filled.double().numpy()
        assert np.sqrt(np.square(error[:, holes]).mean()) < impute.NOISE / 5
        assert np.abs(error).max() < impute.NOISE


def test_linear_carries_colour_into_the_widest_hole() -> None:
    images = pictures(1, 48)
    removed = torch.ones(1, 48, 48, dtype=torch.bool)
    removed[:, :12, :12] = False
    error = direct(images[0], removed[0]) - impute.linear(images, removed)[0].double().numpy()
    assert np.abs(error).max() < 2 * impute.NOISE


def test_a_picture_is_filled_the_same_in_any_company() -> None:
    images, removed = pictures(6, 32), torch.cat([blocks(3, 32, 0.1), blocks(3, 32, 0.9)])
    together = impute.linear(images, removed)
    for row in range(6):
        alone = impute.linear(images[row : row + 1], removed[row : row + 1])
        torch.testing.assert_close(alone, together[row : row + 1], atol=1e-5, rtol=0)


def test_grey_pictures_in_colour_are_filled_as_their_one_channel() -> None:
    grey, removed = pictures(2, 32)[:, :1], blocks(2, 32, 0.5)
    colour = impute.linear(grey.repeat(1, 3, 1, 1), removed)
    assert colour.is_contiguous()
    # A channel that differs leaves the other two as they are.
    other = torch.cat([grey, grey, 1 - grey], 1)
    torch.testing.assert_close(colour[:, :2], impute.linear(other, removed)[:, :2], atol=0, rtol=0)
    torch.testing.assert_close(colour[:, 2:], impute.linear(grey, removed), atol=1e-6, rtol=0)


def test_planes_are_filled_exactly_inside() -> None:
    # A linear ramp is its own weighted mean of neighbours, by symmetry.
    ramp = (torch.arange(32.0)[:, None] * 0.5 + torch.arange(32.0)[None]) / 48
    images = ramp.expand(1, 1, 32, 32).contiguous()
    removed = torch.zeros(1, 32, 32, dtype=torch.bool)
    removed[:, 8:20, 10:25] = True
    torch.testing.assert_close(impute.linear(images, removed), images, atol=2e-3, rtol=0)


def test_noisy_linear_adds_small_noise_in_the_hole_only() -> None:
    images, removed = pictures(2, 32), blocks(2, 32, 0.4)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    filled = impute.noisy_linear(images, removed, noise)
    holes = removed[:, None].expand_as(images)
    assert torch.equal(filled[~holes], images[~holes])
    difference = (filled - impute.linear(images, removed))[holes]
    torch.testing.assert_close(difference, impute.NOISE * noise[holes], atol=1e-6, rtol=0)


def test_nothing_removed_is_the_picture_and_all_removed_its_mean() -> None:
    images = pictures(2, 16)
    nothing = torch.zeros(2, 16, 16, dtype=torch.bool)
    assert torch.equal(impute.linear(images, nothing), images)
    mixed = nothing.clone()
    mixed[1] = True
    filled = impute.linear(images, mixed)
    assert torch.equal(filled[0], images[0])
    expected = images[1].mean((1, 2), keepdim=True).expand_as(images[1])
    torch.testing.assert_close(filled[1], expected, atol=1e-5, rtol=0)


def test_neighbours_of_ones_count_the_weights_in_the_picture() -> None:
    total = impute.neighbours(torch.ones(2, 3, 5, 5))[1, 2]
    assert float(total[2, 2]) == pytest.approx(1)
    assert float(total[0, 2]) == pytest.approx(3 / 6 + 2 / 12)
    assert float(total[0, 0]) == pytest.approx(2 / 6 + 1 / 12)


def test_blurred_keeps_constants_and_spreads_a_point_as_a_gaussian() -> None:
    flat = torch.full((1, 3, 20, 30), 0.4)
    torch.testing.assert_close(impute.blurred(flat), flat)
    point = torch.zeros(1, 1, 41, 41)
    point[..., 20, 20] = 1
    spread = impute.blurred(point, 3.0)[0, 0]
    assert float(spread.sum()) == pytest.approx(1, abs=1e-5)
    assert float(spread[20, 23] / spread[20, 20]) == pytest.approx(np.exp(-0.5), rel=1e-4)


@pytest.mark.parametrize("name", impute.IMPUTERS)
def test_every_imputer_leaves_kept_pixels_alone(name: str) -> None:
    images, removed = pictures(2, 16), blocks(2, 16, 0.5)
    filled = impute.IMPUTERS[name](images, removed, torch.zeros_like(images))
    kept = ~removed[:, None].expand_as(images)
    assert torch.equal(filled[kept], images[kept])
    assert not torch.equal(filled, images)


def test_mean_fills_with_the_picture_s_own_colour() -> None:
    images, removed = pictures(2, 16), blocks(2, 16, 0.5)
    filled = impute.fill_with_mean(images, removed, torch.zeros_like(images))
    for row in range(2):
        torch.testing.assert_close(
            filled[row][:, removed[row]],
            images[row].mean((1, 2))[:, None].expand(-1, int(removed[row].sum())),
        )

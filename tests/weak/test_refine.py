"""Refinement against loops over pixels, another library's guided filter, and closed forms."""

import pytest
import torch
from tests.weak.scenes import red_square

from seglens.errors import SettingError, UnknownNameError
from seglens.weak import refine as module
from seglens.weak.refine import REFINEMENTS, refine, tidy, vote
from seglens.weak.settings import RefineSettings


def field(image: torch.Tensor, values: torch.Tensor, settings: RefineSettings) -> torch.Tensor:
    """The mean field where every pixel asks every pixel, in loops and float64."""
    height, width = values.shape
    unary = torch.logit(values.double().clamp(0.02, 0.98)).flatten()
    reach = settings.distance * max(height, width)
    spots = [(row, column) for row in range(height) for column in range(width)]
    kernel = torch.zeros(len(spots), len(spots), dtype=torch.float64)
    for i, (row, column) in enumerate(spots):
        for j, (other_row, other_column) in enumerate(spots):
            far = ((row - other_row) ** 2 + (column - other_column) ** 2) / reach**2
            unlike = float(
                (image[:, row, column] - image[:, other_row, other_column]).double().square().sum()
            )
            kernel[i, j] = torch.tensor(-far / 2 - unlike / 2 / settings.colour**2).exp()
    kernel /= kernel.sum(1, keepdim=True)
    logits = unary
    for _ in range(settings.steps + 1):
        logits = unary + settings.weight * (kernel @ (2 * logits.sigmoid() - 1))
    return logits.sigmoid().view(height, width).float()


def test_the_mean_field_in_loops() -> None:
    image, _ = red_square((8, 10))
    values = torch.rand(8, 10, generator=torch.Generator().manual_seed(1))
    settings = RefineSettings(steps=3, weight=2.0, colour=0.3, distance=0.3)
    torch.testing.assert_close(
        refine(image, values, settings), field(image, values, settings), atol=1e-4, rtol=0
    )


def test_landmarks_stand_for_all_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    image, there = red_square()
    values = (
        there.float() * 0.4 + 0.3 + 0.25 * torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    )
    values = values.clamp(0, 1)
    few = refine(image, values, RefineSettings())
    monkeypatch.setattr(module, "LANDMARKS", 64 * 64)
    every = refine(image, values, RefineSettings())
    assert float((few - every).abs().mean()) < 0.03
    for found in (few, every):
        assert float(((found >= 0.5) == there).double().mean()) > 0.98
    assert float(((values >= 0.5) == there).double().mean()) < 0.9


def test_pixel_adaptive_refinement_in_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DILATIONS", (1, 2))
    image, _ = red_square((8, 9))
    values = torch.rand(8, 9, generator=torch.Generator().manual_seed(0))
    expected = torch.zeros(8, 9)
    for row in range(8):
        for column in range(9):
            near = [
                (min(max(row + d * a, 0), 7), min(max(column + d * b, 0), 8))
                for d in (1, 2)
                for a in (-1, 0, 1)
                for b in (-1, 0, 1)
                if (a, b) != (0, 0)
            ]
            pixels = torch.stack([image[:, spot[0], spot[1]] for spot in near])
            width = 0.1 * pixels.std(0, correction=0).clamp(min=1e-4)
            weights = (-((pixels - image[:, row, column]).abs() / width).mean(1)).softmax(0)
            expected[row, column] = sum(w * values[spot] for w, spot in zip(weights, near, strict=True))
    found = refine(image, values, RefineSettings(method="pamr", steps=1))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_the_guided_filter_in_windows() -> None:
    image, _ = red_square((12, 12))
    values = torch.rand(12, 12, generator=torch.Generator().manual_seed(0))
    radius, ridge = 2, 0.1**2
    slopes, offsets = torch.zeros(3, 12, 12), torch.zeros(12, 12)

    def window(row: int, column: int) -> tuple[slice, slice]:
        return slice(max(0, row - radius), row + radius + 1), slice(
            max(0, column - radius), column + radius + 1
        )

    for row in range(12):
        for column in range(12):
            spot = window(row, column)
            inside, level = image[(slice(None), *spot)].flatten(1), values[spot].flatten()
            centred = inside - inside.mean(1, keepdim=True)
            matrix = centred @ centred.T / len(level) + ridge * torch.eye(3)
            slopes[:, row, column] = torch.linalg.solve(matrix, centred @ (level - level.mean()) / len(level))
            offsets[row, column] = level.mean() - slopes[:, row, column] @ inside.mean(1)
    expected = torch.zeros(12, 12)
    for row in range(12):
        for column in range(12):
            spot = window(row, column)
            slope = slopes[(slice(None), *spot)].flatten(1).mean(1)
            expected[row, column] = slope @ image[:, row, column] + offsets[spot].mean()
    found = refine(image, values, RefineSettings(method="guided", colour=0.1, distance=2 / 12))
    torch.testing.assert_close(found, expected.clamp(0, 1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("method", REFINEMENTS)
def test_what_is_flat_stays_flat(method: str) -> None:
    image, _ = red_square((16, 20))
    found = refine(image, torch.full((16, 20), 0.5), RefineSettings(method=method))
    torch.testing.assert_close(found, torch.full((16, 20), 0.5))


def test_votes_are_means_of_superpixels() -> None:
    values = torch.tensor([[0.0, 1.0, 0.5], [0.2, 0.4, 0.6]])
    segments = torch.tensor([[0, 0, -1], [2, 2, 2]])
    torch.testing.assert_close(vote(values, segments), torch.tensor([[0.5, 0.5, 0.5], [0.4, 0.4, 0.4]]))
    assert torch.equal(vote(values, torch.full((2, 3), -1)), values)


def test_opening_and_closing() -> None:
    region = torch.zeros(20, 20, dtype=torch.bool)
    region[:, 5:] = True
    region[10, 12] = False
    region[3, 1] = True
    cleaned = torch.zeros(20, 20, dtype=torch.bool)
    cleaned[:, 5:] = True
    assert torch.equal(tidy(region, opening=1, closing=0)[3, 1], torch.tensor(False))
    assert torch.equal(tidy(region, opening=0, closing=1)[10, 12], torch.tensor(True))
    assert torch.equal(tidy(region, opening=0, closing=0), region)
    region[10, 12] = True
    assert torch.equal(tidy(region, opening=2, closing=2), cleaned)
    with pytest.raises(SettingError, match="must be 0 or more"):
        tidy(region, opening=-1, closing=0)


def test_what_is_refused() -> None:
    image, _ = red_square((8, 8))
    with pytest.raises(
        UnknownNameError, match=r"Unknown refinement 'crf'\. Allowed: mean-field, pamr, guided"
    ):
        refine(image, torch.zeros(8, 8), RefineSettings(method="crf"))
    with pytest.raises(SettingError, match=r"RefineSettings\.steps is 0, but must be from 1"):
        refine(image, torch.zeros(8, 8), RefineSettings(steps=0))
    with pytest.raises(SettingError, match=r"picture is of size \(8, 8\), and its map of \(4, 4\)"):
        refine(image, torch.zeros(4, 4), RefineSettings())

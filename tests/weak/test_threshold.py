"""Thresholds against brute force and against scikit-image, and the oracle's use on record."""

import pytest
import torch
from skimage.filters import threshold_multiotsu, threshold_otsu, threshold_triangle

from seglens.errors import DataError, SettingError, UnknownNameError
from seglens.weak.settings import ThresholdSettings
from seglens.weak.threshold import BINS, RULES, choose_threshold, count_values, otsu, otsu_twice


def hills(seed: int = 0) -> torch.Tensor:
    """Two groups of values, around 0.2 and 0.7."""
    generator = torch.Generator().manual_seed(seed)
    low = 0.2 + 0.06 * torch.randn(6000, generator=generator)
    high = 0.7 + 0.1 * torch.randn(3000, generator=generator)
    return torch.cat([low, high]).clamp(0, 1).view(90, 100)


def test_otsu_by_brute_force_and_by_another_library() -> None:
    counts = count_values([hills()])
    centre = (torch.arange(BINS) + 0.5) / BINS

    def between(edge: int) -> float:
        low, high = counts[:edge], counts[edge:]
        means = [
            float((part * at).sum() / part.sum())
            for part, at in ((low, centre[:edge]), (high, centre[edge:]))
        ]
        return float(low.sum() * high.sum()) * (means[0] - means[1]) ** 2

    edges = [edge for edge in range(1, BINS) if counts[:edge].sum() > 0 and counts[edge:].sum() > 0]
    assert between(round(otsu(counts) * BINS)) == pytest.approx(max(map(between, edges)), rel=1e-9)
    theirs = threshold_otsu(hist=(counts.numpy(), centre.numpy()))
    assert otsu(counts) == pytest.approx(theirs, abs=1.5 / BINS)


def test_two_thresholds_are_those_of_another_library() -> None:
    values = torch.cat([hills().flatten(), torch.full((3000,), 0.45)])
    counts = count_values([values[None]])[:BINS]
    coarse = counts.view(64, 4).sum(1)
    centre = ((torch.arange(64) + 0.5) / 64).numpy()
    theirs = threshold_multiotsu(classes=3, hist=(coarse.numpy(), centre))
    assert otsu_twice(coarse) == pytest.approx(tuple(theirs), abs=1.01 / 64)


def test_the_triangle_is_that_of_another_library() -> None:
    generator = torch.Generator().manual_seed(0)
    values = (-torch.rand(200, 200, generator=generator).log() * 0.1).clamp(0, 1)
    found = choose_threshold(count_values([values]), ThresholdSettings(rule="triangle")).middle
    assert found == pytest.approx(threshold_triangle(values.numpy(), nbins=BINS), abs=0.02)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_parts_two_groups_and_leaves_the_middle_open(rule: str) -> None:
    cut = choose_threshold(count_values([hills()]), ThresholdSettings(rule=rule, value=0.45))
    assert 0 < cut.low < cut.middle < cut.high < 1
    assert 0.2 < cut.middle < 0.7


def test_certainty_begins_at_the_medians_of_the_groups() -> None:
    values = hills()
    cut = choose_threshold(count_values([values]), ThresholdSettings())
    assert cut.low == pytest.approx(float(values[values < cut.middle].median()), abs=1 / BINS)
    assert cut.high == pytest.approx(float(values[values >= cut.middle].median()), abs=1 / BINS)


def test_every_map_counts_the_same_whatever_its_size() -> None:
    small, large = torch.full((2, 2), 0.1), torch.full((20, 20), 0.9)
    counts = count_values([small, large])
    assert counts[int(0.1 * BINS)] == counts[int(0.9 * BINS)] == 1


def test_what_is_refused() -> None:
    with pytest.raises(DataError, match="All heat maps are the same everywhere"):
        choose_threshold(count_values([torch.zeros(4, 4)]), ThresholdSettings())
    with pytest.raises(UnknownNameError, match=r"rule for a threshold 'ostu'\. Did you mean 'otsu'"):
        choose_threshold(count_values([hills()]), ThresholdSettings(rule="ostu"))
    with pytest.raises(SettingError, match="between 0 and 1"):
        choose_threshold(count_values([hills()]), ThresholdSettings(rule="fixed", value=1.0))

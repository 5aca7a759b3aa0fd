"""Detection over seeds against closed forms: variances, quantiles of three pairs, Mann-Whitney by SciPy."""

import math

import pytest
import torch
from benchmarks import shortcut_detection as detecting
from benchmarks.shortcut_detection import auroc_over_pairs, detection, nested_bounds, pairs, threshold
from scipy.stats import mannwhitneyu

from seglens.errors import SettingError
from seglens.evaluate.intervals import auroc


def means(groups: list[torch.Tensor]) -> list:
    return [lambda rows, values=group: values[rows].mean(1) for group in groups]


def test_the_variance_is_that_of_two_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: variance between groups plus the mean of variance within over size, all over K."""
    monkeypatch.setattr(detecting, "RESAMPLES", 40000)
    generator = torch.Generator().manual_seed(0)
    sizes = (40, 25, 60, 40, 30, 50, 20, 45)
    groups = [torch.randn(size, generator=generator) * 2 + 3 * k for k, size in enumerate(sizes)]
    between = torch.stack([group.mean() for group in groups]).var(correction=0)
    within = torch.stack([group.var(correction=0) / len(group) for group in groups]).mean()
    deviation = math.sqrt(float(between + within) / len(groups))
    low, high = nested_bounds(means(groups), sizes, seed=3)
    middle = float(torch.stack([group.mean() for group in groups]).mean())
    assert (high - low) / 2 == pytest.approx(1.96 * deviation, rel=0.03)
    assert (high + low) / 2 == pytest.approx(middle, abs=0.1 * deviation)


def test_three_groups_that_agree_within_give_the_worst_and_the_best() -> None:
    """All three draws are the lowest with chance 1 in 27, above 2.5 %: the bound is that group's own."""
    groups = [torch.full((5,), value) for value in (0.2, 0.5, 0.9)]
    assert nested_bounds(means(groups), [5] * 3) == (pytest.approx(0.2), pytest.approx(0.9))


def test_two_stages_are_wider_than_one_where_seeds_differ() -> None:
    generator = torch.Generator().manual_seed(0)
    honest = [torch.rand(30, generator=generator) for _ in range(3)]
    cheat = [values + shift for values, shift in zip(honest, (0.0, 0.3, 1.0), strict=True)]
    nested = auroc_over_pairs(pairs(cheat, honest))
    flat = auroc(torch.cat(cheat), torch.cat(honest))
    assert nested.high - nested.low > 2 * (flat.high - flat.low)


def test_one_pair_is_the_plain_bootstrap_over_pictures() -> None:
    generator = torch.Generator().manual_seed(1)
    first, second = torch.rand(40, generator=generator) + 0.2, torch.rand(40, generator=generator)
    found, plain = auroc_over_pairs(pairs([first], [second])), auroc(first, second)
    assert found.mean == pytest.approx(plain.mean)
    assert found.low == pytest.approx(plain.low, abs=0.01)
    assert found.high == pytest.approx(plain.high, abs=0.01)


def test_auroc_is_the_mean_of_mann_whitney_s_over_pairs() -> None:
    generator = torch.Generator().manual_seed(2)
    cheat = [(torch.randn(size, generator=generator) + 1).round(decimals=1) for size in (12, 20, 15)]
    honest = [torch.randn(size, generator=generator).round(decimals=1) for size in (12, 20, 15)]
    expected = [
        mannwhitneyu(first.numpy(), second.numpy()).statistic / len(first) ** 2
        for first, second in zip(cheat, honest, strict=True)
    ]
    found = auroc_over_pairs(pairs(cheat, honest))
    assert found.mean == pytest.approx(sum(expected) / 3)
    assert found.low <= min(expected) + 0.02
    assert found.high >= max(expected) - 0.02
    assert found.num == 47


def test_models_without_a_difference_get_one_half() -> None:
    values = [torch.rand(16, generator=torch.Generator().manual_seed(k)) for k in range(3)]
    found = auroc_over_pairs(pairs(values, values))
    assert found.mean == 0.5
    assert found.low == found.high == 0.5  # a picture's two values are drawn together
    alike = detection(pairs(values, values))
    assert alike.rate.mean == pytest.approx(alike.false_alarms)


def test_the_threshold_knows_nothing_of_its_own_pair() -> None:
    honest = [torch.arange(20.0), torch.arange(20.0) + 100, torch.arange(20.0)]
    cheat = [torch.full((20,), 119.0), torch.full((20,), 119.0), torch.full((20,), 50.0)]
    found = detection(pairs(cheat, honest), allowed=0.05)
    # Pairs 0 and 2: of the 40 others two exceed 117. Pair 1: of the 40 others two (19 and 19) exceed 18.
    assert found.rate.mean == pytest.approx((1 + 1 + 0) / 3)
    assert found.false_alarms == pytest.approx((0 + 1 + 0) / 3)
    assert (found.rate.low, found.rate.high) == (0, 1)


def test_thresholds_by_count() -> None:
    """Oracle: try every value."""
    generator = torch.Generator().manual_seed(4)
    for allowed in (0.0, 0.05, 0.1, 0.33):
        values = torch.rand(37, generator=generator).round(decimals=1)
        fits = [float(v) for v in values if float((values > v).double().mean()) <= allowed]
        assert threshold(values, allowed) == min(fits)


def test_pictures_without_both_are_left_out_and_empty_pairs_dropped() -> None:
    nan = float("nan")
    found = pairs(
        [torch.tensor([1.0, nan, 3.0]), torch.tensor([nan, 1.0])],
        [torch.tensor([0.0, 1.0, nan]), torch.tensor([1.0, nan])],
    )
    assert [values.tolist() for values in found.cheat] == [[1.0]]
    assert found.num_images == 1
    assert auroc_over_pairs(pairs([], [])).num == 0
    assert math.isnan(detection(found).false_alarms)
    with pytest.raises(SettingError, match=r"are of \[2\] pictures, the honest models' of \[3\]: give both"):
        pairs([torch.ones(2)], [torch.ones(3)])

"""Intervals against the normal theory, AUROC against a count by hand and against SciPy."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu

from seglens.evaluate.intervals import auroc, interval, interval_bounds, numbered


def test_interval_is_that_of_the_normal_theory_for_many_values() -> None:
    values = torch.randn(400, generator=torch.Generator().manual_seed(0)) + 3
    found = interval(values)
    half = 1.96 * float(values.std()) / 20
    assert found.mean == pytest.approx(float(values.mean()))
    assert found.low == pytest.approx(found.mean - half, abs=0.03)
    assert found.high == pytest.approx(found.mean + half, abs=0.03)


def test_nan_is_left_out_and_lone_values_have_no_interval() -> None:
    nan = float("nan")
    found = interval(torch.tensor([1.0, nan, 3.0]))
    assert (found.mean, found.num) == (2.0, 2)
    alone = interval(torch.tensor([nan, 2.0]))
    assert (alone.mean, alone.num) == (2.0, 1)
    assert math.isnan(alone.low)
    assert math.isnan(alone.high)
    nothing = interval(torch.tensor([nan]))
    assert nothing.num == 0
    assert math.isnan(nothing.mean)


def test_an_interval_doesnt_depend_on_the_size_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.arange(10.0)
    whole = interval(values, seed=5)
    monkeypatch.setattr("seglens.evaluate.intervals.BLOCK", 70)
    assert interval(values, seed=5) == whole


def test_bounds_of_a_constant_are_the_constant() -> None:
    assert interval_bounds(7, lambda rows: torch.full((len(rows),), 2.5), seed=0) == (2.5, 2.5)


def test_auroc_by_hand() -> None:
    found = auroc(torch.tensor([3.0, 2.0]), torch.tensor([1.0, 2.0]))
    assert found.mean == pytest.approx((1 + 1 + 1 + 0.5) / 4)
    assert auroc(torch.tensor([2.0, 3.0]), torch.tensor([0.0, 1.0])).mean == 1
    assert auroc(torch.ones(5), torch.ones(5)).mean == 0.5


def test_auroc_is_mann_whitney_s_and_leaves_incomplete_rows_out() -> None:
    generator = torch.Generator().manual_seed(1)
    first, second = torch.randn(30, generator=generator) + 0.5, torch.randn(30, generator=generator)
    expected = mannwhitneyu(first.numpy(), second.numpy()).statistic / 900
    found = auroc(first, second)
    assert found.mean == pytest.approx(expected)
    assert found.low < expected < found.high
    holed = torch.cat([first, torch.tensor([float("nan"), 1e6])])
    assert auroc(holed, torch.cat([second, torch.tensor([0.0, float("nan")])])) == found


def test_auroc_s_interval_resamples_both_columns_together() -> None:
    # Every resample of rows (i, i + .5) has ties and wins that can be counted with weights: all in [0, 1].
    values = torch.arange(20.0)
    found = auroc(values + 0.5, values)
    # S_i beats U_j for j <= i: 210 of 400 pairs.
    assert found.mean == pytest.approx(210 / 400)
    # A resample with counts n_i scores sum(n_i (n_i + those below)) / 400 = .5 + sum(n_i^2) / 800.
    assert found.low > 0.5


def old_interval(values: torch.Tensor, seed: int) -> tuple[float, float]:
    """The bootstrap over images as it was before there were groups."""
    draws = torch.randint(len(values), (2000, len(values)), generator=torch.Generator().manual_seed(seed))
    means = values.double()[draws].mean(1)
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


@pytest.mark.parametrize("num", [2, 3, 59, 500])
def test_groups_of_one_image_each_give_the_interval_of_images_exactly(num: int) -> None:
    values = torch.rand(num, generator=torch.Generator().manual_seed(num))
    plain = interval(values, seed=3)
    assert (plain.low, plain.high) == old_interval(values, 3)
    alone = interval(values, groups=torch.randperm(num), seed=3)
    assert (alone.mean, alone.low, alone.high, alone.num) == (plain.mean, plain.low, plain.high, plain.num)
    assert (alone.num_groups, plain.num_groups) == (num, None)


def test_a_cluster_bootstrap_by_hand_has_the_same_draws() -> None:
    values = [0.1, 0.9, math.nan, 0.4, 0.8, 0.3, 0.7]
    names = ["a", "b", "c", "a", "d", "b", "a"]
    found = interval(torch.tensor(values, dtype=torch.float64), groups=numbered(names), seed=11)
    members = {"a": [0.1, 0.4, 0.7], "b": [0.9, 0.3], "d": [0.8]}  # c has no value
    order = list(members)
    draws = torch.randint(3, (2000, 3), generator=torch.Generator().manual_seed(11)).tolist()
    means = []
    for draw in draws:
        drawn = [value for place in draw for value in members[order[place]]]
        means.append(sum(drawn) / len(drawn))
    assert found.low == pytest.approx(float(np.quantile(means, 0.025)), abs=1e-12)
    assert found.high == pytest.approx(float(np.quantile(means, 0.975)), abs=1e-12)
    assert found.mean == pytest.approx(sum(map(sum, members.values())) / 6)
    assert (found.num, found.num_groups) == (6, 3)


def test_copies_of_an_image_add_nothing_to_its_interval() -> None:
    """Eight copies of each value in a group are one value each: as wide as without copies."""
    values = torch.rand(30, generator=torch.Generator().manual_seed(0))
    copied, groups = values.repeat_interleave(8), torch.arange(30).repeat_interleave(8)
    once, honest, blind = interval(values), interval(copied, groups=groups), interval(copied)
    assert (honest.low, honest.high) == pytest.approx((once.low, once.high))
    assert blind.high - blind.low < 0.5 * (honest.high - honest.low)


def test_one_group_has_no_interval() -> None:
    found = interval(torch.tensor([1.0, 2.0, 3.0]), groups=torch.tensor([4, 4, 4]))
    assert (found.mean, found.num, found.num_groups) == (2, 3, 1)
    assert math.isnan(found.low)


def test_the_area_under_the_curve_resamples_groups() -> None:
    first, second = torch.tensor([1.0, 3.0, 2.0, 5.0]), torch.tensor([2.0, 1.0, 2.5, 0.0])
    names = ["x", "x", "y", "z"]
    found = auroc(first, second, groups=numbered(names), seed=2)
    draws = torch.randint(3, (2000, 3), generator=torch.Generator().manual_seed(2)).tolist()
    areas = []
    for draw in draws:
        rows = [row for group in draw for row in {0: (0, 1), 1: (2,), 2: (3,)}[group]]
        pairs = [(float(first[i]) > float(second[j])) for i in rows for j in rows]
        areas.append(sum(pairs) / len(pairs))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(areas, [0.025, 0.975])), abs=1e-12)

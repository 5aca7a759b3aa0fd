"""Intervals against the normal theory, AUROC against a count by hand and against SciPy."""

import math

import pytest
import torch
from scipy.stats import mannwhitneyu

from seglens.evaluate.intervals import auroc, interval, interval_bounds


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

"""Paired differences against closed forms, numpy, and scores of counts."""

import numpy as np
import pytest
import torch

from seglens.compare.differences import paired, score_changes, verdict
from seglens.compare.matching import joined_groups
from seglens.evaluate.intervals import RESAMPLES, Interval
from seglens.evaluate.scores import scores
from seglens.evaluate.tally import _row
from seglens.results.scores import PictureScores

NUM = 40


def rows_of(counts):
    """Rows as an evaluation writes them, of confusion matrices."""
    return [PictureScores.model_validate({"name": str(i), **_row(each)}) for i, each in enumerate(counts)]


@pytest.fixture
def counts():
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(1, 99, (NUM, 2, 2), generator=generator) for _ in range(2)]


def test_a_constant_difference_has_an_interval_without_width():
    values = torch.rand(NUM, dtype=torch.float64)
    found = paired(values, values + 0.25)
    assert (found.mean, found.low, found.high) == pytest.approx((0.25, 0.25, 0.25))


def test_pairs_with_a_gap_are_left_out():
    found = paired(torch.tensor([0.0, torch.nan, 0.5, torch.inf]), torch.tensor([1.0, 1.0, 1.5, 0.0]))
    assert (found.mean, found.num) == (1.0, 2)


def test_the_interval_is_that_of_paired_resamples(counts):
    """Against numpy, drawing the same resamples: pairs stay together."""
    first, second = (scores(each)["dice"] for each in counts)
    drawn = torch.randint(NUM, (RESAMPLES, NUM), generator=torch.Generator().manual_seed(3)).numpy()
    means = second.numpy()[drawn].mean(1) - first.numpy()[drawn].mean(1)
    found = paired(first, second, seed=3)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))


def test_pooled_scores_are_those_of_the_sum_of_counts(counts):
    found = {
        (row["score"], row["kind"]): row
        for row in score_changes(rows_of(counts[0]), rows_of(counts[1]), 2, seed=3)
    }
    drawn = torch.randint(NUM, (RESAMPLES, NUM), generator=torch.Generator().manual_seed(3))
    for name in ("dice", "iou", "precision", "recall"):
        row = found[name, "pooled"]
        whole = [float(scores(each.sum(0))[name]) for each in counts]
        assert (row["reference"], row["value"]) == pytest.approx(whole)
        resampled = scores(counts[1][drawn].sum(1))[name] - scores(counts[0][drawn].sum(1))[name]
        expected = resampled.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
        assert (row["low"], row["high"]) == pytest.approx(expected)


def test_a_row_holds_both_values_and_who_gained(counts):
    first, second = map(rows_of, counts)
    row = score_changes(first, second, 2)[0]
    gain = np.array([b["dice"] - a["dice"] for a, b in zip(first, second, strict=True)])
    assert (row["score"], row["num_better"], row["num_worse"]) == ("dice", (gain > 0).sum(), (gain < 0).sum())
    assert row["difference"] == pytest.approx(row["value"] - row["reference"])


def test_pooled_scores_are_of_two_classes_only(counts):
    assert all(row["kind"] == "per image" for row in score_changes(rows_of(counts[0]), rows_of(counts[1]), 3))


def test_of_distances_less_is_better():
    near, far = ([PictureScores(name="", hd95=value + i) for i in range(5)] for value in (1.0, 9.0))
    (row,) = score_changes(far, near, 3)
    assert (row["score"], row["verdict"], row["num_better"]) == ("hd95", "better", 5)


@pytest.mark.parametrize(
    ("low", "high", "num", "expected"),
    [
        (0.1, 0.3, 9, "better"),
        (-0.3, -0.1, 9, "worse"),
        (-0.1, 0.3, 9, "no difference shown"),
        (0.0, 0.0, 9, "no difference shown"),
        (torch.nan, torch.nan, 1, "not evaluable"),
    ],
)
def test_verdicts(low, high, num, expected):
    assert verdict("dice", Interval((low + high) / 2, low, high, num)) == expected


def test_pooled_differences_of_groups_by_hand(counts):
    """Groups of 1 to 4 pictures: each resample adds up the counts of whole groups."""
    names = [0, 1, 1, 2, 2, 2, 3, 3, 3, 3] * 4
    groups = torch.tensor([name + 4 * (place // 10) for place, name in enumerate(names)])
    (row,) = [
        row
        for row in score_changes(rows_of(counts[0]), rows_of(counts[1]), 2, groups=groups, seed=5)
        if (row.score, row.kind) == ("dice", "pooled")
    ]
    sums = [torch.stack([each[groups == group].sum(0) for group in range(16)]) for each in counts]
    drawn = torch.randint(16, (RESAMPLES, 16), generator=torch.Generator().manual_seed(5))
    resampled = scores(sums[1][drawn].sum(1))["dice"] - scores(sums[0][drawn].sum(1))["dice"]
    expected = resampled.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    assert (row.low, row.high) == pytest.approx(expected)


def test_pictures_that_any_run_has_in_one_group_are_in_one():
    first = ["a", "a", "", "b", "c", ""]
    second = ["x", "y", "z", "y", "", ""]
    assert joined_groups([first, second]).tolist() == [0, 0, 1, 0, 2, 3]
    assert joined_groups([[""] * 3, [""] * 3]).tolist() == [0, 1, 2]

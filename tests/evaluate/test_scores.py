import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seglens.errors import DataError
from seglens.evaluate.intervals import interval
from seglens.evaluate.scores import DEFINITIONS, confusion, per_class, pooled_scores, scores, summary

ALL = torch.ones(2, 3, dtype=torch.bool)


@st.composite
def masks(draw, num_classes=3):
    """Prediction, truth and valid of one size."""
    seed = draw(st.integers(0, 2**31))
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    generator = torch.Generator().manual_seed(seed)
    prediction, truth = (torch.randint(num_classes, shape, generator=generator) for _ in range(2))
    return prediction, truth, torch.rand(shape, generator=generator) < 0.8


def values(matrix):
    return {name: value.item() for name, value in scores(matrix).items()}


def test_by_hand():
    truth = torch.tensor([[1, 1, 0], [0, 0, 1]])
    prediction = torch.tensor([[1, 0, 0], [1, 0, 1]])
    matrix = confusion(prediction, truth, ALL, 2)
    assert matrix.tolist() == [[2, 1], [1, 2]]
    assert matrix.dtype == torch.int64
    found = values(matrix)
    assert found["dice"] == pytest.approx(2 / 3)
    assert found["iou"] == pytest.approx(1 / 2)
    assert found["miou"] == pytest.approx(1 / 2)
    assert found["pixel_accuracy"] == pytest.approx(4 / 6)
    assert found["precision"] == pytest.approx(2 / 3)
    assert found["recall"] == pytest.approx(2 / 3)


def test_only_valid_pixels_count():
    truth = torch.tensor([[1, 255, 0], [0, 0, 1]])
    prediction = torch.tensor([[1, 0, 0], [0, 0, 1]])
    valid = truth != 255
    matrix = confusion(prediction, truth, valid, 2)
    assert matrix.sum() == 5
    assert values(matrix)["dice"] == 1


def test_pooled_is_not_the_mean_of_images():
    # A large object found whole, a small one missed.
    pair = torch.tensor([[[0, 0], [0, 90]], [[99, 0], [1, 0]]])
    assert scores(pair)["dice"].tolist() == [1, 0]
    assert values(pair.sum(dim=0))["dice"] == pytest.approx(180 / 181)


def test_nothing_true_and_nothing_predicted_scores_one():
    found = values(torch.tensor([[6, 0], [0, 0]]))
    assert set(found.values()) == {1.0}


def test_precision_and_recall_are_undefined_not_invented():
    missed, invented = values(torch.tensor([[3, 0], [3, 0]])), values(torch.tensor([[3, 3], [0, 0]]))
    assert missed["dice"] == invented["dice"] == 0
    assert math.isnan(missed["precision"])
    assert missed["recall"] == 0
    assert math.isnan(invented["recall"])
    assert invented["precision"] == 0


def test_a_class_that_is_nowhere_is_left_out_of_the_mean():
    found = values(torch.tensor([[4, 0, 0], [1, 1, 0], [0, 0, 0]]))
    assert found["dice"] == pytest.approx(2 / 3)
    assert found["miou"] == pytest.approx((4 / 5 + 1 / 2) / 2)


def test_no_valid_pixel_is_undefined():
    assert all(math.isnan(value) for value in values(torch.zeros(2, 2, dtype=torch.int64)).values())


def test_classes_out_of_range_are_refused():
    with pytest.raises(DataError, match=r"from 0 to 7, allowed are 0 to 1 \(2 classes\)"):
        confusion(torch.zeros(2, 3, dtype=torch.int64), torch.full((2, 3), 7), ALL, 2)


@settings(deadline=None, max_examples=60)
@given(masks())
def test_against_numpy(arrays):
    prediction, truth, valid = arrays
    p, t = prediction.numpy()[valid.numpy()], truth.numpy()[valid.numpy()]
    found = per_class(confusion(prediction, truth, valid, 3))
    for index in range(3):
        both, either = ((p == index) & (t == index)).sum(), ((p == index) | (t == index)).sum()
        if either:
            assert found["iou"][index].item() == pytest.approx(both / either)
            assert found["dice"][index].item() == pytest.approx(
                2 * both / ((p == index).sum() + (t == index).sum())
            )
        else:
            assert found["iou"][index].isnan()


@settings(deadline=None, max_examples=60)
@given(masks(num_classes=2))
def test_dice_follows_from_iou(arrays):
    prediction, truth, valid = arrays
    found = values(confusion(prediction, truth, valid, 2))
    if valid.any():
        assert found["dice"] == pytest.approx(2 * found["iou"] / (1 + found["iou"]))


@settings(deadline=None, max_examples=60)
@given(masks())
def test_swapping_prediction_and_truth_swaps_precision_and_recall(arrays):
    prediction, truth, valid = arrays
    one, other = (
        scores(confusion(prediction, truth, valid, 3)),
        scores(confusion(truth, prediction, valid, 3)),
    )
    names = {"dice": "dice", "iou": "iou", "miou": "miou", "precision": "recall", "recall": "precision"}
    for name, swapped in names.items():
        torch.testing.assert_close(one[name], other[swapped], equal_nan=True)


@settings(deadline=None, max_examples=60)
@given(masks())
def test_perfect_is_one(arrays):
    _, truth, valid = arrays
    if valid.any():
        assert set(values(confusion(truth, truth, valid, 3)).values()) == {1.0}


def test_summary_by_hand():
    found = summary(torch.tensor([0.0, 1.0, 0.5, float("nan")]))
    assert found["num"] == 3
    assert found["mean"] == pytest.approx(0.5)
    assert found["median"] == pytest.approx(0.5)
    assert found["std"] == pytest.approx(0.5)
    assert found["low"] <= found["mean"] <= found["high"]


def test_summary_of_one_value_has_no_interval_and_of_none_no_mean():
    one = summary(torch.tensor([0.25]))
    assert (one["mean"], one["num"]) == (0.25, 1)
    assert math.isnan(one["std"])
    assert math.isnan(one["low"])
    assert math.isnan(summary(torch.tensor([]))["mean"])


def test_bootstrap_agrees_with_the_normal_interval_of_a_large_sample():
    sample = torch.from_numpy(np.random.default_rng(0).normal(size=400))
    low, high = interval(sample).low, interval(sample).high
    half = 1.96 * sample.std().item() / 20
    assert low == pytest.approx(sample.mean().item() - half, abs=0.15 * half)
    assert high == pytest.approx(sample.mean().item() + half, abs=0.15 * half)


def test_every_score_is_defined_in_words():
    assert set(scores(torch.ones(2, 2, dtype=torch.int64))) <= set(DEFINITIONS)


def test_where_nothing_is_shown_overlap_says_nothing():
    nothing, missed = torch.tensor([[9, 0], [0, 0]]), torch.tensor([[9, 3], [0, 0]])
    assert scores(nothing)["dice"] == 1  # of one image
    for counts in (nothing, missed):
        found = pooled_scores(counts)
        assert all(found[name].isnan() for name in ("dice", "iou", "miou", "precision", "recall"))
        assert not found["pixel_accuracy"].isnan()
    assert pooled_scores(nothing + torch.tensor([[0, 0], [1, 0]]))["dice"] == 0

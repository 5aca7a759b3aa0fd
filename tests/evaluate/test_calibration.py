import math
from functools import reduce
from operator import add

import matplotlib.figure
import pytest
import torch
from PIL import Image

from seglens.errors import SettingError
from seglens.evaluate import calibration as module
from seglens.evaluate.calibration import (
    NUM_BINS,
    STEPS,
    Thresholds,
    count_bins,
    count_thresholds,
    reliability_plot,
)
from seglens.evaluate.scores import confusion, scores


def picture(seed, num_classes=2, size=(13, 11)):
    """Probabilities, truth and valid of a random picture; a few probabilities are exactly 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    probabilities = (4 * torch.randn(num_classes, *size, generator=generator)).softmax(dim=0)
    probabilities[:, 0, 0] = torch.eye(num_classes)[0]
    probabilities[:, 0, 1] = torch.eye(num_classes)[1]
    truth = torch.randint(num_classes, size, generator=generator)
    return probabilities, truth, torch.rand(size, generator=generator) < 0.8


def foreground(probability):
    return torch.stack([1 - probability, probability])


def brute_bins(claims):
    """The intervals of Guo et al. one after the other: mean probability, share true, pixels."""
    found = []
    for m in range(NUM_BINS):
        low, high = m / NUM_BINS, (m + 1) / NUM_BINS
        inside = [each for each in claims if low < each[0] <= high or (m == 0 and each[0] == 0)]
        num = len(inside)
        means = [sum(column) / num for column in zip(*inside, strict=True)] if num else [math.nan] * 2
        found.append((*means, num))
    return found


@pytest.mark.parametrize("num_classes", [2, 3])
def test_bins_and_errors_against_the_definition(num_classes):
    pictures = [picture(seed, num_classes) for seed in range(3)]
    found = reduce(add, [count_bins(*each) for each in pictures])
    top, second = [], []
    for probabilities, truth, valid in pictures:
        for y, x in valid.nonzero().tolist():
            pixel = probabilities[:, y, x].double().tolist()
            top.append((max(pixel), float(pixel.index(max(pixel)) == truth[y, x])))
            second.append((pixel[1], float(truth[y, x] == 1)))
    expected = brute_bins(top)
    gaps = [(abs(share - mean), num) for mean, share, num in expected if num]
    assert found.error() == pytest.approx(sum(gap * num for gap, num in gaps) / len(top))
    assert found.maximum_error() == pytest.approx(max(gap for gap, _ in gaps))
    assert [row["pixels"] for row in found.rows()] == [num for *_, num in expected]
    if num_classes == 3:
        assert found.foreground is None
        return
    assert found.foreground is not None
    for row, (mean, share, num) in zip(found.foreground.rows(), brute_bins(second), strict=True):
        assert row["pixels"] == num
        assert (row["probability"], row["share"]) == pytest.approx((mean, share), nan_ok=True)


def test_bins_are_closed_above():
    edges = torch.tensor([[0.0, 0.2, 0.2 + 1e-6, 1.0]], dtype=torch.float64)
    counted = count_bins(foreground(edges), torch.zeros(1, 4, dtype=torch.int64), torch.ones(1, 4) > 0)
    assert counted.foreground is not None
    assert counted.foreground.pixels.nonzero()[:, 0].tolist() == [0, 2, 3, 14]
    rows = counted.foreground.rows()
    assert (rows[2]["low"], rows[2]["high"]) == pytest.approx((2 / 15, 3 / 15))


def test_a_calibrated_model_has_hardly_an_error():
    # Of n pixels and M bins the mean error is at most sum_m sqrt(n_m / 4) / n <= sqrt(M / n) / 2, and by
    # McDiarmid (a pixel moves it by 1 / n) it is above that by sqrt(log(1e6) / 2n) once in a million.
    generator = torch.Generator().manual_seed(0)
    probability = torch.rand(300, 300, generator=generator, dtype=torch.float64)
    truth = (torch.rand(300, 300, generator=generator) < probability).long()
    counted = count_bins(foreground(probability), truth, truth >= 0)
    allowed = (math.sqrt(NUM_BINS) / 2 + math.sqrt(math.log(1e6) / 2)) / 300
    assert counted.error() < allowed < 0.016
    assert counted.foreground is not None
    assert counted.foreground.error() < allowed


def test_a_certain_model_that_is_half_wrong():
    prediction = torch.tensor([[0, 1], [0, 1]])
    truth = torch.tensor([[0, 1], [1, 0]])
    counted = count_bins(foreground(prediction.float()), truth, truth >= 0)
    assert counted.error() == counted.maximum_error() == 0.5


def test_a_hedging_model_that_is_always_right():
    truth = torch.tensor([[0, 1, 0, 1]])
    counted = count_bins(foreground(0.3 + 0.4 * truth), truth, truth >= 0)
    assert counted.error() == pytest.approx(0.3)


def test_counts_of_parts_add_up(monkeypatch):
    probabilities, truth, valid = picture(0, size=(30, 20))
    whole, steps = count_bins(probabilities, truth, valid), count_thresholds(probabilities[1], truth, valid)
    top, bottom = ((probabilities[:, part], truth[part], valid[part]) for part in (slice(11), slice(11, 30)))
    parts = count_bins(*top) + count_bins(*bottom)
    monkeypatch.setattr(module, "STRIP", 70)
    strips = count_bins(probabilities, truth, valid)
    for other in (parts, strips):
        assert other.foreground is not None
        assert whole.foreground is not None
        for mine, theirs in ((whole.top, other.top), (whole.foreground, other.foreground)):
            assert torch.equal(mine.pixels, theirs.pixels)
            assert torch.equal(mine.true, theirs.true)
            torch.testing.assert_close(mine.probability, theirs.probability)
    for sum_of in (
        count_thresholds(probabilities[1], truth, valid),
        count_thresholds(top[0][1], *top[1:]) + count_thresholds(bottom[0][1], *bottom[1:]),
    ):
        assert torch.equal(sum_of.pixels, steps.pixels)
        assert torch.equal(sum_of.true, steps.true)


def test_what_is_not_valid_counts_for_nothing():
    probabilities, truth, valid = picture(4)
    before = count_bins(probabilities, truth, valid)
    probabilities[:, ~valid] = 0.5
    truth[~valid] = 255
    after = count_bins(probabilities, truth, valid)
    for row, other in zip(before.rows(), after.rows(), strict=True):
        assert row == pytest.approx(other, nan_ok=True, abs=0, rel=0)
    nothing = count_bins(probabilities, truth, torch.zeros_like(valid))
    assert math.isnan(nothing.error())
    assert math.isnan(nothing.maximum_error())
    assert math.isnan(count_thresholds(probabilities[1], truth, torch.zeros_like(valid)).best()[1])


def brute_dice(pictures, threshold):
    """Dice from the confusion counts of the masks that the threshold makes."""
    counts = [confusion((p[1] >= threshold).long(), t, v, 2) for p, t, v in pictures]
    return scores(sum(counts[1:], start=counts[0]))["dice"].item()


@pytest.mark.parametrize("seed", range(2))
def test_thresholds_against_masks(seed):
    pictures = [picture(seed + 10 * index) for index in range(2)]
    # Some probabilities lie exactly on a threshold.
    exact = pictures[0][0][1].mul(STEPS).round().div(STEPS)
    pictures[0] = (foreground(exact), *pictures[0][1:])
    found = reduce(add, [count_thresholds(p[1], t, v) for p, t, v in pictures])
    expected = [brute_dice(pictures, k / STEPS) for k in range(1, STEPS)]
    assert found.curve()[1:].tolist() == pytest.approx(expected)
    assert found.dice(0.25) == pytest.approx(expected[249])

    threshold, dice = found.best()
    assert dice == pytest.approx(max(expected))
    assert brute_dice(pictures, threshold) == pytest.approx(dice)


def test_of_equal_thresholds_the_middle_one():
    truth = torch.tensor([[0, 0, 1, 1]])
    everywhere = truth >= 0
    assert count_thresholds(truth.float(), truth, everywhere).best() == (0.5, 1.0)
    # All thresholds from .201 to .8 are right.
    hedged = torch.tensor([[0.1, 0.2, 0.8, 0.9]])
    assert count_thresholds(hedged, truth, everywhere).best() == (0.501, 1.0)
    # Two runs with Dice 2/3: one true pixel of two from .6 on, and three in all up to .3, the longer one.
    runs = torch.tensor([[0.3, 0.6, 0.3, 0.7]])
    counted = count_thresholds(runs, torch.tensor([[0, 0, 1, 1]]), everywhere)
    assert counted.dice(0.2) == counted.dice(0.65) == pytest.approx(2 / 3)
    assert counted.dice(0.5) == pytest.approx(0.5)
    assert counted.best() == (0.151, pytest.approx(2 / 3))


def test_without_foreground_nothing_is_chosen():
    probability = torch.tensor([[0.2, 0.9]])
    counted = count_thresholds(probability, torch.zeros(1, 2, dtype=torch.int64), probability > 0)
    threshold, dice = counted.best()
    assert threshold == 0.5
    assert math.isnan(dice)
    assert math.isnan(counted.dice(0.3))


@pytest.mark.parametrize("threshold", [0.0, 1.0, -2.0, math.nan])
def test_a_threshold_that_is_none(threshold):
    nothing = Thresholds(torch.zeros(STEPS, dtype=torch.int64), torch.zeros(STEPS, dtype=torch.int64))
    with pytest.raises(SettingError, match=r"The threshold is .*, allowed is any number between 0 and 1"):
        nothing.dice(threshold)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_the_plot_shows_the_counts(num_classes, tmp_path, monkeypatch):
    drawn = []
    save = matplotlib.figure.Figure.savefig

    def savefig(figure, *args, **kwargs):
        drawn.append(figure)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", savefig)
    counted = count_bins(*picture(5, num_classes))
    reliability_plot(counted, tmp_path / "reliability.png")
    with Image.open(tmp_path / "reliability.png") as image:
        assert image.format == "PNG"
    bins = counted.foreground or counted.top
    rows = [row for row in bins.rows() if row["pixels"]]
    curve, share = drawn[0].axes
    heading, below = curve.get_title().splitlines()
    assert heading == f"Expected calibration error: {counted.error():.3f} (most probable class)"
    assert below == "below the dashed line: too sure; above it: not sure enough"
    assert curve.lines[1].get_xdata() == pytest.approx([row["probability"] for row in rows])
    assert curve.lines[1].get_ydata() == pytest.approx([row["share"] for row in rows])
    heights = [bar.get_height() for bar in share.patches]
    assert sum(heights) == pytest.approx(100)
    assert heights[0] == pytest.approx(100 * rows[0]["pixels"] / bins.pixels.sum().item())
    claim = "foreground" if num_classes == 2 else "the most probable class"
    assert f"probability of {claim}" in share.get_xlabel()


def test_a_plot_of_nothing(tmp_path):
    probabilities, truth, valid = picture(5)
    reliability_plot(count_bins(probabilities, truth, torch.zeros_like(valid)), tmp_path / "nothing.png")
    assert (tmp_path / "nothing.png").is_file()

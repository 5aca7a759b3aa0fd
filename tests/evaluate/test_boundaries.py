import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seglens.errors import SettingError
from seglens.evaluate.boundaries import (
    BAND_RATIO,
    DEFINITIONS,
    NAMES,
    border_pixels,
    boundary_iou,
    hd95,
    mean_of_classes,
    nsd,
    surface_scores,
)

NAN = {"boundary_iou": math.nan, "nsd": math.nan, "hd95": math.nan}


def scores_of(*args, **how):
    return mean_of_classes(surface_scores(*args, **how))


def square(top, left, side, size=(64, 64)):
    mask = torch.zeros(size, dtype=torch.int64)
    mask[max(top, 0) : top + side, max(left, 0) : left + side] = 1
    return mask


def everywhere(mask):
    return torch.ones_like(mask, dtype=torch.bool)


def blots(seed, size=(24, 20), num_classes=2):
    """Smooth random blots of every class, some of them at the edge."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(1, num_classes, *size, generator=generator)
    return torch.nn.functional.avg_pool2d(noise, 5, stride=1, padding=2)[0].argmax(dim=0)


@st.composite
def masks(draw):
    """Two masks of one size."""
    size = draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    pixels = st.lists(st.booleans(), min_size=size[0] * size[1], max_size=size[0] * size[1])
    return np.reshape(draw(pixels), size), np.reshape(draw(pixels), size)


def brute_boundary(area):
    """Pixel by pixel, as the definition reads."""
    inside = {tuple(point) for point in np.argwhere(area).tolist()}
    steps = ((0, 1), (1, 0), (0, -1), (-1, 0))
    return [(y, x) for y, x in sorted(inside) if any((y + dy, x + dx) not in inside for dy, dx in steps)]


def brute_distances(predicted, true):
    """Every boundary pixel against every other."""
    points = [np.array(brute_boundary(area), dtype=float).reshape(-1, 2) for area in (predicted, true)]
    if not all(len(part) for part in points):
        return tuple(np.full(len(part), np.inf) for part in points)
    table = np.sqrt(((points[0][:, None] - points[1][None]) ** 2).sum(axis=2))
    return table.min(axis=1), table.min(axis=0)


def brute_scores(predicted, true, width, tolerance):
    if not (predicted.any() or true.any()):
        return NAN
    there, back = brute_distances(predicted, true)
    near = (there <= tolerance).sum() + (back <= tolerance).sum()
    bands = [
        {
            (y, x)
            for y, x in np.argwhere(area).tolist()
            if not np.pad(area, width)[y : y + 2 * width + 1, x : x + 2 * width + 1].all()
        }
        for area in (predicted, true)
    ]
    both = bool(len(there) and len(back))
    return {
        "boundary_iou": len(bands[0] & bands[1]) / len(bands[0] | bands[1]),
        "nsd": near / (len(there) + len(back)),
        "hd95": max(np.percentile(there, 95), np.percentile(back, 95)) if both else math.nan,
    }


@settings(max_examples=80, deadline=None)
@given(masks())
def test_boundary_against_its_definition(pair):
    for area in pair:
        assert [tuple(point) for point in np.argwhere(border_pixels(area)).tolist()] == brute_boundary(area)


@settings(max_examples=150, deadline=None)
@given(masks(), st.sampled_from([0.0, 1.0, 1.5, 2.0]))
def test_scores_against_all_pairs_of_pixels(pair, tolerance):
    predicted, true = pair
    guess, truth = torch.from_numpy(predicted).long(), torch.from_numpy(true).long()
    found = scores_of(guess, truth, everywhere(truth), 2, tolerance=tolerance)
    assert found == pytest.approx(brute_scores(predicted, true, 1, tolerance), nan_ok=True, abs=1e-12)


@settings(max_examples=80, deadline=None)
@given(masks(), st.integers(1, 4))
def test_wider_bands_against_the_definition(pair, width):
    predicted, true = pair
    expected = brute_scores(predicted, true, width, 0.0)["boundary_iou"]
    assert boundary_iou(predicted, true, width) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("seed", range(6))
def test_larger_masks_against_all_pairs_of_pixels(seed):
    predicted, true = blots(seed), blots(seed + 100)
    found = scores_of(predicted, true, everywhere(true), 2, tolerance=2.0)
    expected = brute_scores((predicted == 1).numpy(), (true == 1).numpy(), 1, 2.0)
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # MONAI calls an argument of its own deprecated.
@pytest.mark.parametrize("seed", range(4))
def test_monai_agrees(seed):
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance
    from monai.metrics.surface_dice import compute_surface_dice

    predicted, true = blots(seed, (40, 50), 3), blots(seed + 50, (40, 50), 3)
    known = torch.rand(40, 50, generator=torch.Generator().manual_seed(seed)) < 0.9
    both = [torch.nn.functional.one_hot(mask * known, 3).movedim(-1, 0)[None] for mask in (predicted, true)]
    found = scores_of(predicted, true, known, 3, tolerance=1.0)
    theirs = compute_hausdorff_distance(both[0], both[1], percentile=95)
    assert found["hd95"] == pytest.approx(theirs.mean().item(), rel=1e-6)
    theirs = compute_surface_dice(both[0], both[1], [1.0, 1.0])
    assert found["nsd"] == pytest.approx(theirs.mean().item(), rel=1e-6)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("seed", range(3))
def test_monai_agrees_on_volumes_in_millimetres(seed):
    """Voxels of three lengths, so that an axis that is taken for another gives other numbers."""
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance
    from monai.metrics.surface_dice import compute_surface_dice

    spacing, size = (4.0, 1.5, 0.7), (9, 22, 26)
    masks = []
    for number in (seed, seed + 50):
        noise = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(number))
        masks.append(torch.nn.functional.avg_pool3d(noise, 5, stride=1, padding=2)[0].argmax(dim=0))
    predicted, true = (torch.nn.functional.one_hot(mask, 3).movedim(-1, 0)[None] for mask in masks)
    found = surface_scores(masks[0], masks[1], everywhere(masks[0]), 3, spacing=spacing, tolerance=2.0)
    for kind, theirs in (
        ("hd95", compute_hausdorff_distance(predicted, true, percentile=95, spacing=list(spacing))),
        ("nsd", compute_surface_dice(predicted, true, [2.0, 2.0], spacing=list(spacing))),
    ):
        assert [found[index][kind] for index in (1, 2)] == pytest.approx(theirs[0].tolist(), rel=1e-6)


@pytest.mark.parametrize("shift", [1, 2, 3, 7])
def test_a_shifted_square(shift):
    # Of 76 boundary pixels the 20 at the far side lie ``shift`` away: more than 5 %.
    found = scores_of(square(20, 20 + shift, 20), square(20, 20, 20), everywhere(square(0, 0, 1)), 2)
    assert found["hd95"] == shift
    # Farther than 2 pixels: of either square the 20 of the side outside the other one, 2 for each further
    # column that sticks out by more than 2, and of the side inside the other 14, without 3 at either corner.
    far = 20 + 2 * (shift - 3) + 14 if shift > 2 else 0
    assert found["nsd"] == pytest.approx(1 - far / 76)


def test_the_same_mask_is_perfect():
    for mask in (blots(0), square(-3, -3, 10), torch.ones(30, 20, dtype=torch.int64)):
        found = scores_of(mask, mask, everywhere(mask), 2, tolerance=0.0)
        assert found == {"boundary_iou": 1.0, "nsd": 1.0, "hd95": 0.0}


def test_band_of_two_concentric_squares_by_hand():
    # Diagonal 100: the bands are 2 pixels wide. 30 x 30 has 30^2 - 26^2 = 224 pixels in its band, 28 x 28
    # has 28^2 - 24^2 = 208, and the ring 28 x 28 without 26 x 26 is in both.
    large, small = square(10, 10, 30, (60, 80)), square(11, 11, 28, (60, 80))
    found = scores_of(small, large, everywhere(large), 2)
    assert round(BAND_RATIO * math.hypot(60, 80)) == 2
    assert found["boundary_iou"] == pytest.approx(108 / (224 + 208 - 108))
    assert found["nsd"] == 1


def test_scores_are_symmetric():
    for seed in range(5):
        first, second = blots(seed), blots(seed + 7)
        there = scores_of(first, second, everywhere(first), 2)
        assert scores_of(second, first, everywhere(first), 2) == there


def test_the_picture_edge_is_a_boundary():
    # Both reach the edge on the left; the prediction stops 4 columns sooner on the right.
    truth, prediction = square(20, 0, 20), square(20, 0, 20)
    prediction[:, 16:] = 0
    found = scores_of(prediction, truth, everywhere(truth), 2)
    assert found["hd95"] == 4
    assert found == pytest.approx(brute_scores((prediction == 1).numpy(), (truth == 1).numpy(), 2, 2.0))


def test_empty_masks():
    empty, some = torch.zeros(64, 64, dtype=torch.int64), square(20, 20, 9)
    assert scores_of(empty, empty, everywhere(empty), 2) == pytest.approx(NAN, nan_ok=True)
    lost = {"boundary_iou": 0.0, "nsd": 0.0, "hd95": math.nan}
    assert scores_of(empty, some, everywhere(some), 2) == pytest.approx(lost, nan_ok=True)
    assert scores_of(some, empty, everywhere(some), 2) == pytest.approx(lost, nan_ok=True)
    assert scores_of(some, some, ~everywhere(some), 2) == pytest.approx(NAN, nan_ok=True)


def test_what_is_not_valid_changes_nothing():
    prediction, truth = blots(1), blots(2)
    known = torch.rand(24, 20, generator=torch.Generator().manual_seed(0)) < 0.8
    expected = scores_of(prediction * known, truth * known, everywhere(truth), 2)
    found = scores_of(prediction.masked_fill(~known, 1), truth.masked_fill(~known, 255), known, 2)
    assert found == expected


def test_classes_are_averaged_and_those_in_neither_mask_left_out():
    prediction, truth = blots(3, num_classes=3), blots(4, num_classes=3)
    known = everywhere(truth)
    each = [scores_of((prediction == c).long(), (truth == c).long(), known, 2) for c in (1, 2)]
    expected = {name: (each[0][name] + each[1][name]) / 2 for name in NAMES}
    assert scores_of(prediction, truth, known, 3) == pytest.approx(expected)
    assert scores_of(prediction, truth, known, 9) == pytest.approx(expected)


def test_a_class_in_one_mask_only_has_no_hausdorff_distance():
    prediction, truth = square(5, 5, 10), square(5, 8, 10)
    alone = scores_of(prediction, truth, everywhere(truth), 3)
    prediction[40:50, 40:50] = 2
    found = scores_of(prediction, truth, everywhere(truth), 3)
    assert found["hd95"] == alone["hd95"] == 3
    assert found["nsd"] == alone["nsd"] / 2


def test_ties_and_interpolation_of_the_percentile():
    assert hd95(np.array([0.0, 10.0]), np.array([1.0])) == pytest.approx(9.5)
    assert nsd(np.array([0.0, 2.0]), np.array([2.1, 3.0]), 2.0) == 0.5


def test_no_warning_of_empty_masks():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scores_of(square(0, 0, 0), square(0, 0, 0), everywhere(square(0, 0, 1)), 4)
    assert not caught


@pytest.mark.parametrize("tolerance", [-1.0, math.nan, math.inf])
def test_a_tolerance_that_is_none(tolerance):
    mask = square(5, 5, 10)
    with pytest.raises(SettingError, match=r"The tolerance is .* pixels, allowed is any number from 0 on"):
        scores_of(mask, mask, everywhere(mask), 2, tolerance=tolerance)


def test_every_score_is_defined_in_words():
    assert set(NAMES) <= set(DEFINITIONS)

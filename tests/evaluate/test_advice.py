"""Centre lines by hand and by the paper's formula, what to read of made-up data, empty pictures counted."""

from math import isnan

import numpy as np
import pytest
import torch
from monai.metrics.meandice import compute_dice
from monai.metrics.meaniou import compute_iou
from skimage.draw import disk
from skimage.morphology import skeletonize
from sklearn.metrics import (  # type: ignore[import-untyped]
    f1_score,
    jaccard_score,
    precision_score,
    recall_score,
)
from tests.evaluated import HALF, NOTHING, TRUTH, box, bright_run, random_samples, sample, split_of

import seglens
from seglens.evaluate.centre_lines import cldice, elongation
from seglens.results.record import to_json


def line(rows, columns, size=40):
    mask = torch.zeros(size, size, dtype=torch.bool)
    mask[rows, columns] = True
    return mask


def test_lines_one_pixel_wide_are_their_own_centre():
    truth = line(10, slice(0, 40))
    found = line(10, slice(0, 30)) | line(slice(20, 30), 5)
    # 30 of the 40 predicted pixels lie on the truth, 30 of the 40 true ones were found.
    assert cldice(found, truth) == pytest.approx(0.75)
    assert cldice(truth, truth) == 1
    assert cldice(line(0, 0), truth) == 0
    assert cldice(~truth & truth, truth) == 0
    assert isnan(cldice(~truth & truth, ~truth & truth))


def test_a_width_off_by_one_costs_dice_and_no_centre_line():
    truth, thick = line(10, slice(0, 40)), line(slice(9, 12), slice(0, 40))
    dice = 2 * 40 / (40 + 120)
    assert cldice(thick, truth) > 0.97
    assert dice == 0.5
    gap = line(10, slice(0, 20)) | line(10, slice(22, 40))
    assert cldice(gap, truth) == pytest.approx(2 * 38 / 40 / (1 + 38 / 40))


@pytest.mark.parametrize("seed", range(5))
def test_the_published_formula_agrees(seed):
    rng = np.random.default_rng(seed)
    masks = []
    for _ in range(2):
        mask = np.zeros((60, 50), bool)
        for _ in range(6):
            mask[disk(rng.integers(5, 45, 2), rng.integers(2, 9), shape=mask.shape)] = True
        masks.append(mask)
    v_p, v_l = masks
    # As in clDice's own repository: cl_score(v, s) = sum(v * s) / sum(s).
    tprec = np.sum(v_l * skeletonize(v_p)) / np.sum(skeletonize(v_p))
    tsens = np.sum(v_p * skeletonize(v_l)) / np.sum(skeletonize(v_l))
    expected = 2 * tprec * tsens / (tprec + tsens)
    assert cldice(*(torch.from_numpy(mask) for mask in masks)) == pytest.approx(expected)
    volumes = [torch.from_numpy(np.stack([mask] * 3)) for mask in masks]
    assert 0 <= cldice(*volumes) <= 1


@pytest.mark.parametrize(("length", "width"), [(36, 2), (36, 3), (36, 5), (30, 10)])
def test_elongation_is_length_over_width(length, width):
    bars = line(slice(4, 4 + width), slice(2, 2 + length)) | line(slice(24, 24 + width), slice(2, 2 + length))
    assert elongation(bars, 2) == pytest.approx(length / width, rel=0.3)
    tube = torch.zeros(60, 20, 20, dtype=torch.bool)
    tube[5:55, 10 - width // 2 : 10 + (width + 1) // 2, 10 - width // 2 : 10 + (width + 1) // 2] = True
    assert 50 / width / 3 < elongation(tube, 1) < 1.6 * 50 / width  # a coarse tube seems wider than it is


def test_compact_shapes_are_no_lines():
    rows, columns = torch.meshgrid(torch.arange(101), torch.arange(101), indexing="ij")
    disc = (rows - 50) ** 2 + (columns - 50) ** 2 <= 45**2
    assert elongation(disc, 1) == pytest.approx(9 * np.pi / 16, rel=0.05)
    assert isnan(elongation(disc & ~disc, 0))
    cube = torch.zeros(40, 40, 40, dtype=torch.bool)
    cube[5:35, 5:35, 5:35] = True
    assert isnan(cldice(cube, cube))  # thinning leaves nothing of it
    assert isnan(advice_of(sample("a", TRUTH, TRUTH)).images[0].cldice or 0)


def advice_of(*samples, **changes):
    return seglens.evaluate(bright_run(**changes), split_of(*samples))


def texts(found, name, read):
    return [each.text for each in found.advice if name in each.scores and each.read == read]


def test_thin_shapes_are_read_by_their_centre_lines():
    thin = box(slice(10, 12), slice(0, 32))
    found = advice_of(sample("a", thin, thin))
    assert texts(found, "cldice", True) == [
        "True shapes are 16 times longer than wide in the median: read clDice, which counts length."
    ]
    assert texts(found, "dice", False)
    assert found.per_image["cldice"].mean == 1
    assert not texts(advice_of(sample("a", TRUTH, TRUTH)), "cldice", True)


def test_tiny_and_many_objects_are_counted():
    dots = NOTHING.clone()
    for row in range(1, 28, 6):
        dots[row : row + 3, 2:5] = 1
    found = advice_of(sample("a", dots, dots))
    # 9 pixels are a disc of radius 1.69; one pixel less leaves a share s of the area: Dice 2s / (1 + s).
    share = (((9 / np.pi) ** 0.5 - 1) / (9 / np.pi) ** 0.5) ** 2
    (tiny,) = texts(found, "boundary_iou", False)
    assert f"costs {1 - 2 * share / (1 + share):.0%} of Dice" in tiny
    assert "3.4 pixels across" in tiny
    assert texts(found, "panoptic_quality", True) == [
        "Pictures with objects have 5 in the median: read F1 and panoptic quality, which count "
        "objects and not pixels."
    ]
    assert "4.4% of the pixels are foreground" in texts(found, "pixel_accuracy", False)[0]
    assert all(each.source.endswith(("2021", "2024")) for each in found.advice)
    assert advice_of(sample("a", TRUTH, TRUTH)).advice == ()


def test_sizes_that_differ():
    small, large = box(slice(0, 2), slice(0, 8)), box(slice(0, 32), slice(0, 31))
    found = advice_of(*(sample(f"{i}", each, each) for i, each in enumerate([small] * 3 + [large] * 3)))
    assert texts(found, "pooled", False) == [
        "Foreground areas differ 62 times: pooled scores are those of the largest; read per image."
    ]


def test_empty_pictures_are_counted_and_never_averaged_away():
    found = advice_of(
        sample("right", TRUTH, TRUTH),
        sample("half", HALF, TRUTH),
        sample("none", NOTHING, NOTHING),
        sample("invented", HALF, NOTHING),
        sample("missed", NOTHING, TRUTH),
    )
    empty = found.emptiness
    assert (empty.both, empty.no_truth, empty.nothing_predicted, empty.with_truth) == (1, 1, 1, 3)
    assert found.per_image["dice"].mean == pytest.approx((1 + 0.5 + 1 + 0 + 0) / 5)
    assert (empty.dice.mean, empty.dice.num) == (pytest.approx(0.5), 3)
    both = "1 picture without foreground in truth and prediction (Dice 1 by convention)"
    assert f"{both}, 1 in the truth alone" in empty.text
    assert "2 of 5 pictures have no true foreground" in texts(found, "dice", False)[0]
    rows = {row.name: row for row in found.images}
    assert isnan(rows["none"].cldice or 0)
    assert isnan(rows["missed"].cldice or 0)  # a compact shape
    assert rows["invented"].cldice == 0
    # What is not a number is null in the file, and not in any mean.
    assert "NaN" not in to_json(found)
    assert found.per_image["cldice"].num == 1
    assert not advice_of(sample("right", TRUTH, TRUTH)).emptiness.text


def test_scores_agree_with_scikit_learn_and_monai():
    samples = random_samples(6, sizes=((32, 32),))
    found = seglens.evaluate(bright_run(), split_of(*samples))
    rows = {row.name: row for row in found.images}
    for each in samples:
        truth, guess = each.mask.flatten().numpy(), (each.image[0] > 0.5).long().flatten().numpy()
        row = rows[each.name]
        assert row.dice == pytest.approx(f1_score(truth, guess))
        assert row.iou == pytest.approx(jaccard_score(truth, guess))
        assert row.miou == pytest.approx(jaccard_score(truth, guess, average="macro"))
        assert row.precision == pytest.approx(precision_score(truth, guess))
        assert row.recall == pytest.approx(recall_score(truth, guess))
        one, other = (torch.from_numpy(mask.reshape(1, 1, 32, 32)) for mask in (guess, truth))
        assert row.dice == pytest.approx(float(compute_dice(one, other)), abs=1e-6)
        assert row.iou == pytest.approx(float(compute_iou(one, other)), abs=1e-6)

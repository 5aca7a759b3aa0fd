"""Objects: matchings against all that there are, scores against definitions written down anew, by hand."""

from collections.abc import Iterator
from math import isnan, nan

import numpy as np
import pytest
import torch
from scipy import ndimage
from tests.evaluated import bright_run, sample, split_of

from seglens.data.instances import NOT_COUNTED, as_label_image
from seglens.errors import SettingError
from seglens.evaluate import evaluate
from seglens.evaluate.intervals import ratio_interval
from seglens.evaluate.object_scores import object_table
from seglens.evaluate.objects import (
    PRECISION_AT,
    THRESHOLDS,
    Objects,
    match,
    objects_of,
    overlaps,
    together,
    without_ignored,
)
from seglens.objects import pieces, split_touching


def random_labels(seed: int, size: tuple[int, ...] = (14, 14), objects: int = 5) -> torch.Tensor:
    """Boxes that cover one another: objects of any form, some in several parts, numbers with gaps."""
    random = np.random.default_rng(seed)
    label = np.zeros(size, np.int64)
    for number in random.permutation(objects) * 3 + 1:
        corner = [random.integers(0, length - 2) for length in size]
        ends = [
            first + random.integers(1, max(2, length // 2))
            for first, length in zip(corner, size, strict=True)
        ]
        label[tuple(slice(*each) for each in zip(corner, ends, strict=True))] = number
    return torch.from_numpy(label)


def shaken(label: torch.Tensor, seed: int) -> torch.Tensor:
    """The same objects a little elsewhere, with one of them gone and something new."""
    random = np.random.default_rng(seed)
    moved = torch.roll(label, tuple(random.integers(-1, 2, label.ndim).tolist()), tuple(range(label.ndim)))
    moved[moved == int(random.choice(label.unique().numpy()))] = 0
    moved[tuple(slice(0, 2) for _ in label.shape)] = 99
    return moved


def masks_of(label: torch.Tensor) -> list[np.ndarray]:
    return [label.numpy() == number for number in label.unique().tolist() if number > 0]


def matchings(iou: np.ndarray, threshold: float, row: int = 0, used: tuple[int, ...] = ()) -> Iterator[float]:
    """The sums of overlaps of all ways to match, each match worth 100 more: one number a way."""
    if row == len(iou):
        yield 0.0
        return
    yield from matchings(iou, threshold, row + 1, used)
    for column in range(iou.shape[1]):
        if column not in used and iou[row, column] >= threshold:
            for rest in matchings(iou, threshold, row + 1, (*used, column)):
                yield 100 + iou[row, column] + rest


def iou_table(truth: torch.Tensor, predicted: torch.Tensor) -> np.ndarray:
    first, second = masks_of(truth), masks_of(predicted)
    return np.array([[(a & b).sum() / (a | b).sum() for b in second] for a in first]).reshape(
        len(first), len(second)
    )


PAIRS = [
    *((random_labels(seed), random_labels(seed + 500)) for seed in range(30)),
    *((random_labels(seed), shaken(random_labels(seed), seed)) for seed in range(30, 80)),
    *((random_labels(seed, (6, 7, 5), 4), random_labels(seed + 500, (6, 7, 5), 5)) for seed in range(10)),
]


@pytest.mark.parametrize("threshold", [0.01, *THRESHOLDS])
def test_a_matching_is_the_best_of_all_that_there_are(threshold: float) -> None:
    for truth, predicted in PAIRS:
        found = match(overlaps(truth, predicted), threshold)
        assert len({row for row, _, _ in found}) == len({column for _, column, _ in found}) == len(found)
        table = iou_table(truth, predicted)
        for row, column, iou in found:
            assert iou == pytest.approx(table[row, column])
            assert table[row, column] >= threshold
        best = max(matchings(table, threshold))
        assert sum(100 + iou for _, _, iou in found) == pytest.approx(best)


def aji_of(truth: torch.Tensor, predicted: torch.Tensor) -> tuple[int, int]:
    """Algorithm 1 of Kumar et al. (2017), on lists of masks."""
    first, second = masks_of(truth), masks_of(predicted)
    common = whole = 0
    used = set()
    for own in first:
        scores = [(own & other).sum() / (own | other).sum() for other in second]
        if scores and max(scores) > 0:
            best = int(np.argmax(scores))
            common += (own & second[best]).sum()
            whole += (own | second[best]).sum()
            used.add(best)
        else:
            whole += own.sum()
    return common, whole + sum(other.sum() for number, other in enumerate(second) if number not in used)


def test_scores_of_a_picture_are_those_of_the_definitions() -> None:
    for truth, predicted in PAIRS:
        found = objects_of(truth, predicted)
        table = iou_table(truth, predicted)
        assert (found.shared, found.joined) == pytest.approx(aji_of(truth, predicted))
        for threshold in PRECISION_AT:  # at .5 and above there is one match at most
            hits = int((table >= threshold).any(1).sum()) if table.size else 0
            if threshold > 0.5:
                assert (found.matched[threshold] > 0).sum() == hits
        first, second = masks_of(truth), masks_of(predicted)
        merges = sum(sum((a & b).sum() > a.sum() / 2 for a in first) > 1 for b in second)
        splits = sum(sum((a & b).sum() > b.sum() / 2 for b in second) > 1 for a in first)
        assert (found.merges, found.splits) == (merges, splits)


def test_the_table_is_that_of_sums_over_pictures() -> None:
    chosen = [pair for pair in PAIRS if not np.isclose(iou_table(*pair), 0.5).any()]  # where one match can be
    assert len(chosen) > 60
    pictures = [{"nucleus": objects_of(truth, predicted)} for truth, predicted in chosen]
    found = object_table(pictures, ["nucleus"])
    tables = [iou_table(truth, predicted) for truth, predicted in chosen]
    hits = [int((table > 0.5).sum()) for table in tables]
    quality = sum(float(table[table > 0.5].sum()) for table in tables)
    truth, predicted = (sum(len(masks_of(pair[side])) for pair in chosen) for side in (0, 1))
    at = found.at[-1]
    assert (at.overlap, at.found, at.missed, at.invented) == (
        0.5,
        sum(hits),
        truth - sum(hits),
        predicted - sum(hits),
    )
    assert at.sensitivity.mean == pytest.approx(sum(hits) / truth)
    assert at.precision.mean == pytest.approx(sum(hits) / predicted)
    assert at.f1.mean == pytest.approx(2 * sum(hits) / (truth + predicted))
    assert at.invented_per_picture.mean == pytest.approx((predicted - sum(hits)) / len(chosen))
    misses = truth + predicted - 2 * sum(hits)
    assert found.panoptic_quality.mean == pytest.approx(quality / (sum(hits) + misses / 2))
    assert found.segmentation_quality.mean == pytest.approx(quality / sum(hits))
    common, whole = np.array([aji_of(*pair) for pair in chosen]).sum(0)
    assert found.aggregated_jaccard.mean == pytest.approx(common / whole)
    precisions = []
    for table in tables:
        per = []
        for threshold in PRECISION_AT:
            hit = int((table >= threshold).sum())
            per.append(hit / (sum(table.shape) - hit))
        precisions.append(np.mean(per))
    assert found.average_precision.mean == pytest.approx(np.mean(precisions))


def test_the_interval_of_a_ratio_is_that_of_whole_groups() -> None:
    above, below = torch.tensor([1.0, 0, 3, 2, 0]), torch.tensor([2.0, 0, 4, 2, 1])
    groups = torch.tensor([0, 0, 1, 2, 2])
    found = ratio_interval(above, below, groups=groups, seed=1)
    drawn = torch.randint(3, (2000, 3), generator=torch.Generator().manual_seed(1)).numpy()
    tops, bottoms = np.array([1.0, 3, 2])[drawn].sum(1), np.array([2.0, 4, 3])[drawn].sum(1)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(tops / bottoms, [0.025, 0.975])))
    assert (found.mean, found.num, found.num_groups) == (pytest.approx(6 / 9), 4, 3)
    assert isnan(ratio_interval(above, torch.zeros(5)).mean)


def test_sizes_are_terciles_or_as_they_are_given() -> None:
    truth = torch.zeros(20, 20, dtype=torch.int64)
    for number, side in enumerate((1, 2, 3, 4, 5, 6), start=1):
        truth[number * 3 - 3 : number * 3 - 3 + min(side, 3), : side * side // min(side, 3)] = number
    areas = np.sort([int((truth == number).sum()) for number in range(1, 7)])
    nothing = torch.zeros_like(truth)
    found = object_table([{"a": objects_of(truth, truth)}, {"a": objects_of(truth, nothing)}], ["a"])
    assert [row.truth for row in found.sizes] == [4, 4, 4]
    assert [row.sensitivity.mean for row in found.sizes] == [0.5, 0.5, 0.5]
    given = object_table([{"a": objects_of(truth, truth)}], ["a"], sizes=[2.0, float(areas[-1])])
    assert [(row.low, row.high) for row in given.sizes] == [(0, 2), (2, areas[-1]), (areas[-1], None)]
    assert [row.truth for row in given.sizes] == [1, 4, 1]
    for wrong in ([], [5.0, 5.0], [3.0, 2.0], [0.0, 1.0], [nan]):
        with pytest.raises(SettingError, match="numbers above 0 that rise"):
            evaluate(bright_run(), split_of(sample("a", disc(8, 8, 4), disc(8, 8, 4).long())), sizes=wrong)


def disc(row: int, column: int, radius: float, size: int = 32) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


def test_pictures_without_objects_are_counted_and_never_averaged_away() -> None:
    one, other, none = disc(8, 8, 4), disc(22, 22, 4), torch.zeros(32, 32, dtype=torch.bool)
    found = evaluate(
        bright_run(),
        split_of(
            sample("both", one | other, one.long()),
            sample("empty", none, none.long()),
            sample("invented", one, none.long()),
            sample("missed", none, (one | other).long()),
        ),
    ).objects
    assert (found.pictures, found.empty, found.no_truth, found.nothing_found) == (4, 1, 1, 1)
    at = found.at[0]
    assert (at.found, at.missed, at.invented) == (1, 2, 2)
    assert at.sensitivity.mean == pytest.approx(1 / 3)
    assert at.precision.mean == pytest.approx(1 / 3)
    assert at.invented_per_picture.mean == pytest.approx(2 / 4)
    assert found.average_precision.mean == pytest.approx((0.5 + 0 + 0) / 3)
    assert found.average_precision.num == 3
    only = evaluate(bright_run(), split_of(sample("empty", none, none.long()))).objects
    assert str(only.at[0].sensitivity.mean) == "nan"
    assert only.at[0].invented_per_picture.mean == 0


def test_classes_have_rows_of_their_own_and_ignored_pixels_none() -> None:
    truth, predicted = (torch.zeros(32, 32, dtype=torch.int64) for _ in range(2))
    truth[disc(8, 8, 4)], truth[disc(22, 22, 4)] = 1, 1
    predicted[disc(8, 8, 4)] = 1
    classes = [
        objects_of(pieces(truth == 1), pieces(predicted == 1)),
        objects_of(pieces(truth == 2), pieces(predicted == 2)),
    ]
    whole = object_table([{"a": classes[0], "b": classes[1]}], ["a", "b"])
    assert whole.at[0].sensitivity.mean == whole.classes["a"].at[0].sensitivity.mean == 0.5
    assert str(whole.classes["b"].at[0].sensitivity.mean) == "nan"
    assert len(together(classes).truth) == 2
    valid = ~disc(22, 22, 6)
    found = evaluate(bright_run(), split_of(sample("a", disc(8, 8, 4), truth, valid))).objects
    assert found.at[0].sensitivity.mean == 1


def test_pieces_are_those_that_touch_at_corners_in_any_dimension() -> None:
    diagonal = torch.eye(6, dtype=torch.bool)
    assert pieces(diagonal).max() == 1
    cube = torch.zeros(4, 4, 4, dtype=torch.bool)
    cube[0, 0, 0] = cube[1, 1, 1] = cube[3, 3, 3] = True
    assert pieces(cube).max() == 2
    assert ndimage.label(cube.numpy())[1] == 3


def test_touching_discs_are_cut_where_the_neck_is() -> None:
    region = disc(16, 9, 7) | disc(16, 22, 7)
    assert pieces(region).max() == 1
    cut = split_touching(region)
    assert cut.max() == 2
    assert (cut > 0).equal(region)
    left, right = cut[16, 9], cut[16, 22]
    assert left != right
    assert bool((cut[:, :15][region[:, :15]] == left).all())
    assert bool((cut[:, 17:][region[:, 17:]] == right).all())
    for radius in (1, 3, 8, 15):  # one disc stays whole, at the edge of the picture, too
        assert split_touching(disc(16, 16, radius)).max() == 1
        assert split_touching(disc(0, 5, radius)).max() == 1
    volume = torch.stack([region] * 3 + [torch.zeros_like(region)])
    assert split_touching(volume, (1.0, 1.0, 1.0)).max() in (1, 2)
    assert split_touching(torch.zeros(5, 5, dtype=torch.bool)).max() == 0


def test_the_smallest_object_keeps_a_shared_pixel_and_crowds_count_for_nothing() -> None:
    large, small = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    large[:3], small[2:, 0] = True, True
    crowd = np.zeros((4, 4), bool)
    crowd[2:, 2:] = True
    label = as_label_image([large, small], (4, 4), [crowd])
    assert label[2, 0] == 2
    assert label[0, 0] == 1
    assert label[3, 3] == NOT_COUNTED
    predicted = torch.zeros(4, 4, dtype=torch.int64)
    predicted[3, 2:] = 1
    assert not len(objects_of(label, predicted).predicted)


def test_areas_of_volumes_are_in_their_unit() -> None:
    label = random_labels(3)
    found, scaled = objects_of(label, label), objects_of(label, label).in_unit(2.5)
    assert scaled.truth.tolist() == [2.5 * each for each in found.truth.tolist()]
    assert isinstance(scaled, Objects)


def test_what_lies_mostly_on_ignored_pixels_is_neither_found_nor_invented():
    """A lesion that nobody was sure of is ignored, and predicted a pixel larger: its rim is no invention."""
    truth, predicted = torch.zeros(2, 32, 32, dtype=torch.int64)
    valid = torch.ones(32, 32, dtype=torch.bool)
    truth[2:8, 2:8] = predicted[2:8, 2:8] = 1
    valid[14:22, 14:22], predicted[13:23, 13:23] = False, 1  # 64 of 100 pixels
    valid[26:29, 2:12], predicted[26:32, 2:12] = False, 1  # a half is not mostly
    found = evaluate(bright_run(), split_of(sample("a", predicted, truth, valid))).images[0].objects
    assert (found.truth, found.predicted, found.missed, found.invented) == (1, 2, 0, 1)


@pytest.mark.parametrize("seed", range(20))
def test_ignored_objects_by_a_loop_over_pieces(seed):
    random = np.random.default_rng(seed)
    whole, valid = random.random((2, 16, 16)) < np.array([0.4, 0.5])[:, None, None]
    truth = np.where(valid, random_labels(seed, (16, 16), 2).numpy(), 0) * (random.random() < 0.7)
    cut = ndimage.label(whole & valid, np.ones((3, 3)))[0]
    expected = cut.copy()
    number, num = ndimage.label(whole, np.ones((3, 3)))
    for each in range(1, num + 1):
        piece = number == each
        if (piece & ~valid).sum() / piece.sum() > 0.5 and not truth[piece].any():
            expected[piece] = 0
    found = without_ignored(*map(torch.from_numpy, (cut.astype(np.int64), whole, valid, truth)))
    np.testing.assert_array_equal(found.numpy(), expected)

"""Rows of the comparison against counts that are made pixel by pixel."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import write_run

from seglens.data.layout import Entry, Split
from seglens.data.sample import Sample, Task
from seglens.errors import DataError
from seglens.results.scores import WeakRow
from seglens.weak.data import Truth
from seglens.weak.table import BATCH, above, count_pixels, count_student, figures, markdown, threshold_curve


def _truth(num=11, size=(9, 7), seed=0, border=True):
    """Random masks and maps, with some pixels not valid, and others on a border."""
    random = np.random.default_rng(seed)
    masks = torch.from_numpy(random.random((num, *size)) < 0.4).long()
    valid = torch.from_numpy(random.random((num, *size)) < 0.9)
    inner = valid & torch.from_numpy(random.random((num, *size)) < 0.8)
    maps = torch.from_numpy(random.random((num, *size))).float()
    entries = tuple(Entry(f"{index:02d}", Path(f"{index:02d}.png")) for index in range(num))

    def read(region):
        def reader(entry):
            index = int(entry.name)
            return Sample(entry.name, torch.zeros(3, *size), masks[index], region[index])

        return reader

    split = Split("test", Task(), entries, read(valid))
    no_border = Split("test", Task(), entries, read(inner)) if border else None
    return Truth(split, no_border), masks, valid, inner, maps


def _iou(predicted, true, valid, value):
    """The IoU of one class, counted pixel by pixel."""
    both = either = 0
    for answer, truth, counts in zip(predicted.flatten(), true.flatten(), valid.flatten(), strict=True):
        if counts:
            both += int(answer == value and truth == value)
            either += int(answer == value or truth == value)
    return both / either


def test_figures_are_those_of_counting_pixel_by_pixel():
    truth, masks, valid, inner, maps = _truth()
    predicted = (maps >= 0.45).long()
    row = figures(count_pixels(truth, above(lambda index: maps[index], 0.45), what="rows"))
    object_iou = _iou(predicted, masks, valid, 1)
    assert row["pictures"] == 11
    assert row["fg_iou"] == pytest.approx(object_iou)
    assert row["miou"] == pytest.approx((object_iou + _iou(predicted, masks, valid, 0)) / 2)
    assert row["fg_iou_no_border"] == pytest.approx(_iou(predicted, masks, inner, 1))
    assert row["miou_no_border"] == pytest.approx(
        (_iou(predicted, masks, inner, 1) + _iou(predicted, masks, inner, 0)) / 2
    )
    each = [_iou(predicted[i], masks[i], valid[i], 1) for i in range(11)]
    assert row["fg_iou_per_image"]["mean"] == pytest.approx(np.mean(each))
    assert row["decided"] == 1


def test_the_figure_per_batch_averages_over_batches():
    truth, masks, valid, _, maps = _truth(num=BATCH + 3)
    predicted = (maps >= 0.5).long()
    row = figures(count_pixels(truth, above(lambda index: maps[index], 0.5), what="rows"))
    parts = [
        (
            _iou(predicted[part], masks[part], valid[part], 1)
            + _iou(predicted[part], masks[part], valid[part], 0)
        )
        / 2
        for part in (slice(0, BATCH), slice(BATCH, None))
    ]
    assert row["miou_per_batch"] == pytest.approx(np.mean(parts))


def test_undecided_pixels_count_in_no_score():
    truth, masks, valid, _, maps = _truth(border=False)

    def answer(index, image):
        return (maps[index] >= 0.5).long(), maps[index] < 0.8

    row = figures(count_pixels(truth, answer, what="rows"))
    assert row["fg_iou"] == pytest.approx(_iou((maps >= 0.5).long(), masks, valid & (maps < 0.8), 1))
    assert row["miou_no_border"] is None
    share = ((maps < 0.8) & valid).flatten(1).sum(1) / valid.flatten(1).sum(1)
    assert row["decided"] == pytest.approx(float(share.mean()))


def test_the_curve_is_the_row_at_every_threshold():
    truth, _, _, _, maps = _truth()
    # Values on thresholds belong to the object, as in a row.
    maps[0, 0, :4] = torch.tensor([0.0, 0.25, 0.5, 1.0])
    curve = threshold_curve(truth, lambda index: maps[index], what="curve", steps=8)
    assert curve["threshold"] == pytest.approx([step / 8 for step in range(1, 8)])
    for place, threshold in enumerate(curve["threshold"]):
        row = figures(count_pixels(truth, above(lambda index: maps[index], threshold), what="rows"))
        assert curve["miou"][place] == pytest.approx(row["miou"])
        assert curve["fg_iou"][place] == pytest.approx(row["fg_iou"])


def test_a_picture_without_mask():
    truth, *_, maps = _truth()
    bare = Split(
        "test",
        Task(),
        truth.split.entries,
        lambda entry: Sample(entry.name, torch.zeros(3, 9, 7), None, torch.ones(9, 7, dtype=torch.bool)),
    )
    with pytest.raises(
        DataError, match="00 of the test split has no mask, so nothing can be compared with it"
    ):
        count_pixels(Truth(bare), above(lambda index: maps[index], 0.5), what="rows")


def test_a_student_is_scored_as_evaluate_scores_it(tmp_path, small_set):
    import seglens

    run = seglens.load(write_run(tmp_path / "run", small_set), device="cpu")
    split = seglens.open_split(run, "test")
    row = figures(count_student(Truth(split), run, what="student", precision="32"))
    found = seglens.evaluate(run, split, out=tmp_path / "scores", precision="32")
    assert row["miou"] == pytest.approx(found.pooled["miou"])
    assert row["fg_iou"] == pytest.approx(found.pooled["iou"])
    assert row["fg_iou_per_image"]["mean"] == pytest.approx(found.per_image["iou"]["mean"])


def test_rows_that_used_masks_are_marked():
    truth, *_, maps = _truth()
    row = figures(count_pixels(truth, above(lambda index: maps[index], 0.5), what="rows"))
    about = {"split": "test", "seconds": 12.3}
    text = markdown(
        [
            WeakRow.model_validate({"name": "honest", **about, **row.plain(), "uses_masks": False}),
            WeakRow.model_validate({"name": "told", **about, **row.plain(), "uses_masks": True}),
        ]
    )
    assert "| honest | 11 test |" in text
    assert "| told * | 11 test |" in text
    assert "Masks were used to get here" in text
    assert "no result" not in markdown(
        [WeakRow.model_validate({"name": "honest", **about, **row.plain(), "uses_masks": False})]
    )

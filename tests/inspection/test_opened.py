"""A picture that is opened: its prediction and scores by a second formula, and what is too much to open."""

import re

import pytest
import torch
from PIL import Image
from tests.inspection.conftest import logits_of

import seglens
from seglens.data.frame import Frame, fit_frame
from seglens.errors import DataError
from seglens.inspection.opened import on_grid, open_file, open_sample, refuse_to_open_large


def test_a_file_is_predicted_and_not_scored(linear_run, opened):
    expected = logits_of(opened.sample.image)
    assert torch.equal(opened.mask, (expected > 0).long())
    assert torch.allclose(opened.prediction.logits[0, 0].double(), expected, atol=1e-5)
    assert not opened.has_truth
    assert opened.scores == {}


def test_a_sample_is_scored_at_its_own_size(one_run, small_set):
    run = seglens.load(one_run, device="cpu")
    opened = open_sample(run, seglens.open_split(run, "test"), 1)
    truth = opened.sample.mask
    assert truth is not None
    assert opened.mask.shape == truth.shape == (32, 40)
    both, either = int((opened.mask * truth).sum()), int(opened.mask.sum() + truth.sum())
    assert opened.scores["dice"] == pytest.approx(2 * both / either)
    assert opened.scores["precision"] == pytest.approx(both / int(opened.mask.sum()))


def test_a_file_that_is_no_picture(linear_run, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    with pytest.raises(DataError, match=r"bad\.png can't be read as a picture"):
        open_file(linear_run, bad)


def test_a_picture_that_is_too_large(linear_run, tmp_path):
    file = tmp_path / "large.png"
    Image.new("1", (5000, 4000)).save(file)
    said = "large.png is 5000 x 4000 pixels, too large to be looked at here: allowed are 16 million"
    with pytest.raises(DataError, match=re.escape(said)):
        open_file(linear_run, file)


def test_a_picture_that_takes_too_many_windows(linear_run, tmp_path):
    spec = linear_run.spec.model_copy(update={"scale": 1.0})
    # Windows of 32 pixels with a step of 16: 8 x 8 of them cover 144 pixels a side, one more column doesn't.
    refuse_to_open_large((144, 144), spec, tmp_path / "a.png")
    with pytest.raises(DataError, match=r"about 72 windows of the network, too many .* allowed are 64"):
        refuse_to_open_large((144, 160), spec, tmp_path / "a.png")


def test_a_region_on_the_grid():
    region = torch.zeros(32, 32, dtype=torch.bool)
    region[3:9, 10:13] = True
    assert torch.equal(on_grid(region, fit_frame((32, 32), 32)), region)
    twice = region.repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert torch.equal(on_grid(twice, fit_frame((64, 64), 32)), region), "scaled down by 2"
    assert torch.equal(on_grid(region, fit_frame((32, 32), 64)), twice), "scaled up by 2"
    dot = torch.zeros(320, 320, dtype=torch.bool)
    dot[101, 57] = True
    assert on_grid(dot, fit_frame((320, 320), 32)).nonzero().tolist() == [[10, 5]], "no region gets lost"
    assert not on_grid(torch.zeros(40, 32, dtype=torch.bool), fit_frame((40, 32), 32)).any()


def test_a_region_beside_padding():
    region = torch.ones(16, 32, dtype=torch.bool)
    placed = on_grid(region, fit_frame((16, 32), 32))
    assert placed[8:24].all()
    assert not placed[:8].any()
    assert not placed[24:].any()


@pytest.mark.parametrize("placed", [{"crop": ((2, 14), (4, 10))}, {"reach": ((1.5, 13.5), (4.0, 10.0))}])
def test_a_region_lies_where_the_frame_of_another_tool_says(placed):
    # Rows are read backwards, columns come first, and the outside is cut away.
    frame = Frame((10, 16), (26, 14), (24, 12), (1, 1), turned=(0,), order=(1, 0), **placed)
    region = torch.zeros(10, 16, dtype=torch.bool)
    region[3, 6] = True
    there = on_grid(region, frame).nonzero().double().mean(0)
    here = torch.tensor(frame.to_grid(6, 3)[::-1])
    assert (there - here).abs().max() <= 0.5

"""From clicks to targets, against the targets' own definition of a piece."""

import re

import pytest
import torch

import seglens
from seglens.data.sample import Sample
from seglens.errors import SettingError, UnknownNameError
from seglens.explain.target import component
from seglens.inspection.clicks import choices, class_at, number_of_piece, text_of
from seglens.inspection.opened import Opened, open_sample


def test_the_piece_under_a_click_is_the_component_of_that_number():
    generator = torch.Generator().manual_seed(1)
    region = torch.rand(24, 24, generator=generator) < 0.3
    for y, x in region.nonzero().tolist():
        number = number_of_piece(region, x, y)
        assert component(region[None], number).pixels[0, y, x]


def test_a_click_beside_a_piece_means_it_within_reach(opened):
    said = opened.mask > 0
    assert number_of_piece(said, 7, 7) == 1
    assert number_of_piece(said, 21, 22) == 2
    assert number_of_piece(said, 25, 24) == 0, "three pixels beside"
    assert number_of_piece(said, 24, 23) == 2, "two pixels beside"
    assert number_of_piece(torch.zeros(4, 4, dtype=torch.bool), 1, 1) == 0


def test_what_clicks_ask_for(opened):
    assert text_of("component", opened, 1, [(21, 22)]) == "component:2"
    assert text_of("point", opened, 1, [(1, 2), (30, 31)]) == "point:30,31"
    assert text_of("box", opened, 1, [(9, 4)]) is None, "it takes two corners"
    assert text_of("box", opened, 1, [(9, 4), (3, 8)]) == "box:3,4,10,9"
    assert text_of("component", opened, 1, []) is None
    assert text_of("predicted", opened, 1, []) == "predicted"
    assert text_of("component:2", opened, 1, []) == "component:2", "written out"
    with pytest.raises(UnknownNameError, match="Did you mean 'component'"):
        text_of("componant", opened, 1, [])


def test_a_click_on_nothing(opened):
    said = (
        "The model predicts no piece of this class at column 30, row 3. Choose 'point' to ask about the pixel"
    )
    with pytest.raises(SettingError, match=re.escape(said)):
        text_of("component", opened, 1, [(30, 3)])
    with pytest.raises(SettingError, match="column 32, row 0 is outside of the picture, which is 32 x 32"):
        text_of("point", opened, 1, [(32, 0)])
    with pytest.raises(SettingError, match="There is no true piece of this class at column 7, row 7"):
        text_of("truth-component", opened, 1, [(7, 7)])


@pytest.fixture
def labelled(one_run) -> Opened:
    run = seglens.load(one_run, device="cpu")
    return open_sample(run, seglens.open_split(run, "test"), 0)


def test_a_click_on_what_was_missed_says_so(labelled):
    truth = labelled.sample.mask
    assert truth is not None
    labelled.prediction.mask.zero_()
    y, x = truth.nonzero()[len(truth.nonzero()) // 2].tolist()
    with pytest.raises(SettingError, match="choose 'truth-component' to ask why it was missed"):
        text_of("component", labelled, 1, [(x, y)])
    assert text_of("truth-component", labelled, 1, [(x, y)]) == "truth-component:1"


def test_targets_that_need_the_truth_are_offered_where_it_is_known(opened, labelled):
    needy = {"truth", "false-positive", "false-negative", "truth-component"}
    assert not needy & set(choices(opened))
    assert needy < set(choices(labelled))
    assert set(choices(labelled)) - needy == set(choices(opened)) == set(choices(None))


def test_the_class_under_a_click(opened, linear_run):
    task = linear_run.task
    assert class_at("component", opened, (7, 7), task) == "spot"
    assert class_at("component", opened, (0, 0), task) is None
    assert class_at("point", opened, (7, 7), task) is None, "a pixel may be asked about any class"
    assert class_at("component", opened, (99, 0), task) is None
    sample = opened.sample
    assert isinstance(sample, Sample)
    assert class_at("truth-component", opened, (7, 7), task) is None, "there is no truth"

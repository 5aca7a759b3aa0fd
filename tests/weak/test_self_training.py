"""Teachers: what they average, what they are sure of, and when two agree."""

import pytest
import torch
from torch import nn

import seglens
from seglens.errors import SettingError, UnknownNameError
from seglens.weak.ignore_band import IGNORED
from seglens.weak.self_training import (
    TeacherSettings,
    answers,
    decided,
    mask_agreement,
    masks_of,
    next_labels,
    refinement,
)


class Leaning(nn.Module):
    """Logits that depend on the pixel and on the column: not the same for a mirrored picture."""

    def forward(self, images):
        columns = torch.linspace(-2, 2, images.shape[-1])
        return images.mean(1, keepdim=True) * 3 + columns


@pytest.fixture
def leaning():
    return seglens.wrap(
        Leaning(),
        classes=("background", "object"),
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        image_size=16,
        head="sigmoid",
    )


def test_a_teacher_averages_a_picture_and_its_mirror_image(leaning):
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    columns = torch.linspace(-2, 2, 16)
    grey = 3 * image.mean(0)
    expected = ((grey + columns).sigmoid() + (grey - columns).sigmoid()) / 2
    (found,) = answers(leaning, [image], TeacherSettings(scales=(1.0,)), precision="32")
    torch.testing.assert_close(found, expected)
    (plain,) = answers(leaning, [image], TeacherSettings(scales=(1.0,), flip=False), precision="32")
    torch.testing.assert_close(plain, (grey + columns).sigmoid())


def test_a_teacher_averages_over_scales_at_native_size(leaning):
    """On an even picture scales differ only in where columns lie: the mean of both, at native size."""
    even = torch.full((3, 8, 8), 0.5)
    settings = [TeacherSettings(scales=scales, flip=False) for scales in ((1.0,), (2.0,), (1.0, 2.0))]
    one, two, both = (answers(leaning, [even], each, precision="32")[0] for each in settings)
    assert both.shape == (8, 8)
    torch.testing.assert_close(both, (one + two) / 2)


def test_pictures_of_several_sizes_are_answered_as_if_alone(leaning):
    images = [torch.rand(3, rows, 16, generator=torch.Generator().manual_seed(rows)) for rows in (16, 8, 12)]
    together = answers(leaning, images, TeacherSettings(), precision="32")
    for image, found in zip(images, together, strict=True):
        torch.testing.assert_close(found, answers(leaning, [image], TeacherSettings(), precision="32")[0])


def test_what_a_teacher_is_sure_of():
    answer = torch.tensor([[0.0, 0.23, 0.25, 0.4, 0.63, 0.65, 1.0]])
    # threshold .4, margin .4: object from .4 + .4 * .6 = .64 on, none below .4 - .4 * .4 = .24
    assert decided(answer, 0.4, 0.4).tolist() == [[0, 0, IGNORED, IGNORED, IGNORED, 1, 1]]
    assert decided(answer, 0.4, 0.0).tolist() == [[0, 0, 0, 1, 1, 1, 1]]
    assert masks_of(torch.tensor([[0.0, 0.5, 1.0]])).tolist() == [[0, IGNORED, 1]]


def test_a_teacher_that_lost_the_object_says_nothing():
    before = torch.tensor([[1, 0, IGNORED]])
    assert torch.equal(next_labels(torch.tensor([[0.1, 0.5, 0.2]]), before, 0.5, 0.4), before)
    assert next_labels(torch.tensor([[0.1, 0.9, 0.2]]), before, 0.5, 0.4).tolist() == [[0, 1, 0]]


def test_agreement_is_pooled_over_pixels_that_both_decide_on():
    before = torch.tensor([[1, 1, 0, 0, IGNORED, 1]])
    now = torch.tensor([[1, 0, 0, 1, 1, IGNORED]])
    more = torch.tensor([[0, 0, 1]])
    found = mask_agreement(iter([(before, now), (more, more)]))
    # decided by both: 7 pixels; object in both 2, in either 4; background in both 3, in either 5
    assert found["iou"] == pytest.approx(2 / 4)
    assert found["miou"] == pytest.approx((2 / 4 + 3 / 5) / 2)
    assert found["share"] == pytest.approx(7 / 9)


def test_answers_refined_by_superpixels_take_their_mean():
    answer = torch.tensor([[0.2, 0.4, 0.9]])
    patches = torch.tensor([[0, 0, 1]])
    asked = []

    def load(index):
        asked.append(index)
        return patches

    refine = refinement(TeacherSettings(refine="superpixels"), load)
    torch.testing.assert_close(refine(7, torch.zeros(3, 1, 3), answer), torch.tensor([[0.3, 0.3, 0.9]]))
    assert asked == [7]
    assert refinement(TeacherSettings(), load)(7, torch.zeros(3, 1, 3), answer) is answer


def test_settings_that_are_not_allowed():
    with pytest.raises(SettingError, match=r"teacher are \(0.0,\)\. Give at least one; all must be above 0"):
        TeacherSettings(scales=(0.0,))
    with pytest.raises(
        SettingError, match=r"margin of the teacher is 1\.0\. It must be at least 0 and below 1"
    ):
        TeacherSettings(margin=1.0)
    with pytest.raises(UnknownNameError, match="Did you mean 'superpixels'"):
        TeacherSettings(refine="superpixel")

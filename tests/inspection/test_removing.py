"""Removals on a model that looks at one pixel at a time, so that every number can be worked out."""

import math

import pytest
import torch
from tests.inspection.conftest import BIAS, logits_of

from seglens.errors import SettingError, UnknownNameError
from seglens.explain.target import Target
from seglens.inspection.removing import CONTROLS, region_elsewhere, remove_region, target_of


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def region_of(rows: slice, columns: slice, size: int = 32) -> torch.Tensor:
    region = torch.zeros(size, size, dtype=torch.bool)
    region[rows, columns] = True
    return region


@pytest.fixture
def small_spot(opened) -> Target:
    """The 3 x 3 spot."""
    return Target("component:2", 1, region_of(slice(21, 24), slice(20, 23))[None])


def test_removing_the_target_itself(linear_run, opened, small_spot):
    found = remove_region(linear_run, opened, small_spot.pixels[0], small_spot, imputer="zero")
    assert found.before.logit == pytest.approx(2 - 1 + 3 - 1.5, abs=1e-5)
    assert found.after.logit == pytest.approx(BIAS, abs=1e-5)
    assert found.after.probability == pytest.approx(sigmoid(BIAS), abs=1e-6)
    assert found.share == pytest.approx(9 / 1024)
    assert found.of_target == 1
    assert found.before.area == pytest.approx((36 + 9) / 1024)
    assert found.after.area == pytest.approx(36 / 1024)
    assert torch.equal(found.mask, opened.mask * ~small_spot.pixels[0])
    # Elsewhere on this picture nothing of the target is touched.
    assert found.controls == pytest.approx((sigmoid(2.5),) * CONTROLS, abs=1e-6)


def test_a_model_that_looks_at_single_pixels_needs_nothing_beside_them(linear_run, opened, small_spot):
    found = remove_region(linear_run, opened, region_of(slice(0, 20), slice(0, 32)), small_spot)
    assert found.after.logit == pytest.approx(found.before.logit, abs=1e-6)
    assert found.of_target == 0
    assert found.controls == (), "twenty of thirty-two rows have no other place"


def test_a_part_of_the_target(linear_run, opened, small_spot):
    found = remove_region(
        linear_run, opened, region_of(slice(21, 22), slice(20, 23)), small_spot, imputer="mean"
    )
    mean = opened.sample.image.mean((1, 2))
    filled = float(logits_of(mean.view(3, 1, 1)))
    assert found.after.logit == pytest.approx((3 * filled + 6 * 2.5) / 9, abs=1e-5)
    assert found.of_target == pytest.approx(1 / 3)


def test_only_what_was_removed_changes(linear_run, opened, small_spot):
    region = region_of(slice(4, 14), slice(2, 8))
    found = remove_region(linear_run, opened, region, small_spot)
    image = opened.part.batch.images[0]
    assert torch.equal(found.image[:, ~region], image[:, ~region])
    assert (found.image - image)[:, region].abs().max() > 0.1
    again = remove_region(linear_run, opened, region, small_spot)
    assert torch.equal(found.image, again.image), "the noise is keyed by the picture"


def test_places_elsewhere_hold_the_same_shape():
    shape = torch.tensor([[1, 0, 1], [1, 1, 1]]).bool()
    region = torch.zeros(20, 20, dtype=torch.bool)
    region[3:5, 6:9] = shape
    valid = torch.ones(20, 20, dtype=torch.bool)
    valid[:, 12:] = False
    found = region_elsewhere(region, valid, 5, seed=0)
    assert len(found) == 5
    assert len({tuple(one.flatten().tolist()) for one in found}) == 5
    for one in found:
        rows, columns = (axis.unique() for axis in one.nonzero(as_tuple=True))
        assert torch.equal(one[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], shape)
        assert not (one & (region | ~valid)).any()


def test_what_can_not_be_removed(linear_run, opened, small_spot):
    with pytest.raises(SettingError, match="Nothing of the picture was brushed over"):
        remove_region(linear_run, opened, region_of(slice(0, 0), slice(0, 0)), small_spot)
    with pytest.raises(SettingError, match=r"is \(16, 16\) \(rows, columns\), but the picture is \(32, 32\)"):
        remove_region(linear_run, opened, torch.ones(16, 16, dtype=torch.bool), small_spot)
    with pytest.raises(UnknownNameError, match="Did you mean 'noisy-linear'"):
        remove_region(linear_run, opened, small_spot.pixels[0], small_spot, imputer="noisy_linear")


def test_without_a_question_all_that_is_predicted_is_meant(linear_run, opened):
    target = target_of(linear_run, opened, "spot", None)
    assert target.label == "predicted"
    assert torch.equal(target.pixels[0], opened.mask > 0)

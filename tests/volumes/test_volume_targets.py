"""Targets of volumes, against scipy and numpy, and what is refused by name."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from tests.volumes.networks import SIZE, run_of, scattered, small, volumes

import seglens
from seglens import targets
from seglens.errors import SettingError
from seglens.explain.statistics import statistics
from seglens.explain.target import dilate
from seglens.masks import of_class

CUBE = ndimage.generate_binary_structure(3, 3)


@pytest.fixture
def region():
    """Pieces of many sizes, some of which touch at a corner only."""
    return torch.rand(2, *SIZE, generator=torch.Generator().manual_seed(0)) > 0.93


def test_components_hang_together_at_corners_across_slices(region):
    corner = torch.zeros(1, 4, 4, 4, dtype=torch.bool)
    corner[0, 0, 0, 0] = corner[0, 1, 1, 1] = corner[0, 3, 3, 3] = True
    assert targets.component(corner, 1).pixels.sum() == 2
    assert targets.component(corner, 2).pixels[0, 3, 3, 3]
    assert targets.component(corner, 3).empty().all()
    for index in (1, 2, 5):
        found = targets.component(region, index).pixels
        for mine, one in zip(found.numpy(), region.numpy(), strict=True):
            labels, _ = ndimage.label(one, structure=CUBE)
            sizes = sorted(np.bincount(labels.ravel())[1:], reverse=True)
            assert mine.sum() == sizes[index - 1]
            (label,) = np.unique(labels[mine])
            np.testing.assert_array_equal(mine, labels == label)


def test_the_boundary_is_a_band_either_side_in_all_directions(region):
    blocks = torch.zeros_like(region)
    blocks[0, 4:14, 6:18, 2:9] = True
    blocks[1, :8, :, :] = True
    found = targets.boundary(blocks).pixels.numpy()
    for mine, one in zip(found, blocks.numpy(), strict=True):
        inside, outside = (
            ndimage.binary_dilation(part, structure=CUBE, iterations=3) for part in (one, ~one)
        )
        np.testing.assert_array_equal(mine, inside & outside)
    for pixels in (1, 2, 4):
        grown = dilate(region, pixels).numpy()
        for mine, one in zip(grown, region.numpy(), strict=True):
            expected = ndimage.binary_dilation(one, structure=np.ones([2 * pixels + 1] * 3))
            np.testing.assert_array_equal(mine, expected)


def test_boxes_and_points_have_slices():
    images = volumes()
    box = targets.box(images, 1, 2, 5, 9, z0=3, z1=7)
    expected = np.zeros((2, *SIZE), bool)
    expected[:, 3:7, 2:9, 1:5] = True
    np.testing.assert_array_equal(box.pixels.numpy(), expected)
    assert box.label == "box:1,2,3,5,9,7"
    point = targets.point(images, 4, 5, z=23)
    assert point.pixels.nonzero().tolist() == [[0, 23, 5, 4], [1, 23, 5, 4]]
    assert point.label == "point:4,5,23"


def test_slices_are_needed_in_volumes_and_refused_in_pictures():
    images = volumes()
    with pytest.raises(SettingError, match="volumes, where a slice is needed: give z0 and z1"):
        targets.box(images, 1, 2, 5, 9)
    with pytest.raises(SettingError, match="volumes, where a slice is needed: give z"):
        targets.point(images, 1, 2)
    with pytest.raises(SettingError, match="have no slices: leave out z"):
        targets.point(images[:, :, 0], 1, 2, z=0)
    with pytest.raises(SettingError, match=r"Point 4,5,24 is not in the picture.*slices 0 to 23"):
        targets.point(images, 4, 5, z=24)
    with pytest.raises(SettingError, match=r"Box 1,2,20,5,9,25 must hold a pixel.*slices 0 to 24"):
        targets.box(images, 1, 2, 5, 9, z0=20, z1=25)


def test_masks_of_volumes_say_so():
    masks = torch.ones(2, *SIZE, dtype=torch.long)
    with pytest.raises(SettingError, match=r"Of volumes .b d h w. say dims=3"):
        targets.truth(masks)
    assert targets.truth(masks, dims=3).pixels.all()
    stack = torch.zeros(2, 3, *SIZE, dtype=torch.bool)
    stack[:, 1, 4] = True
    assert torch.equal(targets.truth(stack, 2, dims=3).pixels, stack[:, 1])
    assert torch.equal(of_class(stack, 0, 3), ~stack.any(1))


def test_a_target_of_pictures_is_refused_for_volumes():
    images = volumes()
    flat = targets.truth(torch.ones(2, *SIZE[1:], dtype=torch.long))
    with pytest.raises(SettingError, match=r"pixels of shape \(2, 20, 16\), but .*slices, rows, columns"):
        seglens.explain(run_of(small()), images, flat, layers="deep")


def test_a_context_is_what_lies_outside_of_the_target_and_a_cell_around_it():
    images = volumes(1)
    target = targets.box(images, 4, 8, 8, 12, z0=10, z1=14)
    found = seglens.explain(
        run_of(small()), images, target, methods="hires-cam", layers="deep", where="context"
    )
    explanation = found["hires-cam", "deep"]
    assert explanation.margin == 3
    grown = ndimage.binary_dilation(target.pixels[0].numpy(), structure=np.ones((7, 7, 7)))
    np.testing.assert_array_equal(explanation.counted[0].numpy(), ~grown)


def test_statistics_of_volumes_are_numpys():
    images = volumes()
    target = scattered(images)
    run = run_of(small())
    found = seglens.explain(run, images, target, methods="input-x-gradient")["input-x-gradient"]
    valid = torch.rand(2, *SIZE, generator=torch.Generator().manual_seed(8)) > 0.1
    said = run.predict(images).mask == 1
    numbers = statistics(found, predicted=said, valid=valid)
    for row in range(2):
        values, known = found.map[row].double().numpy(), valid[row].numpy()
        inside = target.pixels[row].numpy() & known
        positive = np.maximum(values, 0)
        share = positive[inside].sum() / positive[known].sum()
        expected = {
            "mean": values[known].mean(),
            "std": values[known].std(),
            "min": values[known].min(),
            "max": values[known].max(),
            "area": inside.sum() / known.sum(),
            "mass_inside": share,
            "enrichment_log2": np.log2(share / (inside.sum() / known.sum())),
            "ratio": positive[inside].mean() / positive[known & ~inside].mean(),
            "prediction_ratio": said[row].numpy()[known].mean(),
        }
        for name, value in expected.items():
            assert numbers[name][row].item() == pytest.approx(value, rel=1e-4, abs=1e-7), name


def test_a_notebook_shows_the_slice_that_holds_most_of_the_target():
    images = volumes(1)
    target = targets.box(images, 2, 2, 9, 9, z0=7, z1=8)
    found = seglens.explain(run_of(small()), images, target, methods="hires-cam", layers="deep")
    assert "0, slice 7: " in found["hires-cam", "deep"]._repr_html_()

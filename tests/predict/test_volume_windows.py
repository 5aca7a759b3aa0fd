"""Volumes in windows: voxel for voxel what MONAI's sliding window gives, at any size, in bounded memory."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from monai.data.utils import compute_importance_map
from monai.inferers.utils import sliding_window_inference
from tests.volumes.networks import run_of, small, volumes
from torch import Tensor, nn

from seglens.errors import SettingError
from seglens.models.segmenter import ModelSpec, Segmenter
from seglens.predict.original import decide, in_windows
from seglens.predict.tiles import Cover, Windows, bands, cut_of, over

MONAI = 1e-3
"""The floor of MONAI's importance map."""
SIZES = [(24, 20, 16), (31, 17, 40), (16, 33, 9), (5, 40, 21), (7, 6, 5)]


@pytest.fixture(scope="module")
def run():
    return run_of(small())


def by_monai(run, images: Tensor, window: tuple[int, ...], **settings) -> Tensor:
    def predictor(part: Tensor) -> Tensor:
        return run.predict(part).probabilities

    found = sliding_window_inference(images, window, 3, predictor, overlap=0.5, **settings)
    assert isinstance(found, Tensor)
    return found


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("window", [(16, 16, 16), (8, 16, 12)])
def test_probabilities_are_those_of_monais_sliding_window(run, size, window):
    images = volumes(2, size)
    expected = by_monai(run, images, window, mode="gaussian", sigma_scale=0.125)
    found = run.predict(images, window=window, floor=MONAI)
    torch.testing.assert_close(found.probabilities, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.logits.softmax(1), expected, rtol=0, atol=1e-5)
    # All alike: MONAI's other mode. Without a floor: its own map without the floor, as nnU-Net has it.
    constant = by_monai(run, images, window, mode="constant")
    torch.testing.assert_close(
        run.predict(images, window=window, floor=1.0).probabilities, constant, rtol=0, atol=1e-5
    )
    bell = [torch.exp(-0.5 * ((torch.arange(n) - (n - 1) / 2) / (n / 8)) ** 2) for n in window]
    plain = by_monai(run, images, window, roi_weight_map=torch.einsum("i,j,k->ijk", *bell))
    torch.testing.assert_close(run.predict(images, window=window).probabilities, plain, rtol=0, atol=1e-5)


@pytest.mark.parametrize("floor", [0.0, MONAI, 1.0])
@pytest.mark.parametrize("size", [(31, 17), (24, 20, 16), (16, 33, 9), (5, 40, 21)])
def test_weights_sum_to_1_and_are_proportional_to_the_importance_map(size, floor):
    windows = Windows(size, size, 16, 0.5, floor)
    total = torch.zeros(size)
    for place in windows.places:
        total[windows.part(place)] += windows.weights(place)
    torch.testing.assert_close(total, torch.ones(size))
    if floor == MONAI:
        importance = compute_importance_map((16,) * len(size), "gaussian")
        whole = torch.zeros(size)
        for place in windows.places:
            whole[windows.part(place)] += importance[windows.inner]
        for place in windows.places:
            torch.testing.assert_close(
                windows.weights(place), importance[windows.inner] / whole[windows.part(place)]
            )


@pytest.mark.parametrize("tta", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_a_network_of_single_voxels_sees_no_windows(size, tta):
    torch.manual_seed(0)
    run, images = run_of(nn.Conv3d(2, 2, 1)), volumes(1, size)
    expected = run.predict(images)
    found = run.predict(images, window=8, tta=tta)
    torch.testing.assert_close(found.probabilities, expected.probabilities)
    torch.testing.assert_close(found.logits.softmax(1), expected.logits.softmax(1))
    sure = (expected.probabilities[:, 0] - 0.5).abs() > 1e-5
    assert torch.equal(found.mask[sure], expected.mask[sure])


def test_mirror_images_are_those_of_all_three_axes(run):
    images = volumes(1, (9, 8, 7))
    turns = [turn for num in range(4) for turn in itertools.combinations((2, 3, 4), num)]
    assert len(turns) == 8
    each = [run.predict(images.flip(turn)).probabilities.flip(turn) for turn in turns]
    found = run.predict(images, tta=True)
    torch.testing.assert_close(found.probabilities, torch.stack(each).mean(0))
    assert not torch.allclose(found.probabilities, each[0])


def test_bfloat16_is_near(run):
    images = volumes(1, (24, 20, 16))
    exact = run.predict(images, window=16).probabilities
    rough = run.predict(images, window=16, precision="bf16")
    assert rough.probabilities.dtype == torch.float32
    assert 0 < (rough.probabilities - exact).abs().max() < 0.02


def test_a_volume_of_one_slice_is_its_picture():
    picture, volume = run_of(small((3, 3))), run_of(small((1, 3, 3)))
    volume.segmenter.module.load_state_dict(
        {
            name: value[:, :, None] if value.ndim == 4 else value
            for name, value in picture.segmenter.module.state_dict().items()
        }
    )
    images = volumes(1, (1, 40, 37))
    for floor in (0.0, MONAI):
        found = volume.predict(images, window=(1, 16, 16), floor=floor)
        expected = picture.predict(images[:, :, 0], window=16, floor=floor)
        torch.testing.assert_close(found.probabilities[:, :, 0], expected.probabilities)


@pytest.mark.parametrize("scaled", [(10, 12, 9), (20, 24, 31), (40, 6, 17)])
def test_native_size_and_back_is_pytorchs_interpolation_axis_by_axis(scaled):
    """PyTorch scales no volumes with antialiasing: here each axis is scaled as the rows of a picture."""
    torch.manual_seed(0)
    run, image = run_of(nn.Conv3d(2, 2, 1)), volumes(1, (20, 12, 17))[0]
    windows = Windows((20, 12, 17), scaled, 8)
    found = torch.cat(list(bands(run.segmenter, cut_of(image), windows)), 1)

    def along(values: Tensor, axis: int, length: int) -> Tensor:
        """One axis scaled as the rows of a picture."""
        moved = values.movedim(axis, -2)
        flat = moved.reshape(1, -1, moved.shape[-2], moved.shape[-1])
        made = F.interpolate(flat, (length, flat.shape[-1]), mode="bilinear", antialias=True)
        return made.reshape(*moved.shape[:-2], length, moved.shape[-1]).movedim(-2, axis)

    grown = image[None]
    for axis, length in zip((2, 3, 4), scaled, strict=True):
        grown = along(grown, axis, length)
    expected = run.predict(grown.clamp(0, 1)).probabilities
    for axis, length in zip((2, 3, 4), (20, 12, 17), strict=True):
        expected = along(expected, axis, length)
    torch.testing.assert_close(found, expected[0], rtol=0, atol=1e-5)


def test_only_the_slices_in_flight_are_held():
    """However deep the volume, what is asked for and what is handed on is bounded by the window."""
    spec = ModelSpec(architecture="wrapped", channels=1, dims=3, mean=(0.5,), std=(0.5,), image_size=8)
    segmenter = Segmenter(nn.Conv3d(1, 1, 1), spec)
    for depth in (50, 400):
        windows, done = Windows((depth, 9, 9), (depth, 9, 9), 8), 0
        ahead: list[int] = []

        def cut(*part, ahead=ahead):
            ahead.append(part[0].stop)
            return torch.zeros(1, *(each.stop - each.start for each in part))

        for band in bands(segmenter, cut, windows):
            done += band.shape[1]
            assert band.untyped_storage().nbytes() <= 2 * 8 * 9 * 9 * 4
            assert ahead[-1] < done + 8
        assert done == depth


def test_a_multilabel_head_has_a_threshold_for_each_label():
    spec = ModelSpec(
        architecture="wrapped",
        channels=2,
        classes=4,
        dims=3,
        head="multilabel",
        mean=(0.5,) * 2,
        std=(0.5,) * 2,
        image_size=8,
        thresholds=(0.3, 0.5, 0.6),
    )
    torch.manual_seed(0)
    segmenter, images = Segmenter(nn.Conv3d(2, 3, 1), spec), volumes(1, (9, 12, 10))
    found = in_windows(segmenter, images, over((9, 12, 10), spec, 8))
    for label, threshold in enumerate(spec.thresholds):
        assert torch.equal(found.mask[0, label], found.probabilities[0, label + 1] >= threshold)
    assert torch.equal(decide(found.probabilities[0], spec), found.mask[0])


def test_what_is_not_allowed(run):
    images = volumes(1, (9, 12, 10))
    with pytest.raises(SettingError, match=r"window of 8 x 8 pixels does not fit an input of 9 x 12 x 10.*3"):
        run.predict(images, window=(8, 8))
    with pytest.raises(SettingError, match=r"window of 0 x 0 x 0.*at least 1"):
        run.predict(images, window=0)
    with pytest.raises(SettingError, match=r"at least 0 and below 1, received 1\.0"):
        run.predict(images, window=8, overlap=1.0)
    with pytest.raises(SettingError, match=r"from 0 to 1, received 2.0"):
        run.predict(images, window=8, floor=2.0)
    own = run_of(small(), normalise="image")
    with pytest.raises(SettingError, match=r"9 x 12 x 10 pixels takes windows of 8 x 8 x 8.*by itself"):
        own.predict(images, window=8)
    torch.testing.assert_close(
        own.predict(images, window=(9, 12, 10)).probabilities, own.predict(images).probabilities
    )


def test_covers_are_of_an_axis():
    found = Windows((5, 40), (5, 40), (8, 16)).covers
    assert [type(each) for each in found] == [Cover, Cover]
    assert (found[0].margin, found[0].reach, found[0].starts) == (1, 5, (0,))
    assert (found[1].margin, found[1].reach, found[1].starts) == (0, 16, (0, 8, 16, 24))
    assert found[1].steps(1) == [-8, 0, 8]

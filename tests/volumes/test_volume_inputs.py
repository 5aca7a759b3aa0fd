"""Gradients, paths and hidden parts of volumes, against definitions written down again."""

import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage
from tests.volumes.networks import SIZE, channels_of, grid_of, run_of, scattered, small, volumes
from torch import Tensor

import seglens
from seglens import targets
from seglens.errors import SettingError
from seglens.explain.channels import ScoreCam
from seglens.explain.methods import Method
from seglens.explain.rise import _draws
from seglens.impute import IMPUTERS, blurred, imputer_of, linear, neighbours
from seglens.superpixels import superpixels

LITTLE = (9, 7, 6)


def score(run, images, pixels):
    """The mean logit of class 1 over the pixels."""
    with torch.no_grad():
        logits = run.segmenter(images)[:, 1]
    return (logits * pixels).flatten(1).sum(1) / pixels.flatten(1).sum(1)


def close(found, expected, share=1e-4):
    torch.testing.assert_close(found.double(), expected.double(), rtol=0, atol=share * expected.abs().max())


def test_gradients_are_central_differences():
    images = volumes(1, LITTLE)
    target, run = scattered(images), run_of(small().double())
    found = seglens.explain(run, images.double(), target, methods="input-x-gradient")["input-x-gradient"]
    step = 1e-6
    for place in [(0, 0, 0), (3, 6, 2), (8, 2, 5), (4, 3, 3)]:
        for channel in range(2):
            moved = images.double().repeat(2, 1, 1, 1, 1)
            moved[0, channel][place] += step
            moved[1, channel][place] -= step
            up, down = score(run, moved, target.pixels.repeat(2, 1, 1, 1)).tolist()
            expected = (up - down) / (2 * step) * images[0, channel][place].item()
            size = channels_of(found).abs().max().item()
            assert channels_of(found)[0, channel][place].item() == pytest.approx(expected, abs=1e-5 * size)


@pytest.mark.parametrize("baseline", ["zero", "blur", "mean"])
def test_integrated_gradients_are_complete(baseline):
    images, run = volumes(), run_of(small())
    target = scattered(images)
    settings = seglens.IntegratedGradients(baseline=baseline, steps=64)
    found = seglens.explain(run, images, target, methods=settings)["integrated-gradients"]
    start = {
        "zero": torch.zeros_like(images),
        "mean": images.mean((2, 3, 4), keepdim=True).expand_as(images),
        "blur": None,
    }[baseline]
    if start is None:
        start = gauss(images, settings.blur * 20)
    gained = score(run, images, target.pixels) - score(run, start, target.pixels)
    torch.testing.assert_close(found.map.flatten(1).sum(1), gained, rtol=0.03, atol=1e-4)
    close(channels_of(found).sum(1), found.map)


def gauss(images, sigma):
    """scipy's Gaussian of three standard deviations."""
    radius = max(1, round(3 * sigma))
    blurs = [
        ndimage.gaussian_filter(one, sigma, mode="nearest", radius=radius)
        for one in images.flatten(0, 1).double().numpy()
    ]
    return torch.from_numpy(np.stack(blurs)).view_as(images).float()


def test_a_blur_is_scipys_along_every_axis():
    images = volumes()
    for sigma in (0.7, 2.0, 3.5):
        torch.testing.assert_close(blurred(images, sigma), gauss(images, sigma), rtol=0, atol=1e-5)
    # A tenth of the middle side, 20.
    torch.testing.assert_close(blurred(images), gauss(images, 2.0), rtol=0, atol=1e-5)


def test_occlusion_is_the_mean_loss_over_the_windows_that_hide_a_voxel():
    images, run = volumes(1, LITTLE), run_of(small())
    target = scattered(images)
    settings = seglens.Occlusion(window=4, stride=3, fill="zero")
    found = seglens.explain(run, images, target, methods=settings)["occlusion"]
    total, times = torch.zeros(LITTLE), torch.zeros(LITTLE)
    whole = score(run, images, target.pixels)
    starts = [range(0, max(length - 4, 0) + 3, 3) for length in LITTLE]
    for corner in itertools.product(*starts):
        z, y, x = (slice(begin, begin + 4) for begin in corner)
        if any(begin >= length for begin, length in zip(corner, LITTLE, strict=True)):
            continue
        hidden = images.clone()
        hidden[0, :, z, y, x] = 0
        total[z, y, x] += (whole - score(run, hidden, target.pixels)).item()
        times[z, y, x] += 1
    assert (times > 0).all()
    close(found.map[0], total / times)


def test_supervoxels_are_connected_and_hidden_one_by_one():
    images, run = volumes(1), run_of(small())
    target = scattered(images)
    smooth = blurred(images, 2.0)
    smooth = (smooth - smooth.amin()) / (smooth.amax() - smooth.amin())
    segments = superpixels(smooth, num_segments=20)
    labels = segments[0].numpy()
    assert sorted(np.unique(labels)) == list(range(labels.max() + 1))
    assert labels.max() >= 5
    for label in range(labels.max() + 1):
        assert ndimage.label(labels == label, structure=np.ones((3, 3, 3)))[1] == 1
    assert (np.ptp(labels, axis=0) > 0).any()
    settings = seglens.SuperpixelOcclusion(num_segments=20, fill="mean")
    found = seglens.explain(run, smooth, target, methods=settings)["superpixel-occlusion"]
    whole, expected = score(run, smooth, target.pixels), torch.zeros(SIZE)
    colour = smooth.mean((2, 3, 4), keepdim=True)
    for label in range(labels.max() + 1):
        part = segments[0] == label
        hidden = torch.where(part, colour, smooth)
        expected[part] = (whole - score(run, hidden, target.pixels)).item()
    close(found.map[0], expected, 1e-3)


def test_score_cam_shows_the_volume_through_each_channel():
    images, run = volumes(1, LITTLE), run_of(small())
    target = scattered(images)
    found = seglens.explain(run, images, target, methods=ScoreCam(), layers="deep")["score-cam", "deep"]
    kept = []
    handle = run.segmenter.module.get_submodule("deep").register_forward_hook(
        lambda module, given, output: kept.append(output)
    )
    pixels = target.pixels.sum()
    score(run, images, target.pixels)
    handle.remove()
    activation, grid = kept[0].detach(), 0
    mean = torch.full_like(images, 0.5)
    base = score(run, mean, target.pixels) * pixels
    for channel in activation[0]:
        if channel.max() == channel.min():
            continue
        mask = torch.nn.functional.interpolate(channel[None, None], LITTLE, mode="trilinear")
        mask = (mask - mask.min()) / (mask.max() - mask.min())
        shown = score(run, mean + mask * (images - mean), target.pixels) * pixels
        grid = grid + (shown - base).relu() * channel
    close(grid_of(found)[0], grid, 1e-3)


def test_ablation_cam_sets_each_channel_to_zero():
    images, run = volumes(1, LITTLE), run_of(small())
    target = scattered(images)
    found = seglens.explain(run, images, target, methods="ablation-cam", layers="deep")[
        "ablation-cam", "deep"
    ]
    module, pixels = run.segmenter.module.get_submodule("deep"), target.pixels
    grid, kept = torch.zeros(4, 3, 3), list[Tensor]()
    whole = score(run, images, pixels)
    for channel in range(7):

        def silence(module, given, output, channel=channel):
            kept.append(output.clone())
            return output.index_fill(1, torch.tensor([channel]), 0)

        handle = module.register_forward_hook(silence)
        lost = whole - score(run, images, pixels)
        handle.remove()
        grid += (lost / whole.abs()) * kept[-1][0, channel]
    close(grid_of(found)[0], grid, 1e-3)


def test_rise_weighs_each_voxel_by_the_masks_that_show_it():
    images, run = volumes(1, LITTLE), run_of(small())
    target = scattered(images)
    settings = seglens.Rise(num_masks=6, cells=2)
    found = seglens.explain(run, images, target, methods=settings)["rise"]
    grids, shifts = _draws(images, settings, 0)
    shown = []
    for grid, shift in zip(grids[0], shifts[0], strict=True):
        sides = [3 * -(-length // 2) for length in LITTLE]
        matrices = [
            torch.nn.functional.interpolate(torch.eye(2)[None, None], (side, 2), mode="bilinear")[0, 0]
            for side in sides
        ]
        large = torch.einsum("zyx,az,by,cx->abc", grid, *matrices)
        for axis, (first, length) in enumerate(zip(shift.tolist(), LITTLE, strict=True)):
            large = large.narrow(axis, first, length)
        shown.append(large)
    masks = torch.stack(shown)
    mean = torch.full_like(images, 0.5)
    scores = torch.cat([score(run, mean + mask * (images - mean), target.pixels) for mask in masks])
    expected = torch.einsum("n,nzyx->zyx", scores - scores.mean(), masks) / masks.sum(0).clamp(min=1e-6)
    close(found.map[0], expected, 1e-3)


WEIGHTS = {1: 1 / 6, 2: 1 / 12, 3: 1 / 24}
"""Of the 26 neighbours: across a face, an edge and a corner."""


def test_noisy_linear_imputation_solves_the_system_of_26_neighbours():
    images = volumes(1, (6, 5, 4))[:, :1].double()
    removed = torch.rand(1, 6, 5, 4, generator=torch.Generator().manual_seed(6)) > 0.4
    places = [tuple(place) for place in removed[0].nonzero().tolist()]
    numbers = {place: number for number, place in enumerate(places)}
    matrix, right = np.zeros((len(places), len(places))), np.zeros(len(places))
    for place, row in numbers.items():
        for step in itertools.product((-1, 0, 1), repeat=3):
            other = tuple(a + b for a, b in zip(place, step, strict=True))
            kind = sum(map(abs, step))
            if kind and all(0 <= a < length for a, length in zip(other, (6, 5, 4), strict=True)):
                matrix[row, row] += WEIGHTS[kind]
                if other in numbers:
                    matrix[row, numbers[other]] -= WEIGHTS[kind]
                else:
                    right[row] += WEIGHTS[kind] * images[0, 0][other].item()
    expected = images.clone()
    for place, value in zip(places, np.linalg.solve(matrix, right), strict=True):
        expected[0, 0][place] = value
    torch.testing.assert_close(linear(images, removed), expected, rtol=0, atol=2e-4)


def test_one_slice_is_imputed_as_its_picture():
    images = volumes(2, (33, 26))
    removed = torch.rand(2, 33, 26, generator=torch.Generator().manual_seed(7)) > 0.5
    removed[0, 5:25, 4:20] = True
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(8))
    field = torch.rand(2, 1, 1, 33, 26)
    torch.testing.assert_close(neighbours(field)[:, :, 0], neighbours(field[:, :, 0]))
    for name, imputer in IMPUTERS.items():
        found = imputer(images[:, :, None], removed[:, None], noise[:, :, None])[:, :, 0]
        torch.testing.assert_close(found, imputer(images, removed, noise), rtol=0, atol=1e-5, msg=name)


def test_a_volume_that_is_removed_whole_becomes_its_mean_colour():
    images = volumes(1, LITTLE)
    found = linear(images, torch.ones(1, *LITTLE, dtype=torch.bool))
    torch.testing.assert_close(
        found, images.mean((2, 3, 4), keepdim=True).expand_as(images), rtol=0, atol=1e-3
    )


def test_chunks_change_nothing():
    images, run = volumes(3, LITTLE), run_of(small())
    target = targets.predicted(run, images)
    methods: list[Method] = ["grad-cam", "saliency", seglens.Rise(num_masks=4), "ablation-cam"]
    one, other = (
        seglens.explain(run, images, target, methods=methods, layers="deep", batch_size=size)
        for size in (1, 3)
    )
    for key, explanation in one.items():
        close(explanation.map, other[key].map)


def test_a_budget_of_memory_changes_nothing():
    images, run = volumes(2, LITTLE), run_of(small())
    target = scattered(images)
    wide = seglens.Occlusion(window=6, stride=6)
    for method in ("hires-cam", wide):
        found, expected = (
            seglens.explain(run, images, target, methods=[method], layers="deep", memory=memory)
            for memory in (2**30, None)
        )
        for key, explanation in expected.items():
            close(found[key].map, explanation.map)


SPACING = (3.0, 1.0, 1.5)
"""Millimetres of a voxel along each axis."""


def test_a_blur_in_millimetres_is_as_wide_along_all_axes():
    """Variance of a blurred point in mm^2 along each axis."""
    point = torch.zeros(1, 1, 41, 81, 61)
    point[0, 0, 20, 40, 30] = 1
    smooth = blurred(point, 6.0, SPACING)[0, 0]
    for axis, mm in enumerate(SPACING):
        weights = smooth.sum([other for other in range(3) if other != axis])
        away = (torch.arange(len(weights)) - len(weights) // 2) * mm
        assert float((weights * away**2).sum()) == pytest.approx(36, rel=0.03)
    # The sides are 123, 81 and 91.5 mm long: a tenth of the middle one is 9.15 voxels of the finest axis.
    torch.testing.assert_close(blurred(point, spacing=SPACING), blurred(point, 9.15, SPACING))
    torch.testing.assert_close(blurred(point, 2.0, (2.0, 2.0, 2.0)), blurred(point, 2.0))


def test_what_fills_and_where_paths_begin_is_blurred_in_millimetres():
    images, removed = volumes(), torch.ones(2, *SIZE, dtype=torch.bool)
    expected = blurred(images, spacing=SPACING)
    torch.testing.assert_close(imputer_of("blur", SPACING)(images, removed, images), expected)
    assert imputer_of("zero", SPACING) is IMPUTERS["zero"]
    run = run_of(small(), spacing=SPACING)
    assert run.spec.spacing == SPACING
    target = scattered(images)
    settings = seglens.IntegratedGradients(baseline="blur", steps=2, blur=0.1)
    own = seglens.IntegratedGradients(picture=expected, steps=2)
    (one,), (other,) = (
        list(seglens.explain(run, images, target, methods=[each]).values()) for each in (settings, own)
    )
    torch.testing.assert_close(one.map, other.map)


def test_a_boundary_is_as_wide_in_millimetres_along_all_axes():
    region = torch.zeros(1, 30, 30, 30, dtype=torch.bool)
    region[0, 10:20, 10:20, 10:20] = True
    band = seglens.targets.boundary(region, spacing=(1.5, 1.0, 9.0)).pixels[0]
    assert band[:, 15, 15].nonzero()[:, 0].tolist() == [8, 9, 10, 11, 18, 19, 20, 21]  # 3 mm are 2 voxels
    assert band[15, :, 15].nonzero()[:, 0].tolist() == [*range(7, 13), *range(17, 23)]
    assert band[15, 15].nonzero()[:, 0].tolist() == [9, 10, 19, 20]  # at least one
    alike = seglens.targets.boundary(region, spacing=(2.0, 2.0, 2.0)).pixels
    assert torch.equal(alike, seglens.targets.boundary(region).pixels)
    with pytest.raises(SettingError, match=r"spacing is \(1\.0, 0\.0, 1\.0\).*each of 3 axes"):
        seglens.targets.boundary(region, spacing=(1.0, 0.0, 1.0))


def test_a_spacing_is_one_number_for_each_axis():
    with pytest.raises(SettingError, match="one positive number of millimetres for each of 3 axes"):
        run_of(small(), dims=3, spacing=(1.0, 2.0))

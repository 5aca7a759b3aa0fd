"""Windows: what they cover, what they weigh, and that nobody can see where they were."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from seglens.errors import SettingError, UnknownNameError
from seglens.models.segmenter import ModelSpec, Segmenter
from seglens.predict import infer
from seglens.predict.tiles import TILES, Windows, bands, cover, plan, resized

HALF = (0.5, 0.5, 0.5)


def model(*layers, size=16, **fields) -> Segmenter:
    torch.manual_seed(0)
    spec = ModelSpec(architecture="wrapped", image_size=size, mean=HALF, std=HALF, **fields)
    return Segmenter(nn.Sequential(*layers).eval(), spec)


def cut_of(image):
    return lambda rows, columns: image[:, rows, columns]


def windows_of(image, size=16, overlap=0.5, scale=1.0):
    native = tuple(image.shape[1:])
    return Windows(native, tuple(max(1, round(side * scale)) for side in native), size, overlap)


def whole(segmenter, image, windows, **settings):
    return torch.cat(list(bands(segmenter, cut_of(image), windows, **settings)), dim=1)


def picture(rows, columns, seed=0):
    return torch.rand(3, rows, columns, generator=torch.Generator().manual_seed(seed))


class Always(nn.Module):
    """Logits that have nothing to do with the image."""

    def forward(self, images):
        logits = torch.tensor([0.3, -1.0, 2.0])[:, None, None]
        return logits.expand(len(images), 3, *images.shape[-2:])


SIZES = [(16, 16), (17, 40), (50, 33), (5, 70), (1, 40), (40, 1), (3, 3), (1, 1)]


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("length", [1, 7, 8, 9, 23, 64])
def test_windows_cover_every_pixel_and_their_weights_sum_to_1(length, overlap):
    found = cover(length, 8, overlap)
    counts, total = torch.zeros(length), torch.zeros(length)
    for start, weights in zip(found.starts, found.weights, strict=True):
        assert 0 <= start <= start + len(weights) <= length
        counts[start : start + len(weights)] += 1
        total[start : start + len(weights)] += weights
        assert (weights > 0).all()
    assert (counts > 0).all()
    torch.testing.assert_close(total, torch.ones(length))


def test_weights_are_a_bell():
    # The middle window of many, where the sum over windows is periodic, has its maximum in the middle.
    found = cover(80, 16, 0.5)
    assert found.starts == (0, 8, 16, 24, 32, 40, 48, 56, 64)
    bell = torch.distributions.Normal(7.5, 2).log_prob(torch.arange(16.0)).exp()
    torch.testing.assert_close(found.weights[4], bell / (bell + bell.roll(8)), rtol=1e-4, atol=0)


def test_the_last_window_is_shifted_inwards():
    assert cover(21, 8, 0.5).starts == (0, 4, 8, 12, 13)


@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.7])
@pytest.mark.parametrize("size", SIZES)
def test_a_constant_field_stays_one(size, overlap):
    segmenter = model(Always(), classes=3, head="softmax")
    expected = torch.tensor([0.3, -1.0, 2.0]).softmax(0)[:, None, None].expand(3, *size)
    for scale in (1.0, 0.6, 2.5):
        image = picture(*size)
        found = whole(segmenter, image, windows_of(image, overlap=overlap, scale=scale), batch_size=3)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("tta", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_a_model_of_single_pixels_sees_no_windows(size, tta):
    segmenter, image = model(nn.Conv2d(3, 3, 1), classes=3, head="softmax"), picture(*size)
    expected = infer(segmenter, image[None]).probabilities[0]
    torch.testing.assert_close(whole(segmenter, image, windows_of(image), tta=tta), expected)


def test_away_from_the_border_windows_with_context_are_the_whole_picture():
    """Pixels that every window over them sees with all that the model looks at: 2 pixels each way."""
    segmenter = model(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1))
    image = picture(50, 41)
    expected = infer(segmenter, image[None]).probabilities[0]
    for overlap in (0.25, 0.5, 0.8):
        windows = windows_of(image, overlap=overlap)
        unseen = []
        for length in image.shape[1:]:
            wrong = torch.zeros(length, dtype=torch.bool)
            for start in cover(length, 16, overlap).starts:
                if start > 0:
                    wrong[start : start + 2] = True
                if start + 16 < length:
                    wrong[start + 14 : start + 16] = True
            unseen.append(wrong)
        inner = ~(unseen[0][:, None] | unseen[1][None])
        assert inner.sum() > 100
        found = whole(segmenter, image, windows)
        torch.testing.assert_close(found[:, inner], expected[:, inner])
        # And where some window sees too little, that window's small weight keeps the seam small.
        assert (found - expected).abs().max() < (0.02 if overlap == 0.5 else 0.2)


@pytest.mark.parametrize("scale", [0.31, 0.5, 1.7])
def test_chunks_and_bands_change_nothing(scale, monkeypatch):
    segmenter = model(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1))
    image = picture(60, 90)
    windows = windows_of(image, scale=scale)
    expected = whole(segmenter, image, windows)
    assert expected.shape == (2, 60, 90)
    torch.testing.assert_close(whole(segmenter, image, windows, batch_size=1), expected)
    monkeypatch.setattr("seglens.predict.tiles.BAND", 2 * 90 * 7)
    parts = list(bands(segmenter, cut_of(image), windows))
    assert max(part.shape[1] for part in parts) == 7
    torch.testing.assert_close(torch.cat(parts, dim=1), expected)


@pytest.mark.parametrize("scale", [0.13, 0.5, 0.77, 1.9])
def test_native_size_and_back_is_pytorchs_interpolation(scale):
    segmenter, image = model(nn.Conv2d(3, 1, 1)), picture(47, 83)
    windows = windows_of(image, scale=scale)
    scaled = F.interpolate(image[None], windows.scaled, mode="bilinear", antialias=True)
    probabilities = infer(segmenter, scaled).probabilities
    expected = F.interpolate(probabilities, (47, 83), mode="bilinear", antialias=True)[0]
    torch.testing.assert_close(whole(segmenter, image, windows), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("scaled", [(10, 12), (47, 83), (47, 20), (90, 200), (1, 1)])
def test_a_resized_part_is_that_part_of_the_resized_whole(scaled):
    image = picture(47, 83)
    expected = F.interpolate(image[None], scaled, mode="bilinear", antialias=True)[0]
    for top, left in itertools.product((0, scaled[0] // 2), (0, scaled[1] // 3)):
        rows, columns = slice(top, scaled[0]), slice(left, max(left + 1, scaled[1] - 2))
        asked: list[int] = []

        def cut(rows, columns, asked=asked):
            asked.append((rows.stop - rows.start) * (columns.stop - columns.start))
            return image[:, rows, columns]

        found = resized(cut, (47, 83), scaled, rows, columns)
        torch.testing.assert_close(found, expected[:, rows, columns], rtol=0, atol=1e-5)
    assert asked[0] < 0.6 * 47 * 83 or scaled == (1, 1)  # the last part is about a third of the picture


def test_only_the_rows_in_flight_are_held():
    """However tall the picture, what is asked for and what is handed on is bounded by the window."""
    segmenter = model(nn.Conv2d(3, 1, 1))
    for rows in (100, 1000):
        windows, done = Windows((rows, 20), (rows, 20), 16), 0
        ahead: list[int] = []

        def cut(rows, columns, ahead=ahead):
            ahead.append(rows.stop)
            return torch.zeros(3, rows.stop - rows.start, columns.stop - columns.start)

        for band in bands(segmenter, cut, windows):
            done += band.shape[1]
            assert band.shape[1] <= 16
            assert band.untyped_storage().nbytes() <= 2 * 16 * 20 * 4
            assert ahead[-1] < done + 16  # less than a window is still open
        assert done == rows


@pytest.mark.parametrize(
    ("native", "scale", "tiles", "scaled"),
    [
        ((100, 300), None, "auto", None),  # nothing is known of the training's scale
        ((100, 300), 0.32, "auto", None),  # 64 / 300 is two thirds of it
        ((100, 300), 0.43, "auto", (43, 129)),
        ((100, 300), 0.43, "never", None),
        ((100, 300), None, "always", (100, 300)),
        ((100, 300), 0.32, "always", (32, 96)),
        ((100, 300), 0.2, "always", None),  # at that scale it fits into one window
        ((64, 64), None, "always", None),
        ((1, 3000), 0.1, "auto", (1, 300)),
    ],
)
def test_when_windows_are_used(native, scale, tiles, scaled):
    spec = ModelSpec(architecture="unet", image_size=64, scale=scale)
    assert plan(native, spec, tiles) == (None if scaled is None else Windows(native, scaled, 64, 0.5))


def test_what_is_not_allowed():
    spec = ModelSpec(architecture="unet")
    with pytest.raises(UnknownNameError, match=r"rule for tiles 'allways'.*Did you mean 'always'"):
        plan((9, 9), spec, "allways")
    with pytest.raises(SettingError, match=r"at least 0 and below 1, received 1\.0"):
        plan((9, 9), spec, overlap=1.0)
    assert set(TILES) == {"auto", "always", "never"}

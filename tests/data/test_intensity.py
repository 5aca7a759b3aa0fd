"""The intensity window: found on stored values, the same in training, at inference, in maps and drawings."""

import re

import numpy as np
import pytest
import tifffile
import torch
from torch import nn

import seglens
from seglens.data.intensity import about_range, found_window, read_window, warn_of_window
from seglens.data.layout import Entry, Split
from seglens.data.sample import Sample, Task
from seglens.data.transforms import augment, augment_within, sample_generator
from seglens.errors import SeglensWarning, SettingError
from seglens.judge.audit import audit
from seglens.models.segmenter import ModelSpec, Segmenter
from seglens.predict.tiles import plan

TOP = 65535


def unread(entry: Entry):
    raise AssertionError("only the stored values are needed")


def split_with(folder, pictures):
    entries = []
    for index, pixels in enumerate(pictures):
        tifffile.imwrite(folder / f"{index}.tif", pixels)
        entries.append(Entry(str(index), folder / f"{index}.tif"))
    return Split("train", Task(), tuple(entries), unread)


def counts(low, high, seed=0, dtype=np.uint16):
    """A picture of 100 x 100 that has every value from ``low`` to ``high``, in equal numbers."""
    values = np.linspace(low, high, 10_000)
    return np.random.default_rng(seed).permutation(values).reshape(100, 100).astype(dtype)


def test_the_window_is_what_the_pictures_use(tmp_path):
    low, high = found_window(split_with(tmp_path, [counts(100, 220, seed) for seed in range(5)]))
    assert (low * TOP, high * TOP) == (pytest.approx(100, abs=1), pytest.approx(220, abs=1))


def test_pictures_of_one_bit_use_all_of_it(tmp_path):
    assert found_window(split_with(tmp_path, [counts(0, 1.99).astype(bool)])) == (0, 1)


def test_hot_pixels_and_odd_pictures_decide_nothing(tmp_path):
    pictures = [counts(100, 560, seed) for seed in range(100)]
    for picture in pictures:
        picture[0, :5] = 60_000  # .05 % of the pixels
    pictures[7] = counts(20_000, 60_000)
    low, high = found_window(split_with(tmp_path, pictures))
    assert (low * TOP, high * TOP) == (pytest.approx(100, abs=1), pytest.approx(560, abs=2))


@pytest.mark.parametrize(
    "picture",
    [
        counts(0, 255, dtype=np.uint8),
        counts(10, 90, dtype=np.uint8),
        counts(0, TOP),
        np.full((9, 9), 77, np.uint16),
    ],
)
def test_a_range_that_is_well_used_stays_whole(tmp_path, picture):
    assert found_window(split_with(tmp_path, [picture])) == (0, 1)


def test_one_bright_spot_is_the_range_where_all_else_is_even(tmp_path):
    picture = np.full((100, 100), 50, np.uint16)
    picture[3, 4] = 900
    low, high = found_window(split_with(tmp_path, [picture]))
    assert (low * TOP, high * TOP) == (pytest.approx(50), pytest.approx(900))


def test_a_window_in_the_numbers_of_the_files(tmp_path):
    deep = split_with(tmp_path, [counts(100, 220)])
    assert read_window("100,4095", deep) == (100 / TOP, 4095 / TOP)
    assert read_window("full", deep) == (0, 1)
    assert read_window("auto", deep) == found_window(deep)
    with pytest.raises(
        SettingError, match=r"'0,70000' is not within what the pictures can hold, 0 to 65535 \(uint16"
    ):
        read_window("0,70000", deep)


@pytest.mark.parametrize("text", ["", "5", "9,3", "3,3", "nan,4", "0,inf", "1,2,3", "1e5.2,3", "all"])
def test_other_words_are_refused(text):
    with pytest.raises(
        SettingError, match=re.escape(f"The window {text!r} is not allowed. Write auto, full, or LOW,HIGH")
    ):
        seglens.TrainSettings(window=text)


def test_the_check_says_how_much_is_used(tmp_path):
    (finding,) = about_range(split_with(tmp_path, [counts(100, 220)]))
    assert finding.text.startswith("The pictures of train use intensities 100 to 219 of 0 to 65535: 0.2%")


class Bright(nn.Module):
    """One logit: the intensity that reaches the network."""

    def forward(self, images):
        return images[:, :1] + 0.0


class Around(nn.Module):
    """One logit: how much brighter a pixel is than the whole picture."""

    def forward(self, images):
        return 8 * (images[:, :1] - images.mean((1, 2, 3), keepdim=True)) + 1


def run_with(module=None, **fields):
    spec = ModelSpec(
        architecture="wrapped", channels=1, image_size=16, **{"mean": (0.0,), "std": (1.0,)} | fields
    )
    return seglens.Run(Segmenter(module or Bright(), spec), Task())


def test_the_network_sees_the_window_only():
    run = run_with(window=(0.2, 0.6))
    images = torch.tensor([0.0, 0.2, 0.4, 0.6, 1.0]).view(1, 1, 1, 5)
    assert run.segmenter(images).flatten().tolist() == pytest.approx([0, 0, 0.5, 1, 1])


def test_each_picture_by_itself():
    """Against the mean and deviation that numpy gives of the pixels that are not black."""
    images = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(1)) * 0.01
    images[1, :, :, :6] = 0  # padding
    found = run_with(normalise="image").segmenter(images)
    for image, logits in zip(images.double().numpy(), found.detach().double().numpy(), strict=True):
        there = image[image != 0]
        np.testing.assert_allclose(logits, (image - there.mean()) / there.std(), atol=1e-4)
    again = run_with(normalise="image").segmenter(3 * images)
    torch.testing.assert_close(again, found, atol=1e-4, rtol=0)


def test_an_even_picture_has_no_deviation():
    found = run_with(normalise="image").segmenter(torch.full((1, 1, 8, 8), 0.3))
    assert found.abs().max() < 0.05, "nothing but rounding"


def test_windows_of_a_large_picture_are_refused_where_each_would_be_normalised_by_itself():
    spec = run_with(normalise="image", scale=1.0).spec
    assert plan((20, 20), spec) is None
    with pytest.raises(SettingError, match=r"A picture of 300 x 200 pixels takes several windows of 16"):
        plan((200, 300), spec)


def test_maps_of_a_windowed_model_are_those_of_the_opened_pictures():
    """Blur, baselines and steps have the range that the model sees: as with pictures stretched before."""
    window = (0.002, 0.004)
    stretched = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    stretched[..., 1:4] = 1
    dark = window[0] + (window[1] - window[0]) * stretched
    target = seglens.targets.whole_class(torch.ones(2, 16, 16, dtype=torch.bool))
    around, dark_around = run_with(module=Around()), run_with(module=Around(), window=window)
    methods = ("input-x-gradient", "occlusion", seglens.IntegratedGradients(baseline="blur", steps=4))
    plain, windowed = (
        seglens.explain(run, images, target, methods=methods, layers=())
        for run, images in ((run_with(), stretched), (run_with(window=window), dark))
    )
    for key, expected in plain.items():
        torch.testing.assert_close(windowed[key].map, expected.map, atol=1e-4, rtol=1e-3)
    strip = {"strip": torch.zeros(2, 16, 16, dtype=torch.bool)}
    strip["strip"][..., 1:4] = True
    inner = seglens.targets.box(stretched, 6, 0, 16, 16)
    drops = [
        audit(run, images, inner, list(maps.values()), strip)[0].drop
        for run, images, maps in ((around, stretched, plain), (dark_around, dark, windowed))
    ]
    assert drops[0].abs().min() > 0.01, "the strip matters"
    # The noise of what is filled in is keyed by what a picture holds, and differs in the last digits.
    torch.testing.assert_close(drops[1], drops[0], atol=0.01, rtol=0)


def test_augmentation_varies_what_the_model_sees():
    window = (0.002, 0.004)
    stretched = torch.rand(1, 24, 24, generator=torch.Generator().manual_seed(0))
    mask, valid = torch.zeros(24, 24, dtype=torch.long), torch.ones(24, 24, dtype=torch.bool)
    dark = Sample("a", window[0] + (window[1] - window[0]) * stretched, mask, valid)
    expected = augment(Sample("a", stretched, mask, valid), sample_generator(0, 1, 2))
    found = augment_within(window, dark, sample_generator(0, 1, 2))
    opened = (found.image - window[0]) / (window[1] - window[0])
    torch.testing.assert_close(opened, expected.image, atol=1e-3, rtol=0)


def test_mean_and_std_say_nothing_where_each_picture_has_its_own():
    with pytest.raises(SettingError, match="Leave mean and std out, or normalise by the dataset"):
        seglens.TrainSettings(normalise="image", mean=(0.5,))


@pytest.mark.parametrize(
    ("pictures", "window", "normalise", "shade"),
    [
        ((0, 4095), (0.0, 1.0), "dataset", "black"),  # 12 bits in 16, to a model of all 16
        ((0, 60_000), (0.0, 4095 / TOP), "dataset", "white"),  # the other way round
        ((0, 200), (0.0, 4095 / TOP), "dataset", "black"),
        ((30_000, 60_000), (0.1, 0.3), "dataset", "white"),  # nothing of them lies within
        ((100, 900), (0.2, 0.4), "dataset", "black"),
        ((0, 4095), (0.0, 1.0), "image", None),  # each picture is stretched by itself
        ((0, 4095), (0.0, 4095 / TOP), "dataset", None),
        ((0, 12_000), (0.0, 4095 / TOP), "dataset", None),
        ((0, 20_000), (0.0, 1.0), "dataset", None),
    ],
)
def test_pictures_of_another_bit_depth_are_warned_of(tmp_path, recwarn, pictures, window, normalise, shade):
    low, high = pictures
    made = [counts(low, high, seed) for seed in range(3)]
    warn_of_window(window, normalise, split_with(tmp_path, made))
    assert [str(each.message).count(f"nearly {shade}.") for each in recwarn] == [1] * (shade is not None)


def test_named_pictures_and_other_data_are_looked_at(tmp_path):
    spec = ModelSpec(architecture="unet", width=4, image_size=32, window=(0.0, 4095 / TOP))
    run = seglens.Run(Segmenter.from_spec(spec).eval(), Task())
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    tifffile.imwrite(tmp_path / "images" / "a.tif", counts(0, 60_000))
    tifffile.imwrite(tmp_path / "masks" / "a.tif", (counts(0, 1.99) > 0).astype(np.uint8) * 255)
    with pytest.warns(SeglensWarning, match=r"'all' use intensities .* nearly white"):
        seglens.open_split(run, data=tmp_path)
    with pytest.warns(SeglensWarning, match=r"'files' use intensities .* nearly white"):
        seglens.predict_files(run, [tmp_path / "images" / "a.tif"], out=tmp_path / "out")


def test_pictures_of_8_bits_among_dark_ones_of_16_are_warned_of(tmp_path):
    """12 bits in 16 use a sixteenth of the range: white of the ones is dark grey beside the others'."""
    bright = [counts(0, 255, seed, np.uint8) for seed in range(4)]
    split = split_with(tmp_path, [*bright, counts(0, 4095), counts(0, 4095, 1)])
    (finding,) = about_range(split)
    assert (finding.kind, finding.severity, finding.names) == ("bit-depths", "warning", ("4", "5"))
    with pytest.warns(
        SeglensWarning, match="of uint8 and uint16, and those of uint16 use less than a quarter"
    ):
        assert read_window("auto", split) == (0, 1)
    assert not about_range(split_with(tmp_path, [*bright, counts(0, 60_000)]))

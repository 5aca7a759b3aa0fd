"""Sheets say what their colours mean, cut nothing off, and are wide enough to be looked at."""

import numpy as np
import torch
from PIL import Image, ImageColor

from seglens.drawing import draw


def tile(title: str = "", caption: str = "") -> draw.Tile:
    return draw.Tile(Image.new("RGB", (64, 64), "#808080"), title, caption)


def test_panels_are_320_pixels_wide_and_a_long_title_wraps():
    short = draw.sheet([[tile()]], title="cell")
    assert short.width >= 320 + draw.GAP
    long = draw.sheet(
        [[tile()]], title="patient_0001_slice_0042_contrast: methods@segmentation_model.encoder.layer4"
    )
    assert long.width == short.width
    assert long.height > short.height


def test_no_word_of_a_text_is_lost_by_wrapping():
    text = "No heat map: all evidence in this layer speaks against the class."
    lines = draw.wrapped(text, draw._font(12), 160)
    assert len(lines) > 1
    assert " ".join(lines) == text
    name = "integrated-gradients@segmentation_model_of_somebody"
    assert "".join(draw.wrapped(name, draw._font(12), 160)) == name


def test_a_legend_shows_each_colour():
    colours = {draw.TARGET: "target", draw.TRUTH: "truth"}
    plain, page = draw.sheet([[tile()]]), draw.sheet([[tile()]], legend=colours)
    assert page.height > plain.height
    pixels = np.asarray(page)[plain.height - draw.GAP :].reshape(-1, 3)
    for colour in colours:
        assert (pixels == ImageColor.getrgb(colour)).all(1).any()


def test_contours_lie_where_the_map_has_their_value():
    image, ramp = torch.full((3, 10, 100), 0.5), torch.linspace(0, 1, 100).expand(10, 100)
    drawn = np.asarray(draw.contours(image, ramp, draw.Scale((0.0, 1.0), draw.HEAT)))
    changed = np.flatnonzero((drawn[5] != drawn[5, 10]).any(-1))
    for level in draw.LEVELS:
        assert np.abs(changed - 99 * level).min() <= 1
    assert not set(range(30, 45)) & set(changed.tolist())


def test_a_masked_picture_shows_the_fifth_with_the_largest_values():
    image, ramp = torch.ones(3, 10, 100), torch.linspace(0, 1, 100).expand(10, 100)
    drawn = np.asarray(draw.masked(image, ramp))[..., 0]
    assert (drawn == 255).mean() == 0.2
    assert (drawn[:, 80:] == 255).all()

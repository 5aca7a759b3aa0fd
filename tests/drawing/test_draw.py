"""Drawing: colours mean values, and nothing is scaled behind the caller's back."""

import matplotlib
import pytest
import torch
from PIL import Image

from seglens.drawing import draw
from seglens.errors import SettingError, UnknownNameError


def colour_at(drawn, x, y):
    return drawn.getpixel((x, y))


def end_of(colormap, place):
    return tuple(round(255 * part) for part in matplotlib.colormaps[colormap](place)[:3])


def test_the_ends_of_a_scale_take_the_ends_of_the_colormap():
    values = torch.tensor([[2.0, 3.0, 5.0, 9.0]])
    drawn = draw.heat(values, draw.Scale((3.0, 5.0)))
    assert [colour_at(drawn, x, 0) for x in range(4)] == [
        end_of("inferno", 0.0),
        end_of("inferno", 0.0),
        end_of("inferno", 1.0),
        end_of("inferno", 1.0),
    ]


def test_equal_limits_give_equal_colours_whatever_else_a_map_holds():
    scale = draw.Scale((0.0, 4.0))
    one = draw.heat(torch.tensor([[1.0, 2.0]]), scale)
    other = draw.heat(torch.tensor([[1.0, 400.0]]), scale)
    assert colour_at(one, 0, 0) == colour_at(other, 0, 0)


def test_zero_is_the_middle_of_a_signed_scale():
    values = torch.tensor([[-1.0, 0.0, 3.0]])
    scale = draw.signed_scale(values)
    assert scale.limits == (-3.0, 3.0)
    middle = colour_at(draw.heat(values, scale), 1, 0)
    assert middle == end_of("RdBu_r", 128)
    assert min(middle) > 240


def test_heat_scale_ignores_what_is_not_finite():
    assert draw.heat_scale(torch.tensor([float("nan"), 2.0, float("inf")])).limits == (0.0, 2.0)
    assert draw.heat_scale(torch.zeros(3)).limits == (0.0, 1.0)


def test_a_scale_may_leave_out_a_share_of_extreme_values():
    values = torch.arange(1.0, 101.0)
    assert draw.heat_scale(values, share=0.9).limits == (0.0, 90.0)
    assert draw.signed_scale(-values, share=0.5).limits == (-50.0, 50.0)
    assert draw.heat_scale(torch.tensor([0.0, 0.0, 0.0, 5.0]), share=0.5).limits == (0.0, 5.0)


def test_a_map_without_values_is_hatched_and_never_black():
    nothing = torch.full((64, 64), float("nan"))
    for drawn in (
        draw.heat(nothing, draw.Scale((0.0, 1.0))),
        draw.heat_overlay(torch.zeros(3, 64, 64), nothing, draw.Scale((0.0, 1.0))),
    ):
        tones = torch.tensor(list(drawn.convert("L").tobytes()))
        assert (tones > 200).float().mean() > 0.8
        assert len(tones.unique()) > 2


def test_where_nothing_is_the_image_shows():
    image = torch.rand(1, 8, 8)
    drawn = draw.heat_overlay(image, torch.zeros(8, 8), draw.Scale((0.0, 1.0)))
    assert drawn.tobytes() == draw.picture(image).tobytes()
    signed = draw.heat_overlay(image, torch.zeros(8, 8), draw.Scale((-1.0, 1.0), draw.SIGNED))
    assert signed.tobytes() == draw.picture(image).tobytes()


def test_overlay_leaves_the_background_and_edges_in_full_colour():
    image = torch.full((3, 9, 9), 0.5)
    mask = torch.zeros(9, 9, dtype=torch.long)
    mask[2:7, 2:7] = 1
    drawn = draw.overlay(image, mask, ("#000000", "#ff0000"), opacity=0.5)
    assert colour_at(drawn, 0, 0) == (128, 128, 128)
    assert colour_at(drawn, 2, 4) == (255, 0, 0)
    assert colour_at(drawn, 4, 4) == (191, 64, 64)
    assert colour_at(draw.mask_picture(mask, ("#000000", "#00ff00")), 4, 4) == (0, 255, 0)


def test_outline_marks_the_edge_at_the_size_of_the_picture():
    region = torch.zeros(4, 4, dtype=torch.bool)
    region[1:3, 1:3] = True
    drawn = draw.outline(Image.new("RGB", (16, 16)), region, "#ffffff")
    white = torch.tensor(list(drawn.convert("L").tobytes())).reshape(16, 16) > 0
    expected = torch.zeros(16, 16, dtype=torch.bool)
    expected[4:12, 4:12] = True
    expected[5:11, 5:11] = False
    assert torch.equal(white, expected)


def test_pictures_of_any_number_of_channels():
    grey = draw.picture(torch.full((1, 4, 5), 0.2))
    assert grey.size == (5, 4)
    assert colour_at(grey, 0, 0) == (51, 51, 51)
    two = torch.stack([torch.zeros(4, 5), torch.ones(4, 5)])
    assert colour_at(draw.picture(two), 0, 0) == (128, 128, 128)
    assert colour_at(draw.picture(torch.tensor([1.0, 0.0, 0.2]).reshape(3, 1, 1)), 0, 0) == (255, 0, 51)


def test_a_sheet_holds_its_tiles(tmp_path):
    red = Image.new("RGB", (32, 32), "#ff0000")
    blue = Image.new("RGB", (32, 16), "#0000ff")
    scale = draw.Scale((0.0, 1.0), unit="logit")
    rows = [[draw.Tile(red, "red", "a caption", scale), draw.Tile(blue, "a title much too long for it" * 3)]]
    page = draw.sheet(rows, title="Two tiles", tile_width=100)
    assert page.width == 2 * 100 + 3 * draw.GAP
    counted = [(number, colour) for number, colour in page.getcolors(1 << 20) or [] if number > 4000]
    assert {(100 * 100, (255, 0, 0)), (100 * 50, (0, 0, 255))} <= set(counted)
    file = tmp_path / "new" / "sheet.png"
    draw.save_png(page, file)
    with Image.open(file) as read:
        assert read.tobytes() == page.tobytes()


def test_what_cannot_be_drawn_says_so():
    with pytest.raises(SettingError, match="at least one tile"):
        draw.sheet([[]])
    with pytest.raises(SettingError, match=r"lower limit .* below the upper, got \(1.0, 1.0\)"):
        draw.heat(torch.ones(2, 2), draw.Scale((1.0, 1.0)))
    with pytest.raises(UnknownNameError, match="Did you mean 'viridis'"):
        draw.heat(torch.ones(2, 2), draw.Scale((0.0, 1.0), "virids"))

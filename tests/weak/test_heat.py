"""Heat against the formula of CAMs written out, and what every map must keep to."""

import pytest
import torch
from tests.weak.scenes import red_score, red_square

from seglens.errors import SettingError, UnknownNameError
from seglens.weak.heat import at_scale, fused_heat, map_taps, one_way, working_size
from seglens.weak.settings import HeatSettings


def test_one_scale_is_the_cam_itself() -> None:
    image, there = red_square()
    settings = HeatSettings(maps=("hires-cam@act",), scales=(64,), flips=False, side=64)
    found, score = fused_heat(red_score(), image, settings)
    red = (image[0] - 0.5).relu()
    torch.testing.assert_close(found, red / red.max())
    assert score == pytest.approx(float(4 * red.mean()))
    assert torch.equal(found > 0.5, there)


def test_maps_weigh_the_same_however_large_they_are() -> None:
    image, _ = red_square()
    one = HeatSettings(maps=("grad-cam@act", "hires-cam@act"), scales=(64, 96), flips=True, side=64)
    total = torch.zeros(64, 64)
    for scale in (64, 96):
        for name in ("grad-cam@act", "hires-cam@act"):
            single = HeatSettings(maps=(name,), scales=(scale,), flips=True, side=64)
            total += fused_heat(red_score(), image, single)[0]
    torch.testing.assert_close(fused_heat(red_score(), image, one)[0], total / total.max())


def test_a_mirrored_picture_has_a_mirrored_map() -> None:
    image, _ = red_square((48, 64), seed=3)
    settings = HeatSettings(maps=("layer-cam@act",), scales=(64, 128), side=40)
    there, back = (fused_heat(red_score(), picture, settings)[0] for picture in (image, image.flip(-1)))
    assert there.shape == (30, 40)
    torch.testing.assert_close(back.flip(-1), there, atol=1e-5, rtol=0)


def test_a_picture_without_the_object_is_cold() -> None:
    settings = HeatSettings(maps=("hires-cam@act",), scales=(32,))
    found, score = fused_heat(red_score(), torch.zeros(3, 32, 32), settings)
    assert not found.any()
    assert score == 0


def test_sizes() -> None:
    assert working_size((100, 200), 384) == (100, 200)
    assert working_size((1000, 2000), 384) == (192, 384)
    assert at_scale(torch.rand(1, 3, 50, 100), 224).shape[2:] == (128, 224)
    rows = torch.rand(2, 1, 2, 3)
    assert torch.equal(one_way(rows)[0], (rows[0] + rows[1].flip(-1)) / 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"maps": ("hires-cam",)}, "The map 'hires-cam' doesn't say of which layer"),
        ({"maps": ()}, "Name at least one map and one scale"),
        ({"scales": (0,)}, "HeatSettings.scales is 0, but must be from 16"),
    ],
)
def test_settings_that_make_no_sense(settings: dict, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        map_taps(HeatSettings(**settings))


def test_an_unknown_method() -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown method 'hirescam'\. Did you mean 'hires-cam'"):
        map_taps(HeatSettings(maps=("hirescam@act",)))

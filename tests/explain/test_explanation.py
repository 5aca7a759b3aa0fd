import json

import pytest
import torch

import seglens
from seglens.errors import SettingError, UnknownNameError
from seglens.explain import METHODS, explain
from seglens.explain.cams import CAMS, Cam
from seglens.explain.explanation import Explanation, Explanations
from seglens.explain.gradients import GRADIENTS
from seglens.explain.integrated import IntegratedGradients
from seglens.explain.statistics import DEFINITIONS, statistics
from seglens.explain.target import Target


@pytest.fixture
def target(pixels):
    return Target("region", 1, pixels)


def mine(target, maps, **fields):
    return Explanation(method="mine", layer=None, target=target, map=maps, **fields)


# Status, for anybody's map.


def test_status_is_worked_out_for_any_map(pixels):
    pixels = pixels.repeat(2, 1, 1)
    pixels[0] = False
    maps = torch.rand(6, 32, 40)
    maps[1] = 0.3
    maps[2, 5, 5] = torch.inf
    maps[3] = 1e-9 * maps[3]
    maps[4] = 7 + 1e-8 * maps[4]
    found = mine(Target("region", 1, pixels), maps)
    assert found.status == ("no_target", "degenerate", "failed", "ok", "degenerate", "ok")
    assert found.map.flatten(1).isnan().any(1).tolist() == [True, True, True, False, True, False]
    assert torch.equal(found.map[3], maps[3])


def test_what_is_not_ok_is_nan_everywhere(target):
    maps, numbers = torch.rand(3, 32, 40), torch.arange(3.0)
    maps[1] = 0
    found = mine(
        target, maps, grid=torch.rand(3, 4, 5), channels=torch.rand(3, 2, 32, 40), diagnostics={"n": numbers}
    )
    for values in (found.grid, found.channels):
        assert values.flatten(1).isnan().all(1).tolist() == [False, True, False]
    assert found.diagnostics["n"].isnan().tolist() == [False, True, False]


def test_evidence_that_is_all_against_outlives_the_relu(target):
    grid = -torch.rand(3, 4, 5)
    grid[2] = grid[2].abs()
    found = mine(target, torch.zeros(3, 32, 40), grid=grid)
    assert found.status == ("degenerate",) * 3
    assert found.map.isnan().all()
    assert torch.equal(found.grid[:2], grid[:2])
    assert found.grid[2].isnan().all()


def test_a_given_status_must_fit(target):
    maps = torch.rand(3, 32, 40)
    assert mine(target, maps, status=("ok", "failed", "ok")).map[1].isnan().all()
    with pytest.raises(SettingError, match="2 statuses for 3 pictures"):
        mine(target, maps, status=("ok", "ok"))
    maps[0, 0, 0] = torch.nan
    with pytest.raises(SettingError, match="NaN or infinite values in a picture whose status is ok"):
        mine(target, maps, status=("ok", "ok", "ok"))


def test_a_map_of_another_size_is_refused(pixels):
    with pytest.raises(SettingError, match=r"shape \(3, 8, 10\), but target 'region' has \(3, 32, 40\)"):
        mine(Target("region", 1, pixels), torch.rand(3, 8, 10))


# Keys.


def test_keys_are_method_and_layer_with_the_target_in_front_where_there_are_several(run, images, target):
    other = Target("background", 0, ~target.pixels)
    methods = ("grad-cam", IntegratedGradients(steps=2))
    one = explain(run, images, target, methods=methods, layers=("deep", "up"))
    assert list(one) == [("grad-cam", "deep"), ("grad-cam", "up"), "integrated-gradients"]
    two = explain(run, images, [target, other], methods=methods, layers=("deep",))
    assert set(two) == {
        (t, *k) for t in ("region", "background") for k in (("grad-cam", "deep"), ("integrated-gradients",))
    }
    assert two["background", "grad-cam", "deep"].target is other
    torch.testing.assert_close(two["region", "grad-cam", "deep"].map, one["grad-cam", "deep"].map)


def test_a_missing_key_gets_the_nearest(run, images, target):
    maps = explain(run, images, target, layers=("deep", "up"))
    with pytest.raises(
        UnknownNameError, match=r"Unknown explanation '\(grad-cam, dep\)'. Did you mean '\(grad-cam, deep\)'"
    ):
        maps["grad-cam", "dep"]
    assert ("grad-cam", "dep") not in maps
    assert maps.get(("grad-cam", "dep")) is None
    assert len(maps) == 2


def test_two_explanations_can_not_share_a_name(target):
    with pytest.raises(SettingError, match="Two explanations are called mine"):
        Explanations([mine(target, torch.rand(3, 32, 40)), mine(target, torch.rand(3, 32, 40))])


# explain().


def test_the_module_is_the_function(run, images, target):
    found = seglens.explain(run, images, target, layers=("deep",))
    assert getattr(seglens.explain, "METHODS") is METHODS  # noqa: B009, for the type checker
    assert list(found) == [("grad-cam", "deep")]


def test_one_pass_serves_all_cams_layers_and_targets(run, images, target):
    passes = []
    run.segmenter.register_forward_hook(lambda *_: passes.append(1))
    other = Target("other", 0, ~target.pixels)
    found = explain(run, images, [target, other], methods=[*CAMS, *GRADIENTS], layers=("down", "deep", "up"))
    assert len(passes) == 1
    assert len(found) == (len(CAMS) * 3 + len(GRADIENTS)) * 2


def test_maps_are_whole_when_memory_runs_out_on_the_way(run, images, target, monkeypatch):
    """The first formula of the first try succeeds, the second one fails: nothing may be there twice."""
    right = explain(run, images, target, methods=["grad-cam", "hires-cam"], layers=["deep"])
    calls = []

    def tight(activation, gradient):
        calls.append(len(activation))
        if len(activation) > 2:
            raise torch.OutOfMemoryError("no more")
        return CAMS["hires-cam"].formula(activation, gradient)

    for registry in (CAMS, METHODS):
        monkeypatch.setitem(registry, "tight", Cam(tight, relu=True))
    found = explain(run, images, target, methods=["grad-cam", "tight"], layers=["deep"], batch_size=3)
    assert calls == [3, 1, 1, 1]
    torch.testing.assert_close(found["grad-cam", "deep"].map, right["grad-cam", "deep"].map)
    torch.testing.assert_close(found["tight", "deep"].map, right["hires-cam", "deep"].map)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("method", METHODS)
def test_a_gpu_gives_the_same_maps_where_the_images_are(method, run, images, target, short):
    right = explain(run, images, target, methods=[short[method]], layers=["deep"])
    run.segmenter.to("cuda")
    found = explain(run, images, target, methods=[short[method]], layers=["deep"])
    for one, other in zip(found.values(), right.values(), strict=True):
        assert one.map.device == images.device
        pair = torch.stack([one.map.flatten(), other.map.flatten()])
        assert torch.corrcoef(pair)[0, 1] > 0.999  # convolutions may run in TF32 there


def test_layers_do_not_matter_to_a_method_without(run, images, target):
    found = explain(run, images, target, methods=["integrated-gradients"], layers=("no such layer",))
    assert list(found) == ["integrated-gradients"]


def test_wrong_names_get_the_nearest(run, images, target):
    with pytest.raises(UnknownNameError, match=r"Unknown method 'gradcam'\. Did you mean 'grad-cam'"):
        explain(run, images, target, methods=["gradcam"])
    with pytest.raises(UnknownNameError, match=r"Unknown layer 'dep'\. Did you mean 'deep'"):
        explain(run, images, target, layers=["dep"])
    with pytest.raises(SettingError, match=r"but the images have \(2, 32, 40\)"):
        explain(run, images[:2], target)


def test_settings_can_be_written_down(run, images, target, short):
    for found in explain(run, images, target, methods=list(short.values()), layers=["up"]).values():
        assert json.loads(json.dumps(found.settings)) == found.settings


# Statistics by hand.


def halves(value_inside, value_outside):
    """The left half is the target; the map is even in each half."""
    pixels = torch.zeros(1, 8, 32, dtype=torch.bool)
    pixels[:, :, :16] = True
    maps = torch.where(pixels, value_inside, value_outside)
    return mine(Target("half", 1, pixels), maps.float())


def test_statistics_of_two_halves():
    found = statistics(halves(3.0, 1.0))
    assert list(found) == list(DEFINITIONS)
    expected = {"mean": 2, "std": 1, "min": 1, "max": 3, "area": 0.5, "mass_inside": 0.75, "ratio": 3}
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value), name
    assert found["enrichment_log2"].item() == pytest.approx(0.5849625)
    assert found["prediction_ratio"].isnan().all()


def test_mass_is_of_the_non_negative_part_and_moments_are_signed():
    found = statistics(halves(2.0, -2.0))
    assert found["mean"].item() == 0
    assert found["min"].item() == -2
    assert found["mass_inside"].item() == 1
    assert found["ratio"].item() == torch.inf
    nowhere = statistics(halves(-2.0, -1.0))
    assert nowhere["max"].item() == -1
    assert all(nowhere[name].isnan().all() for name in ("mass_inside", "enrichment_log2", "ratio"))
    outside = statistics(halves(-2.0, 1.0))
    assert outside["ratio"].item() == 0
    assert outside["enrichment_log2"].item() == -torch.inf


def test_the_margin_is_left_out():
    """What reaches three pixels beyond the target may be smear: the second ratio leaves it out."""
    explanation = halves(4.0, 1.0)
    smeared = explanation.map.clone()
    smeared[:, :, 16:19] = 4
    found = statistics(mine(explanation.target, smeared))
    assert found["ratio"].item() == pytest.approx(4 / ((3 * 4 + 13) / 16))
    assert found["ratio_without_margin"].item() == pytest.approx(4)
    wide = mine(explanation.target, smeared, grid=torch.rand(1, 1, 4))  # cells of 8 pixels
    assert statistics(wide)["ratio_without_margin"].item() == pytest.approx(4)


def test_invalid_pixels_are_in_no_statistic():
    explanation = halves(3.0, 1.0)
    spoilt = explanation.map.clone()
    spoilt[:, 0] = 1000
    valid = torch.ones_like(explanation.target.pixels)
    valid[:, 0] = False
    found = statistics(mine(explanation.target, spoilt), valid=valid, predicted=explanation.target.pixels)
    expected = statistics(explanation, predicted=explanation.target.pixels)
    for name in DEFINITIONS:
        torch.testing.assert_close(found[name], expected[name], msg=name)
    assert found["prediction_ratio"].item() == 0.5
    with pytest.raises(SettingError, match=r"predicted has shape \(1, 4, 4\)"):
        statistics(explanation, predicted=torch.ones(1, 4, 4, dtype=torch.bool))


def test_a_target_that_fills_the_picture_has_no_ratio(target):
    whole = Target("class", 1, torch.ones_like(target.pixels))
    found = statistics(mine(whole, torch.rand(3, 32, 40)))
    assert found["ratio"].isnan().all()
    assert found["mass_inside"].tolist() == [1.0] * 3
    assert found["enrichment_log2"].tolist() == [0.0] * 3


def test_rows_that_are_not_ok_have_no_statistics_but_their_area(pixels):
    pixels[0] = False
    maps = torch.rand(3, 32, 40)
    maps[1] = 0
    found = statistics(mine(Target("region", 1, pixels), maps), predicted=pixels)
    for name, values in found.items():
        known = [True] * 3 if name in ("area", "prediction_ratio") else [False, False, True]
        assert values.isfinite().tolist() == known, name


def test_scaling_a_map_leaves_all_that_is_relative(target):
    maps = torch.rand(3, 32, 40) - 0.3
    one, other = statistics(mine(target, maps)), statistics(mine(target, 1e-6 * maps))
    for name in ("area", "mass_inside", "enrichment_log2", "ratio", "ratio_without_margin"):
        torch.testing.assert_close(one[name], other[name])


# What counts.


def test_context_counts_what_is_farther_than_a_cell(target):
    one = mine(target, torch.rand(3, 32, 40))
    assert one.counted.all()
    fine = mine(target, one.map, where="context")
    coarse = mine(target, one.map, where="context", grid=torch.rand(3, 4, 8))
    assert (fine.margin, coarse.margin) == (3, 8)
    for explanation in (fine, coarse):
        rows, columns = target.pixels[1].nonzero().T
        y, x = torch.meshgrid(torch.arange(32), torch.arange(40), indexing="ij")
        away = torch.maximum((y[..., None] - rows).abs(), (x[..., None] - columns).abs()).amin(-1)
        assert torch.equal(explanation.counted[1], away > explanation.margin)
    with pytest.raises(UnknownNameError, match="Did you mean 'context'"):
        mine(target, one.map, where="contxt")


def test_statistics_of_context_are_those_of_the_pixels_that_count():
    whole = halves(3.0, 1.0)
    maps = whole.map + torch.linspace(0, 1, 32)
    found = statistics(mine(whole.target, maps, where="context"))
    kept = maps[:, :, 19:].double()
    for name, value in {"mean": kept.mean(), "max": kept.max(), "min": kept.min()}.items():
        assert found[name].item() == pytest.approx(float(value)), name
    assert found["std"].item() == pytest.approx(float(kept.std(correction=0)), rel=1e-5)
    assert found["mass_context"].item() == pytest.approx(float(kept.sum() / maps.sum()), rel=1e-5)
    assert found["area"].item() == 0.5
    assert all(found[name].isnan().all() for name in ("mass_inside", "enrichment_log2", "ratio"))
    everywhere = Target("all", 1, torch.ones_like(whole.target.pixels))
    nothing = statistics(mine(everywhere, maps, where="context"))
    assert all(nothing[name].isnan().all() for name in ("mean", "std", "min", "max"))
    assert nothing["mass_context"].item() == 0


def test_explain_says_where(run, images, target):
    found = explain(run, images, target, layers=["deep"], where="context")["grad-cam", "deep"]
    whole = explain(run, images, target, layers=["deep"])["grad-cam", "deep"]
    assert (found.where, whole.where) == ("context", "region")
    torch.testing.assert_close(found.map, whole.map)
    with pytest.raises(UnknownNameError, match="choice of 'where'"):
        explain(run, images, target, where="outside")

"""Scores that make maps again: model dependence and stability."""

from dataclasses import replace

import pytest
import torch
from scipy.stats import spearmanr
from tests.judge.cases import NUM, SIZE, centre_blob, fresh_noise, small_case

import seglens
from seglens.explain.explanation import Explanation
from seglens.judge import randomisation, rerun, stability
from seglens.judge.case import JudgeSettings
from seglens.judge.nulls import NULLS, randomised
from seglens.judge.verdicts import compared_rows


def test_model_dependence_is_what_scipy_says() -> None:
    case = small_case(("grad-cam", "saliency"), {"centre": centre_blob, "noise": fresh_noise})
    found = rerun.recipes(case)
    measured, cascade = randomisation.model_dependence(case, found)
    assert measured.values["centre", None].tolist() == [0] * NUM
    assert measured.values["noise", None].isnan().all()
    apart = []
    for number in range(3):
        other = randomised(case.run, case.images, seed=randomisation.SEED + number)
        maps = seglens.explain(other, case.images, case.target, methods=("saliency",))["saliency"].map
        rows = zip(case.cells(maps), case.cells(case.maps["saliency", None].map), strict=True)
        apart.append(torch.tensor([abs(spearmanr(a, b).statistic) for a, b in rows]))
    expected = 1 - torch.stack(apart).mean(0)
    torch.testing.assert_close(
        measured.values["saliency", None], expected, check_dtype=False, atol=1e-5, rtol=0
    )
    assert {"repeat", "randomised", "entropy_gain", "decoder_only"} == set(measured.details["saliency", None])
    for name in set(NULLS) - {"probability"}:
        assert measured.references[name].tolist() == pytest.approx([0] * NUM)
    assert (measured.references["probability"] > 0).all()
    made = {row.method: row for row in compared_rows("t", "model_dependence", measured, seed=0)}
    assert made["centre"].verdict == "fail"
    assert made["noise"].verdict == "not evaluable"
    assert "the map changes when it is made again: correlation" in made["noise"].reason
    assert made["saliency"].reference == "probability"
    assert set(cascade.maps) == {"grad-cam@encoder", "saliency", "centre", "noise"}
    assert cascade.share_of_modules == (0, 0.25, 0.5, 0.75, 1)
    assert cascade.maps["centre"] == (1,) * 5


def test_steps_lead_from_the_output_to_the_input() -> None:
    case = small_case(("saliency",))
    order = randomisation.modules_in_order(case.run, case.images[:1])
    assert order == ["encoder.0", "encoder.1", "decoder.0", "head"]
    assert randomisation.stages(case.run, case.images[:1], 3) == [order[3:], order[2:], order]
    changed = randomised(case.run, case.images, seed=1, only=["head"]).segmenter.module.state_dict()
    trained = case.run.segmenter.module.state_dict()
    assert torch.equal(changed["encoder.0.weight"], trained["encoder.0.weight"])
    assert not torch.equal(changed["head.weight"], trained["head.weight"])


def test_complexity_of_flat_and_of_even_histograms() -> None:
    flat = torch.ones(1, 10, 10)
    even = torch.arange(100.0).view(1, 10, 10)
    found = randomisation.complexity(torch.cat([flat, even, flat * torch.nan]))
    assert found[0] == 0
    assert float(found[1]) == pytest.approx(4.6052, abs=1e-3)  # log of a hundred bins
    assert found[2].isnan()


def brightness(run, images, target) -> torch.Tensor:
    return images.mean(1)


def test_stability_of_a_map_that_is_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stability, "PERTURBATIONS", {"flatter": stability.flatter})
    monkeypatch.setattr(stability, "_answer", lambda run, images, target: target.pixels)
    case = small_case((), {"centre": centre_blob, "picture": brightness})
    measured = stability.stability(case, rerun.recipes(case))
    # All that differs from the mean comes nearer to it by two steps, clipped nowhere.
    expected = torch.full((NUM,), 1 - 2 * stability.STEP)
    torch.testing.assert_close(measured.values["picture", None], expected, atol=1e-5, rtol=0)
    assert measured.values["centre", None].tolist() == [1] * NUM
    torch.testing.assert_close(measured.details["picture", None]["flip"], torch.ones(NUM))
    rows = {row.method: row for row in compared_rows("t", "stability", measured, seed=0)}
    # Where the answer stands still its mirrors do as well, and who restates it can't be beaten.
    assert rows["centre"].verdict == "warn"
    assert rows["picture"].verdict == "fail"
    assert rows["picture"].nulls[rows["picture"].reference] == 1
    assert rows["picture"].reference != "centre"


def test_noise_is_not_stable_by_its_mean_and_an_even_map_has_no_pattern_to_keep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two draws of noise differ by sqrt(2) of the deviation of either, whatever lies under both."""
    monkeypatch.setattr(stability, "PERTURBATIONS", {"brighter": stability.brighter})
    monkeypatch.setattr(stability, "_answer", lambda run, images, target: target.pixels)
    stripes = (torch.arange(SIZE) % 2).float()  # alike in every cell, though no even map
    even = {"even": lambda run, images, target: stripes.expand(len(images), SIZE, SIZE)}
    raised = {"raised": lambda run, images, target: 100 + fresh_noise(run, images, target)}
    case = small_case((), {"noise": fresh_noise, **raised, **even})
    values = stability.stability(case, rerun.recipes(case)).values
    for name in ("noise", "raised"):
        assert float(values[name, None].mean()) == pytest.approx(1 - 2**0.5, abs=0.05)
    assert values["even", None].tolist() == [0] * NUM


def test_where_the_answer_changes_stability_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    case = small_case((), {"picture": brightness})

    def answer(run, images, target):
        return target.pixels if torch.equal(images, case.images) else ~target.pixels

    monkeypatch.setattr(stability, "_answer", answer)
    measured = stability.stability(case, rerun.recipes(case))
    assert measured.values["picture", None].isnan().all()
    assert measured.details["picture", None]["flip"].isnan().all()


def test_pictures_without_a_map_have_no_stability(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stability, "_answer", lambda run, images, target: target.pixels)
    case = small_case((), {"picture": brightness})
    entry = case.maps["picture", None]
    heat = entry.map.clone()
    heat[0] = torch.nan
    empty = replace(entry, status=("degenerate", *entry.status[1:]), map=heat)
    case = replace(case, maps={("picture", None): empty})
    values = stability.stability(case, rerun.recipes(case)).values["picture", None]
    assert values.isnan().tolist() == [True] + [False] * (NUM - 1)


def test_methods_are_made_again_from_what_they_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = seglens.IntegratedGradients(baseline="blur", steps=3, label="mine")
    case = small_case(("grad-cam", "saliency", mine, seglens.IntegratedGradients(steps=2)))
    foreign = Explanation("saliency", None, case.target, torch.rand(NUM, SIZE, SIZE))
    assert rerun.method_of(foreign) is None
    found = rerun.recipes(case)
    assert found.built_in["mine", None] == mine
    again = found.make(case.run, case.images, case.target, batch_size=64)
    for key, entry in case.maps.items():
        torch.testing.assert_close(again[key], entry.map)
    unknown = rerun.recipes(replace(case, maps={("saliency", None): foreign}))
    assert unknown.reasons == {("saliency", None): rerun.NO_WAY}
    monkeypatch.setattr(rerun, "_seconds", lambda *_: 2.0)
    slow = rerun.recipes(replace(case, settings=JudgeSettings(max_seconds=1.0)))
    assert not slow.keys
    assert "takes 2 s an image, more than 1 s" in slow.reasons["mine", None].text

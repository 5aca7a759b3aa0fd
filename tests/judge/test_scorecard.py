"""The verdict's rule on constructed numbers, and a whole card on a model whose logic is known."""

import csv
import io
import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import seglens
from seglens import wrap
from seglens.errors import SettingError
from seglens.evaluate.intervals import Interval, interval
from seglens.explain.explanation import Explanation
from seglens.explain.target import Target
from seglens.judge import evidence, figures
from seglens.judge.case import CHEAP, JudgeSettings, ScoreValues
from seglens.judge.nulls import NULLS
from seglens.judge.scorecard import Judgement, Scorecard
from seglens.judge.verdicts import compared_rows, completeness_row, verdict_of
from seglens.results.record import to_json

NAN = float("nan")


def noise(num: int, seed: int) -> torch.Tensor:
    return torch.randn(num, generator=torch.Generator().manual_seed(seed)) * 0.1


def faithfulness_rows(maps, references) -> list[Judgement]:
    return compared_rows("predicted", "faithfulness", ScoreValues(maps, references), seed=0)


@pytest.mark.parametrize(
    ("bounds", "num", "verdict", "reason"),
    [
        ((0.1, 0.2), 120, "pass", "better"),
        ((0.1, 0.2), 20, "pass", "a claim needs 100"),
        ((-0.2, -0.1), 120, "fail", "worse"),
        ((-0.1, 0.1), 120, "warn", "cannot tell"),
        ((0.0, 0.1), 120, "warn", "cannot tell"),
        ((0.1, 0.2), 7, "not evaluable", "only 7 images can be evaluated, at least 8"),
        ((NAN, NAN), 0, "not evaluable", "only 0 images can be evaluated"),
    ],
)
def test_verdict_by_the_bounds_of_the_difference(bounds, num, verdict, reason) -> None:
    found, outcome, why = verdict_of(Interval(0.0, bounds[0], bounds[1], num))
    assert found == verdict
    told = {"pass": "better", "fail": "worse", "warn": "undecided", "not evaluable": "too_few_images"}
    assert outcome == told[verdict]
    assert reason in why


def test_a_map_is_compared_with_the_best_reference_row_image_by_image() -> None:
    shared = noise(40, 0) * 5  # what makes an image easy or hard for every map
    mirror, wobble = shared + 0.2 + noise(40, 5) / 10, noise(40, 2)
    maps = {
        ("good", "layer"): shared + 0.3 + noise(40, 1) / 10,
        ("even", None): mirror + wobble - wobble.mean(),
        ("bad", None): shared + 0.1 + noise(40, 3) / 10,
    }
    references = {"random": shared + noise(40, 4), "mirror-16": mirror}
    rows = {row.method: row for row in faithfulness_rows(maps, references)}
    assert [rows[name].verdict for name in ("good", "even", "bad")] == ["pass", "warn", "fail"]
    good = rows["good"]
    assert good.reference == "mirror-16"
    assert good.difference == interval(maps["good", "layer"] - references["mirror-16"])
    # Unpaired the two overlap widely: it is the pairing that tells them apart.
    assert good.interval.low < good.nulls["mirror-16"]
    assert rows["null:random"].verdict == "reference"
    assert rows["null:random"].value == pytest.approx(float(references["random"].mean()))
    assert "good@layer: faithfulness" in good.text
    assert "against mirror-16 (" in good.text
    assert "on 40 of 40 images" in good.text


@pytest.mark.parametrize("name", NULLS)
def test_a_reference_row_under_another_name_never_passes(name: str) -> None:
    """Whoever hands in a content-free map is compared with it, and so with what is at least as good."""
    references = {null: noise(30, place) + place % 3 for place, null in enumerate(NULLS)}
    about = {"context_reliance": torch.ones(30), "ceiling": torch.ones(30)}
    for score in ("faithfulness", "context_faithfulness", "causal_agreement", "model_dependence"):
        measured = ScoreValues({("mine", None): references[name]}, references, about)
        (row,) = [row for row in compared_rows("t", score, measured, seed=0) if row.method == "mine"]
        assert row.verdict in ("warn", "fail")
        assert row.difference.mean <= 0


def test_only_images_where_all_are_evaluable_are_compared() -> None:
    values, reference = noise(12, 0) + 1, noise(12, 1)
    values[0], reference[1] = NAN, NAN
    row = faithfulness_rows({("mine", None): values}, {"random": reference})[0]
    assert (row.num_evaluable, row.num_total) == (10, 12)
    assert row.value == pytest.approx(float(values[2:].mean()))
    nothing = faithfulness_rows({("mine", None): values * NAN}, {"random": reference})[0]
    assert (nothing.verdict, nothing.num_evaluable) == ("not evaluable", 0)


@pytest.mark.parametrize(("size", "verdict"), [(0.01, "pass"), (0.3, "fail"), (0.05, "warn")])
def test_completeness_is_held_against_its_tolerance(size: float, verdict: str) -> None:
    error = size + noise(20, 0).abs() / 100 - 0.0008
    small = torch.zeros(20)
    small[:2], error[:2] = 1, 50.0
    row = completeness_row("predicted", "integrated-gradients", None, error, small, seed=0)
    assert row.verdict == verdict
    assert (row.num_evaluable, row.num_total) == (18, 20)
    assert "2 images left out" in row.reason


def test_csv_cant_be_made_to_run_anything_and_holds_no_nan() -> None:
    rows = []
    for method in ('=HYPERLINK("http://x")', "@sum", "plain, with comma", "a\nb"):
        rows.append(
            Judgement(
                target="predicted",
                method=method,
                layer=None,
                score="faithfulness",
                interval=Interval(-0.5, NAN, NAN, 1),
                verdict="warn",
                outcome="undecided",
                reason="",
                num_total=2,
                nulls={"random": 0.25},
            )
        )
    text = Scorecard(tuple(rows), 2).to_csv()
    table = list(csv.DictReader(io.StringIO(text)))
    assert [row["method"] for row in table] == [
        '\'=HYPERLINK("http://x")',
        "'@sum",
        "plain, with comma",
        "a\nb",
    ]
    assert table[0]["value"] == "-0.5"  # a number stays one
    assert table[0]["low"] == ""
    assert table[0]["null:random"] == "0.25"
    assert Scorecard((), 0).to_csv().strip() == ""


class Reader(nn.Module):
    """Reads the contrast of red in the left half, and says so in the square in the middle."""

    def __init__(self) -> None:
        super().__init__()
        ends = nn.Conv2d(3, 2, 1)
        ends.weight = nn.Parameter(torch.tensor([[1.0, 0, 0], [-1, 0, 0]])[:, :, None, None])
        ends.bias = nn.Parameter(torch.tensor([-0.5, 0.5]))
        self.encoder = nn.Sequential(ends, nn.ReLU())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        strength = self.encoder(images).sum(1, keepdim=True)[..., :16].mean((2, 3), keepdim=True)
        logits = images.new_full((len(images), 1, 32, 32), -4.0)
        logits[..., 10:22, 10:22] = 0
        return logits + 8 * (strength - 0.1) / 0.1 * (logits == 0)


@pytest.fixture(scope="module")
def known():
    """A run, ten pictures, their target, and the map that knows what the model reads."""
    run = wrap(Reader(), classes=("background", "cell"), mean=(0.0,) * 3, std=(1.0,) * 3, image_size=32)
    amount = torch.rand(10, 16, 16, generator=torch.Generator().manual_seed(0)).square() * 0.98
    sign = (-1.0) ** (torch.arange(32)[:, None] + torch.arange(32)[None])
    wide = amount.repeat_interleave(2, 1).repeat_interleave(2, 2)
    images = torch.rand(10, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    images[:, 0] = 0.5 + 0.5 * wide * sign
    target = seglens.targets.predicted(run, images)
    knowing = Explanation("knowing", None, target, wide * (torch.arange(32) < 16))
    return run, images, target, knowing


@pytest.fixture(scope="module")
def card(known) -> Scorecard:
    run, images, target, knowing = known
    flat = Explanation(
        "=flat", None, target, torch.rand(10, 32, 32, generator=torch.Generator().manual_seed(3))
    )
    broken = Explanation("constant", None, target, torch.ones(10, 32, 32))
    maps = seglens.explain(
        run, images, target, methods=("grad-cam", "integrated-gradients"), layers=("encoder",)
    )
    settings = JudgeSettings(("faithfulness", *CHEAP))
    return seglens.judge(run, images, target, [*maps.values(), knowing, flat, broken], settings=settings)


def rows_of(card: Scorecard, score: str) -> dict[str, Judgement]:
    return {row.method: row for row in card.rows if row.score == score}


def test_the_map_that_knows_passes_and_ignorant_ones_do_not(card: Scorecard) -> None:
    rows = rows_of(card, "faithfulness")
    assert rows["knowing"].verdict == "pass"
    assert rows["=flat"].verdict in ("warn", "fail")
    assert rows["constant"].verdict == "not evaluable"
    assert rows["constant"].num_evaluable == 0
    assert {name for name in rows if name.startswith("null:")} == {f"null:{name}" for name in NULLS}
    assert all(row.verdict == "reference" for name, row in rows.items() if name.startswith("null:"))
    assert abs(rows["null:random"].value) < 0.1
    assert set(rows["knowing"].nulls) == set(NULLS)


def test_attention_never_passes_and_names_its_nulls(card: Scorecard) -> None:
    rows = rows_of(card, "attention")
    assert {row.verdict for row in rows.values()} <= {"warn", "not evaluable"}
    assert {"mirror", "other_images", "randomised_model"} <= set(rows["grad-cam"].nulls)
    assert "randomised_model" not in rows["knowing"].nulls
    assert all(row.reference == "mirror" for row in rows.values())


def test_completeness_stands_for_integrated_gradients_only(card: Scorecard) -> None:
    rows = rows_of(card, "completeness")
    assert list(rows) == ["integrated-gradients"]
    assert rows["integrated-gradients"].reference == "a tolerance of 0.05"


def test_every_score_of_the_card_has_a_figure(card: Scorecard) -> None:
    drawn = {name for name, draw in figures.FIGURES.items() if draw(card) is not None}
    assert drawn == {"removal_curves", "restating", "completeness"}


def test_the_card_is_json_and_csv(card: Scorecard) -> None:
    plain = json.loads(to_json(card.to_json()))
    assert plain["num_images"] == 10
    assert {"faithfulness", "attention", "completeness"} <= set(plain["definitions"])
    for row in plain["rows"]:
        assert row["num_total"] == 10
        assert row["verdict"] in row["text"]
        assert 0 <= row["num_evaluable"] <= 10
    assert "'=flat" in card.to_csv()
    assert "\n=flat" not in card.to_csv()
    assert str(card).count("\n") == len(card.rows) - 1


def test_batches_combine_to_the_same_card(known, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in set(NULLS) - {"random", "mirror-4"}:
        monkeypatch.delitem(NULLS, name)  # two of them are enough here
    run, images, target, knowing = known
    settings = JudgeSettings(CHEAP, race=False)
    whole = evidence.score(evidence.score_batch(run, images, target, [knowing], settings=settings))
    parts = []
    for rows in (slice(0, 4), slice(4, 10)):
        chosen = target.select(rows)
        mine = Explanation("knowing", None, chosen, knowing.map[rows])
        parts.append(evidence.score_batch(run, images[rows], chosen, [mine], settings=settings))
    joined = evidence.score(evidence.combine(parts))
    for one, other in zip(whole.rows, joined.rows, strict=True):
        assert (one.method, one.verdict) == (other.method, other.verdict)
        if not math.isnan(one.value):
            assert one.value == pytest.approx(other.value, abs=1e-4)


def test_a_race_goes_on_over_batches_and_refuses_to_be_put_together_from_several(known) -> None:
    run, images, target, knowing = known
    settings = JudgeSettings(("target_faithfulness",))
    parts, before = [], None
    for rows in (slice(0, 4), slice(4, 10)):
        chosen = target.select(rows)
        mine = Explanation("knowing", None, chosen, knowing.map[rows])
        parts.append(evidence.score_batch(run, images[rows], chosen, [mine], settings=settings))
        found = evidence.score_batch(
            run, images[rows], chosen, [mine], settings=settings, before=before, num=10
        )
        before = found if before is None else evidence.combine([before, found])
    with pytest.raises(SettingError, match="has seen 6 images, and there are 10"):
        evidence.combine(parts)
    assert before is not None
    row = evidence.score(before).rows[0]
    assert (row.verdict, row.num_total) == ("pass", 10)
    whole = seglens.judge(run, images, target, [knowing], settings=replace(settings, race=False))
    assert row.value == pytest.approx(whole.rows[0].value, abs=0.15)  # a third of the steps
    passes, fewer = (each.passes["target_faithfulness"] for each in (whole, evidence.score(before)))
    assert 2.5 < passes / fewer < 4


def test_maps_of_another_question_are_refused(known) -> None:
    run, images, target, knowing = known
    other = Target("other", 1, ~target.pixels)
    with pytest.raises(SettingError, match="'knowing' explains target 'predicted' of class 1"):
        seglens.judge(run, images, other, [knowing])
    with pytest.raises(SettingError, match="Two maps are called 'knowing'"):
        seglens.judge(run, images, target, [knowing, knowing])
    with pytest.raises(SettingError, match="no map to judge"):
        seglens.judge(run, images, target, [])


def test_verdicts_stand_on_groups_and_not_on_their_pictures() -> None:
    """Eight pictures of four groups are four things: too few, where eight alone would have a verdict."""
    own, other = torch.linspace(0.5, 0.9, 8), torch.linspace(0.1, 0.2, 8)
    found = ScoreValues({("map", None): own}, {"random": other})
    (alone, _) = compared_rows("predicted", "faithfulness", found, seed=0)
    assert alone.verdict == "pass"
    groups = torch.arange(4).repeat_interleave(2)
    (row, _) = compared_rows("predicted", "faithfulness", found, groups=groups, seed=0)
    assert (row.verdict, row.outcome) == ("not evaluable", "too_few_images")
    assert row.reason.startswith("only 4 groups (8 images) can be evaluated")
    assert (row.interval.num, row.interval.num_groups) == (8, 4)


@pytest.mark.parametrize("dims", [2, 3])
def test_where_nothing_is_predicted_the_row_says_so(dims: int) -> None:
    network: Any = (torch.nn.Conv2d, torch.nn.Conv3d)[dims - 2](1, 2, 1)
    with torch.no_grad():
        network.weight.zero_()
        network.weight[1] = 1
        network.bias.copy_(torch.tensor([0.0, -0.5]))  # the object is where a pixel is above .5
    half: dict[str, Any] = {"mean": (0.0,), "std": (1.0,), "channels": 1, "image_size": 16, "dims": dims}
    run = seglens.wrap(network, classes=("background", "spot"), **half)
    images = torch.full((3, 1, *[16] * dims), 0.1)
    images[2, ..., 4:9] = 0.9
    target = seglens.targets.predicted(run, images)
    maps = seglens.explain(run, images, target, methods="saliency")
    settings = seglens.JudgeSettings(scores=("target_faithfulness",))
    card = seglens.judge(run, images, target, maps, settings=settings)
    (row,) = [row for row in card.rows if row.method == "saliency"]
    assert row.reason.endswith(
        "at least 8 are needed; 2 of 3 pictures hold nothing of the target 'predicted' (the model predicts "
        "nothing there)"
    )
    assert ("seglens app" in card.table.recommendation.instead) == (dims == 2)

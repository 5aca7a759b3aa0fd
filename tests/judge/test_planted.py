"""Planted truth on specimens: a model that is known to answer from the tag alone."""

import csv
import io
from pathlib import Path

import pytest
import torch
from torch import nn

import seglens
from seglens import wrap
from seglens.data.specimens import specimens
from seglens.explain.explanation import Explanation
from seglens.explain.target import Target, dilate
from seglens.judge import evidence, faithfulness, figures, nulls
from seglens.judge.case import JudgeSettings
from seglens.judge.definitions import MIN_IMAGES
from seglens.judge.scorecard import Scorecard

SIZE, NUM = 48, 18

TINT = torch.tensor([-0.2, 0.1, 0.1])
"""What the tag adds to a grey of its surroundings' mean: a colour, and no brightness."""


class ReadsTags(nn.Module):
    """Says yes everywhere to the extent that the picture holds the colour of the tag."""

    def __init__(self) -> None:
        super().__init__()
        tint = nn.Conv2d(3, 1, 1)
        tint.weight = nn.Parameter(torch.tensor([-1.0, 0.5, 0.5])[None, :, None, None])
        tint.bias = nn.Parameter(torch.tensor([-0.12]))
        self.encoder = nn.Sequential(tint, nn.ReLU())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        amount = self.encoder(images).mean((2, 3), keepdim=True)
        return (3000 * amount - 4).expand(-1, 1, *images.shape[-2:])


def tinted(untagged: torch.Tensor, tag: torch.Tensor) -> torch.Tensor:
    """Plant a tag of the brightness that was there: the filter of edges sees the brightness alone."""
    brightness = untagged.mean(0, keepdim=True).clamp(0.2, 0.9)
    return torch.where(tag, brightness + TINT[:, None, None], untagged)


@pytest.fixture(scope="module")
def planted():
    every = [
        one
        for one in specimens(4 * NUM, size=SIZE, tag="independent")
        if one.sample.mask is not None and bool(one.sample.mask.any())
    ]
    drawn = every[:NUM]  # a tag in every other one: what is elsewhere must differ, or it can't matter
    images = torch.stack([tinted(one.untagged, one.tag) for one in drawn])
    masks = torch.stack([one.sample.mask for one in drawn if one.sample.mask is not None])
    tags = torch.stack([one.tag for one in drawn])
    run = wrap(ReadsTags(), classes=("background", "cell"), mean=(0.0,) * 3, std=(1.0,) * 3, image_size=SIZE)
    return run, images, Target("truth", 1, masks > 0), tags


def smooth(surface: nulls.NullInputs) -> torch.Tensor:
    """A mirror of another width than those among the reference rows."""
    return nulls.mirror(surface.pixels, (6, 6))


CONTENT_FREE = {
    "centre": nulls.centre,
    "edges": nulls.edges,
    "probability": nulls.probability,
    "smooth": smooth,
}


@pytest.fixture(scope="module")
def card(planted) -> Scorecard:
    run, images, target, tags = planted
    surface = nulls.null_inputs(run, images, target)
    patch = pytest.MonkeyPatch()
    for name in ("mirror-1", "mirror-4", "mirror-32", "distance"):
        patch.delitem(nulls.NULLS, name)  # a few of them, and a few steps, are enough here
    for module in (faithfulness, evidence):
        patch.setattr(module, "FRACTIONS", (0.1, 0.2, 0.5))
    own = {
        name: (lambda run, images, target, null=null: null(nulls.null_inputs(run, images, target)))
        for name, null in CONTENT_FREE.items()
    }
    maps = [Explanation(f"my {name}", None, target, null(surface)) for name, null in CONTENT_FREE.items()]
    maps.append(Explanation("oracle", None, target, tags.float()))
    maps += seglens.explain(
        run, images, target, methods=("grad-cam", "saliency"), layers=("encoder",)
    ).values()
    settings = JudgeSettings(num_occluded=16, num_again=8, across=8, num_models=1, stages=1, max_seconds=1e9)
    found = seglens.judge(
        run,
        images,
        target,
        maps,
        settings=settings,
        explainers={f"my {name}": explainer for name, explainer in own.items()},
        batch_size=128,
    )
    patch.undo()
    return found


def values_of(card: Scorecard, score: str) -> dict[str, float]:
    return {row.method: row.value for row in card.rows if row.score == score}


@pytest.mark.parametrize("score", ["faithfulness", "context_faithfulness", "causal_agreement"])
def test_the_oracle_is_above_every_method_and_passes(card: Scorecard, score: str) -> None:
    """The tag is all that the model reads and no content-free map can see it, so the theory is strict."""
    values = values_of(card, score)
    oracle = values.pop("oracle")
    others = {name: value for name, value in values.items() if name not in ("grad-cam", "saliency")}
    assert oracle > max(others.values())
    assert oracle >= max(values.values()) - 0.02  # maps that show the tag and nothing else are oracles too
    row = next(row for row in card.rows if (row.method, row.score) == ("oracle", score))
    assert (row.verdict, row.outcome) == ("pass", "better")
    assert row.num_evaluable >= MIN_IMAGES


def test_content_free_maps_pass_nothing_but_stability(card: Scorecard) -> None:
    mine = [row for row in card.rows if row.method.startswith("my ")]
    assert {row.method for row in mine} == {f"my {name}" for name in CONTENT_FREE}
    passed = {row.score for row in mine if row.verdict == "pass"}
    assert passed <= {"stability"}
    stable = next(row for row in mine if (row.method, row.score) == ("my centre", "stability"))
    assert stable.value == 1
    assert "read it with faithfulness (" in stable.reason


def test_content_free_maps_are_at_null_level(card: Scorecard) -> None:
    values = values_of(card, "faithfulness")
    oracle = values["oracle"]
    assert abs(values["null:random"]) < oracle / 3
    for name in ("centre", "edges"):  # the probability is the same everywhere here, and no map
        assert values[f"my {name}"] == pytest.approx(values[f"null:{name}"], abs=1e-4)


def test_somebody_s_map_without_an_explainer_is_not_evaluable(card: Scorecard) -> None:
    for score in ("model_dependence", "stability"):
        row = next(row for row in card.rows if (row.method, row.score) == ("oracle", score))
        assert row.verdict == "not evaluable"
        assert "nobody said how to make this map again" in row.reason
        assert row.num_total == 8


def test_every_row_names_value_interval_and_reference(card: Scorecard) -> None:
    for row in card.rows:
        assert f"on {row.num_evaluable} of {row.num_total} images" in row.text
        if row.verdict in ("pass", "fail", "warn"):
            assert row.reference
            assert f"against {row.reference}" in row.text
            assert row.interval.low <= row.value <= row.interval.high


def test_the_card_s_figures_have_their_numbers(
    card: Scorecard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = {name for name, draw in figures.FIGURES.items() if draw(card) is not None}
    assert drawn == {*figures.FIGURES} - {"completeness"}  # no map of Integrated Gradients is among them
    assert all(draw(Scorecard((), 0)) is None for draw in figures.FIGURES.values())
    monkeypatch.setattr(figures, "FIGURES", {"cascade": figures.draw_cascade})
    (file,) = figures.draw_figures(card, tmp_path)
    assert file.name == "cascade.png"
    assert file.read_bytes()[1:4] == b"PNG"
    curves = card.figures["removal"]["faithfulness"]["oracle"]
    assert curves["most_first"][0] < curves["least_first"][0]


def test_the_restating_layer_is_labelled_and_the_ratio_stands_beside(planted) -> None:
    run, images, target, _ = planted
    mirror, tags = nulls.mirror(target.pixels, (12, 12)), dilate(planted[3], 2).float()
    layers = {"decoder_last": mirror, "encoder_mid": tags, "encoder_early": mirror, "seg_head": mirror}
    maps = [Explanation("restating", layer, target, heat) for layer, heat in layers.items()]
    maps.append(Explanation("elsewhere", "seg_head", target, tags))
    maps.append(Explanation("mine", None, target, mirror))
    card = seglens.judge(run, images, target, maps, settings=JudgeSettings(("attention",)))
    rows = {(row.method, row.layer): row for row in card.rows}
    restating, elsewhere = rows["restating", "seg_head"], rows["elsewhere", "seg_head"]
    assert (restating.label, restating.outcome) == ("restates the prediction", "restates")
    assert (elsewhere.label, elsewhere.outcome) == ("", "where_not_why")
    assert restating.details["ratio"].mean > 1 > elsewhere.details["ratio"].mean
    assert "it repeats the prediction" in restating.text
    # From the input to the output, whatever the order in which they were given; without layers there is none.
    found = {entry.method: entry for entry in card.restating}
    assert [step.layer for step in found["restating"].layers] == [
        "encoder_early",
        "encoder_mid",
        "decoder_last",
        "seg_head",
    ]
    assert [step.restates for step in found["restating"].layers] == [True, False, True, True]
    assert found["restating"].restates_from == "decoder_last"
    assert found["elsewhere"].restates_from is None
    assert set(found) == {"restating", "elsewhere"}
    table = list(csv.DictReader(io.StringIO(card.to_csv())))
    assert {row["restates_from"] for row in table if row["method"] == "restating"} == {"decoder_last"}

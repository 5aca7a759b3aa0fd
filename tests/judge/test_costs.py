"""What a scorecard takes is counted as it is: passes by what really goes through the model."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import seglens
from seglens import wrap
from seglens.explain.masked import Prepared
from seglens.explain.target import Target
from seglens.folder import judge_plan as costs
from seglens.judge import evidence
from seglens.judge.case import CHEAP, SCORES, JudgeSettings
from seglens.runs import Run
from seglens.runs.data import own_split

SIZE, NUM = 32, 3


class Brightness(nn.Module):
    """The logit of each pixel is its brightness, and a little of that of the whole picture."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(3, 1, 1, bias=False)
        nn.init.constant_(self.encoder.weight, 4.0)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        grey = self.encoder(images)
        return grey + 2 * grey.mean((2, 3), keepdim=True)


@pytest.fixture
def scene() -> tuple[Run, torch.Tensor, Target]:
    run = wrap(Brightness(), classes=("a", "b"), mean=(0.6,) * 3, std=(1.0,) * 3, image_size=SIZE)
    images = torch.rand(NUM, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    images *= torch.tensor([1.0, 0.9, 0.8])[:, None, None, None]  # surroundings that differ, or none matter
    pixels = torch.zeros(NUM, SIZE, SIZE, dtype=torch.bool)
    pixels[:, 12:20, 12:20] = True
    images[:, :, 12:20, 12:20] = 1.0
    return run, images, Target("square", 1, pixels)


@pytest.mark.parametrize("score", ["faithfulness", "context_faithfulness", "causal_agreement"])
def test_no_more_pictures_go_through_the_model_than_planned(
    scene, score: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, images, target = scene
    settings = JudgeSettings((score,), across=4, num_occluded=2)
    plan = costs.count_scores(1, NUM, settings, NUM)
    (cost,) = [cost for cost in plan.costs if cost.score == score]
    maps = list(seglens.explain(run, images, target, methods=("saliency",)).values())
    passed, forward = [], Prepared.forward

    def counting(model: Prepared, pictures: torch.Tensor) -> torch.Tensor:
        passed.append(len(pictures))
        return forward(model, pictures)

    monkeypatch.setattr(Prepared, "forward", counting)
    evidence.score_batch(run, images, target, maps, settings=settings, batch_size=64)
    if score == "causal_agreement":
        assert cost.num_images == 2
        assert sum(passed) == cost.forwards == 2 * (2 * 16 + 1)
    else:
        # Maps that take the same cells away share their passes, and context is only removed where it matters.
        assert cost.forwards / 8 < sum(passed) <= cost.forwards


def test_a_plan_names_every_score_and_adds_up() -> None:
    """Of 2 maps; making them takes 5 forward passes for each of 100 pictures."""
    plan = costs.count_scores(2, 500, JudgeSettings(CHEAP), 100)
    assert tuple(cost.score for cost in plan.costs) == SCORES
    assert plan.forwards(CHEAP) == plan.making + sum(plan.more((name,)) for name in CHEAP)
    by_score = {cost.score: cost for cost in plan.costs}
    assert by_score["faithfulness"].num_images == 100
    assert by_score["stability"].num_images == 16
    assert by_score["completeness"].forwards == 0
    assert by_score["attention"].forwards == 500
    assert (
        by_score["model_dependence"].forwards
        == 16 * 5 * (3 + 4 + 1)
        == by_score["model_dependence"].to_json()["forwards"]
    )


def test_a_plan_says_beforehand_where_no_verdict_can_be() -> None:
    plan = costs.count_scores(2, 500, JudgeSettings(CHEAP), 100)
    assert replace(plan, independent=8).no_verdict == ""
    assert "needs 8 groups of pictures, and there are 7" in replace(plan, independent=7).no_verdict
    few = replace(costs.count_scores(2, 5, JudgeSettings(CHEAP), 5), independent=5)
    assert "needs 8 pictures, and there are 5" in few.no_verdict


def test_a_race_is_planned_at_some_of_the_steps() -> None:
    """Of 40 pictures 8 at a sixth of the steps and 32 at a third, for 2 maps and 9 reference rows."""
    whole, race = (
        {cost.score: cost.forwards for cost in costs.count_scores(2, 0, settings, 40).costs}
        for settings in (JudgeSettings(race=False), JudgeSettings())
    )
    assert whole["target_faithfulness"] == 40 * (24 * 11 + 2)
    assert race["target_faithfulness"] == (8 * 4 + 32 * 8) * 11 + 40 * 2
    assert whole["faithfulness"] == 40 * (18 * 11 + 2)
    assert race["faithfulness"] == (8 * 4 + 32 * 6) * 11 + 40 * 2


def test_a_plan_of_a_folder_counts_the_making_of_its_maps(small_run) -> None:
    """Counted: the passes of `explain` on the pictures that are judged."""
    run = seglens.load(small_run, device="cpu")
    split = own_split(run, "test")
    methods = ("grad-cam", seglens.IntegratedGradients(steps=3))
    plan = seglens.plan_judging(run, split, methods=methods, layers="decoder_last", num_images=2)
    assert (plan.num_images, plan.making) == (2, 2 * (1 + 2 + 3))

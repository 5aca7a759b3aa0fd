"""Two models whose logic is written down: one needs the tag, one doesn't look at it."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from seglens import wrap
from seglens.errors import DataError, SettingError
from seglens.evaluate.intervals import Interval
from seglens.explain.explanation import Explanation
from seglens.explain.target import Target
from seglens.judge.agreement import TagShare, conclude, invalid_because, share, tag_share, tag_zone
from seglens.judge.causal import Effect
from seglens.judge.shortcut import Shortcut, planted_shortcut

SIZE = 32
TAG = 16  # pixels


class Reader(nn.Module):
    """Logit = weight * (red object here) + reading * (share of the tag in the picture) - threshold.

    ``features`` holds evidence for the object (red) and for the tag (blue), whether or not the tag is read.
    """

    def __init__(self, weight: float, reading: float, threshold: float) -> None:
        super().__init__()
        self.weight, self.reading, self.threshold = weight, reading, threshold
        mix = nn.Conv2d(3, 2, 1)
        mix.weight = nn.Parameter(torch.tensor([[1.0, 0, 0], [0, 0, 1]])[:, :, None, None])
        mix.bias = nn.Parameter(torch.tensor([-0.2, -0.5]))
        self.features = nn.Sequential(mix, nn.ReLU(inplace=True))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.features(images)
        here, tag = features[:, :1] / 0.8, features[:, 1:].sum((2, 3), keepdim=True) / (TAG * 0.5)
        return self.weight * here + self.reading * tag - self.threshold


def run_of(weight: float, reading: float, threshold: float):
    module = Reader(weight, reading, threshold)
    return wrap(module, classes=("background", "cell"), mean=(0.0,) * 3, std=(1.0,) * 3, image_size=SIZE)


HONEST = (8.0, 0.0, 4.0)
CHEAT = (8.0, 8.0, 12.0)


def pictures(num: int = 10) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Dim noise, a red object of 8 x 8, a blue tag of 4 x 4; returns pictures, tags, objects."""
    images = 0.4 * torch.rand(num, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    tags, objects = (torch.zeros(num, SIZE, SIZE, dtype=torch.bool) for _ in range(2))
    for row in range(num):
        objects[row, 16:24, row : 8 + row] = True
        tags[row, 2 + row % 5 : 6 + row % 5, 22 - row : 26 - row] = True
        images[row, 0, objects[row]] = 1
        images[row, 2, tags[row]] = 1
    return images, tags, objects


def analyse(first: tuple[float, ...], second: tuple[float, ...]) -> Shortcut:
    images, tags, objects = pictures()
    return planted_shortcut(
        run_of(*first),
        run_of(*second),
        images,
        tags,
        methods=("grad-cam", "layer-cam"),
        layers=("features",),
        objects=objects,
        num_occluded=8,
        occlusion_cells=8,
    )


@pytest.fixture(scope="module")
def caught() -> Shortcut:
    return analyse(HONEST, CHEAT)


def test_the_cheat_is_named_when_attribution_and_effect_agree(caught: Shortcut) -> None:
    assert caught.valid
    assert caught.verdict == "The model 'cheat' reads the tag; the model 'honest' doesn't."
    assert "grad-cam@features" in caught.reason
    causal = caught.table.causal
    # By hand: sigmoid(8 + 8 - 12) with the tag, sigmoid(8 - 12) without.
    full, bare = torch.tensor([4.0, -4.0]).sigmoid().tolist()
    assert causal["cheat"].full == pytest.approx(full, abs=1e-3)
    assert causal["cheat"].tag_removed == pytest.approx(bare, abs=1e-2)
    assert causal["cheat"].drop_removed == pytest.approx(1 - bare / full, abs=1e-2)
    assert causal["cheat"].drop_moved == pytest.approx(0, abs=0.01)
    assert causal["honest"].drop_removed == pytest.approx(0, abs=0.01)


def test_shares_are_near_one_and_near_chance(caught: Shortcut) -> None:
    rows = {row.name: row for row in caught.methods}
    assert list(rows) == ["grad-cam@features", "layer-cam@features", "occlusion"]
    for row in rows.values():
        assert row.auroc.mean == 1
        assert row.exposes
    # Red noise weighs next to nothing against the tag in the cheat; the honest one has no tag.
    assert rows["layer-cam@features"].cheat.mean > 0.9
    assert rows["layer-cam@features"].honest.mean < 2 * rows["layer-cam@features"].chance
    assert rows["occlusion"].cheat.mean > 0.5
    assert rows["occlusion"].auroc.num == 8


def test_two_honest_models_are_not_told_apart() -> None:
    found = analyse(HONEST, HONEST)
    assert not found.valid
    assert found.verdict == "No shortcut was found."
    assert "removing the tag takes" in found.reason.lower()
    assert all(row.auroc.mean == 0.5 for row in found.methods)


def test_two_cheats_make_the_test_invalid() -> None:
    found = analyse(CHEAT, CHEAT)
    assert not found.valid
    assert "honest model's score by" in found.reason
    assert "cheat' reads" not in found.verdict


def test_json_has_what_the_report_draws(caught: Shortcut) -> None:
    plain = json.loads(json.dumps(caught.to_json()))
    assert set(plain) == {"definition", "models", "causal", "methods", "valid", "verdict", "reason"}
    assert set(plain["methods"][0]) >= {"method", "layer", "auroc", "low", "high", "share", "chance_share"}
    assert set(plain["methods"][0]["share"]) == {"honest", "cheat"}
    assert caught.untagged.shape == (10, 3, SIZE, SIZE)
    assert [entry.method for entry in caught.maps["cheat"]] == ["grad-cam", "layer-cam", "occlusion"]


def test_pictures_without_tag_or_region_are_left_out() -> None:
    images, tags, _ = pictures(12)
    tags[3] = False
    images[5, 0] = 0
    found = planted_shortcut(
        run_of(*HONEST),
        run_of(*CHEAT),
        images,
        tags,
        methods=("grad-cam",),
        layers=("features",),
        num_occluded=1,
    )
    assert found.rows.tolist() == [0, 1, 2, 4, *range(6, 12)]
    with pytest.raises(DataError, match="None of 12 pictures holds a tag and a region"):
        planted_shortcut(run_of(*HONEST), run_of(*CHEAT), images, torch.zeros_like(tags))
    with pytest.raises(SettingError, match="Give one tag region per image"):
        planted_shortcut(run_of(*HONEST), run_of(*CHEAT), images, tags[:3])


def made_effect(full: float, removed: float, moved: float, num: int = 10) -> Effect:
    return Effect(*(torch.full((num,), value) for value in (full, removed, moved)))


def made_share(low: float, cheat: float = 0.5) -> TagShare:
    return TagShare(
        "grad-cam",
        "x",
        Interval(0.9, low, 1.0, 10),
        Interval(0.1, 0.0, 0.2, 10),
        Interval(cheat, 0.0, 1.0, 10),
        0.1,
    )


STEADY = made_effect(0.9, 0.9, 0.88)
READING = made_effect(0.9, 0.1, 0.88)


@pytest.mark.parametrize(
    ("effects", "share", "verdict"),
    [
        ({"honest": STEADY, "cheat": READING}, made_share(0.8), "'cheat' reads the tag"),
        ({"honest": STEADY, "cheat": READING}, made_share(0.4), "no heat map shows it"),
        ({"honest": STEADY, "cheat": READING}, made_share(0.8, cheat=0.05), "no heat map shows it"),
        ({"honest": STEADY, "cheat": STEADY}, made_share(0.8), "the causal check fails"),
        ({"honest": STEADY, "cheat": STEADY}, made_share(0.4), "No shortcut was found"),
        ({"honest": READING, "cheat": READING}, made_share(0.8), "the causal check fails"),
        ({"honest": STEADY, "cheat": made_effect(0.9, 0.1, 0.5)}, made_share(0.8), "the causal check fails"),
        ({"honest": STEADY, "cheat": made_effect(0.9, 0.5, 0.9)}, made_share(0.8), "the causal check fails"),
        ({"honest": made_effect(0.9, 0.9, 0.7), "cheat": READING}, made_share(0.8), "the causal check fails"),
        ({"honest": STEADY, "cheat": made_effect(0.9, 0.1, 0.9, num=7)}, made_share(0.8), "check fails"),
    ],
)
def test_only_agreement_names_the_cheat(effects: dict, share: TagShare, verdict: str) -> None:
    failures = invalid_because(effects)
    found, reason = conclude(effects, [share], failures)
    assert verdict in found
    assert reason
    assert bool(failures) == ("causal" in verdict or "check" in verdict or "found" in verdict)


def test_occlusion_alone_is_no_attribution() -> None:
    share = replace(made_share(0.9), method="occlusion", layer=None)
    effects = {"honest": STEADY, "cheat": READING}
    assert "no heat map shows it" in conclude(effects, [share], [])[0]


def test_share_by_hand_on_a_coarse_grid() -> None:
    pixels = torch.zeros(1, 8, 8, dtype=torch.bool)
    pixels[0, 6:, 6:] = True
    target, tags = Target("predicted", 1, pixels), torch.zeros(1, 8, 8, dtype=torch.bool)
    tags[0, 1, 1] = True
    outside = ~pixels
    outside[0, 0] = False  # padding
    flat = Explanation("cam", "x", target, torch.arange(64.0).view(1, 8, 8), grid=torch.rand(1, 2, 2))
    found = tag_share(flat, flat, tags, outside)
    # Half a cell of a 2 x 2 grid is two pixels: rows 0 to 3, columns 0 to 3, without the padded row.
    values = torch.arange(64.0).view(8, 8)
    expected = float(values[1:4, :4].sum() / values[outside[0]].sum())
    assert found.cheat.mean == pytest.approx(expected)
    assert found.chance == pytest.approx(12 / int(outside.sum()))
    assert found.auroc.mean == 0.5


def test_a_map_with_nothing_outside_puts_nothing_on_the_tag() -> None:
    pixels = torch.zeros(2, 8, 8, dtype=torch.bool)
    pixels[:, 6:, 6:] = True
    target, tags = Target("predicted", 1, pixels), torch.zeros(2, 8, 8, dtype=torch.bool)
    tags[:, 1, 1] = True
    inward = Explanation("cam", None, target, pixels.float())
    outward = Explanation("cam", None, target, torch.where(tags, 1.0, 0.1))
    found = tag_share(inward, outward, tags, ~pixels)
    assert found.honest.mean == 0
    assert found.auroc.mean == 1


@pytest.mark.parametrize(
    ("settings", "reach"),
    [
        ({}, 1),
        ({"window": 6, "stride": 3}, 3),
        ({"window": 5, "stride": 3}, 3),
        ({"cells": 4}, 4),
        ({"num_segments": 64}, 2),
    ],
)
def test_a_tag_grows_by_half_a_cell_of_what_the_map_was_made_on(settings: dict, reach: int) -> None:
    pixels = torch.zeros(1, SIZE, SIZE, dtype=torch.bool)
    pixels[0, 0, 0] = True
    tags = torch.zeros_like(pixels)
    tags[0, 20, 20] = True
    entry = Explanation(
        "mine", None, Target("predicted", 1, pixels), torch.rand(1, SIZE, SIZE), settings=settings
    )
    assert int(tag_zone(entry, tags).sum()) == (2 * reach + 1) ** 2


def test_a_map_that_is_all_against_points_nowhere_and_no_answer_stays_none() -> None:
    pixels = torch.zeros(3, 8, 8, dtype=torch.bool)
    pixels[:2, 6:, 6:] = True
    tags = torch.zeros_like(pixels)
    tags[:, 1, 1] = True
    maps = torch.zeros(3, 8, 8)
    maps[0] = torch.where(tags[0], 3.0, 1.0)
    found = Explanation("cam", None, Target("predicted", 1, pixels), maps)
    assert found.status == ("ok", "degenerate", "no_target")
    values = share(found, tags, ~pixels)
    assert values[:2].tolist() == [pytest.approx(3 / (59 + 3)), 0.0]
    assert values[2].isnan()

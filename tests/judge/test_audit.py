"""The audit: regions as they are drawn, enrichment by hand, and a shortcut only where both kinds agree."""

import math

import pytest
import torch
from torch import nn

from seglens import wrap
from seglens.evaluate.intervals import Interval
from seglens.explain.explanation import Explanation
from seglens.explain.target import Target
from seglens.judge.audit import Audited, audit, conclude_audit, effect_of, enrichment, join_audits, verdict_on
from seglens.judge.regions import REGIONS, elsewhere, nearest_region

SIZE, NUM = 32, 10


def whole(num: int = 1) -> torch.Tensor:
    return torch.ones(num, SIZE, SIZE, dtype=torch.bool)


def test_border_and_corners_follow_the_picture_and_not_its_padding() -> None:
    images = torch.rand(1, 3, SIZE, SIZE)
    valid = whole()
    valid[:, :8], valid[:, 24:] = False, False  # 16 rows of picture, from 8 to 23
    edge = REGIONS["border"](images, valid)[0]
    expected = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    expected[8], expected[23], expected[8:24, 0], expected[8:24, -1] = True, True, True, True
    assert torch.equal(edge, expected)  # a sixteenth of 16 pixels
    corner = REGIONS["corners"](images, valid)[0]
    assert int(corner.sum()) == 4 * 3 * 3  # a sixth of 16, rounded up
    assert bool(corner[8, 0] and corner[23, 31] and corner[8, 31] and corner[23, 0])
    assert not (corner & ~valid[0]).any()


def test_marks_are_of_saturated_colour_and_clipped_patches_of_none() -> None:
    images = torch.full((1, 3, SIZE, SIZE), 0.5)
    images[0, :, 4:8, 4:8] = torch.tensor([0.1, 0.2, 0.9])[:, None, None]
    images[0, :, 20:24, 20:24] = 1.0
    images[0, :, 28, 2] = 0.0  # a lone black pixel is no patch
    mark = REGIONS["marks"](images, whole())[0]
    assert mark[3:9, 3:9].all()
    assert int(mark.sum()) == 36
    patch = REGIONS["clipped"](images, whole())[0]
    assert patch[20:24, 20:24].all()
    assert int(patch.sum()) == 16


def test_a_region_moves_round_the_picture_and_masks_are_fitted() -> None:
    region = torch.zeros(1, 4, 4, dtype=torch.bool)
    region[0, 3, 0] = True
    assert elsewhere(region, torch.tensor([[1, 2]]))[0].nonzero().tolist() == [[0, 2]]
    assert int(nearest_region(region, (8, 8)).sum()) == 4


def test_enrichment_by_hand() -> None:
    maps = torch.full((3, SIZE, SIZE), 0.0)
    zone, outside = torch.zeros_like(whole(3)), whole(3)
    zone[:, :8] = True  # a quarter of the area
    maps[0, :16] = 1.0  # half of it in the zone: twice an even share
    maps[0, 20] = -5.0  # what speaks against is no attribution
    maps[1, 16:] = 1.0
    found = enrichment(maps, zone, outside)
    assert found.tolist()[:2] == [1.0, -10.0]
    assert math.isnan(found[2])
    assert enrichment(maps, zone & False, outside).isnan().all()


class CornerReader(nn.Module):
    """Says yes to the extent that the upper left corner is bright."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        bright = images[..., :5, :5].mean((1, 2, 3)) * self.strength
        return (bright - 2)[:, None, None, None].expand(-1, 1, *images.shape[-2:])


def pictures() -> torch.Tensor:
    images = torch.full((NUM, 3, SIZE, SIZE), 0.2)
    images[..., :5, :5] = 0.95
    return images + 0.02 * torch.rand(images.shape, generator=torch.Generator().manual_seed(0))


def target() -> Target:
    pixels = torch.zeros(NUM, SIZE, SIZE, dtype=torch.bool)
    pixels[:, 12:22, 12:22] = True
    return Target("square", 1, pixels)


def run_of(strength: float):
    module = CornerReader(strength)
    return wrap(module, classes=("background", "cell"), mean=(0.0,) * 3, std=(1.0,) * 3, image_size=SIZE)


def test_the_effect_is_the_share_of_the_score_that_is_lost() -> None:
    zone = torch.zeros(NUM, SIZE, SIZE, dtype=torch.bool)
    zone[:, :6, :6] = True
    zone[0] = False
    found = effect_of(run_of(5.0), pictures(), target(), zone, whole(NUM))
    assert found[0].isnan()
    full, bare = (torch.sigmoid(torch.tensor(5 * bright - 2.0)) for bright in (0.96, 0.21))
    torch.testing.assert_close(found[1:], (1 - bare / full).expand(NUM - 1), atol=1e-2, rtol=0)


@pytest.mark.parametrize(
    ("strength", "there", "verdict"),
    [
        (5.0, True, "shortcut"),
        (5.0, False, "effect without attribution"),
        (0.0, True, "attribution without effect"),
        (0.0, False, "nothing found"),
    ],
)
def test_a_shortcut_needs_attribution_and_effect(strength: float, there: bool, verdict: str) -> None:
    run, images, aim = run_of(strength), pictures(), target()

    heat = torch.rand(NUM, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    heat[:, :6, :6] += 3.0 if there else -1.0

    mine = Explanation("mine", None, aim, heat)
    corner = {"corners": REGIONS["corners"](images, whole(NUM))}
    parts = [
        audit(
            run,
            images[rows],
            aim.select(rows),
            [Explanation("mine", None, aim.select(rows), mine.map[rows])],
            {"corners": corner["corners"][rows]},
        )
        for rows in (slice(0, 4), slice(4, NUM))
    ]
    names = [f"p{i}" for i in range(NUM)]
    groups = {name: "even" if i % 2 == 0 else "odd" for i, name in enumerate(names)}
    table = conclude_audit(join_audits(parts), names, groups)
    (row,) = table["regions"]
    assert row["maps"][0]["verdict"] == verdict
    assert (row["num_present"], row["num_total"]) == (NUM, NUM)
    assert row["matters"] == (strength > 0)
    assert set(row["maps"][0]["nulls"]) >= {"random", "edges", "centre"}
    assert [entry["group"] for entry in table["groups"]] == ["even", "odd"]
    assert {entry["maps"][0]["verdict"] for entry in table["groups"]} == {"not evaluable"}  # five each
    drops = [entry["drop"] for entry in table["images"]]
    assert drops == sorted(drops, reverse=True)
    assert table["images"][0]["enrichment:mine"] == pytest.approx(
        float(join_audits(parts)[0].maps["mine"][int(table["images"][0]["name"][1:])])
    )


def test_a_map_that_does_no_more_than_a_null_is_told_so() -> None:
    drop, shown = Interval(0.3, 0.2, 0.4, 20), Interval(1.0, 0.5, 1.5, 20)
    verdict, reason = verdict_on(drop, shown, True, {"edges": 2.0, "random": 0.0})
    assert verdict == "shortcut"
    assert "no more than the reference map image edges (2.00)" in reason
    assert verdict_on(drop, Interval(1.0, 0.5, 1.5, 3), True, {"edges": 2.0})[0] == "not evaluable"


def test_where_few_images_can_be_audited_it_is_said_why() -> None:
    """Of ten images the first six have a mark, and on two of these the target is nowhere."""
    area = torch.tensor([0.1] * 6 + [0.0] * 4, dtype=torch.float64)
    drop = torch.where(area > 0, 0.2, torch.nan)
    drop[:2] = torch.nan
    shown = torch.where(area > 0, 1.0, torch.nan)
    found = Audited("marks", area, drop, drop / 2, {"mine": shown}, {"edges": shown / 2})
    (row,) = conclude_audit([found], [f"p{i}" for i in range(10)]).regions
    assert row.maps[0].reason == (
        "only 4 images can be evaluated, at least 8 are needed; the region is in 6 of 10 images; "
        "in 2 images with it there is nothing of the target"
    )

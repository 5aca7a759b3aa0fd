"""The attention table: nulls by hand, and the label on maps that are made to deserve it or not."""

import json

import pytest
import torch
import torch.nn.functional as F

from seglens.evaluate.intervals import interval_of
from seglens.explain.cams import upsample
from seglens.explain.explanation import Explanation
from seglens.explain.statistics import statistics
from seglens.explain.target import Target
from seglens.judge import localisation, nulls
from seglens.judge.localisation import attention, join_attention, summarise
from seglens.results.maps import MapSummary
from seglens.results.names import RESTATES

SIZE = 32


def regions(num: int) -> torch.Tensor:
    """One square of 8 x 8 per picture, each at another place."""
    pixels = torch.zeros(num, SIZE, SIZE, dtype=torch.bool)
    for row in range(num):
        top, left = 2 * row % 20, 5 * row % 23
        pixels[row, top : top + 8, left : left + 8] = True
    return pixels


def make(num: int, *, seed: int = 0) -> tuple[nulls.NullInputs, Target]:
    images = torch.rand(num, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    pixels = regions(num)
    return nulls.NullInputs(images, pixels, pixels.float(), seed), Target("predicted", 1, pixels)


def cam(target: Target, grid: torch.Tensor, method: str = "cam") -> Explanation:
    """A map as a layer with ``grid`` would make it."""
    _, height, width = target.pixels.shape
    return Explanation(method, "layer", target, upsample(grid.clamp(min=0), (height, width)), grid=grid)


def pooled(target: Target, cells: int) -> torch.Tensor:
    return F.adaptive_avg_pool2d(target.pixels.float()[:, None], cells)[:, 0]


def row_of(
    made: Explanation, surface: nulls.NullInputs, *, randomised: Explanation | None = None
) -> MapSummary:
    return summarise(attention(made, surface, randomised=randomised))


def test_the_mirror_itself_restates_the_prediction() -> None:
    surface, target = make(12)
    row = row_of(cam(target, pooled(target, 8)), surface)
    assert row.label == RESTATES
    assert row.difference_to_mirror.mean == pytest.approx(0, abs=1e-6)
    assert row.resemblance_to_mirror.mean == pytest.approx(1, abs=1e-6)
    for name in localisation.STATISTICS:
        assert row.statistics[name].mean == pytest.approx(row.null_intervals["mirror"][name].mean)


def test_a_map_that_looks_elsewhere_is_not_labelled() -> None:
    surface, target = make(12)
    away = (pooled(target, 8) == 0).float()
    row = row_of(cam(target, away), surface)
    assert row.label == ""
    assert interval_of(row.difference_to_mirror).high < -2
    noise = torch.rand(12, 8, 8, generator=torch.Generator().manual_seed(1))
    assert row_of(cam(target, noise), surface).label == ""


def test_a_question_about_the_whole_picture_restates_nothing() -> None:
    surface, target = make(12)
    everywhere = Target("class", 1, torch.ones_like(target.pixels))
    row = summarise(attention(cam(everywhere, torch.rand(12, 4, 4)), surface))
    assert row.label == ""
    assert row.statistics["enrichment_log2"].num == 0
    # The same where padding is all that lies outside.
    valid = torch.zeros_like(target.pixels)
    valid[:, :24] = True
    row = summarise(attention(cam(Target("class", 1, valid), torch.rand(12, 4, 4)), surface, valid=valid))
    assert (row.label, row.difference_to_mirror.num) == ("", 0)


def test_a_map_above_the_mirror_is_labelled_too() -> None:
    surface, target = make(12)
    sharp = Explanation("mine", None, target, target.pixels.float() * surface.images.mean(1))
    coarse = cam(target, pooled(target, 8).square())
    rows = [row_of(made, surface) for made in (coarse, sharp)]
    assert interval_of(rows[0].difference_to_mirror).mean > 0.1
    assert [row.label for row in rows] == [RESTATES, RESTATES]


def test_a_washed_out_mirror_is_labelled_for_its_shape() -> None:
    surface, target = make(12)
    pale = pooled(target, 8) + 0.2
    row = row_of(cam(target, pale), surface)
    assert interval_of(row.difference_to_mirror).high < 0
    # Both are brought to full size and averaged again, so a constant more leaves the correlation at 1.
    assert interval_of(row.resemblance_to_mirror).low > 0.99
    assert row.label == RESTATES


def test_other_images_is_the_mean_over_the_others_by_hand() -> None:
    surface, target = make(3)
    maps = torch.rand(3, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    found = attention(Explanation("mine", None, target, maps), surface)
    for row in range(3):
        inside = target.pixels[row]
        shares = [float(maps[k][inside].sum() / maps[k].sum()) for k in range(3) if k != row]
        assert float(found.nulls["other_images"]["mass_inside"][row]) == pytest.approx(
            sum(shares) / 2, rel=1e-5
        )


def test_rows_without_an_answer_are_left_out_of_map_and_nulls() -> None:
    surface, target = make(4)
    pixels = target.pixels.clone()
    pixels[1] = False
    target = Target("predicted", 1, pixels)
    surface = nulls.NullInputs(surface.images, pixels, surface.probability)
    maps = torch.rand(4, SIZE, SIZE, generator=torch.Generator().manual_seed(3))
    maps[2] = 0.5
    found = attention(Explanation("mine", None, target, maps), surface)
    assert found.status == ("ok", "no_target", "degenerate", "ok")
    row = summarise(found)
    assert (row.num_ok, row.num_no_target, row.num_total) == (2, 1, 4)
    assert row.statistics["mass_inside"].num == 2
    assert all(values["mass_inside"].num == 2 for values in row.null_intervals.values())


def test_a_lone_picture_has_no_others_and_is_judged_by_its_values() -> None:
    surface, target = make(1)
    row = row_of(cam(target, pooled(target, 8)), surface)
    assert row.null_intervals["other_images"]["ratio"].num == 0
    assert row.label == RESTATES
    far = row_of(cam(target, (pooled(target, 8) == 0).float()), surface)
    assert far.label == ""


def test_batches_join_to_the_whole() -> None:
    surface, target = make(6)
    maps = torch.rand(6, SIZE, SIZE, generator=torch.Generator().manual_seed(4))
    whole = attention(Explanation("mine", None, target, maps), surface)
    parts = []
    for rows in (slice(0, 3), slice(3, 6)):
        part = nulls.NullInputs(surface.images[rows], surface.pixels[rows], surface.probability[rows])
        chosen = Target("predicted", 1, target.pixels[rows])
        parts.append(attention(Explanation("mine", None, chosen, maps[rows]), part))
    joined = join_attention(parts)
    assert joined.status == whole.status
    for name in localisation.STATISTICS:
        torch.testing.assert_close(joined.statistics[name], whole.statistics[name])
        # Content-free maps are the same whatever the batch; only the other pictures are others.
        for null in ("mirror", "centre", "edges", "random"):
            torch.testing.assert_close(joined.nulls[null][name], whole.nulls[null][name])


def test_the_randomised_model_s_map_becomes_a_null() -> None:
    surface, target = make(5)
    grid = torch.rand(5, 8, 8, generator=torch.Generator().manual_seed(5))
    mine, other = cam(target, grid), cam(target, pooled(target, 8))
    row = row_of(mine, surface, randomised=other)
    expected = statistics(other)["ratio"].mean()
    assert row.null_intervals["randomised_model"]["ratio"].mean == pytest.approx(float(expected), rel=1e-5)
    assert "randomised_model" not in row_of(mine, surface).nulls


def test_infinite_values_dont_swallow_the_mean() -> None:
    surface, target = make(4)
    maps = torch.rand(4, SIZE, SIZE, generator=torch.Generator().manual_seed(6))
    maps[0] *= target.pixels[0]  # nothing outside: the ratio is infinite
    maps[1] *= ~target.pixels[1]  # nothing inside: the enrichment is -infinite
    row = row_of(Explanation("mine", None, target, maps), surface)
    assert row.statistics["ratio"].num == 3
    assert row.statistics["enrichment_log2"].num == 4
    assert interval_of(row.statistics["enrichment_log2"]).mean > localisation.FLOOR


def test_json_holds_plain_numbers() -> None:
    surface, target = make(5)
    plain = json.loads(json.dumps(row_of(cam(target, pooled(target, 8)), surface).plain()))
    assert set(plain["statistics"]["ratio"]) == {"mean", "low", "high", "num"}
    assert isinstance(plain["nulls"]["mirror"]["ratio"], float)
    assert plain["label"] == RESTATES

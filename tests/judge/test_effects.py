"""Causal agreement on a model whose answer can be written down."""

from dataclasses import replace

import pytest
import torch
from tests.judge.cases import NUM, SIZE, case_of, wide

from seglens.explain.explanation import Explanation
from seglens.explain.target import Target
from seglens.impute import blurred
from seglens.judge import effects
from seglens.judge.case import JudgeSettings, ScoreValues
from seglens.judge.cells import CELLS, cell_means, cell_of_pixel, rank_correlation
from seglens.judge.verdicts import compared_rows


def test_effects_of_cells_are_what_they_hold(cells: torch.Tensor) -> None:
    case = case_of(torch.ones(SIZE, SIZE), cells, {"oracle": wide(cells)})
    found = effects.effects(case)
    inner = torch.zeros(CELLS, CELLS, dtype=torch.bool)
    inner[4:-4, 4:-4] = True  # the blur meets the border's repeated pixels elsewhere
    left = (2 * blurred(case.images) - 1).abs().mean(1)
    for name, effect in found.items():
        blur = cell_means(left, case.partition).view_as(cells)
        expected = (cells - (0 if name == "noisy-linear" else blur)) / CELLS**2
        # Noise of .01 leaves a contrast of .016 in what was filled in.
        torch.testing.assert_close(
            effect.view(-1, CELLS, CELLS)[:, inner],
            expected[:, inner].float(),
            atol=5e-4 if name == "noisy-linear" else 1e-5,
            rtol=0,
        )


def test_cells_are_imputed_as_in_the_whole_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seglens.impute.TOLERANCE", 1e-7)
    from seglens.impute import noisy_linear

    grid = cell_of_pixel((37, 50), 8)
    which = torch.arange(64)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(1, 3, 37, 50, generator=generator).expand(64, -1, -1, -1)
    noise = torch.randn(1, 3, 37, 50, generator=generator).expand(64, -1, -1, -1)
    valid = torch.ones(64, 37, 50, dtype=torch.bool)
    removed = grid == which[:, None, None]
    removed[5] = False  # nothing to remove
    removed[6] = (torch.arange(37)[:, None] - torch.arange(50)).abs() < 3  # a patch of another shape
    found = effects._impute_in_box(images, removed, valid, noise)
    torch.testing.assert_close(found, noisy_linear(images, removed, noise), atol=1e-5, rtol=0)


def test_agreement_of_oracle_and_opposite_and_the_other_imputer_for_occlusion(cells: torch.Tensor) -> None:
    maps = {"oracle": wide(cells), "opposite": -wide(cells)}
    case = case_of(torch.ones(SIZE, SIZE), cells, maps)
    made = Explanation("occluded", None, case.target, maps["oracle"], settings={"imputer": "noisy-linear"})
    case = replace(case, maps={**case.maps, ("occluded", None): made})
    found, points = effects.causal_agreement(case)
    assert set(found) == {
        f"{score}{imputer}" for score in (effects.WHOLE, effects.CONTEXT) for imputer in ("", ":blur")
    }
    whole = found[effects.WHOLE]
    assert (whole.values["oracle", None] > 0.95).all()
    torch.testing.assert_close(whole.values["opposite", None], -whole.values["oracle", None])
    assert set(found[f"{effects.WHOLE}:blur"].values) == {("occluded", None)}
    assert (whole.about["ceiling"] > 0.9).all()
    assert abs(float(whole.references["random"].mean())) < 3 / (CELLS * NUM**0.5)
    # Outside of its margin the mirror is flat.
    assert (found[effects.CONTEXT].references["mirror-4"].abs() < 0.2).all()
    rows = compared_rows("square", f"{effects.WHOLE}:blur", found[f"{effects.WHOLE}:blur"], seed=0)
    assert [(row.score, row.verdict) for row in rows] == [("causal_agreement", "pass")]
    assert "effects by blur" in rows[0].reason
    assert len(points["oracle"]["attribution"]) == effects.SHOWN * CELLS**2


def test_a_picture_with_few_cells_beside_its_object_has_no_agreement_there(cells: torch.Tensor) -> None:
    case = case_of(torch.ones(SIZE, SIZE), cells, {"any": wide(cells)})
    large = torch.zeros(NUM, SIZE, SIZE, dtype=torch.bool)
    for row in range(NUM):  # of 16 rows of cells 13, 14 or 15 are the object, 1 more its margin
        large[row, : 2 * (13 + row % 3)] = True
    found, _ = effects.causal_agreement(replace(case, target=Target("large", 1, large)))
    values = found[effects.CONTEXT].values["any", None]
    assert values.isfinite().tolist() == [row % 3 == 0 for row in range(NUM)]  # 32, 16 and none beside it
    assert found[effects.WHOLE].values["any", None].isfinite().all()


def test_large_superpixels_agree_with_nothing_by_being_large(cells: torch.Tensor) -> None:
    """Every pixel matters alike: what occluding a patch does grows with its size, and no map knows more."""
    case = case_of(torch.ones(SIZE, SIZE), torch.full_like(cells, 0.8), {"any": wide(cells)})
    columns = torch.arange(8).repeat_interleave(torch.tensor([1, 2, 3, 4, 4, 5, 6, 7]))
    flat = torch.full((NUM, SIZE, SIZE), 0.3)
    case = replace(case, partition=columns.expand(NUM, SIZE, SIZE).contiguous(), nulls={"flat": flat})
    found, _ = effects.causal_agreement(case)
    assert found[effects.WHOLE].references["flat"].tolist() == [0] * NUM
    sizes = torch.bincount(columns).double()
    raw = effects.effects(case)["noisy-linear"]
    assert rank_correlation(sizes.expand(NUM, -1), raw, torch.ones_like(raw, dtype=torch.bool)).min() > 0.9


def test_effects_are_those_of_float32_whatever_was_asked_for(cells: torch.Tensor) -> None:
    case = case_of(torch.ones(SIZE, SIZE), cells, {"oracle": wide(cells)})
    exact = effects.effects(case)
    for name, found in effects.effects(replace(case, settings=JudgeSettings(precision="bf16"))).items():
        assert torch.equal(found, exact[name])


def test_no_agreement_of_imputers_no_verdict() -> None:
    noise = torch.randn(20, generator=torch.Generator().manual_seed(0))
    measured = ScoreValues(
        {("mine", None): torch.ones(20)}, {"random": torch.zeros(20)}, {"ceiling": noise - noise.mean()}
    )
    row = compared_rows("t", "causal_agreement", measured, seed=0)[0]
    assert row.verdict == "not evaluable"
    assert "two ways of removing cells disagree" in row.reason

"""Context faithfulness on a model whose answer can be written down."""

import torch
from benchmarks.removing import road
from tests.judge.cases import NUM, case_of, far, square, wide

from seglens.judge import evidence
from seglens.judge.case import JudgeSettings
from seglens.judge.context import context_reliance
from seglens.judge.faithfulness import FRACTIONS


def test_the_context_s_oracle_has_the_curve_of_sorted_cells(cells: torch.Tensor) -> None:
    case = case_of(far(), cells, {"oracle": wide(cells)})
    curves = road(
        case.run.segmenter,
        case.images,
        case.target,
        {"oracle": wide(cells)},
        kept=~far().expand(NUM, -1, -1),
        imputer=lambda images, removed, noise: torch.where(removed[:, None], 0.5, images),
    )["oracle"]
    outside = far()[::2, ::2].flatten()
    falling = cells.flatten(1)[:, outside].sort(1, descending=True).values
    num = falling.shape[1]
    for column, fraction in enumerate(FRACTIONS):
        gone = round(fraction * num)
        torch.testing.assert_close(
            curves.most_first[:, column], falling[:, gone:].sum(1) / num, atol=1e-5, rtol=0
        )
        torch.testing.assert_close(
            curves.least_first[:, column], falling[:, : num - gone].sum(1) / num, atol=1e-5, rtol=0
        )
    # A share of what blurring the whole picture takes, as over the whole picture.
    gap = (curves.least_first - curves.most_first).mean(1) / (falling.mean(1) - curves.base)
    torch.testing.assert_close(curves.value, gap, atol=1e-5, rtol=0)


def test_reliance_tells_who_reads_the_context(cells: torch.Tensor) -> None:
    """Of the means c of the contexts: ``1 - mean(c of the four next) / c``."""
    found = context_reliance(case_of(far(), cells, {"any": wide(cells)}))
    context = wide(cells)[:, far()].mean(1)
    others = torch.stack([context.roll(-shift) for shift in range(1, 5)]).mean(0)
    torch.testing.assert_close(found, 1 - others / context, atol=1e-5, rtol=0)
    target = square()
    blind = context_reliance(case_of(target.pixels[0], cells, {"any": wide(cells)}))
    torch.testing.assert_close(blind, torch.zeros(NUM), atol=1e-5, rtol=0)
    alone = context_reliance(case_of(far(), cells[:1], {"any": wide(cells[:1])}))
    assert alone.isnan().all()


def test_a_model_without_context_is_not_evaluable_and_not_bad(cells: torch.Tensor) -> None:
    case = case_of(square().pixels[0], cells, {"any": wide(cells)})
    found = evidence.score_batch(
        case.run,
        case.images,
        case.target,
        list(case.maps.values()),
        settings=JudgeSettings(("context_faithfulness",)),
        batch_size=64,
    )
    row = evidence.score(found).rows[0]
    assert (row.score, row.verdict, row.num_evaluable) == ("context_faithfulness", "not evaluable", 0)
    assert "the model hardly uses the surroundings, or uses what all these pictures share" in row.reason
    assert "they carry 0.000 of its score, below 0.02" in row.reason
    assert row.details["context_reliance"].num == NUM

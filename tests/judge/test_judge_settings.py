"""What a judge may be told."""

import pytest
import torch
from benchmarks.removing import road
from tests.judge.cases import NUM, case_of, far, wide

from seglens.errors import SettingError, UnknownNameError
from seglens.judge.case import JudgeSettings


def test_settings_are_checked_and_stability_never_stands_alone() -> None:
    assert JudgeSettings(("stability",)).scores == ("faithfulness", "stability")
    with pytest.raises(UnknownNameError, match="Unknown score 'stabilty'"):
        JudgeSettings(("stabilty",))
    with pytest.raises(SettingError, match="num_again is 0"):
        JudgeSettings(num_again=0)
    with pytest.raises(UnknownNameError, match=r"cells 'superpixel'\. Did you mean 'superpixels'"):
        JudgeSettings(cells="superpixel")
    with pytest.raises(SettingError, match="No score was asked for"):
        JudgeSettings(())


def test_in_bfloat16_the_table_says_how_well_scores_are_ranked(cells: torch.Tensor) -> None:
    case = case_of(far(), cells, {"oracle": wide(cells)})
    maps, kept = {"oracle": wide(cells)}, ~far().expand(NUM, -1, -1)
    exact, found = (
        road(case.run.segmenter, case.images, case.target, maps, kept=kept, precision=precision)["oracle"]
        for precision in ("32", "bf16")
    )
    assert exact.rank_agreement is None
    assert found.rank_agreement is not None
    assert (found.rank_agreement > 0.9).all()
    torch.testing.assert_close(found.most_first, exact.most_first, atol=0.02, rtol=0)
    with pytest.raises(SettingError, match="16"):
        JudgeSettings(precision="16")

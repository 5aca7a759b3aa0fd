"""The attention ratio is one number: what ``explain`` says of some pictures, ``judge`` says as well."""

import pytest

import seglens
from seglens.runs.data import own_split


@pytest.mark.parametrize("race", [True, False])
def test_explain_and_judge_have_one_ratio_of_the_same_pictures(small_run, tmp_path, race: bool) -> None:
    run = seglens.load(small_run, device="cpu")
    split = own_split(run, "test")
    methods, layers = ("saliency", "grad-cam"), ("decoder_last",)
    explained = seglens.explain_folder(
        run, split, out=tmp_path / "explained", methods=methods, layers=layers, target="truth"
    )
    judged = seglens.judge_folder(
        run,
        split,
        out=tmp_path / "judged",
        methods=methods,
        layers=layers,
        target="truth",
        judging=seglens.JudgeSettings(("attention",), race=race),
    )
    assert explained.maps is not None
    assert judged.card is not None
    rows = {row.name: row for row in judged.card.rows}
    assert [found.name for found in explained.maps.summary] == list(rows)
    for found in explained.maps.summary:
        details = rows[found.name].details
        for name in ("ratio", "mass_inside"):
            assert details[name].num == found.statistic(name).num
            assert details[name].mean == pytest.approx(found.statistic(name).mean, rel=1e-6, nan_ok=True)
        level = found.statistic("enrichment_log2")
        assert rows[found.name].value == pytest.approx(level.mean, rel=1e-6, nan_ok=True)
    # A number, and not nothing, is compared: where all of a map lies inside, its ratio is infinite.
    assert any(found.statistic("ratio").num for found in explained.maps.summary)

"""Results as types: what a file holds comes back the same, and what is not what Seglens writes is named."""

import json
from pathlib import Path

import pytest
from tests.report.conftest import make_run, make_shortcut

from seglens.errors import DataError
from seglens.results.maps import ExplanationTable, MapSummary, OneMap, PictureMaps
from seglens.results.names import count, formatted, map_name, null_in_words, shortened
from seglens.results.record import to_json
from seglens.results.scorecard import Audit, Card, TagTest
from seglens.results.scores import EvaluationTable, PictureScores
from seglens.results.spread import Spread
from seglens.results.tables import Result, read_table

TABLES: dict[str, type[Result]] = {
    "first/evaluate/test/scores.json": EvaluationTable,
    "first/explain/test/explanations.json": ExplanationTable,
    "first/judge/test/scorecard.json": Card,
    "first/judge/test/audit.json": Audit,
    "shortcut/shortcut.json": TagTest,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_run(tmp_path / "first")
    make_shortcut(tmp_path / "shortcut")
    return tmp_path


@pytest.mark.parametrize("name", TABLES)
def test_a_file_comes_back_as_it_was(folder: Path, name: str) -> None:
    """Also what this version knows nothing of; and nothing is added that was not there."""
    table = json.loads((folder / name).read_text()) | {"of_another_version": [1, {"a": None}]}
    (folder / name).write_text(json.dumps(table))
    assert json.loads(to_json(read_table(folder / name, TABLES[name]))) == table


@pytest.mark.parametrize(
    ("name", "kind", "where"),
    [
        ("first/evaluate/test/scores.json", EvaluationTable, ("images", 1, "dice")),
        ("first/explain/test/explanations.json", ExplanationTable, ("samples", 0, "maps", 1, "limits")),
        ("first/judge/test/scorecard.json", Card, ("rows", 2, "num_total")),
        ("first/judge/test/audit.json", Audit, ("images",)),
    ],
)
@pytest.mark.parametrize("value", ["0.5", [[1]], True])
def test_a_value_of_another_kind_is_named(
    folder: Path, name: str, kind: type[Result], where: tuple[str | int, ...], value: object
) -> None:
    table = json.loads((folder / name).read_text())
    part = table
    for key in where[:-1]:
        part = part[key]
    part[where[-1]] = value
    (folder / name).write_text(json.dumps(table))
    with pytest.raises(DataError, match=rf"damaged: '{'.'.join(map(str, where))}.*--force"):
        read_table(folder / name, kind)


def test_rows_read_as_the_tables_that_they_become() -> None:
    row = PictureScores(name="a", dice=0.5, shows=(1,))
    assert (row["dice"], row["iou"], "dice" in row, "iou" in row) == (0.5, None, True, False)
    assert row.plain() == {"name": "a", "dice": 0.5, "shows": [1]}
    with pytest.raises(KeyError, match="dise"):
        row["dise"]


def test_maps_are_named_by_their_target_where_there_are_several() -> None:
    maps = tuple(OneMap(target=target, method="cam", layer="last") for target in ("x", "y"))
    assert PictureMaps(name="a", maps=maps).map_names == ["x@cam@last", "y@cam@last"]
    assert PictureMaps(name="a", maps=maps[:1]).map_names == ["cam@last"] == [maps[0].name]
    assert map_name("saliency", None) == "saliency"


def test_words_and_numbers() -> None:
    assert null_in_words("null:other_images") == "maps of other pictures"
    assert null_in_words("null:mirror-16") == "coarse mask (16 px)"
    assert null_in_words("s_dice") == "the same for the whole mask"
    assert null_in_words("mine") == "mine"
    assert [count(number, "picture") for number in (0, 1, 2)] == ["0 pictures", "1 picture", "2 pictures"]
    assert count(2000, "forward pass", "forward passes") == "2,000 forward passes"
    assert shortened("short", 5) == "short"
    assert shortened("patient_0001_slice_0042", 11) == "patie…_0042"
    assert len(shortened("patient_0001_slice_0042", 10)) == 10
    assert [formatted(value, ".1%") for value in (None, float("nan"), 0.123)] == ["—", "—", "12.3%"]


def test_a_null_whose_ratio_is_infinite_is_not_left_out():
    """A mirror with all of its mass inside is the best null there is; its ratios have no mean."""

    def measured(ratio, num, enrichment):
        return {"ratio": Spread(mean=ratio, num=num), "enrichment_log2": Spread(mean=enrichment, num=8)}

    nulls = {
        "centre": measured(26.0, 8, 2.0),
        "mirror": measured(None, 0, 4.1),
        "other_images": {"ratio": Spread(), "enrichment_log2": Spread()},
    }
    row = MapSummary(
        target="predicted",
        method="grad-cam",
        statistics=measured(193.0, 5, 4.0),
        nulls={name: {key: each.mean for key, each in found.items()} for name, found in nulls.items()},
        null_intervals=nulls,
    )
    assert row.best_null == "mirror"
    assert row.ratio_in_words("mirror") == "infinite"
    assert row.ratio_in_words() == "193.000, infinite on 3 more"
    assert row.ratio_in_words("centre") == "26.000"
    row = row.model_copy(update={"statistics": measured(398337.9, 8, 18.6)})
    assert row.ratio_in_words() == "over 1,000"
    assert row.ratio_in_words("other_images") == "-"
    assert MapSummary(target="predicted", method="mine").best_null is None

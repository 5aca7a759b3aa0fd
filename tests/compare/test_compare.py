"""Comparisons from end to end: the files, the page in a browser, and what can be wrong."""

import csv
import json
import shutil

import pytest
from tests.accessibility import violations

import seglens
from seglens.errors import DataError, OutputExistsError, SeglensWarning, SettingError


@pytest.fixture(scope="module")
def compared(evaluated, tmp_path_factory):
    place = tmp_path_factory.mktemp("made") / "fix"
    return seglens.compare([evaluated / "first", evaluated / "second"], out=place, top=2)


def test_the_differences_are_those_of_the_evaluations(compared, evaluated):
    stored = [
        json.loads((evaluated / name / "evaluate/test/scores.json").read_text())
        for name in ("first", "second")
    ]
    rows = {(row["score"], row["kind"]): row for row in compared.table["scores"]}
    dice = rows["dice", "per image"]
    assert [dice["reference"], dice["value"]] == pytest.approx(
        [one["per_image"]["dice"]["mean"] for one in stored]
    )
    pooled = rows["dice", "pooled"]
    assert [pooled["reference"], pooled["value"]] == pytest.approx([one["pooled"]["dice"] for one in stored])
    assert (compared.table["num_common"], compared.table["matched_by"]) == (4, "name and hash")


def test_files(compared):
    names = {file.name for file in compared.folder.iterdir()}
    tables = {"compare.json", "scores.csv", "images.csv", "maps.csv"}
    assert names == {"compare.html", "run.json", "differences", *tables}
    written = json.loads((compared.folder / "compare.json").read_text())
    assert written["runs"] == ["first", "second"]
    with (compared.folder / "images.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    changes = [abs(float(row["change second"])) for row in rows]
    assert changes == sorted(changes, reverse=True)


def test_what_changed_most(compared):
    change = {row["name"]: row["change"]["second"] for row in compared.table["images"]}
    found = compared.table["changed"]["second"]
    gained = sorted((value for value in change.values() if value > 0), reverse=True)[:2]
    lost = sorted(value for value in change.values() if value < 0)[:2]
    assert [row["change"] for row in found["gained"]] == gained
    assert [row["change"] for row in found["lost"]] == lost


def test_maps_are_those_that_both_have(compared):
    rows = compared.table["maps"]
    assert {(row["method"], row["layer"]) for row in rows} == {
        ("activation", "encoder_last"),
        ("activation", "decoder_last"),
    }
    assert all(0 <= row["moved"]["mean"] <= 1 and row["num"] for row in rows)


def test_settings_that_differ(compared):
    rows = {(row["step"], row["name"]): row["values"] for row in compared.table["settings"]}
    assert rows["train", "settings.augment"] == {"first": None, "second": True}
    assert ("train", "model_sha256") in rows


def test_what_is_missing_is_said_with_its_command(compared, evaluated):
    missing = [entry["command"] for entry in compared.table["missing"]]
    assert missing == [f"seglens judge {evaluated / name} --split test" for name in ("first", "second")]


def test_a_run_without_evaluation_is_compared_by_its_maps(two):
    shutil.rmtree(two / "second/evaluate")
    found = seglens.compare([two / "first", two / "second"])
    assert found.folder == two / "first/compare/second"
    assert (found.table["scores"], len(found.table["maps"])) == ((), 2)
    shutil.rmtree(two / "second/explain")
    with pytest.raises(
        DataError, match=r"nothing of the test split in common.*seglens evaluate .*second --split test"
    ):
        seglens.compare([two / "first", two / "second"], out=two / "new")
    assert not (two / "new").exists()


def _rewritten(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_out_of_fold_scores_are_found_without_being_named(two):
    for name in ("first", "second"):
        shutil.rmtree(two / name / "explain")
        (two / name / "evaluate/test").rename(two / name / "evaluate/folds")
        _rewritten(two / name / "evaluate/folds/scores.json", split="folds")
    found = seglens.compare([two / "first", two / "second"]).table
    assert (found["split"], found["num_common"]) == ("folds", 4)


def test_results_of_several_splits_are_named_where_none_is_common(two):
    shutil.rmtree(two / "second/explain")
    _rewritten(two / "second/evaluate/test/scores.json", split="folds")
    with pytest.raises(DataError, match=r"\(first has test results; second has folds results\)"):
        seglens.compare([two / "first", two / "second"])


def test_results_of_other_weights_are_left_out(two):
    _rewritten(two / "second/evaluate/test/run.json", model_sha256="0" * 64)
    with pytest.warns(SeglensWarning, match=r"second/evaluate/test is left out: .* other weights .*--epoch"):
        found = seglens.compare([two / "first", two / "second"]).table
    assert (found["scores"], len(found["maps"])) == ((), 2)
    with pytest.warns(SeglensWarning, match="is left out"):
        page = seglens.report([two / "second"], out=two / "report.html")
    assert "decoder_last" in page.read_text()


def test_an_evaluation_asked_for_otherwise_does_not_take_the_place_of_the_splits_own(two):
    expected = seglens.compare([two / "first", two / "second"]).table["scores"]
    other = shutil.copytree(two / "second/evaluate/test", two / "second/evaluate/tta")
    table = json.loads((other / "scores.json").read_text())
    for row in table["images"]:
        row["dice"] = 1.0
    (other / "scores.json").write_text(json.dumps(table))
    assert seglens.compare([two / "first", two / "second"], force=True).table["scores"] == expected


def test_commands_ask_for_the_maps_that_the_other_has(two):
    shutil.rmtree(two / "second/explain")
    missing = seglens.compare([two / "first", two / "second"]).table["missing"]
    command = next(entry["command"] for entry in missing if entry["verb"] == "explain")
    assert command.endswith("--split test --methods activation --layers encoder_last decoder_last")


def test_other_data_are_evaluated_by_all(two):
    for name in ("first", "second"):
        shutil.rmtree(two / name / "evaluate")
    runs = [two / "first", two / "second"]
    found = seglens.compare(runs, data=two / "set", split="test", out=two / "new", device="cpu")
    assert found.table["num_common"] == 4
    assert (two / "new/evaluate/second/scores.json").is_file()
    assert not (two / "first/evaluate").exists()


def test_scorecards_side_by_side(two):
    for name, verdict in (("first", "pass"), ("second", "fail")):
        rows = [
            {
                "target": "predicted",
                "method": "m",
                "layer": None,
                "score": score,
                "value": 1.0,
                "verdict": told,
            }
            for score, told in (("attention", "warn"), ("faithfulness", verdict))
        ]
        folder = two / name / "judge/test"
        folder.mkdir(parents=True)
        (folder / "scorecard.json").write_text(json.dumps({"num_images": 4, "rows": rows}))
    found = seglens.compare([two / "first", two / "second"]).table
    assert [(row["score"], row["changed"]) for row in found["scorecard"]] == [
        ("faithfulness", True),
        ("attention", False),
    ]
    assert found["judged_same_pictures"] is None


def test_three_runs(two):
    shutil.copytree(two / "second", two / "third")
    found = seglens.compare([two / name for name in ("first", "second", "third")])
    assert found.folder.name == "second-third"
    by_run = {run: [r for r in found.table["scores"] if r["run"] == run] for run in ("second", "third")}
    same = [[{**row.plain(), "run": ""} for row in rows] for rows in by_run.values()]
    assert json.dumps(same[0]) == json.dumps(same[1])


@pytest.mark.parametrize(
    ("names", "settings", "error", "text"),
    [
        (["first"], {}, SettingError, "at least two runs, received 1"),
        (["first", "first"], {}, SettingError, "given twice"),
        (["first", "nowhere"], {}, DataError, "nowhere is not a run folder"),
        (["first", "second"], {"top": 0}, SettingError, "top must be at least 1, received 0"),
        (["first", "second"], {"split": "valid"}, DataError, "nothing of the valid split"),
    ],
)
def test_what_can_be_wrong(evaluated, tmp_path, names, settings, error, text):
    with pytest.raises(error, match=text):
        seglens.compare([evaluated / name for name in names], out=tmp_path / "new", **settings)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(two):
    runs = [two / "first", two / "second"]
    seglens.compare(runs)
    with pytest.raises(OutputExistsError, match="exists already"):
        seglens.compare(runs)
    assert seglens.compare(runs, force=True).page.is_file()


def test_evaluations_of_other_pictures_are_refused(two):
    file = two / "second/evaluate/test/scores.json"
    table = json.loads(file.read_text())
    for row in table["images"]:
        row["image_hash"] = "0" * 16
    file.write_text(json.dumps(table))
    with pytest.raises(DataError, match=r"no picture of the test split in common: another picture.*--data"):
        seglens.compare([two / "first", two / "second"])


def test_the_page_is_silent_and_works(compared, chromium):
    page = chromium.open(compared.page)
    assert page.locator("h1").inner_text() == "second against first"
    assert page.locator("#scores tbody tr").count() == len(compared.table["scores"])
    shown = page.locator("article.card").count()
    assert page.locator("#shown").inner_text() == f"{shown} of {shown} pictures"
    page.select_option("#kind", index=1)
    chosen = page.locator("#kind").input_value()
    assert page.locator(".map-row:visible").evaluate_all(
        "rows => [...new Set(rows.map(r => r.dataset.kind))]"
    ) == [chosen]
    page.locator("#pictures summary").click()
    page.locator("th button", has_text="Change in second").click()
    values = page.locator(".sortable tbody td:last-child").all_inner_texts()
    assert values == sorted(values, key=float, reverse=True)
    page.locator(".card .zoom").first.focus()
    page.keyboard.press("Enter")
    first = page.locator("dialog.large img").get_attribute("alt")
    page.keyboard.press("ArrowRight")
    assert page.locator("dialog.large img").get_attribute("alt") != first
    page.keyboard.press("Escape")
    assert not page.locator("dialog.large").evaluate("dialog => dialog.open")
    assert (chromium.console, chromium.requests, chromium.dialogs) == ([], [], [])


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_keeps_people_from_using_the_page(compared, chromium_like, dark: bool):
    page = chromium_like(dark=dark).open(compared.page)
    page.wait_for_selector("#sidebyside .zoom")
    assert violations(page) == []
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    page.locator(".card .zoom").first.click()
    page.wait_for_selector("dialog.large img")
    assert violations(page) == []


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_a_phone(compared, chromium_like, dark):
    watched = chromium_like(width=390, height=844, dark=dark)
    page = watched.open(compared.page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert (watched.console, watched.requests) == ([], [])

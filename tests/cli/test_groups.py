"""``--groups`` and ``--group-from``: from the command line into records, reports and comparisons."""

import json

import pytest


@pytest.fixture
def table(tmp_path, small_set):
    names = sorted(file.name for file in small_set.rglob("images/*.png"))
    rows = [f"{name},{name.split('-')[0]}-{int(name.split('-')[1][0]) // 2}" for name in names]
    file = tmp_path / "patients.csv"
    file.write_text("\n".join(["image,group", *rows]))
    return file


def test_an_evaluation_says_what_it_resamples(seglens, small_run, table):
    ended = seglens("evaluate", small_run, "--groups", table)
    assert (ended.code, ended.err) == (0, "")
    assert "Intervals resample 2 groups of 3 pictures: the groups of patients.csv." in ended.out
    scores = json.loads((small_run / "evaluate/test/scores.json").read_text())
    assert scores["resampling"] == {"by": "table", "source": "patients.csv", "num_groups": 2, "num_images": 3}
    assert {row["name"]: row["group"] for row in scores["images"]} == {
        "test-0": "test-0",
        "test-1": "test-0",
        "test-2": "test-1",
    }
    assert scores["per_image"]["dice"]["num_groups"] == 2
    ended = seglens("report", small_run)
    assert ended.code == 0
    page = (small_run / "report.html").read_text()
    assert "Intervals resample 2 groups of 3 pictures: the groups of patients.csv." in page
    ended = seglens(
        "judge", small_run, "--groups", table, "--scores", "attention", "--layers", "decoder_last"
    )
    assert (ended.code, ended.err) == (0, "")
    card = json.loads((small_run / "judge/test/scorecard.json").read_text())
    assert card["resampling"]["num_groups"] == 2
    ended = seglens("explain", small_run, "--group-from", r"^([a-z]+)-", "--layers", "decoder_last")
    assert (ended.code, ended.err) == (0, "")
    maps = json.loads((small_run / "explain/test/explanations.json").read_text())
    assert maps["resampling"]["num_groups"] == 1
    assert maps["summary"][0]["statistics"]["ratio"]["low"] is None


def test_where_nobody_says_anything_that_is_said(seglens, small_run):
    ended = seglens("evaluate", small_run)
    assert "If several are of one patient or slide, say so with --groups or --group-from." in ended.out


def test_groups_go_into_the_record_of_a_training(seglens, small_set, tmp_path, table):
    run = tmp_path / "run"
    ended = seglens(
        *("train", small_set, "--run", run, "--model", "unet", "--width", 4, "--epochs", 1),
        *("--image-size", 32, "--groups", table),
    )
    assert ended.code == 0
    assert json.loads((run / "run.json").read_text())["data"]["groups"] == str(table)
    assert "the groups of patients.csv" in seglens("evaluate", run).out
    table.unlink()
    ended = seglens("evaluate", run, "--force")
    assert ended.code == 2
    assert f"There is no file {table}" in ended.err


def test_a_leak_is_an_error_of_the_check(seglens, small_set):
    ended = seglens("data", "check", small_set, "--group-from", "(-.)")
    assert ended.code == 1
    assert "Groups are in several splits" in ended.out


def test_what_does_nothing_is_refused(seglens, small_run, small_set, table):
    ended = seglens("compare", small_run, small_run, "--groups", table)
    assert ended.code == 2
    assert "without --data the groups are those of the evaluations" in ended.err
    picture = next(small_set.rglob("images/*.png"))
    ended = seglens("explain", small_run, picture, "--groups", table)
    assert ended.code == 2
    assert "the pictures are named themselves" in ended.err
    ended = seglens("judge", small_run, "--groups", f"{table}:group")
    assert ended.code == 2
    assert "Name its regions with --audit" in ended.err


def test_further_columns_are_strata(seglens, small_run, table):
    """Of three pictures; what differs and what leaks is tested in tests/evaluate/test_strata.py."""
    lines = table.read_text().splitlines()
    table.write_text(
        "\n".join([f"{lines[0]},site", *(f"{line},{'ab'[i % 2]}" for i, line in enumerate(lines[1:]))])
    )
    ended = seglens("evaluate", small_run, "--groups", table)
    assert (ended.code, ended.err) == (0, "")
    assert "Subgroups, per image, the worst first" in ended.out
    file = small_run / "evaluate/test/scores.json"
    scores = json.loads(file.read_text())
    assert {row["value"]: row["num"] for row in scores["strata"]["strata"]} == {"a": 2, "b": 1} or {
        row["value"]: row["num"] for row in scores["strata"]["strata"]
    } == {"a": 1, "b": 2}
    assert scores["strata"]["comparisons"] == 0
    assert "Strata: pictures that share a value in a column" in scores["definitions"]["strata"]
    # What gives a stratum away is audited first, and every audit is divided by the strata.
    leak = {
        "column": "site",
        "value": "b",
        "place": "background",
        "tells": True,
        "auroc": {"mean": 0.9, "num": 3},
    }
    scores["strata"]["leaks"] = [leak]
    file.write_text(json.dumps(scores))
    ended = seglens(
        *("judge", small_run, "--groups", table, "--scores", "attention", "--layers", "decoder_last"),
        *("--audit", "auto"),
    )
    assert (ended.code, ended.err) == (0, "")
    audit = json.loads((small_run / "judge/test/audit.json").read_text())
    assert [row["region"] for row in audit["regions"]] == ["marks", "clipped", "border", "corners"]
    assert {row["group"] for row in audit["groups"]} == {"site: a", "site: b"}
    assert seglens("report", small_run).code == 0
    page = (small_run / "report.html").read_text()
    assert "site: a" in page
    assert "Look there first: --audit auto" in page

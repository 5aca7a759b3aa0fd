import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.arrays import arrays_of
from tests.folder.discs import TASK, read, size_of, split_of, table_of
from tests.pages import album_of

import seglens
from seglens.data.layout import Split
from seglens.errors import DataError, OutputExistsError, SettingError, UnknownNameError
from seglens.explain.statistics import DEFINITIONS
from seglens.folder import Summary, explain_folder, heatmaps, judge_folder, predict_files
from seglens.runs import Run


def test_explain_folder_writes_all_that_it_promises(run: Run, folder: Path):
    out = folder / "out"
    done = seglens.explain_folder(
        run, split_of(folder), out=out, methods=("grad-cam", "activation", "integrated-gradients"),
        layers=("body", "head"), batch_size=2,
    )  # fmt: skip
    assert replace(done, maps=None) == Summary(out, 5)
    table = table_of(out / "explanations.json")
    assert done.maps is not None
    assert [row.label for row in done.maps.summary] == [row["label"] for row in table["summary"]]
    assert [row.name for row in done.maps.samples] == [row["name"] for row in table["samples"]]
    assert [row["name"] for row in table["samples"]] == ["0", "1", "2", "3", "4"]
    assert table["split"] == "test"
    assert table["layers"] == ["body", "head"]
    assert len(table["summary"]) == 5
    for row in table["samples"]:
        native = size_of(folder / "images" / f"{row['name']}.png")
        for name in ("orig", "gt", "pred", "overlay"):
            assert size_of(out / row["files"][name]) == native
        assert all(size_of(out / entry["file"]) == native for entry in row["maps"])
        assert {sheet["title"] for sheet in row["sheets"]} == {
            "methods@body", "methods@head", "layers@grad-cam", "layers@activation",
        } | {
            f"channels@{entry['method']}" for entry in row["maps"]
            if entry["method"] == "integrated-gradients" and entry["status"] == "ok"
        }  # fmt: skip
        assert all((out / sheet["file"]).is_file() for sheet in row["sheets"])
        raw = arrays_of(out / row["files"]["raw"])
        assert raw["map:grad-cam@body"].shape == native[::-1]
        assert raw["map:grad-cam@body"].dtype == np.float32
        assert raw["grid:grad-cam@body"].shape == (32, 32)
        assert raw["channels:integrated-gradients"].shape == (3, 64, 64)
        assert table_of(out / "samples" / row["name"] / "explanation.json") == row
    record = table_of(out / "run.json")
    assert (record["kind"], record["state"], record["seed"]) == ("explain", "finished", 0)
    assert record["results"] == {"num_images": 5, "num_failed": 0}


def test_numbers_are_those_of_the_functions(run: Run, folder: Path):
    split = split_of(folder)
    out = explain_folder(run, split, out=folder / "out", layers=("body",), samples=(1,)).folder
    row = table_of(out / "explanations.json")["samples"][0]
    sample = split[1]  # 64 x 64: the input grid itself
    assert sample.mask is not None
    images = sample.image[None]
    target = seglens.targets.predicted(run, images)
    made = seglens.explain(run, images, target, methods=("grad-cam",), layers=("body",))["grad-cam", "body"]
    expected = seglens.statistics(made, predicted=run.predict(images).mask == 1)
    found = row["maps"][0]["statistics"]
    assert set(found) == set(DEFINITIONS)
    assert found["ratio"] == pytest.approx(float(expected["ratio"]))
    assert found["prediction_ratio"] == pytest.approx(float(target.pixels.float().mean()))
    said, true = run.predict(images).mask[0] == 1, sample.mask == 1
    assert row["dice"] == pytest.approx(float(2 * (said & true).sum() / (said.sum() + true.sum())))
    assert arrays_of(out / row["files"]["raw"])["map:grad-cam@body"] == pytest.approx(made.map[0].numpy())
    assert row["maps"][0]["nulls"]["other_images"]["ratio"] is None  # There is no other picture.
    assert row["maps"][0]["nulls"]["randomised_model"]["ratio"] is not None


def test_summary_is_the_mean_over_pictures(run: Run, folder: Path):
    out = explain_folder(run, split_of(folder), out=folder / "out", layers=("body",), batch_size=2).folder
    table = table_of(out / "explanations.json")
    ratios = [row["maps"][0]["statistics"]["ratio"] for row in table["samples"]]
    summary = table["summary"][0]
    assert summary["statistics"]["ratio"]["mean"] == pytest.approx(np.mean(ratios))
    assert (summary["num_ok"], summary["num_total"]) == (5, 5)
    assert set(summary["nulls"]) == {
        "mirror",
        "centre",
        "edges",
        "random",
        "other_images",
        "randomised_model",
    }
    assert set(summary["statistics"]) == set(DEFINITIONS)
    with (out / "table.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["ratio"]) for row in rows] == pytest.approx(ratios, rel=1e-4)
    assert rows[0]["ratio (mirror)"]


def test_chunks_do_not_change_the_maps(run: Run, folder: Path):
    maps = []
    for size in (2, 16):
        place = folder / str(size)
        explain_folder(run, split_of(folder), out=place, layers=("body",), batch_size=size)
        maps.append([arrays_of(file)["map:grad-cam@body"] for file in sorted(place.rglob("maps.npz"))])
    assert len(maps[0]) == 5
    for one, other in zip(*maps, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_a_broken_picture_is_listed_and_the_rest_is_done(run: Run, folder: Path):
    whole = (folder / "images" / "1.png").read_bytes()
    (folder / "images" / "1.png").write_bytes(whole[: len(whole) // 2])
    (folder / "images" / "=cmd.png").write_bytes(b"nothing")
    files = sorted((folder / "images").glob("*.png"))
    done = seglens.explain_folder(run, files, out=folder / "out", layers=("body",), batch_size=2)
    assert done.num_done == 4
    assert [failure.name for failure in done.failed] == ["1", "_cmd"]
    rows = table_of(done.folder / "explanations.json")["samples"]
    assert [row["status"] for row in rows] == ["ok"] * 4 + ["failed"] * 2
    assert "1.png" in rows[4]["error"]
    assert (done.folder / "table.csv").read_text().count("failed") == 2
    assert table_of(done.folder / "run.json")["results"] == {"num_images": 4, "num_failed": 2}
    assert table_of(done.folder / "explanations.json")["split"] is None


def test_nothing_is_left_where_nothing_could_be_done(run: Run, folder: Path):
    (folder / "bad.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"0 of 1 picture could be done. The first: .*bad.png"):
        explain_folder(run, [folder / "bad.png"], out=folder / "out", layers=("body",))
    with pytest.raises(DataError, match=r"0 of 1 picture"):
        predict_files(run, [folder / "bad.png"], out=folder / "out")
    assert not [path for path in folder.iterdir() if "out" in path.name]


@pytest.mark.parametrize("target", ["truth", "component:1", "point:20,20", "false-negative"])
def test_targets_of_the_command_line(run: Run, folder: Path, target: str):
    done = explain_folder(run, split_of(folder), out=folder / "out", layers=("body",), target=target)
    table = table_of(done.folder / "explanations.json")
    assert table["targets"] == [target]
    assert {row["maps"][0]["target"] for row in table["samples"]} == {target}


def test_a_picture_without_target_is_said_to_have_none(run: Run, folder: Path):
    done = explain_folder(run, split_of(folder), out=folder / "out", layers=("body",), target="component:2")
    table = table_of(done.folder / "explanations.json")
    assert {row["maps"][0]["status"] for row in table["samples"]} == {"no_target"}
    assert table["summary"][0]["num_no_target"] == 5
    assert table["samples"][0]["maps"][0]["statistics"]["ratio"] is None


def test_truth_needs_masks(run: Run, folder: Path):
    split = split_of(folder, masks=False)
    with pytest.raises(SettingError, match="needs the truth, but the images have no masks"):
        explain_folder(run, split, out=folder / "out", layers=("body",), target="truth")
    entries = (*split_of(folder).entries[:4], split.entries[4])
    mixed = Split(name="test", task=TASK, entries=entries, reader=read)
    done = explain_folder(run, mixed, out=folder / "out", layers=("body",), target="truth")
    assert [failure.error for failure in done.failed] == [
        "The picture has no mask, which target 'truth' needs."
    ]
    done = explain_folder(run, mixed, out=folder / "out", layers=("body",), force=True)
    assert done.num_done == 5


def test_wrong_settings_leave_nothing_behind(run: Run, folder: Path):
    split, out = split_of(folder), folder / "out"
    with pytest.raises(UnknownNameError, match=r"Unknown method 'grad-kam'. Did you mean 'grad-cam'"):
        explain_folder(run, split, out=out, methods=("grad-kam",))
    with pytest.raises(UnknownNameError, match="layer"):
        explain_folder(run, split, out=out, layers=("nowhere",))
    with pytest.raises(UnknownNameError, match=r"Unknown target 'predikted'. Did you mean 'predicted'"):
        explain_folder(run, split, out=out, layers=("body",), target="predikted")
    with pytest.raises(UnknownNameError, match="Unknown class 'cat'"):
        explain_folder(run, split, out=out, class_name="cat")
    with pytest.raises(SettingError, match="no pictures"):
        explain_folder(run, [], out=out)
    with pytest.raises(SettingError, match="no folder to explain into"):
        explain_folder(run, split)
    with pytest.raises(SettingError, match="batch_size is 0, but must be from 1 to"):
        explain_folder(run, split, out=out, batch_size=0)
    assert not [path for path in folder.iterdir() if "out" in path.name]


def test_results_are_kept_without_force(run: Run, folder: Path):
    (folder / "out").mkdir()
    (folder / "out" / "mine.txt").write_text("mine")
    for work in (explain_folder, judge_folder, predict_files):
        for force in (False, True):
            with pytest.raises(OutputExistsError, match="never replaced, --force or not"):
                work(run, split_of(folder), out=folder / "out", force=force)
    assert (folder / "out" / "mine.txt").read_text() == "mine"


def test_large_pictures_are_drawn_smaller(monkeypatch: pytest.MonkeyPatch, run: Run, folder: Path):
    monkeypatch.setattr(heatmaps, "DRAWN", 28)
    done = explain_folder(run, split_of(folder), out=folder / "out", layers=("body",), samples=(0,))
    row = table_of(done.folder / "explanations.json")["samples"][0]
    assert all(size_of(done.folder / row["files"][name]) == (28, 20) for name in ("orig", "gt", "overlay"))
    assert size_of(done.folder / row["maps"][0]["file"]) == (28, 20)
    assert arrays_of(done.folder / row["files"]["raw"])["map:grad-cam@body"].shape == (40, 56)


def test_report_shows_what_explain_folder_wrote(run: Run, folder: Path):
    done = explain_folder(run, split_of(folder), out=folder / "maps", layers=("body", "head"))
    page = seglens.report([done.folder], out=folder / "report.html")
    cards = album_of(page)["cards"]
    assert [len(card["maps"]) for card in cards] == [2] * 5
    made = {(entry["method"], entry["layer"]) for card in cards for entry in card["maps"]}
    assert made == {("grad-cam", "body"), ("grad-cam", "head")}

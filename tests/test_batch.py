import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import seglens
from seglens import batch
from seglens.batch import chunks, heats, ledger
from seglens.data.images import read_image
from seglens.data.layout import Entry, Split
from seglens.data.sample import Sample, Task
from seglens.errors import DataError, OutputExistsError, SettingError, UnknownNameError
from seglens.explain.statistics import DEFINITIONS
from seglens.runs import Run

SIZES = ((40, 56), (64, 64), (80, 30))
TASK = Task(classes=("background", "disc"))


class Bright(nn.Module):
    """Says disc where the picture is bright: a network whose answers are known beforehand."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3, padding=1, stride=2)
        self.head = nn.Conv2d(4, 1, 1)
        values = {"body.weight": 1 / 27, "body.bias": 0.0, "head.weight": 5.0, "head.bias": -10.0}
        for name, parameter in self.named_parameters():
            nn.init.constant_(parameter, values[name])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        grid = self.head(torch.relu(self.body(images)))
        return nn.functional.interpolate(grid, scale_factor=2.0, mode="bilinear", align_corners=False)


@pytest.fixture
def run() -> Run:
    torch.manual_seed(0)
    return seglens.wrap(Bright(), classes=TASK.classes, mean=(0.0,) * 3, std=(1.0,) * 3, image_size=64)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Bright discs on dark ground, pictures of several sizes, with their masks."""
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for i in range(5):
        rows, columns = SIZES[i % 3]
        y, x = np.mgrid[:rows, :columns]
        disc = (y - rows / 2) ** 2 + (x - columns / 2 + i) ** 2 < (8 + i) ** 2
        image = np.where(disc, 250, 10).astype(np.uint8)
        Image.fromarray(np.stack([image] * 3, -1)).save(tmp_path / "images" / f"{i}.png")
        Image.fromarray(disc.astype(np.uint8)).save(tmp_path / "masks" / f"{i}.png")
    return tmp_path


def size_of(file: Path) -> tuple[int, int]:
    with Image.open(file) as opened:
        return opened.size


def values_of(file: Path) -> np.ndarray:
    with Image.open(file) as opened:
        return np.asarray(opened)


def read(entry: Entry) -> Sample:
    image = read_image(entry.image, 3)
    mask = torch.from_numpy(values_of(entry.masks[0]).astype(np.int64)) if entry.masks else None
    return Sample(entry.name, image, mask, torch.ones(image.shape[1:], dtype=torch.bool))


def split_of(folder: Path, *, masks: bool = True) -> Split:
    files = sorted((folder / "images").glob("*.png"))
    entries = tuple(
        Entry(file.stem, file, (folder / "masks" / file.name,) if masks else (), labelled=masks)
        for file in files
    )
    return Split(name="test", task=TASK, entries=entries, reader=read)


def table_of(file: Path) -> dict:
    return json.loads(file.read_text("utf-8"))


def test_explain_folder_writes_all_that_it_promises(run: Run, folder: Path):
    out = folder / "out"
    done = seglens.explain_folder(
        run, split_of(folder), out=out, methods=("grad-cam", "activation", "integrated-gradients"),
        layers=("body", "head"), chunk=2,
    )  # fmt: skip
    assert done == batch.Summary(out, 5)
    table = table_of(out / "explanations.json")
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
        }  # fmt: skip
        assert all((out / sheet["file"]).is_file() for sheet in row["sheets"])
        raw = np.load(out / row["files"]["raw"])
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
    out = batch.explain_folder(run, split, out=folder / "out", layers=("body",), samples=(1,)).folder
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
    assert np.load(out / row["files"]["raw"])["map:grad-cam@body"] == pytest.approx(made.map[0].numpy())
    assert row["maps"][0]["nulls"]["other_images"]["ratio"] is None  # There is no other picture.
    assert row["maps"][0]["nulls"]["randomised_model"]["ratio"] is not None


def test_summary_is_the_mean_over_pictures(run: Run, folder: Path):
    out = batch.explain_folder(run, split_of(folder), out=folder / "out", layers=("body",), chunk=2).folder
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
        batch.explain_folder(run, split_of(folder), out=place, layers=("body",), chunk=size)
        maps.append([np.load(file)["map:grad-cam@body"] for file in sorted(place.rglob("maps.npz"))])
    assert len(maps[0]) == 5
    for one, other in zip(*maps, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_a_broken_picture_is_listed_and_the_rest_is_done(run: Run, folder: Path):
    whole = (folder / "images" / "1.png").read_bytes()
    (folder / "images" / "1.png").write_bytes(whole[: len(whole) // 2])
    (folder / "images" / "=cmd.png").write_bytes(b"nothing")
    files = sorted((folder / "images").glob("*.png"))
    done = seglens.explain_folder(run, files, out=folder / "out", layers=("body",), chunk=2)
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
    with pytest.raises(DataError, match=r"None of the 1 pictures could be done. The first: .*bad.png"):
        batch.explain_folder(run, [folder / "bad.png"], out=folder / "out", layers=("body",))
    with pytest.raises(DataError, match=r"None of the 1 pictures"):
        batch.predict_files(run, [folder / "bad.png"], out=folder / "out")
    assert not [path for path in folder.iterdir() if "out" in path.name]


def test_names_stay_apart_and_inside_of_the_folder(run: Run, folder: Path):
    for place in ("a", "b"):
        (folder / place).mkdir()
        Image.new("RGB", (64, 64), "white").save(folder / place / "x y.png")
    files = [folder / "a" / "x y.png", folder / "b" / "x y.png"]
    done = batch.predict_files(run, files, out=folder / "out")
    assert {file.name for file in (done.folder / "masks").iterdir()} == {"x_y.png", "x_y-2.png"}


@pytest.mark.parametrize("target", ["truth", "component:1", "point:20,20", "false-negative"])
def test_targets_of_the_command_line(run: Run, folder: Path, target: str):
    done = batch.explain_folder(run, split_of(folder), out=folder / "out", layers=("body",), target=target)
    table = table_of(done.folder / "explanations.json")
    assert table["targets"] == [target]
    assert {row["maps"][0]["target"] for row in table["samples"]} == {target}


def test_a_picture_without_target_is_said_to_have_none(run: Run, folder: Path):
    done = batch.explain_folder(
        run, split_of(folder), out=folder / "out", layers=("body",), target="component:2"
    )
    table = table_of(done.folder / "explanations.json")
    assert {row["maps"][0]["status"] for row in table["samples"]} == {"no_target"}
    assert table["summary"][0]["num_no_target"] == 5
    assert table["samples"][0]["maps"][0]["statistics"]["ratio"] is None


def test_truth_needs_masks(run: Run, folder: Path):
    split = split_of(folder, masks=False)
    with pytest.raises(SettingError, match="needs the truth, but the images have no masks"):
        batch.explain_folder(run, split, out=folder / "out", layers=("body",), target="truth")
    entries = (*split_of(folder).entries[:4], split.entries[4])
    mixed = Split(name="test", task=TASK, entries=entries, reader=read)
    done = batch.explain_folder(run, mixed, out=folder / "out", layers=("body",), target="truth")
    assert [failure.error for failure in done.failed] == [
        "The picture has no mask, which target 'truth' needs."
    ]
    done = batch.explain_folder(run, mixed, out=folder / "out", layers=("body",), force=True)
    assert done.num_done == 5


def test_samples_are_chosen(folder: Path):
    split = split_of(folder)
    assert [entry.name for entry in chunks.choose(split, (3, 0, 3), None).entries] == ["3", "0"]
    assert [entry.name for entry in chunks.choose(split, None, 2).entries] == ["0", "2"]
    assert len(chunks.choose(split, None, 99)) == 5
    with pytest.raises(SettingError, match="There is no sample 7 in 'test', which has samples 0 to 4"):
        chunks.choose(split, (7,), None)
    with pytest.raises(SettingError, match="not both"):
        chunks.choose(split, (1,), 1)
    with pytest.raises(SettingError, match="at least 1, received 0"):
        chunks.choose(split, None, 0)


@pytest.mark.parametrize(
    ("num", "most", "sizes"), [(5, 2, [1, 2, 2]), (17, 16, [8, 9]), (4, 4, [4]), (3, 9, [3])]
)
def test_chunks_are_even(num: int, most: int, sizes: list[int]):
    assert chunks.even_sizes(num, most) == sizes


def test_wrong_settings_leave_nothing_behind(run: Run, folder: Path):
    split, out = split_of(folder), folder / "out"
    with pytest.raises(UnknownNameError, match=r"Unknown method 'grad-kam'. Did you mean 'grad-cam'"):
        batch.explain_folder(run, split, out=out, methods=("grad-kam",))
    with pytest.raises(UnknownNameError, match="layer"):
        batch.explain_folder(run, split, out=out, layers=("nowhere",))
    with pytest.raises(UnknownNameError, match=r"Unknown target 'predikted'. Did you mean 'predicted'"):
        batch.explain_folder(run, split, out=out, layers=("body",), target="predikted")
    with pytest.raises(UnknownNameError, match="Unknown class 'cat'"):
        batch.explain_folder(run, split, out=out, class_name="cat")
    with pytest.raises(SettingError, match="no pictures"):
        batch.explain_folder(run, [], out=out)
    with pytest.raises(SettingError, match="no folder to explain into"):
        batch.explain_folder(run, split)
    with pytest.raises(SettingError, match="at least 1 picture, received 0"):
        batch.explain_folder(run, split, out=out, chunk=0)
    assert not [path for path in folder.iterdir() if "out" in path.name]


def test_results_are_kept_without_force(run: Run, folder: Path):
    (folder / "out").mkdir()
    (folder / "out" / "mine.txt").write_text("mine")
    for work in (batch.explain_folder, batch.judge_folder, batch.predict_files):
        with pytest.raises(OutputExistsError, match="--force"):
            work(run, split_of(folder), out=folder / "out")
    assert (folder / "out" / "mine.txt").read_text() == "mine"


def test_judge_folder_gives_the_card_of_judge(run: Run, folder: Path):
    square = Split(name="test", task=TASK, entries=split_of(folder).entries[1:2], reader=read)
    done = batch.judge_folder(run, square, out=folder / "out", layers=("body",), seed=3)
    table = table_of(done.folder / "scorecard.json")
    images = square[0].image[None]
    target = seglens.targets.predicted(run, images)
    maps = seglens.explain(run, images, target, methods=("grad-cam",), layers=("body",), seed=3)
    rows = seglens.judge(run, images, target, maps, seed=3).to_json()["rows"]
    assert [row["score"] for row in table["rows"]] == [row["score"] for row in rows]
    for row, expected in zip(table["rows"], rows, strict=True):
        value = expected["value"]
        assert row["value"] is None if value != value else row["value"] == pytest.approx(value, rel=1e-4)
    assert (done.folder / "scorecard.csv").read_text().startswith("target,method,layer,score")
    assert table_of(done.folder / "run.json")["kind"] == "judge"


def test_judge_folder_survives_broken_pictures(run: Run, folder: Path):
    (folder / "images" / "0.png").write_bytes(b"")
    done = batch.judge_folder(
        run, split_of(folder), out=folder / "out", layers=("body",), num_images=2, chunk=1
    )
    assert done.num_done == 1
    assert table_of(done.folder / "scorecard.json")["failed"][0]["name"] == "0"


def test_predict_files_at_native_size(run: Run, folder: Path):
    files = sorted((folder / "images").glob("*.png"))
    done = seglens.predict_files(run, files, out=folder / "out", chunk=2)
    with (done.folder / "table.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 5
    for file, row in zip(files, rows, strict=True):
        mask = values_of(done.folder / row["mask"])
        truth = values_of(folder / "masks" / file.name)
        assert mask.shape == truth.shape == (int(row["height"]), int(row["width"]))
        assert set(np.unique(mask)) <= {0, 1}
        assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.8
        assert int(row["disc pixels"]) == mask.sum()
        assert size_of(done.folder / row["overlay"]) == size_of(file)


def test_large_pictures_are_drawn_smaller(monkeypatch: pytest.MonkeyPatch, run: Run, folder: Path):
    monkeypatch.setattr(heats, "DRAWN", 28)
    done = batch.explain_folder(run, split_of(folder), out=folder / "out", layers=("body",), samples=(0,))
    row = table_of(done.folder / "explanations.json")["samples"][0]
    assert all(size_of(done.folder / row["files"][name]) == (28, 20) for name in ("orig", "gt", "overlay"))
    assert size_of(done.folder / row["maps"][0]["file"]) == (28, 20)
    assert np.load(done.folder / row["files"]["raw"])["map:grad-cam@body"].shape == (40, 56)


def test_report_shows_what_explain_folder_wrote(run: Run, folder: Path):
    done = batch.explain_folder(run, split_of(folder), out=folder / "maps", layers=("body", "head"))
    page = seglens.report([done.folder], out=folder / "report.html").read_text("utf-8")
    assert page.count('<figure class="heat"') == 10
    assert "grad-cam @ body" in page


def test_tables_defuse_formulas(tmp_path: Path):
    ledger.write_table(
        [{"name": "=1+1", "dice": float("nan")}, {"name": "b", "error": "x"}], tmp_path / "t.csv"
    )
    assert (tmp_path / "t.csv").read_text() == "name,dice,error\n'=1+1,,\nb,,x\n"

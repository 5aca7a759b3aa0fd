import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.folder.discs import TASK, read, size_of, split_of, table_of, values_of

import seglens
from seglens.data.layout import Split
from seglens.errors import SettingError
from seglens.folder import chunks, judge_folder, predict_files
from seglens.results.tables import write_rows
from seglens.runs import Run


def test_names_stay_apart_and_inside_of_the_folder(run: Run, folder: Path):
    for place in ("a", "b"):
        (folder / place).mkdir()
        Image.new("RGB", (64, 64), "white").save(folder / place / "x y.png")
    files = [folder / "a" / "x y.png", folder / "b" / "x y.png"]
    done = predict_files(run, files, out=folder / "out")
    assert {file.name for file in (done.folder / "masks").iterdir()} == {"x_y.png", "x_y-2.png"}


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


def test_judge_folder_gives_the_card_of_judge(run: Run, folder: Path):
    square = Split(name="test", task=TASK, entries=split_of(folder).entries[1:2], reader=read)
    done = judge_folder(run, square, out=folder / "out", layers=("body",), seed=3)
    table = table_of(done.folder / "scorecard.json")
    images = square[0].image[None]
    target = seglens.targets.predicted(run, images)
    maps = seglens.explain(run, images, target, methods=("grad-cam",), layers=("body",), seed=3)
    rows = seglens.judge(run, images, target, maps, seed=3).table.rows
    assert [row["score"] for row in table["rows"]] == [row["score"] for row in rows]
    for row, expected in zip(table["rows"], rows, strict=True):
        value = expected["value"]
        assert row["value"] is None if value != value else row["value"] == pytest.approx(value, rel=1e-4)
    assert (done.folder / "scorecard.csv").read_text().startswith("target,method,layer,score")
    assert table_of(done.folder / "run.json")["kind"] == "judge"


def test_judge_folder_survives_broken_pictures(run: Run, folder: Path):
    (folder / "images" / "0.png").write_bytes(b"")
    done = judge_folder(
        run, split_of(folder), out=folder / "out", layers=("body",), num_images=2, batch_size=1
    )
    assert done.num_done == 1
    assert table_of(done.folder / "scorecard.json")["failed"][0]["name"] == "0"


def test_predict_files_at_native_size(run: Run, folder: Path):
    files = sorted((folder / "images").glob("*.png"))
    done = seglens.predict_files(run, files, out=folder / "out", batch_size=2)
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


def test_tables_defuse_formulas(tmp_path: Path):
    write_rows([{"name": "=1+1", "dice": float("nan")}, {"name": "b", "error": "x"}], tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == "name,dice,error\n'=1+1,,\nb,,x\n"

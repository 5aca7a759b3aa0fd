"""Objects of predictions: numbers, sizes and centroids by hand, in pixels and in mm of the patient."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from tests.folder.discs import values_of

import seglens
from seglens.data.sample import Sample, Task
from seglens.data.volumes.grid import Grid
from seglens.data.volumes.reading import read_volume
from seglens.errors import SettingError
from seglens.folder.objects import Row, number_objects
from seglens.folder.objects import write_objects as write_numbered
from seglens.runs import Run

TASK = Task(classes=("background", "a", "b"))


def sample_of(size: tuple[int, ...], grid: Grid | None = None) -> Sample:
    return Sample("one", torch.zeros(1, *size), None, torch.ones(size, dtype=torch.bool), grid)


def write_objects(
    task: Task, sample: Sample, mask: Any, probabilities: Any, folder: Path, name: str
) -> list[Row]:
    numbered = number_objects(task, sample, mask, probabilities)
    write_numbered(numbered, sample, folder, name)
    return numbered.rows


def test_objects_of_a_picture_by_hand(tmp_path: Path) -> None:
    mask = torch.zeros(10, 12, dtype=torch.int64)
    mask[1, 2:4], mask[5:8, 6:9], mask[0, 11] = 1, 1, 2
    probabilities = torch.full((3, 10, 12), 0.25)
    probabilities[1, 1, 2], probabilities[1, 1, 3], probabilities[2, 0, 11] = 0.5, 0.75, 0.875
    rows = write_objects(TASK, sample_of((10, 12)), mask, probabilities, tmp_path, "one")
    assert rows == [
        {"name": "one", "class": "a", "number": 1, "pixels": 9, "x": 7, "y": 6, "probability": 0.25},
        {"name": "one", "class": "a", "number": 2, "pixels": 2, "x": 2.5, "y": 1, "probability": 0.625},
        {"name": "one", "class": "b", "number": 3, "pixels": 1, "x": 11, "y": 0, "probability": 0.875},
    ]
    numbers = values_of(tmp_path / "instances" / "one.png")
    assert [int((numbers == number).sum()) for number in range(4)] == [120 - 12, 9, 2, 1]
    assert numbers[6, 7] == 1
    assert not write_objects(TASK, sample_of((3, 3)), torch.zeros(3, 3).long(), None, tmp_path, "none")


def test_objects_of_labels_that_may_overlap_have_a_mask_each(tmp_path: Path) -> None:
    task = Task(classes=("background", "a/../b", "c"), multilabel=True)
    stack = torch.zeros(2, 6, 6, dtype=torch.bool)
    stack[0, :3, :3], stack[1, 2:4, 2:4] = True, True
    rows = write_objects(task, sample_of((6, 6)), stack, None, tmp_path, "one")
    assert [(row["class"], row["pixels"], row["probability"]) for row in rows] == [
        ("a/../b", 9, None),
        ("c", 4, None),
    ]
    files = sorted((tmp_path / "instances").rglob("*.png"))
    assert len(files) == 2
    assert {file.parent.parent for file in files} == {tmp_path / "instances"}  # no name leads out of it


def test_centroids_of_volumes_are_in_the_patient_s_millimetres(tmp_path: Path) -> None:
    affine = np.array([[0, 0, 2.0, 5], [-1.5, 0, 0, 7], [0, 3.0, 0, -2], [0, 0, 0, 1]])
    grid = Grid((4, 5, 6), affine)
    stored = np.zeros((4, 5, 6), np.int64)
    stored[1:3, 2, 4], stored[0, 0, 0] = 1, 1
    mask = torch.from_numpy(grid.to_zyx(stored).copy())
    task = Task(classes=("background", "a"))
    rows = write_objects(task, sample_of(tuple(mask.shape), grid), mask, None, tmp_path, "one")
    assert [row["mm3"] for row in rows] == pytest.approx([18, 9])
    expected = affine[:3, :3] @ (1.5, 2, 4) + affine[:3, 3]
    assert [rows[0][name] for name in ("x_mm", "y_mm", "z_mm")] == pytest.approx(expected)
    assert [rows[1][name] for name in ("x_mm", "y_mm", "z_mm")] == pytest.approx(affine[:3, 3])
    written = read_volume(tmp_path / "instances" / "one.nii.gz")
    assert np.array_equal(written.values > 0, stored > 0)
    assert written.values[1, 2, 4] == 1
    assert np.allclose(written.grid.affine, affine)


def test_predicted_files_have_a_table_of_objects(run: Run, folder: Path) -> None:
    files = sorted((folder / "images").glob("*.png"))
    done = seglens.predict_files(run, files, out=folder / "out", objects=True)
    with (done.folder / "objects.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for file in files:
        mask = values_of(done.folder / "masks" / file.name)
        own = [row for row in rows if row["name"] == file.stem]
        labels, num = ndimage.label(mask, np.ones((3, 3)))
        assert len(own) == num
        assert sum(int(row["pixels"]) for row in own) == mask.sum()
        assert np.array_equal(values_of(done.folder / "instances" / file.name) > 0, labels > 0)
        assert all(0.5 <= float(row["probability"]) <= 1 for row in own)
    with pytest.raises(SettingError, match="Ask for objects, too"):
        seglens.predict_files(run, files, out=folder / "more", split_touching=True)

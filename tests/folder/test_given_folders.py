"""Folders among the pictures that are named: their pictures, or what is there instead."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import seglens
from seglens.data.images import read_image
from seglens.errors import DataError, SeglensWarning
from seglens.folder.chunks import files_in
from seglens.runs import Run


def test_a_folder_without_masks_is_explained_and_predicted(run: Run, folder: Path) -> None:
    pictures = folder / "images"
    done = seglens.explain_folder(run, [pictures], out=folder / "maps", methods=("saliency",))
    files = sorted(pictures.glob("*.png"))
    assert done.num_done == len(files)
    assert done.maps is not None
    assert [row.name for row in done.maps.samples] == [file.stem for file in files]
    assert all(row.dice is None for row in done.maps.samples)
    assert seglens.predict_files(run, [pictures], out=folder / "masks-out").num_done == len(files)


def test_a_folder_without_pictures_is_called_what_it_is(run: Run, tmp_path: Path) -> None:
    (tmp_path / "set/images").mkdir(parents=True)
    (tmp_path / "scan").mkdir()
    (tmp_path / "scan/1.dcm").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"it holds the folders images. Name the folder that holds the pictures"
    ):
        seglens.predict_files(run, [tmp_path / "set"], out=tmp_path / "out")
    with pytest.raises(DataError, match=r"it holds 1 file: \.dcm"):
        files_in(tmp_path / "scan", 2)
    with pytest.raises(DataError, match="it is empty"):
        files_in(tmp_path / "set/images", 2)
    assert files_in(tmp_path / "scan", 3) == [tmp_path / "scan"]  # one series
    (tmp_path / "scan/a.nii.gz").write_bytes(b"")
    with pytest.warns(SeglensWarning, match=r"1 files and folders that are not read: 1\.dcm"):
        assert files_in(tmp_path / "scan", 3) == [tmp_path / "scan/a.nii.gz"]


def test_what_is_left_out_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    for name in ("a.png", "b.heic", "inner/c.png", ".hidden", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"")
    with pytest.warns(SeglensWarning, match=r"2 files and folders that are not read: b\.heic, inner\. "):
        assert files_in(tmp_path, 2) == [tmp_path / "a.png"]


@pytest.mark.parametrize("name", ["slice", "slice.png", "slice.dcm"])
def test_a_dicom_file_is_called_so_whatever_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(bytes(128) + b"DICM" + bytes(100))
    with pytest.raises(DataError, match="it is a DICOM file, and pictures are wanted here"):
        read_image(tmp_path / name)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "fine.png")
    assert read_image(tmp_path / "fine.png").shape == (3, 4, 4)

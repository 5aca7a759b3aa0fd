"""Superpixels on disk: the same as cut directly, cut once, and the same from several processes."""

from pathlib import Path

import pytest
import torch

from seglens.data.images import read_image
from seglens.errors import DataError
from seglens.superpixels import superpixels
from seglens.weak import superpixels as files_of_superpixels
from seglens.weak.settings import SuperpixelSettings
from seglens.weak.superpixels import cut_superpixels, read_superpixels, superpixel_file

SETTINGS = SuperpixelSettings(num_segments=12, compactness=10.0, sigma=0.5)


def pictures(small_set: Path) -> tuple[list[Path], list[str]]:
    files = sorted((small_set / "train" / "images").iterdir())
    return files, [file.stem for file in files]


def test_what_is_kept_is_what_is_cut(small_set: Path, tmp_path: Path) -> None:
    files, stems = pictures(small_set)
    assert cut_superpixels(files, stems, SETTINGS, tmp_path / "patches") == 4
    for file, stem in zip(files, stems, strict=True):
        direct = superpixels(read_image(file)[None], num_segments=12, compactness=10.0, sigma=0.5)[0]
        assert torch.equal(read_superpixels(tmp_path / "patches", stem), direct)


def test_what_is_there_is_not_cut_again(small_set: Path, tmp_path: Path) -> None:
    files, stems = pictures(small_set)
    cut_superpixels(files[:2], stems[:2], SETTINGS, tmp_path)
    before = superpixel_file(tmp_path, stems[0]).stat().st_mtime_ns
    assert cut_superpixels(files, stems, SETTINGS, tmp_path) == 2
    assert cut_superpixels(files, stems, SETTINGS, tmp_path) == 0
    assert superpixel_file(tmp_path, stems[0]).stat().st_mtime_ns == before


def test_two_processes_cut_the_same(small_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, stems = pictures(small_set)
    monkeypatch.setattr(files_of_superpixels, "WORTH", 2)
    assert cut_superpixels(files, stems, SETTINGS, tmp_path / "two", processes=2) == 4
    cut_superpixels(files, stems, SETTINGS, tmp_path / "one", processes=1)
    assert sorted(file.name for file in (tmp_path / "two").iterdir()) == [f"{stem}.npz" for stem in stems]
    for stem in stems:
        assert torch.equal(read_superpixels(tmp_path / "two", stem), read_superpixels(tmp_path / "one", stem))


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"a\.png can't be read as a picture"):
        cut_superpixels([tmp_path / "a.png"], ["a"], SETTINGS, tmp_path / "patches")
    with pytest.raises(DataError, match="holds no superpixels"):
        read_superpixels(tmp_path / "patches", "a")

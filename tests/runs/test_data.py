"""Which pictures a run takes: those of its training and no others, and other data by their names."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.conftest import write_pair, write_run, write_set

from seglens.data.layout import DataSettings
from seglens.data.listing import FILE_NAME, write_listing
from seglens.data.opening import open_data
from seglens.errors import DataError, SettingError, UnknownNameError
from seglens.results import record as records
from seglens.runs import Run, load
from seglens.runs.data import open_split


def names(run: Run, name: str | None = None, **fields) -> list[str]:
    return [entry.name for entry in open_split(run, name, **fields).entries]


@pytest.fixture
def dealt(tmp_path) -> Run:
    """A run on twelve pictures that came without splits."""
    for index in range(12):
        write_pair(tmp_path / "set", f"p{index:02d}", index)
    run = write_run(tmp_path / "run", tmp_path / "set")
    write_listing(run, open_data(DataSettings(path=tmp_path / "set")))
    return load(run)


def change(file: Path) -> None:
    Image.fromarray(255 - np.asarray(Image.open(file))).save(file)


def test_the_split_is_that_of_the_training(dealt):
    dataset = open_data(DataSettings(path=dealt.folder.parent / "set"))
    for split in ("train", "valid", "test"):
        assert names(dealt, split) == [entry.name for entry in dataset.split(split).entries]
    assert len(names(dealt, "all")) == 12


def test_added_pictures_are_never_dealt_in(dealt, tmp_path):
    with pytest.raises(DataError, match=r"No picture was added to .*/set since"):
        names(dealt, "new")
    for index in range(4):
        write_pair(tmp_path / "set", f"q{index}", 100 + index)
    with pytest.raises(DataError, match=r"4 added \(q0, q1, q2, \.\.\.\).*--split new.*--split all"):
        names(dealt, "test")
    assert names(dealt, "new") == ["q0", "q1", "q2", "q3"]
    assert len(names(dealt, "all", data=tmp_path / "set")) == 16


def test_renamed_and_missing_pictures_are_named(dealt, tmp_path):
    for kind in ("images", "masks"):
        (tmp_path / "set" / kind / "p03.png").rename(tmp_path / "set" / kind / "z.png")
    with pytest.raises(DataError, match=r"1 gone \(p03\) and 1 added \(z\)"):
        names(dealt, "test")
    with pytest.raises(DataError, match=r"under other names: z \(was p03\)"):
        names(dealt, "new")


@pytest.mark.parametrize(("kind", "said"), [("images", "1 pictures"), ("masks", "1 masks or outlines")])
def test_what_has_changed_is_refused_in_the_split_that_is_used(dealt, tmp_path, kind, said):
    valid, test = names(dealt, "valid"), names(dealt, "test")
    change(tmp_path / "set" / kind / f"{test[0]}.png")
    with pytest.raises(DataError, match=rf"changed since .* was trained: {said} \({test[0]}\)"):
        names(dealt, "test")
    with pytest.raises(DataError, match="have changed"):
        names(dealt, "all")
    assert names(dealt, "valid") == valid


def test_the_set_may_have_moved(dealt, tmp_path):
    test = names(dealt, "test")
    (tmp_path / "set").rename(tmp_path / "moved")
    with pytest.raises(DataError, match="is not there"):
        names(dealt, "test")
    assert names(dealt, data=tmp_path / "moved") == test


def test_other_data_without_splits_are_taken_whole(dealt, tmp_path):
    for index in range(12):
        write_pair(tmp_path / "other", f"p{index:02d}", 50 + index)  # other pictures of the same names
    assert len(names(dealt, data=tmp_path / "other")) == 12
    with pytest.raises(UnknownNameError, match=r"Unknown split 'test'.*Allowed: all"):
        names(dealt, "test", data=tmp_path / "other")
    assert names(dealt, data=write_set(tmp_path / "split")) == ["test-0", "test-1", "test-2"]


def test_runs_of_before_go_by_the_hash_of_their_record(dealt, tmp_path):
    (dealt.folder / FILE_NAME).unlink()
    dataset = open_data(DataSettings(path=tmp_path / "set"))
    record = records.read_record(dealt.folder).model_copy(update={"data_sha256": dataset.sha256()})
    record.write(dealt.folder)
    test = names(dealt, "test")
    shutil.copytree(tmp_path / "set", tmp_path / "copy")
    assert names(dealt, data=tmp_path / "copy") == test
    write_pair(tmp_path / "set", "q", 99)
    with pytest.raises(DataError, match=r"has no list of its splits.*--split all"):
        names(dealt, "test")


def test_a_damaged_list_is_no_list(dealt):
    for text in ("{", "[]", '{"splits": {"test": ["a"]}}', '{"splits": {}, "hash": "md5"}'):
        (dealt.folder / FILE_NAME).write_text(text)
        with pytest.raises(DataError, match=r"split.json"):
            names(dealt, "test")


def test_masks_of_values_are_named_in_their_own_order(tmp_path):
    write_pair(tmp_path / "two", "a", 0)
    file = tmp_path / "two" / "masks" / "a.png"
    Image.fromarray(np.asarray(Image.open(file)) // 255).save(file)
    run = load(write_run(tmp_path / "run", None))  # adopted: background, foreground
    mask = open_split(run, data=tmp_path / "two")[0].mask
    settings = DataSettings(path=tmp_path / "two", classes=("pet", "else"))
    swapped = open_split(run, data=settings, class_map={"pet": "foreground", "else": "background"})
    other = swapped[0].mask
    assert mask is not None
    assert other is not None
    assert other.tolist() == (1 - mask).tolist()
    with pytest.raises(SettingError, match="knows no 'pet'"):
        open_split(run, data=DataSettings(path=tmp_path / "two", classes=("ground", "pet")))

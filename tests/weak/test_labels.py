"""Image-level labels: who says what, and that nothing here can open a mask."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from seglens.data.layout import DataSettings, PictureOnly, Split
from seglens.data.opening import open_data
from seglens.errors import DataError, SeglensWarning, SettingError
from seglens.weak.labels import (
    Hidden,
    Labelled,
    all_positive,
    by_file,
    by_folders,
    by_masks,
    without_masks,
)


@pytest.fixture
def split(small_set: Path) -> Split:
    return open_data(DataSettings(path=small_set)).splits["train"]


def save(file: Path, value: int = 100) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (value, value, value)).save(file)


def test_what_is_labelled_knows_no_mask(split: Split) -> None:
    found = all_positive(split)
    assert found.present == (True,) * 4
    assert found.positive == (0, 1, 2, 3)
    assert all(
        not entry.masks and not entry.annotations and not entry.labelled for entry in found.split.entries
    )
    for index in range(4):
        sample = found.split[index]
        assert sample.mask is None
        assert sample.valid.all()
        assert torch.equal(sample.image, split[index].image)


def test_pictures_are_read_where_all_masks_are_gone(tmp_path: Path) -> None:
    from tests.conftest import write_pair

    for index in range(4):
        write_pair(tmp_path / "train", f"a{index}", index)
    split = open_data(DataSettings(path=tmp_path, train_dir="train")).splits["train"]
    found = all_positive(split)
    for file in (tmp_path / "train" / "masks").iterdir():
        file.unlink()
    assert found.split[0].mask is None


def test_entries_with_masks_are_refused(split: Split) -> None:
    with pytest.raises(
        SettingError,
        match=r"could read masks, which learning without masks forbids: .* allowed is PictureOnly",
    ):
        Labelled(split, (True,) * 4)
    bare = without_masks(split)
    with pytest.raises(
        SettingError, match=r"Masks are still named for 4 pictures, which .* forbids\. The first is train-0\."
    ):
        Labelled(Split("train", split.task, split.entries, PictureOnly(3)), (True,) * 4)
    with pytest.raises(SettingError, match=r"3 labels for 4 pictures\. Give each picture one"):
        Labelled(bare, (True,) * 3)


def test_every_use_of_a_mask_is_noted(split: Split) -> None:
    hidden = Hidden(split)
    assert hidden.uses == []
    part = hidden.select([1, 2])
    assert part.opened("final evaluation")[0].mask is not None
    hidden.opened("oracle threshold")
    assert hidden.uses == [
        {"purpose": "final evaluation", "split": "train", "pictures": 2},
        {"purpose": "oracle threshold", "split": "train", "pictures": 4},
    ]


def test_labels_of_masks_are_a_use_of_them(split: Split, tmp_path: Path) -> None:
    hidden = Hidden(split)
    assert by_masks(hidden).present == (True,) * 4
    assert [use["purpose"] for use in hidden.uses] == ["image-level labels: whether a mask is empty"]


def test_a_table_labels_by_name_file_or_path(split: Split, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("image,label\ntrain-0,Yes\ntrain-2.png,0\ntrain/images/train-3.png,object\nother,1\n")
    said = r"no label for 1 picture of 4 \(train-1\), which are left out, and labels 1 that .* \(other\)"
    with pytest.warns(SeglensWarning, match=said):
        found = by_file(split, table)
    assert [entry.name for entry in found.split.entries] == ["train-0", "train-2", "train-3"]
    assert found.present == (True, False, True)
    assert found.positive == (0, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,label\ntrain-0,maybe\n", "gives train-0 the label 'maybe'. Allowed are 1, true, yes"),
        ("name,label\ntrain-0,1\n", "lacks the column 'image'; it has name, label"),
        ("image,label\ntrain-0,1\ntrain-0,0\n", "labels train-0 twice, and differently"),
        ("image,label\nelsewhere,1\n", "names 1 picture, none of which is in the train split"),
    ],
)
def test_tables_that_cannot_be_used(split: Split, tmp_path: Path, text: str, message: str) -> None:
    table = tmp_path / "labels.csv"
    table.write_text(text)
    with pytest.raises(DataError, match=message):
        by_file(split, table)


def test_a_table_that_is_not_there(split: Split, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no table of labels"):
        by_file(split, tmp_path / "labels.csv")


def test_folders_label_their_pictures(tmp_path: Path) -> None:
    save(tmp_path / "object" / "b.png")
    save(tmp_path / "none" / "a.png")
    save(tmp_path / "unrelated" / "c.png")
    found = by_folders(tmp_path)
    assert [(entry.name, there) for entry, there in zip(found.split.entries, found.present, strict=True)] == [
        ("none/a", False),
        ("object/b", True),
    ]


def test_folders_without_the_object(tmp_path: Path) -> None:
    save(tmp_path / "none" / "a.png")
    with pytest.raises(DataError, match=r"no folder of pictures that show the object\. Its folders: none\."):
        by_folders(tmp_path)

"""Sets of students, and the weak_data that they come from: no mask can be read on the way."""

import os
import shutil

import pytest
import torch
from PIL import Image

from seglens.data.labels import read_label
from seglens.data.layout import DataSettings, PictureOnly
from seglens.data.opening import open_data
from seglens.errors import DataError, SettingError
from seglens.weak.data import open_weak_data
from seglens.weak.ignore_band import IGNORED
from seglens.weak.students import LearningPictures, opened_as, read_label_of, write_set


@pytest.fixture
def weak_data(small_set):
    return open_weak_data(DataSettings(path=small_set), "all")


def _label(index):
    """A third object, a third ignored, a third none; other rows for every picture."""
    mask = torch.zeros(32, 40, dtype=torch.int64)
    mask[index : index + 10] = 1
    mask[20:28] = IGNORED
    return mask


def test_a_set_of_students_is_what_was_written(tmp_path, weak_data):
    pictures = weak_data.pictures
    data = write_set(tmp_path / "set", pictures, _label, what="masks")
    assert data == opened_as(tmp_path / "set", pictures)
    dataset = open_data(data)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 4, "valid": 2, "test": 3}
    for index, held in enumerate(pictures.held_out):
        split = dataset.split("valid" if held else "train")
        place = [entry.name for entry in split.entries].index(pictures.files[index])
        sample = split[place]
        assert torch.equal(sample.image, pictures.labelled.split[index].image)
        assert torch.equal(sample.valid, _label(index) != IGNORED)
        assert sample.mask is not None
        assert torch.equal(sample.mask, _label(index).masked_fill(~sample.valid, 0))
        assert torch.equal(read_label_of(tmp_path / "set", pictures, index), _label(index))
    assert all(dataset.split("test")[index].mask is None for index in range(3))


def test_a_set_on_which_nothing_is_marked(tmp_path, weak_data):
    with pytest.raises(DataError, match="All 4 pseudo-masks that a student learns from are empty"):
        write_set(tmp_path / "set", weak_data.pictures, lambda index: _label(index) * 0, what="masks")
    assert not (tmp_path / "set").exists()


def test_pictures_are_linked_and_not_copied(tmp_path, weak_data):
    write_set(tmp_path / "set", weak_data.pictures, _label, what="masks")
    first = weak_data.pictures.labelled.split.entries[0].image
    linked = next((tmp_path / "set").rglob(f"images/{weak_data.pictures.files[0]}.png"))
    assert os.stat(first).st_ino == os.stat(linked).st_ino


def test_pictures_without_the_object_are_background(tmp_path, small_set):
    names = [f"train-{index},{'object' if index % 2 else 'none'}" for index in range(4)]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["image,label", *names, "valid-0,1", "valid-1,0"]))
    pictures = open_weak_data(DataSettings(path=small_set), str(table)).pictures
    write_set(tmp_path / "set", pictures, _label, what="masks")
    for index, there in enumerate(pictures.labelled.present):
        assert bool((read_label_of(tmp_path / "set", pictures, index) == 1).any()) == there


def test_the_held_out_pictures_are_those_that_any_training_holds_out(small_set, weak_data):
    valid = {entry.image for entry in open_data(DataSettings(path=small_set)).split("valid").entries}
    entries = weak_data.pictures.labelled.split.entries
    held = {entry.image for entry, held in zip(entries, weak_data.pictures.held_out, strict=True) if held}
    assert held == valid


def test_no_mask_is_needed_before_the_evaluation(tmp_path, small_set):
    bare = shutil.copytree(small_set, tmp_path / "bare")
    for file in bare.rglob("masks/*.png"):
        file.write_bytes(b"nobody reads this")
    weak_data = open_weak_data(DataSettings(path=bare), "all")
    assert isinstance(weak_data.pictures.labelled.split.reader, PictureOnly)
    assert not any(
        entry.masks for entry in (*weak_data.pictures.labelled.split.entries, *weak_data.pictures.test)
    )
    write_set(tmp_path / "set", weak_data.pictures, _label, what="masks")
    assert weak_data.uses == []
    truth = weak_data.truth("test", "to see whether this is where masks are read")
    assert truth is not None
    with pytest.raises(DataError, match="can't be read as a picture"):
        next(iter(truth))
    assert [use["purpose"] for use in weak_data.uses] == ["to see whether this is where masks are read"]


def test_labels_that_were_read_off_masks_are_noted(small_set):
    weak_data = open_weak_data(DataSettings(path=small_set), "masks")
    assert weak_data.pictures.labelled.present == (True,) * 6
    assert [use["purpose"] for use in weak_data.labelling_uses] == [
        "image-level labels: whether a mask is empty"
    ]


def test_pictures_in_folders_have_no_masks_to_be_scored_by(tmp_path, small_set):
    for number, file in enumerate(sorted(small_set.rglob("images/*.png"))):
        folder = tmp_path / ("object" if number % 2 else "none")
        folder.mkdir(exist_ok=True)
        # Not copies of a few: near-duplicates would be held out together.
        picture = Image.open(file).rotate(40 * number)
        picture.save(folder / f"{number}.png")
    weak_data = open_weak_data(DataSettings(path=tmp_path), "folders")
    assert (weak_data.learning, weak_data.test) == (None, None)
    assert sum(weak_data.pictures.labelled.present) == 4
    assert 0 < sum(weak_data.pictures.held_out) < 9
    data = write_set(tmp_path / "set", weak_data.pictures, lambda index: _label(0), what="masks")
    # A set must have a test split, or one would be taken out of train.
    assert len(open_data(data).split("test")) == sum(weak_data.pictures.held_out)


@pytest.mark.parametrize("below", [".", "images"])
def test_pictures_alone_are_a_set_too(tmp_path, small_set, below):
    folder = tmp_path / "pictures" / below
    folder.mkdir(parents=True)
    for number, file in enumerate(sorted(small_set.rglob("images/*.png"))):
        Image.open(file).rotate(40 * number).save(folder / f"{number}.png")
    data = DataSettings(path=tmp_path / "pictures")
    assert open_weak_data(data, "all").pictures.labelled.present == (True,) * 9
    table = tmp_path / "labels.csv"
    table.write_text("image,label\n3.png,object\n5,none\n6,yes\n")
    weak_data = open_weak_data(data, str(table))
    assert [entry.name for entry in weak_data.pictures.labelled.split.entries] == ["3", "5", "6"]
    assert weak_data.pictures.labelled.present == (True, False, True)
    assert (weak_data.learning, weak_data.test) == (None, None)
    with pytest.raises(DataError, match="in no known layout"):
        open_weak_data(data, "masks")


def test_the_border_of_pets_is_object_and_is_left_out(tmp_path):
    for name in ("images", "annotations/trimaps"):
        (tmp_path / name).mkdir(parents=True)
    trimap = torch.tensor([[1, 1, 3, 2]] * 4, dtype=torch.uint8)
    names = [f"{breed}_{number}" for breed in ("Abyssinian", "boxer") for number in range(4)]
    for number, name in enumerate(names):
        noise = torch.randint(0, 255, (4, 4, 3), generator=torch.Generator().manual_seed(number))
        Image.fromarray(noise.to(torch.uint8).numpy()).save(tmp_path / "images" / f"{name}.jpg")
        Image.fromarray(trimap.numpy()).save(tmp_path / "annotations" / "trimaps" / f"{name}.png")
    for split, chosen in (("trainval", names[:6]), ("test", names[6:])):
        lines = "\n".join(f"{name} 1 1 1" for name in chosen)
        (tmp_path / "annotations" / f"{split}.txt").write_text(lines)
    weak_data = open_weak_data(DataSettings(path=tmp_path), "all")
    for which, num in (("learning", 6), ("test", 2)):
        truth = weak_data.truth(which, "border")
        assert truth is not None
        found = list(truth)
        assert len(found) == num
        for sample, inner in found:
            assert sample.mask is not None
            assert inner is not None
            assert sample.mask.tolist() == [[1, 1, 1, 0]] * 4
            assert inner.tolist() == [[True, True, False, True]] * 4


def test_several_classes_are_refused(tmp_path, small_set):
    with pytest.raises(
        SettingError, match=r"learns one object and its background, but .* has the classes a, b, c"
    ):
        open_weak_data(DataSettings(path=small_set, classes=("a", "b", "c")), "all")


def test_pictures_to_learn_from_and_to_choose_on(weak_data):
    pictures = weak_data.pictures
    with pytest.raises(SettingError, match="Of 6 pictures 6 are held out"):
        LearningPictures(pictures.labelled, (True,) * 6, pictures.files, (), pictures.classes)
    with pytest.raises(SettingError, match="Received 6 pictures, 5 marks of the valid split"):
        LearningPictures(pictures.labelled, (True,) * 5, pictures.files, (), pictures.classes)


def test_masks_on_disk_hold_three_values(tmp_path, weak_data):
    write_set(tmp_path / "set", weak_data.pictures, _label, what="masks")
    for file in (tmp_path / "set").rglob("masks/*.png"):
        assert set(read_label(file).unique().tolist()) == {0, 1, IGNORED}

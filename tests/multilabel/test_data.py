"""Layouts that can hold overlapping classes: what is read, counted, moved and refused."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from tests.multilabel.sets import picture, write_coco, write_folders

import seglens
from seglens.data.layout import DataSettings
from seglens.data.opening import open_data
from seglens.data.transforms import augment, letterbox, sample_generator
from seglens.errors import DataError, UnknownNameError
from seglens.train.dataset import TrainingDataset

NUM = {"train": 2, "valid": 1, "test": 1}


def both(folder):
    """The same set in both layouts."""
    return [write_coco(folder / "coco", num=NUM), write_folders(folder / "folders", num=NUM)]


def opened(folder, **settings):
    return open_data(DataSettings(path=folder, multilabel=True, **settings))


def test_both_layouts_keep_every_class_of_a_pixel(tmp_path):
    _, man, shirt = picture(0)
    assert (man & shirt).any()
    for folder in both(tmp_path):
        found = opened(folder)
        assert found.task.classes == ("background", "man", "shirt")
        assert found.task.multilabel
        mask = found.split("train")[0].mask
        assert torch.equal(mask, torch.from_numpy(np.stack([man, shirt])))


def test_classes_can_be_chosen_and_ordered(tmp_path):
    _, man, shirt = picture(0)
    for folder in both(tmp_path):
        found = opened(folder, classes=("shirt", "man"))
        assert found.task.classes == ("background", "shirt", "man")
        assert torch.equal(found.split("train")[0].mask, torch.from_numpy(np.stack([shirt, man])))
        assert opened(folder, classes=("man",)).split("train")[0].mask.shape[0] == 1
        with pytest.raises(UnknownNameError, match="shrit"):
            opened(folder, classes=("shrit",))


def test_without_multilabel_nothing_is_dropped_unsaid(tmp_path):
    coco, folders = both(tmp_path)
    with pytest.raises(DataError, match=r"a folder for each of man, shirt and no masks\. .* --multilabel"):
        open_data(DataSettings(path=folders))
    found = seglens.check_data(DataSettings(path=coco, merge=False))
    (overlap,) = found.of("overlapping-classes")
    assert len(overlap.names) == 4
    _, man, shirt = picture(0)
    assert f"train/train-0 ({(man & shirt).sum()} pixels)" in overlap.names
    assert not seglens.check_data(DataSettings(path=coco)).of("overlapping-classes")
    assert not seglens.check_data(DataSettings(path=coco, multilabel=True)).of("overlapping-classes")


def test_check_counts_each_class(tmp_path):
    for folder in both(tmp_path):
        found = seglens.check_data(DataSettings(path=folder, multilabel=True))
        assert found.num_errors == 0
        shares = {share.name: share.pixels for share in found.classes}
        pictures = [picture(seed)[1:] for seed in range(4)]
        assert shares["man"] == pytest.approx(np.mean([man.mean() for man, _ in pictures]))
        assert shares["shirt"] == pytest.approx(np.mean([shirt.mean() for _, shirt in pictures]))
        assert shares["background"] == pytest.approx(1 - np.mean([(a | b).mean() for a, b in pictures]))


def test_a_class_that_is_not_on_a_picture_is_said_by_a_file(tmp_path):
    folder = write_folders(tmp_path, num=NUM)
    file = folder / "train/masks/shirt/train-1.png"
    file.unlink()
    with pytest.raises(
        DataError, match=r"no mask of 'shirt'; where it isn't on a picture, give one that is black"
    ):
        opened(folder)
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(file)
    assert opened(folder).split("train")[1].mask.flatten(1).any(1).tolist() == [True, False]


def test_what_is_not_understood_is_refused(tmp_path):
    folder = write_folders(tmp_path / "set", num=NUM)
    loose = folder / "train/masks/train-0.png"
    shutil.copy(folder / "train/masks/man/train-0.png", loose)
    with pytest.raises(DataError, match=r"which class are they of\?"):
        opened(folder)
    loose.unlink()
    shutil.copy(folder / "train/images/train-0.png", folder / "train/masks/man/other.png")
    with pytest.raises(DataError, match="Masks have no picture"):
        opened(folder)
    shutil.rmtree(folder / "train/masks/man")
    with pytest.raises(DataError, match="no mask of 'man'"):
        opened(folder)
    flat = tmp_path / "flat"
    for kind in ("images", "masks"):
        shutil.copytree(folder / "test/images", flat / kind)
    with pytest.raises(DataError, match="no folder for each class below masks/"):
        opened(flat)
    nuclei = tmp_path / "nuclei"
    for kind in ("images", "masks"):
        shutil.copytree(folder / "test/images", nuclei / "one" / kind)
    with pytest.raises(DataError, match="no folder for each class below <id>/masks/"):
        opened(nuclei)


def _nuclei(folder):
    """One picture with a cell whose nucleus lies in it, and one with neither."""
    for name in "ab":
        (folder / name / "images").mkdir(parents=True)
        Image.fromarray(np.full((8, 8, 3), ord(name), np.uint8)).save(folder / name / "images" / "it.png")
        for kind in ("cell", "nucleus"):
            (folder / name / "masks" / kind).mkdir(parents=True)
    for kind, number, place in (("cell", 0, 1), ("cell", 1, 5), ("nucleus", 0, 2)):
        pixels = np.zeros((8, 8), np.uint8)
        pixels[place : place + (3 if kind == "cell" else 1), 1:4] = 255
        Image.fromarray(pixels).save(folder / "a" / "masks" / kind / f"{number}.png")
    return DataSettings(path=folder)


def test_nuclei_of_classes_that_overlap(tmp_path):
    settings = _nuclei(tmp_path)
    with pytest.raises(DataError, match=r"masks holds folders \(cell, nucleus\).*with --multilabel"):
        open_data(settings)  # a folder of files that nobody reads is no empty mask
    both = settings.model_copy(update={"multilabel": True})
    dataset = open_data(both)
    assert dataset.task.classes == ("background", "cell", "nucleus")
    split = dataset.split("all")
    first, second = (split[index].mask for index in range(2))
    assert first is not None
    assert second is not None
    expected = torch.zeros(2, 8, 8, dtype=torch.bool)
    expected[0, 1:4, 1:4] = expected[0, 5:8, 1:4] = expected[1, 2, 1:4] = True
    assert torch.equal(first, expected)
    assert second.shape == (2, 8, 8)
    assert not second.any()
    (tmp_path / "b" / "masks" / "nucleus").rmdir()
    with pytest.raises(
        DataError, match=r"no folder masks/nucleus/; where none is on a picture, make an empty"
    ):
        open_data(both)
    (tmp_path / "b" / "masks" / "nucleus").mkdir()
    shutil.copyfile(tmp_path / "a/masks/cell/0.png", tmp_path / "b/masks/loose.png")
    with pytest.raises(DataError, match=r"which class are they of.*loose\.png"):
        open_data(both)


def test_ignored_values_count_for_no_class(tmp_path):
    folder = write_folders(tmp_path, num=NUM)
    file = folder / "train/masks/man/train-0.png"
    mask = np.zeros((32, 32), np.uint8)
    mask[0, :3] = 255, 2, 255
    Image.fromarray(mask).save(file)
    sample = opened(folder, ignore=2).split("train")[0]
    assert sample.valid.sum() == 32 * 32 - 1
    assert sample.mask[0].sum() == 2


def test_layers_move_with_the_picture(tmp_path):
    sample = opened(write_folders(tmp_path, num=NUM)).split("train")[0]
    boxed, _ = letterbox(sample, 48)
    assert boxed.mask is not None
    assert boxed.mask.shape == (2, 48, 48)
    assert boxed.mask.dtype == torch.bool
    changed = augment(boxed, sample_generator(0, 0, 0))
    assert changed.mask is not None
    # Where red was bright 'man' was: the mask must have moved with it.
    inside = changed.image[0][changed.mask[0]].mean()
    assert inside > changed.image[0][~changed.mask[0]].mean() + 0.3
    feed = TrainingDataset(opened(tmp_path).split("train"), size=48)
    feed.preload()
    masks = [feed[0, index].mask for index in range(2)]
    first, second = masks
    assert first is not None
    assert second is not None
    assert torch.equal(first, boxed.mask)
    blank = feed.blank().mask
    assert blank is not None
    assert blank.dtype == torch.bool
    assert feed.class_pixels(3).tolist()[1:] == [
        sum(int((mask[label] & feed[0, index].valid).sum()) for index, mask in enumerate((first, second)))
        for label in range(2)
    ]


def test_samples_are_drawn(tmp_path):
    folder = write_coco(tmp_path / "set", num=NUM)
    drawn = seglens.show_data(DataSettings(path=folder, multilabel=True), tmp_path / "data.png")
    assert np.asarray(Image.open(drawn)).std() > 10

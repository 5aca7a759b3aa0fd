"""Oracle: sets of a few pixels, written by hand in each layout, whose masks are known exactly."""

import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.data.layouts import (
    BOX,
    SIDE,
    WRITERS,
    mask_is,
    only,
    save,
    scene,
    settings,
    sizes,
    write_nuclei,
    write_pairs,
    write_pets,
)

from seglens import read_images
from seglens.data.check import check_data
from seglens.data.opening import LAYOUTS, open_data
from seglens.errors import DataError, MaskValueError, SettingError, SizeMismatchError, UnknownNameError


def test_every_layout_is_tested():
    of_volumes = {"nnunet", "msd", "volumes"}  # tests/data/volumes/test_sets.py
    assert set(WRITERS) | {"oxford-pet"} | of_volumes == set(LAYOUTS)


@pytest.mark.parametrize("layout", WRITERS)
class TestLayoutsWithFolders:
    def test_is_recognised_and_dealt_to_splits(self, tmp_path, layout):
        dataset = open_data(settings(WRITERS[layout](tmp_path, "abcdefghij")))
        assert dataset.layout == layout
        assert list(dataset.splits) == ["train", "valid", "test"]
        assert [len(split) for split in dataset.splits.values()] == pytest.approx([7, 1.5, 1.5], abs=1)
        assert [entry.name for entry in dataset.split("all").entries] == list("abcdefghij")
        assert dataset.split("all")[0].image.shape == (3, SIDE, SIDE)
        assert mask_is(dataset.split("all")[0], BOX)
        assert open_data(settings(tmp_path)).sha256() == dataset.sha256()
        assert open_data(settings(tmp_path, split_seed=1)).sha256() != dataset.sha256()
        copy = pickle.loads(pickle.dumps(dataset.split("all")))  # what a loader's worker gets
        assert mask_is(copy[0], BOX)

    @pytest.mark.parametrize("valid", ["valid", "val", "validation"])
    def test_folders_are_splits(self, tmp_path, layout, valid):
        for folder, names in (("train", "abc"), (valid, "ad"), ("test", "a")):
            WRITERS[layout](tmp_path / folder, names)
        dataset = open_data(settings(tmp_path))
        assert dataset.layout == layout
        assert sizes(dataset) == {"train": 3, "valid": 2, "test": 1}
        # Names are unique within a split, and made so where splits are joined.
        joined = [entry.name for entry in dataset.split("all").entries]
        assert joined == ["test/a", "train/a", "train/b", "train/c", "valid/a", "valid/d"]

    def test_folders_can_be_named_and_missing_splits_are_made(self, tmp_path, layout):
        WRITERS[layout](tmp_path / "mine", "abcdefghij")
        WRITERS[layout](tmp_path / "held-out", "kl")
        dataset = open_data(settings(tmp_path, train_dir="mine", test_dir=str(tmp_path / "held-out")))
        assert dataset.layout == layout
        assert sizes(dataset) == {"train": 9, "valid": 1, "test": 2}
        with pytest.raises(SettingError, match=r"no folder .*elsewhere for the valid split.*--valid-dir"):
            open_data(settings(tmp_path, train_dir="mine", valid_dir="elsewhere"))

    def test_a_set_for_evaluation_only_is_left_as_it_is(self, tmp_path, layout):
        WRITERS[layout](tmp_path / "test", "abc")
        dataset = open_data(settings(tmp_path))
        assert list(dataset.splits) == ["test"]
        with pytest.raises(UnknownNameError, match=r"Unknown split 'valid'.*Allowed: test, all"):
            dataset.split("valid")

    def test_chosen_pictures_keep_their_order(self, tmp_path, layout):
        split = open_data(settings(WRITERS[layout](tmp_path, "abc"))).split("all")
        assert [entry.name for entry in split.select([2, 0]).entries] == ["c", "a"]
        with pytest.raises(SettingError, match="'all' has no picture 3; allowed are 0 to 2"):
            split.select([3])

    def test_a_broken_picture_is_named_and_the_rest_is_read(self, tmp_path, layout):
        split = open_data(settings(WRITERS[layout](tmp_path, "abc"))).split("all")
        split.entries[1].image.write_bytes(split.entries[1].image.read_bytes()[:60])
        with pytest.raises(DataError, match=r"b\.png can't be read as a picture"):
            split[1]
        assert mask_is(split[2], BOX)


def test_what_cannot_be_opened_is_explained(tmp_path):
    with pytest.raises(DataError, match=r"The data folder .*nowhere does not exist"):
        open_data(settings(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"is empty.*pairs: .*nuclei: "):
        open_data(settings(tmp_path))
    save(tmp_path / "pictures" / "a.png", scene(0))
    with pytest.raises(DataError, match=r"is in no known layout.*oxford-pet: images/.*coco: _annotations"):
        open_data(settings(tmp_path))
    with pytest.raises(DataError, match="is a file"):
        open_data(settings(tmp_path / "pictures" / "a.png"))
    with pytest.raises(UnknownNameError, match=r"Unknown layout 'pears'\. Did you mean 'pairs'"):
        open_data(settings(tmp_path, layout="pears"))
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    with pytest.raises(DataError, match="holds no picture in layout 'pairs'"):
        open_data(settings(tmp_path))


def test_settings_make_the_path_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert settings(Path("set")).path == tmp_path / "set"


class TestPairs:
    @pytest.mark.parametrize("suffix", ["", "_mask"])
    def test_black_and_white_is_background_and_foreground(self, tmp_path, suffix):
        save(tmp_path / "images" / "a.jpg", scene(0))
        mask = tmp_path / "masks" / f"a{suffix}.png"
        for values in (BOX, BOX * 255, BOX * 0, BOX * 0 + 1):
            save(mask, values)
            assert mask_is(only(tmp_path), values > 0)
        save(mask, BOX.astype(bool))
        assert mask_is(only(tmp_path), BOX)

    def test_values_are_classes_where_these_are_named(self, tmp_path):
        write_pairs(tmp_path, "a", BOX * 2)
        names = ("background", "pet", "border")
        assert open_data(settings(tmp_path, classes=names)).task.classes == names
        assert mask_is(only(tmp_path, classes=names), BOX * 2)
        with pytest.raises(MaskValueError, match=r"a\.png holds the value 2; allowed are 0 to 1"):
            only(tmp_path, classes=names[:2])
        assert mask_is(only(tmp_path), BOX)
        with pytest.raises(SettingError, match="Name the background first"):
            only(tmp_path, classes=("pet",))

    @pytest.mark.parametrize("foreground", [1, 255])
    def test_an_ignored_value_is_not_valid(self, tmp_path, foreground):
        ignored = 7 if foreground == 255 else 255
        label = BOX * foreground
        label[:2] = ignored
        write_pairs(tmp_path, "a", label)
        sample = only(tmp_path, ignore=ignored)
        assert mask_is(sample, label == foreground)
        assert torch.equal(~sample.valid, torch.from_numpy(label == ignored))
        with pytest.raises(DataError, match=r"Masks hold the values 0, .*--masks foreground"):
            only(tmp_path)
        with pytest.raises(
            SettingError, match=r"value 1 of a mask can't be ignored: it is the class 'foregr"
        ):
            only(tmp_path, ignore=1)

    def test_an_ignored_value_is_not_valid_among_named_classes(self, tmp_path):
        label = BOX * 2
        label[:2] = 255
        write_pairs(tmp_path, "a", label)
        sample = only(tmp_path, ignore=255, classes=("background", "pet", "border"))
        assert mask_is(sample, BOX * 2 * (label != 255))
        assert torch.equal(sample.valid, torch.from_numpy(label != 255))

    def test_grey_edges_are_refused(self, tmp_path):
        smooth = BOX * 255
        smooth[4, 6] = 128
        write_pairs(tmp_path, "a", smooth)
        with pytest.raises(DataError, match=r"Masks hold the values 0, 128 \(a\.png\), 255 .*grey levels"):
            only(tmp_path)
        assert mask_is(only(tmp_path, masks="foreground"), smooth > 0)

    def test_sizes_must_agree(self, tmp_path):
        write_pairs(tmp_path, "a", BOX[:, :15] * 255)
        with pytest.raises(SizeMismatchError, match=r"a\.png is 15 x 20 pixels, its picture a\.png 20 x 20"):
            only(tmp_path)

    def test_pictures_and_masks_must_pair_up(self, tmp_path):
        write_pairs(tmp_path, "abcdef")
        for name in "abcd":
            (tmp_path / "masks" / f"{name}.png").unlink()
        with pytest.raises(
            DataError, match=r"Pictures have no mask \(4\): .*a\.png, .*c\.png, \.\.\..*data check"
        ):
            open_data(settings(tmp_path))
        for name in "abcdef":
            (tmp_path / "images" / f"{name}.png").unlink()
        with pytest.raises(DataError, match=r"Masks have no picture \(2\): .*e\.png, .*f\.png"):
            open_data(settings(tmp_path))

    def test_files_that_share_a_stem_are_ambiguous(self, tmp_path):
        write_pairs(tmp_path, "a")
        save(tmp_path / "images" / "a.tif", scene(1))
        with pytest.raises(DataError, match=r"Files share a stem \(1\): .*a\.tif"):
            open_data(settings(tmp_path))
        (tmp_path / "images" / "a.tif").unlink()
        save(tmp_path / "masks" / "a_mask.png", BOX)
        with pytest.raises(DataError, match=r"Pictures have several masks \(1\): .*a_mask\.png"):
            open_data(settings(tmp_path))

    def test_a_test_split_may_come_without_masks(self, tmp_path):
        write_pairs(tmp_path / "train", "abcdefg")
        save(tmp_path / "test" / "images" / "x.png", scene(9))
        split = open_data(settings(tmp_path)).split("test")
        assert split[0].mask is None
        assert not split.entries[0].labelled
        (tmp_path / "test" / "images" / "notes.docx").touch()
        (found,) = [each for each in check_data(settings(tmp_path)).findings if each.kind == "unknown-file"]
        assert found.names == (str(tmp_path / "test" / "images" / "notes.docx"),)

    @pytest.mark.parametrize(
        ("picture", "mask"),
        [
            ("a.png", "a_mask.png"),  # BUSI
            ("000_img.png", "000_masks.png"),  # Cellpose's own set
            ("a.tif", "a_cp_masks.png"),  # what its command writes
            ("train_1.bmp", "train_1_anno.bmp"),  # GlaS
        ],
    )
    def test_masks_may_lie_beside_their_pictures(self, tmp_path, picture, mask):
        for folder in ("train", "test"):
            save(tmp_path / folder / picture, scene(1))
            save(tmp_path / folder / mask, BOX * 255)
        dataset = open_data(settings(tmp_path))
        assert dataset.layout == "pairs"
        assert sizes(dataset) == {"train": 1, "test": 1}
        sample = dataset.split("test")[0]
        assert mask_is(sample, BOX)
        assert torch.equal(sample.image, read_images([tmp_path / "test" / picture], size=SIDE)[0])
        (tmp_path / "test" / picture).unlink()
        with pytest.raises(DataError, match=rf"Masks have no picture \(1\): .*{re.escape(mask)}"):
            open_data(settings(tmp_path))
        (tmp_path / "train" / mask).rename(tmp_path / "train" / f"{Path(picture).stem}_mask_1.png")
        with pytest.raises(DataError, match="is in no known layout"):
            open_data(settings(tmp_path))

    def test_a_folder_of_sets_names_them(self, tmp_path):
        for name in ("benign", "normal"):
            save(tmp_path / name / "a.png", scene(1))
            save(tmp_path / name / "a_mask.png", BOX)
        (tmp_path / "texts").mkdir()
        with pytest.raises(
            DataError, match=r"Folders in it are sets: benign \(pairs\), normal \(pairs\)\. Name"
        ):
            open_data(settings(tmp_path))

    def test_what_is_beside_them_is_named(self, tmp_path):
        save(tmp_path / "a.png", scene(1))
        save(tmp_path / "a_mask.png", BOX)
        for name in ("a_masks.png", "a_mask_1.png", "b_label.png"):
            save(tmp_path / name, BOX)
            with pytest.raises(DataError, match=rf"Pictures have several|have no (mask|picture).*{name}"):
                open_data(settings(tmp_path))
            (tmp_path / name).unlink()


class TestOxfordPet:
    @pytest.mark.parametrize("border", ["foreground", "background", "ignore", "class"])
    def test_border_is_what_it_is_said_to_be(self, tmp_path, border):
        dataset = open_data(settings(write_pets(tmp_path, "abcdefgh", "ij"), border=border))
        assert dataset.layout == "oxford-pet"
        assert sizes(dataset) == {"train": 7, "valid": 1, "test": 2}
        sample = dataset.split("test")[0]
        inner = np.zeros_like(BOX)
        inner[5:9, 7:15] = 1
        edge = BOX - inner
        expected = inner + {"foreground": 1, "background": 0, "ignore": 0, "class": 2}[border] * edge
        assert mask_is(sample, expected)
        assert torch.equal(sample.valid, torch.from_numpy(edge == 0) | (border != "ignore"))
        assert dataset.task.classes == ("background", "pet", "border")[: 3 if border == "class" else 2]

    def test_what_cannot_be_used_is_named(self, tmp_path):
        write_pets(tmp_path, "abc", "d")
        save(tmp_path / "annotations" / "trimaps" / "cat_d.png", BOX)
        with pytest.raises(MaskValueError, match=r"cat_d\.png holds the value 0; allowed are 1 \(pet\)"):
            open_data(settings(tmp_path)).split("test")[0]
        (tmp_path / "images" / "cat_a.jpg").unlink()
        (tmp_path / "annotations" / "trimaps" / "cat_b.png").unlink()
        message = r"trainval\.txt lists are not in images/ \(1\): cat_a\..* have no trimap \(1\): cat_b"
        with pytest.raises(DataError, match=message):
            open_data(settings(tmp_path))
        (tmp_path / "annotations" / "test.txt").unlink()
        with pytest.raises(DataError, match=r"test\.txt is missing"):
            open_data(settings(tmp_path))


@pytest.mark.parametrize(
    ("layout", "setting", "value", "message"),
    [
        (
            "oxford-pet",
            "classes",
            ("a", "b"),
            r"--classes is for data in the layout 'volumes' or 'coco' or .*, not 'oxford",
        ),
        (
            "oxford-pet",
            "ignore",
            255,
            r"--ignore 255 is for data in the layout 'volumes' or 'pairs', not 'oxford-pet'",
        ),
        ("oxford-pet", "train_dir", "here", r"--train-dir here is for .*, not 'oxford-pet'"),
        ("oxford-pet", "merge", False, r"--no-merge is for .*'coco' or 'labelme', not 'oxford-pet'"),
        ("pairs", "merge", False, "--no-merge is for .*, not 'pairs', where it would do nothing: leave"),
        ("pairs", "border", "class", r"--border class is for .*'oxford-pet', not 'pairs'"),
        ("coco", "border", "ignore", r"--border ignore is for .*, not 'coco'"),
        ("coco", "masks", "classes", r"--masks classes is for .*'pairs', not 'coco'"),
        ("nuclei", "classes", ("cell",), r"--classes is for .*, not 'nuclei'"),
        ("nuclei", "palette", (("a", "0 0 0"),), r"--palette is for .*, not 'nuclei'"),
    ],
)
def test_a_setting_that_would_do_nothing_is_refused(layout, setting, value, message, tmp_path):
    (WRITERS | {"oxford-pet": lambda folder, names: write_pets(folder, names, "z")})[layout](tmp_path, "abcd")
    with pytest.raises(SettingError, match=message):
        open_data(settings(tmp_path, **{setting: value}))
    with pytest.raises(SettingError, match=message):
        check_data(settings(tmp_path, **{setting: value}))


class TestNuclei:
    def test_are_found_below_stage1_train(self, tmp_path):
        write_nuclei(tmp_path / "stage1_train", "abc")
        save(tmp_path / "stage1_test" / "x" / "images" / "x.png", scene(9))
        assert len(open_data(settings(tmp_path)).split("all")) == 3

    def test_a_picture_without_nuclei_is_an_empty_mask(self, tmp_path):
        write_nuclei(tmp_path, "a")
        for file in (tmp_path / "a" / "masks").iterdir():
            file.unlink()
        assert mask_is(only(tmp_path), BOX * 0)

    def test_what_cannot_be_used_is_named(self, tmp_path):
        write_nuclei(tmp_path, "abc")
        save(tmp_path / "a" / "masks" / "1.png", BOX[:, :15])
        with pytest.raises(SizeMismatchError, match=r"1\.png is 15 x 20 pixels, 0\.png beside it 20 x 20"):
            open_data(settings(tmp_path)).split("all")[0]
        save(tmp_path / "b" / "images" / "b.png", scene(0)[:, :15])
        with pytest.raises(SizeMismatchError, match=r"are 20 x 20 pixels, their picture b\.png 15 x 20"):
            open_data(settings(tmp_path)).split("all")[1]
        save(tmp_path / "c" / "images" / "other.png", scene(1))
        with pytest.raises(DataError, match=r"don't hold exactly one picture \(1\): .*c\."):
            open_data(settings(tmp_path))


def real(name: str) -> Path:
    folder = Path(os.environ.get("SEGLENS_DATA", Path(__file__).parents[2].parent / "shared" / "data")) / name
    if not folder.is_dir():
        pytest.skip("the real images are not here: set SEGLENS_DATA to their folder")
    return folder


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "layout", "classes", "sizes"),
    [
        ("dsb2018", "nuclei", ("background", "nucleus"), (422, 90, 90)),
        ("oxford-iiit-pet", "oxford-pet", ("background", "pet"), (303, 53, 232)),
        ("tumor", "coco", ("background", "foreground"), (1502, 429, 102)),
        ("tumor-polygons", "coco", ("background", "Tumor"), (437, 127, 36)),
    ],
)
def test_real_sets_open_by_themselves(name, layout, classes, sizes):
    dataset = open_data(settings(real(name)))
    assert (dataset.layout, dataset.task.classes) == (layout, classes)
    assert tuple(len(split) for split in dataset.splits.values()) == sizes
    for split in dataset.splits.values():
        sample = split[len(split) // 2]
        assert sample.mask is not None
        assert 0 < sample.mask.float().mean() < 0.9
        assert 0 <= sample.image.min() < sample.image.max() <= 1


@pytest.mark.parametrize("layout", ["pairs", "nuclei", "classes"])
@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("columns", [SIDE, 14])
def test_masks_of_pictures_that_are_stored_turned(tmp_path, layout, orientation, columns):
    """A mask without the tag is drawn upright or as stored: of a square, or upside down, nothing tells."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = BOX[:, :columns] * 255
    upright = np.rot90(stored, {3: 2, 6: -1}[orientation]).copy()

    def read(name, mask, **tag):
        place = tmp_path / name / "a" if layout == "nuclei" else tmp_path / name
        masks = place / "masks" / "cell" if layout == "classes" else place / "masks"
        for folder in (place / "images", masks):
            folder.mkdir(parents=True)
        Image.fromarray(scene(1)[:, :columns].copy()).save(place / "images" / "a.jpg", exif=exif)
        Image.fromarray(mask).save(masks / "a.png", **tag)
        data = settings(tmp_path / name, layout="nuclei" if layout == "nuclei" else "pairs")
        found = open_data(data.model_copy(update={"multilabel": layout == "classes"})).split("all")[0].mask
        assert found is not None
        return np.array_equal(found.numpy().reshape(upright.shape) > 0, upright > 0)

    assert read("tagged", stored, exif=exif)
    told_by_size = orientation == 6 and columns != SIDE
    if told_by_size:
        assert read("upright", upright)
    else:
        with pytest.raises(DataError, match=r"EXIF orientation .*size of its mask a.png doesn't tell"):
            read("upright", upright)
    message = "must be of one size" if told_by_size else r"size of its mask a\.png doesn't tell"
    with pytest.raises(DataError, match=message):
        read("stored", stored)


def test_nuclei_that_were_redrawn_are_read_anew(tmp_path):
    """In one process: a mask that is mended in a notebook counts as it is now."""
    (tmp_path / "a/images").mkdir(parents=True)
    (tmp_path / "a/masks").mkdir()
    Image.fromarray(scene(1)).save(tmp_path / "a/images/a.png")
    for mask in (BOX, 1 - BOX):
        Image.fromarray(mask * np.uint8(255)).save(tmp_path / "a/masks/one.png")
        sample = open_data(settings(tmp_path, layout="nuclei")).split("all")
        found = sample[0].mask
        assert found is not None
        assert np.array_equal(found.numpy(), mask)

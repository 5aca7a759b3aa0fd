"""Oracle: sets of a few pixels, written by hand in each layout, whose masks are known exactly."""

import json
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle

from seglens.data.layout import DataSettings
from seglens.data.opening import LAYOUTS, open_data
from seglens.errors import DataError, MaskValueError, SettingError, SizeMismatchError, UnknownNameError

SIDE = 20
BOX = np.zeros((SIDE, SIDE), np.uint8)
BOX[4:10, 6:16] = 1


def save(file: Path, pixels: np.ndarray) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)
    return file


def scene(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(noise).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def write_pairs(folder: Path, names: str, mask: np.ndarray = BOX * 255) -> Path:
    for name in names:
        save(folder / "images" / f"{name}.png", scene(ord(name)))
        save(folder / "masks" / f"{name}.png", mask)
    return folder


def write_nuclei(folder: Path, names: str) -> Path:
    for name in names:
        save(folder / name / "images" / f"{name}.png", scene(ord(name)))
        for index, columns in enumerate((slice(6, 11), slice(11, 16))):
            nucleus = np.zeros_like(BOX)
            nucleus[4:10, columns] = 255
            save(folder / name / "masks" / f"{index}.png", nucleus)
    return folder


def write_pets(folder: Path, trainval: str, test: str) -> Path:
    trimap = np.full((SIDE, SIDE), 2, np.uint8)
    trimap[4:10, 6:16] = 3
    trimap[5:9, 7:15] = 1
    for name in trainval + test:
        save(folder / "images" / f"cat_{name}.jpg", scene(ord(name)))
        save(folder / "annotations" / "trimaps" / f"cat_{name}.png", trimap)
    (folder / "annotations" / "trimaps" / f"._cat_{name}.png").write_bytes(b"left by macOS")
    for file, names in (("trainval.txt", trainval), ("test.txt", test)):
        lines = ["#Image CLASS ID", *(f"cat_{name} 1 1 1" for name in names)]
        (folder / "annotations" / file).write_text("\n".join(lines))
    return folder


def write_coco(
    folder: Path, annotations: Sequence[Any], names: str = "a", categories=((1, "tumor"),)
) -> Path:
    images = [{"id": ord(name), "file_name": f"{name}.png", "height": SIDE, "width": SIDE} for name in names]
    for name in names:
        save(folder / f"{name}.png", scene(ord(name)))
    content = {
        "images": images,
        "categories": [{"id": key, "name": name} for key, name in categories],
        "annotations": [
            {"id": index, "image_id": ord("a"), "category_id": 1, "iscrowd": 0, **annotation}
            for index, annotation in enumerate(annotations)
        ],
    }
    (folder / "_annotations.coco.json").write_text(json.dumps(content))
    return folder


def polygon(left: int, top: int, right: int, bottom: int) -> list[list[float]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


def uncompressed(mask: np.ndarray) -> dict:
    """Run lengths in columns, beginning with zeros, by definition."""
    flat = mask.flatten(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    return {"size": [SIDE, SIDE], "counts": counts if flat[0] == 0 else [0, *counts]}


def compressed(mask: np.ndarray) -> dict:
    coded = rle.encode(np.asfortranarray(mask))
    return {"size": coded["size"], "counts": coded["counts"].decode()}


def settings(path: Path, **others) -> DataSettings:
    return DataSettings(path=path, **others)


def sizes(dataset) -> dict[str, int]:
    return {name: len(split) for name, split in dataset.splits.items()}


def only(path: Path, **others):
    """Return the one sample of a set."""
    split = open_data(settings(path, **others)).split("all")
    assert len(split) == 1
    return split[0]


def mask_is(sample, expected: np.ndarray) -> bool:
    return torch.equal(sample.mask, torch.from_numpy(expected.astype(np.int64)))


WRITERS = {
    "pairs": lambda folder, names: write_pairs(folder, names),
    "coco": lambda folder, names: write_coco(
        folder, [{"segmentation": polygon(6, 4, 16, 10), "image_id": ord(name)} for name in names], names
    ),
    "nuclei": lambda folder, names: write_nuclei(folder, names),
}


def test_every_layout_is_tested():
    assert set(WRITERS) | {"oxford-pet"} == set(LAYOUTS)


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
        with pytest.raises(DataError, match=r"no folder .*elsewhere for the valid split.*--valid-dir"):
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
        with pytest.raises(MaskValueError, match=r"a\.png holds the value\(s\) 0, 2; allowed are 0 and 255"):
            only(tmp_path)
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
        with pytest.raises(MaskValueError, match="holds the value"):
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
        with pytest.raises(
            MaskValueError, match=r"holds the value\(s\) 128; allowed are 0 and 255, or 0 and 1"
        ):
            only(tmp_path)

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


class TestCoco:
    @pytest.mark.parametrize("outline", [polygon(6, 4, 16, 10), uncompressed(BOX), compressed(BOX)])
    def test_all_kinds_of_outline_give_the_same_pixels(self, tmp_path, outline):
        assert mask_is(only(write_coco(tmp_path, [{"segmentation": outline}])), BOX)

    def test_several_outlines_are_joined_and_none_is_an_empty_mask(self, tmp_path):
        halves = [{"segmentation": polygon(6, 4, 11, 10)}, {"segmentation": polygon(11, 4, 16, 10)}]
        assert mask_is(only(write_coco(tmp_path / "two", halves)), BOX)
        parts = [{"segmentation": polygon(6, 4, 11, 10) + polygon(11, 4, 16, 10)}]
        assert mask_is(only(write_coco(tmp_path / "parts", parts)), BOX)
        sample = only(write_coco(tmp_path / "none", []))
        assert mask_is(sample, BOX * 0)
        assert sample.valid.all()

    def test_a_crowd_is_ignored_but_where_an_object_is_outlined(self, tmp_path):
        crowd = np.zeros_like(BOX)
        crowd[4:18, 6:11] = 1
        annotations = [{"segmentation": uncompressed(crowd), "iscrowd": 1}, {"segmentation": compressed(BOX)}]
        sample = only(write_coco(tmp_path, annotations))
        assert mask_is(sample, BOX)
        assert torch.equal(~sample.valid, torch.from_numpy((crowd == 1) & (BOX == 0)))

    def test_categories_are_merged_chosen_or_kept_apart(self, tmp_path):
        categories = ((0, "Tumor"), (1, "0"), (2, "1"), (3, "unused"))
        annotations = [
            {"segmentation": polygon(6, 4, 8, 6), "category_id": 2},
            {"segmentation": polygon(6, 4, 16, 10), "category_id": 1},
        ]
        write_coco(tmp_path, annotations, categories=categories)
        small = np.zeros_like(BOX)
        small[4:6, 6:8] = 1
        assert open_data(settings(tmp_path)).task.classes == ("background", "foreground")
        assert mask_is(only(tmp_path), BOX)
        # "1" is the name of category 2; a name goes before an id, and "2" is no name.
        for chosen in ("1", "2"):
            assert open_data(settings(tmp_path, classes=(chosen,))).task.classes == ("background", "1")
            assert mask_is(only(tmp_path, classes=(chosen,)), small)
        assert open_data(settings(tmp_path, merge=False)).task.classes == ("background", "0", "1")
        assert mask_is(only(tmp_path, merge=False), BOX + small)  # the small one lies on top
        assert mask_is(only(tmp_path, merge=False, classes=("1", "0")), 2 * BOX.astype(int) - small)
        with pytest.raises(UnknownNameError, match=r"Unknown category 'tumour'\. Did you mean 'Tumor'"):
            open_data(settings(tmp_path, classes=("tumour",)))

    def test_categories_go_by_name_where_splits_number_them_differently(self, tmp_path):
        note = {"segmentation": compressed(BOX)}
        write_coco(tmp_path / "train", [{**note, "category_id": 1}], categories=((1, "x"), (2, "y")))
        write_coco(tmp_path / "test", [{**note, "category_id": 1}], categories=((1, "y"), (2, "x")))
        dataset = open_data(settings(tmp_path, merge=False))
        drawn = {"train": dataset.task.class_index("x"), "test": dataset.task.class_index("y")}
        for name, index in drawn.items():
            assert mask_is(dataset.split(name)[0], BOX * index)

    def test_what_cannot_be_used_is_named(self, tmp_path):
        file = write_coco(tmp_path, [{"segmentation": compressed(BOX)}], "ab") / "_annotations.coco.json"
        (tmp_path / "b.png").unlink()
        with pytest.raises(DataError, match=r"lists are missing \(1\): .*b\.png"):
            open_data(settings(tmp_path))
        for content, message in (
            (file.read_text()[:100], "is no COCO file: the file: Invalid JSON"),
            ('{"images": []}', "is no COCO file: categories: Field required"),
        ):
            file.write_text(content)
            with pytest.raises(DataError, match=message):
                open_data(settings(tmp_path))

    @pytest.mark.parametrize(
        ("annotation", "error", "message"),
        [
            ({"segmentation": []}, DataError, "have a box but no outline"),
            ({"bbox": [1, 2, 3, 4]}, DataError, "have a box but no outline"),
            (
                {"segmentation": {"size": [SIDE, 5], "counts": [5 * SIDE]}},
                SizeMismatchError,
                "is 5 x 20 pixels",
            ),
            ({"segmentation": {"size": [SIDE, SIDE]}}, DataError, r"of .*a\.png can't be drawn"),
        ],
    )
    def test_outlines_that_cannot_be_drawn_are_errors(self, tmp_path, annotation, error, message):
        write_coco(tmp_path, [annotation])
        with pytest.raises(error, match=message):
            only(tmp_path)

    def test_an_outline_of_two_points_encloses_nothing(self, tmp_path):
        """pycocotools would take the four numbers for a box."""
        assert mask_is(only(write_coco(tmp_path, [{"segmentation": [[2, 2, 9, 9]]}])), BOX * 0)


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
        with pytest.raises(SettingError, match="has its own splits and classes"):
            open_data(settings(tmp_path, classes=("a", "b")))
        with pytest.raises(SettingError, match=r"--ignore 255 is for masks of the layout 'pairs', not 'oxf"):
            open_data(settings(tmp_path, ignore=255))
        (tmp_path / "images" / "cat_a.jpg").unlink()
        (tmp_path / "annotations" / "trimaps" / "cat_b.png").unlink()
        message = r"trainval\.txt lists are not in images/ \(1\): cat_a\..* have no trimap \(1\): cat_b"
        with pytest.raises(DataError, match=message):
            open_data(settings(tmp_path))
        (tmp_path / "annotations" / "test.txt").unlink()
        with pytest.raises(DataError, match=r"test\.txt is missing"):
            open_data(settings(tmp_path))


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

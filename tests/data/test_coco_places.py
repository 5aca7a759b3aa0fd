"""Where tools put COCO and Labelme files: pictures are found, and splits are those that folders say."""

import json
from pathlib import Path

import numpy as np
import pytest
from tests.data.layouts import BOX, SIDE, mask_is, only, polygon, save, scene, sizes, write_pairs

from seglens.data.layout import DataSettings
from seglens.data.opening import open_data
from seglens.errors import DataError, SettingError


def write(file: Path, listed: dict[str, str]) -> None:
    """Write a COCO file that lists names, and the pictures at their places below its set."""
    notes = [
        {"id": i, "image_id": i, "category_id": 1, "segmentation": polygon(6, 4, 16, 10)}
        for i in range(len(listed))
    ]
    images = [{"id": i, "file_name": name, "height": SIDE, "width": SIDE} for i, name in enumerate(listed)]
    content = {"images": images, "annotations": notes, "categories": [{"id": 1, "name": "cell"}]}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    for seed, place in enumerate(listed.values()):
        save(Path(place), scene(hash(place) % 1000 + seed))


def opened(path: Path, **others):
    return open_data(DataSettings(path=path, **others))


THREE = {"train": 3, "valid": 1, "test": 2}


@pytest.mark.parametrize("folder", ["{split}", "images/{split}", "{split}/images"])
@pytest.mark.parametrize("named", [True, False])
def test_a_file_at_the_root_is_split_by_the_folders_of_its_pictures(tmp_path, folder, named):
    listed = {}
    for split, num in THREE.items():
        place = folder.format(split="val" if split == "valid" else split)
        for i in range(num):
            listed[f"{place if named else ''}/{split}{i}.png".lstrip("/")] = (
                f"{tmp_path}/{place}/{split}{i}.png"
            )
    write(tmp_path / "_annotations.coco.json", listed)
    dataset = opened(tmp_path)
    assert sizes(dataset) == THREE
    for name, split in dataset.splits.items():
        assert all(name in entry.name for entry in split.entries)
    assert mask_is(dataset.split("test")[0], BOX)


def test_what_cannot_be_split_is_refused(tmp_path):
    mixed = {"train/a.png": f"{tmp_path}/mixed/train/a.png", "b.png": f"{tmp_path}/mixed/b.png"}
    write(tmp_path / "mixed" / "_annotations.coco.json", mixed)
    with pytest.raises(DataError, match=r"b\.png is in no folder of a split, .*train/a\.png is"):
        opened(tmp_path / "mixed")
    write(tmp_path / "beside" / "_annotations.coco.json", {"a.png": f"{tmp_path}/beside/a.png"})
    save(tmp_path / "beside" / "Test" / "b.png", scene(1))
    with pytest.raises(DataError, match=r"a\.png is in no folder of a split, .*Test is"):
        opened(tmp_path / "beside")
    write(tmp_path / "two" / "_annotations.coco.json", {"a.png": f"{tmp_path}/two/train/a.png"})
    save(tmp_path / "two" / "test" / "a.png", scene(1))
    with pytest.raises(DataError, match="Several pictures have the name"):
        opened(tmp_path / "two")


def test_pairs_beside_folders_of_splits_are_refused(tmp_path):
    write_pairs(tmp_path, "abc")
    write_pairs(tmp_path / "test", "d")
    with pytest.raises(DataError, match=r"of its own and in test/.*--train-dir"):
        opened(tmp_path)
    assert sizes(opened(tmp_path, train_dir=".", valid_dir="test"))["train"] == 3
    (tmp_path / "test" / "masks").rename(tmp_path / "test" / "other")
    with pytest.raises(DataError, match="a set whose folders name splits is not split again"):
        opened(tmp_path)


def test_two_folders_of_one_split_are_refused(tmp_path):
    for folder in ("train", "val", "validation"):
        write_pairs(tmp_path / folder, "ab")
    with pytest.raises(DataError, match=r"several folders of the valid split: val/, validation/"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("file", "folder"),
    [
        ("instances_{0}.json", "images"),
        ("instances_{0}.json", "images/{0}"),
        ("instances_{0}2017.json", "{0}2017"),
    ],
)
def test_folders_of_cvat_and_coco(tmp_path, file, folder):
    for split, num in (("train", 3), ("val", 2)):
        place = tmp_path / folder.format(split)
        listed = {f"{split}{i}.png": f"{place}/{split}{i}.png" for i in range(num)}
        write(tmp_path / "annotations" / file.format(split), listed)
    (tmp_path / "annotations" / "captions_train2017.json").write_text("{}")
    dataset = opened(tmp_path)
    assert (dataset.layout, len(dataset.split("valid"))) == ("coco", 2)
    assert len(dataset.split("all")) == 5


def test_one_picture_in_two_splits_is_refused(tmp_path):
    for split in ("train", "val"):
        write(tmp_path / "annotations" / f"instances_{split}.json", {"a.png": f"{tmp_path}/images/a.png"})
    with pytest.raises(DataError, match=r"listed in several splits.*a\.png"):
        opened(tmp_path)


@pytest.mark.parametrize("name", ["images\\1f-a.png", "images/1f-a.png", "/data/upload/3/1f-a.png"])
@pytest.mark.parametrize("file", ["result.json", "result_coco.json"])
def test_exports_of_label_studio(tmp_path, name, file):
    write(tmp_path / file, {name: f"{tmp_path}/images/1f-a.png"})
    assert mask_is(only(tmp_path), BOX)


def test_cvat_without_subsets_is_dealt_to_splits(tmp_path):
    listed = {f"{i}.png": f"{tmp_path}/images/{i}.png" for i in range(8)}
    write(tmp_path / "annotations" / "instances_default.json", listed)
    assert list(opened(tmp_path).splits) == ["train", "valid", "test"]


def shape(kind: str, points: list, label: str = "cell") -> dict:
    return {"label": label, "shape_type": kind, "points": points, "group_id": None, "flags": {}}


def write_labelme(folder: Path, name: str, shapes: list, **others) -> Path:
    save(folder / f"{name}.png", scene(len(name)))
    content = {"version": "5.4", "imagePath": f"{name}.png", "imageHeight": SIDE, "imageWidth": SIDE}
    (folder / f"{name}.json").write_text(json.dumps({**content, "shapes": shapes, **others}))
    return folder


class TestLabelme:
    def test_polygons_and_rectangles(self, tmp_path):
        corners = [[6, 4], [16, 4], [16, 10], [6, 10]]
        for kind, points in (("polygon", corners), ("rectangle", [[16, 10], [6, 4]])):
            assert mask_is(only(write_labelme(tmp_path, "a", [shape(kind, points)])), BOX)
        assert open_data(DataSettings(path=tmp_path)).layout == "labelme"

    def test_a_circle_has_the_area_of_one(self, tmp_path):
        sample = only(write_labelme(tmp_path, "a", [shape("circle", [[10, 10], [16, 10]])]))
        rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
        disc = (rows - 10) ** 2 + (columns - 10) ** 2 <= 36
        assert (sample.mask.numpy() != disc).sum() <= 16  # half pixels of the outline
        assert sample.mask.sum() == pytest.approx(36 * np.pi, abs=10)

    def test_labels_are_chosen_as_categories_are(self, tmp_path):
        shapes = [shape("rectangle", [[6, 4], [16, 10]], "b"), shape("rectangle", [[1, 1], [3, 3]], "a")]
        write_labelme(tmp_path, "x", shapes)
        assert open_data(DataSettings(path=tmp_path, merge=False)).task.classes == ("background", "a", "b")
        assert mask_is(only(tmp_path, classes=("b",)), BOX)
        with pytest.raises(SettingError, match="names the category 'a' twice"):
            only(tmp_path, classes=("a", "a"))

    def test_shapes_of_one_group_and_label_are_one_object(self, tmp_path):
        """Two pieces and a piece of another label share a number; shapes without one are objects alone."""
        boxes = [(1, 1, "a", 3), (11, 1, "a", 3), (1, 11, "b", 3), (11, 11, "a", None), (15, 15, "a", None)]
        shapes = [
            shape("rectangle", [[x, y], [x + 3, y + 3]], label) | {"group_id": group}
            for x, y, label, group in boxes
        ]
        split = open_data(DataSettings(path=write_labelme(tmp_path, "x", shapes))).split("all")
        assert split.instances is not None
        numbers = split.instances(split.entries[0], split[0]).numpy()
        corners = [numbers[y + 1, x + 1] for x, y, _, _ in boxes]
        assert corners[0] == corners[1]
        assert len(set(corners)) == len(set(np.unique(numbers)) - {0}) == 4
        mask = split[0].mask
        assert mask is not None
        assert int((numbers > 0).sum()) == int(mask.gt(0).sum()) == 5 * 3 * 3

    @pytest.mark.parametrize(
        ("label", "message"),
        [("_background_", "background is what no outline"), ("__ignore__", "pixels don't count")],
    )
    def test_what_its_own_converters_take_for_no_object_is_refused(self, tmp_path, label, message):
        """``labelme2voc.py`` has both in its labels.txt: the background, and pixels that don't count."""
        box = shape("rectangle", [[6, 4], [16, 10]])
        write_labelme(tmp_path, "a", [box, shape("rectangle", [[1, 1], [3, 3]], label)])
        with pytest.raises(DataError, match=message):
            only(tmp_path)
        assert mask_is(only(tmp_path, classes=("cell",)), BOX)

    @pytest.mark.parametrize(
        ("shapes", "others", "message"),
        [
            ([shape("line", [[1, 1], [3, 3]])], {}, r"a\.json, shape 0: 'line' with 2 points"),
            ([shape("polygon", [[1, 1], [3, 3]])], {}, "'polygon' with 2 points"),
            ([shape("polygon", [[1, 1], [3, float("nan")], [1, 3]])], {}, "not all of two finite numbers"),
            ([shape("polygon", [], "")], {}, "Shapes have no label"),
            ([], {"imagePath": "../b.png"}, "climbs out"),
            ([], {"imagePath": "b.png"}, "no picture 'b.png' beside it"),
            ([], {"imageHeight": 2 * SIDE, "imageWidth": 2 * SIDE}, "for a picture of 40 x 40"),
            (
                [shape("rectangle", [[6, 4], [16, 10]], "background")],
                {},
                "background is what no outline covers",
            ),
        ],
    )
    def test_what_is_not_understood_is_refused_by_name(self, tmp_path, shapes, others, message):
        with pytest.raises(DataError, match=message):
            only(write_labelme(tmp_path, "a", shapes, **others))

    def test_a_picture_without_a_file_is_a_problem(self, tmp_path):
        save(write_labelme(tmp_path, "a", []) / "b.png", scene(2))
        with pytest.raises(DataError, match=r"have no Labelme file.*b\.png"):
            only(tmp_path)


def test_panoptic_files_are_refused_by_name(tmp_path):
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": SIDE, "width": SIDE}],
        "annotations": [
            {"image_id": 1, "file_name": "a.png", "segments_info": [{"id": 7, "category_id": 1}]}
        ],
        "categories": [{"id": 1, "name": "cell"}],
    }
    (tmp_path / "_annotations.coco.json").write_text(json.dumps(content))
    save(tmp_path / "a.png", scene(0))
    with pytest.raises(
        DataError, match=r"_annotations.coco.json is COCO panoptic: its masks are in pictures"
    ):
        opened(tmp_path)

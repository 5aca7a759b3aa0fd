"""Outlines of COCO files: polygons, run lengths, categories, as their definition says."""

import numpy as np
import pytest
import torch
from tests.data.layouts import (
    BOX,
    SIDE,
    compressed,
    mask_is,
    only,
    polygon,
    settings,
    uncompressed,
    write_coco,
)

from seglens.data.layout import DataSettings
from seglens.data.opening import open_data
from seglens.errors import DataError, UnknownNameError


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
            (file.read_text()[:100], "is no COCO file: Invalid JSON"),
            ('{"images": []}', "is no COCO file: it has no list 'annotations'"),
        ):
            file.write_text(content)
            with pytest.raises(DataError, match=message):
                open_data(settings(tmp_path))

    @pytest.mark.parametrize(
        ("annotation", "error", "message"),
        [
            ({"segmentation": []}, DataError, "have no outline .*annotation 0: an empty list"),
            ({"bbox": [1, 2, 3, 4]}, DataError, "have no outline .*annotation 0: null"),
            (
                {"segmentation": {"size": [SIDE, 5], "counts": [5 * SIDE]}},
                DataError,
                r"annotation 0: size \[20, 5\], the picture has 20 rows, 20 columns",
            ),
            ({"segmentation": {"size": [SIDE, SIDE]}}, DataError, "Run lengths .*annotation 0: None"),
        ],
    )
    def test_outlines_that_cannot_be_drawn_are_errors(self, tmp_path, annotation, error, message):
        write_coco(tmp_path, [annotation])
        with pytest.raises(error, match=message):
            only(tmp_path)

    def test_an_outline_of_two_points_encloses_nothing(self, tmp_path):
        """pycocotools would take the four numbers for a box; as nothing, the object would be background."""
        write_coco(tmp_path, [{"segmentation": [[2, 2, 9, 9]]}])
        with pytest.raises(DataError, match="enclose nothing"):
            open_data(DataSettings(path=tmp_path))

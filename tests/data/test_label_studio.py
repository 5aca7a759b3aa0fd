"""Exports of Label Studio: its own JSON is refused by name, and percent in a COCO file are warned of."""

import json

import numpy as np
import pytest
from tests.data.layouts import polygon, save

from seglens.data.check import check_data
from seglens.data.layout import DataSettings
from seglens.data.opening import open_data
from seglens.errors import DataError

TASK = {
    "id": 1,
    "data": {"image": "/data/upload/1/a.png"},
    "annotations": [
        {
            "id": 1,
            "result": [
                {
                    "type": "polygonlabels",
                    "original_width": 400,
                    "original_height": 200,
                    "value": {"points": [[10, 10], [50, 10], [50, 50]], "polygonlabels": ["cell"]},
                }
            ],
        }
    ],
}
MINIMAL = {"image": "/data/upload/1/a.png", "id": 1, "label": [], "annotator": 1, "annotation_id": 1}


@pytest.mark.parametrize("tasks", [[TASK], [MINIMAL]])
@pytest.mark.parametrize("name", ["project-1-at-2026.json", "result.json"])
def test_its_own_json_is_refused_by_name(tasks, name, tmp_path):
    save(tmp_path / "a.png", np.zeros((200, 400, 3), np.uint8))
    (tmp_path / name).write_text(json.dumps(tasks))
    with pytest.raises(DataError, match=r"JSON of Label Studio itself.*percent.*export as COCO"):
        open_data(DataSettings(path=tmp_path))


def test_another_list_is_not_taken_for_it(tmp_path):
    (tmp_path / "other.json").write_text(json.dumps([{"id": 1, "data": 3}]))
    with pytest.raises(DataError, match="is in no known layout"):
        open_data(DataSettings(path=tmp_path))


@pytest.mark.parametrize(
    ("size", "boxes", "warned"),
    [
        ((300, 400), [(10, 10, 50, 50), (60, 60, 98, 97)], True),
        ((300, 400), [(10, 10, 50, 50), (60, 60, 98, 80)], False),  # nothing near the lower edge
        ((300, 400), [(10, 10, 50, 50), (60, 60, 101, 97)], False),  # no percent
        ((150, 150), [(10, 10, 50, 50), (60, 60, 98, 97)], False),  # no larger picture
    ],
)
def test_percent_in_a_coco_file_are_warned_of(size, boxes, warned, tmp_path):
    save(tmp_path / "a.png", np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8))
    notes = [
        {"id": i, "image_id": 1, "category_id": 1, "segmentation": polygon(*box)}
        for i, box in enumerate(boxes)
    ]
    images = [{"id": 1, "file_name": "a.png", "height": size[0], "width": size[1]}]
    content = {"images": images, "annotations": notes, "categories": [{"id": 1, "name": "cell"}]}
    (tmp_path / "_annotations.coco.json").write_text(json.dumps(content))
    found = check_data(DataSettings(path=tmp_path)).of("percent")
    assert [each.severity for each in found] == ["warning"] * warned

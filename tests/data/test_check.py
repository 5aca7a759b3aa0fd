"""Oracle: small sets with faults put in by hand, and what is known of the real sets."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seglens.data.check import Findings, are_rectangles, check_data
from seglens.data.layout import DataSettings
from seglens.errors import DataError, UnknownNameError

SIDE = 24
ROWS, COLUMNS = np.mgrid[:SIDE, :SIDE]
DISC = ((ROWS - 11) ** 2 + (COLUMNS - 11) ** 2 < 36).astype(np.uint8) * 255
BOX = ((abs(ROWS - 11) < 5) & (abs(COLUMNS - 13) < 7)).astype(np.uint8) * 255


def save(file: Path, pixels: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)


def scene(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(noise).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def write(folder: Path, names: str, mask: np.ndarray = DISC) -> None:
    for name in names:
        save(folder / "images" / f"{name}.png", scene(ord(name)))
        save(folder / "masks" / f"{name}.png", mask)


def check(path: Path, **others) -> Findings:
    return check_data(DataSettings(path=path, **others))


def names(findings: Findings, kind: str) -> list[str]:
    return [name for finding in findings.of(kind) for name in finding.names]


def test_a_sound_set_has_only_its_class_balance(tmp_path):
    for split, letters in (("train", "abc"), ("valid", "de"), ("test", "f")):
        write(tmp_path / split, letters)
    found = check(tmp_path)
    assert (found.layout, found.splits, found.num_errors) == ("pairs", {"train": 3, "valid": 2, "test": 1}, 0)
    assert [finding.kind for finding in found.findings] == ["class-balance"]
    background, foreground = found.classes
    assert foreground.pixels == pytest.approx((DISC > 0).mean())
    assert background.pixels == pytest.approx(1 - (DISC > 0).mean())
    assert (background.pictures, foreground.pictures) == (1.0, 1.0)


def test_every_fault_is_found_and_none_ends_the_check(tmp_path):
    write(tmp_path, "abcdefghij")
    cut = tmp_path / "images" / "a.png"
    cut.write_bytes(cut.read_bytes()[:80])
    (tmp_path / "masks" / "b.png").write_bytes(b"")
    save(tmp_path / "masks" / "c.png", DISC[:, 2:])
    save(tmp_path / "masks" / "d.png", DISC // 2)
    save(tmp_path / "masks" / "e.png", DISC * 0)
    (tmp_path / "masks" / "f.png").unlink()
    (tmp_path / "images" / "g.png").unlink()
    found = check(tmp_path)
    where = {
        name.split("/")[1]: kind for kind in ("unreadable", "size-mismatch") for name in names(found, kind)
    }
    assert where == {"a": "unreadable", "b": "unreadable", "c": "size-mismatch"}
    (several,) = found.of("mask-values")
    assert "127 (d.png)" in several.text
    assert [name.split("/")[1] for name in names(found, "empty-mask")] == ["e"]
    assert [Path(name).name for name in names(found, "image-without-mask")] == ["f.png"]
    assert [Path(name).name for name in names(found, "mask-without-image")] == ["g.png"]
    severities = [finding.severity for finding in found.findings]
    assert severities == sorted(severities, key=("error", "warning", "note").index)
    assert found.num_errors == 6
    # Of the five that could be read, four show the disc.
    assert found.classes[1].pictures == pytest.approx(4 / 5)
    assert json.loads(json.dumps(found.to_json()))["num_errors"] == 6


def test_near_duplicates_are_found_across_splits_only(tmp_path):
    for split, letters in (("train", "abc"), ("valid", "de"), ("test", "f")):
        write(tmp_path / split, letters)
    brighter = (scene(ord("a")) * 0.6 + 90).astype(np.uint8)
    save(tmp_path / "test" / "images" / "f.png", np.ascontiguousarray(brighter[:, ::-1]))
    save(tmp_path / "train" / "images" / "b.png", scene(ord("c")))
    found = check(tmp_path)
    assert names(found, "near-duplicates") == ["train/a ~ test/f"]
    assert "1 of 3 pictures outside of train" in found.of("near-duplicates")[0].text
    settings = DataSettings(path=tmp_path)
    assert not check_data(settings, near_duplicates=False).of("near-duplicates")


@pytest.mark.parametrize(
    ("boxes", "discs", "severity", "text"),
    [
        ("abcd", "", "warning", "Every mask is made of axis-aligned rectangles"),
        ("abc", "d", "warning", "3 of 4 masks are made of"),
        ("a", "bcd", "note", "1 of 4 masks are axis-aligned"),
    ],
)
def test_masks_that_are_boxes_are_told(tmp_path, boxes, discs, severity, text):
    write(tmp_path, boxes, BOX)
    write(tmp_path, discs)
    (finding,) = check(tmp_path).of("rectangles")
    assert finding.severity == severity
    assert text in finding.text
    assert sorted(name.split("/")[1] for name in finding.names) == list(boxes)


@pytest.mark.parametrize(
    ("region", "expected"),
    [
        (BOX, True),
        (np.maximum(BOX, (ROWS > 20) & (COLUMNS > 10)), True),  # two boxes
        (np.maximum(BOX, (ROWS < 20) & (COLUMNS < 4)), True),
        (DISC, False),
        (np.maximum(BOX, DISC), False),
        (BOX * 0, None),
        (BOX * 0 + 1, None),  # the whole picture
        ((ROWS < 3) & (COLUMNS < 3), None),  # a dot
    ],
)
def test_a_rectangle_fills_its_bounding_box(region, expected):
    assert are_rectangles([torch.from_numpy(region > 0)]) is expected


def test_outlines_are_judged_one_by_one(tmp_path):
    """Two boxes that overlap make no box together."""
    boxes = [[4, 4, 14, 4, 14, 12, 4, 12], [8, 8, 20, 8, 20, 18, 8, 18]]
    save(tmp_path / "a.png", scene(0))
    save(tmp_path / "b.png", scene(1))
    content = {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
        "categories": [{"id": 1, "name": "lesion"}],
        "annotations": [{"image_id": 1, "category_id": 1, "segmentation": [box]} for box in boxes],
    }
    (tmp_path / "_annotations.coco.json").write_text(json.dumps(content))
    found = check(tmp_path)
    assert [name.split("/")[1] for name in names(found, "rectangles")] == ["a"]
    assert [name.split("/")[1] for name in names(found, "unlabelled")] == ["b"]


def test_nuclei_that_overlap_are_told(tmp_path):
    for name, columns in (("a", (2, 9)), ("b", (2, 5))):
        save(tmp_path / name / "images" / "x.png", scene(ord(name)))
        for index, start in enumerate(columns):
            nucleus = ((abs(ROWS - 11) < 5) & (COLUMNS >= start) & (COLUMNS < start + 6)).astype(
                np.uint8
            ) * 255
            save(tmp_path / name / "masks" / f"{index}.png", nucleus)
    assert [name.split("/")[1] for name in names(check(tmp_path), "overlapping-masks")] == ["b"]


def test_classes_that_are_absent_or_rare_are_told(tmp_path):
    mask = DISC // 255
    mask[0, 0] = 2
    write(tmp_path, "abc", mask)
    found = check(tmp_path, classes=("background", "cell", "debris", "other"))
    balance = {finding.text: finding.names for finding in found.of("class-balance")}
    assert balance["Classes never occur."] == ("other",)
    assert [told for text, told in balance.items() if "less than 1%" in text] == [("debris",)]


def test_a_set_that_cannot_be_listed_is_a_finding_and_a_wrong_folder_an_error(tmp_path):
    (tmp_path / "_annotations.coco.json").write_text("{")
    found = check(tmp_path)
    assert [(finding.kind, finding.severity) for finding in found.findings] == [("unreadable", "error")]
    with pytest.raises(DataError, match="does not exist"):
        check(tmp_path / "nowhere")
    with pytest.raises(UnknownNameError, match="Unknown layout 'coca'"):
        check(tmp_path, layout="coca")


def real(name: str) -> Path:
    folder = Path(os.environ.get("SEGLENS_DATA", Path(__file__).parents[2].parent / "shared" / "data")) / name
    if not folder.is_dir():
        pytest.skip("the real images are not here: set SEGLENS_DATA to their folder")
    return folder


@pytest.mark.data
def test_tumor_is_all_rectangles_and_tumor_polygons_is_not():
    boxes = check(real("tumor"))
    (finding,) = boxes.of("rectangles")
    assert finding.severity == "warning"
    assert finding.text.startswith("Every mask is made of axis-aligned rectangles")
    assert len(finding.names) == 2032
    assert len(names(boxes, "unlabelled")) == 1
    assert boxes.num_errors == 0
    outlines = check(real("tumor-polygons"))
    assert not outlines.of("rectangles")
    assert outlines.num_errors == 0
    # Pictures there are in train as well, mirrored or in another contrast.
    assert "157 of 163 pictures outside of train have one in train" in outlines.of("near-duplicates")[0].text


@pytest.mark.data
def test_real_nuclei_that_overlap_are_told(tmp_path):
    """Six of 602 pictures have some; three of these among fourteen, because reading all takes a while."""
    overlapping = ("1609b1b8480ee526", "175dbb364bfefc95", "547ef286ee5f4e5d")
    specimens = sorted((real("dsb2018") / "stage1_train").iterdir())
    for specimen in specimens:
        if specimen in specimens[:11] or specimen.name.startswith(overlapping):
            (tmp_path / specimen.name).symlink_to(specimen)
    found = check(tmp_path)
    assert sum(found.splits.values()) == 14
    assert sorted(name.split("/")[1][:16] for name in names(found, "overlapping-masks")) == list(overlapping)
    assert found.num_errors == 0


def test_a_split_without_any_mark_is_an_error_and_counts_are_told(tmp_path):
    write(tmp_path / "train", "abc")
    write(tmp_path / "test", "de", DISC * 0)
    write(tmp_path / "valid", "f", np.maximum(DISC, ((ROWS < 3) & (COLUMNS < 3)) * np.uint8(255)))
    found = check(tmp_path)
    assert [finding.names for finding in found.of("nothing-marked")] == [
        ("test: foreground, 0 of 2 pictures",)
    ]
    assert found.num_errors == 1
    counts = {row.split: (row.pictures, row.of, row.objects, row.pixels) for row in found.counts}
    area = int((DISC > 0).sum())
    assert counts == {"train": (3, 3, 3, 3 * area), "valid": (1, 1, 2, area + 9), "test": (0, 2, 0, 0)}

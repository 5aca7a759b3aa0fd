"""Outlines of foreign COCO files: the right pixels, or a refusal that names the annotation."""

import json
import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.data.layouts import (
    BOX,
    SIDE,
    compressed,
    mask_is,
    only,
    polygon,
    scene,
    uncompressed,
    write_coco,
)

from seglens.data.check import check_data
from seglens.data.coco_file import read_coco
from seglens.data.layout import DataSettings
from seglens.data.opening import open_data
from seglens.data.outlines import (
    Annotation,
    OutlineError,
    Polygon,
    RunLengths,
    check_box,
    check_position,
    draw,
    leaves_box,
    marks_pixels,
    parse,
)
from seglens.errors import DataError

CORNERS = [[6, 4], [16, 4], [16, 10], [6, 10]]
RUNS = uncompressed(BOX)["counts"]
LEFT, RIGHT = polygon(6, 4, 11, 10), uncompressed(BOX * (np.arange(SIDE) >= 11).astype(np.uint8))


@pytest.mark.parametrize(
    "outline",
    [
        polygon(6, 4, 16, 10)[0],
        CORNERS,
        [CORNERS],
        [[{"x": x, "y": y} for x, y in CORNERS]],
        [{"x": x, "y": y} for x, y in CORNERS],
        [uncompressed(BOX)],
        [compressed(BOX)],
        [*LEFT, RIGHT],
        [RIGHT, *LEFT],
        [polygon(6, 4, 16, 10)[0] + [6, 4]],
        [polygon(6, 4, 16, 10)[0], [1, 1, 2, 2]],
        {"size": [float(SIDE), SIDE], "counts": [float(run) for run in RUNS]},
    ],
)
def test_what_tools_write_is_read(tmp_path, outline):
    assert mask_is(only(write_coco(tmp_path, [{"segmentation": outline}])), BOX)


@pytest.mark.parametrize(
    ("outline", "message"),
    [
        (None, "have no outline .*annotation 7: null"),
        ([], "annotation 7: an empty list"),
        ("6 4 16 4", "annotation 7: text"),
        (True, "annotation 7: true or false"),
        ([6, 4, 10, 6], "might be a box"),
        ([[6, 4, 16, 4, 16, 10, 6]], "odd number of coordinates.*annotation 7: 7 numbers"),
        ([[str(value) for value in polygon(6, 4, 16, 10)[0]]], "no list of numbers"),
        ([[[[6, 4]], [[16, 4]], [[16, 10]]]], "no list of numbers"),
        ([[True, 4, 16, 4, 16, 10]], "no list of numbers"),
        ([[[0, 0], [19, 0], [19, 19], [0, 19]], CORNERS], "ring of points lies within another"),
        ([[0.3, 0.2, 0.8, 0.2, 0.8, 0.5, 0.3, 0.5]], "between 0 and 1.*annotation 7: x 0.3 to 0.8"),
        ([[float("nan"), 4, 16, 4, 16, 10]], "annotation 7: nan"),
        ([[float("-inf"), 4, 16, 4, 16, 10]], "annotation 7: -inf"),
        ([[10**400, 4, 16, 4, 16, 10]], "annotation 7: a huge integer"),
        ([[1e9, 4, 16, 4, 16, 10]], "not finite, or larger"),
        ([[1e6, 4, 16, 4, 16, 10]], "outside of their picture"),
        ([[-164.1, -221.8, 2.1e8, 3.5e8, 226, 236.6]], "outside of their picture"),
        ([[30, 4, 36, 4, 36, 10]], "outside of their picture"),
        ({"size": [SIDE, SIDE], "counts": RUNS[:-1]}, "don't add up.*annotation 7"),
        ({"size": [SIDE, SIDE], "counts": [*RUNS, 5]}, "don't add up"),
        ({"size": [SIDE, SIDE], "counts": [600, -400, 200]}, "annotation 7: -400"),
        ({"size": [SIDE, SIDE], "counts": [100.5, 299.5]}, r"annotation 7: 100\.5"),
        ({"size": [SIDE, SIDE], "counts": [True] * 400}, "annotation 7: True"),
        ({"size": [SIDE, SIDE], "counts": ""}, "don't add up"),
        ({"size": [SIDE, SIDE], "counts": "b1"}, "don't add up"),
        ({"size": [SIDE, SIDE], "counts": "é"}, "can't be decoded"),
        ({"size": [SIDE, SIDE], "counts": "o" * 4000}, "can't be decoded"),
        ({"size": [SIDE, 10], "counts": [200]}, r"size \[20, 10\]"),
        ({"counts": RUNS}, "annotation 7: size None"),
        ({"size": [SIDE, SIDE]}, "annotation 7: None"),
        ({}, "annotation 7: size None"),
    ],
)
def test_what_means_nothing_is_refused_by_name(tmp_path, outline, message):
    write_coco(tmp_path, [{"segmentation": outline, "id": 7}])
    with pytest.raises(DataError, match=message):
        open_data(DataSettings(path=tmp_path))
    assert check_data(DataSettings(path=tmp_path)).num_errors


def test_overhang_is_cut_off_and_stubs_are_left_out_with_a_warning(tmp_path):
    write_coco(
        tmp_path,
        [{"segmentation": polygon(-8, -8, 5, 6)}, {"segmentation": [[2, 2, 9, 9]]}],
    )
    expected = np.zeros_like(BOX)
    expected[:6, :5] = 1
    assert mask_is(only(tmp_path), expected)
    told = [(each.text.split(";")[0], each.names) for each in open_data(DataSettings(path=tmp_path)).warnings]
    assert told[0][0] == "Outlines reach out of their picture"
    assert "annotation 0: by 8 pixels" in told[0][1][0]
    assert "annotation 1: 1" in told[1][1][0]


@pytest.mark.parametrize(
    "outline",
    [
        [[5, 5, 10, 5, 20, 5]],
        [[5, 5, 5, 5, 5, 5]],
        [[5.6, 5.6, 5.8, 5.6, 5.8, 5.9]],
        [[1, 5.7, SIDE - 1, 5.7, SIDE - 1, 5.9, 1, 5.9]],
        {"size": [SIDE, SIDE], "counts": [SIDE * SIDE]},
    ],
)
def test_an_object_that_marks_no_pixel_is_said(tmp_path, outline):
    write_coco(tmp_path, [{"segmentation": polygon(1, 1, 5, 6)}, {"segmentation": outline}])
    (warning,) = [each for each in open_data(DataSettings(path=tmp_path)).warnings if each.kind == "outline"]
    assert "in no mask" in warning.text
    assert warning.names[0].endswith("annotation 1")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-3, SIDE + 3), min_size=6, max_size=8).filter(lambda points: len(points) % 2 == 0))
def test_what_marks_pixels_is_what_is_drawn(points):
    annotation = Annotation("it", 1, (Polygon(tuple(points)),), (SIDE, SIDE))
    try:
        check_position(annotation.shapes, annotation.size)
    except OutlineError:
        return
    assert marks_pixels(annotation) == bool(draw(annotation).any())


def test_pictures_that_no_file_lists_are_said(tmp_path):
    write_coco(tmp_path, [{"segmentation": polygon(1, 1, 5, 6)}])
    (listed,) = tmp_path.glob("*.png")
    shutil.copy(listed, tmp_path / "more.png")
    (warning,) = [each for each in open_data(DataSettings(path=tmp_path)).warnings if each.kind == "unlisted"]
    assert warning.names == (str(tmp_path / "more.png"),)


def test_a_second_coco_file_of_another_name_is_said(tmp_path):
    """The one of a name that is known is read: an older export beside it must not go without a word."""
    write_coco(tmp_path, [{"segmentation": polygon(6, 4, 14, 10)}])
    second = tmp_path / "instances_default.json"
    second.write_text((tmp_path / "_annotations.coco.json").read_text())
    settings = DataSettings(path=tmp_path)
    (found,) = [each for each in open_data(settings).warnings if each.kind == "unknown-file"]
    assert found.names == (str(second),)
    assert not check_data(settings).num_errors


@pytest.mark.parametrize("seed", range(4))
def test_compressed_runs_are_decoded_as_the_coco_api_does(seed):
    mask = (np.random.default_rng(seed).random((SIDE, SIDE)) < 0.5).astype(np.uint8)
    (run,), _ = parse(compressed(mask), (SIDE, SIDE))
    assert isinstance(run, RunLengths)
    assert list(run.counts) == uncompressed(mask)["counts"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"annotations": [{"image_id": "97"}]}, "no picture of the file.*image_id '97' is text"),
        ({"annotations": [{"image_id": 5}]}, "belong to no picture"),
        ({"annotations": [{"image_id": None}]}, "'image_id' of entries is missing"),
        ({"annotations": [{"image_id": True}]}, "'image_id' of entries is missing"),
        ({"annotations": [{"image_id": float("nan")}]}, "'image_id' of entries is missing"),
        ({"annotations": [{"category_id": 9}]}, "belong to no category"),
        ({"annotations": [{"category_id": "1"}]}, "category_id '1' is text, the id there is a number"),
        ({"annotations": [{"iscrowd": 2}]}, "'iscrowd' of annotations is neither 0 nor 1"),
        ({"annotations": [7]}, "are no objects"),
        (
            {"images": [{"id": 97, "file_name": "a.png"}, {"id": 97, "file_name": "a.png"}]},
            "Pictures share an id",
        ),
        ({"images": [{"id": 97, "file_name": "a.png"}, {"id": 98, "file_name": "./a.png"}]}, "listed twice"),
        ({"images": [{"id": 97, "file_name": "a.png", "width": 20, "height": "20"}]}, "are no sizes"),
        (
            {"images": [{"id": 97, "file_name": "a.png", "width": 40, "height": 40}]},
            "is for|are for a picture of 40",
        ),
        ({"images": [{"id": 97, "file_name": "../a.png"}]}, "climbs out"),
        ({"images": [{"id": 97, "file_name": "x/../../a.png"}]}, "climbs out"),
        ({"images": [{"id": 97, "file_name": "..\\..\\a.png"}]}, "climbs out"),
        ({"images": [{"id": 97, "file_name": "/etc/passwd"}]}, "absolute"),
        ({"images": [{"id": 97, "file_name": "C:\\a.png"}]}, "absolute"),
        ({"images": [{"id": 97, "file_name": "https://x.org/a.png"}]}, "an address"),
        ({"images": [{"id": 97, "file_name": "a\u001b[31m.png"}]}, "control characters"),
        ({"images": [{"id": 97, "file_name": "."}]}, "names no file"),
        ({"images": [{"id": 97, "file_name": "a" * 5000}]}, "are missing"),
        ({"images": [{"id": 97}]}, "'file_name' of pictures is missing"),
        ({"categories": [{"id": 1, "name": "x"}, {"id": 1, "name": "y"}]}, "Categories share an id"),
        ({"categories": [{"id": 1, "name": " "}]}, "'name' of categories is missing"),
        (
            {"categories": [{"id": 1, "name": "Background"}]},
            "category 'Background': the background is what no",
        ),
        ({"categories": None}, "no list 'categories'"),
    ],
)
def test_entries_that_mean_nothing_are_refused_by_name(tmp_path, content, message):
    file = write_coco(tmp_path, [{"segmentation": compressed(BOX)}]) / "_annotations.coco.json"
    whole = json.loads(file.read_text())
    if isinstance(content.get("annotations", [None])[0], dict):
        content = {"annotations": [{**whole["annotations"][0], **content["annotations"][0]}]}
    file.write_text(json.dumps({**whole, **content}))
    with pytest.raises(DataError, match=message):
        open_data(DataSettings(path=tmp_path))
    assert check_data(DataSettings(path=tmp_path)).num_errors


def test_two_categories_of_one_name_are_refused_where_both_are_used(tmp_path):
    """Roboflow names the parent of all categories like a category, and never uses it."""
    twice = ((0, "tumor"), (1, "tumor"))
    write_coco(tmp_path, [{"segmentation": compressed(BOX)}], categories=twice)
    assert mask_is(only(tmp_path), BOX)
    notes = [{"segmentation": compressed(BOX)}, {"segmentation": compressed(BOX), "category_id": 0}]
    write_coco(tmp_path, notes, categories=twice)
    with pytest.raises(DataError, match="several categories called 'tumor', with the ids 0, 1"):
        open_data(DataSettings(path=tmp_path))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_byte_order_marks_and_nulls_of_other_tools_are_read(tmp_path, encoding):
    write_coco(tmp_path, [{"segmentation": compressed(BOX), "iscrowd": None}])
    file = tmp_path / "_annotations.coco.json"
    file.write_bytes(file.read_text().encode(encoding))
    assert mask_is(only(tmp_path), BOX)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ("[]", "no object with images"),
        ('{"images": [], "images": []}', "the key 'images' twice"),
        ("", "Invalid JSON"),
        ("9" * 10_000, "Invalid JSON"),
    ],
)
def test_what_is_no_coco_file_is_refused(tmp_path, text, message):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match=message):
        read_coco(tmp_path / "x.json")


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_pictures_that_are_stored_turned(tmp_path, orientation):
    """The oracle is Pillow: a mask turned as the picture is. Where both frames fit, the set is refused."""
    mask = BOX[:, :14]
    exif = Image.Exif()
    exif[0x0112] = orientation
    write_coco(tmp_path, [{"segmentation": polygon(6, 4, 14, 10)}])
    Image.fromarray(scene(1)[:, :14].copy()).save(tmp_path / "a.jpg", exif=exif)
    file, turned = tmp_path / "_annotations.coco.json", {6: -1, 8: 1}.get(orientation, 2)
    content = json.loads(file.read_text())
    content["images"][0] |= {"file_name": "a.jpg", "width": 14, "height": SIDE}
    file.write_text(json.dumps(content))
    if orientation == 3:
        with pytest.raises(DataError, match=r"EXIF orientation 3.*annotated as stored or upright"):
            open_data(DataSettings(path=tmp_path))
        return
    assert mask_is(only(tmp_path), np.rot90(mask, turned).copy())
    content["images"][0] |= {"width": SIDE, "height": 14}
    content["annotations"][0]["segmentation"] = polygon(6, 4, 16, 10)
    file.write_text(json.dumps(content))
    assert mask_is(only(tmp_path), BOX[:14])


def row_by_row(mask):
    """RLE as some tools write it: along the rows, where COCO goes down the columns."""
    told = uncompressed(mask.T.copy())
    return {"size": list(mask.shape), "counts": told["counts"]}


@pytest.mark.parametrize(
    ("outline", "box", "told"),
    [
        (uncompressed(BOX), [6, 4, 10, 6], ""),
        (compressed(BOX), [6, 4, 10, 6], ""),
        (polygon(6, 4, 16, 10), [6, 4, 16, 10], ""),  # corners, as people write them by hand
        (polygon(6, 4, 16, 10), [5, 3, 12, 8], ""),
        (polygon(6, 4, 16, 10), [0, 0, 0, 0], ""),  # no box
        (polygon(6, 4, 16, 10), None, ""),
        (polygon(6, 4, 8, 6), [8, 5, 2, 2], ""),  # tiny: rounding
        (polygon(6, 4, 16, 10), [12, 8, 8, 12], "warned"),
        (row_by_row(BOX), [6, 4, 10, 6], "run lengths of RLE are not where the box"),
        (polygon(4, 2, 10, 19), [2, 4, 17, 6], "Outlines have y before x"),
    ],
)
def test_outlines_that_are_not_where_their_boxes_are_are_told(tmp_path, outline, box, told):
    """What explains the difference is refused by it; all else is warned of, and the outline is taken."""
    write_coco(tmp_path, [{"segmentation": outline, "bbox": box}])
    if told in ("", "warned"):
        warned = [each for each in open_data(DataSettings(path=tmp_path)).warnings if each.kind == "box"]
        assert [each.names[0].split(": outline x ")[0][-12:] for each in warned] == ["annotation 0"] * bool(
            told
        )
    else:
        with pytest.raises(DataError, match=told):
            open_data(DataSettings(path=tmp_path))


def off_centre_disc(rows, columns, radius):
    """A disc of which no row and no column is the same by chance."""
    y, x = np.mgrid[:rows, :columns]
    return ((y - rows * 0.4) ** 2 + (x - columns * 0.6) ** 2 <= radius**2).astype(np.uint8)


@pytest.mark.parametrize("size", [(30, 40), (40, 30), (31, 97), (97, 31)])
@pytest.mark.parametrize("radius", [5, 9, 14])
def test_run_lengths_row_by_row_are_seen_without_a_box(size, radius):
    """They are told by how torn they are; ones in the right order, thin lines among them, pass."""
    mask = off_centre_disc(size[0], size[1], radius)
    lines = [np.eye(*size, dtype=np.uint8), np.zeros(size, np.uint8), np.zeros(size, np.uint8)]
    lines[1][:, size[1] // 2] = 1
    lines[2][size[0] // 2, :] = 1
    noise = (np.random.default_rng(0).random(size) < 0.3).astype(np.uint8)
    for right in (mask, *lines, noise, 1 - mask):
        told = {"size": list(size), "counts": uncompressed(right)["counts"]}
        check_box(told, parse(told, size)[0], None, size)
    wrong = row_by_row(mask)
    with pytest.raises(OutlineError, match="whole row by row; allowed is column by column"):
        check_box(wrong, parse(wrong, size)[0], None, size)


@pytest.mark.parametrize(
    ("box", "refused"),
    [(None, False), ([6, 4, 10, 6], True), ([6, 4, 4, 2], False), ([5, 3, 12, 8], False)],
)
def test_a_box_in_a_list_is_no_outline(tmp_path, box, refused):
    """Four numbers that are a line are left out with a warning; those that are the box itself are no line."""
    write_coco(
        tmp_path, [{"segmentation": [[6, 4, 10, 6]] if box != [2, 3, 4, 1] else [[2, 3, 6, 4]], "bbox": box}]
    )
    if refused:
        with pytest.raises(DataError, match="which might be a box"):
            open_data(DataSettings(path=tmp_path))
    else:
        assert "fewer than three points" in open_data(DataSettings(path=tmp_path)).warnings[0].text


@pytest.mark.parametrize("seed", range(10))
def test_the_ends_of_run_lengths_are_those_of_their_pixels(seed):
    """The oracle is the drawn region; the box is far away, so that both are named."""
    chance = np.random.default_rng(seed)
    mask = (chance.random((30, 40)) < 0.002).astype(np.uint8)
    mask[chance.integers(20), chance.integers(30)] = 1
    (shape,), _ = parse({"size": [30, 40], "counts": uncompressed(mask)["counts"]}, (30, 40))
    rows, columns = mask.nonzero()
    ends = f"x {columns.min()} to {columns.max() + 1}, y {rows.min()} to {rows.max() + 1}"
    assert leaves_box([shape], (36.0, 27.0, 1.0, 1.0), (30, 40)).startswith(f"outline {ends}, box x 36 to 37")


def test_names_that_look_alike(tmp_path):
    categories = ((1, "cell"), (2, " cell "))
    notes = [{"segmentation": polygon(6, 4, 16, 10), "category_id": key} for key in (1, 2)]
    with pytest.raises(DataError, match="several categories called 'cell', with the ids 1, 2"):
        open_data(DataSettings(path=write_coco(tmp_path / "spaces", notes, categories=categories)))
    capitals = write_coco(tmp_path / "capitals", notes, categories=((1, "cell"), (2, "Cell")))
    found = open_data(DataSettings(path=capitals, merge=False))
    assert [(each.kind, each.names) for each in found.warnings] == [("class-names", ("cell and Cell",))]
    single = write_coco(tmp_path / "single", notes[:1], categories=((1, "  red  cell "),))
    for asked in (None, (" red cell",)):
        found = open_data(DataSettings(path=single, merge=False, classes=asked))
        assert found.task.classes == ("background", "red cell")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=8)
        | st.dictionaries(st.sampled_from(("size", "counts", "x", "y")), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(JSON)
def test_any_outline_is_parsed_or_refused(outline):
    try:
        shapes, _ = parse(outline, (4, 3))
        check_position(shapes, (4, 3))
    except OutlineError:
        return
    drawn = draw(Annotation("", 1, shapes, (4, 3)))
    assert drawn.shape == (4, 3)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from(("images", "annotations", "categories")),
        JSON
        | st.lists(
            JSON
            | st.dictionaries(
                st.sampled_from(
                    ("id", "image_id", "category_id", "file_name", "name", "width", "height", "iscrowd")
                ),
                JSON,
            ),
            max_size=3,
        ),
    )
)
def test_any_file_is_read_or_refused(tmp_path, content):
    (tmp_path / "x.json").write_text(json.dumps(content))
    try:
        found = read_coco(tmp_path / "x.json")
    except DataError:
        return
    assert all(problem.severity == "error" for problem in found.problems)


def test_no_outline_ends_the_process(tmp_path):
    """With the memory of the process limited, so that what fills it is seen too."""
    for at, value in enumerate(("NaN", "Infinity", "1e9", "1e6", "3e8")):
        outline = [[-12345678, 4, 9, 4, 9, 9]]
        write_coco(tmp_path / f"{at}", [{"segmentation": outline, "id": 7}])
        file = tmp_path / f"{at}" / "_annotations.coco.json"
        file.write_text(file.read_text().replace("-12345678", value))
    code = (
        "import sys, pathlib, seglens\n"
        "for folder in sorted(pathlib.Path(sys.argv[1]).glob('?')):\n"
        "    try: seglens.open_data(seglens.DataSettings(path=folder)).split('all')[0]; print('read')\n"
        "    except seglens.UserError as error: print('annotation 7' in str(error))\n"
    )
    limit = 12 << 30
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert (done.returncode, done.stdout.split()) == (0, ["True"] * 5), done.stderr[-500:]


def test_an_object_that_is_outlined_twice_is_one(tmp_path):
    """By the same points; of another category it is another object."""
    twice = [{"segmentation": polygon(6, 4, 16, 10)}] * 2
    other = {"segmentation": polygon(6, 4, 16, 10), "category_id": 2}
    write_coco(tmp_path, [*twice, other], categories=((1, "a"), (2, "b")))
    found = open_data(DataSettings(path=tmp_path, multilabel=True))
    assert len(found.split("all").entries[0].annotations) == 2
    (warning,) = found.warnings
    assert warning.text.startswith("Objects are outlined twice")
    assert "annotation 1 as annotation 0" in warning.names[0]


def test_what_tools_differ_about_is_refused(tmp_path):
    """mmdetection leaves out what has ``ignore``, pycocotools and detectron2 don't look at it."""
    outline = {"segmentation": polygon(6, 4, 16, 10)}
    with pytest.raises(DataError, match=r"'ignore' set.*annotation 0: ignore 1"):
        open_data(DataSettings(path=write_coco(tmp_path / "a", [outline | {"ignore": 1}])))
    write_coco(tmp_path / "b", [outline | {"ignore": 0}])
    assert mask_is(only(tmp_path / "b"), BOX)
    write_coco(tmp_path / "c", [outline | {"ignore": 1, "iscrowd": 1}])
    assert not only(tmp_path / "c").valid[4:10, 6:16].any()

"""Objects of masks in COCO, GeoJSON and label TIFF: each read back to the same pixels by another reader."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools.coco import COCO
from scipy import ndimage
from skimage.draw import polygon2mask
from tests.folder.discs import make_run, split_of, values_of, write_discs

import seglens
from seglens.data.opening import open_data
from seglens.errors import SettingError, UnknownNameError
from seglens.exports import FORMATS, Marked, Picture, finish, make_folders, write_picture
from seglens.exports.marked import files_from_here
from seglens.exports.rings import pieces_of
from seglens.objects import pieces

SIZE = (12, 17)


def filled(ring: list, size: tuple[int, int]) -> np.ndarray:
    """Pixels whose centre is inside of a ring: a pixel's centre is half a pixel from its corner."""
    corners = np.array(ring, float)[:, ::-1] - 0.5
    return polygon2mask(size, corners)


def filled_polygon(rings: list, size: tuple[int, int]) -> np.ndarray:
    inside = filled(rings[0], size)
    for hole in rings[1:]:
        inside &= ~filled(hole, size)
    return inside


def area(ring: list) -> float:
    x, y = np.array(ring, float).T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


MASKS = arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9)))


@settings(max_examples=150, deadline=None)
@given(MASKS)
def test_outlines_are_exact_simple_and_turn_the_right_way(mask: np.ndarray) -> None:
    found = pieces_of(mask)
    assert len(found) == ndimage.label(mask)[1]
    total = np.zeros_like(mask)
    for piece in found:
        assert area(piece.outer) > 0
        assert all(area(hole) < 0 for hole in piece.holes)
        for ring in (piece.outer, *piece.holes):
            assert ring[0] == ring[-1]
            assert len(set(ring)) == len(ring) - 1  # it meets no corner twice
            steps = np.diff(np.array(ring), axis=0)
            assert ((steps == 0).sum(axis=1) == 1).all()  # along edges of pixels
            turned = np.roll(steps, 1, axis=0)
            assert ((steps * turned).sum(axis=1) == 0).all()  # no corner on a straight line
        here = filled_polygon([piece.outer, *piece.holes], mask.shape)
        assert not (total & here).any()
        total |= here
        assert here.sum() == area(piece.outer) + sum(map(area, piece.holes))
    assert np.array_equal(total, mask)


def test_a_hole_that_touches_the_outside_at_a_corner_is_a_hole() -> None:
    mask = np.ones((3, 3), bool)
    mask[1, 1] = mask[0, 0] = False
    (piece,) = pieces_of(mask)
    assert len(piece.holes) == 1
    assert sorted(set(piece.holes[0])) == [(1, 1), (1, 2), (2, 1), (2, 2)]


def example() -> torch.Tensor:
    """A ring with a hole, two pixels that touch at a corner, and one pixel in the last row and column."""
    numbers = torch.zeros(SIZE, dtype=torch.int64)
    numbers[1:6, 2:8] = 1
    numbers[3:5, 4:6] = 0
    numbers[8, 3] = numbers[9, 4] = 2
    numbers[-1, -1] = 3
    return numbers


@pytest.fixture
def written(tmp_path: Path) -> Path:
    marked = [Marked(example(), {1: "a", 2: "b", 3: "a"}, {1: 0.75}, {"a": "#e69f00"})]
    make_folders([*FORMATS], tmp_path)
    for place in ("one", "two"):
        write_picture([*FORMATS], Picture(place, f"folder/{place}.png", SIZE), marked, tmp_path)
    finish([*FORMATS], ["a", "b", "c"], tmp_path)
    return tmp_path


def test_pycocotools_reads_the_same_pixels(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco = COCO(str(written / "coco.json"))
    assert [each["name"] for each in coco.loadCats(coco.getCatIds())] == ["a", "b", "c"]
    images = coco.loadImgs(coco.getImgIds())
    assert [each["file_name"] for each in images] == ["folder/one.png", "folder/two.png"]
    for image in images:
        assert (image["height"], image["width"]) == SIZE
        found = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        for number, annotation in enumerate(found, start=1):
            region = (example() == number).numpy()
            assert np.array_equal(coco.annToMask(annotation).astype(bool), region)
            rows, columns = np.nonzero(region)
            x, y, width, height = annotation["bbox"]
            assert (x, y) == (columns.min(), rows.min())
            assert (x + width, y + height) == (columns.max() + 1, rows.max() + 1)
            assert annotation["area"] == region.sum()
            assert annotation["category_id"] == {1: 1, 2: 2, 3: 1}[number]
        assert [each.get("score") for each in found] == [0.75, None, None]
    assert not (written / "coco-parts").exists()


def test_polygons_of_geojson_hold_the_same_pixels(written: Path) -> None:
    read = json.loads((written / "geojson/two.geojson").read_text("utf-8"))
    assert read["type"] == "FeatureCollection"
    kinds = [feature["geometry"]["type"] for feature in read["features"]]
    assert kinds == ["Polygon", "MultiPolygon", "Polygon"]
    for number, feature in enumerate(read["features"], start=1):
        parts = feature["geometry"]["coordinates"]
        parts = [parts] if feature["geometry"]["type"] == "Polygon" else parts
        inside = sum(filled_polygon(rings, SIZE).astype(int) for rings in parts)
        assert np.array_equal(inside, (example() == number).numpy())
    last = read["features"][-1]
    # The pixel in the last row and column is the square up to the lower right corner of the picture.
    assert sorted(set(map(tuple, last["geometry"]["coordinates"][0]))) == [
        (16, 11),
        (16, 12),
        (17, 11),
        (17, 12),
    ]
    assert last["properties"]["classification"] == {"name": "a", "color": [230, 159, 0]}
    assert last["properties"]["objectType"] == "annotation"
    assert len({feature["id"] for feature in read["features"]}) == 3


def test_tifffile_reads_the_same_labels_as_imagej_would(written: Path) -> None:
    with tifffile.TiffFile(written / "labels/one.tif") as opened:
        assert opened.is_imagej
        values = opened.asarray()
    assert values.dtype == np.uint16
    assert np.array_equal(values, example().numpy())


@settings(max_examples=50, deadline=None)
@given(MASKS)
def test_run_lengths_of_any_mask_are_read_back(mask: np.ndarray) -> None:
    from pycocotools import mask as rle

    from seglens.data.outlines import run_lengths

    whole = np.pad(mask, ((2, 1), (0, 3)))
    if mask.any():
        found = run_lengths(mask, (2, 0), (whole.shape[0], whole.shape[1]))
        assert np.array_equal(rle.decode(found).astype(bool), whole)
        assert found["counts"] == rle.encode(np.asfortranarray(whole, np.uint8))["counts"].decode()


def test_files_are_named_from_the_folder_that_holds_them_all() -> None:
    assert files_from_here([Path("x/a/1.png"), Path("x/b/c/1.png")]) == ["a/1.png", "b/c/1.png"]
    assert files_from_here([Path("x/1.png")]) == ["1.png"]


def test_predictions_are_exported_and_read_as_a_set_again(tmp_path: Path) -> None:
    folder = write_discs(tmp_path)
    files = sorted((folder / "images").glob("*.png"))
    run = make_run()
    done = seglens.predict_files(run, files, out=tmp_path / "out", export=("coco", "geojson", "tiff"))
    for file in files:
        mask = values_of(done.folder / "masks" / file.name)
        assert np.array_equal(tifffile.imread(done.folder / "labels" / f"{file.stem}.tif") > 0, mask > 0)
        read = json.loads((done.folder / "geojson" / f"{file.stem}.geojson").read_text("utf-8"))
        assert len(read["features"]) == ndimage.label(mask, np.ones((3, 3)))[1]
        coloured = values_of(done.folder / "coloured" / file.name)
        assert np.array_equal(coloured, mask)  # a palette: values are classes, colours are seen
    # The tool's own reader takes the COCO file for truth: the same masks come back.
    (folder / "images" / "_annotations.coco.json").write_bytes((done.folder / "coco.json").read_bytes())
    split = open_data(seglens.DataSettings(path=folder / "images", layout="coco")).split("all")
    for sample in (split[at] for at in range(len(split))):
        assert sample.mask is not None
        assert np.array_equal(sample.mask.numpy(), values_of(done.folder / "masks" / f"{sample.name}.png"))


def test_errors_are_categories_and_agree_with_the_table_of_objects(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = split_of(write_discs(tmp_path))
    truth = values_of(split.entries[0].masks[0]).copy()
    from PIL import Image

    truth[truth > 0] = 0
    truth[-6:-2, -6:-2] = 1  # what was there is invented now, what is there now is missed
    Image.fromarray(truth).save(split.entries[0].masks[0])
    run = make_run()
    found = seglens.evaluate(run, split, out=tmp_path / "out", export=("coco", "geojson", "tiff"))
    errors = tmp_path / "out" / "errors"
    coco = COCO(str(errors / "coco.json"))
    names = {each["id"]: each["name"] for each in coco.loadCats(coco.getCatIds())}
    assert list(names.values()) == ["disc found", "disc missed", "disc invented"]
    rows = {row.name: row.objects for row in found.images}
    for image in coco.loadImgs(coco.getImgIds()):
        name = Path(image["file_name"]).stem
        listed = [names[each["category_id"]] for each in coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))]
        assert listed.count("disc missed") == rows[name].missed
        assert listed.count("disc invented") == rows[name].invented
        assert listed.count("disc found") == rows[name].predicted - rows[name].invented
    missed = tifffile.imread(errors / "labels" / "disc_missed" / f"{split.entries[0].name}.tif")
    assert np.array_equal(missed > 0, truth > 0)
    predicted = run.predict(split[0].image[None]).mask[0]
    invented = tifffile.imread(errors / "labels" / "disc_invented" / f"{split.entries[0].name}.tif")
    assert int(invented.max()) == int(pieces(predicted > 0).max()) > 0


def test_what_can_t_be_exported_is_refused_by_name(tmp_path: Path) -> None:
    files = sorted((write_discs(tmp_path) / "images").glob("*.png"))
    with pytest.raises(UnknownNameError, match=r"Unknown format of --export 'yolo'.*coco, geojson, tiff"):
        seglens.predict_files(make_run(), files, out=tmp_path / "out", export=("yolo",))
    with pytest.raises(SettingError, match="Errors can't be saved for a run without folder"):
        seglens.evaluate(make_run(), split_of(tmp_path), export=("coco",))

"""Slices of volumes: every pixel against the voxel that it is, and no volume in two splits."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seglens.data.layout import DataSettings
from seglens.data.opening import open_data
from seglens.data.volumes import Grid
from seglens.data.volumes.cases import find_cases
from seglens.data.volumes.slices import UPRIGHT, slice_volumes, upright
from seglens.errors import DataError, OutputExistsError, SettingError

nibabel = pytest.importorskip("nibabel", reason="needs the extra medical")

SHAPE = (7, 6, 5)


def values_of(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 2000, SHAPE).astype(np.int16)


def write_set(folder: Path, affine: np.ndarray, *, num: int = 6, channel: str = "MRI") -> Path:
    """A set of nnU-Net: labels 1 and 2 in two corners, nothing in the upper slices, two test volumes."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[:2, :2, :2], labels[-2:, -2:, :2] = 1, 2
    for part in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        (folder / part).mkdir(parents=True)
    for number in range(num):
        part = "Ts" if number >= num - 2 else "Tr"
        nibabel.save(
            nibabel.Nifti1Image(values_of(number), affine),
            folder / f"images{part}" / f"c{number}_0000.nii.gz",
        )
        nibabel.save(nibabel.Nifti1Image(labels, affine), folder / f"labels{part}" / f"c{number}.nii.gz")
    described = {
        "channel_names": {"0": channel},
        "labels": {"background": 0, "front": 1, "back": 2},
        "numTraining": num - 2,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(described))
    return folder


@pytest.mark.parametrize("plane", UPRIGHT)
@pytest.mark.parametrize("codes", ["RAS", "LPS", "AIR", "PSL"])
def test_rows_and_columns_run_to_the_sides_that_are_promised(plane, codes):
    """A voxel's world place grows along rows and columns as the sides say, whatever the order of the file."""
    senses = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
    affine = np.eye(4)
    affine[:3, :3] = 0
    for column, code in enumerate(codes):
        affine[senses[code][0], column] = senses[code][1]
    grid = Grid(SHAPE, affine)
    assert grid.orientation == codes
    index = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1).reshape(-1, 3)
    world = (np.c_[index, np.ones(len(index))] @ affine.T)[:, :3].reshape(*SHAPE, 3)
    turned = upright(np.take(world, 1, grid.axis_of(plane)), grid, plane)
    for place, side in enumerate(UPRIGHT[plane]):
        axis, sense = senses[side]
        assert (np.diff(turned[..., axis], axis=place) * sense > 0).all(), side


def test_every_pixel_is_its_voxel(tmp_path):
    source = write_set(tmp_path / "set", np.diag([1.0, 2, 3, 1]))
    made = slice_volumes(source, tmp_path / "out", plane="axial", window="0,2000")
    assert made.slices == {"train": 15, "valid": 5, "test": 10}
    assert made.volumes == {"train": 3, "valid": 1, "test": 2}
    assert made.classes == ("background", "front", "back")
    with (tmp_path / "out" / "slices.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 30
    for row in rows:
        number, volume = int(row["slice"]), values_of(int(row["volume"][1:]))
        picture = np.asarray(Image.open(tmp_path / "out" / row["split"] / "images" / row["image"]))
        # RAS: rows run to P and columns to L, against both axes of the file.
        expected = np.rint(volume[::-1, ::-1, number].T / 2000 * 65535)
        np.testing.assert_array_equal(picture, expected)
        assert float(row["position_mm"]) == 3 * number
    split_of: dict[str, set[str]] = {row["volume"]: set() for row in rows}
    for row in rows:
        split_of[row["volume"]].add(row["split"])
    assert all(len(splits) == 1 for splits in split_of.values())
    assert {name for name, splits in split_of.items() if splits == {"test"}} == {"c4", "c5"}


def test_the_set_is_opened_as_any_other(tmp_path):
    source = write_set(tmp_path / "set", np.eye(4))
    made = slice_volumes(source, tmp_path / "out", empty="drop")
    assert (made.dropped, made.slices["train"], made.slices["valid"]) == (9, 6, 5)
    data = open_data(DataSettings(path=made.folder, classes=made.classes, channels=1))
    assert data.layout == "pairs"
    assert {name: len(split) for name, split in data.splits.items()} == made.slices
    sample = data.split("train")[0]
    assert sample.image.shape == (1, 6, 7)
    assert isinstance(sample.mask, torch.Tensor)
    assert sample.mask.unique().tolist() == [0, 1, 2]


def test_numbers_become_black_and_white(tmp_path):
    """Of a CT the same everywhere, of an MRI by each volume's own percentiles."""

    def first(folder: Path) -> np.ndarray:
        out = folder.with_name(f"{folder.name}-slices")
        slice_volumes(folder, out)
        return np.asarray(Image.open(out / "test" / "images" / "c5_0000.png"))

    volume = values_of(5).astype(np.float64)
    seen = volume[::-1, ::-1, 0].T
    ct = first(write_set(tmp_path / "ct", np.eye(4), channel="CT"))
    np.testing.assert_array_equal(ct, np.rint((seen + 1024) / 4095 * 65535))
    mri = first(write_set(tmp_path / "mri", np.eye(4)))
    low, high = np.percentile(volume, (0.5, 99.5))
    np.testing.assert_array_equal(mri, np.rint(np.clip((seen - low) / (high - low), 0, 1) * 65535))


def test_each_channel_has_the_window_of_its_kind(tmp_path):
    """A CT in Hounsfield units beside a PET and an MRI, which have each volume's own percentiles."""
    source = write_set(tmp_path / "set", np.eye(4))
    for file in [*source.glob("images*/*_0000.nii.gz")]:
        for channel in (1, 2):
            file.with_name(file.name.replace("_0000", f"_000{channel}")).write_bytes(file.read_bytes())
    change(channel_names={"0": "CT", "1": "PET", "2": "MRI"})(source)
    slice_volumes(source, tmp_path / "out")
    picture = np.asarray(Image.open(tmp_path / "out" / "test" / "images" / "c5_0000.png"))
    volume = values_of(5).astype(np.float64)
    seen, (low, high) = volume[::-1, ::-1, 0].T, np.percentile(volume, (0.5, 99.5))
    own = np.clip((seen - low) / (high - low), 0, 1)
    expected = np.stack([(seen + 1024) / 4095, own, own], -1) * 255
    assert np.abs(picture - expected).max() <= 0.51


def test_the_decathlon_and_pairs_are_read(tmp_path):
    source = write_set(tmp_path / "set", np.eye(4))
    for file in [*source.glob("images*/*.nii.gz")]:
        file.rename(file.with_name(file.name.replace("_0000", "")))
    described = {"labels": {"0": "background", "1": "front", "2": "back"}, "modality": {"0": "MRI"}}
    (source / "dataset.json").write_text(json.dumps(described))
    found = find_cases(source)
    assert found.labels is not None
    assert found.labels.classes == ("background", "front", "back")
    assert [len(found.splits[split]) for split in ("train", "test")] == [4, 2]
    pairs = tmp_path / "pairs"
    pairs.mkdir()
    (source / "imagesTr").rename(pairs / "images")
    (source / "labelsTr").rename(pairs / "masks")
    made = slice_volumes(pairs, tmp_path / "out")
    assert made.volumes == {"train": 2, "valid": 1, "test": 1}
    assert made.classes == ("background", "label1", "label2")


def change(**changes: object):
    def do(folder: Path) -> None:
        file = folder / "dataset.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return do


def only_analyze(folder: Path) -> None:
    """Labels of the test volumes of a kind that isn't read: not a set without labels."""
    for file in (folder / "labelsTs").iterdir():
        file.rename(file.with_name(file.name.replace(".nii.gz", ".hdr")))


@pytest.mark.parametrize(
    ("do", "message"),
    [
        (
            change(labels={"background": 0, "front": [1, 2]}, regions_class_order=[1]),
            r"regions: 'front' is made of the labels \[1, 2\]",
        ),
        (change(labels={"background": 0, "front": 2}), r"labels \[0, 2\]; allowed are 0, 1, 2"),
        (change(labels={"background": 0, "a": 1, "b": 1}), r"'b' and 'a' the one value 1"),
        (change(labels={"background": 0, "front": 1}), r"hold the label 2, but only background, front"),
        (change(labels=None), r"doesn't list its labels"),
        (change(channel_names={"0": "a", "1": "b"}), r"1 file of the case 'c0', but .* 2 channels"),
        (change(channel_names=[]), r"doesn't list its channels"),
        (lambda folder: (folder / "labelsTr" / "c0.nii.gz").unlink(), r"no labels of 'c0' \(1 lack labels"),
        (lambda folder: (folder / "imagesTr" / "c0_0000.nii.gz").unlink(), r"labels of 'c0', but no picture"),
        (lambda folder: (folder / "imagesTr" / "a.txt").write_text("?"), r"a\.txt is no volume"),
        (only_analyze, r"c4\.hdr is no volume"),
        (lambda folder: (folder / "dataset.json").write_text("{"), r"dataset\.json is not JSON"),
        (lambda folder: (folder / "dataset.json").unlink(), r"no volumes in a layout that is read"),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path, do, message):
    source = write_set(tmp_path / "set", np.eye(4))
    do(source)
    with pytest.raises(DataError, match=message):
        slice_volumes(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_settings_are_checked(tmp_path):
    source = write_set(tmp_path / "set", np.eye(4))
    with pytest.raises(SettingError, match="plane 'oblique'"):
        slice_volumes(source, tmp_path / "out", plane="oblique")
    with pytest.raises(SettingError, match="can't be 'some'"):
        slice_volumes(source, tmp_path / "out", empty="some")
    with pytest.raises(SettingError, match=r"window '9,3' is not allowed"):
        slice_volumes(source, tmp_path / "out", window="9,3")
    with pytest.raises(SettingError, match="the data"):
        slice_volumes(source, source / "slices")
    (source / "imagesTr" / "README.md").write_text("what is here")
    slice_volumes(source, tmp_path / "out")
    with pytest.raises(OutputExistsError):
        slice_volumes(source, tmp_path / "out")
    slice_volumes(source, tmp_path / "out", force=True)

"""Sets of volumes as every command reads them. Oracle: the voxels that were written, by world places."""

import gzip
import json
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
import torch

from seglens.data.check import check_data
from seglens.data.layout import DataSettings
from seglens.data.opening import open_data
from seglens.data.sample import Sample
from seglens.data.transforms import letterbox
from seglens.data.volumes import Grid
from seglens.data.volumes.cases import find_cases
from seglens.errors import DataError, MaskValueError, SettingError

nibabel = pytest.importorskip("nibabel", reason="needs the extra medical")

SHAPE = (7, 6, 5)
PLAIN = np.diag([1.0, 1.0, 2.0, 1.0])


def save(file: Path, values: np.ndarray, affine: np.ndarray = PLAIN) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, affine), file)
    return file


def picture(number: int = 0) -> np.ndarray:
    return np.random.default_rng(number).integers(-1000, 2000, SHAPE).astype(np.int16)


def labels(*values: int) -> np.ndarray:
    found = np.zeros(SHAPE, np.uint8)
    found.flat[: len(values)] = values
    return found


def nnunet(
    folder: Path, *, names: tuple[str, ...] = ("MRI",), described: dict[str, int] | None = None
) -> Path:
    for number in range(6):
        part = "Ts" if number == 5 else "Tr"
        for channel in range(len(names)):
            save(folder / f"images{part}" / f"c{number}_000{channel}.nii.gz", picture(number + 10 * channel))
        save(folder / f"labels{part}" / f"c{number}.nii.gz", labels(1, 2))
    text = {
        "channel_names": {str(index): name for index, name in enumerate(names)},
        "labels": described or {"background": 0, "front": 1, "back": 2},
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(text))
    return folder


def values_in(sample: Sample) -> list[int]:
    assert sample.mask is not None
    return sample.mask.unique().tolist()


def pairs(folder: Path, mask: np.ndarray, num: int = 8) -> Path:
    for number in range(num):
        save(folder / "images" / f"v{number}.nii.gz", picture(number))
        save(folder / "masks" / f"v{number}.nii.gz", mask)
    return folder


@pytest.mark.parametrize("axes", list(permutations(range(3))))
@pytest.mark.parametrize("senses", list(product((1, -1), repeat=3)))
def test_any_orientation_becomes_the_same_array_and_goes_back(axes, senses):
    """Feet to head, front to back, right to left by the world places of the voxels."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (world, sense) in enumerate(zip(axes, senses, strict=True)):
        affine[world, axis] = sense * (1.0 + axis)
    grid = Grid(SHAPE, affine)
    values = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    turned = grid.to_zyx(values)
    assert (grid.from_zyx(turned) == values).all()
    places = np.array(
        [grid.world([int(i) for i in np.unravel_index(number, SHAPE)]) for number in turned.ravel()]
    )
    x, y, z = (places[:, world].reshape(turned.shape) for world in range(3))
    steps = np.diff(z, axis=0), np.diff(y, axis=1), np.diff(x, axis=2)
    assert [float(step.min()) for step in steps] == [float(step.max()) for step in steps]
    assert (steps[0] > 0).all()
    assert (steps[1] < 0).all()
    assert (steps[2] < 0).all()
    assert grid.spacing_zyx == pytest.approx([abs(float(step.flat[0])) for step in steps])


def test_nnunet_with_two_channels(tmp_path):
    dataset = open_data(DataSettings(path=nnunet(tmp_path, names=("CT", "MRI"))))
    assert (dataset.layout, dataset.dims, dataset.task.classes) == (
        "nnunet",
        3,
        ("background", "front", "back"),
    )
    assert dataset.settings.channels == 2
    assert dataset.settings.intensities == ((-1024.0, 3071.0), None)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 4, "valid": 1, "test": 1}
    (sample,) = (dataset.split("test")[0],)
    grid = sample.grid
    assert grid is not None
    assert sample.image.shape == (2, 5, 6, 7)
    assert sample.spacing == (2.0, 1.0, 1.0)
    shown = torch.from_numpy(grid.to_zyx((picture(5) + 1024) / 4095).astype(np.float32))
    torch.testing.assert_close(sample.image[0], shown)
    low, high = np.percentile(picture(15), (0.5, 99.5))
    other = np.clip((grid.to_zyx(picture(15)) - low) / (high - low), 0, 1).astype(np.float32)
    torch.testing.assert_close(sample.image[1], torch.from_numpy(other))
    assert sample.mask is not None
    assert (grid.from_zyx(sample.mask.numpy()) == labels(1, 2)).all()


def test_two_files_of_one_name_or_number_are_not_chosen_from(tmp_path):
    folder = pairs(tmp_path / "pairs", labels(1))
    name = next((folder / "masks").iterdir()).name
    save(folder / "masks" / name.removesuffix(".gz"), labels(1, 1))
    with pytest.raises(DataError, match=f"{name[:-3]} and {name}: two volumes of one name"):
        open_data(DataSettings(path=folder))
    doubled = nnunet(tmp_path / "doubled", names=("MRI", "CT"))
    (doubled / "imagesTr" / "c1_0001.nii.gz").unlink()
    save(doubled / "imagesTr" / "c1_0000.nii", picture(1))  # as many files as channels
    with pytest.raises(DataError, match=r"c1_0000\.nii and c1_0000\.nii\.gz: two volumes of one name"):
        open_data(DataSettings(path=doubled))
    gap = nnunet(tmp_path / "gap", names=("MRI", "CT"))
    (gap / "imagesTr" / "c1_0001.nii.gz").rename(gap / "imagesTr" / "c1_0002.nii.gz")
    with pytest.raises(DataError, match=r"case 'c1'.* numbered from 0000\. There is 0000, 0002"):
        open_data(DataSettings(path=gap))


def test_the_decathlon_has_one_file_a_case(tmp_path):
    nnunet(tmp_path)
    text = {"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "front", "2": "back"}}
    (tmp_path / "dataset.json").write_text(json.dumps(text))
    for file in tmp_path.glob("images*/*.nii.gz"):
        file.rename(file.with_name(file.name.replace("_0000", "")))
    dataset = open_data(DataSettings(path=tmp_path))
    assert (dataset.layout, dataset.task.classes) == ("msd", ("background", "front", "back"))
    assert dataset.split("test")[0].name == "c5"


def test_an_ignored_label_does_not_count(tmp_path):
    described = {"background": 0, "front": 1, "ignore": 2}
    sample = open_data(DataSettings(path=nnunet(tmp_path, described=described))).split("train")[0]
    assert sample.grid is not None
    assert sample.mask is not None
    assert (sample.grid.from_zyx(sample.valid.numpy()) == (labels(1, 2) != 2)).all()
    assert (sample.grid.from_zyx(sample.mask.numpy()) == labels(1)).all()


def test_pairs_say_what_their_labels_mean(tmp_path):
    folder = pairs(tmp_path / "two", labels(1, 2))
    split = open_data(DataSettings(path=folder)).split("train")
    with pytest.raises(
        MaskValueError, match=r"v\d.nii.gz holds the label 2; allowed are 0 to 1, and nobody said"
    ):
        split[0]
    named = open_data(DataSettings(path=folder, classes=("background", "a", "b")))
    assert named.task.classes == ("background", "a", "b")
    assert values_in(named.split("train")[0]) == [0, 1, 2]
    merged = open_data(DataSettings(path=folder, masks="foreground")).split("train")[0]
    assert values_in(merged) == [0, 1]
    both = DataSettings(path=folder, masks="foreground", classes=("background", "lesion"))
    assert open_data(both).task.classes == ("background", "lesion")
    with pytest.raises(SettingError, match="--masks foreground makes two classes"):
        open_data(DataSettings(path=folder, masks="foreground", classes=("background", "a", "b")))
    with pytest.raises(SettingError, match="not as instances"):
        open_data(DataSettings(path=folder, masks="instances"))
    with pytest.raises(SettingError, match=r"have 1 channel \(intensity\), received channels 3"):
        open_data(DataSettings(path=folder, channels=3))
    assert open_data(DataSettings(path=pairs(tmp_path / "one", labels(1)))).task.classes[1] == "foreground"


def test_a_check_reads_all_and_names_what_is_wrong(tmp_path):
    folder = nnunet(tmp_path)
    found = check_data(DataSettings(path=folder))
    assert (found.layout, found.num_errors) == ("nnunet", 0)
    assert [(row.split, row.name, row.objects) for row in found.counts][:2] == [
        ("train", "front", 4),
        ("train", "back", 4),
    ]
    save(folder / "labelsTr/c0.nii.gz", labels(1, 2), np.diag([1.0, 1.0, 3.0, 1.0]))
    (folder / "imagesTr/c1_0000.nii.gz").write_bytes(b"no volume")
    save(folder / "labelsTr/c2.nii.gz", labels(7))
    told = " ".join(finding.text for finding in check_data(DataSettings(path=folder)).findings)
    for words in ("c0.nii.gz lies", "c1_0000.nii.gz", "c2.nii.gz holds the label 7"):
        assert words in told
    (folder / "labelsTr/c3.nii.gz").unlink()
    with pytest.raises(DataError, match="no labels of 'c3'"):
        open_data(DataSettings(path=folder))


def test_a_volume_fills_its_cube_in_millimetres_and_comes_back(tmp_path):
    """Slices are 2 mm thick: in the cube they take twice the voxels; nothing is stretched."""
    sample = open_data(DataSettings(path=nnunet(tmp_path))).split("train")[0]
    boxed, frame = letterbox(sample, 20)
    assert boxed.image.shape == (1, 20, 20, 20)
    assert frame.scaled == (20, 12, 14)  # 5 slices of 2 mm are 10 mm, as 6 rows are 6 and 7 columns 7
    assert int(boxed.valid.sum()) == 20 * 12 * 14
    assert boxed.mask is not None
    assert sample.mask is not None
    assert torch.equal(frame.mask_to_native(boxed.mask), sample.mask)
    smooth = torch.linspace(0, 1, 20)[:, None, None].expand(20, 20, 20)
    steps = frame.maps_to_native(smooth)[:, 3, 3].diff()[1:-1]  # at the ends it is smoothed to one side
    assert steps.tolist() == pytest.approx([4 / 19, 4 / 19], abs=1e-4)


@pytest.mark.parametrize(
    ("images", "truth", "channels", "said"),
    [
        (("a_0000", "a_0002"), ("a.nii",), 2, r"case 'a', but .* lists 2 channel.*There is 0000, 0002"),
        (("a_0001", "a_0002"), ("a.nii",), 2, r"numbered from 0000"),
        (("a_0001",), ("a.nii",), 1, r"numbered from 0000"),
        (("a", "a_0000"), ("a.nii",), 2, r"a\.nii and a_0000\.nii: two volumes of one name"),
        (("a_0000",), ("a.nii", "a.nii.gz"), 1, r"a\.nii and a\.nii\.gz: two volumes of one name"),
    ],
)
def test_files_that_could_be_taken_for_others(tmp_path, images, truth, channels, said):
    for name in images:
        save(tmp_path / "imagesTr" / f"{name}.nii", picture())
    for name in truth:
        save(tmp_path / "labelsTr" / name, labels(0, 1))
    described = {
        "channel_names": {str(n): f"c{n}" for n in range(channels)},
        "labels": {"background": 0, "thing": 1},
    }
    (tmp_path / "dataset.json").write_text(json.dumps(described))
    with pytest.raises(DataError, match=said):
        find_cases(tmp_path)


def test_more_than_ten_channels_and_a_background_that_is_not_0(tmp_path):
    for number in range(11):
        save(tmp_path / "imagesTr" / f"a_{number:04d}.nii", picture())
    save(tmp_path / "labelsTr" / "a.nii", labels(0, 1))
    described = {
        "channel_names": {str(n): f"c{n}" for n in range(11)},
        "labels": {"thing": 0, "background": 1},
    }
    (tmp_path / "dataset.json").write_text(json.dumps(described))
    with pytest.raises(DataError, match=r"'background' the value \[1\]; allowed is 0"):
        find_cases(tmp_path)
    described["labels"] = {"background": 0, "thing": 1}
    (tmp_path / "dataset.json").write_text(json.dumps(described))
    (case,) = find_cases(tmp_path).splits["train"]
    assert [file.name for file in case.channels] == [f"a_{number:04d}.nii" for number in range(11)]


def changed(folder: Path, **entries: object) -> Path:
    """A set of nnU-Net (5 cases to learn from, 1 to test) whose dataset.json says something else."""
    nnunet(folder)
    file = folder / "dataset.json"
    told = json.loads(file.read_text()) | entries
    file.write_text(json.dumps({key: value for key, value in told.items() if value is not None}))
    return folder


REGIONS = {"background": 0, "whole": [1, 2], "core": 2}
LISTED = [{"image": f"./imagesTr/c{n}_0000.nii.gz", "label": f"./labelsTr/c{n}.nii.gz"} for n in range(5)]
OF_CASES = [{"image": f"./imagesTr/c{n}.nii.gz", "label": f"./labelsTr/c{n}.nii.gz"} for n in range(5)]
OTHER = {"image": "imagesTr/c4.nii.gz", "label": "labelsTr/c3.nii.gz"}


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"numTraining": 4}, r"numTraining 4, and .*imagesTr holds 5 case"),
        ({"numTraining": "5"}, r"numTraining '5'"),
        ({"numTraining": 5}, ""),
        (
            {"file_ending": ".nii"},
            r"file_ending '\.nii', and 12 of 12 files end otherwise, such as .*c0_0000",
        ),
        ({"file_ending": 7}, r"file_ending 7"),
        ({"file_ending": None}, ""),
        ({"dataset": {}}, r"under 'dataset', which is not read"),
        ({"training": LISTED, "test": ["./imagesTs/c5_0000.nii.gz"]}, ""),
        ({"training": OF_CASES, "test": ["./imagesTs/c5.nii.gz"]}, ""),
        ({"training": LISTED[1:]}, r"'training' .* 0 are listed and not there \(none\), 1 are .* \(c0\)"),
        ({"training": [*LISTED, "imagesTr/x.nii.gz"]}, r"1 are listed and not there \(x\.nii\.gz\)"),
        ({"training": [*OF_CASES[:4], OTHER]}, r"lists the labels c3\.nii\.gz for 'c4', and beside it"),
        ({"training": [*LISTED, 3]}, r"lists '3' under 'training'"),
        ({"test": []}, r"'test' .* 1 are there and not listed \(c5\)"),
        ({"labels": {"liver": 0, "front": 1, "back": 2}}, r"gives 'liver' the value 0"),
        ({"labels": {"liver": 1, "spleen": 2}}, r"lists the labels \[1, 2\]; allowed are 0, 1, 2"),
        ({"labels": {"background": 0, "liver": 1, "spleen": 3}}, r"lists the labels \[0, 1, 3\]"),
        ({"labels": {"0": "Background", "1": "a", "2": "b"}}, ""),
        ({"labels": {"0": "liver", "1": "a", "2": "b"}}, r"gives 'liver' the value 0"),
        ({"channel_names": {"1": "MRI"}}, r"doesn't list its channels"),
        ({"modality": {"0": "MRI"}}, ""),
        ({"modality": {"0": "CT"}}, r"channels twice, and differently: channel_names .*MRI.* modality .*CT"),
        ({"labels": REGIONS, "regions_class_order": [1, 2]}, ""),
        ({"labels": REGIONS, "regions_class_order": [2, 1]}, ""),
        ({"labels": REGIONS, "region_class_order": [1, 2]}, r"regions_class_order is None"),
    ],
)
def test_a_description_that_contradicts_its_files_is_refused(tmp_path, entries, said):
    folder = changed(tmp_path, **entries)
    if not said:
        assert {name: len(each) for name, each in find_cases(folder).splits.items()} == {
            "train": 5,
            "test": 1,
        }
        return
    with pytest.raises(DataError, match=said):
        find_cases(folder)
    (finding,) = check_data(DataSettings(path=folder)).findings
    assert finding.severity == "error"


def test_a_case_to_learn_from_and_to_test_is_refused(tmp_path):
    nnunet(tmp_path)
    for folder in ("images", "labels"):
        (file,) = (tmp_path / f"{folder}Ts").iterdir()
        file.rename(file.with_name(file.name.replace("c5", "c3")))
    with pytest.raises(DataError, match=r"has c3 in imagesTr/ and in imagesTs/ \(1\)"):
        open_data(DataSettings(path=tmp_path))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_copy_of_a_volume_in_another_split_is_an_error(tmp_path, suffix):
    """The copy has another name and was packed anew, at another time."""
    for split, names in {"train": "abcdef", "valid": "gh", "test": "ijk"}.items():
        for number, name in enumerate(names):
            save(tmp_path / split / "images" / f"{name}{suffix}", picture(ord(name)))
            save(tmp_path / split / "masks" / f"{name}{suffix}", labels(1, number % 2))
    settings = DataSettings(path=tmp_path)
    assert len(open_data(settings).split("train")) == 6
    assert not check_data(settings).of("near-duplicates")
    content = save(tmp_path / "c.nii", picture(ord("b"))).read_bytes()
    (tmp_path / "c.nii").unlink()
    packed = gzip.compress(content, 1, mtime=7) if suffix == ".nii.gz" else content
    (tmp_path / "test" / "images" / f"i{suffix}").write_bytes(packed)
    with pytest.raises(DataError, match=r"is in several splits.* 1: train/b = test/i\."):
        open_data(settings)
    (finding,) = check_data(settings).of("near-duplicates")
    assert (finding.severity, finding.names) == ("error", ("train/b = test/i",))


def test_copies_of_a_volume_are_dealt_to_one_split(tmp_path):
    folder = pairs(tmp_path, labels(1))
    for name in ("v2", "v5"):
        save(folder / "images" / f"{name}.nii.gz", picture(0))
    for seed in range(8):
        found = open_data(DataSettings(path=folder, split_seed=seed))
        of = {entry.name: split for split, each in found.splits.items() for entry in each.entries}
        assert of["v0"] == of["v2"] == of["v5"]


def test_what_lies_beside_the_volumes_is_not_passed_over(tmp_path):
    nnunet(tmp_path)
    save(tmp_path / "imagesTr" / "more" / "x_0000.nii.gz", picture(9))
    (warning,) = open_data(DataSettings(path=tmp_path)).warnings
    assert warning.kind == "unread-folder"
    assert warning.names == (str(tmp_path / "imagesTr" / "more"),)
    for file in (tmp_path / "imagesTs").iterdir():
        file.unlink()
    (tmp_path / "imagesTs").rmdir()
    with pytest.raises(DataError, match=r"labelsTs holds labels, and there is no folder imagesTs/"):
        open_data(DataSettings(path=tmp_path))


@pytest.mark.parametrize("ends", [(100, -100), (5, 5), (float("nan"), 1), (0, float("inf"))])
def test_numbers_that_are_no_range_are_refused(tmp_path, ends):
    with pytest.raises(SettingError, match="two finite numbers for each channel, the lower one first"):
        DataSettings(path=tmp_path, intensities=(ends,))


@pytest.mark.parametrize(("shift", "doubted"), [(0, False), (1024, True)])
def test_a_ct_that_holds_no_air_is_doubted(tmp_path, shift, doubted):
    """Counts of a scanner begin at 0, Hounsfield units of air are -1000."""
    folder = nnunet(tmp_path / "ct", names=("CT",))
    for number, file in enumerate(sorted((folder / "imagesTr").iterdir())):
        save(file, picture(number) + np.int16(shift))
    found = check_data(DataSettings(path=folder)).of("intensity-range")
    assert [each.severity for each in found] == ["warning"] * doubted
    other = nnunet(tmp_path / "mri")  # whose numbers have no unit
    assert not check_data(DataSettings(path=other)).of("intensity-range")


def test_what_other_tools_list_and_is_not_read_is_named(tmp_path):
    nnunet(tmp_path)
    file = tmp_path / "dataset.json"
    described = json.loads(file.read_text())
    for entries, said in (
        ({"numTest": 2}, r"says numTest 2, and .*imagesTs holds 1 case\."),
        ({"validation": [{"image": "imagesTr/c1.nii.gz"}]}, "lists a split under 'validation', which is not"),
        ({"imagesVal": ["c9.nii.gz"]}, "lists a split under 'imagesVal'"),
    ):
        file.write_text(json.dumps(described | entries))
        with pytest.raises(DataError, match=said):
            find_cases(tmp_path)
    file.write_text(json.dumps(described | {"numTest": 1, "validation": []}))
    save(tmp_path / "imagesVal" / "v_0000.nii.gz", picture(9))
    (warning,) = open_data(DataSettings(path=tmp_path)).warnings
    assert (warning.kind, warning.names) == ("unread-folder", (str(tmp_path / "imagesVal"),))
    for folder in ("images", "labels"):
        (old,) = (tmp_path / f"{folder}Ts").iterdir()
        old.rename(old.with_name(old.name.replace("c5", "C3")))
    with pytest.raises(DataError, match=r"has c3 in imagesTr/ and in imagesTs/ \(1\)"):
        open_data(DataSettings(path=tmp_path))


def test_names_beside_the_labels_of_3d_slicer_are_held_against_the_classes(tmp_path):
    """It numbers the segments of each file anew."""
    sitk = pytest.importorskip("SimpleITK", reason="needs the extra medical")
    for number, names in enumerate([("liver", "tumor"), ("tumor", "liver"), ("x", "y"), ("Tumor", "")]):
        for folder, values in (("images", picture(number)), ("masks", labels(1, 2))):
            image = sitk.GetImageFromArray(values)
            for label, name in enumerate(names if folder == "masks" else ()):
                image.SetMetaData(f"Segment{label}_Name", name)
                image.SetMetaData(f"Segment{label}_LabelValue", str(label + 1))
            file = tmp_path / folder / f"v{number}.nrrd"
            file.parent.mkdir(exist_ok=True)
            sitk.WriteImage(image, str(file))
    split = open_data(DataSettings(path=tmp_path, classes=("background", "liver", "tumor"))).split("all")
    with pytest.raises(MaskValueError, match=r"v1\.nrrd calls its label 1 'tumor', .* the class of label 2"):
        split[1]
    with pytest.raises(MaskValueError, match=r"v3\.nrrd calls its label 1 'Tumor'"):
        split[3]
    assert values_in(split[0]) == values_in(split[2]) == [0, 1, 2]
    merged = open_data(DataSettings(path=tmp_path, masks="foreground")).split("all")
    assert all(values_in(merged[at]) == [0, 1] for at in range(4))


def test_groups_of_volumes_are_asked_for_as_volumes(tmp_path):
    pairs(tmp_path, labels(1))
    (tmp_path / "groups.csv").write_text("image,group\nv0,a\n")
    with pytest.raises(
        DataError, match=r"has no row for 7 of 8 volumes: v1, .*\. A volume that belongs to no"
    ):
        open_data(DataSettings(path=tmp_path, groups=tmp_path / "groups.csv"))

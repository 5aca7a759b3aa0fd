"""Volumes and their places: against voxels whose place was worked out by hand, and against SimpleITK."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from seglens.data.images import read_images
from seglens.data.volumes import Grid, Volume, read_labels, read_volume, write_map, write_mask
from seglens.errors import DataError, MaskValueError, OutputExistsError, SettingError, SizeMismatchError

nibabel = pytest.importorskip("nibabel", reason="needs the extra medical")
sitk = pytest.importorskip("SimpleITK", reason="needs the extra medical")
pydicom = pytest.importorskip("pydicom", reason="needs the extra medical")

TURN = np.array([[np.cos(0.3), -np.sin(0.3), 0], [np.sin(0.3), np.cos(0.3), 0], [0, 0, 1]])


def affine_of(directions: np.ndarray, spacing: tuple[float, ...], origin: tuple[float, ...]) -> np.ndarray:
    found = np.eye(4)
    found[:3, :3] = directions * np.array(spacing)
    found[:3, 3] = origin
    return found


AFFINES = {
    "straight": affine_of(np.eye(3), (1, 1, 1), (0, 0, 0)),
    "anisotropic": affine_of(np.eye(3), (0.7, 0.8, 5), (-30, 12, 99)),
    "flipped": affine_of(np.diag([-1.0, 1.0, -1.0]), (1, 2, 3), (5, 6, 7)),
    "permuted": affine_of(np.array([[0.0, 0, 1], [1, 0, 0], [0, -1, 0]]), (1, 1.5, 2), (0, 0, -4)),
    "rotated": affine_of(TURN, (0.9, 0.9, 3), (10, -20, 30)),
}
LANDMARK = (4, 1, 2)


def numbers(shape: tuple[int, int, int] = (6, 5, 4)) -> np.ndarray:
    """Every voxel another number, the landmark the largest."""
    values = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    values[LANDMARK] = 1000
    return values


def saved(file: Path, values: np.ndarray, affine: np.ndarray, code: int = 1) -> Path:
    image = nibabel.Nifti1Image(values, affine)
    image.set_sform(affine, code)
    image.set_qform(affine, code)
    nibabel.save(image, file)
    return file


@pytest.mark.parametrize("name", AFFINES)
def test_a_landmark_stays_where_it_is(tmp_path, name):
    """Written by one library, read here, written here, read by another one."""
    volume = read_volume(saved(tmp_path / "in.nii.gz", numbers(), AFFINES[name]))
    assert np.unravel_index(volume.values.argmax(), volume.values.shape) == LANDMARK
    by_hand = AFFINES[name][:3, :3] @ LANDMARK + AFFINES[name][:3, 3]
    np.testing.assert_allclose(volume.grid.world(LANDMARK), by_hand, atol=1e-5)
    write_map(tmp_path / "map.nii.gz", volume.values, volume.grid, "logits")
    other = sitk.ReadImage(str(tmp_path / "map.nii.gz"))
    x, y, z = other.TransformIndexToPhysicalPoint(LANDMARK)
    np.testing.assert_allclose((-x, -y, z), by_hand, atol=1e-4)
    assert other[LANDMARK] == 1000
    again = read_volume(tmp_path / "map.nii.gz")
    assert again.values.dtype == np.float32
    assert volume.grid.distance_to(again.grid) < 1e-4
    np.testing.assert_array_equal(again.values, volume.values)


def test_orientation_spacing_and_planes():
    assert {name: Grid((6, 5, 4), affine).orientation for name, affine in AFFINES.items()} == {
        "straight": "RAS",
        "anisotropic": "RAS",
        "flipped": "LAI",
        "permuted": "AIR",
        "rotated": "RAS",
    }
    grid = Grid((6, 5, 4), AFFINES["permuted"])
    assert grid.spacing == pytest.approx((1, 1.5, 2))
    assert grid.voxel_ml == pytest.approx(0.003)
    assert {plane: grid.axis_of(plane) for plane in ("sagittal", "coronal", "axial")} == {
        "sagittal": 2,
        "coronal": 0,
        "axial": 1,
    }
    for name, affine in AFFINES.items():
        assert Grid((6, 5, 4), affine).orientation == "".join(nibabel.aff2axcodes(affine)), name
    with pytest.raises(SettingError, match=r"'oblique'.*sagittal, coronal, axial"):
        grid.axis_of("oblique")


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
@pytest.mark.parametrize("name", ["anisotropic", "flipped", "permuted", "rotated"])
def test_other_formats_lie_where_their_own_library_says(tmp_path, suffix, name):
    affine = np.diag([-1.0, -1, 1, 1]) @ AFFINES[name]
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image = sitk.GetImageFromArray(numbers().transpose(2, 1, 0))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / spacing).flatten().tolist())
    sitk.WriteImage(image, str(tmp_path / f"a{suffix}"))
    volume = read_volume(tmp_path / f"a{suffix}")
    x, y, z = image.TransformIndexToPhysicalPoint(LANDMARK)
    np.testing.assert_allclose(volume.grid.world(LANDMARK), (-x, -y, z), atol=1e-4)
    np.testing.assert_array_equal(volume.values, numbers())


def test_what_is_no_volume_is_refused(tmp_path):
    eye = np.eye(4)
    values = numbers().astype(np.float32)
    with pytest.raises(DataError, match=r"4 axes \(6 x 5 x 4 x 2\); allowed are 3"):
        read_volume(saved(tmp_path / "time.nii.gz", np.stack([values] * 2, -1), eye))
    assert read_volume(saved(tmp_path / "one.nii", values[..., None], eye)).values.shape == (6, 5, 4)
    values[0, 0, 0] = np.nan
    with pytest.raises(DataError, match="1 voxels of 120 that are not finite"):
        read_volume(saved(tmp_path / "nan.nii", values, eye))
    with pytest.raises(DataError, match=r"codes of sform and qform are both 0"):
        read_volume(saved(tmp_path / "nowhere.nii", numbers(), eye, code=0))
    flat = np.diag([1.0, 1, 0, 1])
    image = nibabel.Nifti1Image(numbers(), eye)
    image.header.set_sform(flat, 1)
    image.header["qform_code"], image.header["vox_offset"] = 0, 352
    (tmp_path / "flat.nii").write_bytes(image.header.binaryblock + b"\0" * 4 + numbers().tobytes("F"))
    with pytest.raises(DataError, match=r"flat\.nii: The affine of a volume is singular"):
        read_volume(tmp_path / "flat.nii")
    sheared = eye.copy()
    sheared[0, 2] = 0.5 * eye[2, 2]
    with pytest.raises(DataError, match=r"sheared: .* at an angle of 63.4 degrees"):
        read_volume(saved(tmp_path / "sheared.nii", numbers(), sheared))
    whole = saved(tmp_path / "whole.nii.gz", np.random.default_rng(0).random((30, 30, 30), np.float32), eye)
    (tmp_path / "cut.nii.gz").write_bytes(whole.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"cut\.nii\.gz can't be read as NIfTI.*cut short"):
        read_volume(tmp_path / "cut.nii.gz")
    (tmp_path / "text.nii").write_text("nothing")
    with pytest.raises(DataError, match=r"text\.nii can't be read as NIfTI"):
        read_volume(tmp_path / "text.nii")
    strange = nibabel.Nifti1Image(numbers(), eye)
    strange.header["xyzt_units"] = 7
    nibabel.save(strange, tmp_path / "units.nii")
    with pytest.raises(DataError, match=r"units\.nii can't be read as NIfTI"):
        read_volume(tmp_path / "units.nii")
    with pytest.raises(DataError, match=r"There is no file"):
        read_volume(tmp_path / "none.nii")
    with pytest.raises(DataError, match=r"ends in '\.png'.*\.nii\.gz"):
        read_volume(tmp_path / "picture.png")


def test_two_directions_in_one_header_are_refused(tmp_path):
    image = nibabel.Nifti1Image(np.zeros((3, 4, 5), np.int16), None)
    image.set_sform(np.diag([1.0, 1, 2, 1]), code=1)
    image.set_qform(np.diag([-1.0, 1, 2, 1]), code=1)
    nibabel.save(image, tmp_path / "both.nii.gz")
    with pytest.raises(
        DataError, match=r"both.nii.gz says two things.*RAS by the sform and LAS by the qform"
    ):
        read_volume(tmp_path / "both.nii.gz")
    # Aligned with a template by a small turn: the axes run the same way, and the sform is taken.
    turned = np.diag([1.0, 1, 2, 1])
    turned[0, 1], turned[1, 0] = 0.1, -0.1
    image.set_sform(turned, code=4)
    image.set_qform(np.diag([1.0, 1, 2, 1]), code=1)
    nibabel.save(image, tmp_path / "turned.nii.gz")
    np.testing.assert_allclose(read_volume(tmp_path / "turned.nii.gz").grid.affine, turned, atol=1e-6)


def test_volumes_and_pictures_are_told_apart_by_name(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5), np.int16), np.eye(4)), tmp_path / "one.nii.gz")
    with pytest.raises(DataError, match=r"is a folder of volumes, such as one.nii.gz; allowed is a volume"):
        read_volume(tmp_path)
    with pytest.raises(DataError, match=r"one.nii.gz is not read: it is a volume, and pictures are wanted"):
        read_images([tmp_path / "one.nii.gz"], size=16)


def test_a_header_that_promises_too_much_is_refused_before_anything_is_read(tmp_path):
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape((30000, 30000, 30000))
    header.set_sform(np.eye(4), 1)
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(header.binaryblock + b"\0" * 1000))
    with pytest.raises(DataError, match=r"30000 x 30000 x 30000 voxels.*--max-pixels"):
        read_volume(tmp_path / "bomb.nii.gz")


def test_labels_are_whole_numbers_on_the_grid_of_the_picture(tmp_path):
    picture = Volume(numbers(), Grid((6, 5, 4), AFFINES["rotated"]))
    truth = (numbers() % 3).astype(np.float32)
    file = saved(tmp_path / "truth.nii.gz", truth, AFFINES["rotated"])
    np.testing.assert_array_equal(read_labels(file, picture), numbers() % 3)
    saved(file, truth / 2, AFFINES["rotated"])
    with pytest.raises(MaskValueError, match=r"holds 0\.5 among its labels.*nearest neighbours"):
        read_labels(file, picture)
    saved(file, truth[:5], AFFINES["rotated"])
    with pytest.raises(SizeMismatchError, match=r"5 x 5 x 4 voxels, its picture 6 x 5 x 4"):
        read_labels(file, picture)
    saved(file, truth, AFFINES["anisotropic"])
    with pytest.raises(SizeMismatchError, match=r"mm beside its picture.*allowed is 0\.0009 mm"):
        read_labels(file, picture)
    near = AFFINES["rotated"].copy()
    near[0, 3] += 1e-4  # what rounding to float32 in a header does
    saved(file, truth, near)
    assert read_labels(file, picture).max() == 2
    near[0, 3] += 8e-4  # .0009 mm in all: as far as is allowed, and a little more by rounding
    saved(file, truth, near)
    with pytest.raises(SizeMismatchError, match=r"lies (0\.000900\d+) mm .*allowed is 0\.0009 mm") as refused:
        read_labels(file, picture)
    assert "0.0009 mm beside" not in str(refused.value), "two numbers that differ"
    saved(file, -truth, AFFINES["rotated"])
    with pytest.raises(MaskValueError, match="labels from -2 to 0"):
        read_labels(file)


def test_masks_are_written_as_the_smallest_integers(tmp_path):
    grid = Grid((6, 5, 4), AFFINES["flipped"])
    labels = numbers().astype(np.int64) % 3
    write_mask(tmp_path / "small.nii.gz", labels, grid)
    write_mask(tmp_path / "large.nii", labels * 200, grid)
    found = [nibabel.load(tmp_path / name) for name in ("small.nii.gz", "large.nii")]
    assert [image.get_data_dtype() for image in found] == [np.uint8, np.uint16]
    assert found[0].header.get_xyzt_units()[0] == "mm"
    np.testing.assert_array_equal(np.asarray(found[1].dataobj), labels * 200)
    write_map(tmp_path / "map.nii.gz", labels, grid, "logits per voxel")
    about = bytes(nibabel.load(tmp_path / "map.nii.gz").header["descrip"])
    assert about.rstrip(b"\0") == b"seglens: logits per voxel"
    first = (tmp_path / "map.nii.gz").read_bytes()
    write_map(tmp_path / "map.nii.gz", labels, grid, "logits per voxel", force=True)
    assert (tmp_path / "map.nii.gz").read_bytes() == first
    with pytest.raises(OutputExistsError):
        write_map(tmp_path / "map.nii.gz", labels, grid, "logits")
    with pytest.raises(SizeMismatchError, match=r"shape \(5, 5, 4\) don't fit"):
        write_mask(tmp_path / "other.nii", labels[:5], grid)
    with pytest.raises(SettingError, match=r"must end in \.nii\.gz or \.nii"):
        write_mask(tmp_path / "other.png", labels, grid)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["large.nii", "map.nii.gz", "small.nii.gz"]


def test_a_slope_in_the_header_is_applied(tmp_path):
    header = nibabel.Nifti1Image(numbers(), np.eye(4)).header
    header["scl_slope"], header["scl_inter"], header["sform_code"] = 0.5, -1024, 1
    header["vox_offset"], header["magic"] = 352, b"n+1"
    (tmp_path / "ct.nii").write_bytes(header.binaryblock + b"\0" * 4 + numbers().tobytes("F"))
    found = read_volume(tmp_path / "ct.nii")
    assert found.values.dtype == np.float32
    np.testing.assert_allclose(found.values, numbers() * 0.5 - 1024)
    plain = read_volume(saved(tmp_path / "plain.nii", numbers(), np.eye(4)))
    assert plain.values.dtype == np.int16


def test_two_sizes_of_a_voxel_are_refused(tmp_path):
    image = nibabel.Nifti1Image(numbers().astype(np.int16), None)
    image.set_sform(np.diag([1.0, 1, 2, 1]), code=1)
    image.set_qform(np.diag([1.0, 1, 4, 1]), code=1)
    nibabel.save(image, tmp_path / "a.nii.gz")
    with pytest.raises(DataError, match="how large its voxels are: 1 x 1 x 2 by the sform and 1 x 1 x 4"):
        read_volume(tmp_path / "a.nii.gz")
    away = np.diag([1.0, 1, 2, 1])
    away[:3, 3] = 100  # of another space: the sizes are the same, and the sform is taken
    image.set_qform(away, code=1)
    nibabel.save(image, tmp_path / "a.nii.gz")
    assert read_volume(tmp_path / "a.nii.gz").grid.world((0, 0, 0)) == (0, 0, 0)


@pytest.mark.parametrize(("side", "said"), [(0, "0 x 1 x 1"), (-2, "-2 x 1 x 1"), (np.nan, "nan x 1 x 1")])
def test_voxels_without_a_length_are_refused(tmp_path, side, said):
    """Readers take 1 for 0 and 2 for -2, without a word."""
    header = nibabel.Nifti1Header()
    header.set_data_shape((6, 5, 4))
    header.set_data_dtype(np.int16)
    header["qform_code"], header["pixdim"] = 1, [1, side, 1, 1, 0, 0, 0, 0]
    header["vox_offset"], header["magic"] = 352, b"n+1"
    (tmp_path / "a.nii").write_bytes(header.binaryblock + b"\0" * 4 + numbers().astype("<i2").tobytes("F"))
    with pytest.raises(DataError, match=f"has voxels of {said}; allowed are lengths above 0"):
        read_volume(tmp_path / "a.nii")


def test_numbers_of_the_other_byte_order_are_those_numbers(tmp_path):
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_shape((6, 5, 4))
    header.set_data_dtype(np.int16)
    header.set_sform(np.eye(4), 1)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    (tmp_path / "a.nii").write_bytes(header.binaryblock + b"\0" * 4 + numbers().astype(">i2").tobytes("F"))
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii").values, numbers())


def test_labels_that_are_nearly_whole_are_named(tmp_path):
    saved(tmp_path / "a.nii", (numbers() % 2 * (1 - 1e-9)).astype(np.float64), np.eye(4))
    with pytest.raises(MaskValueError, match=r"holds 0.99999999\d* among its labels"):
        read_labels(tmp_path / "a.nii")
    saved(tmp_path / "a.nii", (numbers() * 1e30).astype(np.float32), np.eye(4))
    with pytest.raises(MaskValueError, match=r"labels from 0 to 1e\+33; allowed are 0 to 65535"):
        read_labels(tmp_path / "a.nii")


def test_a_header_whose_numbers_are_missing_says_why(tmp_path):
    image = sitk.GetImageFromArray(numbers().astype(np.int16))
    sitk.WriteImage(image, str(tmp_path / "a.nhdr"))
    (tmp_path / "a.raw").unlink()
    with pytest.raises(DataError, match=r"a\.nhdr can't be read by SimpleITK: .*couldn't open"):
        read_volume(tmp_path / "a.nhdr")


@pytest.mark.parametrize(
    ("place", "written", "said"),
    [
        (280, bytes(48), "sform or qform say no place"),  # srow: all zeros
        (256, np.array([2, 2, 2], "<f4").tobytes(), "sform or qform say no place"),  # a quaternion too long
        (280, np.array([np.nan], "<f4").tobytes(), "sform or qform say no place"),
        (108, bytes(4), "its numbers begin at byte 0, in the header"),  # they would be those of the header
    ],
)
def test_headers_that_hold_nonsense_are_refused_by_name(tmp_path, place, written, said):
    file = saved(tmp_path / "one.nii", numbers(), np.diag([1.0, 2, 3, 1]))
    image = nibabel.load(file)
    image.set_sform(image.affine, 1)
    image.set_qform(image.affine, 1)
    nibabel.save(image, file)
    content = bytearray(file.read_bytes())
    content[place : place + len(written)] = written
    file.write_bytes(content)
    with pytest.raises(DataError, match=f"one.nii can't be read as NIfTI: {said}"):
        read_volume(file)


SPACE = "space: left-posterior-superior"
DIRECTIONS = "space directions: (1,0,0) (0,2,0) (0,0,3)"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (("spacings: 1 2 3",), "its space is 'not told', and it has no space directions"),
        (("space dimension: 3", DIRECTIONS), "its space is 'not told', and it has space directions"),
        (("space: scanner-xyz", DIRECTIONS), "its space is 'scanner-xyz'"),
        (("space: 3D-left-handed", DIRECTIONS), "its space is '3d-left-handed'"),
        ((SPACE,), "it has no space directions"),
        ((SPACE, DIRECTIONS, 'space units: "m" "m" "m"'), "has lengths in m; allowed is mm"),
    ],
)
def test_a_nrrd_that_does_not_say_where_it_lies(tmp_path, lines, said):
    pytest.importorskip("SimpleITK", reason="needs the extra medical")
    head = ("NRRD0004", "type: int16", "dimension: 3", "sizes: 6 5 4", "endian: little", "encoding: raw")
    content = numbers().astype("<i2").tobytes("F")
    file = tmp_path / "one.nrrd"
    file.write_bytes("\n".join((*head, *lines, "", "")).encode() + content)
    with pytest.raises(DataError, match=said):
        read_volume(file)
    good = (*head, SPACE, DIRECTIONS, 'space units: "mm" "mm" "mm"', "", "")
    file.write_bytes("\n".join(good).encode() + content)
    np.testing.assert_array_equal(read_volume(file).values, numbers())
    assert read_volume(file).grid.orientation == "LPS"


@pytest.mark.parametrize(
    ("slope", "shift", "by_hand"),
    [
        (0, 0, [0, 1, 2]),
        (np.nan, np.nan, [0, 1, 2]),
        (0, np.nan, [0, 1, 2]),
        (2, 5, [5, 7, 9]),
        (-1, 0, [0, -1, -2]),
        (0, 5, "scl_slope 0 and scl_inter 5"),
        (np.nan, 5, "scl_slope nan and scl_inter 5"),
        (0, np.inf, "scl_slope 0 and scl_inter inf"),
        (np.inf, 0, "scl_slope inf"),
        (-np.inf, 5, "scl_slope -inf"),
        (2, np.nan, "invalid intercept"),
    ],
)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_what_scales_the_numbers_of_a_nifti(tmp_path, slope, shift, by_hand, suffix):
    """The bytes are written by hand; nibabel passes over the shift of a slope of 0, SimpleITK adds it."""
    saved(tmp_path / "a.nii", numbers(), np.eye(4))
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[112:120] = struct.pack("<2f", slope, shift)
    file = tmp_path / f"b{suffix}"
    file.write_bytes(gzip.compress(content) if suffix == ".nii.gz" else content)
    if isinstance(by_hand, str):
        with pytest.raises(DataError, match=by_hand):
            read_volume(file)
    else:
        assert read_volume(file).values[0, 0, :3].tolist() == by_hand


@pytest.mark.parametrize("name", ["../a.raw", "{folder}/a.raw", "sub/../../a.raw", "..\\a.raw", "LIST"])
@pytest.mark.parametrize("suffix", [".mhd", ".nhdr", ".nrrd", ".mha"])
def test_headers_that_climb_out_of_their_folder(tmp_path, name, suffix):
    folder = tmp_path / "set"
    folder.mkdir()
    image = sitk.GetImageFromArray(numbers().transpose(2, 1, 0))
    written = folder / ("a.nhdr" if suffix in (".nhdr", ".nrrd") else "a.mhd")
    sitk.WriteImage(image, str(written))
    assert read_volume(written).values.shape == (6, 5, 4)
    lines = written.read_text("latin-1").splitlines()
    place = next(
        n for n, line in enumerate(lines) if line.lower().startswith(("elementdatafile", "data file"))
    )
    raw = lines[place].replace("=", ":").split(":")[1].strip()
    (folder / raw).rename(tmp_path / "a.raw")
    named = "LIST\n../a.raw" if name == "LIST" else name.format(folder=tmp_path)
    lines[place] = f"{lines[place].split(raw)[0]}{named}"
    (folder / f"b{suffix}").write_text("\n".join(lines) + "\n", "latin-1")
    with pytest.raises(DataError, match=r"names its numbers .*a\.raw', outside of its own folder"):
        read_volume(folder / f"b{suffix}")


def test_a_header_may_name_numbers_below_its_folder(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(numbers().transpose(2, 1, 0)), str(tmp_path / "a.mhd"))
    (tmp_path / "raw").mkdir()
    text = (tmp_path / "a.mhd").read_text()
    (raw,) = [file for file in tmp_path.iterdir() if file.suffix in (".raw", ".zraw")]
    raw.rename(tmp_path / "raw" / raw.name)
    (tmp_path / "a.mhd").write_text(text.replace(raw.name, f"raw/{raw.name}"))
    np.testing.assert_array_equal(read_volume(tmp_path / "a.mhd").values, numbers())

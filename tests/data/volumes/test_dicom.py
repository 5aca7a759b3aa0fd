"""DICOM series: numbers and places against those that were written, and against SimpleITK's own reader."""

from pathlib import Path

import numpy as np
import pytest

from seglens.data.volumes import read_volume
from seglens.errors import DataError

sitk = pytest.importorskip("SimpleITK", reason="needs the extra medical")
pydicom = pytest.importorskip("pydicom", reason="needs the extra medical")

NAME = "Erika^Mustermann"
TURN = np.array([[np.cos(0.2), -np.sin(0.2), 0], [np.sin(0.2), np.cos(0.2), 0], [0, 0, 1]])


def numbers() -> np.ndarray:
    """Slices x rows x columns, every one another."""
    return np.arange(4 * 5 * 6, dtype=np.uint16).reshape(4, 5, 6)


def write_slice(file: Path, stored: np.ndarray, position: np.ndarray, **changes: object) -> None:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.2")
    meta.MediaStorageSOPInstanceUID = UID(f"1.2.3.{ord(file.stem[0])}")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(file), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.PatientName, data.Modality, data.SeriesInstanceUID = NAME, "CT", "1.2.3.4"
    data.StudyInstanceUID, data.SeriesNumber = "1.2.3", 1
    data.Rows, data.Columns = stored.shape
    data.PixelSpacing, data.SliceThickness = [0.8, 0.6], 2.5
    data.ImagePositionPatient = [float(part) for part in position]
    data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.RescaleSlope, data.RescaleIntercept = 2, -1024
    data.PixelData = stored.astype("<u2").tobytes()
    for name, value in changes.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    data.save_as(file, enforce_file_format=True)


def write_series(folder: Path, directions: np.ndarray | None = None, **changes: object) -> Path:
    """Four slices, 2.5 mm apart, in files whose names don't tell their order."""
    folder.mkdir(exist_ok=True)
    turned = np.eye(3) if directions is None else directions
    for place, name in enumerate(("c", "a", "d", "b")):
        position = np.array([-10.0, 20, 30]) + 2.5 * place * turned[:, 2]
        cosines = [float(part) for part in turned[:, :2].T.flatten()]
        write_slice(
            folder / f"{name}.dcm",
            numbers()[place],
            position,
            **{"ImageOrientationPatient": cosines, **changes},
        )
    return folder


@pytest.mark.parametrize("directions", [None, TURN, np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])])
def test_a_series_is_what_another_reader_sees(tmp_path, directions):
    volume = read_volume(write_series(tmp_path / "scan", directions))
    np.testing.assert_allclose(volume.values, numbers().transpose(2, 1, 0) * 2.0 - 1024)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "scan")))
    other = reader.Execute()
    np.testing.assert_allclose(volume.values, sitk.GetArrayFromImage(other).transpose(2, 1, 0))
    for voxel in ((0, 0, 0), (5, 4, 3), (2, 0, 1)):
        x, y, z = other.TransformIndexToPhysicalPoint(voxel)
        np.testing.assert_allclose(volume.grid.world(voxel), (-x, -y, z), atol=1e-4)
    assert volume.grid.spacing == pytest.approx((0.6, 0.8, 2.5))


def test_one_file_is_a_volume_of_one_slice(tmp_path):
    volume = read_volume(write_series(tmp_path / "scan") / "a.dcm")
    assert volume.values.shape == (6, 5, 1)
    assert volume.grid.spacing == pytest.approx((0.6, 0.8, 2.5))


def test_monochrome1_is_turned_round(tmp_path):
    plain = read_volume(write_series(tmp_path / "plain"))
    turned = read_volume(write_series(tmp_path / "turned", PhotometricInterpretation="MONOCHROME1"))
    stored = (plain.values + 1024) / 2
    np.testing.assert_allclose(turned.values, (4095 - stored) * 2 - 1024)


def test_a_missing_slope_means_the_numbers_as_they_are(tmp_path):
    volume = read_volume(write_series(tmp_path / "scan", RescaleSlope=None, RescaleIntercept=None))
    np.testing.assert_array_equal(volume.values, numbers().transpose(2, 1, 0))


def refused(folder: Path) -> str:
    with pytest.raises(DataError) as raised:
        read_volume(folder)
    assert "Erika" not in str(raised.value)
    return str(raised.value)


def test_what_is_no_single_whole_series_is_refused_without_a_patient_s_name(tmp_path):
    (write_series(tmp_path / "gap") / "d.dcm").unlink()
    assert "lacks slices" in refused(tmp_path / "gap")
    assert "a.dcm and b.dcm are 5 mm apart" in refused(tmp_path / "gap")

    double = write_series(tmp_path / "double")
    write_slice(double / "e.dcm", numbers()[0], np.array([-10.0, 20, 32.5]))
    assert "two slices at one place (a.dcm and e.dcm" in refused(double)

    mixed = write_series(tmp_path / "mixed")
    write_slice(mixed / "e.dcm", numbers()[0], np.array([-10.0, 20, 40]), SeriesInstanceUID="1.2.3.5")
    assert "slices of 2 series: 4 like a.dcm, 1 like e.dcm" in refused(mixed)

    sizes = write_series(tmp_path / "sizes")
    write_slice(sizes / "e.dcm", numbers()[0][:4], np.array([-10.0, 20, 40]))
    assert "slices of 2 sizes" in refused(sizes)

    tilted = tmp_path / "tilted"
    tilted.mkdir()
    for place in range(3):
        write_slice(tilted / f"{place}.dcm", numbers()[0], np.array([0.0, 0.5 * place, 2.5 * place]))
    assert "tilted gantry: from slice to slice it slides 0.5 mm" in refused(tilted)

    assert "doesn't say ImagePositionPatient" in refused(
        write_series(tmp_path / "nowhere", ImagePositionPatient=None)
    )
    assert "holds 3 frames" in refused(write_series(tmp_path / "frames", NumberOfFrames=3))
    assert "holds 3 numbers at each pixel (RGB)" in refused(
        write_series(tmp_path / "rgb", SamplesPerPixel=3, PhotometricInterpretation="RGB")
    )
    assert "without a picture" in refused(write_series(tmp_path / "none", Rows=None))

    enhanced = write_series(
        tmp_path / "enhanced", PixelSpacing=None, SharedFunctionalGroupsSequence=[pydicom.Dataset()]
    )
    assert "holds 1 frame, each with" in refused(enhanced)
    for kind, said in (("66.4", "a segmentation (SEG)"), ("481.2", "a dose (RTDOSE)")):
        other = write_series(tmp_path / kind, SOPClassUID=f"1.2.840.10008.5.1.4.1.1.{kind}")
        assert f"a.dcm is {said}" in refused(other)

    (write_series(tmp_path / "foreign") / "notes.txt").write_text("hello")
    assert "notes.txt is no DICOM file" in refused(tmp_path / "foreign")

    whole = (write_series(tmp_path / "cut") / "a.dcm").read_bytes()
    (tmp_path / "cut" / "a.dcm").write_bytes(whole[:-20])
    assert "a.dcm can't be decoded" in refused(tmp_path / "cut")
    (tmp_path / "empty").mkdir()
    assert "holds no file" in refused(tmp_path / "empty")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"PixelSpacing": [1.0]}, r"PixelSpacing \[1.0\]; allowed are 2 finite numbers above 0"),
        ({"PixelSpacing": [-0.5, 0.6]}, r"PixelSpacing \[-0.5, 0.6\]; allowed are 2 finite numbers above 0"),
        ({"PixelSpacing": [0, 0.6]}, "allowed are 2 finite numbers above 0"),
        ({"ImagePositionPatient": [0, 0]}, r"ImagePositionPatient \[0.0, 0.0\]; allowed are 3 finite"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 1]}, "allowed are 6 finite numbers"),
        ({"ImageOrientationPatient": [0] * 6}, "two directions of length 1 at a right angle"),
        ({"ImageOrientationPatient": [2, 0, 0, 0, 1, 0]}, "two directions of length 1 at a right angle"),
        ({"ImageOrientationPatient": [1, 0, 0, 0.8, 0.6, 0]}, "two directions of length 1 at a right angle"),
        ({"RescaleSlope": 0}, "RescaleSlope 0, which leaves nothing"),
        ({"RescaleSlope": [1, 2]}, "a RescaleSlope that is not one finite number"),
        ({"RescaleIntercept": float("nan")}, "a RescaleIntercept that is not one finite number"),
        ({"SliceThickness": [1, 2]}, "a SliceThickness that is not one finite number"),
        ({"SliceThickness": None}, "is one slice and doesn't say how thick it is"),
        ({"HighBit": 15}, "HighBit 15 and BitsStored 12; allowed is one less"),
        ({"PixelData": bytes(240)}, "a.dcm can't be "),  # more than the 5 x 6 that it says
        ({"ModalityLUTSequence": []}, "by a table .ModalityLUTSequence., which is not read"),
    ],
)
def test_headers_that_say_nothing_or_too_much_are_refused(tmp_path, changes, said):
    write_slice(tmp_path / "a.dcm", numbers()[0], np.zeros(3), **changes)
    with pytest.raises(DataError, match=said):
        read_volume(tmp_path / "a.dcm")


def test_one_slice_is_not_turned_by_the_sign_of_its_spacing(tmp_path):
    write_slice(tmp_path / "a.dcm", numbers()[0], np.zeros(3), SpacingBetweenSlices=-3.0)
    found = read_volume(tmp_path / "a.dcm").grid
    assert (found.orientation, found.spacing[2]) == ("LPS", 3.0)


def test_slices_that_differ_by_rounding_are_one_series(tmp_path):
    folder = write_series(tmp_path / "scan")
    for number, place in enumerate((1, 3)):
        file = folder / f"{'ab'[number]}.dcm"
        # On either side of where cosines and spacings would be cut to fewer digits.
        close = 5e-5 + (-1e-7, 1e-7)[number]
        write_slice(
            file,
            numbers()[place],
            np.array([-10.0, 20, 30 + 2.5 * place]),
            ImageOrientationPatient=[1.0, close, 0, -close, 1, 0],
            PixelSpacing=[0.8, 0.600005 + (-1e-7, 1e-7)[number]],
        )
    np.testing.assert_allclose(read_volume(folder).values, numbers().transpose(2, 1, 0) * 2.0 - 1024)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"RescaleSlope": None, "RescaleIntercept": None}, "2 units: 3 like a.dcm, 1 like d.dcm"),
        ({"RescaleType": "US"}, "slices of 2 units"),
        ({"FrameOfReferenceUID": "1.2.9"}, "slices of 2 frames of reference"),
    ],
)
def test_slices_whose_numbers_or_places_can_not_be_compared(tmp_path, changes, said):
    folder = write_series(tmp_path / "scan")
    write_slice(folder / "d.dcm", numbers()[2], np.array([-10.0, 20, 35]), **changes)
    with pytest.raises(DataError, match=said):
        read_volume(folder)


@pytest.mark.parametrize(
    ("stored", "shift", "header", "by_hand"),
    [
        ([63536, 0, 24, 1064], -1024, {"PixelPaddingValue": -2000}, [-1024, -1024, -1000, 40]),
        ([63536, 0, 24, 1064], -1024, {"PixelPaddingValue": 63536}, [-1024, -1024, -1000, 40]),
        ([63536, 0, 24, 1064], -1024, {}, [-3024, -1024, -1000, 40]),
        (
            [10, 12, 20, 300],
            0,
            {"PixelPaddingValue": 12, "PixelPaddingRangeLimit": 10},
            [0, 0, 20, 300],
        ),
        ([0, 200, 210, 300], 0, {"PixelPaddingValue": 0}, [0, 200, 210, 300]),
    ],
)
def test_padding_is_no_tissue(tmp_path, stored, shift, header, by_hand):
    """By hand: what the header calls padding becomes the lowest of the others, and never above 0."""
    pixels = np.array([stored], np.uint16)
    signed = {"PixelRepresentation": 1, "BitsStored": 16, "HighBit": 15, "RescaleSlope": 1}
    changes = {**signed, "RescaleIntercept": shift}
    write_slice(tmp_path / "a.dcm", pixels, np.zeros(3), **changes)
    data = pydicom.dcmread(tmp_path / "a.dcm")
    for name, value in header.items():
        kind = "SS" if value < 2**15 else "US"
        data.add_new(pydicom.datadict.tag_for_keyword(name), kind, value)
    data.save_as(tmp_path / "a.dcm")
    assert read_volume(tmp_path / "a.dcm").values[:, 0, 0].tolist() == by_hand


def test_a_series_of_padding_alone_is_refused(tmp_path):
    write_slice(tmp_path / "a.dcm", np.full((2, 2), 7, np.uint16), np.zeros(3))
    data = pydicom.dcmread(tmp_path / "a.dcm")
    data.add_new(0x00280120, "US", 7)
    data.save_as(tmp_path / "a.dcm")
    with pytest.raises(DataError, match="holds nothing but padding"):
        read_volume(tmp_path / "a.dcm")


def test_signed_numbers_of_12_bits_and_foreign_bits_above_them(tmp_path):
    """The bits above BitsStored are no part of a number: the sign's, none, or those of an overlay."""
    truth = np.array([[-2048, -5, -1, 0, 100, 2047]] * 5)
    for name, high in (("zero", 0x0000), ("filled", 0xF000), ("overlay", 0x8000)):
        stored = ((truth & 0x0FFF) | high).astype(np.uint16)
        signed = {"PixelRepresentation": 1, "RescaleSlope": 1, "RescaleIntercept": 0}
        (tmp_path / name).mkdir()
        for place in range(2):
            write_slice(tmp_path / name / f"{place}.dcm", stored, np.array([0, 0, 2.5 * place]), **signed)
        np.testing.assert_array_equal(read_volume(tmp_path / name).values[..., 1], truth.T)

"""One flipped bit: the file is refused, or reads as the same numbers. The oracle is the file before it."""

import gzip

import numpy as np
import pytest
from PIL import Image

from seglens.data.images import read_stored
from seglens.data.labels import read_label
from seglens.data.volumes.reading import read_volume
from seglens.errors import DataError

RNG = np.random.default_rng(0)
MASK = np.zeros((120, 90), np.uint8)
MASK[20:60, 30:50] = 255
VOXELS = (RNG.integers(0, 40, (12, 14, 16)) + np.arange(16)).astype(np.int16)


def nifti(file):
    nibabel = pytest.importorskip("nibabel")
    nibabel.save(nibabel.Nifti1Image(VOXELS, np.eye(4)), file)


def by_itk(file):
    sitk = pytest.importorskip("SimpleITK")
    sitk.WriteImage(sitk.GetImageFromArray(VOXELS), str(file), useCompression=True)


KINDS = {
    "mask.png": (lambda file: Image.fromarray(MASK).save(file), read_label, 60),
    "deep.png": (
        lambda file: Image.fromarray(VOXELS[0].astype(np.uint16)).save(file),
        lambda file: read_stored(file).values,
        60,
    ),
    "scan.nii.gz": (nifti, lambda file: read_volume(file).values, 400),
    "scan.mha": (by_itk, lambda file: read_volume(file).values, 600),
    "scan.mhd": (by_itk, lambda file: read_volume(file).values, 30),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_flipped_bit_is_no_other_picture(tmp_path, name, capfd):
    """Bits behind the header, which ends before ``first``: those of a header have no checksum."""
    write, read, first = KINDS[name]
    file = tmp_path / name
    write(file)
    expected = np.asarray(read(file))
    packed = tmp_path / "scan.zraw" if name.endswith(".mhd") else file
    raw, refused = packed.read_bytes(), 0
    for place in RNG.integers(first, len(raw) - 13, 40):
        broken = bytearray(raw)
        broken[place] ^= 1 << int(place) % 8
        packed.write_bytes(broken)
        try:
            found = np.asarray(read(file))
        except DataError:
            refused += 1
        else:
            assert np.array_equal(found, expected)
    assert refused > 10
    assert capfd.readouterr().err == ""


def test_what_is_cut_short_or_lacks_its_numbers(tmp_path):
    by_itk(tmp_path / "a.mha")
    whole = (tmp_path / "a.mha").read_bytes()
    (tmp_path / "a.mha").write_bytes(whole[:-40])
    with pytest.raises(DataError, match=r"a\.mha: its packed numbers can't be unpacked: it ends too early"):
        read_volume(tmp_path / "a.mha")
    by_itk(tmp_path / "b.mhd")
    (tmp_path / "b.zraw").unlink()
    with pytest.raises(DataError, match=r"b\.mhd"):
        read_volume(tmp_path / "b.mhd")


def test_a_packed_file_that_goes_on_is_refused(tmp_path):
    nifti(tmp_path / "a.nii.gz")
    raw = gzip.decompress((tmp_path / "a.nii.gz").read_bytes())
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(raw + bytes(2**21)))
    with pytest.raises(DataError, match="much more than its header declares"):
        read_volume(tmp_path / "a.nii.gz")


def test_what_nibabel_says_of_headers_does_not_reach_the_screen(tmp_path, capfd):
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(VOXELS, np.eye(4))
    image.header["pixdim"][1:4] = 0
    nibabel.save(image, tmp_path / "a.nii.gz")
    capfd.readouterr()
    read_volume(tmp_path / "a.nii.gz")
    assert capfd.readouterr().err == ""

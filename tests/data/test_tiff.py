"""Oracle: arrays written by tifffile, OpenCV and Pillow, or by hand; the values must come back."""

import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from seglens.data.images import read_image, read_pixels
from seglens.data.labels import read_label
from seglens.errors import DataError

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (37, 53)).astype(np.uint8)
COLOUR = RANDOM.integers(0, 256, (37, 53, 3)).astype(np.uint8)
DEEP = RANDOM.integers(0, 65536, (37, 53, 3)).astype(np.uint16)
FIVE = RANDOM.integers(0, 65536, (37, 53, 5)).astype(np.uint16)
SMOOTH = np.linspace(0, 1, 37 * 53, dtype=np.float32).reshape(37, 53)


def by_hand(file, rows, tags):
    """Write one uncompressed strip with these tags: (number, type, values)."""
    data = bytes(rows)
    sizes = {1: "B", 3: "H", 4: "I"}
    tags = {number: (kind, values) for number, kind, values in tags}
    tags |= {273: (4, (8,)), 279: (4, (len(data),))}
    body, entries = struct.pack("<2sHI", b"II", 42, 0), b""
    body += data + b"\0" * (len(data) % 2)
    for number, (kind, values) in sorted(tags.items()):
        packed = struct.pack(f"<{len(values)}{sizes[kind]}", *values)
        if len(packed) > 4:
            packed, body = struct.pack("<I", len(body)), body + packed + b"\0" * (len(packed) % 2)
        entries += struct.pack("<HHI", number, kind, len(values)) + packed.ljust(4, b"\0")
    body = body[:4] + struct.pack("<I", len(body)) + body[8:]
    file.write_bytes(body + struct.pack("<H", len(tags)) + entries + b"\0" * 4)


@pytest.mark.parametrize("predictor", [1, 2])
@pytest.mark.parametrize("compression", [1, 5, 8, 32946, 32773])
def test_16_bit_colour_of_opencv_in_every_compression(tmp_path, compression, predictor):
    file = str(tmp_path / "a.tif")
    options = [cv2.IMWRITE_TIFF_COMPRESSION, compression, cv2.IMWRITE_TIFF_PREDICTOR, predictor]
    assert cv2.imwrite(file, DEEP[..., ::-1], [*options, cv2.IMWRITE_TIFF_ROWSPERSTRIP, 5])
    assert np.array_equal(read_pixels(tmp_path / "a.tif"), DEEP)


def test_floating_point_predictor_of_opencv(tmp_path):
    options = [cv2.IMWRITE_TIFF_COMPRESSION, 5, cv2.IMWRITE_TIFF_PREDICTOR, 3]
    colour = np.stack([SMOOTH, SMOOTH**2, 1 - SMOOTH], axis=2)
    assert cv2.imwrite(str(tmp_path / "a.tif"), colour[..., ::-1], options)
    with tifffile.TiffFile(tmp_path / "a.tif") as opened:
        assert opened.pages.first.predictor == 3
    assert np.array_equal(read_pixels(tmp_path / "a.tif"), colour)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("tile", [None, (16, 32)])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_five_channels_however_they_lie(tmp_path, byteorder, planar, tile, bigtiff):
    tifffile.imwrite(
        tmp_path / "a.tif",
        FIVE if planar == "contig" else FIVE.transpose(2, 0, 1),
        photometric="minisblack",
        planarconfig=planar,
        tile=tile,
        byteorder=byteorder,
        bigtiff=bigtiff,
        compression="zlib",
    )
    assert np.array_equal(read_pixels(tmp_path / "a.tif"), FIVE)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("pixels", [COLOUR, DEEP], ids=["8 bits", "16 bits"])
def test_orientation_is_obeyed_whatever_the_depth(tmp_path, pixels, orientation):
    tag = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extratags=tag)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray((pixels >> (8 * pixels.itemsize - 8)).astype(np.uint8)).save(
        tmp_path / "a.png", exif=exif
    )
    shift = 8 * pixels.itemsize - 8
    assert np.array_equal(read_pixels(tmp_path / "a.tif") >> shift, read_pixels(tmp_path / "a.png"))


def test_orientation_of_a_jpeg_in_tiff_and_of_a_fax(tmp_path):
    plain, turned = tmp_path / "a.tif", tmp_path / "b.tif"
    for compression, pixels in (("jpeg", COLOUR), ("group4", GREY > 127)):
        Image.fromarray(pixels).save(plain, compression=compression)
        Image.fromarray(pixels).save(turned, compression=compression, tiffinfo={274: 6})
        assert np.array_equal(read_pixels(turned), np.rot90(read_pixels(plain), -1))


def test_white_is_zero_is_turned_round(tmp_path):
    kinds: dict[str, np.ndarray] = {"8": GREY, "16": DEEP[..., 0]}
    for name, pixels in kinds.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", ~pixels, photometric="miniswhite")
        assert np.array_equal(read_pixels(tmp_path / f"{name}.tif")[..., 0], pixels)
    tifffile.imwrite(tmp_path / "float.tif", SMOOTH, photometric="miniswhite")
    with pytest.raises(DataError, match=r"float\.tif is not read: white is 0 in it"):
        read_pixels(tmp_path / "float.tif")
    Image.fromarray(GREY > 127).save(tmp_path / "fax.tif", compression="group4")
    assert np.array_equal(read_label(tmp_path / "fax.tif").numpy(), GREY > 127)


def test_few_bits_and_twelve_bits(tmp_path):
    width = 5  # odd: each row is filled up to a byte
    for bits in (1, 2, 4, 12):
        values = RANDOM.integers(0, 2**bits, (3, width)).astype(np.uint16)
        rows = b""
        for row in values.tolist():
            text = "".join(f"{value:0{bits}b}" for value in row)
            text += "0" * (-len(text) % 8)
            rows += bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))
        tags = [(256, 3, (width,)), (257, 3, (3,)), (258, 3, (bits,)), (259, 3, (1,)), (262, 3, (1,))]
        by_hand(tmp_path / "a.tif", rows, [*tags, (277, 3, (1,)), (278, 3, (3,))])
        assert np.array_equal(read_label(tmp_path / "a.tif").numpy(), values)
        highest = 1 if bits == 1 else 2**bits - 1 if bits < 8 else 65535
        image = read_image(tmp_path / "a.tif", channels=1)[0].numpy()
        assert image == pytest.approx(values / np.float32(highest), abs=1 / 500)


def test_cmyk_of_8_and_16_bits_is_rgb(tmp_path):
    inks = RANDOM.integers(0, 256, (37, 53, 4)).astype(np.uint8)
    expected = np.asarray(Image.fromarray(inks, "CMYK").convert("RGB")).astype(int)
    kinds: dict[str, np.ndarray] = {"8": inks, "16": inks.astype(np.uint16) * 257}
    for name, pixels in kinds.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels, photometric="separated")
        found = read_pixels(tmp_path / f"{name}.tif")
        found = found if name == "8" else found / 257
        assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("photometric", ["cielab", "icclab", "itulab"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colours_that_are_not_converted_are_refused_by_name(tmp_path, photometric, dtype):
    tifffile.imwrite(tmp_path / "a.tif", DEEP.astype(dtype), photometric=photometric)
    with pytest.raises(DataError, match=rf"a\.tif .*PhotometricInterpretation says {photometric.upper()}"):
        read_image(tmp_path / "a.tif")


def test_the_fourth_channel_is_alpha_only_where_the_file_says_so(tmp_path):
    four = np.concatenate([COLOUR, GREY[..., None]], axis=2)
    tifffile.imwrite(tmp_path / "nir.tif", four, photometric="rgb", extrasamples=["unspecified"])
    assert np.array_equal(read_pixels(tmp_path / "nir.tif", channels=4), four)
    with pytest.raises(DataError, match=r"nir\.tif has 4 channels; asked for are 3.* --channels 4"):
        read_image(tmp_path / "nir.tif")
    tifffile.imwrite(tmp_path / "alpha.tif", four, photometric="rgb", extrasamples=["unassalpha"])
    assert np.array_equal(read_pixels(tmp_path / "alpha.tif", channels=3), COLOUR)
    assert read_image(tmp_path / "alpha.tif", channels=4).shape[0] == 4
    tifffile.imwrite(tmp_path / "premultiplied.tif", four, photometric="rgb", extrasamples=["assocalpha"])
    with pytest.raises(DataError, match=r"colours were multiplied by its alpha"):
        read_image(tmp_path / "premultiplied.tif")


@pytest.mark.parametrize("dtype", ["i1", "i2", "u4", "c8", "i4"])
def test_types_that_are_no_intensities_are_refused_by_name(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "a.tif", GREY.astype(dtype))
    with pytest.raises(DataError, match=rf"a\.tif holds {np.dtype(dtype).name} values"):
        read_image(tmp_path / "a.tif")


def test_pictures_behind_pictures_are_counted(tmp_path):
    stack = np.stack([GREY] * 3)
    tifffile.imwrite(tmp_path / "pages.tif", stack, photometric="minisblack")
    tifffile.imwrite(tmp_path / "imagej.tif", stack, imagej=True)
    tifffile.imwrite(tmp_path / "behind.tif", stack, truncate=True, photometric="minisblack")
    for name in ("pages", "imagej", "behind"):
        with pytest.raises(DataError, match=rf"{name}\.tif is not read: it holds \d+ pages"):
            read_image(tmp_path / f"{name}.tif")
    Image.fromarray(GREY).save(tmp_path / "film.gif", save_all=True, append_images=[Image.fromarray(~GREY)])
    with pytest.raises(DataError, match=r"film\.gif is not read: it holds 2 frames"):
        read_image(tmp_path / "film.gif")


def test_a_palette_gives_colours_or_indices(tmp_path):
    index = GREY % 4
    colours = RANDOM.integers(1, 256, (256, 3)).astype(np.uint8)
    table = (colours.astype(np.uint16) * 257).T
    tifffile.imwrite(tmp_path / "a.tif", index, photometric="palette", colormap=table)
    assert np.array_equal(read_pixels(tmp_path / "a.tif"), colours[index])
    assert np.array_equal(read_label(tmp_path / "a.tif").numpy(), index)


def test_a_strip_that_would_unpack_to_more_than_the_picture_is_cut_off(tmp_path):
    """Four megabytes that unpack to four gigabytes: the rest of the strip is never made."""
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(b"\0" * 2**24) for _ in range(32)) + packer.flush()
    tags = [(256, 3, (8,)), (257, 3, (8,)), (258, 3, (16,)), (259, 3, (8,)), (262, 3, (1,))]
    by_hand(tmp_path / "a.tif", packed, [*tags, (277, 3, (1,)), (278, 3, (8,))])
    code = (
        "import resource, sys; from seglens.data.images import read_pixels\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(read_pixels(sys.argv[1]).shape)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.tif")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    shape, grown = done.stdout.splitlines()
    assert shape == "(8, 8, 1)"
    assert int(grown) < 50_000  # kB


def test_missing_strips_and_damage_are_named_and_libtiff_is_silent(tmp_path, capfd):
    tags = [(256, 3, (8,)), (257, 3, (8,)), (258, 3, (8,)), (262, 3, (1,)), (277, 3, (1,)), (278, 3, (8,))]
    by_hand(tmp_path / "short.tif", b"\0" * 60, [*tags, (259, 3, (1,))])
    for name, compression in {"lzw": 5, "bits": 32773, "deflate": 8, "fax": 4, "jpeg": 7}.items():
        damaged = b"\x03abcd" if name == "bits" else b"\x91" * 50
        by_hand(tmp_path / f"{name}.tif", damaged, [*tags, (259, 3, (compression,))])
    for file in sorted(tmp_path.iterdir()):
        with pytest.raises(DataError, match=rf"{file.name}"):
            read_pixels(file)
    assert capfd.readouterr() == ("", "")

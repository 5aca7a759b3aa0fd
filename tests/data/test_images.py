"""Oracle: arrays written with known values must come back divided by the range of their container."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from seglens.data.images import LUMA, read_image, read_images, read_pixels, read_size
from seglens.data.labels import read_label
from seglens.errors import DataError, SettingError

RANDOM = np.random.default_rng(0)
COLOUR = RANDOM.integers(0, 256, (6, 9, 3)).astype(np.uint8)
GREY = COLOUR[..., 0]
DEEP = RANDOM.integers(0, 65536, (6, 9, 3)).astype(np.uint16)


def channels_first(pixels: np.ndarray) -> torch.Tensor:
    array = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
    return torch.from_numpy(
        array.transpose(2, 0, 1).astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)
    )


def write_deep_png(file: Path, pixels: np.ndarray) -> None:
    """Write 16 bits of RGB, or of grey and alpha, by the PNG specification: Pillow can't."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2}[channels], 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def write(file: Path, kind: str) -> np.ndarray:
    """Write one kind of file; return the pixels that should be read."""
    alpha = np.full((6, 9, 1), 7, np.uint8)
    match kind:
        case "rgb.png" | "rgb.tif" | "rgb.bmp":
            Image.fromarray(COLOUR).save(file)
        case "rgba.png":
            Image.fromarray(np.concatenate([COLOUR, alpha], axis=2)).save(file)
        case "lzw.tif":
            Image.fromarray(COLOUR).save(file, compression="tiff_lzw")
        case "grey.png" | "grey.tif":
            Image.fromarray(GREY).save(file)
            return GREY
        case "grey-alpha.png":
            Image.fromarray(np.stack([GREY, alpha[..., 0]], axis=2), "LA").save(file)
            return GREY
        case "grey16.png" | "grey16.tif":
            Image.fromarray(DEEP[..., 0]).save(file)
            return DEEP[..., 0]
        case "big-endian.tif":
            tifffile.imwrite(file, DEEP[..., 0], byteorder=">")
            return DEEP[..., 0]
        case "rgb16.png":
            write_deep_png(file, DEEP)
            return DEEP
        case "grey-alpha16.png":
            write_deep_png(file, DEEP[..., :2])
            return DEEP[..., 0]
        case "rgb16.tif":
            tifffile.imwrite(file, DEEP, photometric="rgb")
            return DEEP
        case "planes16.tif":
            tifffile.imwrite(file, DEEP.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
            return DEEP
        case "palette.png":
            few = (GREY % 4).astype(np.uint8)
            picture = Image.fromarray(few, "P")
            colours = COLOUR.reshape(-1, 3)[:4]
            picture.putpalette(colours.ravel().tolist())
            picture.save(file)
            return colours[few]
        case "one-bit.png":
            Image.fromarray(GREY > 127).save(file)
            return (GREY > 127).astype(np.uint8) * 255
    return COLOUR


KINDS = (
    *("rgb.png", "rgb.tif", "rgb.bmp", "rgba.png", "lzw.tif", "grey.png", "grey.tif", "grey-alpha.png"),
    *(
        "grey16.png",
        "grey16.tif",
        "big-endian.tif",
        "grey-alpha16.png",
        "rgb16.png",
        "rgb16.tif",
        "planes16.tif",
    ),
    *("palette.png", "one-bit.png"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_picture_is_divided_by_the_range_of_its_container(tmp_path, kind):
    pixels = write(tmp_path / kind, kind)
    expected = channels_first(pixels)
    image = read_image(tmp_path / kind)
    assert image.is_contiguous()
    assert torch.equal(image, expected)
    luma = (expected * torch.tensor(LUMA)[:, None, None]).sum(0, keepdim=True)
    assert torch.allclose(read_image(tmp_path / kind, channels=1), luma, atol=1e-6)


def test_jpeg_is_read_as_pillow_decodes_it(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "a.jpg", quality=95)
    with Image.open(tmp_path / "a.jpg") as opened:
        decoded = np.asarray(opened)
    assert torch.equal(read_image(tmp_path / "a.jpg"), channels_first(decoded))


def test_orientation_of_a_camera_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(COLOUR).save(tmp_path / "turned.png", exif=exif)
    turned = np.ascontiguousarray(np.rot90(COLOUR, -1))
    assert torch.equal(read_image(tmp_path / "turned.png"), channels_first(turned))


def test_float_tiff_is_taken_as_it_is_within_0_and_1(tmp_path):
    values = RANDOM.random((6, 9)).astype(np.float32)
    tifffile.imwrite(tmp_path / "a.tif", values)
    assert torch.equal(read_image(tmp_path / "a.tif", channels=1)[0], torch.from_numpy(values))
    tifffile.imwrite(tmp_path / "b.tif", values * 300)
    with pytest.raises(DataError, match=r"b\.tif holds floating-point values .* allowed is 0 to 1"):
        read_image(tmp_path / "b.tif")
    tifffile.imwrite(tmp_path / "c.tif", np.full((6, 9), np.nan, np.float32))
    with pytest.raises(DataError, match=r"c\.tif is not read: 54 of its values are not finite"):
        read_image(tmp_path / "c.tif")


def test_any_number_of_channels_is_read_where_the_file_has_it(tmp_path):
    pixels = RANDOM.integers(0, 256, (6, 9, 5)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", planarconfig="contig")
    assert torch.equal(read_image(tmp_path / "a.tif", channels=5), channels_first(pixels))
    with pytest.raises(DataError, match=r"a\.tif has 5 channels; asked for are 3"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_a_file_that_is_cut_short_is_named(tmp_path, suffix):
    file = tmp_path / f"cut.{suffix}"
    Image.fromarray(RANDOM.integers(0, 256, (64, 64, 3)).astype(np.uint8)).save(file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(DataError, match=rf"cut\.{suffix} can't be read as a picture: .* cut short"):
        read_image(file)
    with pytest.raises(DataError, match=rf"cut\.{suffix} can't be read"):
        read_label(file)


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n", b"II*\0\xff\xff\xff\xff"])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_file_that_is_no_picture_is_named(tmp_path, content, suffix):
    (tmp_path / f"a.{suffix}").write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.{suffix} can't be read as a picture"):
        read_image(tmp_path / f"a.{suffix}")


def test_what_is_no_single_picture_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"There is no file .*none\.png"):
        read_image(tmp_path / "none.png")
    tifffile.imwrite(tmp_path / "stack.tif", RANDOM.integers(0, 256, (7, 6, 9)).astype(np.uint8))
    with pytest.raises(DataError, match="it holds 7 pages, allowed is one picture"):
        read_image(tmp_path / "stack.tif")
    tifffile.imwrite(tmp_path / "signed.tif", np.zeros((6, 9), np.int16))
    with pytest.raises(DataError, match=r"signed\.tif"):
        read_image(tmp_path / "signed.tif")


def test_labels_are_the_integers_as_stored(tmp_path):
    classes = (GREY % 3).astype(np.uint8)
    expected = torch.from_numpy(classes).long()
    palette = Image.fromarray(classes, "P")
    palette.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0])
    palette.save(tmp_path / "palette.png")
    Image.fromarray(classes).save(tmp_path / "grey.png")
    Image.fromarray(np.repeat(classes[..., None], 3, axis=2)).save(tmp_path / "rgb.png")
    opaque = np.full((6, 9, 1), 255, np.uint8)
    Image.fromarray(np.concatenate([np.repeat(classes[..., None], 3, 2), opaque], axis=2)).save(
        tmp_path / "a.png"
    )
    tifffile.imwrite(tmp_path / "float.tif", classes.astype(np.float32))
    for name in ("palette.png", "grey.png", "rgb.png", "a.png", "float.tif"):
        assert torch.equal(read_label(tmp_path / name), expected), name
    Image.fromarray(DEEP[..., 0]).save(tmp_path / "deep.png")
    assert torch.equal(read_label(tmp_path / "deep.png"), torch.from_numpy(DEEP[..., 0].astype(np.int64)))
    Image.fromarray(GREY > 127).save(tmp_path / "bit.png")
    assert read_label(tmp_path / "bit.png").unique().tolist() == [0, 1]


def test_colourful_and_fractional_masks_are_refused(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "colour.png")
    with pytest.raises(DataError, match=r"colour\.png is a colour picture"):
        read_label(tmp_path / "colour.png")
    tifffile.imwrite(tmp_path / "half.tif", np.full((6, 9), 0.5, np.float32))
    with pytest.raises(DataError, match=r"half\.tif holds fractions"):
        read_label(tmp_path / "half.tif")


def test_read_images_puts_pictures_of_any_size_into_one_batch(tmp_path):
    Image.fromarray(np.full((10, 20, 3), 255, np.uint8)).save(tmp_path / "wide.png")
    Image.fromarray(np.full((20, 10), 255, np.uint8)).save(tmp_path / "tall.png")
    images = read_images([tmp_path / "wide.png", str(tmp_path / "tall.png")], size=8)
    assert images.shape == (2, 3, 8, 8)
    # A white 2 : 1 picture fills half of the square, the rest is padding.
    assert images.mean(dim=(1, 2, 3)).tolist() == pytest.approx([0.5, 0.5])
    with pytest.raises(SettingError, match="empty list"):
        read_images([], size=8)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_the_size_of_a_picture(tmp_path, suffix):
    file = tmp_path / f"a.{suffix}"
    Image.new("RGB", (31, 17)).save(file)
    assert read_size(file) == (17, 31) == read_pixels(file).shape[:2]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (31, 17)).save(file, exif=exif)
    assert read_size(file) == (31, 17) == read_pixels(file).shape[:2]
    deep = tmp_path / "deep.tif"  # Pillow doesn't know these
    tifffile.imwrite(deep, np.zeros((5, 9, 7), np.uint16), photometric="minisblack", planarconfig="contig")
    assert read_size(deep) == (5, 9)
    with pytest.raises(DataError, match=r"There is no file .*none\.png"):
        read_size(tmp_path / "none.png")

"""Oracle: files whose headers are written by hand, and what their formats' specifications say of them."""

import os
import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from seglens.data.images import read_image, read_size
from seglens.data.labels import read_label
from seglens.data.limits import MAX_PIXELS, VARIABLE, allowing, max_pixels
from seglens.data.picture_files import open_picture, turned_upright
from seglens.data.splits import thumbnail
from seglens.errors import DataError, SettingError

READERS = (read_image, read_label, read_size, thumbnail)


def png(file: Path, columns: int, rows: int, depth: int, colour: int, samples: int) -> None:
    """Write a PNG of zeros, which shrinks to a thousandth; see the PNG specification."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    row = b"\0" * (1 + -(-columns * depth * samples // 8))
    body = b"".join(packer.compress(row) for _ in range(min(rows, 2000))) + packer.flush()
    head = struct.pack(">IIBBBBB", columns, rows, depth, colour, 0, 0, 0)
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b""))


def sparse_tiff(file: Path, columns: int, rows: int) -> None:
    """Write a TIFF whose one strip lies nowhere."""
    tags = [(256, 4, columns), (257, 4, rows), (258, 3, 16), (259, 3, 1), (262, 3, 1), (277, 3, 1)]
    tags += [(273, 4, 0), (278, 4, rows), (279, 4, 0)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in sorted(tags))
    file.write_bytes(struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + struct.pack("<I", 0))


def jpeg(file: Path, columns: int, rows: int) -> None:
    """Write a JPEG and change the size in its frame header (SOF0, 5 bytes after the marker)."""
    Image.new("RGB", (8, 8)).save(file)
    data = bytearray(file.read_bytes())
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", rows, columns)
    file.write_bytes(data)


def gif(file: Path, columns: int, rows: int) -> None:
    Image.new("P", (8, 8)).save(file)
    data = bytearray(file.read_bytes())
    data[6:10] = struct.pack("<HH", columns, rows)
    file.write_bytes(data)


def bmp(file: Path, columns: int, rows: int) -> None:
    Image.new("L", (8, 8)).save(file)
    data = bytearray(file.read_bytes())
    data[18:26] = struct.pack("<ii", columns, rows)
    file.write_bytes(data)


BOMBS = {
    "grey.png": lambda file: png(file, 20_000, 20_000, 8, 0, 1),
    "bits.png": lambda file: png(file, 40_000, 40_000, 1, 0, 1),
    "colour.png": lambda file: png(file, 12_000, 12_000, 8, 2, 3),
    "rgba16.png": lambda file: png(file, 9_500, 9_500, 16, 6, 4),
    "sparse.tif": lambda file: sparse_tiff(file, 60_000, 60_000),
    "sparse.png": lambda file: sparse_tiff(file, 60_000, 60_000),
    "declared.jpg": lambda file: jpeg(file, 65_500, 65_500),
    "declared.gif": lambda file: gif(file, 65_500, 65_500),
    "declared.bmp": lambda file: bmp(file, 65_500, 65_500),
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_declares_too_much_is_refused_from_its_header(tmp_path, name):
    file = tmp_path / name
    BOMBS[name](file)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for reader in READERS:
        with pytest.raises(DataError, match=rf"{name} says that it is \d+ x \d+ pixels .*--max-pixels \d+"):
            reader(file)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_the_budget_is_what_is_asked_for(tmp_path, monkeypatch):
    Image.new("L", (40, 30)).save(tmp_path / "a.png")
    assert max_pixels() == MAX_PIXELS
    with allowing(1200):
        assert read_image(tmp_path / "a.png").shape == (3, 30, 40)
    with allowing(1199), pytest.raises(DataError, match=r"40 x 30 .* allowed are 1199 .*--max-pixels 1200"):
        read_image(tmp_path / "a.png")
    assert max_pixels() == MAX_PIXELS
    monkeypatch.setenv(VARIABLE, "many")
    with pytest.raises(SettingError, match="SEGLENS_MAX_PIXELS is 'many'; allowed is a whole number"):
        read_image(tmp_path / "a.png")


def test_five_channels_count_by_their_bytes(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros((30, 40, 5), np.uint8), photometric="minisblack", planarconfig="contig"
    )
    with allowing(1200), pytest.raises(DataError, match=r"a\.tif .* 5 channels.*--max-pixels 2000"):
        read_image(tmp_path / "a.tif", channels=5)
    with allowing(2000):
        assert read_image(tmp_path / "a.tif", channels=5).shape == (5, 30, 40)


@pytest.mark.parametrize("reader", READERS)
def test_pipes_folders_and_devices_are_refused_at_once(tmp_path, reader):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match=r"pipe\.png is a pipe, no picture file"):
        reader(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"zero\.png is a device, no picture file"):
        reader(tmp_path / "zero.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(DataError, match=r"folder\.png is a folder, no picture file"):
        reader(tmp_path / "folder.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    with pytest.raises(DataError, match=r"loop\.png can't be opened"):
        reader(tmp_path / "loop.png")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n{} loop\n", "it is PostScript"),
        (b"\xc5\xd0\xd3\xc6" + b"\0" * 40, "it is PostScript"),
        (b"<html>404</html>", "it is a text in HTML or XML"),
        (b"<?xml version='1.0'?><svg/>", "it is a text in HTML or XML"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a pointer of Git LFS"),
        (b"", "it is empty"),
        (b"P6 2 2 255 " + b"\0" * 12, "no decoder knows it"),  # Pillow reads PPM; it is not among those named
        (b"\0\0\1\0\1\0\x10\x10", "no decoder knows it"),  # an icon
    ],
)
def test_only_formats_that_are_named_are_opened(tmp_path, content, what):
    file = tmp_path / "a.png"
    file.write_bytes(content)
    for reader in READERS:
        with pytest.raises(DataError, match=rf"a\.png can't be read as a picture: {what}"):
            reader(file)


def test_postscript_starts_no_program(tmp_path):
    """Ghostscript is called ``gs``: one that would leave a mark stands first on the path."""
    mark = tmp_path / "started"
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {mark}\n")
    program.chmod(0o755)
    file = tmp_path / "a.png"
    file.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n")
    code = (
        "import sys; from seglens.data.images import *; from seglens.data.splits import near_duplicates\n"
        "from seglens.data.labels import read_label\n"
        "from pathlib import Path; file = Path(sys.argv[1]); near_duplicates([file])\n"
        "for reader in (read_image, read_label, read_size):\n"
        "    try: reader(file)\n    except Exception as error: print(type(error).__name__)\n"
    )
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.split() == ["DataError"] * 3
    assert not mark.exists()


@pytest.mark.parametrize("orientation", range(10))
def test_turned_upright_is_what_pillow_does(tmp_path, orientation):
    from PIL import ImageOps

    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    with open_picture(tmp_path / "a.png") as opened:
        theirs = np.asarray(ImageOps.exif_transpose(opened))
    assert np.array_equal(turned_upright(pixels, orientation), theirs)

"""Damaged files: every reader gives a value or says in one line what is wrong, and nothing else.

Each case takes a whole file and damages it: cut short, bytes changed, a piece put in or taken out. The number
of cases is multiplied by ``SEGLENS_FUZZ`` (``make fuzz``).
"""

import io
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save as to_safetensors
from tests.conftest import write_run

import seglens
from seglens.data.images import read_image, read_size
from seglens.data.labels import read_label
from seglens.data.layout import DataSettings
from seglens.data.opening import open_data
from seglens.errors import DataError, SeglensError
from seglens.files.arrays import open_npz
from seglens.models.weights import read_state_dict
from seglens.results import record as records

CASES = 40 * int(os.environ.get("SEGLENS_FUZZ", "1"))
TRIED = settings(
    max_examples=CASES,
    deadline=None,
    derandomize=CASES == 40,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def damaged(whole: bytes) -> st.SearchStrategy[bytes]:
    """The file after a few changes; most of them early, where headers are."""
    place = st.one_of(st.integers(0, min(len(whole), 200)), st.integers(0, len(whole)))
    change = st.one_of(
        st.tuples(st.just("set"), place, st.binary(min_size=1, max_size=8)),
        st.tuples(st.just("cut"), place, st.just(b"")),
        st.tuples(st.just("drop"), place, st.binary(min_size=1, max_size=64)),
        st.tuples(st.just("put"), place, st.binary(min_size=1, max_size=64)),
    )

    def apply(changes: list[tuple[str, int, bytes]]) -> bytes:
        data = whole
        for kind, at, more in changes:
            match kind:
                case "set":
                    data = data[:at] + more + data[at + len(more) :]
                case "cut":
                    data = data[:at]
                case "drop":
                    data = data[:at] + data[at + len(more) :]
                case _:
                    data = data[:at] + more + data[at:]
        return data

    return st.lists(change, min_size=1, max_size=4).map(apply)


def picture(kind: str, mode: str = "RGB", **options) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (12, 17, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def deep_tiff(**options) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, np.arange(12 * 17, dtype=np.uint16).reshape(12, 17), **options)
    return stream.getvalue()


def checkpoint() -> bytes:
    stream = io.BytesIO()
    torch.save({"state_dict": {"a.weight": torch.rand(3, 4), "a.bias": torch.rand(4)}, "epoch": 3}, stream)
    return stream.getvalue()


def arrays() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, map=np.zeros((3, 4)), names=np.array(["a", "b"]))
    return stream.getvalue()


def annotations() -> bytes:
    ring = [2, 2, 12, 2, 12, 9, 2, 9]
    return json.dumps(
        {
            "images": [{"id": 1, "file_name": "a.png", "width": 17, "height": 12}],
            "categories": [{"id": 1, "name": "thing"}],
            "annotations": [
                {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": [ring]},
                {
                    "id": 2,
                    "image_id": 1,
                    "category_id": 1,
                    "segmentation": {"size": [12, 17], "counts": [100, 104]},
                },
            ],
        }
    ).encode()


def all_arrays(file: Path) -> list[np.ndarray]:
    try:
        with open_npz(file) as opened:
            return [opened[name] for name in opened]
    except (OSError, KeyError, ValueError) as error:  # as it is documented
        raise DataError(str(error).replace("\n", " ")) from error


READERS: dict[str, tuple[str, bytes, Callable[[Path], object]]] = {
    "png": ("a.png", picture("PNG"), read_image),
    "jpeg": ("a.jpg", picture("JPEG"), read_image),
    "webp": ("a.webp", picture("WEBP", lossless=True), read_image),
    "bmp": ("a.bmp", picture("BMP"), read_image),
    "tiff": ("a.tif", picture("TIFF"), read_image),
    "tiff-lzw": ("a.tif", picture("TIFF", compression="tiff_lzw"), read_image),
    "tiff-16": ("a.tif", deep_tiff(), read_image),
    "tiff-big": ("a.tif", deep_tiff(bigtiff=True, compression="zlib"), read_image),
    "size": ("a.tif", deep_tiff(), read_size),
    "label": ("a.png", picture("PNG", mode="L"), read_label),
    "checkpoint": ("a.pth", checkpoint(), read_state_dict),
    "safetensors": ("a.safetensors", to_safetensors({"a": torch.rand(3)}), read_state_dict),
    "arrays": ("a.npz", arrays(), all_arrays),
}


def tried(read: Callable[[Path], object], file: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what decoders say of damaged files; a user sees one error
        try:
            read(file)
        except SeglensError as error:
            said = str(error)
        else:
            said = ""
    assert "\n" not in said
    assert "weights_only" not in said


@pytest.mark.parametrize("name", READERS)
def test_files(name, tmp_path):
    file_name, whole, read = READERS[name]
    file = tmp_path / file_name
    file.write_bytes(whole)
    read(file)  # the whole one is read

    @TRIED
    @given(damaged(whole))
    def check(data: bytes) -> None:
        file.write_bytes(data)
        tried(read, file)

    check()


def test_annotations(tmp_path):
    (tmp_path / "a.png").write_bytes(picture("PNG"))

    def read(file: Path) -> object:
        split = open_data(DataSettings(path=file.parent, layout="coco")).split("all")
        return [split[index] for index in range(len(split))]

    @TRIED
    @given(damaged(annotations()))
    def check(data: bytes) -> None:
        (tmp_path / "_annotations.coco.json").write_bytes(data)
        tried(read, tmp_path / "_annotations.coco.json")

    check()


RECORD = {
    "record": lambda file: records.read_record(file.parent),
    "run": lambda file: seglens.load(file.parent, device="cpu"),
}


@pytest.mark.parametrize("name", RECORD)
def test_records(name, tmp_path):
    run = write_run(tmp_path / "run", None)
    file = run / records.FILE_NAME
    whole = file.read_bytes()

    @TRIED
    @given(damaged(whole))
    def check(data: bytes) -> None:
        file.write_bytes(data)
        tried(RECORD[name], file)

    check()

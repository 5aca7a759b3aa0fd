"""Archives of public sets as servers lend them, whole, damaged and malicious."""

import hashlib
import io
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from seglens.data.download import Patience

QUICK = Patience(stall_seconds=30.0, attempts=2, pause_seconds=0.0)
"""Waits long for a byte: on a busy machine a server that means well is slow too."""
IMPATIENT = replace(QUICK, stall_seconds=0.25)
"""For servers that stall."""


def png(value: int, size: int = 24) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(value).integers(0, 255, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels if value > 9 else np.full((size, size), value, np.uint8)).save(stream, "png")
    return stream.getvalue()


def tar_of(*members: tuple[tarfile.TarInfo | str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for entry, contents in members:
            info = tarfile.TarInfo(entry) if isinstance(entry, str) else entry
            if info.isreg():
                info.size = len(contents)
            archive.addfile(info, io.BytesIO(contents))
    return stream.getvalue()


def zip_of(*members: tuple[zipfile.ZipInfo | str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for entry, contents in members:
            archive.writestr(entry, contents)
    return stream.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def zip_link(name: str, target: str) -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o120777 << 16
    return info, target.encode()


NAMES = [f"{breed}_{number}" for breed in ("Abyssinian", "pug") for number in (1, 2, 3)]
PICTURES = tar_of(*((f"images/{name}.jpg", png(20 + index)) for index, name in enumerate(NAMES)))
TRIMAPS = tar_of(
    ("annotations/README", b"trimaps"),
    ("annotations/trainval.txt", "".join(f"{name} 1 1 1\n" for name in NAMES[:4]).encode()),
    ("annotations/test.txt", "".join(f"{name} 1 1 1\n" for name in NAMES[4:]).encode()),
    *((f"annotations/trimaps/{name}.png", png(1 + index % 3)) for index, name in enumerate(NAMES)),
    *((f"annotations/trimaps/._{name}.png", b"Mac OS X") for name in NAMES),
)
NUCLEI = zip_of(
    *((f"{name}/images/{name}.png", png(40 + index)) for index, name in enumerate("abcdefgh")),
    *((f"{name}/masks/{mask}.png", png(9)) for name in "abcdefgh" for mask in (1, 2)),
    ("__MACOSX/a/images/._a.png", b"Mac OS X"),
)
HIPPOCAMPUS = tar_of(
    (
        "Task04_Hippocampus/dataset.json",
        b'{"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "A"}}',
    ),
    *(
        (f"Task04_Hippocampus/{part}/h_{n}.nii.gz", b"")
        for part in ("imagesTr", "labelsTr")
        for n in range(4)
    ),
    ("Task04_Hippocampus/imagesTr/._h_0.nii.gz", b"Mac OS X"),
    ("Task04_Hippocampus/imagesTs/h_9.nii.gz", b""),
)
SMALL = zip_of(("a.txt", bytes(range(256)) * 40))


def sha256(contents: bytes) -> str:
    return hashlib.sha256(contents).hexdigest()


def left(folder: Path) -> list[str]:
    """What lies in a folder, hidden or not."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def holds(folder: Path, contents: bytes = SMALL) -> bool:
    """Whether the folder is the set whose archive has these contents, and nothing lies beside it."""
    with zipfile.ZipFile(io.BytesIO(contents)) as archive:
        same = all((folder / name).read_bytes() == archive.read(name) for name in archive.namelist())
        names = sorted([*archive.namelist(), "README.txt", "run.json"])
    return (
        same and left(folder) == names and left(folder.parent) == ["set", *(f"set/{name}" for name in names)]
    )

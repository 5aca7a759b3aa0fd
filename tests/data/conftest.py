"""Public sets of small archives, at a server on this machine."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.data.archives import PICTURES, QUICK, SMALL, TRIMAPS, sha256
from tests.data.library import open_library

from seglens.data import get
from seglens.data.download import Patience
from seglens.data.get import Archive, get_data


@pytest.fixture
def library(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    with open_library() as opened:
        yield opened


@pytest.fixture
def pets(library, monkeypatch):
    """The pets, in small."""
    files = {"images.tar.gz": PICTURES, "annotations.tar.gz": TRIMAPS}
    library.files.update(files)
    archives = tuple(Archive(name, sha256(data), len(data)) for name, data in files.items())
    public = replace(get.PUBLIC_SETS["oxford-pet"], address=library.address, archives=archives)
    monkeypatch.setitem(get.PUBLIC_SETS, "oxford-pet", public)
    return library


@pytest.fixture
def fetch(library, monkeypatch, tmp_path):
    """Fetch a set of one archive into ``tmp_path/set``; the server has it under that name."""

    def call(
        contents: bytes = SMALL,
        *,
        size: int | None = len(SMALL),
        max_unpacked: int = 1 << 20,
        patience: Patience = QUICK,
    ) -> Path:
        library.files.setdefault("small.zip", contents)
        archive = Archive("small.zip", sha256(contents), size, max_unpacked=max_unpacked)
        public = replace(get.PUBLIC_SETS["dsb2018"], address=library.address, archives=(archive,))
        monkeypatch.setitem(get.PUBLIC_SETS, "small", public)
        return get_data("small", tmp_path / "set", patience=patience)

    return call

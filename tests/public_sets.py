"""Public sets of small archives, at a server on this machine, in place of the official addresses."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from tests.data.archives import HIPPOCAMPUS, NUCLEI, PICTURES, TRIMAPS, sha256
from tests.data.library import Library, open_library

from seglens.data import get
from seglens.data.get import Archive


@pytest.fixture
def library(monkeypatch) -> Iterator[Library]:
    """A server that lends what is put into it."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    with open_library() as opened:
        yield opened


@pytest.fixture
def public_sets(library, monkeypatch) -> Library:
    """The server, with all public sets in small."""
    for name, files in (
        ("oxford-pet", {"images.tar.gz": PICTURES, "annotations.tar.gz": TRIMAPS}),
        ("dsb2018", {"stage1_train.zip": NUCLEI}),
        ("hippocampus", {"Task04_Hippocampus.tar": HIPPOCAMPUS}),
    ):
        library.files.update(files)
        tops = {archive.name: archive.top for archive in get.PUBLIC_SETS[name].archives}
        archives = tuple(
            Archive(file, sha256(data), len(data), top=tops[file]) for file, data in files.items()
        )
        public = replace(get.PUBLIC_SETS[name], address=library.address, archives=archives)
        monkeypatch.setitem(get.PUBLIC_SETS, name, public)
    return library

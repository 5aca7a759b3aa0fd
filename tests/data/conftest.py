"""Public sets of small archives, at a server on this machine."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.data.archives import QUICK, SMALL, sha256

from seglens.data import get
from seglens.data.download import Patience
from seglens.data.get import Archive, get_data


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

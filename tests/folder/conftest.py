"""A run and a folder of pictures for tests of batches."""

from pathlib import Path

import pytest
from tests.folder import discs

from seglens.runs import Run


@pytest.fixture
def run() -> Run:
    """A run whose answers are known beforehand."""
    return discs.make_run()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with five pictures of discs and their masks."""
    return discs.write_discs(tmp_path)

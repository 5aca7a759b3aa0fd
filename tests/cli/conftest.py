"""The command line, called within the process."""

from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO

import pytest

from seglens import cli


@dataclass(frozen=True)
class Ended:
    """How one command line ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def seglens(capsys, monkeypatch, tmp_path) -> Callable[..., Ended]:
    """Run a command line in an empty folder of its own, where nobody can answer a question."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", StringIO())

    def call(*words: object) -> Ended:
        capsys.readouterr()
        code = cli.command([str(word) for word in words])
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return call

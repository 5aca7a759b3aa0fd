"""The verb ``app``: which pictures it offers, and what it says. The page itself is in ``test_app.py``."""

import json
from dataclasses import dataclass
from typing import Any

import pytest
from tests.conftest import write_run

import seglens
from seglens.cli import command


@dataclass
class Fake:
    """Stands for a page that is closed at once."""

    address: str = "http://127.0.0.1:7860/?token=t"
    waited: bool = False

    def wait(self) -> None:
        self.waited = True


@pytest.fixture
def served(monkeypatch) -> list[Any]:
    """What pages were asked for."""
    asked: list[Any] = []

    def serve(run, pictures, **rest):
        asked.append((run, pictures, rest, Fake()))
        return asked[-1][-1]

    monkeypatch.setattr(seglens, "app", serve)
    return asked


def test_a_run_offers_its_own_test_pictures(served, one_run, capsys):
    assert command(["app", str(one_run), "--device", "cpu"]) == 0
    ((run, pictures, rest, page),) = served
    assert run.folder == one_run
    assert (pictures.name, len(pictures)) == ("test", 3)
    assert rest == {"host": "127.0.0.1", "port": None, "show": False}
    assert page.waited
    assert "The page is at http://127.0.0.1:7860/?token=t (Ctrl-C ends it)" in capsys.readouterr().out


def test_the_address_for_a_program(served, one_run, capsys):
    assert (
        command(["app", str(one_run), "--device", "cpu", "--port", "9000", "--split", "all", "--json"]) == 0
    )
    assert json.loads(capsys.readouterr().out) == {"address": "http://127.0.0.1:7860/?token=t"}
    ((_, pictures, rest, _),) = served
    assert (len(pictures), rest["port"]) == (9, 9000)


def test_a_run_that_knows_no_pictures(served, tmp_path, capsys):
    alone = write_run(tmp_path / "run", None)
    assert command(["app", str(alone), "--device", "cpu"]) == 0
    assert served[0][1] is None
    assert "knows no data. Name some with --data. Pictures can be dropped" in capsys.readouterr().err
    assert command(["app", str(alone), "--device", "cpu", "--split", "valid"]) == 2, "they were asked for"

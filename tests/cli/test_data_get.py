"""``seglens data get`` on the command line; what servers do wrong is in tests/data/test_get.py."""

import json
from dataclasses import replace
from hashlib import sha256

import pytest
from tests.data.archives import NUCLEI, left
from tests.data.library import open_library

from seglens.data import get


@pytest.fixture
def mirror(monkeypatch):
    """A server with a small set of nuclei in the place of the real one."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    public = get.PUBLIC_SETS["dsb2018"]
    archive = replace(public.archives[0], sha256=sha256(NUCLEI).hexdigest())
    monkeypatch.setitem(get.PUBLIC_SETS, "dsb2018", replace(public, archives=(archive,)))
    with open_library() as library:
        library.files["stage1_train.zip"] = NUCLEI
        yield library.address


def test_get_then_check(seglens, mirror, tmp_path):
    ended = seglens("data", "get", "dsb2018", "nuclei", "--from", mirror)
    assert (ended.code, ended.err) == (0, "")
    assert "nuclei: BBBC038v1, the 2018 Data Science Bowl" in ended.out
    assert "Licence: CC0 1.0" in ended.out
    assert "To cite: J. C. Caicedo et al." in ended.out
    assert seglens("data", "check", "nuclei").out.startswith("Layout nuclei: ")
    record = json.loads((tmp_path / "nuclei/run.json").read_text())
    assert record["kind"] == "data-get"


def test_json_and_force(seglens, mirror, tmp_path):
    (tmp_path / "nuclei").mkdir()
    (tmp_path / "nuclei/mine.txt").write_text("mine")
    command = ("data", "get", "dsb2018", "nuclei", "--from", mirror, "--json")
    ended = seglens(*command)
    assert ended.code == 2
    assert "exists already" in ended.err
    ended = seglens(*command, "--force")
    assert ended.code == 2
    assert "mine.txt" in ended.err
    (tmp_path / "nuclei/mine.txt").unlink()
    ended = seglens(*command, "--force")
    found = json.loads(ended.out)
    assert ended.code == 0
    assert found["files"][0]["sha256"] == sha256(NUCLEI).hexdigest()
    assert found["num_files"] == 24
    assert seglens(*command, "--force").code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "NAME is missing. Which set, oxford-pet, dsb2018 or hippocampus?"),
        ("dsb2018", "DIR is missing. Into which folder?"),
        ("dsb2081 x", "Unknown public set 'dsb2081'. Did you mean 'dsb2018'?"),
        ("dsb2018 x --from mirror", "'mirror' is no address to download from. Allowed is http://HOST/PATH"),
        ("dsb2018 x --stall-seconds 0", "--stall-seconds is 0"),
    ],
)
def test_mistakes(seglens, tmp_path, words, message):
    ended = seglens("data", "get", *words.split())
    assert ended.code == 2
    assert message in ended.err
    assert len(ended.err.splitlines()) == 1
    assert left(tmp_path) == []


def test_an_archive_that_is_not_there(seglens, mirror, tmp_path):
    ended = seglens("data", "get", "oxford-pet", "pets", "--from", mirror)
    assert ended.code == 2
    assert f"{mirror}/images.tar.gz can't be downloaded: HTTP status 404" in ended.err
    assert len(ended.err.splitlines()) == 1
    assert left(tmp_path) == []


def test_help_names_every_set(seglens):
    assert all(name in seglens("data", "get", "--help").out for name in get.PUBLIC_SETS)

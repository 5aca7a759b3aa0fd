"""Public sets are fetched whole or not at all, and no archive gets out of its folder."""

import re
import sys
import tarfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.data.archives import (
    PICTURES,
    SMALL,
    TRIMAPS,
    holds,
    left,
    png,
    sha256,
    special,
    tar_of,
    zip_link,
    zip_of,
)
from tests.data.library import Answer

from seglens.data import get, unpack
from seglens.data.check import check_data
from seglens.data.download import Patience
from seglens.data.get import get_data
from seglens.data.layout import DataSettings
from seglens.data.opening import find
from seglens.errors import DataError, OutputExistsError, SettingError, UnknownNameError
from seglens.results import record
from seglens.runtime import progress


def test_pets_are_a_set_that_can_be_read(public_sets, tmp_path):
    folder = get_data("oxford-pet", tmp_path / "pets")
    found = check_data(DataSettings(path=folder))
    assert (found.layout, found.num_errors) == ("oxford-pet", 0)
    assert sum(found.splits.values()) == 6
    assert found.splits["test"] == 2
    assert not [path for path in left(tmp_path) if "._" in path or "download" in path]
    assert (folder / "images/pug_3.jpg").read_bytes() == png(25)
    assert public_sets.asked == [("images.tar.gz", "", ""), ("annotations.tar.gz", "", "")]


def test_nuclei_are_a_set_that_can_be_read(public_sets, tmp_path):
    folder = get_data("dsb2018", tmp_path / "nuclei", source=f"{public_sets.address}/")
    found = check_data(DataSettings(path=folder))
    assert (found.layout, sum(found.splits.values())) == ("nuclei", 8)
    assert not found.of("unreadable")
    assert not [path for path in left(tmp_path) if "._" in path or "__MACOSX" in path]


def test_volumes_of_the_decathlon_are_a_set_that_is_recognised(public_sets, tmp_path):
    folder = get_data("hippocampus", tmp_path / "mri", source=public_sets.address)
    layout, found = find(DataSettings(path=folder))
    assert (layout, found.task.classes) == ("msd", ("background", "A"))
    assert {split: len(entries) for split, entries in found.entries.items()} == {"train": 4, "test": 1}
    assert not [path for path in left(tmp_path) if "._" in path or "Task04" in path]


def test_licence_and_record_are_in_the_folder(public_sets, tmp_path):
    folder = get_data("oxford-pet", tmp_path / "pets")
    text = (folder / "README.txt").read_text()
    assert "CC BY-SA 4.0" in text
    assert "Parkhi" in text
    assert f"{sha256(TRIMAPS)}  {public_sets.address}/annotations.tar.gz" in text
    kept = record.read_record(folder)
    assert (kept.kind, kept.state) == ("data-get", "finished")
    assert kept.settings == {"name": "oxford-pet", "source": public_sets.address}
    assert kept.results["files"][0] == {
        "name": "images.tar.gz",
        "url": f"{public_sets.address}/images.tar.gz",
        "bytes": len(PICTURES),
        "sha256": sha256(PICTURES),
    }
    assert kept.results["num_files"] == 6 + 3 + 6


UNSAFE = {
    "tar up": (tar_of(("good.txt", b"x"), ("../evil.txt", b"x")), "climbs out of its folder: '../evil.txt'"),
    "tar up within": (tar_of(("a/../../evil.txt", b"x")), "climbs out"),
    "tar absolute": (tar_of(("/tmp/seglens-evil.txt", b"x")), "climbs out"),
    "tar link": (tar_of(special("evil", tarfile.SYMTYPE, "../.."), ("evil/evil.txt", b"x")), "holds a link"),
    "tar hard link": (tar_of(special("evil", tarfile.LNKTYPE, "../run")), "holds a link"),
    "tar pipe": (tar_of(special("evil", tarfile.FIFOTYPE)), "holds a device"),
    "tar device": (tar_of(special("evil", tarfile.CHRTYPE)), "holds a device"),
    "zip up": (zip_of(("good.txt", b"x"), ("../evil.txt", b"x")), "climbs out of its folder: '../evil.txt'"),
    "zip absolute": (zip_of(("/tmp/seglens-evil.txt", b"x")), "climbs out"),
    "zip as in Windows": (zip_of(("..\\evil.txt", b"x")), "climbs out"),
    "zip drive": (zip_of(("C:evil.txt", b"x")), "climbs out"),
    "zip link": (zip_of(zip_link("evil", "../.."), ("evil/evil.txt", b"x")), "holds a link"),
    "no archive": (b"<html>Please log in</html>", "is no archive that can be read"),
    "cut tar": (PICTURES[:-2000], "is no archive that can be read"),
    "damaged zip": (SMALL.replace(bytes(range(256)), bytes(256), 1), "is no archive .*Bad CRC"),
}


@pytest.mark.parametrize("kind", UNSAFE)
def test_unsafe_archives(fetch, tmp_path, kind):
    contents, match = UNSAFE[kind]
    with pytest.raises(DataError, match=rf"The archive small.zip .*{match}.*removed and nothing unpacked"):
        fetch(contents, size=None)
    assert left(tmp_path) == []
    assert not list(tmp_path.parent.glob("*evil*"))
    assert not Path("/tmp/seglens-evil.txt").exists()


@pytest.mark.parametrize(
    "contents", [zip_of(("a", bytes(5000))), tar_of(("a", bytes(5000)))], ids=["zip", "tar"]
)
def test_bombs(fetch, tmp_path, contents):
    with pytest.raises(DataError, match=r"unpacks to more than is allowed \(4,999 bytes"):
        fetch(contents, size=None, max_unpacked=4999)
    assert left(tmp_path) == []
    assert (fetch(contents, size=None, max_unpacked=5000) / "a").stat().st_size == 5000


def test_bombs_of_many_files(fetch, monkeypatch):
    monkeypatch.setattr(unpack, "MAX_FILES", 3)
    with pytest.raises(DataError, match=r"unpacks to more than is allowed \(.* 3 files"):
        fetch(zip_of(*((f"{number}/", b"") for number in range(4))), size=None)


def test_a_small_disk(library, fetch, monkeypatch, tmp_path):
    """Room is needed for the archive and for what is in it, before the first byte comes."""
    usage = SimpleNamespace(free=2 * len(SMALL) - 1)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(DataError, match=rf"Not enough room in {re.escape(str(tmp_path))}.*0.0 MB free"):
        fetch()
    assert not (tmp_path / ".set.download/small.zip.partial").exists()
    usage.free += 1
    assert holds(fetch())


def test_nothing_is_overwritten(public_sets, tmp_path):
    folder = tmp_path / "pets"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="exists already"):
        get_data("oxford-pet", folder)
    assert public_sets.asked == []
    with pytest.raises(OutputExistsError, match=r"holds mine\.txt .* --force or not"):
        get_data("oxford-pet", folder, force=True)
    assert public_sets.asked == []
    (folder / "mine.txt").unlink()
    made = left(get_data("oxford-pet", folder))
    public_sets.plan["annotations.tar.gz"] = [Answer(status=404)]
    with pytest.raises(DataError, match="404"):
        get_data("oxford-pet", folder, force=True)
    assert left(folder) == made
    assert left(get_data("oxford-pet", folder, force=True)) == made


@pytest.mark.parametrize("source", ["", "ftp://example.org/", "example.org/data", "/data", "http://"])
def test_addresses(tmp_path, source):
    if source:
        with pytest.raises(SettingError, match="is no address to download from"):
            get_data("dsb2018", tmp_path / "set", source=source)
    with pytest.raises(SettingError, match="holds a user name"):
        get_data("dsb2018", tmp_path / "set", source="https://me:secret@example.org/x")
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    "patience", [Patience(stall_seconds=0.0), Patience(attempts=0), Patience(pause_seconds=-1.0)]
)
def test_no_patience(tmp_path, patience):
    with pytest.raises(SettingError, match="stall_seconds > 0, attempts >= 1"):
        get_data("dsb2018", tmp_path / "set", patience=patience)


def test_names(tmp_path):
    with pytest.raises(
        UnknownNameError, match=r"Unknown public set 'oxford-pets'. Did you mean 'oxford-pet'"
    ):
        get_data("oxford-pets", tmp_path / "set")


def test_the_registry_is_complete():
    for public in get.PUBLIC_SETS.values():
        assert public.address.startswith("https://")
        for archive in public.archives:
            assert re.fullmatch("[0-9a-f]{64}", archive.sha256)
        assert all((public.title, public.licence, public.citation))


def test_a_bar_in_a_terminal(monkeypatch, capsys):
    """Seen by a person, the name and the bytes; seen by a program, nothing."""
    count = partial(progress.count_bytes, "images.tar.gz", total=2_000_000, done=500_000)
    with count() as advance:
        advance(1_500_000)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with count() as advance:
        advance(1_500_000)
    assert re.search(r"images.tar.gz.*2\.0/2\.0 MB", capsys.readouterr().err)

"""Public sets are fetched whole or not at all, from servers on this machine that do everything wrong."""

import hashlib
import io
import re
import shutil
import sys
import tarfile
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from tests.data.library import Answer, open_library

from seglens import progress, record
from seglens.data import download, get, unpack
from seglens.data.check import check_data
from seglens.data.download import Patience
from seglens.data.get import Archive, get_data
from seglens.data.layout import DataSettings
from seglens.errors import DataError, OutputExistsError, SettingError, UnknownNameError

QUICK = Patience(stall_seconds=30.0, attempts=2, pause_seconds=0.0)
"""Waits long for a byte: on a busy machine a server that means well is slow too."""
IMPATIENT = replace(QUICK, stall_seconds=0.25)
"""For servers that stall."""


@pytest.fixture
def library(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    with open_library() as opened:
        yield opened


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
SMALL = zip_of(("a.txt", bytes(range(256)) * 40))


def sha256(contents: bytes) -> str:
    return hashlib.sha256(contents).hexdigest()


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


def test_pets_are_a_set_that_can_be_read(pets, tmp_path):
    folder = get_data("oxford-pet", tmp_path / "pets")
    found = check_data(DataSettings(path=folder))
    assert (found.layout, found.num_errors) == ("oxford-pet", 0)
    assert sum(found.splits.values()) == 6
    assert found.splits["test"] == 2
    assert not [path for path in left(tmp_path) if "._" in path or "download" in path]
    assert (folder / "images/pug_3.jpg").read_bytes() == png(25)
    assert pets.asked == [("images.tar.gz", "", ""), ("annotations.tar.gz", "", "")]


def test_nuclei_are_a_set_that_can_be_read(library, monkeypatch, tmp_path):
    library.files["stage1_train.zip"] = NUCLEI
    public = get.PUBLIC_SETS["dsb2018"]
    archives = (replace(public.archives[0], sha256=sha256(NUCLEI)),)
    monkeypatch.setitem(get.PUBLIC_SETS, "dsb2018", replace(public, archives=archives))
    folder = get_data("dsb2018", tmp_path / "nuclei", source=f"{library.address}/")
    found = check_data(DataSettings(path=folder))
    assert (found.layout, sum(found.splits.values())) == ("nuclei", 8)
    assert not found.of("unreadable")
    assert not [path for path in left(tmp_path) if "._" in path or "__MACOSX" in path]


def test_licence_and_record_are_in_the_folder(pets, tmp_path):
    folder = get_data("oxford-pet", tmp_path / "pets")
    text = (folder / "README.txt").read_text()
    assert "CC BY-SA 4.0" in text
    assert "Parkhi" in text
    assert f"{sha256(TRIMAPS)}  {pets.address}/annotations.tar.gz" in text
    kept = record.read(folder)
    assert (kept.kind, kept.state) == ("data-get", "finished")
    assert kept.settings == {"name": "oxford-pet", "source": pets.address}
    assert kept.results["files"][0] == {
        "name": "images.tar.gz",
        "url": f"{pets.address}/images.tar.gz",
        "bytes": len(PICTURES),
        "sha256": sha256(PICTURES),
    }
    assert kept.results["num_files"] == 6 + 3 + 6


def test_only_what_is_missing_is_asked_for(library, fetch):
    library.plan["small.zip"] = [Answer(cut=1000), Answer(cut=1500)]
    assert holds(fetch())
    tag = library.tag(SMALL)
    assert library.asked == [
        ("small.zip", "", ""),
        ("small.zip", "bytes=1000-", tag),
        ("small.zip", "bytes=2500-", tag),
    ]
    assert library.num_sent == len(SMALL)


def test_the_next_call_goes_on(library, fetch, tmp_path):
    library.plan["small.zip"] = [Answer(cut=1000), Answer(status=503), Answer(status=503)]
    with pytest.raises(DataError, match=r"HTTP status 503.*a new byte: 2\. 1,000 bytes are kept: the same"):
        fetch()
    assert left(tmp_path) == [
        ".set.download",
        ".set.download/small.zip.partial",
        ".set.download/small.zip.partial.json",
    ]
    assert (tmp_path / ".set.download/small.zip.partial").read_bytes() == SMALL[:1000]
    assert holds(fetch())
    assert library.asked[-1] == ("small.zip", "bytes=1000-", library.tag(SMALL))


def test_an_archive_that_is_there_is_not_asked_for_again(pets, tmp_path):
    pets.plan["annotations.tar.gz"] = [Answer(status=404)]
    with pytest.raises(DataError, match="HTTP status 404"):
        get_data("oxford-pet", tmp_path / "pets", patience=QUICK)
    assert left(tmp_path) == [".pets.download", ".pets.download/images.tar.gz"]
    get_data("oxford-pet", tmp_path / "pets", patience=QUICK)
    assert [name for name, *_ in pets.asked].count("images.tar.gz") == 1


def test_ctrl_c_keeps_what_has_come(library, fetch, monkeypatch, tmp_path):
    def stop(num: int) -> None:
        raise KeyboardInterrupt

    library.plan["small.zip"] = [Answer(stall=2000)]
    with monkeypatch.context() as patched:
        patched.setattr(download, "count_bytes", lambda *_, **__: StopAt(stop))
        with pytest.raises(KeyboardInterrupt):
            fetch()
    have = (tmp_path / ".set.download/small.zip.partial").stat().st_size
    assert 0 < have <= 2000
    assert holds(fetch())
    assert library.asked[-1][1] == f"bytes={have}-"


class StopAt:
    """A bar that does something else instead."""

    def __init__(self, advance):
        self.advance = advance

    def __enter__(self):
        return self.advance

    def __exit__(self, *_):
        return None


def test_a_killed_process_had_it_all(library, fetch, tmp_path):
    """All bytes are there but were not moved: nothing is asked for, and the hash is still checked."""
    (tmp_path / ".set.download").mkdir()
    (tmp_path / ".set.download/small.zip.partial").write_bytes(SMALL)
    assert holds(fetch())
    assert library.asked == []


def test_a_kill_while_the_hash_is_checked(library, fetch, monkeypatch, tmp_path):
    def die(*_: object, **__: object) -> None:
        shutil.copytree(tmp_path / ".set.download", tmp_path / "then")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("pooch.core.hash_matches", die)
        with pytest.raises(KeyboardInterrupt):
            fetch()
    shutil.rmtree(tmp_path / ".set.download")  # a killed process had not tidied up
    (tmp_path / "then").rename(tmp_path / ".set.download")
    assert holds(fetch())
    assert len(library.asked) == 1


def test_a_disk_without_links(library, fetch, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refuse)
    assert holds(fetch())


@pytest.mark.parametrize("note", ["", "{", "[]", '{"version": 3}', '{"version": "x", "size": "y"}'])
def test_damaged_notes_are_no_harm(library, fetch, tmp_path, note):
    (tmp_path / ".set.download").mkdir()
    (tmp_path / ".set.download/small.zip.partial").write_bytes(SMALL[:700])
    (tmp_path / ".set.download/small.zip.partial.json").write_text(note)
    assert holds(fetch())


def test_stalls_end(library, fetch):
    library.plan["small.zip"] = [Answer(stall=500)]
    assert holds(fetch(patience=IMPATIENT))
    assert library.asked[1][1] == "bytes=500-"


def test_a_server_that_only_stalls(library, fetch, tmp_path):
    library.plan["small.zip"] = [Answer(stall=0)] * 2
    with pytest.raises(DataError, match=r"no byte came for 0.25 s; .* byte: 2\. Check the connection"):
        fetch(patience=IMPATIENT)
    assert not [path for path in left(tmp_path) if path == "set" or path.endswith("set/a.txt")]


@pytest.mark.parametrize("off", [-100, 100])
def test_lies_about_the_length(library, fetch, tmp_path, off):
    library.plan["small.zip"] = [Answer(length=len(SMALL) + off)]
    match = rf"announces {len(SMALL) + off:,} bytes; as published the file has {len(SMALL):,}"
    with pytest.raises(DataError, match=match):
        fetch()
    assert left(tmp_path) == []


def test_a_length_that_is_too_long_where_none_is_pinned(library, fetch, tmp_path):
    whole = len(SMALL)
    more = Answer(length=100, sent=b"", whole=whole + 100, tag=library.tag(SMALL))
    library.plan["small.zip"] = [Answer(length=whole + 100), more, more]
    with pytest.raises(DataError, match=r"the answer ended early.*a new byte: 2"):
        fetch(size=None)
    assert "set" not in left(tmp_path)
    assert holds(fetch(size=None))
    ranges = [f"bytes={whole}-"] * 3  # the last is answered by 416: nothing follows
    assert [asked[1] for asked in library.asked] == ["", *ranges, ""]


def test_a_length_that_is_too_short_where_none_is_pinned(library, fetch, tmp_path):
    library.plan["small.zip"] = [Answer(length=len(SMALL) - 100)]
    with pytest.raises(DataError, match=f"expected sha256:{sha256(SMALL)} but got {sha256(SMALL[:-100])}"):
        fetch(size=None)
    assert left(tmp_path) == []


def test_no_length_at_all(library, fetch):
    library.plan["small.zip"] = [Answer(length=None, cut=900)]
    assert holds(fetch())
    assert library.asked[1][1] == "bytes=900-"


def test_no_length_and_too_much(library, fetch, tmp_path):
    library.plan["small.zip"] = [Answer(length=None, sent=SMALL * 2)]
    with pytest.raises(DataError, match=f"sends more than the {len(SMALL):,} bytes of small.zip"):
        fetch()
    assert left(tmp_path) == []


def test_a_wrong_hash(library, fetch, tmp_path):
    wrong = SMALL[:-1] + b"!"
    library.plan["small.zip"] = [Answer(sent=wrong)]
    with pytest.raises(DataError, match=f"expected sha256:{sha256(SMALL)} but got {sha256(wrong)}.*unpacked"):
        fetch()
    assert left(tmp_path) == []
    assert holds(fetch())


def test_a_kept_archive_that_was_tampered_with(library, fetch, tmp_path):
    (tmp_path / ".set.download").mkdir()
    (tmp_path / ".set.download/small.zip").write_bytes(SMALL[:-1] + b"!")
    assert holds(fetch())
    assert len(library.asked) == 1


@pytest.mark.parametrize(("status", "num"), [(404, 1), (403, 1), (500, 2), (503, 2), (429, 2)])
def test_statuses(library, fetch, tmp_path, status, num):
    """What may be gone at the next attempt is tried as often as asked for, the rest once."""
    library.plan["small.zip"] = [Answer(status=status)] * 5
    with pytest.raises(DataError, match=f"small.zip can't be downloaded: HTTP status {status}"):
        fetch()
    assert len(library.asked) == num
    assert left(tmp_path) == []


def test_pauses_double(library, monkeypatch, tmp_path):
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    library.plan["x.zip"] = [Answer(status=500)] * 9
    patience = Patience(attempts=4, pause_seconds=1.0)
    with pytest.raises(DataError, match="a new byte: 4"):
        download.download(f"{library.address}/x.zip", tmp_path / "x", size=None, patience=patience)
    assert pauses == [1, 2, 4]


def test_nobody_there(fetch, library):
    library.close()
    with pytest.raises(DataError, match=r"NewConnectionError; .* Check the connection, or name a mirror"):
        fetch()


def test_a_server_without_ranges(library, fetch):
    library.plan["small.zip"] = [Answer(cut=1000), Answer(ranges=False)]
    assert holds(fetch())
    assert library.num_sent == 1000 + len(SMALL)


@pytest.mark.parametrize("heeds", [True, False])
def test_a_file_that_changes_between_attempts(library, fetch, heeds):
    """The server heeds If-Range and sends all of the new file; or it doesn't, and the ETag tells."""
    old = bytes(len(SMALL))
    library.plan["small.zip"] = [Answer(sent=old, cut=1000, tag='"old"'), Answer(if_range=heeds)]
    assert holds(fetch())
    assert library.asked[1] == ("small.zip", "bytes=1000-", '"old"')
    assert library.asked[2:] == ([] if heeds else [("small.zip", "", "")])


def test_a_file_that_changes_under_no_name(library, fetch):
    """Without ETag and date, the size tells."""
    old = bytes(len(SMALL) + 50)
    library.plan["small.zip"] = [Answer(sent=old, length=len(old), cut=1000, tag=""), Answer(tag="")]
    assert holds(fetch(size=None))
    assert library.asked == [("small.zip", "", ""), ("small.zip", "bytes=1000-", ""), ("small.zip", "", "")]


def test_a_weak_tag_is_no_name_but_a_date_is(library, fetch):
    date = "Sat, 21 Nov 2026 12:00:00 GMT"
    library.plan["small.zip"] = [Answer(cut=1000, tag='W/"x"', date=date), Answer(tag='W/"x"', date=date)]
    assert holds(fetch())
    assert library.asked[1] == ("small.zip", "bytes=1000-", date)


def test_another_piece_than_asked_for(library, fetch):
    library.plan["small.zip"] = [Answer(cut=1000), Answer(piece=f"bytes 0-99/{len(SMALL)}"), Answer()]
    assert holds(fetch())
    assert [asked[1] for asked in library.asked] == ["", "bytes=1000-", ""]


def test_nothing_is_unpacked_on_the_way(library, fetch):
    """Some servers call a .tar.gz a text that was compressed for the way; the archive is kept as it is."""
    contents = tar_of(("a.txt", b"abc"))
    library.plan["small.zip"] = [Answer(encoding="gzip")]
    folder = fetch(contents, size=len(contents))
    assert (folder / "a.txt").read_bytes() == b"abc"


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


def test_nothing_is_overwritten(pets, tmp_path):
    folder = tmp_path / "pets"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="exists already"):
        get_data("oxford-pet", folder)
    assert pets.asked == []
    pets.plan["annotations.tar.gz"] = [Answer(status=404)]
    with pytest.raises(DataError, match="404"):
        get_data("oxford-pet", folder, force=True)
    assert left(folder) == ["mine.txt"]
    get_data("oxford-pet", folder, force=True)
    assert "mine.txt" not in left(folder)


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

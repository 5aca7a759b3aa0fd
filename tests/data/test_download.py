"""Downloads from servers on this machine that do everything wrong."""

import shutil

import pytest
from tests.data.archives import IMPATIENT, QUICK, SMALL, holds, left, sha256, tar_of
from tests.data.library import Answer

from seglens.data import download
from seglens.data.download import Patience
from seglens.data.get import get_data
from seglens.errors import DataError


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


def test_an_archive_that_is_there_is_not_asked_for_again(public_sets, tmp_path):
    public_sets.plan["annotations.tar.gz"] = [Answer(status=404)]
    with pytest.raises(DataError, match="HTTP status 404"):
        get_data("oxford-pet", tmp_path / "pets", patience=QUICK)
    assert left(tmp_path) == [".pets.download", ".pets.download/images.tar.gz"]
    get_data("oxford-pet", tmp_path / "pets", patience=QUICK)
    assert [name for name, *_ in public_sets.asked].count("images.tar.gz") == 1


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

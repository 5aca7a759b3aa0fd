"""Outputs are there whole or not at all, whatever interrupts."""

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seglens.errors import OutputExistsError
from seglens.outputs import naming, new_file, new_folder, refuse_existing, safe_name


def test_a_new_folder_appears_at_the_end(tmp_path):
    with new_folder(tmp_path / "deep" / "out") as folder:
        (folder / "a.txt").write_text("a")
        assert not (tmp_path / "deep/out").exists()
    assert (tmp_path / "deep/out/a.txt").read_text() == "a"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_interrupted_folder_leaves_what_was(tmp_path, error):
    out = tmp_path / "out"
    out.mkdir()
    (out / "old.txt").write_text("old")

    def write():
        with new_folder(out, force=True) as folder:
            (folder / "new.txt").write_text("new")
            raise error

    with pytest.raises(error):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in out.iterdir()] == ["old.txt"]


def test_force_replaces_a_folder_whole(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "old.txt").write_text("old")
    with new_folder(out, force=True) as folder:
        (folder / "new.txt").write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in out.iterdir()] == ["new.txt"]


def test_a_folder_may_take_the_place_of_a_file(tmp_path):
    (tmp_path / "out").write_text("old")
    with new_folder(tmp_path / "out", force=True) as folder:
        (folder / "new.txt").write_text("new")
    assert (tmp_path / "out/new.txt").is_file()


def test_nothing_is_replaced_without_force(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/old.txt").write_text("old")
    (tmp_path / "file.txt").write_text("old")
    (tmp_path / "empty").mkdir()
    message = "exists already. Name another place, or replace it with --force"
    for name in ("full", "file.txt"):
        with pytest.raises(OutputExistsError, match=message):
            refuse_existing(tmp_path / name, force=False)
        refuse_existing(tmp_path / name, force=True)
    with pytest.raises(OutputExistsError, match=message), new_folder(tmp_path / "full"):
        raise AssertionError("no work is done for an output that can't be written")
    with pytest.raises(OutputExistsError, match=message), new_file(tmp_path / "file.txt"):
        raise AssertionError("no work is done for an output that can't be written")
    refuse_existing(tmp_path / "empty", force=False)
    refuse_existing(tmp_path / "absent", force=False)
    assert (tmp_path / "file.txt").read_text() == "old"


def test_a_new_file_keeps_its_suffix_until_it_is_moved(tmp_path):
    with new_file(tmp_path / "deep" / "page.html") as temporary:
        assert temporary.suffix == ".html"
        temporary.write_text("new")
        assert not (tmp_path / "deep/page.html").exists()
    assert (tmp_path / "deep/page.html").read_text() == "new"
    assert len(list((tmp_path / "deep").iterdir())) == 1


def test_an_interrupted_file_leaves_what_was(tmp_path):
    (tmp_path / "page.html").write_text("old")

    def write():
        with new_file(tmp_path / "page.html", force=True) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"page.html": "old"}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("cell 1.png", "cell_1.png"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("<img src=x>", "_img_src_x_"),
        (".hidden", "hidden"),
        ("...", "_"),
        ("", "_"),
        ("Zelle-ä_7", "Zelle-ä_7"),
    ],
)
def test_safe_name(text, name):
    assert safe_name(text) == name


@given(st.text())
def test_a_safe_name_is_one_component(text):
    name = safe_name(text)
    assert name
    assert not name.startswith(".")
    assert not set(name) & set("/\\<>&\"'\0 \n")
    assert len(name.encode()) <= 255
    assert safe_name(name) == name


@pytest.mark.parametrize("writing", [new_file, new_folder, naming])
def test_a_full_disk_is_told_with_the_place_that_was_written_to(tmp_path, writing):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with (
        pytest.raises(OSError, match=r"No space left on device: '.*out'") as caught,
        writing(tmp_path / "out"),
    ):
        raise full
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.__cause__ is full
    assert not any(tmp_path.iterdir())


def test_other_errors_pass_as_they_are(tmp_path):
    named, pipe = OSError(errno.ENOSPC, "full", "mine.txt"), BrokenPipeError(errno.EPIPE, "gone")
    for error in (named, pipe):
        with pytest.raises(OSError) as caught, naming(tmp_path):  # noqa: PT011, the same object is asked for
            raise error
        assert caught.value is error

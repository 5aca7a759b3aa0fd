"""Outputs are there whole or not at all, whatever interrupts."""

import errno
import json
import os
import socket
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seglens.errors import OutputBusyError, OutputExistsError, SettingError
from seglens.files.locks import beside, locked
from seglens.files.output import (
    close_run,
    naming,
    new_file,
    new_folder,
    output_file,
    remade_folder,
    safe_name,
)
from seglens.files.overwrite import check_file, check_output, place_of_run, refuse_overlap
from seglens.files.ownership import contents, list_files


def make(path, *, command="evaluate", force=False, **files):
    """Make an output with these files; the names' dots are underscores here."""
    with new_folder(path, command=command, force=force) as folder:
        for name, text in files.items():
            (folder / name.replace("_", ".")).write_text(text)
    return path


def names(folder):
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def test_a_new_folder_appears_at_the_end(tmp_path):
    with new_folder(tmp_path / "deep" / "out", command="evaluate") as folder:
        (folder / "a.txt").write_text("a")
        assert not (tmp_path / "deep/out").exists()
    assert (tmp_path / "deep/out/a.txt").read_text() == "a"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]
    record = json.loads((tmp_path / "deep/out/run.json").read_text())
    assert record["files"] == ["a.txt", "run.json"]
    assert record["kind"] == "evaluate"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_interrupted_folder_leaves_what_was(tmp_path, error):
    out = make(tmp_path / "out", old_txt="old")

    def write():
        with new_folder(out, command="evaluate", force=True) as folder:
            (folder / "new.txt").write_text("new")
            raise error

    with pytest.raises(error):
        write()
    assert names(tmp_path) == ["out/old.txt", "out/run.json"]


def test_force_replaces_what_a_record_lists(tmp_path):
    out = make(tmp_path / "out", old_txt="old")
    make(out, command="judge", force=True, new_txt="new")
    assert names(tmp_path) == ["out/new.txt", "out/run.json"]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("inside", ["notes.md", "samples/mine.png", ".hidden", "old.txt.bak"])
def test_a_file_that_somebody_added_stays(tmp_path, inside, force):
    out = make(tmp_path / "out", old_txt="old")
    (out / inside).parent.mkdir(exist_ok=True)
    (out / inside).write_text("mine")
    before = names(tmp_path)
    with pytest.raises(OutputExistsError, match="never replaced, --force or not") as caught:
        make(out, force=force, new_txt="new")
    assert inside in str(caught.value)
    assert "replace it with --force" not in str(caught.value)
    assert names(tmp_path) == before


@pytest.mark.parametrize(
    "record", ["{", "[]", "null", '{"kind": 3}', '{"files": ["a.txt"]}', '{"kind": "x"}']
)
def test_a_folder_whose_record_says_nothing_is_the_users(tmp_path, record):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a.txt").write_text("mine")
    (tmp_path / "out/run.json").write_text(record)
    with pytest.raises(OutputExistsError, match=r"holds .*a\.txt"):
        check_output(tmp_path / "out", "evaluate", force=True)


def test_a_list_that_points_outside_reaches_nothing(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    out = make(tmp_path / "out", a_txt="a")
    record = json.loads((out / "run.json").read_text())
    record["files"] += ["../mine.txt", str(tmp_path / "mine.txt")]
    (out / "run.json").write_text(json.dumps(record))
    make(out, force=True, b_txt="b")
    assert names(tmp_path) == ["mine.txt", "out/b.txt", "out/run.json"]


def test_what_is_added_while_the_work_goes_on_stays(tmp_path):
    out = make(tmp_path / "out", old_txt="old")

    def write():
        with new_folder(out, command="evaluate", force=True) as folder:
            (folder / "new.txt").write_text("new")
            (out / "mine.txt").write_text("mine")

    with pytest.raises(OutputExistsError, match=r"mine\.txt"):
        write()
    assert names(tmp_path) == ["out/mine.txt", "out/old.txt", "out/run.json"]


def test_two_commands_that_make_one_folder(tmp_path):
    out = tmp_path / "out"
    with (
        new_folder(out, command="evaluate"),
        pytest.raises(OutputBusyError, match=r"out is being written by another command \(process \d+ on"),
    ):
        make(out, new_txt="second")
    assert names(tmp_path) == ["out/run.json"]
    page = tmp_path / "page.html"
    with locked(page), pytest.raises(OutputBusyError), output_file(page):
        raise AssertionError
    assert names(tmp_path) == ["out/run.json"]


def test_a_lock_whose_holder_is_gone_holds_nothing(tmp_path, monkeypatch):
    beside(tmp_path / "out", "lock").write_text('{"process": 1, "host": "elsewhere"}')
    make(tmp_path / "out")
    # Where the file system knows no locks: one of a process here that has ended, and of one elsewhere.
    monkeypatch.setattr("seglens.files.locks.fcntl", None)
    ended = subprocess.Popen(["true"])
    ended.wait()
    beside(tmp_path / "b", "lock").write_text(
        json.dumps({"process": ended.pid, "host": socket.gethostname()})
    )
    make(tmp_path / "b")
    beside(tmp_path / "c", "lock").write_text('{"process": 1, "host": "elsewhere"}')
    with pytest.raises(OutputBusyError, match="process 1 on elsewhere"):
        make(tmp_path / "c")


def test_what_a_killed_command_left_is_put_right(tmp_path):
    out = make(tmp_path / "out", old_txt="old")
    # Killed between the two moves of putting the new one in place, and before that.
    out.rename(tmp_path / ".out.old-01234567")
    (tmp_path / ".out.partial-01234567").mkdir()
    with pytest.raises(OutputExistsError, match="replace it with --force"):
        make(out, new_txt="new")
    assert names(tmp_path) == ["out/old.txt", "out/run.json"]


def test_a_file_and_a_link_are_never_replaced_by_a_folder(tmp_path):
    (tmp_path / "file.txt").write_text("mine")
    make(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(OutputExistsError, match="is no folder"):
        make(tmp_path / "file.txt", force=True)
    with pytest.raises(SettingError, match="is a link"):
        make(tmp_path / "link", force=True)
    with pytest.raises(SettingError, match=r"file\.txt is no folder"):
        make(tmp_path / "file.txt/out", force=True)
    with pytest.raises(SettingError, match="300 bytes long"):
        make(tmp_path / ("x" * 300))
    assert (tmp_path / "link").is_symlink()


def test_the_current_folder_and_home_are_never_replaced(tmp_path, monkeypatch):
    (tmp_path / "home/work").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for place in (".", "..", "/", "home", tmp_path):
        with pytest.raises(SettingError, match="never written over"):
            refuse_overlap(Path(place))
    refuse_overlap(Path("home/work"))


def test_what_is_read_and_what_is_written_keep_apart(tmp_path):
    run, data, pictures = (tmp_path / name for name in ("a/run", "a/data", "pictures"))
    for folder in (run, data, pictures):
        folder.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"kind": "train", "data": {"path": str(data)}}))
    (pictures / "x.png").write_text("")
    for place in (run, data, tmp_path / "a", data / "out"):
        with pytest.raises(SettingError, match=r"which this command reads|lies in the data"):
            refuse_overlap(place, runs=[run])
    for place in (pictures, tmp_path, pictures / "x.png"):
        with pytest.raises(SettingError, match=r"x\.png, which this command reads|never written over"):
            refuse_overlap(place, files=[pictures / "x.png"])
    for place in (run / "evaluate/test", tmp_path / "out", pictures / "out", tmp_path / "a-more"):
        refuse_overlap(place, runs=[run], data=[data], files=[pictures / "x.png"])
    (tmp_path / "other").symlink_to(data)
    with pytest.raises(SettingError, match="lies in the data"):
        refuse_overlap(tmp_path / "other/out", data=[data])


def test_a_run_is_replaced_by_what_makes_runs_and_with_its_results(tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints/last.ckpt").write_text("")
    (run / "run.json").write_text('{"kind": "train", "state": "finished"}')
    make(run / "evaluate/test", a_txt="")
    for command in ("train", "weak", "adopt"):
        check_output(run, command, force=True)
    with pytest.raises(OutputExistsError, match="is the output of 'seglens train'"):
        check_output(run, "evaluate", force=True)
    make(run / "mine", command="train", a_txt="")
    with pytest.raises(OutputExistsError, match=r"holds mine/a\.txt, mine/run\.json that"):
        check_output(run, "train", force=True)


def test_the_old_run_goes_when_the_new_one_is_whole(tmp_path):
    run = make(tmp_path / "run", command="adopt", model_safetensors="old")
    place = place_of_run(run, "train", resume=False, force=True)
    assert place != run
    place.mkdir()
    (place / "run.json").write_text(
        json.dumps({"kind": "train", "state": "running", "data": {"path": f"{place}/rounds/0/set"}})
    )
    (place / "model.safetensors").write_text("new")
    (place / "notes.txt").write_text("mine")
    assert place_of_run(run, "train", resume=True, force=False) == place
    assert (run / "model.safetensors").read_text() == "old"
    close_run(place, run, "train")
    assert names(tmp_path) == ["run/model.safetensors", "run/notes.txt", "run/run.json"]
    record = json.loads((run / "run.json").read_text())
    assert record["files"] == ["model.safetensors", "run.json"]
    assert record["data"]["path"] == f"{run}/rounds/0/set"
    assert contents(run).others == ("notes.txt",)


def test_a_page_is_replaced_where_it_says_that_seglens_made_it(tmp_path):
    page = tmp_path / "page.html"
    page.write_text("<html>mine</html>")
    for force in (False, True):
        with pytest.raises(OutputExistsError, match="no page or picture that Seglens made: it is"):
            check_file(page, force=force)
    page.write_text('<!doctype html><html><head><meta name="generator" content="seglens 1.0">')
    with pytest.raises(OutputExistsError, match=r"page\.html exists already\. .* replace it with --force"):
        check_file(page, force=False)
    with output_file(page, force=True) as temporary:
        temporary.write_text("new")
    assert page.read_text() == "new"


def test_a_step_is_done_again_over_whatever_is_there(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/old.txt").write_text("old")
    with remade_folder(tmp_path / "set") as folder:
        (folder / "new.txt").write_text("new")
    assert names(tmp_path) == ["set/new.txt"]


def test_files_of_results_within_are_not_listed_with_a_run(tmp_path):
    make(tmp_path / "run/evaluate/test", a_txt="")
    list_files(tmp_path / "run", "train")
    assert json.loads((tmp_path / "run/run.json").read_text())["files"] == ["run.json"]
    assert contents(tmp_path / "run").others == ()


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


@pytest.mark.parametrize("writing", [new_file, output_file, remade_folder, naming])
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

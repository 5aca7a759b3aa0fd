"""Questions at the terminal, and how warnings, errors and interruptions look there."""

import json
import subprocess
import sys
import warnings
from io import StringIO

import pytest

import seglens as package


class Terminal(StringIO):
    """A standard input at which somebody sits, with the answers that they will type."""

    def isatty(self):
        return True


@pytest.fixture
def answer(monkeypatch):
    def sit(*lines):
        monkeypatch.setattr("sys.stdin", Terminal("".join(f"{line}\n" for line in lines)))
        monkeypatch.setattr("sys.stderr.isatty", lambda: True)
        monkeypatch.setenv("NO_COLOR", "1")

    return sit


def test_a_choice_that_lacks_is_asked_for(seglens, answer, small_run, tmp_path):
    answer("run", "1")
    ended = seglens("explain")
    assert ended.code == 0
    assert "Which run folder? (run)" in ended.err
    assert "all 3 pictures of the test split, one (0 to 2) or an image file?" in ended.err
    table = json.loads((small_run / "explain/test/explanations.json").read_text())
    assert [row["name"] for row in table["samples"]] == ["test-1"]
    assert "layers" not in ended.err
    assert table["layers"] == ["encoder_last", "decoder_last"], "what has a default is not asked for"


def test_defaults_of_questions(seglens, answer, small_run):
    answer("", "")
    ended = seglens("explain")
    assert (ended.code, ended.out.splitlines()[-1:]) == (0, ["3 pictures explained: run/explain/test"]), (
        ended.err
    )


def test_what_is_given_is_not_asked_for(seglens, answer, small_run):
    answer()
    assert seglens("explain", small_run, "--num-images", 1, "--layers", "encoder_last").code == 0


def test_nobody_is_asked_where_there_is_no_terminal(seglens):
    ended = seglens("evaluate")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "seglens: RUN is missing. Which run folder? Give it on the command line.\n"


@pytest.mark.parametrize("flag", ["--quiet", "--json"])
def test_nobody_is_asked_where_nobody_reads_along(seglens, answer, small_run, flag):
    answer("run", "1")
    ended = seglens("explain", small_run, flag)
    assert ended.code == 0
    table = json.loads((small_run / "explain/test/explanations.json").read_text())
    assert [row["name"] for row in table["samples"]] == ["test-0", "test-1", "test-2"]


def test_nobody_is_asked_where_questions_go_to_a_file(seglens, answer, monkeypatch):
    answer("run")
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    assert seglens("evaluate").err.startswith("seglens: RUN is missing.")


def test_an_end_of_input_stops_a_question(seglens, answer):
    answer()
    ended = seglens("evaluate")
    assert ended.code == 130
    assert ended.err.splitlines()[-1] == "seglens: Stopped."


@pytest.mark.filterwarnings("default:There is no cuda")
def test_a_missing_gpu_is_one_clean_line(seglens, small_run):
    ended = seglens("evaluate", small_run, "--device", "cuda:63", "--json")
    assert ended.code == 0
    assert ended.err == "seglens: warning: There is no cuda:63 on this machine: computing on the CPU.\n"
    assert warnings.showwarning.__module__ != "seglens.cli.terminal"


@pytest.fixture
def failing(monkeypatch, tmp_path):
    """Let ``seglens report run`` raise."""
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)

    def fail_with(error):
        def fail(*args, **settings):
            raise error

        monkeypatch.setattr(package, "report", fail)

    return fail_with


def test_interrupted(seglens, failing):
    failing(KeyboardInterrupt("Stopped after 3 of 9 epochs. Go on with --resume."))
    ended = seglens("report", "run")
    assert (ended.code, ended.out) == (130, "")
    assert ended.err == "seglens: Stopped after 3 of 9 epochs. Go on with --resume.\n"
    failing(KeyboardInterrupt())
    assert seglens("report", "run").err == "seglens: Stopped.\n"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (package.UserError("No.\n  Never."), 2, "No. Never."),
        (package.SeglensError("The loss is nan."), 1, "The loss is nan."),
        (PermissionError(13, "Permission denied", "/there"), 1, "Permission denied: /there."),
        (ValueError("deep\ninside"), 1, "Unexpected ValueError: deep. Run with --debug to see where."),
        (KeyError(), 1, "Unexpected KeyError: no message. Run with --debug to see where."),
    ],
)
def test_errors_are_one_line(seglens, failing, error, code, line):
    failing(error)
    ended = seglens("report", "run")
    assert (ended.code, ended.out, ended.err) == (code, "", f"seglens: {line}\n")


@pytest.mark.parametrize("words", [("--debug", "report", "run"), ("report", "run", "--debug")])
def test_debug_shows_the_trace(seglens, failing, words):
    failing(package.UserError("No."))
    ended = seglens(*words)
    assert ended.code == 2
    assert ended.err.startswith("Traceback")
    assert ended.err.endswith("seglens: No.\n")


def test_a_closed_pipe_is_no_error():
    words = f"({sys.executable} -m seglens --help; echo ended $? >&2) | true"
    found = subprocess.run(["bash", "-c", words], capture_output=True, text=True)
    assert found.stderr == "ended 1\n"

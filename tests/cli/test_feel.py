"""What holds for every verb: examples, --json, --quiet, completion, and guesses at what was meant."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from typing import get_args

import pytest
import typer
from tests.cli.verbs import VERBS

from seglens import cli
from seglens.cli import names, terminal
from seglens.cli.examples import EXAMPLES
from seglens.data.get import PUBLIC_SETS
from seglens.data.layout import DataSettings
from seglens.data.opening import LAYOUTS
from seglens.data.volumes.grid import PLANES
from seglens.explain.baselines import BASELINES
from seglens.explain.methods import METHODS
from seglens.explain.target_names import TARGETS
from seglens.judge.case import SCORES
from seglens.judge.regions import REGIONS
from seglens.models.layers import ROLES
from seglens.models.zoo import MODELS
from seglens.predict.tiles import TILES
from seglens.runtime.device import PRECISIONS
from seglens.train.losses import BINARY_LOSSES, CLASS_LOSSES
from seglens.train.tracking import LOGGERS

REGISTRIES: dict[str, Iterable[str]] = {
    "MODELS": MODELS,
    "METHODS": METHODS,
    "ROLES": ROLES,
    "TARGETS": TARGETS,
    "BASELINES": BASELINES,
    "SCORES": SCORES,
    "REGIONS": REGIONS,
    "LOSSES": {*BINARY_LOSSES, *CLASS_LOSSES},
    "LOGGERS": {*LOGGERS, "none"},
    "LAYOUTS": LAYOUTS,
    "BORDERS": get_args(DataSettings.model_fields["border"].annotation),
    "PLANES": PLANES,
    "PUBLIC_SETS": PUBLIC_SETS,
    "TILES": TILES,
    "PRECISIONS": PRECISIONS,
}


def root():
    return typer.main.get_command(cli.app)


@pytest.mark.parametrize("registry", REGISTRIES)
def test_names_are_those_of_the_registries(registry):
    assert sorted(getattr(names, registry)) == sorted(REGISTRIES[registry])


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_json_quiet_and_examples(seglens, verb):
    shown = seglens(*verb.split(), "--help").out
    assert "\n  --json " in shown
    assert "\n  --quiet " in shown
    assert shown.count("--json ") >= 1
    assert "\nExamples:\n" in shown
    assert EXAMPLES[verb]


@pytest.mark.parametrize("verb", VERBS)
def test_the_first_sentence_of_help_fits_the_list(verb):
    assert not VERBS[verb].get_short_help_str(60).endswith("...")


@pytest.mark.parametrize(("verb", "line"), [(verb, line) for verb in EXAMPLES for line, _ in EXAMPLES[verb]])
def test_examples_can_be_parsed(verb, line):
    """All but the work itself: an argument that does not exist, or a value of another kind, is an error."""
    program, *words = shlex.split(line.partition(" > ")[0])
    assert (program, words[: len(verb.split())]) == ("seglens", verb.split())
    with VERBS[verb].make_context(f"seglens {verb}", words[len(verb.split()) :]) as context:
        assert context.params


def test_every_example_is_of_a_verb():
    assert set(EXAMPLES) == set(VERBS)


def test_verbs_come_in_the_order_of_their_use(seglens):
    shown = [
        line.split()[0] for line in seglens("--help").out.split("Commands:")[1].splitlines() if line.strip()
    ]
    assert shown == list(dict.fromkeys(verb.split()[0] for verb in EXAMPLES))


RESULTS = {
    "data check": "set",
    "data show": "set --image-size 32 --num-images 1 --out drawn.png",
    "adopt": "run/model.safetensors --width 4 --image-size 32 --mean .5 .5 .5 --std .5 .5 .5 --run new",
    "evaluate": "run",
    "predict": "run set/test/images/test-0.png --out masks",
    "export": "run --format safetensors",
    "layers": "run",
    "explain": "run --samples 0 --layers decoder_last --methods activation",
    "report": "run",
    "verify": "run --num-images 1 --layers decoder_last",
    "judge": "run --num-images 1 --layers decoder_last --scores attention",
}
"""Verbs that are quick on a small set; the others' results go through the same function."""


@pytest.fixture
def here(tmp_path, small_set, small_run):
    (tmp_path / "set").symlink_to(small_set)
    return tmp_path


@pytest.mark.parametrize("verb", RESULTS)
def test_json_is_one_document_and_nothing_else(seglens, here, verb):
    ended = seglens(*verb.split(), *RESULTS[verb].split(), "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)
    assert ended.out.endswith(("}\n", "]\n"))


@pytest.mark.parametrize("verb", ["data check", "evaluate", "layers", "report", "predict"])
def test_quiet_says_nothing(seglens, here, verb):
    ended = seglens(*verb.split(), *RESULTS[verb].split(), "--quiet")
    assert (ended.code, ended.out, ended.err) == (0, "", "")


def test_quiet_and_json_is_the_document(seglens, here):
    assert json.loads(seglens("layers", "run", "--quiet", "--json").out)


def test_errors_leave_standard_output_empty(seglens):
    ended = seglens("evaluate", "nowhere", "--json", "--quiet")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("seglens: nowhere is not a run folder")


def test_pictures_that_failed_are_in_the_document(seglens, here, small_set):
    good = small_set / "test/images/test-0.png"
    (here / "broken.png").write_bytes(good.read_bytes()[:300])
    ended = seglens("predict", "run", good, "broken.png", "--out", "masks", "--json")
    found = json.loads(ended.out)
    assert (ended.code, found["num_done"]) == (1, 1)
    assert [row["name"] for row in found["failed"]] == ["broken"]
    assert "1 of 2 pictures could not be done" in ended.err


def test_what_libraries_print_is_no_part_of_the_document(capsys):
    with terminal.output_mode(as_json=True, quiet=False):
        print("chatter")
        terminal.print_result({"value": float("nan")}, lambda: print("table"))
    captured = capsys.readouterr()
    assert (json.loads(captured.out), captured.err) == ({"value": None}, "chatter\n")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("trian photos", "Did you mean 'train'?"),
        ("data chek photos", "Did you mean 'check'?"),
        ("train photos --epoch 3", "No such option: --epoch. Did you mean --epochs?"),
        ("train photos --batch_size 3", "No such option: --batch_size. Did you mean --batch-size?"),
        ("train photos --lr 3", "No such option: --lr. Here it is called --learning-rate."),
        ("train photos --gpu_id=0", "No such option: --gpu_id. Here it is called --device."),
        ("explain run --method grad-cam", "No such option: --method. Did you mean --methods?"),
        ("evaluate run --methods grad-cam", "No such option: --methods. It is one of explain"),
        ("evaluate run --zzzz blue", "No such option: --zzzz. See 'seglens evaluate --help'."),
    ],
)
def test_what_was_meant(seglens, line, text):
    ended = seglens(*line.split())
    assert (ended.code, ended.out, len(ended.err.splitlines())) == (2, "", 1)
    assert text in ended.err


def complete(line, *, env=None):
    """Ask as bash does, for the last word of ``line``."""
    asked = {
        "_SEGLENS_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split(" ")) - 1),
    }
    script = "import sys; sys.argv = ['seglens']; from seglens import cli; cli.main()"
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ, **asked}
    )
    assert (found.returncode, found.stderr) == (0, "")
    return found.stdout.split()


def test_the_shell_completes_verbs():
    assert complete("seglens ev") == ["evaluate"]


def offered(verb, words, incomplete):
    """What completion offers after ``words``, within this process."""
    from typer._click.shell_completion import _resolve_incomplete

    with VERBS[verb].make_context(verb, list(words), resilient_parsing=True) as context:
        part, rest = _resolve_incomplete(context, list(words), incomplete)
        return [item.value for item in part.shell_complete(context, rest)]


@pytest.mark.parametrize(
    ("verb", "line", "expected"),
    [
        ("explain", "run --methods hi", ["hires-cam"]),
        ("explain", "run --methods grad-cam hi", ["hires-cam"]),
        ("explain", "run --methods grad-cam,hi", ["grad-cam,hires-cam"]),
        ("explain", "run --layers encoder_last dec", ["decoder_first", "decoder_last"]),
        ("judge", "run --layers seg", ["seg_head"]),
        ("judge", "run --scores att", ["attention"]),
        ("train", "photos --model unetp", ["unetplusplus"]),
        ("train", "photos --schedule one", ["one-cycle"]),
        ("evaluate", "run --split te", ["test"]),
        ("evaluate", "run --js", ["--json"]),
        ("evaluate", "run --qu", ["--quiet"]),
        ("data get", "ox", ["oxford-pet"]),
        ("explain", "run --target false-n", ["false-negative"]),
    ],
)
def test_completion(verb, line, expected):
    *words, last = line.split()
    assert offered(verb, words, last) == expected


def test_run_folders_are_completed(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("runs/pets", "runs/cells", "other"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("runs/pets", "runs/cells"):
        (tmp_path / name / "run.json").write_text("{}")
    assert names.runs("") == ["runs/cells", "runs/pets"]
    assert names.runs("runs/p") == ["runs/pets"]
    assert names.runs(f"{tmp_path}/runs/c") == [f"{tmp_path}/runs/cells"]
    assert names.runs("oth") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_can_be_shown(shell):
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    words = f"{sys.executable} -m seglens --show-completion; true"  # Typer asks which shell it is called in
    found = subprocess.run([shell, "-c", words], capture_output=True, text=True)
    assert found.returncode == 0
    assert "_SEGLENS_COMPLETE" in found.stdout


class Terminal:
    """A stream of a terminal."""

    def __init__(self, stream):
        self.write, self.flush, self.encoding = stream.write, stream.flush, "utf-8"

    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("settings", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_colours_are_for_terminals_that_want_them(monkeypatch, capsys, settings, coloured):
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stderr", Terminal(sys.stderr))
    monkeypatch.setattr("sys.stdout", Terminal(sys.stdout))
    terminal.warn("Wrong.")
    terminal.print_table(("a", "verdict"), [("1", "fail")])
    captured = capsys.readouterr()
    assert ("\x1b[" in captured.err) is coloured
    assert ("\x1b[1;31m" in captured.out) is coloured
    monkeypatch.undo()
    terminal.warn("Wrong.")
    assert capsys.readouterr().err == "seglens: Wrong.\n"

"""Help, the version, flags and defaults: what the command line says without any work."""

import inspect
import subprocess
import sys

import pytest
from tests.cli.verbs import VERBS

import seglens as package
from seglens.cli import train
from seglens.cli.options import parse_size
from seglens.train import TrainSettings

HEAVY = ("torch", "numpy", "matplotlib", "PIL", "lightning", "timm", "jinja2", "scipy")


@pytest.mark.parametrize(
    ("words", "code", "unused"),
    [
        (["--help"], 0, (*HEAVY, "pydantic")),
        (["trian"], 2, HEAVY),  # Typer reads the values of options with pydantic
        (["train", "photos", "--epoch", "3"], 2, HEAVY),
        (["explain", "--help"], 0, HEAVY),
        (["train", "photos", "--epochs", "many"], 2, HEAVY),
    ],
)
def test_help_and_wrong_arguments_load_nothing_heavy(words, code, unused):
    script = (
        "import sys; from seglens import cli; code = cli.command(sys.argv[1:]);"
        f"print('LOADED', code, [name for name in {unused!r} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == f"LOADED {code} []"
    assert len(found.stderr.splitlines()) == (code == 2)


def test_the_module_can_be_run():
    found = subprocess.run([sys.executable, "-m", "seglens", "nothing"], capture_output=True, text=True)
    assert found.returncode == 2
    assert found.stderr == "seglens: No such command 'nothing'. See 'seglens --help'.\n"


def test_version(seglens):
    assert seglens("--version").out == f"seglens {package.__version__}\n"


def test_no_argument_shows_help(seglens):
    ended = seglens()
    assert ended.code == 0
    assert ended.out.startswith("Usage: seglens")


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb(seglens, verb):
    ended = seglens(*verb.split(), "--help")
    assert ended.code == 0
    assert ended.out.startswith(f"Usage: seglens {verb}")


@pytest.mark.parametrize("verb", VERBS)
def test_flags_are_long_lower_case_and_dashed(verb):
    for option in VERBS[verb].params:
        flags = [flag for flag in (*option.opts, *option.secondary_opts) if flag.startswith("-")]
        assert all(flag.startswith("--") and flag == flag.lower() and "_" not in flag for flag in flags)


def test_defaults_of_train_are_those_of_the_settings():
    fields = TrainSettings.model_fields
    given = {name: found.default for name, found in inspect.signature(train.train_command).parameters.items()}
    assert set(fields) <= set(given)
    given["image_size"] = parse_size(given["image_size"])  # a list: one length, or one for each side
    assert {name: given[name] for name in fields} == {name: field.default for name, field in fields.items()}

"""Lists on the command line."""

import re

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

import seglens
from seglens.cli import command
from seglens.cli.command import Command, spread_lists
from seglens.cli.data_options import OnSet
from seglens.cli.options import EXPLAIN_NAMES, methods
from seglens.cli.settings import read_setting, typed_settings
from seglens.errors import SettingError, UnknownNameError
from seglens.explain import METHODS
from seglens.explain.integrated import IntegratedGradients
from seglens.explain.target_names import TARGETS
from seglens.models.layers import ROLES

LISTS = {"--samples": True, "--classes": False}


@pytest.mark.parametrize(
    ("line", "spelled"),
    [
        ("run --samples 0 3 7", "run --samples 0 --samples 3 --samples 7"),
        ("run --samples 0,3,7", "run --samples 0 --samples 3 --samples 7"),
        ("run --samples 0, 3", "run --samples 0 --samples 3"),
        ("run --samples=0,3", "run --samples 0 --samples 3"),
        ("run --samples 0 --samples 3", "run --samples 0 --samples 3"),
        ("--samples 0 -1 -.5 --force", "--samples 0 --samples -1 --samples -.5 --force"),
        ("--samples 0 -- run", "--samples 0 run"),
        ("--samples --force", "--samples --force"),
        ("--samples", "--samples"),
        ("--classes one,two three", "--classes one,two --classes three"),
        ("--target point:1,2 a.png", "--target point:1,2 a.png"),
        ("run -- --samples 0 1", "run -- --samples 0 1"),
    ],
)
def test_spread_lists(line, spelled):
    assert spread_lists(line.split(), LISTS) == spelled.split()


@given(st.lists(st.integers(-99, 99), min_size=1), st.lists(st.sampled_from(["a", "b c", "d,e"]), min_size=1))
def test_all_spellings_mean_the_same(numbers, names):
    words = [str(number) for number in numbers]
    separate = [part for word in words for part in ("--samples", word)]
    classes = [part for name in names for part in ("--classes", name)]
    for spelling in (["--samples", *words], ["--samples", ",".join(words)], separate):
        assert spread_lists([*spelling, "--classes", *names], LISTS) == [*separate, *classes]


def test_a_verb_takes_lists():
    app = typer.Typer()
    seen = []

    @app.command(cls=Command)
    def choose(run: str, mean: list[float] = [], layers: list[str] = [], force: bool = False):  # noqa: B006
        seen.append((run, mean, layers, force))

    words = ["here", "--mean", "0.5", "-1", ".25", "--layers", "a", "b,c", "--force"]
    app(words, standalone_mode=False)
    assert seen == [("here", [0.5, -1, 0.25], ["a", "b", "c"], True)]


def test_methods():
    assert methods(None, None, None) == ["grad-cam"]
    assert methods(["hires-cam", "integrated-gradients"], ["blur"], 300) == [
        "hires-cam",
        IntegratedGradients(baseline="blur", steps=300, max_steps=300),
    ]
    assert len(methods(["integrated-gradients"], ["zero", "blur", "mean"], None)) == 3
    with pytest.raises(SettingError, match="--steps is a setting of integrated-gradients"):
        methods(["grad-cam"], None, 8)


def test_settings_of_methods():
    changed = methods(
        ["grad-cam", "integrated-gradients"],
        None,
        None,
        ["integrated-gradients.steps=8", "integrated-gradients.tolerance=none"],
    )
    assert changed == ["grad-cam", IntegratedGradients(steps=8, tolerance=None)]
    both = methods(["integrated-gradients"], ["zero", "blur"], None, ["integrated-gradients.steps=8"])
    assert both == [IntegratedGradients(baseline=name, steps=8) for name in ("zero", "blur")]
    assert methods(["all"], None, None) == list(METHODS)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("integrated-gradients.step=8", "Did you mean 'steps'"),
        ("integrated-gradient.steps=8", "Did you mean 'integrated-gradients'"),
        ("integrated-gradients.steps=many", "must be a whole number"),
        ("integrated-gradients.baseline=zeros", "Did you mean 'zero'"),
        ("integrated-gradients.steps", "Write METHOD.SETTING=VALUE"),
        ("grad-cam.steps=8", "grad-cam has no settings. Methods that have some: .*integrated-gradients"),
        ("integrated-gradients.steps=0", "steps"),
    ],
)
def test_wrong_settings_of_methods_are_named(text, error):
    with pytest.raises((SettingError, UnknownNameError), match=error):
        methods(["grad-cam", "integrated-gradients"], None, None, [text])


def test_settings_are_of_methods_that_are_asked_for_and_given_once():
    with pytest.raises(SettingError, match=r"not among grad-cam\. Add it to --methods"):
        methods(["grad-cam"], None, None, ["integrated-gradients.steps=8"])
    with pytest.raises(SettingError, match="given twice"):
        methods(["integrated-gradients"], None, None, ["integrated-gradients.steps=8"] * 2)


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("3", int, 3),
        ("3", float | None, 3.0),
        ("None", int | None, None),
        ("yes", bool, True),
        ("1,2,3", tuple[int, ...], (1, 2, 3)),
        ("1,x", tuple[int, str], (1, "x")),
        ("mean", int | str, "mean"),
        ("4", int | str, 4),
    ],
)
def test_values_are_read_by_their_type(text, kind, value):
    found = read_setting(text, kind, "it")
    assert (found, type(found)) == (value, type(value))
    with pytest.raises(SettingError, match="can't be typed"):
        read_setting("x", dict, "it")
    with pytest.raises(SettingError, match="must be 2 values"):
        read_setting("1", tuple[int, str], "it")


@pytest.mark.parametrize("name", [name for name in METHODS if typed_settings(name)])
def test_every_setting_can_be_typed(name):
    """Its default, written down and read again, is itself."""
    for setting, kind in typed_settings(name).items():
        value = getattr(METHODS[name], setting)
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        assert read_setting(text, kind, setting) == value


def test_the_help_of_explain_names_all_there_is():
    words = set(EXPLAIN_NAMES.replace(",", " ").replace(";", " ").replace(":", " ").replace(".", " ").split())
    assert set(METHODS) <= words
    assert set(ROLES) <= words
    assert set(TARGETS) <= words


def test_how_a_set_is_read(tmp_path, monkeypatch):
    """What is given reaches the settings; what is not is their own default, as the help says."""
    made = []

    def shown(settings, out, **rest):
        made.append(settings)
        return out

    monkeypatch.setattr(seglens, "show_data", shown)
    line = "--train-dir a --test-dir b --classes x --no-merge --border ignore --channels 1 --split-seed 3"
    assert command(["data", "show", str(tmp_path), *line.split()]) == 0
    assert command(["data", "show", str(tmp_path)]) == 0
    assert made[0] == seglens.DataSettings(
        path=tmp_path,
        train_dir="a",
        test_dir="b",
        classes=("x",),
        merge=False,
        border="ignore",
        channels=1,
        split_seed=3,
    )
    assert made[1] == seglens.DataSettings(path=tmp_path)
    for name, option in OnSet.reading.items():
        if name not in ("classes", "palette"):
            assert option.default == getattr(made[1], name), name


def test_a_border_that_there_is_not(tmp_path, capsys):
    assert command(["data", "show", str(tmp_path), "--border", "none"]) == 2
    assert re.search(r"--border is not allowed: .*'foreground'.*received 'none'", capsys.readouterr().err)

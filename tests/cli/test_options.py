"""Lists on the command line."""

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from seglens.cli.options import Verb, data_settings, methods, spread_lists
from seglens.errors import SettingError
from seglens.explain.integrated import IntegratedGradients

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

    @app.command(cls=Verb)
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


def test_data_settings(tmp_path):
    folders = ("a", None, "b")
    made = data_settings(tmp_path, None, folders, ["x"], False, "ignore", 1, 3)
    assert (made.train_dir, made.valid_dir, made.test_dir) == folders
    assert (made.classes, made.merge, made.border, made.channels, made.split_seed) == (
        ("x",),
        False,
        "ignore",
        1,
        3,
    )
    with pytest.raises(SettingError, match=r"--border none is not allowed: .*'foreground'"):
        data_settings(tmp_path, None, folders, None, True, "none", 3, 0)

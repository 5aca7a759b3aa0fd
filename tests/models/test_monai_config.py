"""Expressions in the configuration of a MONAI bundle: what plain arithmetic gives, and what is never run."""

from pathlib import Path
from typing import Any

import pytest

from seglens.errors import ModelError
from seglens.models.adapters.monai_bundle.config import Config


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("$@size // 2 + 1", 49),
        ("$[@size] * @dims", [96, 96, 96]),
        ("$'a' if @size > 90 and not @off else 'b'", "a"),
        ("$[1.5, 1.5] if @off else (3.0, @sizes#1)", [3.0, 7]),
        ("$max(@sizes) - len(@sizes)", 5),
        ("$-2 ** 2", -4),
        ("@sizes::0", 5),
        ("%sizes", [5, 7]),
        ("$torch.float32", "$torch.float32"),
        ("$@bundle_root + '/models'", "./models"),
        ("an @address in a text", "an @address in a text"),
    ],
)
def test_expressions_have_the_values_that_python_gives_them(written: str, value: Any) -> None:
    content = {"size": 96, "dims": 3, "off": False, "sizes": [5, 7], "bundle_root": ".", "x": written}
    assert Config(content, Path("config")).value("x") == value


@pytest.mark.parametrize(
    "written",
    [
        "$9 ** 9 ** 9",
        "$'a' * 10 ** 9",
        "$[0] * 2000",
        "$[[0] * 900] * 900 * 900",
        "$open('file')",
        "$(lambda: 1)()",
        "$[x for x in (1, 2)]",
        "$torch.load('file')",
        "$'%d' % 3",
        "$f'{1}'",
        "$1 +",
        "$" + "(" * 400 + "1" + ")" * 400,
        "$1 / 0",
        "$().__class__",
        "$@x + 1",
    ],
)
def test_expressions_that_do_more_are_refused(written: str) -> None:
    with pytest.raises(ModelError, match="Nothing of a configuration is run"):
        Config({"x": written}, Path("config")).value("x")


def test_a_configuration_that_grows_is_refused() -> None:
    content: dict[str, Any] = {"a0": [0] * 50} | {f"a{n}": [f"@a{n - 1}"] * 50 for n in range(1, 6)}
    with pytest.raises(ModelError, match="more than 100000 values"):
        Config(content, Path("config")).value("a5")

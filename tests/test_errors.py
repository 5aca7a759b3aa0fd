"""The tree of errors, and the nearest name."""

import re

import pytest

from seglens import errors
from seglens.errors import SeglensError, TrainingError, UserError, unknown_name


def test_the_tree_in_the_docstring_is_the_tree():
    drawn = set(re.findall(r"\w+Error", errors.__doc__))
    made = {name for name in vars(errors) if name.endswith("Error")}
    assert drawn == made
    assert all(issubclass(getattr(errors, name), SeglensError) for name in made)
    assert not issubclass(TrainingError, UserError)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("grad-cm", "Unknown method 'grad-cm'. Did you mean 'grad-cam'? Allowed: grad-cam, hires-cam."),
        ("xyz", "Unknown method 'xyz'. Allowed: grad-cam, hires-cam."),
        ("", "Unknown method ''. Allowed: grad-cam, hires-cam."),
    ],
)
def test_unknown_name(name, message):
    assert str(unknown_name("method", name, ("grad-cam", "hires-cam"))) == message


def test_unknown_name_among_none_and_among_many():
    assert str(unknown_name("run", "a", ())) == "Unknown run 'a'. Allowed: (none)."
    many = str(unknown_name("layer", "layer-17x", (f"layer-{i}" for i in range(400))))
    assert "Did you mean 'layer-17'?" in many
    assert many.endswith("layer-39, ... (400 in all).")

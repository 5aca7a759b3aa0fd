"""Steps that are done once, and what is said of the time that is left."""

import json

import pytest

from seglens.weak.steps import Steps, kind_of


def test_a_step_is_done_once(tmp_path):
    calls = []

    def work():
        calls.append(1)
        return {"found": 7}

    for _ in range(2):
        facts = Steps.of(tmp_path, ("one",)).take("one", work)
        assert (facts["found"], calls) == (7, [1])
    assert json.loads((tmp_path / "steps.json").read_text())["one"] == facts


def test_a_step_that_fails_is_not_done(tmp_path):
    def work():
        raise OSError("no room")

    steps = Steps.of(tmp_path, ("one",))
    with pytest.raises(OSError, match="no room"):
        steps.take("one", work)
    assert Steps.of(tmp_path, ("one",)).done == {}


def test_a_step_that_knows_its_seconds_keeps_them(tmp_path):
    assert Steps.of(tmp_path, ("one",)).take("one", lambda: {"seconds": 1234.5})["seconds"] == 1234.5


def test_the_time_left_is_that_of_steps_of_a_kind(tmp_path, capsys):
    planned = ("masks", "student", "masks", "student", "student", "score")
    steps = Steps.of(tmp_path, planned)
    steps.done = {"round 0: masks": {"took": 60.0}, "round 0: student": {"took": 600.0}}
    steps.take("round 1: masks", dict)
    # One of masks, two students, and a score that nobody knows the length of.
    assert "[3/6] round 1: masks (at least 21 min left)" in capsys.readouterr().err
    steps.done |= {"score: heat": {"took": 120.0}}
    steps.take("round 1: student", dict)
    assert "(20 min left)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("round 1: student", "student"),
        ("score: student, round 1: x", "score"),
        ("pseudo-masks", "pseudo-masks"),
    ],
)
def test_the_kind_of_a_step(name, kind):
    assert kind_of(name) == kind

"""The bar of a judgement goes by the pictures that went through the model, not by those that were read."""

import io
import sys
import time
from dataclasses import replace

import pytest
import torch
from rich.progress import Progress

import seglens
from seglens.folder import judge_plan
from seglens.judge.case import CHEAP, JudgeSettings
from seglens.models.segmenter import Segmenter, each_pass
from seglens.runtime import progress


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Progress]:
    """The bars that are shown, in what takes itself for a terminal."""
    shown: list[Progress] = []
    make = progress._bar
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)

    def kept() -> Progress:
        shown.append(make())
        return shown[-1]

    monkeypatch.setattr(progress, "_bar", kept)
    return shown


def state(bar: Progress) -> tuple[float, float | None]:
    return bar.tasks[0].completed, bar.tasks[0].total


def test_a_bar_counts_pictures_that_go_through_any_model(bars):
    first, second = (
        seglens.wrap(torch.nn.Conv2d(3, 1, 1), classes=("a", "b"), mean=(0.5,) * 3, std=(0.5,) * 3)
        for _ in range(2)
    )
    with progress.counted("judging", total=20) as bar, each_pass(bar.made):
        first.segmenter(torch.rand(5, 3, 8, 8))
        second.segmenter(torch.rand(2, 3, 8, 8))
        assert state(bars[0]) == (7, 20)
        bar.left(3)
        assert state(bars[0]) == (7, 10)
        first.segmenter(torch.rand(3, 3, 8, 8))
        assert state(bars[0]) == (10, 10)
    first.segmenter(torch.rand(1, 3, 8, 8))
    assert state(bars[0]) == (10, 10), "what comes after is not counted"


def test_what_is_left_by_hand():
    """Two maps of 100 pictures; making them takes 500 passes."""
    judging = JudgeSettings(("stability", "attention", "faithfulness"))
    plan = judge_plan.count_scores(2, 500, judging, 100)
    cost = {each.score: each.forwards for each in plan.costs}
    assert (cost["stability"], cost["attention"]) == (16 * 5 * (4 + 1), 500)
    names = judging.scores
    assert plan.left(names, 0, {}) == plan.forwards(names)
    # After 8 of the 16 pictures of stability, and a quarter of the maps left in the race.
    expected = 500 * 0.92 + 400 * 0.5 + 500 * 0.92 + cost["faithfulness"] * 0.92 * 0.25
    assert plan.left(names, 8, {"faithfulness": 0.25}) == round(expected)
    # After 50 pictures stability is over, and with all maps decided the maps are made and compared only.
    assert plan.left(names, 50, {"faithfulness": 0.0}) == 250 + 250
    assert plan.left(names, 100, {}) == 0
    assert replace(plan, costs=()).left(CHEAP, 50, {}) == 250


@pytest.mark.parametrize("planned", [True, False])
def test_a_judgement_ends_with_a_full_bar(bars, one_run, tmp_path, monkeypatch, planned):
    """Counted apart from the bar, by what the networks are given."""
    run, passed, forward = seglens.load(one_run, device="cpu"), [], Segmenter.forward

    def counting(model: Segmenter, images: torch.Tensor) -> torch.Tensor:
        if any(task.description == "judging" for bar in bars for task in bar.tasks):
            passed.append(len(images))
        return forward(model, images)

    monkeypatch.setattr(Segmenter, "forward", counting)
    split, layers = seglens.open_split(run, "test"), ("decoder_last",)
    scores = JudgeSettings(("attention", "target_faithfulness", "causal_agreement"), across=4)
    plan = seglens.plan_judging(run, split, layers=layers, judging=scores) if planned else None
    if planned:
        monkeypatch.delattr("seglens.folder.plan_judging")
    seglens.judge_folder(
        run, split, layers=layers, judging=scores, plan=plan, batch_size=1, out=tmp_path / "judged"
    )
    judging = next(bar for bar in bars if bar.tasks[0].description == "judging")
    assert state(judging) == (sum(passed), sum(passed))
    assert sum(passed) > 30


def one_terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Standard output and error, which are one terminal; no fixture, after which Pytest sets its own."""
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setattr(progress, "LATE", 0.05)
    monkeypatch.setenv("TERM", "xterm")
    return screen


def test_a_wheel_turns_until_something_is_printed(monkeypatch):
    terminal = one_terminal(monkeypatch)
    with progress.until_output("at work"):
        turning = sys.stdout
        while "- at work" not in terminal.getvalue():
            pass
        print("3 pictures")
        shown = terminal.getvalue()
        assert shown.endswith("\r\x1b[K3 pictures\n"), "the wheel is wiped away before the line"
        time.sleep(0.3)
        assert terminal.getvalue() == shown, "and doesn't come back"
    assert sys.stdout is sys.stderr is terminal
    print("after", file=turning)
    assert terminal.getvalue() == f"{shown}after\n", "who kept the stream writes on"


def test_no_wheel_where_all_is_quick_or_nobody_looks(monkeypatch):
    terminal = one_terminal(monkeypatch)
    monkeypatch.setattr(progress, "LATE", 60)
    with progress.until_output("at work"):
        print("quick")
    monkeypatch.setattr(progress, "LATE", 0)
    with progress.silence(), progress.until_output("at work"):
        time.sleep(0.1)
    monkeypatch.setenv("TERM", "dumb")
    with progress.until_output("at work"):
        time.sleep(0.1)
    monkeypatch.delenv("TERM")
    monkeypatch.setattr(terminal, "isatty", lambda: False)
    with progress.until_output("at work"):
        time.sleep(0.1)
    assert terminal.getvalue() == "quick\n"


def test_a_wheel_ends_with_an_error(monkeypatch):
    terminal = one_terminal(monkeypatch)

    def fail() -> None:
        with progress.until_output("at work"):
            while not terminal.getvalue():
                pass
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    assert terminal.getvalue().endswith("\r\x1b[K")
    assert sys.stderr is terminal

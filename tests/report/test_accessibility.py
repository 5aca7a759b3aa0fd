"""The report of a run, and of two runs, is looked through by axe-core: nothing is wrong."""

from pathlib import Path

import pytest
from tests.accessibility import violations
from tests.report.conftest import make_run, make_shortcut

import seglens


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A report of two runs with everything in it; look at it, don't change it."""
    place = tmp_path_factory.mktemp("accessible")
    runs = [make_run(place / name, dice=dice) for name, dice in (("first", 0.8), ("second", 0.6))]
    return seglens.report(runs, shortcut=make_shortcut(place))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_nothing_keeps_people_from_using_the_report(chromium_like, made: Path, width: int, dark: bool):
    page = chromium_like(width=width, dark=dark).open(made)
    page.wait_for_selector("#cards[data-drawn]", state="attached")
    assert violations(page) == []
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert violations(page) == []
    page.locator(".gallery .card:visible .stage").first.click()
    page.wait_for_selector("#viewer[data-drawn]")
    assert violations(page) == []

"""The page that teaches the U-Net: its figures are drawn by the script, its numbers are worked out."""

import pytest
from tests.docs.pages import ROOT

unet = pytest.importorskip("docs.unet", reason="docs/ is not importable from here")
PAGE = (ROOT / "docs" / "unet.md").read_text(encoding="utf-8")


def test_the_figures_are_what_the_script_draws():
    for name, drawn in unet.figures().items():
        assert (ROOT / "docs" / "unet" / f"{name}.svg").read_text(encoding="utf-8") == drawn
        assert f"(unet/{name}.svg)" in PAGE


def test_the_numbers_of_the_page_are_worked_out():
    words = " ".join(PAGE.split())
    for what, said in unet.numbers().items():
        assert said in PAGE or said in words, f"{what}: the page doesn't say {said!r}"


def test_the_worked_example_by_hand():
    truth, predicted = set(), set()
    for r, (of_truth, guessed) in enumerate(zip(unet.TRUTH.tolist(), unet.PREDICTED.tolist(), strict=True)):
        truth |= {(r, c) for c, value in enumerate(of_truth) if value}
        predicted |= {(r, c) for c, value in enumerate(guessed) if value}
    assert len(truth) == len(predicted) == 6
    assert len(truth & predicted) / len(truth | predicted) == 0.5
    assert 2 * len(truth & predicted) / (len(truth) + len(predicted)) == pytest.approx(2 / 3)

"""Colours are told apart without colour vision, and texts have contrast, by published formulas.

Deuteranopia as Machado, Oliveira and Fernandes simulate it (2009, table 1, severity 1.0), differences as the
distance in CIE L*a*b* (1976), contrast as in WCAG 2.1 (relative luminance).
"""

import re
from importlib.resources import files
from itertools import combinations

import numpy as np
import pytest

from seglens.report import figures

TEMPLATES = files("seglens.report") / "templates"
STYLE = (TEMPLATES / "style.css").read_text("utf-8")
STAGE = (TEMPLATES / "stage.js").read_text("utf-8")

DEUTERANOPIA = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
)
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = np.array([0.9505, 1.0, 1.089])


def linear(rgb) -> np.ndarray:
    share = np.asarray(rgb, float) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def lab(rgb, *, deuteranopia: bool = False) -> np.ndarray:
    light = linear(rgb)
    if deuteranopia:
        light = np.clip(DEUTERANOPIA @ light, 0, 1)
    x, y, z = np.cbrt(TO_XYZ @ light / WHITE)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(one, other) -> float:
    first, second = sorted(float(np.dot([0.2126, 0.7152, 0.0722], linear(rgb))) for rgb in (one, other))
    return (second + 0.05) / (first + 0.05)


def rgb_of(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def variables(theme: str) -> dict[str, tuple[int, ...]]:
    """Read the colours of the light or the dark page."""
    blocks = re.findall(r":root[^{]*\{([^}]*)\}", STYLE)
    block = next(each for each in blocks if "--page" in each and (theme == "dark") == ("#14171a" in each))
    return {name: rgb_of(value) for name, value in re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)}


def errors() -> dict[str, np.ndarray]:
    block = re.search(r"const ERRORS = \{(.*?)\};", STAGE)
    assert block is not None
    rows = re.findall(r"(\w+): \[(\d+), (\d+), (\d+), (\d+)\]", block[1])
    return {name: np.array(list(map(int, numbers))) for name, *numbers in rows}


def test_the_formulas_against_known_values():
    assert contrast((255, 255, 255), (0, 0, 0)) == pytest.approx(21)
    assert contrast((255, 255, 255), (119, 119, 119)) == pytest.approx(4.48, abs=0.01)  # WebAIM's example
    assert lab((255, 0, 0)) == pytest.approx([53.24, 80.09, 67.2], abs=0.2)
    assert lab((255, 255, 255)) == pytest.approx([100, 0, 0], abs=0.2)
    # Grey stays grey without green cones.
    assert lab((128, 128, 128), deuteranopia=True) == pytest.approx(lab((128, 128, 128)), abs=0.5)


def test_missed_invented_and_right_without_green_cones_and_in_grey():
    colours = errors()
    assert set(colours) == {"missed", "invented", "right"}
    for (one, first), (other, second) in combinations(colours.items(), 2):
        assert abs(lab(first[:3])[0] - lab(second[:3])[0]) >= 20, f"{one} and {other} in grey"
        for ground in (0, 128, 255):
            mixed = [(row[:3] * row[3] + ground * (255 - row[3])) / 255 for row in (first, second)]
            apart = np.linalg.norm(np.subtract(*(lab(rgb, deuteranopia=True) for rgb in mixed)))
            assert apart >= 20, f"{one} and {other} on {ground}"


def test_each_error_has_a_pattern_of_its_own():
    patterns = re.findall(r"(missed|invented|right): \(\w*,? ?\w*\) => ([^,\n]+)", STAGE)
    assert len({rule for _, rule in patterns}) == 3


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_runs_are_told_apart_without_green_cones(theme: str):
    known = variables(theme)
    series = {name: known[name] for name in ("s0", "s1", "s2", "s3")}
    for (one, first), (other, second) in combinations(series.items(), 2):
        apart = np.linalg.norm(np.subtract(*(lab(rgb, deuteranopia=True) for rgb in (first, second))))
        assert apart >= 15, f"{one} and {other}"
    for name, rgb in series.items():
        assert contrast(rgb, known["panel"]) >= 3, name


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_texts_have_contrast(theme: str):
    known = variables(theme)
    pairs = [(ink, ground) for ink in ("ink", "soft", "accent", "bad") for ground in ("page", "panel")]
    pairs += [("good", "good-back"), ("warn", "warn-back"), ("bad", "bad-back"), ("soft", "gray-back")]
    pairs += [("ink", "faint"), ("page", "ink")]
    poor = {pair: contrast(known[pair[0]], known[pair[1]]) for pair in pairs}
    assert {pair: value for pair, value in poor.items() if value < 4.5} == {}


def test_a_reference_map_has_one_mark_everywhere():
    few = figures.shapes_of(["coarse mask", "noise"])
    many = figures.shapes_of(["noise", "centre blob", "coarse mask (4 px)", "untrained network"])
    assert few["noise"] == many["noise"]
    assert few["coarse mask"] == many["coarse mask (4 px)"]
    assert len(set(figures.NULL_SHAPES.values())) == len(figures.NULL_SHAPES)
    chart = figures.line_chart(
        "x", [figures.Series("ideal", (0.0, 1.0), (0.0, 1.0), figures.REFERENCE, True)], y_label="y"
    )
    assert "series-reference" in chart
    assert "series-0" not in chart

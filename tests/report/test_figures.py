import re
from xml.etree import ElementTree

import pytest

from seglens.report import figures
from seglens.report.figures import ChartAxis, Series

NASTY = "<script>&\"'"


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(f"<div>{svg}</div>")


def test_axis_positions():
    assert ChartAxis(0.0, 10.0).position(2.5, 200) == 50
    assert ChartAxis(1.0, 100.0, log=True).position(10.0, 200) == pytest.approx(100)
    assert ChartAxis(0.0, 1.0).position(7.0, 200) == 200
    assert ChartAxis(3.0, 3.0).position(3.0, 200) == 100


def test_axis_over_ignores_what_is_no_number():
    assert figures.axis_over([None, float("nan"), 2.0, 5.0]) == ChartAxis(2.0, 5.0)
    assert figures.axis_over([], include=(1.0,), log=True) == ChartAxis(0.5, 2.0, True)
    assert figures.axis_over([None]) == ChartAxis(0.0, 1.0)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.13, 0.87, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (3, 47, [0, 10, 20, 30, 40, 50]),
    ],
)
def test_nice_ticks(low: float, high: float, ticks: list[float]):
    assert figures.nice_ticks(low, high) == pytest.approx(ticks)


def test_nice_ticks_of_one_value_hold_it():
    for value in (0.0, 0.7, -3.0, 1e-9):
        ticks = figures.nice_ticks(value, value)
        assert ticks[0] <= value <= ticks[-1]
        assert len(ticks) > 1


def test_line_chart_breaks_where_a_value_is_missing():
    line = Series("dice", [1.0, 2.0, 3.0, 4.0], [0.1, 0.2, None, 0.4], 0)
    drawn = parsed(figures.line_chart("Score", [line], y_label="Dice"))
    points = [element.get("points") for element in drawn.iter("polyline")]
    assert [len((text or "").split()) for text in points] == [2, 1]


def test_line_chart_puts_points_where_they_belong():
    line = Series("dice", [1.0, 2.0, 3.0], [0.0, 0.5, 1.0], 0)
    drawn = parsed(figures.line_chart("Score", [line], y_label="Dice"))
    points = next(drawn.iter("polyline")).get("points") or ""
    (x0, y0), (x1, y1), (x2, y2) = (map(float, point.split(",")) for point in points.split())
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.11)
    assert y0 > y1


def test_figures_escape_names():
    shapes = figures.shapes_of([NASTY])
    drawn = [
        figures.line_chart(NASTY, [Series(NASTY, [1.0], [0.5], 0)], y_label=NASTY),
        figures.strip(0.4, (0.3, 0.5), {NASTY: 0.1}, ChartAxis(0.0, 1.0), shapes),
        figures.mark_legend(shapes),
        figures.bars(NASTY, [(NASTY, 0.5, 0)]),
        figures.histogram_chart(NASTY, [0.2], colour=0),
    ]
    for svg in drawn:
        assert not list(parsed(svg).iter("script"))
        assert NASTY in "".join(parsed(svg).itertext()) + "".join(
            element.get("aria-label", "") for element in parsed(svg).iter("svg")
        )


def test_strip_places_value_and_nulls_on_one_axis():
    shapes = {"mirror": "ring"}
    drawn = parsed(
        figures.strip(0.5, (0.25, 0.75), {"mirror": 1.0, "unknown": None}, ChartAxis(0.0, 1.0), shapes)
    )
    circles = {element.get("class"): float(element.get("cx", "nan")) for element in drawn.iter("circle")}
    assert circles == {"mark": 8 + 214 / 2, "null": 8 + 214}
    assert "mirror 1" in (next(drawn.iter("svg")).get("aria-label") or "")


def test_every_shape_can_be_drawn():
    for shape in figures.NULL_SHAPES.values():
        assert parsed(figures.null_mark(shape, 5, 5)).find("*") is not None
    assert len(set(figures.shapes_of(list("abcdef")).values())) == 6


def test_bars_are_as_long_as_their_values():
    drawn = parsed(figures.bars("Answer", [("full", 1.0, 0), ("half", 0.5, 0), ("none", None, 0)]))
    lengths = [float(e.get("width", 0)) for e in drawn.iter("rect") if "bar" in e.get("class", "")]
    assert lengths[0] == pytest.approx(2 * lengths[1])
    assert "not measured" in "".join(drawn.itertext())


def test_histogram_counts_every_picture():
    values = [0.0, 0.04, 0.5, 0.999, 1.0]
    tips = re.findall(
        r"<title>[\d.]+ to [\d.]+: (\d+)</title>", figures.histogram_chart("Dice", values, colour=0)
    )
    assert [int(tip) for tip in tips] == [2, *[0] * 9, 1, *[0] * 8, 2]


def test_ticks_below_a_chart_are_where_their_numbers_are():
    """Shares from 0 to .9: 1 is beyond the axis, and was written at .9."""
    shares = [0.0, 0.1, 0.5, 0.9]
    line = Series("map", shares, [1.0, 0.9, 0.4, 0.1], 0)
    drawn = figures.line_chart("removal", [line], y_label="score", whole=False)
    below = re.findall(r'y="210"[^>]*>([^<]+)<', str(drawn))
    assert below == ["0", "0.2", "0.4", "0.6", "0.8"]


def test_an_axis_of_powers_of_two_is_written_in_fractions():
    assert [figures.power_of_two(x) for x in range(-3, 3)] == ["1/8", "1/4", "1/2", "1", "2", "4"]
    line = Series("map", [-3.0, -1.0, 2.0], [0.9, 0.5, 0.1], 0)
    drawn = figures.line_chart("removal", [line], y_label="score", x_text=figures.power_of_two)
    below = re.findall(r'y="210"[^>]*>([^<]+)<', str(drawn))
    assert below == ["1/8", "1/4", "1/2", "1", "2", "4"]

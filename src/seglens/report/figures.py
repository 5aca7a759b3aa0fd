"""Figures as inline SVG: they need no library, scale with the page and take their colours from its style.

Colours are classes (``series-0``, ``mark``, ``null`` ...), so one figure serves light, dark and print. Every
figure has a name for screen readers, and what it shows stands in a table or text beside it as well. Names
from outside are escaped here, which is why the results are ``Markup``.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import cycle, groupby

from markupsafe import Markup

ChartNumber = int | float
"""A number of a table; JSON does not distinguish 1 from 1.0."""

NUM_COLOURS = 4

REFERENCE = -1
"""The colour of what others are compared with: reference maps, and the line of an ideal model."""

NULL_SHAPES = {
    "noise": "diamond",
    "centre blob": "ring",
    "image edges": "cross",
    "coarse mask": "square",
    "depth in the mask": "triangle",
    "probability map": "plus",
    "maps of other pictures": "bar",
    "untrained network": "hourglass",
}
"""The mark of each reference map, the same in every figure; coarse masks of all widths share one."""


@dataclass(frozen=True)
class Series:
    """One line of a chart: a value for each x, None where there is none.

    ``colour`` is the number of a class, or `REFERENCE`. What is ``hollow`` has rings in place of dots.
    """

    label: str
    xs: Sequence[ChartNumber]
    ys: Sequence[ChartNumber | None]
    colour: int
    dashed: bool = False
    hollow: bool = False

    @property
    def style(self) -> str:
        """The classes of its colour."""
        return "series-reference" if self.colour == REFERENCE else f"series-{self.colour % NUM_COLOURS}"


@dataclass(frozen=True)
class ChartAxis:
    """The range that several small figures share, so that they can be compared by eye."""

    low: ChartNumber
    high: ChartNumber
    log: bool = False

    def position(self, value: ChartNumber, length: ChartNumber) -> ChartNumber:
        """Return where ``value`` lies on an axis of ``length`` pixels; outside values stick to the ends."""
        low, high, value = (self._scaled(number) for number in (self.low, self.high, value))
        share = (value - low) / (high - low) if high > low else 0.5
        return min(1.0, max(0.0, share)) * length

    def _scaled(self, value: ChartNumber) -> ChartNumber:
        return math.log10(max(value, 1e-6)) if self.log else value


def axis_over(
    values: Sequence[ChartNumber | None], *, log: bool = False, include: Sequence[ChartNumber] = ()
) -> ChartAxis:
    """Return an axis that holds all ``values`` that are numbers and all of ``include``."""
    known = [value for value in (*values, *include) if value is not None and math.isfinite(value)]
    if log:
        known = [max(value, 1e-2) for value in known]
    if not known:
        return ChartAxis(0.1, 10.0, log) if log else ChartAxis(0.0, 1.0)
    low, high = min(known), max(known)
    if low == high:
        low, high = (low / 2, high * 2) if log else (low - 0.5, high + 0.5)
    return ChartAxis(low, high, log)


def line_chart(
    title: str,
    lines: Sequence[Series],
    *,
    y_label: str,
    x_label: str = "epoch",
    whole: bool = True,
    x_text: Callable[[ChartNumber], str] = "{:g}".format,
    x_range: tuple[ChartNumber, ChartNumber] | None = None,
) -> Markup:
    """Draw lines over epochs, or what ``x_label`` says, with a legend below; gaps where a value is missing.

    ``whole`` puts whole numbers only on the axis below, which ``x_text`` writes. It reaches over ``x_range``,
    or else as far as the lines do.
    """
    width, height, left, bottom, top, right = 400, 230, 44, 38, 12, 14
    xs = [x for line in lines for x in line.xs]
    known = [y for line in lines for y in line.ys if y is not None]
    ticks = nice_ticks(min(known, default=0.0), max(known, default=1.0))
    x_axis, y_axis = ChartAxis(*x_range) if x_range else axis_over(xs), ChartAxis(ticks[0], ticks[-1])
    plot_width, plot_height = width - left - right, height - top - bottom

    def place(x: ChartNumber, y: ChartNumber) -> tuple[ChartNumber, ChartNumber]:
        return left + x_axis.position(x, plot_width), top + plot_height - y_axis.position(y, plot_height)

    parts = []
    for tick in ticks:
        y = place(x_axis.low, tick)[1]
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    along = whole_ticks if whole else nice_ticks
    inside = [x for x in along(x_axis.low, x_axis.high) if x_axis.low <= x <= x_axis.high]
    for x in inside if xs else []:
        across = place(x, ticks[0])[0]
        parts.append(f'<text x="{across:.1f}" y="{height - 20}" text-anchor="middle">{x_text(x)}</text>')
    middle = left + plot_width / 2
    parts.append(f'<text x="{middle:.1f}" y="{height - 4}" text-anchor="middle">{escape(x_label)}</text>')
    for line in lines:
        parts += _polylines(line, place, x_label)
    name = f"{title}: {', '.join(line.label for line in lines)} over {x_label}"
    svg = _svg(width, height, name, parts, "chart")
    return _figure(f"{title} ({y_label})", svg + _legend(lines))


def _polylines(
    line: Series, place: Callable[[ChartNumber, ChartNumber], tuple[ChartNumber, ChartNumber]], x_label: str
) -> list[str]:
    colour = line.style
    style = f"line {colour}" + (" dashed" if line.dashed else "")
    parts = []
    pairs = list(zip(line.xs, line.ys, strict=True))
    for known, stretch in groupby(pairs, key=lambda pair: pair[1] is not None):
        if not known:
            continue
        spots = [(x, y, *place(x, y)) for x, y in stretch if y is not None]
        points = " ".join(f"{across:.1f},{down:.1f}" for _, _, across, down in spots)
        parts.append(f'<polyline class="{style}" points="{points}"/>')
        for x, y, across, down in spots if len(pairs) <= 60 else spots[-1:]:
            tip = f"{escape(line.label)}, {escape(x_label)} {x:.4g}: {y:.4g}"
            kind, radius = ("ring", 4.4) if line.hollow else ("dot", 2.6)
            dot = f'<circle class="{kind} {colour}" cx="{across:.1f}" cy="{down:.1f}" r="{radius}">'
            parts.append(f"{dot}<title>{tip}</title></circle>")
    return parts


def _legend(lines: Sequence[Series]) -> str:
    items = []
    for line in lines:
        style = f"line {line.style}" + (" dashed" if line.dashed else "")
        swatch = f'<svg class="swatch" width="26" height="10" aria-hidden="true"><line class="{style}" '
        items.append(f'<li>{swatch}x1="1" x2="25" y1="5" y2="5"/></svg>{escape(line.label)}</li>')
    return f'<ul class="legend">{"".join(items)}</ul>'


def strip(
    value: ChartNumber | None,
    interval: tuple[ChartNumber | None, ChartNumber | None],
    nulls: Mapping[str, ChartNumber | None],
    axis: ChartAxis,
    shapes: Mapping[str, str],
    colour: int = 0,
) -> Markup:
    """Draw one value with its interval on a line, and each null as a hollow mark of its own shape."""
    width, height, pad = 230, 30, 8
    inner, middle = width - 2 * pad, height / 2

    def across(number: ChartNumber) -> ChartNumber:
        return pad + axis.position(number, inner)

    parts = [f'<line class="grid" x1="{pad}" x2="{width - pad}" y1="{middle}" y2="{middle}"/>']
    low, high = interval
    if low is not None and high is not None:
        ends = f'x1="{across(low):.1f}" x2="{across(high):.1f}"'
        parts.append(f'<line class="interval" {ends} y1="{middle}" y2="{middle}"/>')
    for name, number in nulls.items():
        if number is not None:
            tip = f"<title>{escape(name)}: {number:.3g}</title>"
            parts.append(f"<g>{tip}{null_mark(shapes.get(name, 'ring'), across(number), middle)}</g>")
    if value is not None:
        tip = f"<title>the map itself: {value:.3g}</title>"
        spot = f'<circle class="mark" cx="{across(value):.1f}" cy="{middle}" r="5">{tip}</circle>'
        parts.append(spot)
    known = ", ".join(f"{name} {number:.3g}" for name, number in nulls.items() if number is not None)
    shown = "no value" if value is None else f"value {value:.3g}"
    return Markup(
        _svg(
            width,
            height,
            f"{shown}; reference maps: {known or 'none'}",
            parts,
            f"strip series-{colour % NUM_COLOURS}",
        )
    )


def null_mark(shape: str, x: ChartNumber, y: ChartNumber) -> str:
    """Draw the mark of one null, about 10 pixels large, at (x, y)."""
    radius = 5.0
    if shape == "ring":
        return f'<circle class="null" cx="{x:.1f}" cy="{y:.1f}" r="4.4"/>'
    strokes = {
        "diamond": f"M{x:.1f} {y - radius:.1f}l{radius} {radius}l-{radius} {radius}l-{radius} -{radius}z",
        "square": f"M{x - 4:.1f} {y - 4:.1f}h8v8h-8z",
        "triangle": f"M{x:.1f} {y - radius:.1f}l{radius} 9h-{2 * radius}z",
        "cross": f"M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8",
        "plus": f"M{x - radius:.1f} {y:.1f}h{2 * radius}M{x:.1f} {y - radius:.1f}v{2 * radius}",
        "bar": f"M{x:.1f} {y - radius:.1f}v{2 * radius}",
        "hourglass": f"M{x - 4:.1f} {y - radius:.1f}h8l-8 {2 * radius}h8z",
    }
    return f'<path class="null" d="{strokes[shape]}"/>'


def mark_legend(shapes: Mapping[str, str]) -> Markup:
    """Draw what the marks of a strip mean."""
    own = '<svg class="swatch" width="14" height="14" aria-hidden="true">'
    items = [f'<li>{own}<circle class="mark" cx="7" cy="7" r="5"/></svg>value, with its 95 % interval</li>']
    kinds = {name.partition(" (")[0]: shape for name, shape in shapes.items()}
    items += [f"<li>{own}{null_mark(shape, 7, 7)}</svg>{escape(name)}</li>" for name, shape in kinds.items()]
    return Markup(f'<ul class="legend">{"".join(items)}</ul>')


def shapes_of(nulls: Sequence[str]) -> dict[str, str]:
    """Give each reference map its shape; names that are not known take one after the other."""
    others = cycle(NULL_SHAPES.values())
    kinds = {name: name.partition(" (")[0] for name in dict.fromkeys(nulls)}
    return {name: NULL_SHAPES[kind] if kind in NULL_SHAPES else next(others) for name, kind in kinds.items()}


def bars(
    title: str, rows: Sequence[tuple[str, ChartNumber | None, int]], *, limit: ChartNumber = 1.0
) -> Markup:
    """Draw one horizontal bar for each (label, value, colour), from 0 to ``limit``, with its number."""
    width, row, left, right = 360, 26, 104, 40
    length = width - left - right
    parts = []
    for i, (label, value, colour) in enumerate(rows):
        top, text = i * row + 4, i * row + 18
        parts.append(f'<text x="{left - 8}" y="{text}" text-anchor="end">{escape(label)}</text>')
        parts.append(f'<rect class="track" x="{left}" y="{top}" width="{length}" height="18" rx="3"/>')
        if value is None:
            parts.append(f'<text x="{left + 6}" y="{text}">not measured</text>')
            continue
        filled = ChartAxis(0.0, limit).position(value, length)
        place = f'x="{left}" y="{top}" width="{filled:.1f}" height="18" rx="3"'
        parts.append(f'<rect class="bar series-{colour % NUM_COLOURS}" {place}/>')
        parts.append(f'<text x="{width - right + 8}" y="{text}">{value:.2f}</text>')
    known = ", ".join(f"{label} {'unknown' if value is None else f'{value:.2f}'}" for label, value, _ in rows)
    svg = _svg(width, len(rows) * row + 4, f"{title}: {known}", parts, "chart")
    return _figure(title, svg)


def histogram_chart(title: str, values: Sequence[ChartNumber], *, colour: int) -> Markup:
    """Draw how values between 0 and 1 are spread, one bar for each of 20 equal steps."""
    num_bins = 20
    width, height, left, bottom, top = 400, 140, 34, 22, 8
    counts = [0] * num_bins
    for value in values:
        counts[min(num_bins - 1, max(0, int(value * num_bins)))] += 1
    step, tallest = (width - left - 8) / num_bins, max([*counts, 1])
    floor = height - bottom
    parts = [f'<line class="grid" x1="{left}" x2="{width - 8}" y1="{floor}" y2="{floor}"/>']
    parts.append(f'<text x="{left - 6}" y="{top + 10}" text-anchor="end">{tallest}</text>')
    for i, count in enumerate(counts):
        tall = (floor - top) * count / tallest
        tip = f"<title>{i / num_bins:.2f} to {(i + 1) / num_bins:.2f}: {count}</title>"
        place = (
            f'x="{left + i * step + 1:.1f}" y="{floor - tall:.1f}" width="{step - 2:.1f}" height="{tall:.1f}"'
        )
        parts.append(f'<rect class="bar series-{colour % NUM_COLOURS}" {place} rx="1.5">{tip}</rect>')
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = left + tick * (width - left - 8)
        parts.append(f'<text x="{x:.1f}" y="{height - 5}" text-anchor="middle">{tick:g}</text>')
    ends = f"lowest {min(values, default=0):.2f}, highest {max(values, default=0):.2f}"
    description = f"{title}: {len(values)} pictures, {ends}"
    svg = _svg(width, height, description, parts, "chart")
    return _figure(title, svg)


def nice_ticks(low: ChartNumber, high: ChartNumber) -> list[ChartNumber]:
    """Return about five round numbers that hold ``low`` to ``high``."""
    span = high - low if high > low else abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / 5))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= span / 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]


def whole_ticks(low: ChartNumber, high: ChartNumber, num: int = 6) -> list[int]:
    """Return at most about ``num`` whole numbers from ``low`` to ``high``."""
    step = max(1, math.ceil((high - low) / num))
    return list(range(math.ceil(low), math.floor(high) + 1, step))


def power_of_two(exponent: ChartNumber) -> str:
    """Return ``2 ** exponent`` as people write it: 1/8 for -3."""
    return f"{2**exponent:g}" if exponent >= 0 else f"1/{2**-exponent:g}"


def _figure(title: str, drawing: str) -> Markup:
    return Markup(f"<figure><figcaption>{escape(title)}</figcaption>{drawing}</figure>")


def _svg(width: ChartNumber, height: ChartNumber, name: str, parts: Sequence[str], style: str) -> str:
    head = f'<svg class="{style}" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(name)}">'
    return f"{head}{''.join(parts)}</svg>"

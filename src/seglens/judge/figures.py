"""Pictures of a scorecard, one a score; the two removal scores share theirs, and so do both agreements."""

from collections.abc import Callable, Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

from seglens.files.output import new_file
from seglens.judge.scorecard import Judgement, Scorecard
from seglens.results.names import (
    NULL,
    TARGET_SCALE,
    attention_ratio,
    label_in_words,
    map_name,
    null_in_words,
)
from seglens.results.scorecard import RemovalCurves

MOST = 12
"""Maps in one figure; more than this are told apart by nobody."""

NULLS_DRAWN = ("random", "edges", "probability")
"""Drawn in every figure of removal, next to those that a verdict names."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Of the maps: they are told apart without colour vision (Okabe and Ito 2008)."""

NULL_MARKS = "^svDPXo*"


def draw_figures(card: Scorecard, folder: Path) -> list[Path]:
    """Write a PNG for each thing that ``card`` has numbers of to ``folder``, and return their files."""
    files = []
    for name, draw in FIGURES.items():
        drawn = draw(card)
        if drawn is not None:
            files.append(folder / f"{name}.png")
            with new_file(files[-1], force=True) as temporary:
                drawn.savefig(temporary, dpi=120)
    return files


def draw_removal_curves(card: Scorecard) -> Any:
    """Draw the score after growing shares are removed: most relevant first solid, least first dashed."""
    scores = {
        name: found for name, found in card.figures.removal.items() if any(row.num for row in found.values())
    }
    return _curves(card, scores) if scores else None


def _curves(card: Scorecard, scores: Mapping[str, Mapping[str, RemovalCurves]]) -> Any:
    panels = [
        (score, found, kept)
        for score, found in scores.items()
        for kept in ((False, True) if score == TARGET_SCALE else (False,))
    ]
    figure = _figure(6.6 * len(panels), 4.2)
    for axes, (score, found, kept) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
    ):
        own = [name for name in found if not name.startswith(NULL) and found[name].num][:MOST]
        named = {row.reference.removeprefix(NULL) for row in card.rows if row.score == score}
        nulls = [
            name
            for name in found
            if name.removeprefix(NULL) in {*NULLS_DRAWN, *named} and name not in own and found[name].num
        ]
        styles: dict[str, dict[str, Any]] = {
            name: {"color": "0.55", "linewidth": 0.9, "marker": mark, "markersize": 3.5}
            for name, mark in zip(nulls, cycle(NULL_MARKS), strict=False)
        }
        # Each line is narrower than the one below it: none hides another.
        styles |= {
            name: {"color": COLOURS[place % len(COLOURS)], "linewidth": max(1.2, 3.4 - 0.6 * place)}
            for place, name in enumerate(own)
        }
        steps = card.figures.target_fractions if score == TARGET_SCALE else [0.0, *card.figures.fractions]
        for name, style in styles.items():
            row = found[name]
            label = name if name in own else f"{null_in_words(name)} (reference map)"
            most, least = row.lines(kept=kept)
            if score != TARGET_SCALE:
                most, least = [row.full, *most], [row.full, *least]
            axes.plot(steps, most, label=label, **style)
            axes.plot(steps, least, linestyle="--", **style)
        what = "kept" if kept else "removed" if score == TARGET_SCALE else "first"
        axes.set_title(f"{score.replace('_', ' ')}: solid most important {what}, dashed least", fontsize=9)
        axes.set_xlabel("share of the picture removed")
        axes.set_xlim(0, 1)
        if score == TARGET_SCALE:
            axes.set_xscale("log", base=2)
            axes.set_xlim(min(steps), max(steps))
            axes.set_xlabel(f"{what}, in areas of the target")
        axes.set_ylabel("score of the target")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=6, loc="upper left", bbox_to_anchor=(1.01, 1))  # the curves leave no room
    return figure


def draw_cascade(card: Scorecard) -> Any:
    """Draw how far maps stay like those of the trained model while the network is randomised."""
    found = card.figures.cascade
    if not found.maps:
        return None
    figure = _figure(5.2, 4.0)
    axes = figure.subplots()
    for (name, values), colour in zip(list(found.maps.items())[:MOST], cycle(COLOURS), strict=False):
        axes.plot(found.share_of_modules, values, marker="o", markersize=3, label=name, color=colour)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("share of the network with random weights, output first")
    axes.set_ylabel("likeness to the map of the trained model")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    return figure


def draw_cell_effects(card: Scorecard) -> Any:
    """Draw the attribution of each cell against the effect of occluding it, for a few images."""
    found = list(card.figures.agreement.items())[:MOST]
    if not found:
        return None
    across = min(4, len(found))
    down = -(-len(found) // across)
    figure = _figure(3.0 * across, 3.0 * down)
    panels = figure.subplots(down, across, squeeze=False).flatten()
    for axes, (name, points) in zip(panels, found, strict=False):
        axes.scatter(points.attribution, points.effect, s=4, alpha=0.4)
        axes.axhline(0, color="0.7", linewidth=0.8)
        axes.axvline(0, color="0.7", linewidth=0.8)
        axes.set_title(name, fontsize=8)
        axes.set_xlabel("attribution", fontsize=7)
        axes.set_ylabel("fall of the score", fontsize=7)
    for axes in panels[len(found) :]:
        axes.set_visible(False)
    return figure


def draw_attention(card: Scorecard) -> Any:
    """Draw the enrichment of each map beside its mirror's; copies of the prediction are squares."""
    rows = [row for row in card.rows if row.score == "attention" and row.interval.num]
    if not rows:
        return None
    figure = _figure(6.4, 1.2 + 0.34 * len(rows))
    axes = figure.subplots()
    for place, row in enumerate(rows):
        axes.plot(row.interval.mean, place, "s" if row.label else "o", color=COLOURS[bool(row.label)])
        axes.plot(row.nulls["mirror"], place, "|", color="0.3", markersize=12)
        axes.text(
            1.01,
            place,
            ", ".join(filter(None, (_ratio(row), label_in_words(row.label)))),
            transform=axes.get_yaxis_transform(),
            fontsize=7,
            va="center",
        )
    names = [map_name(row.method, row.layer) for row in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=7)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("log2 enrichment of heat in the target (bar: its coarse mask)")
    axes.grid(alpha=0.3)
    return figure


def _ratio(row: Judgement) -> str:
    """Return the attention ratio of a row in words; infinite ratios have no mean."""
    found = row.details["ratio"]
    return f"ratio {attention_ratio(found.mean, '.3g')}" if found.num else "no heat outside: no ratio"


def draw_stability(card: Scorecard) -> Any:
    """Draw the stability of each map beside the reference rows."""
    return _forest(card, "stability", "1 - largest relative change of the map")


def draw_completeness(card: Scorecard) -> Any:
    """Draw the relative error of completeness of each map."""
    return _forest(card, "completeness", "relative error of the sum (at most 5 % passes)")


def _forest(card: Scorecard, score: str, what: str) -> Any:
    """Draw value and interval of every map, a line each; reference rows as ticks, the best one named."""
    rows = [
        row for row in card.rows if row.score == score and row.verdict != "reference" and row.interval.num
    ]
    if not rows:
        return None
    figure = _figure(6.4, 1.4 + 0.34 * len(rows))
    axes = figure.subplots()
    for place, row in enumerate(rows):
        axes.plot(list(row.nulls.values()), [place] * len(row.nulls), "|", color="0.6", markersize=9)
        known = row.nulls.get(row.reference)
        if known is not None:
            axes.plot([known], [place], "|", color="k", markersize=13)
            axes.annotate(
                null_in_words(row.reference), (known, place), (0, 7), textcoords="offset points", fontsize=6
            )
        axes.plot([row.interval.low, row.interval.high], [place, place], color=COLOURS[0], linewidth=1.2)
        axes.plot([row.value], [place], "o", color=COLOURS[0], markersize=4)
    names = [map_name(row.method, row.layer) for row in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=7)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(f"{what} (bars: reference maps)" if rows[0].nulls else what)
    axes.grid(alpha=0.3)
    return figure


def _figure(width: float, height: float) -> Any:
    # Figure without pyplot: no window system, and no state that outlives the call.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


FIGURES: dict[str, Callable[[Scorecard], Any]] = {
    "removal_curves": draw_removal_curves,
    "cascade": draw_cascade,
    "agreement": draw_cell_effects,
    "restating": draw_attention,
    "stability": draw_stability,
    "completeness": draw_completeness,
}
"""Files and what draws them. To add a figure: one function, one line."""

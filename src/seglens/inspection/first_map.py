"""The first map of a page or a notebook: one that no scorecard calls a copy of the predicted mask."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from seglens.errors import SeglensError
from seglens.results.scorecard import Card
from seglens.results.tables import read_table
from seglens.runs import Run

FIRST_METHOD = "grad-cam"
FIRST_LAYERS = ("encoder_last", "bottleneck", "decoder_last")
"""What is chosen where nothing was judged: deep layers know least of the mask's outline."""


def first_map(run: Run, methods: Sequence[str], layers: Sequence[str]) -> tuple[str, str]:
    """Return the method and the layer to begin with, of those that are offered.

    Of the maps that were judged it is the one that passes most scores and nowhere repeats the prediction.
    Where none was judged, or all of them repeat it, it is `FIRST_METHOD` at the first of `FIRST_LAYERS` that
    there is and that is not known to repeat it.
    """
    cards = _cards(run.folder)
    copies = {
        (step.method, layer.layer)
        for card in cards
        for step in card.restating
        for layer in step.layers
        if layer.restates
    }
    copies |= {(row.method, row.layer or "") for card in cards for row in card.rows if row.label}
    passed: Counter[tuple[str, str]] = Counter()
    for card in cards:
        for row in card.rows:
            name = (row.method, row.layer or "")
            if row.method in methods and row.layer in layers and name not in copies:
                passed[name] += row.verdict == "pass"
    if passed:
        return passed.most_common(1)[0][0]
    free = [layer for layer in FIRST_LAYERS if layer in layers]
    free = [layer for layer in free if (FIRST_METHOD, layer) not in copies] or free or [layers[-1]]
    return FIRST_METHOD, free[0]


def _cards(folder: Path | None) -> list[Card]:
    """Return the scorecards of a run that can be read; a damaged one is no reason to show nothing."""
    found = []
    for file in sorted((folder / "judge").glob("*/scorecard.json")) if folder is not None else ():
        try:
            found.append(read_table(file, Card))
        except SeglensError:
            continue
    return found

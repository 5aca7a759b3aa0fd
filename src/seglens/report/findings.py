"""The verdicts in plain words: what was found about a model and its maps, each with where to read more."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from seglens.report.contents import Evaluated, Judged, RunContents
from seglens.results.names import NULL, REPEATS, RESTATES, label_in_words, map_name, null_in_words, number
from seglens.results.scorecard import CardRow, faithfulness_of
from seglens.results.scores import Reliability

SAID = {
    "faithfulness": {
        "pass": "what it marks matters to the model, more than what {reference} marks",
        "warn": "it may be no better than {reference}: these pictures cannot tell",
        "fail": "what it marks matters less to the model than what {reference} marks",
    },
    "target_faithfulness": {
        "pass": "in and around the object, what it marks matters more than what {reference} marks",
        "warn": "in and around the object it may be no better than {reference}: these pictures cannot tell",
        "fail": "in and around the object, what it marks matters less than what {reference} marks",
    },
    "context_faithfulness": {
        "pass": "it finds what matters around the object, better than {reference}",
        "warn": "around the object it may be no better than {reference}: these pictures cannot tell",
        "fail": "around the object it is worse than {reference}",
    },
    "causal_agreement": {
        "pass": "the cells it ranks high do matter when they are covered, more than those of {reference}",
        "warn": "it may rank cells no better than {reference}: these pictures cannot tell",
        "fail": "it ranks cells worse than {reference}",
    },
    "model_dependence": {
        "pass": "it changes when the network forgets what it learned, as it should",
        "warn": "it may not change when the network forgets what it learned: these pictures cannot tell",
        "fail": "it stays the same with random weights: it shows the picture, not the model",
    },
    "stability": {
        "pass": "it hardly changes while the prediction stays the same",
        "warn": "it may be no steadier than {reference}: these pictures cannot tell",
        "fail": "it changes although the prediction stays the same",
    },
    "completeness": {
        "pass": "its values add up to the answer, as its own rule demands",
        "warn": "its values add up to the answer only roughly",
        "fail": "its values do not add up to the answer: take more steps",
    },
}
"""What each verdict means, by score; ``{reference}`` is the strongest map that is made without the model."""

ORDER = ("fail", "warn", "pass", "not evaluable")


@dataclass(frozen=True)
class FindingInWords:
    """One sentence of the overview. ``verdict`` is empty where there is only a number to tell."""

    verdict: str
    title: str
    text: str
    link: str


@dataclass(frozen=True)
class Line:
    """The scorecard of one map: a verdict and a reason for each score."""

    run: str
    name: str
    target: str
    cells: Mapping[str, tuple[str, str]]
    label: str


def findings(run: RunContents) -> list[FindingInWords]:
    """Return what is to be known of a run first."""
    found = [finding for part in run.evaluations for finding in _of_scores(part)]
    found += [finding for part in run.scorecards for finding in _of_maps(part)]
    found += [finding for part in run.scorecards for finding in _of_audit(part)]
    return found


def matrix(runs: Sequence[RunContents]) -> tuple[list[str], list[Line]]:
    """Return the scores that were made, and a line for each map of the scorecards."""
    scores: dict[str, None] = {}
    lines = []
    for run in runs:
        rows = [row for part in run.scorecards for row in part.table.rows]
        by_map: dict[tuple[str, str], dict[str, tuple[str, str]]] = {}
        labels: defaultdict[tuple[str, str], str] = defaultdict(str)
        for row in rows:
            if row.verdict == "reference":
                continue
            key = (name_of(row), row.target)
            scores[row.score] = None
            by_map.setdefault(key, {})[row.score] = (row.verdict or "not evaluable", reason_in_words(row))
            if row.label:
                labels[key] = label_in_words(row.label)
        lines += [Line(run.name, *key, cells, labels[key]) for key, cells in by_map.items()]
    return list(scores), lines


def reason_in_words(row: CardRow) -> str:
    """Return what the verdict of a row of a scorecard means, in words."""
    if row.label == RESTATES:
        return "it shows where the model answered, not why"
    text = SAID.get(row.score, {}).get(row.verdict, "")
    if not text:
        return row.reason or row.verdict
    reference = row.reference.removeprefix(NULL)
    return text.format(reference=f"the {null_in_words(reference)}" if reference else "the best reference map")


def name_of(row: CardRow) -> str:
    """Return ``method`` or ``method @ layer``."""
    return map_name(row.method, row.layer, at=" @ ")


def _of_scores(part: Evaluated) -> list[FindingInWords]:
    split, found = part.split, []
    precision, recall = part.table.pooled.precision, part.table.pooled.recall
    if precision is not None and recall is not None:
        more = "invents more than it misses" if precision < recall else "misses more than it invents"
        text = (
            f"The model {more}. It missed {1 - recall:.1%} of the true pixels. {1 - precision:.1%} of the "
            "pixels that it marked are wrong."
        )
        found.append(FindingInWords("", f"Errors, {split}", text, "scores"))
    sentence = about_calibration(part.table.calibration)
    if sentence:
        found.append(FindingInWords("", f"Probabilities, {split}", sentence, "calibration"))
    return found


def about_calibration(table: Reliability) -> str:
    """Return a sentence about calibration; empty where it was not measured."""
    if table.error is None:
        return ""
    text = f"The probabilities are off by {100 * table.error:.1f} percentage points on average"
    bins = table.known(table.bins)
    total = sum(pixels for pixels, _, _ in bins)
    if total:
        lean = sum(pixels * (probability - share) for pixels, probability, share in bins) / total
        if abs(lean) >= 0.005:
            more = "too sure of itself" if lean > 0 else "not sure enough"
            text += f": the model is {more}"
        _, surest, share = bins[-1]
        text += f". Where it gives {number(surest, 2)} on average, it is right in {share:.1%} of the pixels"
    return text + "."


def _of_maps(part: Judged) -> list[FindingInWords]:
    """Return one finding for each verdict about faithfulness, with the maps that got it."""
    rows = [row for row in part.table.rows if row.verdict != "reference"]
    judged = faithfulness_of(rows)
    found = []
    for verdict in ORDER:
        ours = [row for row in judged if row.verdict == verdict]
        if ours:
            names = ", ".join(name_of(row) for row in ours)
            texts = list(dict.fromkeys(reason_in_words(row) for row in ours))
            found.append(FindingInWords(verdict, names, f"{_capital('; '.join(texts))}.", "scorecard"))
    repeating = list(dict.fromkeys(name_of(row) for row in rows if row.label == RESTATES))
    if repeating:
        text = "No better than a coarse copy of the predicted mask: shows where the model answered, not why."
        found.append(FindingInWords("warn", f"{', '.join(repeating)}: {REPEATS}", text, "scorecard"))
    return found


def _of_audit(part: Judged) -> list[FindingInWords]:
    found = []
    for region in part.audit.regions if part.audit else ():
        verdicts, name, drop = [entry.verdict for entry in region.maps], region.region, region.drop
        cost = "" if drop is None else f" Without it the model loses {max(0.0, drop):.1%} of its score."
        if "shortcut" in verdicts:
            maps = ", ".join(entry.map for entry in region.maps if entry.verdict == "shortcut")
            text = f"This region changes the answer, and {maps} lights up there.{cost}"
            found.append(FindingInWords("fail", f"Shortcut: {name}", text, "audit"))
        elif region.matters:
            text = f"This region changes the answer, but no map shows it.{cost}"
            found.append(FindingInWords("warn", f"Region {name} matters", text, "audit"))
        elif verdicts and all(verdict == "not evaluable" for verdict in verdicts):
            text = f"{_capital(region.maps[0].reason)}."
            found.append(FindingInWords("not evaluable", f"Region {name}", text, "audit"))
        else:
            text = f"We found no effect on the answer.{cost}"
            found.append(FindingInWords("nothing found", f"Region {name}", text, "audit"))
    return found


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]

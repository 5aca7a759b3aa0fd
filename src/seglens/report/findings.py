"""The verdicts in plain words: what was found about a model and its maps, each with where to read more."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seglens.report.contents import Part, RunContents
from seglens.results.names import RESTATES, number

SAID = {
    "faithfulness": {
        "pass": "what it marks matters to the model, more than what {reference} marks",
        "warn": "not shown to mark what matters to the model any better than {reference}, which knows "
        "nothing of it",
        "fail": "marks what matters to the model less well than {reference}, which knows nothing of it",
    },
    "context_faithfulness": {
        "pass": "finds what matters around the object, better than {reference}",
        "warn": "around the object it is not shown to be better than {reference}",
        "fail": "around the object it is worse than {reference}",
    },
    "causal_agreement": {
        "pass": "agrees with what covering parts of the picture does, more than {reference}",
        "warn": "agrees with what covering parts of the picture does no more than {reference} for certain",
        "fail": "agrees less with what covering parts of the picture does than {reference}",
    },
    "model_dependence": {
        "pass": "changes when the model's weights are drawn at random, as it should",
        "warn": "not shown to change with the model's weights",
        "fail": "stays much the same with random weights: it shows the picture, not the model",
    },
    "stability": {
        "pass": "hardly changes where the prediction doesn't",
        "warn": "no steadier than {reference} for certain",
        "fail": "changes although the prediction doesn't",
    },
    "completeness": {
        "pass": "adds up to the answer, as its own rule demands",
        "warn": "adds up to the answer only roughly",
        "fail": "does not add up to the answer: take more steps",
    },
}
"""What each verdict means, by score; ``{reference}`` is the strongest map that knows nothing of the model."""

ORDER = ("fail", "warn", "pass", "not evaluable")


@dataclass(frozen=True)
class Finding:
    """One sentence of the overview. ``verdict`` is empty where there is only a number to tell."""

    verdict: str
    title: str
    text: str
    link: str


@dataclass(frozen=True)
class Line:
    """What the scorecard says of one map: a verdict and a reason for each score."""

    run: str
    name: str
    target: str
    cells: Mapping[str, tuple[str, str]]
    label: str


def findings(run: RunContents) -> list[Finding]:
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
        rows = [row for part in run.scorecards for row in part.table.get("rows", [])]
        by_map: dict[tuple[str, str], dict[str, tuple[str, str]]] = {}
        labels: dict[tuple[str, str], str] = {}
        for row in rows:
            if row.get("verdict") == "reference":
                continue
            key = (name_of(row), str(row.get("target") or ""))
            score = str(row.get("score"))
            scores[score] = None
            cells = by_map.setdefault(key, {})
            cells[score] = (str(row.get("verdict") or "not evaluable"), said(row))
            if row.get("label"):
                labels[key] = str(row["label"])
        lines += [Line(run.name, *key, cells, labels.get(key, "")) for key, cells in by_map.items()]
    return list(scores), lines


def said(row: Mapping[str, Any]) -> str:
    """Return what the verdict of a row of a scorecard means, in words."""
    verdict, reason = str(row.get("verdict") or ""), str(row.get("reason") or "")
    if row.get("label") == RESTATES:
        return "shows where the model answered, not why"
    text = SAID.get(str(row.get("score")), {}).get(verdict, "")
    if not text:
        return reason or verdict
    reference = f"the null {str(row.get('reference') or 'null').replace('null:', '').replace('_', ' ')}"
    return text.format(reference=reference)


def name_of(row: Mapping[str, Any]) -> str:
    """Return ``method`` or ``method @ layer``."""
    method = str(row.get("method"))
    return f"{method} @ {row['layer']}" if row.get("layer") else method


def _of_scores(part: Part) -> list[Finding]:
    table, pooled = part.table, part.table.get("pooled") or {}
    split = str(table.get("split", part.name))
    found = []
    precision, recall = pooled.get("precision"), pooled.get("recall")
    if precision is not None and recall is not None:
        more = "invents more than it misses" if precision < recall else "misses more than it invents"
        text = (
            f"It {more}: {1 - recall:.1%} of the pixels that are there were missed, and "
            f"{1 - precision:.1%} of those that it marked are wrong."
        )
        found.append(Finding("", f"What it gets wrong, {split}", text, "scores"))
    calibration = table.get("calibration") or {}
    if calibration.get("error") is not None:
        found.append(
            Finding("", f"Its probabilities, {split}", about_calibration(calibration), "calibration")
        )
    return found


def about_calibration(table: Mapping[str, Any]) -> str:
    """Say how far the probabilities can be taken at their word."""
    bins = [row for row in table.get("bins") or [] if row.get("pixels")]
    total = sum(row["pixels"] for row in bins)
    text = f"They are off by {100 * float(table['error']):.1f} percentage points on average"
    if total:
        lean = sum(row["pixels"] * (row["probability"] - row["share"]) for row in bins) / total
        if abs(lean) >= 0.005:
            more = "surer than it should be" if lean > 0 else "less sure than it could be"
            text += f"; the model is {more}"
        else:
            text += ", and lean neither way"
        last = bins[-1]
        text += (
            f". Where it is surest ({number(last['probability'], 2)} on average) it is right in "
            f"{last['share']:.1%} of the pixels"
        )
    return text + "."


def _of_maps(part: Part) -> list[Finding]:
    """Return one finding for each verdict about faithfulness, with the maps that got it."""
    rows = [row for row in part.table.get("rows", []) if row.get("verdict") != "reference"]
    judged = [row for row in rows if row.get("score") == "faithfulness"]
    found = []
    for verdict in ORDER:
        ours = [row for row in judged if row.get("verdict") == verdict]
        if ours:
            names = ", ".join(name_of(row) for row in ours)
            texts = list(dict.fromkeys(said(row) for row in ours))
            found.append(Finding(verdict, names, f"{_capital('; '.join(texts))}.", "scorecard"))
    restating = [name_of(row) for row in rows if row.get("label") == RESTATES]
    if restating:
        names = ", ".join(dict.fromkeys(restating))
        text = "No better than the prediction itself made coarse: where the model answered, not why."
        found.append(Finding("warn", f"{names}: restates the prediction", text, "scorecard"))
    return found


def _of_audit(part: Part) -> list[Finding]:
    audit = part.audit or {}
    found = []
    for region in audit.get("regions", []):
        verdicts = [str(row.get("verdict")) for row in region.get("maps", [])]
        name = str(region.get("region"))
        drop = region.get("drop")
        cost = "" if drop is None else f" Taking it away costs {max(0.0, drop):.1%} of the score."
        if "shortcut" in verdicts:
            maps = ", ".join(str(r["map"]) for r in region["maps"] if r.get("verdict") == "shortcut")
            text = f"It changes the answer, and {maps} lights up there.{cost}"
            found.append(Finding("fail", f"Shortcut: {name}", text, "audit"))
        elif region.get("matters"):
            text = f"It changes the answer, but no map shows it.{cost}"
            found.append(Finding("warn", f"Region {name} matters", text, "audit"))
        elif verdicts and all(verdict == "not evaluable" for verdict in verdicts):
            reason = str(region["maps"][0].get("reason") or "")
            found.append(Finding("not evaluable", f"Region {name}", f"{_capital(reason)}.", "audit"))
        else:
            text = f"Not shown to matter to the answer.{cost}"
            found.append(Finding("nothing found", f"Region {name}", text, "audit"))
    return found


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]

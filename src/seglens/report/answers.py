"""The first screen: four questions that a reader has, each with a short answer. Everything else folds."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from seglens.report.contents import Judged, RunContents
from seglens.report.missing import missing
from seglens.results.names import RESTATES, count, map_name, number
from seglens.results.scorecard import CardRow, TagTest, faithfulness_of

MOST = 3
"""Names in one sentence; what is more is counted."""


@dataclass(frozen=True)
class Answer:
    """A question with its answer, and perhaps a verdict, a command to type and a section to read."""

    question: str
    text: str
    verdict: str = ""
    command: str = ""
    link: str = ""


def answers(run: RunContents, shortcut: TagTest | None = None) -> list[Answer]:
    """Return what a reader wants to know of a run first, in four answers."""
    return [_how_good(run), _looks_at(run, shortcut), _believable(run), _next(run)]


def _how_good(run: RunContents) -> Answer:
    question = "How good is it?"
    if not run.evaluations:
        return Answer(question, "Not measured yet.", "not evaluable", f"seglens evaluate {_path(run)}")
    part = run.evaluations[0]
    table, dice = part.table, part.table.average("dice")
    where = f"{count(len(table.images) - table.num_failed, 'picture')} ({part.split})"
    if dice.mean is None:
        return Answer(question, f"No picture of {where} shows the object: we cannot say.", link="scores")
    known = dice.low is not None and dice.high is not None
    between = f" (95 % interval {dice.low:.3f} to {dice.high:.3f})" if known else ""
    text = f"Dice {number(dice.mean)}{between} on {where}."
    precision, recall = table.pooled.precision, table.pooled.recall
    if precision is not None and recall is not None:
        text += f" It misses {1 - recall:.1%} of the object. {1 - precision:.1%} of what it marks is wrong."
    return Answer(question, f"{text} {table.trained_on}".strip(), link="scores")


def _looks_at(run: RunContents, shortcut: TagTest | None) -> Answer:
    question = "What does it look at?"
    causal = (shortcut.causal if shortcut else {}).get(run.name.rpartition("/")[2])
    if shortcut and shortcut.valid and causal and causal.drop_removed is not None:
        reads = causal.drop_removed >= 0.2
        text = (
            f"At the tag beside the object: without the tag it loses {causal.drop_removed:.0%} of its score."
            if reads
            else f"Not at the tag: without the tag it loses {max(0.0, causal.drop_removed):.0%} of its score."
        )
        return Answer(question, text, "fail" if reads else "pass", link="shortcut")
    regions = [region for part in run.scorecards if part.audit for region in part.audit.regions]
    read = [each.region for each in regions if any(one.verdict == "shortcut" for one in each.maps)]
    if read:
        text = (
            f"At a region that should not matter: {_names(read)}. It changes the answer, and a map shows it."
        )
        return Answer(question, text, "fail", link="audit")
    moving = [each.region for each in regions if each.matters]
    if moving:
        text = f"Perhaps at a region that should not matter: {_names(moving)}. It changes the answer."
        return Answer(question, text, "warn", link="audit")
    if regions:
        text = f"We found no effect of {_names([each.region for each in regions])} on the answer."
        return Answer(question, text, link="audit")
    if not run.explanations:
        return Answer(question, "Not asked yet.", "not evaluable", f"seglens explain {_path(run)}")
    shares = [
        (found.mean, map_name(row.method, row.layer, at=" @ "))
        for part in run.explanations
        for row in part.table.summary
        if row.target == "predicted" and (found := row.statistic("mass_inside")).mean is not None
    ]
    if not shares:
        return Answer(question, "See the heat maps in the gallery.", link="gallery")
    low, high = min(shares), max(shares)
    text = f"{low[0]:.0%} to {high[0]:.0%} of the heat lies on what it marked."
    if low != high:
        text += f" Least with {low[1]}, most with {high[1]}."
    return Answer(question, text, link="attention")


def _believable(run: RunContents) -> Answer:
    question = "Can you believe the heat maps?"
    rows = [row for part in run.scorecards for row in part.table.rows if row.verdict != "reference"]
    if not rows:
        return Answer(question, "Not tested yet.", "not evaluable", f"seglens judge {_path(run)}")
    judged = faithfulness_of(rows)
    repeating = {_name(row) for row in rows if row.label == RESTATES}
    also = f" {count(len(repeating), 'map')} only repeat{'s' * (len(repeating) == 1)} the prediction." * bool(
        repeating
    )
    if not judged:
        return Answer(question, f"Faithfulness was not measured.{also}", "not evaluable", link="scorecard")
    by_verdict = {
        verdict: [row for row in judged if row.verdict == verdict] for verdict in ("pass", "warn", "fail")
    }
    passed = [_name(row) for row in by_verdict["pass"]]
    whole = count(len(judged), "map")
    if passed:
        text = f"{len(passed)} of {whole} can be believed, as what it marks matters: {_names(passed)}."
        return Answer(question, text + also, "pass", link="scorecard")
    if by_verdict["warn"]:
        unsure = len(by_verdict["warn"])
        text = f"We cannot tell for {unsure} of {whole}: it may be no better than a reference map."
        return Answer(question, text + also, "warn", link="scorecard")
    if by_verdict["fail"]:
        text = (
            f"No. All of {whole} mark what matters less well than a map made without looking into the model."
        )
        return Answer(question, text + also, "fail", link="scorecard")
    text = f"We cannot say: {judged[0].reason or 'the score cannot be measured here'}."
    return Answer(question, text + also, "not evaluable", link="scorecard")


def _next(run: RunContents) -> Answer:
    question = "What should you do next?"
    advised = [text for part in run.scorecards if (text := recommendation(part))]
    if advised:
        return Answer(question, " ".join(advised), link="scorecard")
    lacking = missing(run)
    if lacking:
        return Answer(
            question, f"Add this to the report: {_small(lacking[0].what)}.", command=lacking[0].command
        )
    return Answer(
        question, "Look at the worst pictures first. Do the errors have something in common?", link="gallery"
    )


def recommendation(part: Judged) -> str:
    """Return what a scorecard recommends to do next; empty where it says nothing."""
    found = part.table.recommendation
    return " ".join(each for each in (found.headline, found.instead) if each)


def _name(row: CardRow) -> str:
    return map_name(row.method, row.layer, at=" @ ")


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
    return ", ".join(names[:MOST]) + more


def _path(run: RunContents) -> str:
    return shlex.quote(str(run.folder))


def _small(text: str) -> str:
    return text[:1].lower() + text[1:]

"""Which map to show for which question, which never, and what to say with it: from a scorecard alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from seglens.results.names import NULL, RESTATES, TARGET_SCALE, count
from seglens.results.scorecard import Advice, CardRow, Recommendation

QUESTIONS = {
    TARGET_SCALE: "What in and around the object does the answer rest on?",
    "faithfulness": "What in the whole picture does the answer rest on?",
    "context_faithfulness": "What beside the object does the answer rest on?",
    "causal_agreement": "Where would the answer change if a place were covered?",
    "causal_agreement_context": "Where beside the object would the answer change if a place were covered?",
}
"""What a map may be shown for, by the score that it has to pass."""

IN_WORDS = {
    "random": "noise",
    "centre": "a spot in the middle of the picture",
    "edges": "the edges of the picture",
    "distance": "the depth inside the predicted outline",
    "probability": "the model's own probability",
}
"""The maps that are made without looking into the model, in a reader's words; all others are coarse "
"outlines."""

SMALL = 0.1
"""Share of the picture below which removing tenths of it can't tell maps of a target apart."""

ALWAYS = (
    "A map is right on average over these pictures, not on each of them. Never read a single one as proof.",
    "A map says what the model used. It doesn't say that the model is right.",
)
"""Said with every map."""

INSTEAD = (
    "Show the predicted outline and its probability instead. They tell where the model sees the object, and "
    "not why. To learn why in one picture, cover a place and see how the answer changes ({how})."
)
COVERED_BY = {2: "seglens app, or the method superpixel-occlusion", 3: "the method superpixel-occlusion"}
"""What covers a place of a picture, or of a volume, by the number of axes."""


@dataclass(frozen=True)
class Standing:
    """The rows of one map that can recommend it, and what forbids it; empty where nothing does."""

    name: str
    rows: Sequence[CardRow]
    forbidden: str

    def at(self, verdict: str) -> list[CardRow]:
        """Return the rows with this verdict, the largest difference first."""
        found = [row for row in self.rows if row.verdict == verdict]
        return sorted(found, key=lambda row: -(row.difference or 0.0))


def recommend(rows: Sequence[CardRow], left_out: Sequence[str] = (), dims: int = 2) -> Recommendation:
    """Recommend maps by the rows of a scorecard; ``left_out`` are the scores that were not made.

    ``dims`` is 3 where it is about volumes.

    A map is to be shown for the questions whose score it passes, unless something forbids it: it repeats the
    prediction, or stays the same with random weights. It is never to be shown where it is forbidden, or fails
    a question and passes none. In between it may be shown with the words that nothing is shown of it.
    """
    own = [row for row in rows if not row.method.startswith(NULL)]
    standings = [_standing(name, own) for name in dict.fromkeys(row.name for row in own)]
    advice = [each for standing in standings for each in _advice(standing)]
    shown = [each for each in advice if each.use == "show"]
    order = {"show": 0, "unproven": 1, "never": 2, "unknown": 3}
    questions = [
        question
        for score, question in QUESTIONS.items()
        if score.removesuffix("_context") in left_out or score in left_out
    ]
    if shown:
        names = ", ".join(dict.fromkeys(each.map for each in shown))
        headline, instead = f"Show {names}.", ""
    elif {"never", "unproven"} & {each.use for each in advice}:
        headline = (
            "No heat map was shown to be better than a map made without the model. Don't show one as the "
            "reason."
        )
        if any(each.use == "unknown" for each in advice):
            headline = (
                "No map can be recommended, and some could not be judged. Don't show one as the reason."
            )
        instead = INSTEAD.format(how=COVERED_BY[dims])
    else:
        headline = "Nothing can be said about these maps: no question could be judged."
        instead = INSTEAD.format(how=COVERED_BY[dims])
    return Recommendation(
        headline=headline,
        maps=tuple(sorted(advice, key=lambda each: order[each.use])),
        always=ALWAYS if shown else (),
        instead=instead,
        not_judged=tuple(questions),
    )


def _standing(name: str, own: Sequence[CardRow]) -> Standing:
    rows = [row for row in own if row.name == name]
    small = any(_small(row) for row in rows if row.score == TARGET_SCALE)
    forbidden = ""
    if any(row.label == RESTATES for row in rows):
        forbidden = (
            "It only repeats the predicted outline. It shows where the model sees the object, not why."
        )
    elif any((row.score, row.verdict) == ("model_dependence", "fail") for row in rows):
        forbidden = (
            "It stays nearly the same with random weights. It shows the picture, not what was learned."
        )
    asked = [row for row in rows if row.score in QUESTIONS and not (small and row.score == "faithfulness")]
    return Standing(name, asked, forbidden)


def _small(row: CardRow) -> bool:
    """Whether targets are too small for steps of the picture, and the row was judged at their scale."""
    share = row.details["target_share"].mean if "target_share" in row.details else None
    return row.verdict != "not evaluable" and share is not None and share < SMALL


def _advice(of: Standing) -> list[Advice]:
    passed, undecided, failed = of.at("pass"), of.at("warn"), of.at("fail")
    if of.forbidden:
        return [Advice(map=of.name, use="never", say=of.forbidden)]
    if passed:
        but = "".join(f" Don't show it for: {QUESTIONS[row.score]}" for row in failed)
        return [
            Advice(
                map=of.name,
                use="show",
                question=QUESTIONS[row.score],
                score=row.score,
                say=f"{_passed(row)}{but}",
            )
            for row in passed
        ]
    if failed:
        worst = failed[-1]
        return [Advice(map=of.name, use="never", score=worst.score, say=_failed(worst))]
    if undecided:
        return [Advice(map=of.name, use="unproven", score=undecided[0].score, say=_undecided(undecided[0]))]
    reasons = "; ".join(dict.fromkeys(row.reason for row in of.rows if row.reason))
    return [Advice(map=of.name, use="unknown", say=f"{reasons[:1].upper()}{reasons[1:]}.")]


def _passed(row: CardRow) -> str:
    return f"What it marks matters more to the model than what {_without_the_model(row)}."


def _failed(row: CardRow) -> str:
    return f"What it marks matters less to the model than what {_without_the_model(row)}."


def _undecided(row: CardRow) -> str:
    return (
        "If you show it, say this: it is not shown that what it marks matters more to the model than what "
        f"{_without_the_model(row)}."
    )


def _without_the_model(row: CardRow) -> str:
    """The reference row in words, and on how many pictures it was compared."""
    reference = IN_WORDS.get(row.reference, "a coarse copy of the predicted outline")
    return f"a map made without the model marks: {reference}{_pictures(row)}"


def _pictures(row: CardRow) -> str:
    """On how many pictures, and whether that is a claim."""
    few = ", too few for a claim" if "an indication" in row.reason else ""
    return f" ({count(row.num_evaluable or 0, 'picture')}{few})"


USES: Mapping[str, str] = {
    "show": "Show",
    "unproven": "Unproven",
    "never": "Never show",
    "unknown": "Not judged",
}
"""What stands before each map."""


def lines_of(found: Recommendation) -> list[str]:
    """Return a recommendation as lines of text, the headline first."""
    lines = [found.headline]
    for each in found.maps:
        question = f" for: {each.question}" if each.question else ""
        lines.append(f"{USES[each.use]} {each.map}{question if question else '.'} {each.say}")
    lines += found.always
    lines += [found.instead] if found.instead else []
    lines += [f"Not judged: {question}" for question in found.not_judged]
    return lines

"""Which map to show, on scorecards that were written by hand."""

import pytest

from seglens.results.names import RESTATES
from seglens.results.recommendation import ALWAYS, INSTEAD, QUESTIONS, lines_of, recommend
from seglens.results.scorecard import CardRow, Recommendation
from seglens.results.spread import Spread

SMALL = {"target_share": Spread(mean=0.05, low=0.04, high=0.06, num=90)}
LARGE = {"target_share": Spread(mean=0.4, low=0.3, high=0.5, num=90)}


def row(method: str, score: str, verdict: str, difference: float = 0.0, **more) -> CardRow:
    return CardRow(
        method=method,
        score=score,
        verdict=verdict,
        difference=difference,
        reference=more.pop("reference", "mirror-4"),
        num_evaluable=more.pop("num", 97),
        reason=more.pop("reason", "better than the best reference row"),
        **more,
    )


def uses(found: Recommendation) -> dict[str, str]:
    return {each.map: each.use for each in found.maps}


def test_maps_that_pass_are_shown_for_what_they_passed_the_best_first() -> None:
    rows = [
        row("null:mirror-4", "target_faithfulness", "reference"),
        row("worse", "target_faithfulness", "fail", -0.3),
        row("good", "target_faithfulness", "pass", 0.1),
        row("good", "causal_agreement", "pass", 0.2, reference="edges"),
        row("good", "context_faithfulness", "fail", -0.2),
        row("unsure", "target_faithfulness", "warn", 0.01),
    ]
    found = recommend(rows, ("stability",))
    assert found.headline == "Show good."
    assert uses(found) == {"good": "show", "unsure": "unproven", "worse": "never"}
    shown = [each for each in found.maps if each.use == "show"]
    assert [each.question for each in shown] == [
        QUESTIONS["causal_agreement"],
        QUESTIONS["target_faithfulness"],
    ]
    assert "than what a map made without the model marks: the edges of the picture (" in shown[0].say
    assert (
        "than what a map made without the model marks: a coarse copy of the predicted outline ("
        in shown[1].say
    )
    assert f"Don't show it for: {QUESTIONS['context_faithfulness']}" in shown[0].say
    assert (found.always, found.instead, found.not_judged) == (ALWAYS, "", ())
    lines = lines_of(found)
    assert lines[0] == found.headline
    assert lines[1].startswith("Show good for: Where would the answer change")
    assert lines[3].startswith(
        "Unproven unsure. If you show it, say this: it is not shown that what it marks matters"
    )
    assert lines[4].startswith("Never show worse. What it marks matters less")


def test_where_no_map_passes_something_else_is_named() -> None:
    rows = [row("one", "faithfulness", "warn", num=31), row("two", "faithfulness", "fail", -0.2)]
    found = recommend(rows, ("target_faithfulness", "causal_agreement"))
    assert found.headline == (
        "No heat map was shown to be better than a map made without the model. Don't show one as the reason."
    )
    assert found.instead == INSTEAD.format(how="seglens app, or the method superpixel-occlusion")
    of_volumes = recommend(rows, (), 3).instead
    assert of_volumes == INSTEAD.format(how="the method superpixel-occlusion")  # the app has no brush there
    assert found.always == ()
    assert found.not_judged == (
        QUESTIONS["target_faithfulness"],
        QUESTIONS["causal_agreement"],
        QUESTIONS["causal_agreement_context"],
    )


@pytest.mark.parametrize(
    ("against", "why"),
    [
        (row("mask", "attention", "warn", label=RESTATES), "only repeats the predicted outline"),
        (row("mask", "model_dependence", "fail"), "stays nearly the same with random weights"),
    ],
)
def test_a_pass_doesn_t_outweigh_what_forbids_a_map(against: CardRow, why: str) -> None:
    found = recommend([row("mask", "target_faithfulness", "pass", 0.02), against])
    assert uses(found) == {"mask": "never"}
    assert why in found.maps[0].say
    assert found.headline.startswith("No heat map was shown to be better")


def test_steps_of_the_picture_say_nothing_of_small_targets_that_were_judged_at_their_scale() -> None:
    for details, use in ((SMALL, "show"), (LARGE, "show")):
        rows = [
            row("map", "target_faithfulness", "pass", 0.17, details=details),
            row("map", "faithfulness", "fail", -0.5),
        ]
        (advice,) = recommend(rows).maps
        assert advice.use == use
        assert ("Don't show it for" in advice.say) == (details is LARGE)
    failing = [
        row("map", "target_faithfulness", "fail", -0.2, details=SMALL),
        row("map", "faithfulness", "pass", 0.1),
    ]
    assert uses(recommend(failing)) == {"map": "never"}


def test_an_indication_is_told_as_one_and_what_was_not_judged_is_not_called_bad() -> None:
    reason = "better than the best reference row; an indication, a claim needs 100 images"
    found = recommend([row("few", "faithfulness", "pass", 0.3, num=16, reason=reason)])
    assert "(16 pictures, too few for a claim)" in found.maps[0].say
    reason = "3 evaluable images, at least 8 are needed"
    unjudged = row("none", "faithfulness", "not evaluable", reason=reason)
    found = recommend([unjudged])
    assert uses(found) == {"none": "unknown"}
    some = recommend([unjudged, row("other", "faithfulness", "fail", -0.2)])
    assert some.headline.startswith("No map can be recommended, and some could not be judged")
    assert found.headline == "Nothing can be said about these maps: no question could be judged."
    assert "3 evaluable images" in lines_of(found)[1]

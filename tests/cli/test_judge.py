"""``seglens judge``: chosen scores, and an audit by groups."""

import json

from seglens.cli.judge import _ended_early
from seglens.results.scorecard import Card, CardRow


def test_scores_are_chosen_and_an_audit_is_written(seglens, small_run):
    ended = seglens(
        *("judge", small_run, "--num-images", 2, "--layers", "decoder_last"),
        *("--scores", "attention,faithfulness", "--audit", "border,corners", "--groups", "folder"),
    )
    assert (ended.code, ended.err) == (0, "")
    assert "Audit: regions that should not matter" in ended.out
    assert "Judging 2 pictures by attention, faithfulness: " in ended.out.splitlines()[0]
    assert "2 of 2" in ended.out
    folder = small_run / "judge/test"
    card = json.loads((folder / "scorecard.json").read_text())
    assert {row["score"] for row in card["rows"]} == {"faithfulness", "attention"}
    assert "context_faithfulness" in card["left_out"]
    audit = json.loads((folder / "audit.json").read_text())
    assert [row["region"] for row in audit["regions"]] == ["border", "corners"]
    assert {row["group"] for row in audit["groups"]} == {"images"}
    assert {row["maps"][0]["verdict"] for row in audit["regions"]} == {"not evaluable"}  # two pictures
    assert len((folder / "audit.csv").read_text().splitlines()) == 1 + 2 * 2


def test_what_is_wrong_is_said_before_anything_is_read(seglens, small_run):
    ended = seglens("judge", small_run, "--groups", "folder")
    assert (ended.code, ended.out) == (2, "")
    assert "Name its regions with --audit" in ended.err
    ended = seglens("judge", small_run, "--scores", "faith")
    assert (ended.code, ended.out) == (2, "")
    assert "Unknown score 'faith'. Did you mean 'faithfulness'?" in ended.err


def test_on_a_cpu_the_quick_scores_are_made_and_the_others_named(seglens, small_run):
    ended = seglens("judge", small_run, "--layers", "decoder_last", "--cells", "superpixels")
    assert (ended.code, ended.err) == (0, "")
    card = json.loads((small_run / "judge/test/scorecard.json").read_text())
    left = ["faithfulness", "context_faithfulness", "causal_agreement", "model_dependence", "stability"]
    assert card["left_out"] == left
    (told,) = [line for line in ended.out.splitlines() if line.startswith("Left out: ")]
    assert all(f"{name} (" in told for name in left)
    assert told.endswith("To measure them, too, add --scores all --force to this command.")
    record = json.loads((small_run / "judge/test/run.json").read_text())
    assert record["settings"]["num_images"] == 32
    assert record["settings"]["judging"]["cells"] == "superpixels"
    assert record["settings"]["judging"]["race"]
    # By its size this run can't give a verdict, and said so before it began.
    assert ended.out.splitlines()[1].startswith("No map can get a verdict: a comparison needs 8 pictures")
    again = seglens("judge", small_run, "--recommend")
    assert (again.code, again.err) == (0, "")
    headline = "Nothing can be said about these maps: no question could be judged."
    assert again.out.splitlines()[0] == headline == card["recommendation"]["headline"]
    assert headline in ended.out


def test_maps_that_were_decided_early_are_named_with_the_passes():
    """Of a hand-made card: 16 of 24 pictures for one map, all for another; the first 8 for a costly score."""

    def row(method: str, num: int, score: str = "faithfulness", verdict: str = "fail") -> CardRow:
        return CardRow(method=method, layer="up.1", score=score, verdict=verdict, num_total=num)

    late = (row("late", 24), row("costly", 8, "stability"), row("null:edges", 16, verdict="reference"))
    assert _ended_early(Card(num_images=24, rows=late), 500, 500) == []
    told = _ended_early(Card(num_images=24, rows=(row("early", 16), *late)), 300, 500)
    assert told == [
        "Decided before the last picture: early@up.1. About 300 of at most 500 forward passes were made."
    ]

"""``explain --target missed:all``: a question for each object."""

import json


def test_explain_asks_about_each(seglens, small_run, small_set):
    ended = seglens(
        *("explain", small_run, "--target", "missed:all", "--layers", "decoder_last", "--split", "train")
    )
    table = small_run / "explain/train/explanations.json"
    if ended.code == 2:
        assert "No object is missed in 4 pictures of 'train'" in ended.err
    else:
        assert (ended.code, ended.err) == (0, "")
        targets = json.loads(table.read_text())["targets"]
        assert targets == [f"missed:{number}" for number in range(1, len(targets) + 1)]
    ended = seglens(
        *("explain", small_run, "--target", "invented:all", "--layers", "decoder_last"),
        *("--split", "train", "--force"),
    )
    assert (ended.code, ended.err) == (0, "")
    found = json.loads(table.read_text())
    num = len(found["targets"])
    assert found["targets"] == [f"invented:{number}" for number in range(1, num + 1)]
    # The picture with the most has them all; how many lack the last is said.
    assert found["no_target"]["invented:1"] <= found["no_target"][f"invented:{num}"] < 4
    for words in (("missed:some",), ("missed",), ("component:all",)):
        ended = seglens("explain", small_run, "--target", *words)
        assert ended.code == 2
        assert "can't be read" in ended.err

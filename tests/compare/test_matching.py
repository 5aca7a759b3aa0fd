"""Which pictures of two evaluations are the same."""

from seglens.compare.matching import common_pictures
from seglens.results.scores import PictureScores


def row(name, index=0, **more):
    known = {"index": index, "image_hash": "i", "truth_hash": "t"} | more
    return PictureScores(name=name, **known)


def test_pictures_are_matched_by_name_in_one_order():
    first = [row("a", 0, dice=0.1), row("b", 1, dice=0.2)]
    found = common_pictures({"x": first, "y": [row("b", 0, dice=0.4), row("a", 1, dice=0.3)]})
    assert found.names == ("a", "b")
    assert [r["dice"] for r in found.rows["y"]] == [0.3, 0.4]
    assert (found.left_out, found.hashed) == ((), True)


def test_two_pictures_of_one_name_are_two():
    rows = [row("a", 0, dice=0.1), row("a", 1, dice=0.2)]
    found = common_pictures({"x": rows, "y": rows})
    assert [r["dice"] for r in found.rows["x"]] == [0.1, 0.2]


def test_what_differs_is_left_out_and_said():
    others = {
        "gone": None,
        "other": row("other", image_hash="j"),
        "truth": row("truth", truth_hash="u"),
        "size": row("size", truth_pixels=7),
        "failed": row("failed", status="failed"),
        "same": row("same"),
    }
    first = [row(name, truth_pixels=8) for name in others]
    found = common_pictures({"x": first, "y": [r for r in others.values() if r]})
    assert found.names == ("same",)
    assert {entry["name"]: entry["why"] for entry in found.left_out} == {
        "gone": "not among the pictures of y",
        "other": "another picture of the same name",
        "truth": "the same picture with another truth",
        "size": "the same picture with another truth",
        "failed": "could not be scored in y",
    }


def test_rows_without_hashes_go_by_name_and_truth():
    old = PictureScores(name="a", index=0, truth_pixels=3)
    found = common_pictures({"x": [old], "y": [row("a", truth_pixels=3)]})
    assert (found.names, found.hashed) == (("a",), False)

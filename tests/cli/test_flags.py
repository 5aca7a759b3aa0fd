"""Flags that would do nothing, or that contradict one another, are refused by name before any work."""

import pytest

REFUSED = {
    "explain RUN a.png --data set": "--data can't be given here: the pictures are named themselves",
    "explain RUN a.png --split train": "--split can't be given here",
    "explain RUN --dry-run --out new": "--out can't be given here: --dry-run writes nothing",
    "explain RUN --resume --force": "--force can't be given here: --resume goes on",
    "explain RUN --layout pairs": "--layout says how --data are read, and there are none",
    "evaluate RUN --classes a b": "--classes says how --data are read, and there are none",
    "evaluate RUN --class-map a=b": "--class-map says how --data are read, and there are none",
    "evaluate RUN --data set --class-map cat": "--class-map cat can't be read",
    "evaluate RUN --data set --class-map a=b a=c": "--class-map gives 'a' two meanings, 'b' and 'c'",
    "evaluate RUN --data set --class-map cat=foreground": "Unknown class of the data 'cat'",
    "explain RUN --methods integrated-gradients --set integrated-gradients.tolerance=nan": "a finite number",
    "judge RUN --audit mask: --out new": "names no file. Write mask:FILE",
    "judge RUN --audit mask:set --out new": "holds no mask NAME.png",
    "verify RUN a.png --num-images 2": "--num-images can't be given here",
    "compare RUN RUN --device cpu": "--device can't be given here: nothing is computed without --data",
}


@pytest.mark.parametrize("line", REFUSED)
def test_flags_that_would_do_nothing(line, seglens, small_run, small_set, tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    words = [
        {"RUN": small_run, "set": small_set, "a.png": tmp_path / "a.png"}.get(w, w) for w in line.split()
    ]
    words = [
        word.replace("mask:set", f"mask:{small_set}") if isinstance(word, str) else word for word in words
    ]
    ended = seglens(*words)
    assert ended.code == 2
    assert REFUSED[line] in ended.err

"""At 80 columns a table cuts nothing off."""

import io
import re

import pytest

from seglens.cli import terminal

NAMES = (
    "integrated-gradients",
    "grad-cam@decoder_last",
    "superpixel-occlusion@segmentation_model.encoder.layer4",
)


class Terminal(io.StringIO):
    """Standard output that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", [80, 60])
def test_names_of_maps_are_whole(monkeypatch, columns: int):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    monkeypatch.setattr("sys.stdout", out)
    heads = ("map", "score", "value", "95 % interval", "pictures", "best reference", "verdict")
    rows = [
        (name, "faithfulness", "0.123", "0.100 to 0.150", "16 of 16", "coarse mask (16 px)", "pass")
        for name in NAMES
    ]
    terminal.print_table(heads, rows)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()).splitlines()
    assert max(map(len, lines)) <= columns
    assert "…" not in out.getvalue()
    second = next(line.index("score") for line in lines if "score" in line)
    first = "".join(line[:second].strip() for line in lines)
    for name in NAMES:
        assert name in first
    words = {word for line in lines for word in line.split()}
    whole = {
        "faithfulness",
        "0.123",
        "0.100",
        "to",
        "0.150",
        "16",
        "of",
        "coarse",
        "mask",
        "(16",
        "px)",
        "pass",
    }
    assert whole <= words or columns < 80, "a word is broken"


def test_scores_and_layers_break_between_words(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    monkeypatch.setattr("sys.stdout", out)
    heads = ("method", "layer", "attention ratio", "of the coarse mask", "likeness", "", "repeats from")
    row = ("grad-cam", "decoder_last", "over 1,000", "-", "-0.966", "repeats the prediction", "decoder_last")
    terminal.print_table(heads, [row, ("grad-cam", "encoder_last", "0.749", "10.169", "-0.072", "", "")])
    words = set(re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()).split())
    assert {"-0.966", "-0.072", "repeats", "prediction", "1,000", "attention", "ratio", "likeness"} <= words
    assert {"decoder_last", "encoder_last"} <= words or {"decoder_", "encoder_", "last"} <= words

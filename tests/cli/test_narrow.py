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
    cells = [re.split("[│┃]", line) for line in lines if line.startswith(("│", "┃"))]
    first = "".join(cell[1].strip() for cell in cells)
    for name in NAMES:
        assert name in first

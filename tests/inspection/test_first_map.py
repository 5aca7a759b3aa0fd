"""The map that the page begins with, by scorecards that are written here."""

import pytest

import seglens
from seglens.inspection.first_map import first_map
from seglens.results import record as records
from seglens.results.scorecard import Card, CardRow, LayerByLayer, LayerStep

METHODS, LAYERS = ("grad-cam", "layer-cam"), ("encoder_last", "bottleneck", "decoder_last")
COPY = "restates the prediction"


def row(method: str, layer: str, verdict: str, label: str = "") -> CardRow:
    return CardRow(method=method, layer=layer, score="faithfulness", verdict=verdict, label=label)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ((), ("grad-cam", "encoder_last")),
        ((row("grad-cam", "decoder_last", "pass", COPY),), ("grad-cam", "encoder_last")),
        (
            (row("grad-cam", "encoder_last", "pass", COPY), row("layer-cam", "encoder_last", "fail")),
            ("layer-cam", "encoder_last"),
        ),
        (
            (row("layer-cam", "encoder_last", "fail"), row("grad-cam", "bottleneck", "pass")),
            ("grad-cam", "bottleneck"),
        ),
        ((row("grad-cam", "encoder_last", "pass", COPY),), ("grad-cam", "bottleneck")),
        ((row("null:centre", "encoder_last", "pass"),), ("grad-cam", "encoder_last")),
    ],
)
def test_a_copy_of_the_mask_is_not_shown_first(small_run, rows, expected):
    run = seglens.load(small_run, device="cpu")
    folder = small_run / "judge" / "test"
    folder.mkdir(parents=True)
    records.write_json(folder / "scorecard.json", Card(rows=rows))
    assert first_map(run, METHODS, LAYERS) == expected


def test_what_is_said_layer_by_layer_counts_and_a_damaged_card_does_not(small_run):
    run = seglens.load(small_run, device="cpu")
    for name in ("test", "valid"):
        (small_run / "judge" / name).mkdir(parents=True)
    steps = (LayerStep(layer="encoder_last", restates=True),)
    card = Card(rows=(), restating=(LayerByLayer(method="grad-cam", layers=steps),))
    records.write_json(small_run / "judge/test/scorecard.json", card)
    (small_run / "judge/valid/scorecard.json").write_text("{")
    assert first_map(run, METHODS, LAYERS) == ("grad-cam", "bottleneck")
    assert first_map(seglens.load(small_run, device="cpu"), METHODS, ("head",)) == ("grad-cam", "head")

"""How results look in a notebook: what they say, that nothing of it runs, and that names stay text."""

import math
from html.parser import HTMLParser
from typing import Any

import pytest
import torch
from PIL import Image

import seglens
from seglens.drawing.notebook import card, figure, paragraph, table
from seglens.evaluate import Evaluation
from seglens.evaluate.intervals import Interval
from seglens.explain.explanation import Explanation, Explanations
from seglens.explain.target import Target
from seglens.judge.scorecard import Judgement, Scorecard
from seglens.results.names import MARKS, formatted
from seglens.results.scores import PictureScores, PooledScores
from seglens.results.spread import Spread

EVIL = "<script>alert('&\")</script>"


class Page(HTMLParser):
    """A piece of HTML, parsed: every tag closed; its text, cells and pictures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def parsed(shown: Any) -> Page:
    """What a notebook is given of ``shown``: no script, nothing that runs, nothing loaded from elsewhere."""
    text = shown._repr_html_()
    page = Page(text)
    for tag, attributes in page.tags:
        assert tag in {
            "div",
            "style",
            "b",
            "p",
            "table",
            "thead",
            "tbody",
            "tr",
            "th",
            "td",
            "figure",
            "img",
        } | {"figcaption"}
        assert not {name for name in attributes if name.startswith("on")}
        if tag == "img":
            assert str(attributes["src"]).startswith("data:image/png;base64,")
            assert attributes["alt"]
    assert "http" not in text
    assert "url(" not in text
    return page


def test_text_is_escaped_wherever_it_stands():
    drawn = Image.new("RGB", (4, 2))
    rows = [(EVIL, EVIL)]
    page = Page(card(EVIL, paragraph(EVIL), table((EVIL, "b"), rows, hints=[EVIL]), figure(drawn, EVIL)))
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count(EVIL) == 6
    assert [attributes["title"] for tag, attributes in page.tags if "title" in attributes] == [EVIL]
    assert next(attributes["alt"] for tag, attributes in page.tags if tag == "img") == EVIL


def test_a_long_table_says_what_is_left():
    page = Page(table(("a",), [(str(i),) for i in range(7)], most=3))
    assert [row[0] for row in page.rows] == ["a", "0", "1", "2"]
    assert "and 4 more rows" in page.text


def test_what_is_no_number_is_a_dash():
    assert [formatted(value) for value in (None, math.nan, 0.12345)] == ["—", "—", "0.123"]


@pytest.fixture
def explanation() -> Explanation:
    pixels = torch.zeros(9, 6, 8, dtype=torch.bool)
    pixels[1:, 2:4, 2:5] = True
    maps = torch.linspace(0, 1, 48).view(1, 6, 8).repeat(9, 1, 1)
    maps[1] -= 0.5
    return Explanation(
        method=EVIL,
        layer="decoder_last",
        target=Target("predicted", 1, pixels),
        map=maps,
        diagnostics={"completeness_error": torch.full((9,), 0.0625)},
    )


def test_an_explanation(explanation):
    page = parsed(explanation)
    assert f"Explanation by {EVIL}@decoder_last" in page.text
    assert "Target predicted of class 1; 1 no_target, 8 ok." in page.text
    assert sum(tag == "img" for tag, _ in page.tags) == 6
    assert "0: no target" in page.text
    assert "1: -0.5 to 0.5" in page.text, "signed, symmetric"
    assert "2: 0 to 1" in page.text
    assert "and 3 more pictures" in page.text
    assert page.rows[1] == ["completeness error", "—", *["0.0625"] * 5]


def test_several_explanations(explanation):
    page = parsed(Explanations([explanation]))
    assert "1 explanation" in page.text
    assert sum(tag == "img" for tag, _ in page.tags) == 4


def test_a_scorecard():
    row = Judgement(
        target="predicted",
        method=EVIL,
        layer="seg_head",
        score="faithfulness",
        interval=Interval(0.5, 0.25, 0.75, 8),
        verdict="pass",
        outcome="better",
        reason="above every null",
        num_total=9,
        nulls={"null:random": 0.1},
        reference="null:random",
        difference=Interval(0.4, 0.2, 0.6, 8),
        label="restates the prediction",
    )
    page = parsed(Scorecard((row,), 9))
    assert page.rows[1] == [
        f"{EVIL}@seg_head",
        "faithfulness",
        "0.5 [0.25, 0.75]",
        "0.4 [0.2, 0.6] to null:random",
        "8 of 9",
        f"{MARKS['pass']} pass, repeats the prediction",
    ]
    assert [attributes["title"] for tag, attributes in page.tags if "title" in attributes] == [row.text]


def test_a_run(one_run):
    run = seglens.load(one_run, device="cpu")
    cells = {row[0]: row[1] for row in parsed(run).rows if row[0]}
    assert cells["model"] == "unet"
    assert cells["classes"] == "background, foreground"
    assert cells["weights"].replace(",", "") == str(sum(p.numel() for p in run.segmenter.parameters()))
    assert cells["folder"] == str(one_run)


def test_an_evaluation():
    found = Evaluation(
        split="test",
        classes=("background", "cell"),
        pooled=PooledScores(dice=0.875),
        per_image={"dice": Spread(mean=0.75, low=0.5, high=1.0, num=2)},
        images=(
            PictureScores(name=EVIL, dice=0.5),
            PictureScores(name="b", status="failed", error="unreadable"),
        ),
        settings={},
    )
    page = parsed(found)
    assert ["dice", "0.875", "0.75", "0.5 to 1"] in page.rows
    assert [EVIL, "0.5"] in page.rows
    assert "Evaluation of test, 2 pictures" in page.text
    assert "1 picture could not be scored" in page.text

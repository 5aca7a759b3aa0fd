"""Answers are those of `seglens.explain_folder`; drawings and words say what they are about."""

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from tests.arrays import arrays_of

import seglens
from seglens.data.sample import Sample
from seglens.errors import SettingError
from seglens.explain.integrated import IntegratedGradients
from seglens.explain.target import Target
from seglens.inspection import drawing, explaining, sentences
from seglens.inspection.opened import open_sample
from seglens.inspection.removing import remove_region
from seglens.results.names import formatted


@pytest.fixture(scope="module")
def run(one_run):
    return seglens.load(one_run, device="cpu")


@pytest.fixture(scope="module")
def labelled(run):
    return open_sample(run, seglens.open_split(run, "test"), 0)


def near(written):
    """Numbers of a file, where null stands for what is none."""
    plain = {name: math.nan if value is None else value for name, value in written.items()}
    return pytest.approx(plain, rel=1e-3, abs=1e-5, nan_ok=True)


def finite(values):
    """Numbers as a file has them: what is infinite is none."""
    return {name: value if math.isfinite(value) else math.nan for name, value in values.items()}


@pytest.mark.parametrize(
    ("why", "method"),
    [
        (explaining.ExplainRequest("component:1", "hires-cam", "encoder_last"), "hires-cam"),
        (
            explaining.ExplainRequest("false-negative", "integrated-gradients", baseline="mean"),
            IntegratedGradients(baseline="mean"),
        ),
        (explaining.ExplainRequest("box:3,4,20,19", "layer-cam", where="context"), "layer-cam"),
    ],
)
def test_an_answer_is_what_explain_writes(run, labelled, tmp_path, why, method):
    answer = explaining.explain_picture(run, labelled, why)
    seglens.explain_folder(
        run,
        labelled.split.select([0]),
        out=tmp_path / "out",
        methods=(method,),
        layers=(why.layer,),
        target=why.target,
        where=why.where,
    )
    written = json.loads((tmp_path / "out" / "explanations.json").read_text())["samples"][0]
    (expected,) = written["maps"]
    assert answer.row["target"] == expected["target"] == why.target
    for kind in ("statistics", "diagnostics"):
        assert finite(answer.row[kind]) == near(expected[kind])
    assert {"mirror", "random"} <= set(answer.row["nulls"]) or why.where == "context"
    for null, values in answer.row["nulls"].items():
        assert finite(values) == near(expected["nulls"][null])
    raw = arrays_of(tmp_path / "out" / written["files"]["raw"])
    assert set(raw) == set(answer.arrays)
    for name in raw:
        np.testing.assert_allclose(answer.arrays[name], raw[name], atol=1e-6)


def test_an_empty_target_has_no_map_but_a_reason(run, labelled):
    answer = explaining.explain_picture(run, labelled, explaining.ExplainRequest("component:999"))
    assert answer.status == "no_target"
    assert "There is no pixel to explain" in sentences.about_answer(answer)
    assert drawing.scale_of(answer) is None
    assert drawing.answered(run, labelled, answer).size == drawing.drawn_to(labelled)


def test_a_target_that_needs_a_truth_that_is_not_known(linear_run, opened):
    with pytest.raises(SettingError, match="This target needs the truth"):
        explaining.explain_picture(
            linear_run, opened, explaining.ExplainRequest("false-positive", "saliency")
        )


def test_what_can_be_asked_for(run):
    assert "expected-gradients" in explaining.method_names(True)
    assert "expected-gradients" not in explaining.method_names(False), "it starts from other pictures"
    assert explaining.needs_layer("score-cam")
    assert not explaining.needs_layer("integrated-gradients")
    names = explaining.layer_names(run)
    assert {"encoder_last", "decoder_last"} < set(names)
    assert len(names) == len(set(names))


def test_a_point_of_a_drawing_is_the_pixel_that_is_drawn_there(opened):
    assert drawing.drawn_to(opened) == (512, 512)
    for x, y in ((0, 0), (31, 31), (7, 30)):
        for inside in (0.01, 15.99):
            assert drawing.native_place(opened, 16 * x + inside, 16 * y + inside) == (x, y)
    assert drawing.native_place(opened, 512, -3) == (31, 0), "the rim belongs to the last pixel"


def test_a_stroke_touches_what_is_near_enough(opened):
    radius, points = 40.0, [(100.0, 130.0), (300.0, 130.0), (300.0, 400.0)]
    found = drawing.brushed(opened, [{"radius": radius, "points": points}])
    y, x = np.mgrid[:512, :512].astype(float)
    away = np.full((512, 512), np.inf)
    for (x0, y0), (x1, y1) in pairwise(points):
        along = np.clip(
            ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / ((x1 - x0) ** 2 + (y1 - y0) ** 2), 0, 1
        )
        away = np.minimum(away, np.hypot(x - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0)))
    least = away.reshape(32, 16, 32, 16).min((1, 3))
    assert found[torch.from_numpy(least < radius - 2)].all()
    assert not found[torch.from_numpy(least > radius + 2)].any()
    assert not drawing.brushed(opened, []).any()


def test_files_to_take_away(run, labelled, tmp_path):
    answer = explaining.explain_picture(run, labelled, explaining.ExplainRequest("predicted"))
    drawn = drawing.answered(run, labelled, answer)
    sheet, raw = drawing.save(run, labelled, answer, drawn, None, tmp_path)
    with Image.open(sheet) as opened:
        assert opened.format == "PNG"
        assert opened.width > 3 * 320
    stored = arrays_of(raw)
    assert set(stored) == {"map:grad-cam@decoder_last", "grid:grad-cam@decoder_last", "region:predicted"}
    np.testing.assert_array_equal(
        stored["map:grad-cam@decoder_last"], answer.arrays["map:grad-cam@decoder_last"]
    )


class Tags(HTMLParser):
    """The tags of a piece of HTML, all of which must be closed, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_words_hold_the_numbers_and_no_markup_of_others(run, labelled):
    evil = '<img src=x onerror=alert(1)>&"'
    sample = Sample(evil, labelled.sample.image, labelled.sample.mask, labelled.sample.valid)
    opened = replace(labelled, part=replace(labelled.part, originals=(sample,)))
    about = Tags(sentences.about_picture(run, opened))
    assert evil in about.text
    assert "img" not in about.seen
    assert f"{opened.scores['dice']:.3f}" in about.text
    answer = explaining.explain_picture(run, opened, explaining.ExplainRequest("predicted"))
    told = Tags(sentences.about_answer(answer))
    assert formatted(answer.row["statistics"]["mass_inside"]) in told.text
    assert formatted(answer.row["nulls"]["edges"]["mass_inside"]) in told.text
    assert not {"script", "style"} & {*about.seen, *told.seen}


def test_a_removal_is_told_beside_its_controls(linear_run, opened):
    region = torch.zeros(32, 32, dtype=torch.bool)
    region[21:24, 20:23] = True
    target = Target("component:2", 1, region[None])
    told = Tags(
        sentences.about_removal(remove_region(linear_run, opened, region, target, imputer="zero"))
    ).text
    assert "changed by -0.742" in told, "sigmoid(2.5) - sigmoid(-1.5), the other way round"
    assert "at 4 other places it changed by +0.000 to +0.000" in told
    assert "what was here speaks for the target" in told
    beside = torch.zeros(32, 32, dtype=torch.bool)
    beside[0:3, 28:31] = True
    nothing = Tags(
        sentences.about_removal(remove_region(linear_run, opened, beside, target, imputer="zero"))
    ).text
    assert "Hardly any change" in nothing
    nowhere = Target("component:3", 1, torch.zeros(1, 32, 32, dtype=torch.bool))
    text = Tags(sentences.about_removal(remove_region(linear_run, opened, region, nowhere))).text
    assert re.search("The target is empty", text)

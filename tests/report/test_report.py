import importlib.resources
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from tests.pages import album_of, data_of
from tests.report.conftest import NASTY, make_run, make_shortcut, write

import seglens
from seglens.errors import DataError, OutputExistsError, SettingError
from seglens.report import html
from seglens.report.contents import read_runs
from seglens.report.tables import curves_by_score

SECTIONS = (
    *("summary", "training", "scores", "calibration", "gallery", "mistakes", "attention", "scorecard"),
    *("audit", "provenance", "glossary"),
)
VOID = {"meta", "img", "input", "br", "link", "hr"}


class Page(HTMLParser):
    """The elements of a page, and whether every one of them is closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page_of(file: Path) -> Page:
    return Page(file.read_text(encoding="utf-8"))


def text_of(file: Path) -> str:
    """Return what a reader sees: no tags, no script, no style, single spaces."""
    page = re.sub(r"<(style|script)\b.*?</\1>", " ", file.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", page))


def test_import_needs_no_torch():
    program = "import sys, seglens.report; print('torch' in sys.modules, 'matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_report_has_every_section_and_is_well_formed(run: Path):
    file = seglens.report([run], shortcut=make_shortcut(run.parent))
    page = page_of(file)
    assert file == run / "report.html"
    assert page.wrong == []
    assert page.open == []
    sections = {attributes.get("id") for attributes in page.all("section")}
    assert sections == {*SECTIONS, "shortcut"}
    anchors = {attributes["href"] for attributes in page.all("a")}
    assert anchors <= {"#content", *(f"#{section}" for section in sections)}


def test_numbers_on_the_page_are_those_of_the_tables(run: Path):
    text = text_of(seglens.report([run]))
    assert "trained on 70 pictures of photos at 128 pixels for 8 epochs, with augmentation" in text
    assert "Dice is 0.770 on average per picture (95 % interval 0.750 to 0.840)" in text
    assert "Counted over all pixels together it is 0.800." in text
    assert "2 pictures are below 0.5. The worst is cell_00 (0.20)." in text
    assert "1 of 5 kinds of heat map" in text
    assert "1 pass, 1 warn, 1 fail, 1 not evaluable" in text
    assert "coarse mask 12 · maps of other pictures 1" in text
    assert "broken.png is truncated." in text
    assert "6 min" in text


def test_nothing_is_asked_from_a_network(run: Path):
    page = page_of(seglens.report([run], shortcut=make_shortcut(run.parent)))
    addresses = [a.get("src") or a.get("href") or "" for _, a in page.elements]
    assert all(address.startswith(("data:image/webp;base64,", "#")) for address in addresses if address)
    assert not {"link", "iframe", "object", "embed", "base", "form"} & {
        tag for tag, a in page.elements if a.get("aria-label") not in ("Gallery controls", "What to compare")
    }
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    # The policy forbids both, so either would be lost without a word.
    assert not [tag for tag, a in page.elements if "style" in a or any(name.startswith("on") for name in a)]


def test_names_cannot_inject(tmp_path: Path):
    names = (NASTY, "</script><script>alert(2)</script>", '" onmouseover="alert(3)', "{{ 7 * 7 }}")
    file = seglens.report([make_run(tmp_path / "run", names=names)])
    page = page_of(file)
    assert page.wrong == []
    assert [a.get("id") for a in page.all("script")] == ["album", "numbers", None]
    assert all("onerror" not in a and "onmouseover" not in a for _, a in page.elements)
    assert {card["name"] for card in album_of(file)["cards"]} == {*names, "broken.png"}
    images = data_of(file, "numbers")["runs"][0]["evaluate"][0]["images"]
    assert {row["name"] for row in images} == {*names, "broken.png"}


def test_gallery_goes_from_worst_to_best(run: Path):
    dice = [card["dice"] for card in album_of(seglens.report([run]))["cards"]]
    assert dice[:-1] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert dice[-1] is None  # The picture that could not be read.


def test_every_picture_has_words(run: Path):
    page = page_of(seglens.report([run], shortcut=make_shortcut(run.parent)))
    pictures = [a for a in page.all("img") if a.get("src")]
    assert len(pictures) == 4 + 3 * 6
    assert all(a.get("alt") for a in pictures)
    assert all(a.get("aria-label") or a.get("aria-hidden") for a in page.all("svg"))


def test_two_runs_stand_side_by_side(tmp_path: Path):
    runs = [make_run(tmp_path / "a" / "run", dice=0.7), make_run(tmp_path / "b" / "run", dice=0.9)]
    file = seglens.report(runs, out=tmp_path / "both.html")
    text = text_of(file)
    assert "a/run and b/run" in text
    assert "b/run, validation" in text
    best = re.findall(r'<td class="num best">([\d.]+)', file.read_text("utf-8"))
    assert best == ["0.900", "0.870"]  # Dice, pooled and per picture; the other scores are equal.


def test_shortcut_names_the_cheat_and_how_it_was_found(run: Path):
    text = text_of(seglens.report([run], shortcut=make_shortcut(run.parent)))
    assert "The cheating model reads the tag." in text
    assert "The scores do not tell the models apart: Dice honest 0.910 and cheat 0.920." in text
    assert "The cheat model loses 78% of its score: 0.91 becomes 0.20." in text
    assert "best with integrated-gradients: AUROC 0.97" in text
    assert "The check is not valid" not in text
    text = text_of(seglens.report([run], shortcut=make_shortcut(run.parent, valid=False), force=True))
    assert "The check is not valid" in text


def test_a_run_that_was_only_trained_has_a_report(tmp_path: Path):
    run = make_run(tmp_path / "run")
    for verb in ("evaluate", "explain", "judge"):
        shutil.rmtree(run / verb)
    page = page_of(seglens.report([run]))
    assert {a.get("id") for a in page.all("section")} == {"summary", "training", "provenance", "glossary"}
    text = text_of(run / "report.html")
    for verb in ("evaluate", "explain", "judge"):
        assert f"seglens {verb} {run}" in text
    assert f"seglens judge {run} --num-images 100 --audit border corners marks" in text


@pytest.mark.parametrize(
    ("verb", "told"), [("evaluate", "Scores with"), ("judge", "whether you can believe the heat maps")]
)
def test_a_run_says_which_verb_adds_what_is_missing(run: Path, verb: str, told: str):
    assert "does not have yet" not in text_of(seglens.report([run]))
    shutil.rmtree(run / verb)
    text = text_of(seglens.report([run], force=True))
    assert told in text
    assert f"seglens {verb} {run}" in text


def test_one_result_by_itself_has_a_report(run: Path):
    page = page_of(seglens.report([run / "explain" / "test"], out=run.parent / "maps.html"))
    assert {"gallery", "attention"} <= {a.get("id") for a in page.all("section")}


def test_a_reference_map_without_heat_outside_has_an_infinite_ratio(run: Path):
    file = run / "explain" / "test" / "explanations.json"
    table = json.loads(file.read_text())
    row = table["summary"][0]
    row["nulls"] = {"mirror": {"ratio": None, "enrichment_log2": 4.0}}
    row["null_intervals"] = {"mirror": {"enrichment_log2": {"mean": 4.0, "num": 3}}}
    write(file, table)
    assert "coarse mask infinite" in text_of(seglens.report([run]))


def test_files_outside_of_the_run_are_not_read(run: Path):
    Image.new("RGB", (8, 8)).save(run.parent / "secret.png")
    file = run / "evaluate" / "test" / "scores.json"
    table = json.loads(file.read_text())
    for row in table["images"]:
        row["files"] = {"orig": "../../../secret.png", "gt": str(run.parent / "secret.png")}
    write(file, table)
    shutil.rmtree(run / "explain")
    assert [a for a in page_of(seglens.report([run])).all("img") if a.get("src")] == []


def test_a_picture_that_cannot_be_read_leaves_a_place(run: Path):
    (run / "evaluate" / "test" / "samples" / "0" / "gt.png").write_bytes(b"no picture")
    (run / "evaluate" / "test" / "samples" / "1" / "orig.png").write_bytes(b"no picture")
    (run / "explain" / "test" / "samples" / "2" / "maps.npz").write_bytes(b"no maps")
    file = seglens.report([run])
    assert "Truth: picture could not be read" in text_of(file)
    assert '<div class="no-picture">picture could not be read</div>' in file.read_text("utf-8")
    cards = {card["name"]: card for card in album_of(file)["cards"]}
    assert "levels" in cards["cell_00"]["maps"][0]
    assert "drawn" in cards["cell_02"]["maps"][0]  # What explain drew stands for values that can't be read.


def test_errors(run: Path, tmp_path: Path):
    with pytest.raises(SettingError, match="No run was given"):
        seglens.report([])
    with pytest.raises(SettingError, match="given twice"):
        seglens.report([run, run])
    with pytest.raises(DataError, match="not a run folder: there is no such folder"):
        seglens.report([tmp_path / "nowhere"])
    with pytest.raises(DataError, match=r"no file .*shortcut.json"):
        seglens.report([run], shortcut=tmp_path)
    (run / "judge" / "test" / "scorecard.json").write_text("{")
    with pytest.raises(DataError, match=r"scorecard.json is not JSON .*--force"):
        seglens.report([run])
    (run / "judge" / "test" / "scorecard.json").write_text("[]")
    with pytest.raises(DataError, match="holds a list, not an object"):
        seglens.report([run])
    assert not list(run.glob("*report*"))


def test_an_existing_report_is_kept(run: Path):
    seglens.report([run])
    with pytest.raises(OutputExistsError, match="replace it with --force"):
        seglens.report([run])
    assert seglens.report([run], force=True).read_text("utf-8").startswith("<!DOCTYPE html>")
    for mine in (run / "mine.html", run / "run.json", run):
        if mine.name == "mine.html":
            mine.write_text("mine")
        with pytest.raises((OutputExistsError, SettingError), match=r"never replaced|this command reads"):
            seglens.report([run], out=mine, force=True)
    assert (run / "mine.html").read_text() == "mine"


def test_same_input_same_page(run: Path):
    first = seglens.report([run]).read_bytes()
    assert seglens.report([run], force=True).read_bytes() == first


def test_templates_travel_with_the_package():
    templates = importlib.resources.files("seglens.report") / "templates"
    assert {"page.html.jinja", "report.html.jinja", "style.css", "page.js"} <= {
        entry.name for entry in templates.iterdir()
    }


def test_findings_are_told_in_plain_words(run: Path):
    text = text_of(seglens.report([run]))
    assert "It missed 19.0% of the true pixels. 10.0% of the pixels that it marked are wrong." in text
    # 0.7 * (0.1 - 0.08) + 0.3 * (0.95 - 0.9) = 0.029: too sure.
    assert "off by 3.1 percentage points on average: the model is too sure of itself" in text
    assert (
        "Shortcut: border. This region changes the answer, and grad-cam@encoder_last lights up there" in text
    )
    assert "What it marks matters less to the model than what the coarse mask (16 px) marks" in text


def test_the_worst_errors_come_first_and_say_why(run: Path):
    page = seglens.report([run]).read_text("utf-8")
    missed, invented = page.split("<h3>Why missed</h3>")[1].split("<h3>Why invented</h3>")
    names = [
        re.findall(r"<h4>(cell_\d+)</h4>", part) for part in (missed, invented.partition("</section>")[0])
    ]
    assert names == [
        ["cell_00", "cell_01", "cell_02", "cell_03"],  # 100 - i pixels missed
        ["cell_03", "cell_02", "cell_01", "cell_00"],  # 10 i pixels invented
    ]
    assert "The model missed 100 pixels, 33% of the object." in missed
    assert (
        "We asked grad-cam @ encoder_last about these pixels. 80% of the evidence in the picture speaks"
        in invented
    )


def test_any_page_can_wear_the_clothes_of_the_report(tmp_path: Path):
    file = tmp_path / "page.html"
    file.write_text(html.page("page.html.jinja", {"unused": NASTY}), "utf-8")
    page = page_of(file)
    assert (page.wrong, page.open) == ([], [])
    assert [a.get("id") for a in page.all("script")] == [None]


def test_curves_stand_beside_the_reference_of_the_verdict(tmp_path):
    run = make_run(tmp_path / "run")
    charts = curves_by_score(read_runs([run]))
    assert {score: len(found) for score, found in charts.items()} == {
        "faithfulness": 1,
        "model_dependence": 1,
    }
    (chart,) = charts["faithfulness"]
    # Half of the cells gone: .3 and .75 with the map's own order, .4 and .7 with the reference's.
    for told in (
        "grad-cam@layer-0, most important first, share of the picture removed 0.5: 0.3",
        "grad-cam@layer-0, least important first, share of the picture removed 0.5: 0.75",
        "coarse mask (16 px) (reference map), most important first, share of the picture removed 0.5: 0.4",
        "coarse mask (16 px) (reference map), least important first, share of the picture removed 0.5: 0.7",
    ):
        assert f"<title>{told}</title>" in chart
    assert "Curves of faithfulness" in text_of(seglens.report([run]))

"""The first screen answers four questions; everything else folds, and opens where a link leads."""

import json
from pathlib import Path

import pytest
from tests.report.conftest import make_run, make_shortcut

import seglens
from seglens.report.answers import answers
from seglens.report.contents import read_runs
from seglens.report.model_card import model_card
from seglens.report.wording import both_true
from seglens.results.scorecard import TagTest
from seglens.results.scores import LEAKAGE
from seglens.results.tables import read_table


def answers_of(folder: Path) -> dict[str, tuple[str, str]]:
    (run,) = read_runs([folder])
    return {each.question: (each.verdict, each.text) for each in answers(run)}


def test_four_answers(tmp_path: Path):
    found = answers_of(make_run(tmp_path / "run"))
    assert list(found) == [
        "How good is it?",
        "What does it look at?",
        "Can you believe the heat maps?",
        "What should you do next?",
    ]
    verdict, good = found["How good is it?"]
    assert verdict == ""
    # Of the table: mean .77, interval .75 to .84; recall .81 and precision .9.
    assert good.startswith("Dice 0.770 (95 % interval 0.750 to 0.840) on 4 pictures (test).")
    assert "It misses 19.0% of the object. 10.0% of what it marks is wrong." in good
    assert found["What does it look at?"][0] == "fail"
    assert "border" in found["What does it look at?"][1]
    verdict, text = found["Can you believe the heat maps?"]
    assert (verdict, text.split(":")[0]) == ("pass", "1 of 4 maps can be believed, as what it marks matters")


def test_scores_of_pictures_that_it_was_trained_on_are_said_so(tmp_path: Path):
    folder = make_run(tmp_path / "run")
    file = folder / "evaluate" / "test" / "scores.json"
    told = {
        "scores": ["dice"],
        "read": False,
        "text": "the model was trained on 2 of these 4.",
        "source": LEAKAGE,
    }
    file.write_text(json.dumps(json.loads(file.read_text()) | {"advice": [told]}))
    assert answers_of(folder)["How good is it?"][1].endswith(
        "is wrong. The model was trained on 2 of these 4."
    )
    assert "- test: The model was trained on 2 of these 4." in model_card(read_runs([folder])[0], "a/b")


def test_what_was_not_measured_is_said_with_the_command(tmp_path: Path):
    import shutil

    folder = make_run(tmp_path / "run")
    for part in ("evaluate", "explain", "judge"):
        shutil.rmtree(folder / part)
    (run,) = read_runs([folder])
    for each, command in zip(answers(run), ("evaluate", "explain", "judge", "evaluate"), strict=True):
        assert each.command.startswith(f"seglens {command} ")
        assert each.verdict in ("not evaluable", "")


def test_what_a_scorecard_recommends_is_said_first(tmp_path: Path):
    folder = make_run(tmp_path / "run")
    table = folder / "judge" / "test" / "scorecard.json"
    advised = {"recommendation": {"headline": "Show hires-cam."}}
    table.write_text(json.dumps(json.loads(table.read_text()) | advised))
    assert answers_of(folder)["What should you do next?"] == ("", "Show hires-cam.")


def test_a_map_may_find_the_tag_and_fail(tmp_path: Path):
    folder, file = make_run(tmp_path / "run"), make_shortcut(tmp_path)
    assert both_true(read_table(file, TagTest), read_runs([folder])) == ""
    data = json.loads(file.read_text())
    data["methods"].append({"method": "grad-cam", "layer": "layer-2", "auroc": 0.9, "exposes": True})
    file.write_text(json.dumps(data))
    told = both_true(read_table(file, TagTest), read_runs([folder]))
    assert told.startswith("Why does grad-cam at layer-2 find the tag and still fail in the scorecard? Both")


@pytest.mark.parametrize("width", [390, 1440])
def test_everything_else_folds(chromium_like, tmp_path: Path, width: int):
    folder = make_run(tmp_path / "run")
    watched = chromium_like(width=width)
    page = watched.open(seglens.report([folder]))
    assert page.evaluate("document.documentElement.scrollHeight") < (2600 if width == 390 else 1800)
    assert page.locator(".answers dt:visible").count() == 4
    if width == 1440:
        last = page.locator(".answers").last.bounding_box()
        assert last is not None
        assert last["y"] + last["height"] < 900, "the answers are on the first screen"
    assert not page.locator("#scores table").first.is_visible()
    page.locator("nav a[href='#scores']").click()
    page.wait_for_selector("#scores table", state="visible")
    page.goto(page.url.partition("#")[0] + "#glossary")
    page.wait_for_selector("#glossary dl", state="visible")
    page.emulate_media(media="print")
    assert watched.console == []


def test_explained_pictures_come_first(chromium, tmp_path: Path):
    folder = make_run(tmp_path / "run")
    table = folder / "explain" / "test" / "explanations.json"
    data = json.loads(table.read_text())
    data["samples"] = data["samples"][2:3]
    table.write_text(json.dumps(data))
    page = chromium.open(seglens.report([folder]))
    page.wait_for_selector("#cards[data-drawn]", state="attached")
    page.locator("nav a[href='#gallery']").click()
    assert "1 picture has heat maps and is shown first" in page.locator("#gallery .lead").inner_text()
    assert page.locator(".gallery .card:visible h3").all_inner_texts() == ["cell_02"]
    assert page.locator(".gallery .card:visible .explained").count() == 1
    page.locator("#controls [name=only]").select_option("")
    assert page.locator(".gallery .card:visible h3").all_inner_texts()[0] == "cell_02"
    assert page.locator(".gallery .card:visible").count() == 5


def test_the_viewer_has_light_a_ruler_and_keys(chromium, tmp_path: Path):
    page = chromium.open(seglens.report([make_run(tmp_path / "run")]))
    page.wait_for_selector("#cards[data-drawn]", state="attached")
    page.locator("nav a[href='#gallery']").click()
    page.locator(".gallery .card:visible .stage").first.click()
    page.wait_for_selector("#viewer[data-drawn]")
    viewer = page.locator("#viewer")
    assert viewer.locator(".second-name").inner_text() == "Show"
    viewer.locator("[name=brightness]").fill("300")
    shown = "getComputedStyle(document.querySelector('#viewer .pane-a img')).filter"
    assert "brightness(3)" in page.evaluate(shown)
    viewer.get_by_role("button", name="Reset brightness").click()
    assert "brightness(1)" in page.evaluate(shown)
    # The picture has 72 columns: 10 of them, a round number below a fifth, take 10/72 of its width.
    ruler, window = viewer.locator(".pane-a .ruler"), viewer.locator(".pane-a .window").bounding_box()
    assert ruler.inner_text() == "10 px"
    box = ruler.bounding_box()
    assert window is not None
    assert box is not None
    assert box["width"] == pytest.approx(window["width"] * 10 / 72, abs=5)
    page.keyboard.press("?")
    assert viewer.get_by_text("zoom in and out").is_visible()
    viewer.locator("[name=mode]").select_option("side")
    page.wait_for_function("document.querySelector('#viewer .second-name').textContent === 'B'")
    assert chromium.console == []


def test_text_on_the_page_has_contrast_and_controls_have_names(chromium_like, tmp_path: Path):
    """WCAG 2.1, 1.4.3: 4.5 to 1, or 3 to 1 where letters are large, on the ground that they stand on."""
    for dark in (False, True):
        page = chromium_like(dark=dark).open(seglens.report([make_run(tmp_path / f"run{dark}")]))
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        poor = page.evaluate(CONTRAST)
        assert poor == []
        order = page.evaluate(
            "[...document.querySelectorAll('[tabindex]')].filter((one) => one.tabIndex > 0).length"
        )
        assert order == 0, "the order of the keyboard is that of the page"


CONTRAST = """() => {
  const numbers = (colour) => (colour.match(/[\\d.]+/g) || []).map(Number);
  const light = (rgb) => rgb.slice(0, 3).map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (one) => {
    for (let each = one; each; each = each.parentElement) {
      const found = numbers(getComputedStyle(each).backgroundColor);
      if (found.length === 3 || found[3] === 1) return found;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const one of document.querySelectorAll("main *, header *, nav *, footer *")) {
    if (![...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim())) continue;
    if (!one.offsetParent || one.disabled || one.closest("svg, .stage")) continue;
    const style = getComputedStyle(one), size = parseFloat(style.fontSize);
    const [a, b] = [light(numbers(style.color)), light(ground(one))].sort((x, y) => y - x);
    const least = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
    if ((a + 0.05) / (b + 0.05) < least) poor.push(one.outerHTML.slice(0, 80));
  }
  return poor;
}"""
"""Elements with text of their own whose contrast is too low."""

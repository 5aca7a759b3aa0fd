"""The report as a person uses it, in a real Chromium: opened from disk, with keyboard and pointer."""

import base64
import json
import re
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image
from tests.browser import Watched
from tests.report.conftest import FINE, GRID, make_run, make_shortcut

import seglens

NASTY = '"><img src=x onerror=alert(1)>.png'
SCRIPT = "</script><script>alert(2)</script>"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A report of a run with a nasty file name in it; look at it, don't change it."""
    run = make_run(tmp_path_factory.mktemp("browser") / "first", names=(NASTY, SCRIPT))
    return seglens.report([run], shortcut=make_shortcut(run.parent))


def ready(watched: Watched, file: Path, selector: str = "#cards[data-drawn]"):
    page = watched.open(file)
    page.wait_for_selector(selector, state="attached")
    page.evaluate("document.querySelectorAll('details.fold').forEach((fold) => { fold.open = true; })")
    return page


def again(page, act: Callable[[], object], where: str = "#cards") -> None:
    """Do something that draws, and wait until it is drawn."""
    before = page.get_attribute(where, "data-drawn")
    act()
    page.wait_for_function(
        "([where, before]) => document.querySelector(where).dataset.drawn !== before", arg=[where, before]
    )


def names(page) -> list[str]:
    return page.locator(".gallery .card:visible h3").all_inner_texts()


def test_it_opens_from_disk_in_silence(chromium: Watched, made: Path):
    page = ready(chromium, made)
    assert page.url.startswith("file://")
    assert page.locator(".case .stage canvas.heat").count() == 8
    page.locator(".gallery .stage").first.click()
    page.wait_for_selector("#viewer[data-drawn]")
    assert (chromium.console, chromium.requests, chromium.dialogs) == ([], [], [])


def test_a_file_name_is_a_name_and_nothing_else(chromium: Watched, made: Path):
    page = ready(chromium, made)
    assert {NASTY, SCRIPT} <= set(names(page))
    page.locator(".gallery .stage").first.click()
    page.locator("#viewer").get_by_role("button", name="Next").click()
    for card in page.locator(".gallery .numbers summary").all():
        card.dispatch_event("click")
    assert page.locator('img[src="x"]').count() == 0
    # Even a script that had slipped in would not run.
    page.evaluate(
        "document.body.insertAdjacentHTML('beforeend', '<img src=\"data:,\" onerror=\"alert(3)\">')"
    )
    page.wait_for_timeout(50)
    assert chromium.dialogs == []


def test_sorting_and_filters(chromium: Watched, made: Path):
    page = ready(chromium, made)
    form = page.locator("#controls")
    assert names(page) == [NASTY, SCRIPT, "cell_00", "cell_01", "broken.png"]
    for value, first in (("-dice", "cell_01"), ("-fp", "cell_01"), ("-fn", NASTY), ("-flags", "cell_00")):
        form.locator("[name=sort]").select_option(value)
        assert names(page)[0] == first, value
    form.locator("[name=only]").select_option("flagged")
    assert names(page) == ["cell_00"]
    assert "Without the region border" in page.locator(".gallery .card:visible .flag").inner_text()
    form.locator("[name=only]").select_option("failed")
    assert names(page) == ["broken.png"]
    form.locator("[name=only]").select_option("")
    form.locator("[name=below]").fill("0.5")
    assert sorted(names(page)) == sorted([NASTY, SCRIPT])
    form.locator("[name=below]").fill("")
    form.locator("[name=find]").fill("CELL")
    assert sorted(names(page)) == ["cell_00", "cell_01"]
    assert form.locator("[name=count]").inner_text() == "2 of 5 shown"


def test_most_attribution_outside_goes_by_the_chosen_map(chromium: Watched, tmp_path: Path):
    run = make_run(tmp_path / "run")
    table = run / "explain" / "test" / "explanations.json"
    data = json.loads(table.read_text())
    for i, sample in enumerate(data["samples"]):
        for row in sample["maps"]:
            share = (0.1, 0.4, 0.2, 0.3)[i if row["method"] == "activation" else 3 - i]
            row["statistics"]["mass_inside"] = share
    table.write_text(json.dumps(data))
    page = ready(chromium, seglens.report([run]))
    page.locator("#controls [name=sort]").select_option("-outside")
    page.locator("#controls [name=method]").select_option("activation")
    assert names(page)[:4] == ["cell_00", "cell_02", "cell_03", "cell_01"]
    page.locator("#controls [name=method]").select_option("grad-cam")
    assert names(page)[:4] == ["cell_03", "cell_01", "cell_00", "cell_02"]


def test_opacity_switch_and_views(chromium: Watched, made: Path):
    page = ready(chromium, made)
    form, stage = page.locator("#controls"), page.locator(".gallery .card:visible .stage").nth(2)

    def heat() -> str:
        return page.evaluate("stage => stage.querySelector('.heat').toDataURL()", stage.element_handle())

    form.locator("[name=opacity]").fill("20")
    assert float(stage.locator(".heat").evaluate("heat => getComputedStyle(heat).opacity")) == 0.2
    assert form.locator("[name=percent]").inner_text() == "20%"
    layered = heat()
    again(page, lambda: form.locator("[name=method]").select_option("integrated-gradients"))
    assert heat() != layered
    assert form.locator("[name=layer]").is_disabled()
    again(page, lambda: form.locator("[name=method]").select_option("grad-cam"))
    assert heat() == layered
    again(page, lambda: form.locator("[name=target]").select_option("false-negative"))
    again(page, lambda: form.locator("[name=evidence]").check())
    assert heat() != layered
    again(page, lambda: form.locator("[name=view]").select_option("side"))
    assert page.locator(".gallery .card:visible .stages").nth(1).locator("figure:visible").count() == 2
    again(page, lambda: form.locator("[name=view]").select_option("blink"))
    assert stage.locator(".heat").evaluate("heat => getComputedStyle(heat).animationName") == "blink"
    again(page, lambda: form.locator("[name=view]").select_option("off"))
    assert page.locator(".gallery figure:not(.second) .has-heat").count() == 0


def test_colours_and_values_are_those_of_the_map(chromium: Watched, made: Path):
    page = ready(chromium, made)
    script = """async (number) => {
      const card = Maps.album.cards.find((card) => card.name === "cell_00"), map = card.maps[number];
      const found = await Maps.grid(map), canvas = document.createElement("canvas");
      canvas.width = 72; canvas.height = 56;
      await Maps.paint(canvas, map, { limits: Maps.limitsOf(map), solid: true });
      const values = [];
      for (let y = 0; y < 56; y++) for (let x = 0; x < 72; x++) {
        values.push(Maps.valueAt(map, found, (x + 0.5) / 72, (y + 0.5) / 56, false, false));
      }
      return { values, colours: [...canvas.getContext("2d").getImageData(0, 0, 72, 56).data] };
    }"""
    # The layer: 9 cells over 72 pixels, without what is below 0, bilinear, corners not aligned.
    at = np.clip((np.arange(72) + 0.5) / 8 - 0.5, 0, 8)
    layer = np.tile(np.interp(at, np.arange(9), np.maximum(GRID[0], 0)), (56, 1))
    for number, expected, limits, name in ((0, layer, (0, 4), "inferno"), (4, FINE, (-0.5, 0.5), "RdBu_r")):
        got = page.evaluate(script, number)
        clipped = np.clip(expected, *limits) if number else expected
        step = (limits[1] - limits[0]) / 254
        assert np.abs(np.reshape(got["values"], (56, 72)) - clipped).max() <= 0.51 * step
        share = (np.reshape(got["values"], (56, 72)) - limits[0]) / (limits[1] - limits[0])
        wanted = matplotlib.colormaps[name](share, bytes=True)[..., :3].astype(int)
        assert np.abs(np.reshape(got["colours"], (56, 72, 4))[..., :3] - wanted).max() <= 3


def test_the_viewer_by_keyboard(chromium: Watched, made: Path):
    page = ready(chromium, made)
    page.locator("#controls [name=find]").fill("cell")
    again(page, lambda: page.locator("#controls [name=target]").select_option("false-negative"))
    page.locator(".gallery .card:visible .stage").first.focus()
    page.keyboard.press("Enter")
    viewer = page.locator("#viewer")
    page.wait_for_selector("#viewer[data-drawn]")
    assert viewer.locator("h2").inner_text() == "cell_00"
    viewer.locator("[name=second]").select_option(label="grad-cam @ encoder_last, for and against")
    viewer.locator(".view").first.focus()
    page.keyboard.press("ArrowRight")
    readout = viewer.locator(".readout")
    page.wait_for_function("() => document.querySelector('#viewer .readout').value.includes('sum of logits')")
    # 52 of 100 across 72 pixels is pixel 37; the value there is 9 x 0.52 - 0.5 - 4 cells.
    told = re.fullmatch(r"x 37, y 28: (\S+) sum of logits", readout.inner_text())
    assert told is not None
    assert float(told[1]) == pytest.approx(9 * 0.52 - 4.5, abs=0.02)
    assert readout.get_attribute("aria-live") == "polite"
    page.keyboard.press("+")
    assert viewer.locator("[name=zoomed]").inner_text() == "150%"
    page.keyboard.press("0")
    assert viewer.locator("[name=zoomed]").inner_text() == "100%"
    again(page, lambda: page.keyboard.press("s"), "#viewer")
    assert viewer.locator(".pane:visible").count() == 2
    again(page, lambda: page.keyboard.press("b"), "#viewer")
    page.wait_for_selector("#viewer.flipped")
    viewer.locator("[name=pause]").check()
    page.keyboard.press("n")
    page.wait_for_function("() => document.querySelector('#viewer h2').textContent === 'cell_01'")
    page.keyboard.press("Escape")
    assert not viewer.is_visible()
    assert page.evaluate("document.activeElement.classList.contains('stage')")


def test_zoom_and_value_under_the_pointer(chromium: Watched, made: Path):
    page = ready(chromium, made)
    page.locator("#controls [name=find]").fill("cell_00")
    page.locator(".gallery .card:visible .stage").first.click()
    page.wait_for_selector("#viewer[data-drawn]")
    box = page.locator("#viewer .pane-a .window").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 0.5 * box["height"])
    page.wait_for_function("() => document.querySelector('#viewer .readout').value.includes('sum of logits')")
    told = page.locator("#viewer .readout").inner_text()
    assert float(told.split()[4]) == pytest.approx(9 * 0.75 - 4.5, abs=0.06)
    page.mouse.wheel(0, -100)
    after = page.locator("#viewer .pane-a .window").bounding_box()
    assert after is not None
    assert after["width"] == pytest.approx(1.2 * box["width"], rel=0.01)
    # What is under the pointer stays there.
    assert (box["x"] + 0.75 * box["width"] - after["x"]) / after["width"] == pytest.approx(0.75, abs=0.01)


def test_a_larger_picture_beside_the_report(chromium: Watched, made: Path, tmp_path: Path):
    page = ready(chromium, made)
    page.locator(".gallery .stage").first.click()
    page.locator("#viewer [name=full]").check()
    page.wait_for_function("() => document.querySelector('#viewer .told').textContent.includes('72 by 56')")
    assert all(address.startswith(made.parent.as_uri()) for address in chromium.requests)
    page = ready(chromium, Path(shutil.copy(made, tmp_path / "alone.html")))
    page.locator(".gallery .stage").first.click()
    page.locator("#viewer [name=full]").click()
    page.wait_for_function("() => document.querySelector('#viewer .told').textContent.includes('not beside')")


def test_definitions_theme_and_numbers(chromium: Watched, made: Path):
    page = ready(chromium, made)
    page.locator("#scores .term").first.focus()
    assert page.locator("#tip").inner_text().startswith("Large objects weigh more here.")
    page.keyboard.press("Escape")
    assert not page.locator("#tip").is_visible()
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(colour)
    page.get_by_role("button", name="Dark colours").click()
    assert page.evaluate(colour) != light
    with page.expect_download() as download:
        page.locator("#save").click()
    assert json.loads(Path(download.value.path()).read_text())["runs"][0]["name"] == "first"


@pytest.mark.parametrize(("width", "dark"), [(390, True), (390, False)])
def test_it_fits_the_window_and_follows_the_system(chromium_like, made: Path, width: int, dark: bool):
    watched = chromium_like(width=width, dark=dark)
    page = ready(watched, made)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    red = int(re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))[0])
    assert (red < 64) == dark
    page.locator(".gallery .stage").first.click()
    page.wait_for_selector("#viewer[data-drawn]")
    assert page.locator("#viewer").evaluate("box => box.scrollWidth - box.clientWidth") <= 0
    assert watched.console == []


@pytest.mark.parametrize("width", [390, 1440])
def test_the_first_column_of_a_wide_table_stays(chromium_like, made: Path, width: int):
    """A table that is wider than the page is scrolled to its end: its rows still say whose they are."""
    page = ready(chromium_like(width=width), made)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    wide = page.evaluate(
        """() => [...document.querySelectorAll('.scroll')].filter(one => one.scrollWidth > one.clientWidth)
            .map(one => {
                one.scrollLeft = one.scrollWidth;
                const edge = one.getBoundingClientRect(), rows = [...one.querySelectorAll('tbody tr')];
                const cells = rows.map(row => row.firstElementChild.getBoundingClientRect());
                return [Math.max(...cells.map(cell => Math.abs(cell.left - edge.left))),
                        Math.max(...cells.map(cell => cell.width)) / edge.width,
                        Math.min(...cells.map(cell => cell.width))];
            })"""
    )
    assert wide or width > 390, "on a phone some tables are wider than the page"
    for away, share, narrowest in wide:
        assert away <= 2
        assert narrowest >= 100, "names are not broken letter by letter"
        assert share < 0.5, "most of the window is left for what is scrolled"


def test_a_screen_reader_finds_names_for_everything(chromium: Watched, made: Path):
    page = ready(chromium, made)
    page.locator(".gallery .stage").first.click()
    nameless = page.evaluate("""() => [...document.querySelectorAll("button, input, select, a, img, svg")]
      .filter((each) => !each.closest("[aria-hidden=true]") && !(each.alt === "" && !each.closest("button"))
        && !(each.getAttribute("aria-label") || each.getAttribute("aria-labelledby") || each.alt
          || each.textContent.trim() || each.querySelector("img[alt]:not([alt=''])")
          || [...each.labels || []].some((label) => label.textContent.trim())))
      .map((each) => each.outerHTML.slice(0, 120))""")
    assert nameless == []
    every = page.evaluate("[...document.querySelectorAll('[id]')].map((element) => element.id)")
    assert len(every) == len(set(every))
    levels = page.evaluate(
        "[...document.querySelectorAll('main h1, main h2, main h3, main h4')].map((h) => +h.tagName[1])"
    )
    assert all(after <= before + 1 for before, after in zip([1, *levels], levels, strict=False))


def test_it_prints(chromium: Watched, made: Path):
    page = ready(chromium, made)
    printed = page.pdf(format="A4", print_background=True)
    assert printed.startswith(b"%PDF")
    page.emulate_media(media="print")
    assert not page.locator("#controls").is_visible()
    assert not page.locator("nav").is_visible()
    assert page.locator(".gallery .stage .heat").first.is_visible()


def test_a_hundred_pictures_stay_below_15_mb(chromium: Watched, tmp_path: Path):
    """A hundred pictures of noise with two maps of noise each: nothing compresses worse."""
    run = make_run(tmp_path / "run", num=100)
    random = np.random.default_rng(0)
    table = run / "explain" / "test" / "explanations.json"
    data = json.loads(table.read_text())
    for sample in data["samples"]:
        sample["maps"] = [sample["maps"][2], sample["maps"][4]]
    for i in range(10):
        maps = data["samples"][i]["maps"]
        names_ = ["@".join(filter(None, (m["method"], m["layer"]))) for m in maps]
        noise = {f"map:{name}": random.normal(size=(160, 160)).astype(np.float32) for name in names_}
        np.savez(run / "explain" / "test" / f"samples/{i}/maps.npz", **noise)  # type: ignore[arg-type]
    for i, sample in enumerate(data["samples"]):
        sample["files"]["raw"] = f"samples/{i % 10}/maps.npz"
    table.write_text(json.dumps(data))
    for i in range(100):
        picture = random.integers(0, 255, (300, 400, 3), dtype=np.uint8)
        Image.fromarray(picture).save(run / f"evaluate/test/samples/{i}/orig.png", compress_level=1)
    file = seglens.report([run])
    assert 8_000_000 < file.stat().st_size < 15_000_000
    page = chromium.open(file)
    assert page.locator(".gallery .card").count() == 100
    album = page.evaluate("({ side: Maps.album.mapSide, first: Maps.album.assets[0] })")
    assert album["side"] >= 32
    with Image.open(BytesIO(base64.b64decode(album["first"].partition(",")[2]))) as opened:
        assert max(opened.size) <= 384
    assert "maps at most" in (page.locator("#gallery .lead").text_content() or "")

"""The interactive page, in a real browser: open, click, brush, take away; nothing leaves this machine."""

import builtins
import re
import socket
import sys

import numpy as np
import pytest
import requests
import tifffile
from PIL import Image
from tests.accessibility import violations
from tests.arrays import arrays_of

import seglens
from seglens.errors import SettingError

pytest.importorskip("gradio", reason="gradio is not installed")
# Starlette and Gradio warn of themselves: of what they will change, and of event loops that they close late.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:gradio", "ignore::DeprecationWarning:starlette"
)

GRADIOS_OWN = "warning: Method not implemented."
"""What Gradio 6 says whenever the stream that tells how far an upload is gets closed."""

GRADIOS_ELEMENTS = (".image-container", ".empty")
"""What Gradio 6 builds around a picture, and in its place where there is none: its button has no name
(button-name), for which `gr.Image` has no setting, and its "Empty value" stands where no name may be
(aria-prohibited-attr). Whoever can't click names what is asked about in the field beside it."""

HERE = ("127.0.0.1", "::1", "localhost")


@pytest.fixture(scope="module")
def served(one_run, small_set):
    run = seglens.load(one_run, device="cpu")
    reached: list[str] = []
    connect = socket.socket.connect

    def watched(self, address):
        if isinstance(address, tuple):
            reached.append(str(address[0]))
        return connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", watched)
        # A port of its own: Gradio, which looks from 7860 on, leaves a socket open at each that is taken.
        with socket.create_server((HERE[0], 0)) as free:
            port = free.getsockname()[1]
        page = seglens.app(run, seglens.open_split(run, "test"), port=port)
        yield page
        page.close()
    assert set(reached) <= set(HERE), "the server asked something of another machine"


@pytest.fixture
def page(served, chromium):
    """The page with the first sample open; whatever a test does, the console is silent, no request leaves."""
    chromium.page.set_default_timeout(120_000)  # a busy machine is no fault of the page
    shown = chromium.open(served.address)
    shown.wait_for_selector("#about table")  # the first sample is open at the start
    shown.wait_for_selector("#picture img")
    yield shown
    assert [said for said in chromium.console if said != GRADIOS_OWN] == []
    assert [url for url in chromium.requests if not url.startswith(origin_of(served))] == []


def origin_of(served) -> str:
    """Where the page is, without the token."""
    return served.address.partition("?")[0]


def click_on(page, x, y):
    """Click on native pixel (x, y) of a picture of 40 x 32."""
    box = page.locator("#picture img").bounding_box()
    where = {"x": (x + 0.5) / 40 * box["width"], "y": (y + 0.5) / 32 * box["height"]}
    page.locator("#picture img").click(position=where)


def removed_share(told):
    """How much of the picture was removed, in percent."""
    found = re.search(r"Removed: ([\d.]+)% of the picture", told)
    assert found
    return float(found.group(1))


def click_until(page, column: int, row: int, shown: str) -> None:
    """Click until the map says so: a click may overtake the choice made before it."""
    late = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").TimeoutError
    for _ in range(4):
        click_on(page, column, row)
        try:
            page.wait_for_function(
                "text => document.querySelector('#map').innerText.includes(text)", arg=shown, timeout=8000
            )
        except late:
            continue
        return
    assert shown in page.locator("#map").inner_text()


def test_click_and_see_why(page, tmp_path):
    page.locator("#target input").fill("point")
    page.locator("#target input").press("Enter")
    click_until(page, 11, 7, "Why: point:11,7 by grad-cam@encoder_last")
    page.wait_for_selector("#map img")
    page.wait_for_selector("#told table")
    with page.expect_download() as waiting:
        page.locator("#raw").click()
    waiting.value.save_as(tmp_path / "maps.npz")
    stored = arrays_of(tmp_path / "maps.npz")
    assert stored["region:point:11,7"].shape == (32, 40)
    assert stored["region:point:11,7"][7, 11] == 1
    with page.expect_download() as waiting:
        page.locator("#sheet").click()
    waiting.value.save_as(tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.format == "PNG"


def test_brush_something_out_and_ask_again(page):
    page.set_viewport_size({"width": 1440, "height": 900})
    page.get_by_role("tab", name="Brush it out").click()
    canvas = page.locator("#brush canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.4)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.4, steps=4)
    page.mouse.up()
    page.get_by_role("button", name="Remove what is brushed").click()
    page.wait_for_selector("#changed table")
    told = page.locator("#changed").inner_text()
    share = removed_share(told)
    assert 3 < share < 12, "a stroke of .3 of the width, and as wide as the brush"
    # Brush and answer are on one screen, and so is what was said.
    for place in ("#brush canvas", "#removed img"):
        seen = page.locator(place).bounding_box()
        assert 0 <= seen["y"]
        assert seen["y"] + seen["height"] <= 900
    # With the keyboard: a dab in the middle, which is all that is there after clearing.
    page.get_by_role("button", name="Clear").click()
    canvas.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    page.get_by_role("button", name="Remove what is brushed").click()
    page.wait_for_function(f"!document.querySelector('#changed').innerText.includes('{share}%')")
    dabbed = removed_share(page.locator("#changed").inner_text())
    assert 0 < dabbed < share


def test_what_can_not_be_done_is_said(page, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    page.locator("#upload input[type=file]").set_input_files(bad)
    alert = page.get_by_role("alert")
    alert.wait_for()
    said, picture = alert.bounding_box(), page.locator("#picture").bounding_box()
    assert said["x"] >= picture["x"] - 20, "it stands above the picture, not at the top of the page"
    assert 0 <= picture["y"] - (said["y"] + said["height"]) < 120
    assert "can't be read as a picture" in alert.inner_text()
    page.locator("#target input").fill("component:999")
    page.locator("#target input").press("Enter")
    page.get_by_role("button", name="Explain").click()
    page.get_by_text("There is no pixel to explain").wait_for()
    assert page.get_by_role("alert").count() == 0, "an error goes when it is over"


def test_a_dropped_picture_has_no_truth(page, tmp_path):
    Image.new("RGB", (20, 30), "#808080").save(tmp_path / "<b>grey.png")
    page.locator("#upload input[type=file]").set_input_files(tmp_path / "<b>grey.png")
    page.get_by_text("The truth is not known").wait_for()
    assert "20 x 30 pixels" in page.locator("#about").inner_text()
    page.locator("#target input").click()
    offered = page.get_by_role("option").all_inner_texts()
    assert not any("truth" in text or "false" in text for text in offered)


def test_a_tiff_of_16_bits_is_opened(page, tmp_path):
    values = np.linspace(0, 65535, 30 * 20).reshape(30, 20).astype(np.uint16)
    tifffile.imwrite(tmp_path / "deep.tif", values)
    page.locator("#upload input[type=file]").set_input_files(tmp_path / "deep.tif")
    page.get_by_text("The truth is not known").wait_for()
    assert "20 x 30 pixels" in page.locator("#about").inner_text()


def test_on_a_phone_nothing_is_wider_than_the_screen(page):
    page.set_viewport_size({"width": 390, "height": 844})
    for tab in ("Brush it out", "Click on it"):
        page.get_by_role("tab", name=tab).click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    box = page.locator("#picture img").bounding_box()
    assert box["x"] >= 0
    assert 250 <= box["width"] <= 390
    page.locator("#target input").fill("predicted")
    page.locator("#target input").press("Enter")
    page.wait_for_selector("#map img")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_keeps_people_from_using_the_page(served, chromium_like, dark: bool):
    shown = chromium_like(dark=dark).open(served.address)
    shown.wait_for_selector("#picture img")
    shown.locator("#target input").fill("predicted")
    shown.locator("#target input").press("Enter")
    shown.wait_for_selector("#told table")
    assert violations(shown, besides=GRADIOS_ELEMENTS) == []
    shown.get_by_role("tab", name="Brush it out").click()
    shown.locator("#brush canvas").focus()
    shown.keyboard.press("Space")
    shown.get_by_role("button", name="Remove what is brushed").click()
    shown.wait_for_selector("#changed table")
    assert violations(shown, besides=GRADIOS_ELEMENTS) == []


def test_without_gradio(one_run, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name == "gradio":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SettingError, match=re.escape("Install it with: pip install 'seglens[app]'.")):
        seglens.app(seglens.load(one_run, device="cpu"))


def test_an_old_gradio(one_run, monkeypatch):
    monkeypatch.setattr(sys.modules["gradio"], "__version__", "5.49.1")
    with pytest.raises(SettingError, match=r"needs Gradio 6 or newer, found 5\.49\.1"):
        seglens.app(seglens.load(one_run, device="cpu"))


def test_the_token_opens_the_page_and_does_not_stay_in_the_address(page, served):
    assert page.url == origin_of(served)
    told = page.context.request
    assert told.get(origin_of(served)).status == 200, "the cookie holds the token now"
    assert told.get(served.address, headers={"Origin": "http://evil.example"}).status == 403
    assert told.get(served.address, headers={"Host": "evil.example"}).status == 403


def test_without_the_token_nothing_is_told(served):
    for path in ("", "config", "gradio_api/info", "gradio_api/file=/etc/passwd", "?token=", "?token=x"):
        answer = requests.get(origin_of(served) + path, timeout=60)
        assert (answer.status_code, "token of the address" in answer.text) == (401, True), path
    answer = requests.post(origin_of(served) + "gradio_api/upload", files={"files": b"x"}, timeout=60)
    assert answer.status_code == 401


def test_an_address_that_this_machine_does_not_have(one_run):
    for host in ("nowhere.invalid", "203.0.113.7", "a" * 300):
        with pytest.raises(SettingError, match=rf"can't be served at {host}: .*--host .*127\.0\.0\.1"):
            seglens.app(seglens.load(one_run, device="cpu"), host=host)


def test_a_port_that_is_taken(served, one_run):
    port = int(origin_of(served).rstrip("/").rpartition(":")[2])
    with pytest.raises(SettingError, match=f"The page can't be served at 127.0.0.1, port {port}"):
        seglens.app(seglens.load(one_run, device="cpu"), port=port)

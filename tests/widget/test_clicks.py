"""Clicks on the picture of the widget: what they ask about, and that a real browser tells where they were."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from tests.browser import Watched
from tests.folder.discs import make_run, split_of, write_discs

from seglens.widget import Shown, show

pytest.importorskip("anywidget", reason="anywidget is not installed")

HARNESS = """
import widget from "./clickable.js";
const bytes = Uint8Array.from(atob("{png}"), (letter) => letter.charCodeAt(0));
let value = new DataView(bytes.buffer);
const calls = [];
window.sent = [];
window.model = {{
  get: (name) => (name === "value" ? value : "the prediction"),
  on: (name, call) => calls.push([name, call]),
  off: (name, call) => calls.splice(calls.findIndex((each) => each[1] === call), 1),
  send: (content) => window.sent.push(content),
}};
window.clear = () => {{ value = new DataView(new ArrayBuffer(0)); calls.forEach((each) => each[1]()); }};
window.end = widget.render({{ model: window.model, el: document.body }});
window.listeners = calls;
"""
"""What Jupyter does with a widget, as far as this one needs it (anywidget's front-end interface)."""


@pytest.fixture
def shown(tmp_path: Path) -> Shown:
    split = split_of(write_discs(tmp_path))
    images, masks = split[1].image[None], split[1].mask
    assert masks is not None
    return show(make_run(), images, masks=masks[None], method="saliency", layer="body")


def scale(shown: Shown) -> tuple[float, float]:
    """How many pixels of the drawn picture one pixel of its own takes: across and down."""
    assert shown.opened is not None
    drawn = Image.open(io.BytesIO(shown.prediction.value))
    rows, columns = shown.opened.frame.native
    return drawn.width / columns, drawn.height / rows


def send(shown: Shown, row: int, column: int) -> None:
    """Say that a pixel was clicked, as the browser does."""
    across, down = scale(shown)
    message = {"x": (column + 0.5) * across, "y": (row + 0.5) * down}
    shown.prediction._handle_custom_msg(message, [])


def test_a_click_asks_about_the_piece_under_it(shown: Shown) -> None:
    assert shown.opened is not None
    assert shown.opened.mask is not None
    labels, num = ndimage.label(shown.opened.mask.numpy() > 0, np.ones((3, 3)))
    assert num >= 1
    before = list(shown.piece.options)
    row, column = np.argwhere(labels == 1)[0]
    send(shown, int(row), int(column))
    assert shown.piece.value.startswith("component:")
    assert list(shown.piece.options) == before  # its button was there
    assert shown.answer is not None
    assert bool(shown.answer.target.pixels[0].any())
    on_grid = [round(at) for at in shown.opened.frame.to_grid(int(column), int(row))]
    assert bool(shown.answer.target.pixels[0][on_grid[1], on_grid[0]])


def test_a_click_beside_any_piece_asks_about_the_pixel(shown: Shown) -> None:
    assert shown.opened is not None
    assert shown.opened.mask is not None
    truth = shown.opened.sample.mask
    assert truth is not None
    taken = (shown.opened.mask > 0) | (truth > 0)
    away = ndimage.distance_transform_edt(~taken.numpy())
    row, column = np.unravel_index(away.argmax(), away.shape)
    send(shown, int(row), int(column))
    assert shown.piece.value == f"point:{column},{row}"
    assert ("pixel " + f"{column},{row}", shown.piece.value) in list(shown.piece.options)


def test_a_click_on_what_was_missed_asks_about_the_true_piece(shown: Shown) -> None:
    assert shown.opened is not None
    # The network predicts nothing any more; the truth is still there.
    nothing = torch.zeros_like(shown.opened.prediction.mask)
    object.__setattr__(shown.opened.prediction, "mask", nothing)
    truth = shown.opened.sample.mask
    assert truth is not None
    row, column = (int(at) for at in np.argwhere(truth.numpy() > 0)[0])
    send(shown, row, column)
    assert shown.piece.value.startswith("truth-component:")


def test_choices_of_a_class_are_explained_once(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(Shown, "blend", lambda self: asked.append(self.piece.value))
    assert shown.opened is not None
    assert shown.opened.mask is not None
    row, column = (int(at) for at in np.argwhere(shown.opened.mask.numpy() > 0)[0])
    send(shown, row, column)
    assert asked == [shown.piece.value]


def test_a_browser_tells_where_a_picture_was_clicked(chromium: Watched, tmp_path: Path) -> None:
    import base64
    import http.server
    import threading
    from functools import partial

    from seglens.widget.clickable import SCRIPT

    png = io.BytesIO()
    Image.new("RGB", (768, 512), "#1f77b4").save(png, "PNG")
    script = HARNESS.format(png=base64.b64encode(png.getvalue()).decode())
    (tmp_path / "clickable.js").write_text(SCRIPT.read_text())
    (tmp_path / "index.html").write_text(
        f'<link rel="icon" href="data:,"><body><script type="module">{script}</script></body>'
    )

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words: Any) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        page = chromium.open(f"http://127.0.0.1:{server.server_address[1]}/index.html")
        picture = page.get_by_alt_text("the prediction")
        picture.wait_for()
        page.wait_for_function("document.querySelector('img').naturalWidth === 768")
        box = picture.bounding_box()
        assert (box["width"], box["height"]) == (384, 256)  # half its size
        picture.click(position={"x": 100, "y": 30})
        (sent,) = page.evaluate("window.sent")
        assert (sent["x"], sent["y"]) == pytest.approx((200, 60), abs=1.5)
        page.evaluate("window.clear()")
        picture.wait_for(state="hidden")
        page.evaluate("window.end()")
        assert page.evaluate("window.listeners.length") == 0
    finally:
        server.shutdown()
        server.server_close()
    assert [line for line in chromium.console if line.startswith("error")] == []

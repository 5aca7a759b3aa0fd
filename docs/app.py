"""Draw the picture of app.md: the interactive page with one specimen open, and a piece of it explained.

``python -m docs.app`` trains for some seconds, serves the page and writes ``docs/app/page.png``. It needs
Chromium and Playwright (extra ``test``) and Gradio (extra ``app``).
"""

import shutil
import tempfile
from pathlib import Path

from docs.explaining import SETTINGS, SIZE
from docs.pictures import save
from playwright.sync_api import sync_playwright

import seglens
from seglens.data.specimens import write_specimens

OUT = Path(__file__).with_suffix("")
WIDTH, HEIGHT = 1440, 900


def main() -> None:
    """Train, serve, click in the middle of the largest piece, and keep what is seen."""
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        data = write_specimens(place / "cells", num_train=64, num_valid=8, num_test=8, size=SIZE, seed=3)
        settings = SETTINGS.model_copy(update={"epochs": 12, "loggers": ("none",)})
        run = seglens.train(seglens.DataSettings(path=data), settings, place / "cells-unet")
        test = seglens.open_split(run, "test")
        pieces = run.predict(test[0].image[None]).mask[0]
        rows, columns = pieces.nonzero(as_tuple=True)
        served = seglens.app(run, test)
        try:
            photograph(served.address, float(columns[0]) / SIZE, float(rows[0]) / SIZE, place / "page.png")
        finally:
            served.close()
        OUT.mkdir(exist_ok=True)
        save(place / "page.png", OUT / "page.png", 1180)


def photograph(address: str, across: float, down: float, out: Path) -> None:
    """Open the page, click there (shares of the picture), and wait for the answer."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.set_default_timeout(120_000)
        page.goto(address)
        page.wait_for_selector("#picture img")
        page.wait_for_selector("#about table")
        page.wait_for_timeout(2000)
        box = page.locator("#picture img").bounding_box()
        assert box is not None
        page.locator("#picture img").click(
            position={"x": across * box["width"] + 2, "y": down * box["height"] + 2}
        )
        page.wait_for_selector("#told table")
        page.wait_for_timeout(2000)
        page.screenshot(path=str(out))
        browser.close()


if __name__ == "__main__":
    main()

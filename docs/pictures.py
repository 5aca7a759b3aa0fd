"""Draw the picture of README.md out of a demo: built-in specimens, no picture of anybody.

``seglens demo --out DEMO`` and then ``python docs/pictures.py DEMO`` write ``docs/report.png``. It needs
Chromium and Playwright (extra ``test``).
"""

import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

DOCS = Path(__file__).parent
WIDTH, HEIGHT = 1180, 1180
"""Pixels of the report that are shown."""


def main(demo: Path) -> None:
    """Keep the top of the report."""
    with tempfile.TemporaryDirectory() as temporary:
        shot = Path(temporary) / "report.png"
        photograph(demo / "report.html", shot)
        save(shot, DOCS / "report.png", WIDTH)


def photograph(page: Path, out: Path) -> None:
    """Show the top of a page in a browser, and keep what is seen."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        opened.goto(page.resolve().as_uri())
        opened.wait_for_timeout(1500)
        opened.screenshot(path=str(out))
        browser.close()


def save(file: Path, out: Path, width: int) -> None:
    """Keep a picture in few colours, so that it is small."""
    with Image.open(file) as opened:
        picture = opened.convert("RGB")
        if picture.width > width:
            rows = round(picture.height * width / picture.width)
            picture = picture.resize((width, rows), Image.Resampling.LANCZOS)
        # The method that keeps rare colours: few pixels tell the models apart.
        picture.quantize(256, Image.Quantize.MAXCOVERAGE).save(out, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

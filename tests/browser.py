"""A real browser for tests of pages: headless Chromium, one for the whole session, a new page for each test.

A test that asks for ``chromium`` is skipped, with the reason, where there is no Chromium or no Playwright.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
"""What the browser is called on different systems."""


@dataclass
class Watched:
    """A page of the browser with all that it said and asked for while a test used it.

    ``page`` is Playwright's (`goto`, `click`, `locator`, `evaluate` ...). ``console`` holds messages, errors
    of scripts included; ``requests`` the addresses that were asked for, those of the page itself and of
    ``data:`` and ``blob:`` left out.
    """

    page: Any
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def open(self, address: Path | str) -> Any:
        """Go to a file on disk, or to an address, and return the page."""
        where = Path(address).resolve().as_uri() if isinstance(address, Path) else address
        self.page.goto(where)
        return self.page

    def watch(self) -> None:
        """Begin to listen; a machine that has much else to do gets time."""
        self.page.set_default_timeout(120_000)
        self.page.on("console", lambda message: self.console.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.console.append(f"error: {error}"))
        self.page.on("request", self._asked)
        self.page.on("dialog", self._said)

    def _asked(self, request: Any) -> None:
        own = request.is_navigation_request() and request.frame == self.page.main_frame
        if not own and not request.url.startswith(("data:", "blob:")):
            self.requests.append(request.url)

    def _said(self, dialog: Any) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()


@pytest.fixture(scope="session")
def chromium_browser() -> Iterator[Any]:
    """Start Chromium once, or skip."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"there is no Chromium: none of {', '.join(NAMES)} is on the PATH")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def chromium(chromium_browser: Any) -> Iterator[Watched]:
    """A new page, 1440 by 900 pixels; `Watched.open` goes to a file or an address."""
    context = chromium_browser.new_context(viewport={"width": 1440, "height": 900}, accept_downloads=True)
    watched = Watched(context.new_page())
    watched.watch()
    yield watched
    context.close()


@pytest.fixture
def chromium_like(chromium_browser: Any) -> Iterator[Callable[..., Watched]]:
    """Make pages of another kind: ``chromium_like(width=390, dark=True)``."""
    contexts = []

    def make(*, width: int = 1440, height: int = 900, dark: bool = False) -> Watched:
        scheme = "dark" if dark else "light"
        viewport = {"width": width, "height": height}
        contexts.append(chromium_browser.new_context(viewport=viewport, color_scheme=scheme))
        watched = Watched(contexts[-1].new_page())
        watched.watch()
        return watched

    yield make
    for context in contexts:
        context.close()

"""The built documentation: nothing missing, nothing loaded from elsewhere, and usable from disk."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.accessibility import violations
from tests.docs.pages import ROOT, blocks

import seglens

LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
"""What a browser fetches by itself."""

POINTING = {"canonical", "next", "prev"}
"""Kinds of ``<link>`` that it doesn't."""


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """The site, built once by the command of ``make docs``; a warning ends the build."""
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install '.[docs]'")
    folder = tmp_path_factory.mktemp("docs") / "site"
    build = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(folder)]
    done = subprocess.run(
        build, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class Loads(HTMLParser):
    """Gathers the addresses that a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if not POINTING & set((given.get("rel") or "").split()):
            self.addresses += [given.get(LOADED[tag]) or ""] if tag in LOADED else []


def test_pages_load_nothing_from_elsewhere(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        loads = Loads()
        loads.feed(page.read_text(encoding="utf-8"))
        assert len(loads.addresses) > 3
        outside = [address for address in loads.addresses if re.match(r"(https?:)?//", address)]
        assert not outside, f"{page.name} loads {outside}"
    for style in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?https?:", style.read_text(encoding="utf-8")), style


def test_the_reference_has_every_public_name_and_every_verb(site):
    text = (site / "api.html").read_text(encoding="utf-8")
    missing = [name for name in seglens.__all__ if f"seglens.{name}" not in text and name != "__version__"]
    assert not missing
    commands = (site / "commands.html").read_text(encoding="utf-8")
    for verb in ("train", "explain", "judge", "data-check"):
        assert f'id="seglens-{verb}"' in commands
    told = re.sub(r"<[^>]+>", "", commands)  # highlighting marks words
    assert "--num-images" in told
    assert "seglens explain runs/first" in told  # an example


def test_formulas_are_drawn_by_the_browser_alone(site):
    formulas = [block for block in blocks(ROOT / "docs" / "methods.md") if block.language == "math"]
    text = (site / "methods.html").read_text(encoding="utf-8")
    assert text.count('class="formula"') == len(formulas) > 15
    assert "<math" in text
    assert "\\sum" not in text


def test_every_method_has_its_place_on_the_page_of_methods():
    from docs.building import with_every_cam

    from seglens.explain.methods import METHODS

    text = with_every_cam((ROOT / "docs" / "methods.md").read_text(encoding="utf-8"))
    assert [name for name in METHODS if f"### {name}\n" not in text] == []
    sections = re.split(r"^### ", text, flags=re.MULTILINE)[1:]
    assert len(sections) == len(METHODS)
    for section in sections:
        assert re.search(r"\*\*(Don't\s+believe|Never)", section), section.splitlines()[0]


def test_the_site_is_searched_from_disk(site, chromium):
    chromium.open(site / "index.html")
    chromium.page.locator("input[name=query]").click()
    chromium.page.keyboard.type("completeness")
    found = chromium.page.locator(".md-search-result__link").first
    found.wait_for(timeout=20_000)
    assert ".html" in (found.get_attribute("href") or "")
    assert chromium.console == []
    assert all(address.startswith("file:") for address in chromium.requests)


def test_no_page_is_wider_than_a_phone(site, chromium_like):
    watched = chromium_like(width=390, dark=True)
    for page in sorted(site.glob("*.html")):
        watched.open(page)
        wider = watched.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert wider <= 0, f"{page.name} is {wider} pixels wider than the screen"


def test_no_line_of_code_is_cut_or_lies_below_a_button(site, chromium):
    """Letters lie inside of their block, or in one that scrolls; the button lies beside them."""
    num = 0
    for page in ("index", "unet", "first-hour", "explaining", "architecture", "app"):
        chromium.open(site / f"{page}.html")
        found = chromium.page.evaluate(
            """() => [...document.querySelectorAll(".highlight pre")].map(pre => {
                const code = pre.querySelector("code"), range = document.createRange();
                range.selectNodeContents(code);
                const buttons = ".md-clipboard, .md-code__nav, .md-code__button";
                const button = pre.parentElement.querySelector(buttons);
                const beside = button && button.getBoundingClientRect();
                const box = code.getBoundingClientRect();
                const letters = [...range.getClientRects()].filter(rect => rect.width > 0);
                const seen = letters.map(rect => Math.min(rect.right, box.right));
                const scrolls = getComputedStyle(code).overflowX === "auto";
                return {
                    button: !!button,
                    covered: !!beside && seen.some(
                        (right, at) => right > beside.left + 1
                            && letters[at].bottom > beside.top
                            && letters[at].top < beside.bottom
                    ),
                    cut: code.scrollWidth > code.clientWidth + 1 && !scrolls,
                    broken: !!pre.closest(".language-bash, .language-python")
                        && code.scrollWidth > code.clientWidth + 1,
                };
            })"""
        )
        num += sum(block["button"] for block in found)
        assert not [block for block in found if block["covered"] or block["cut"] or block["broken"]], page
    assert num > 5


THEMES_OWN = (".md-search", ".md-code__nav", "nav[aria-labelledby=__nav_1_label]")
"""Parts of MkDocs Material's templates that no setting reaches: the dialog around the search has no name
(aria-dialog-name); the buttons of each block of code are a part of the navigation without a name, and the
first part of the navigation has the name of a page (landmark-unique)."""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_keeps_people_from_using_a_page(site, chromium_like, dark: bool):
    watched = chromium_like(dark=dark)
    for page in ("index", "unet", "judging", "commands"):
        watched.open(site / f"{page}.html")
        assert violations(watched.page, besides=THEMES_OWN) == [], page

"""axe-core, a program that looks for what keeps people from using a page, on pages of the browser.

All rules of its default run: those of WCAG A and AA and its best practices. What passes needs a look still:
such programs find about half of what is wrong.
"""

from typing import Any

import pytest


def violations(page: Any, *, besides: tuple[str, ...] = ()) -> list[str]:
    """Return what axe-core finds wrong on a page, each with the rule and the element.

    ``besides`` are selectors of elements that aren't looked at.
    """
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core is not installed")
    page.evaluate(axe.Axe().axe_script)  # not as a script of the page: reports forbid all but their own
    found = page.evaluate(
        "besides => axe.run({ include: [['html']], exclude: besides.map((one) => [one]) }, "
        "{ resultTypes: ['violations'] })",
        besides,
    )
    assert len(found["passes"]) + len(found["violations"]) > 10, "the rules ran"
    return [
        f"{rule['id']} ({', '.join(node['target'])}): {node['html'][:160]} | {node['failureSummary'][:300]}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]

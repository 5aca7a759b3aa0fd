"""What a stranger may trust in: no code from data, no copyleft dependency, a demo without a network."""

import ast
import re
import socket
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

import seglens
from seglens.demo import DemoSettings, demo

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "src" / "seglens").rglob("*.py"))
COPYLEFT = re.compile(r"\b[AL]?GPL|GNU|SSPL|EUPL|CC-BY-SA|CC-BY-NC", re.IGNORECASE)
RUNS_CODE = {"eval", "exec", "compile", "__import__"}
LOADS_CODE = {("pickle", "load"), ("pickle", "loads"), ("os", "system"), ("os", "popen"), ("yaml", "load")}


def calls_of(file: Path) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.Call)]


def dotted(node: ast.expr) -> tuple[str, ...]:
    """``a.b.c`` as its names; what is no name is ``?``."""
    if isinstance(node, ast.Attribute):
        return (*dotted(node.value), node.attr)
    return (node.id,) if isinstance(node, ast.Name) else ("?",)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT / "src")))
def test_no_data_becomes_code(file):
    for call in calls_of(file):
        name, given = dotted(call.func), {keyword.arg: keyword.value for keyword in call.keywords}
        assert name not in [(each,) for each in RUNS_CODE], f"line {call.lineno}"
        assert name[-2:] not in LOADS_CODE, f"line {call.lineno}"
        shell = given.get("shell")
        assert shell is None or ast.unparse(shell) == "False", f"line {call.lineno}: a shell"
        if name == ("torch", "load"):
            assert ast.unparse(given["weights_only"]) == "True", f"line {call.lineno}"
        if name[-2:] == ("np", "load"):
            assert ast.unparse(given["allow_pickle"]) == "False", f"line {call.lineno}"


def licence_of(name: str) -> str:
    said: Any = distribution(name).metadata
    classified = [
        text.rpartition("::")[2].strip()
        for text in said.get_all("Classifier") or []
        if text.startswith("License ::")
    ]
    short = (said.get("License") or "").strip().partition("\n")[0][:60]
    return said.get("License-Expression") or "; ".join(classified) or short


def needed(name: str, extras: tuple[str, ...], seen: set[str]) -> set[str]:
    """The packages that ``name`` with its extras installs on this machine, as far as they are here."""
    for text in distribution(name).requires or []:
        need = Requirement(text)
        marks = [need.marker.evaluate({"extra": extra}) for extra in ("", *extras)] if need.marker else [True]
        key = re.sub(r"[-_.]+", "-", need.name).lower()
        if not any(marks) or key in seen or key == "seglens":
            continue
        try:
            distribution(need.name)
        except PackageNotFoundError:
            continue
        seen.add(key)
        needed(need.name, tuple(need.extras), seen)
    return seen


def test_the_licences_of_all_that_is_installed_are_listed_and_none_is_copyleft():
    listed = dict(
        re.findall(
            r"^\| `([a-z0-9-]+)` \| ([^|]+?) \|$", (ROOT / "LICENCES.md").read_text("utf-8"), re.MULTILINE
        )
    )
    found = needed("seglens", ("app", "notebook"), set())
    assert len(found) > 60
    assert sorted(found - set(listed)) == [], "add them to LICENCES.md, after a look at their licence"
    for name in sorted(found):
        assert not COPYLEFT.search(licence_of(name)), f"{name}: {licence_of(name)}"
    assert not [name for name, licence in listed.items() if COPYLEFT.search(licence) or licence == "?"]


def test_the_demo_asks_nothing_of_any_machine(tmp_path, monkeypatch):
    def refused(*args, **rest):
        raise AssertionError(f"the demo opens a connection: {args[1:]}")

    for name in ("connect", "connect_ex", "bind", "sendto"):
        monkeypatch.setattr(socket.socket, name, refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    tiny = DemoSettings(
        size=64,
        num_train=8,
        num_valid=2,
        num_test=2,
        width=4,
        epochs=1,
        batch_size=4,
        num_explained=1,
        num_judged=2,
        num_occluded=1,
        num_examples=1,
    )
    assert demo(tmp_path / "out", settings=tiny).is_file()


def test_the_version_is_said_alike_everywhere():
    cited = (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"version: {seglens.__version__}\n" in cited
    assert seglens.__version__ in (ROOT / "CHANGELOG.md").read_text("utf-8")

"""Every command and snippet of the documentation runs, page by page, in the order in which a reader types it.

Settings are made quick (`quick.py`), data are specimens (`prepared.py`), and the verbs are called within this
process. A block that can't be run says why above it; its commands are still parsed.
"""

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.docs.pages import (
    PAGES,
    PYTHON,
    RECORDS,
    ROOT,
    SHELL,
    Block,
    blocks,
    command_lines,
    inline_commands,
    seglens_words,
)
from tests.docs.prepared import PREPARED
from tests.docs.quick import STAGES, quick_python, quick_words

from seglens import cli
from seglens.weak.settings import from_plain

FIRST = "train photos/ --model resnet-unet --encoder resnet34 --run runs/first".split()
"""How a run that a page takes for granted was made."""

SHELL_TOOLS = {"ls", "cat", "head", "mkdir", "cp"}
"""What else of the shell is run."""

ANSWERING = {"verify"}
"""Verbs whose exit code 1 is an answer: networks that have hardly been trained don't pass every check."""

NOT_RUN = {
    "README.md": 1,
    "CONTRIBUTING.md": 1,
    "cluster.md": 7,
    "first-hour.md": 1,
    "app.md": 1,
    "own-model.md": 7,
}
"""How many blocks of a page are not run."""


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> dict[tuple[str, ...], Path]:
    """Run folders by the command that made them: a command that another page has run is not run again."""
    return {}


@pytest.fixture
def page_folder(tmp_path_factory, monkeypatch) -> Path:
    """An empty folder to type in, where nobody answers; it stays, because runs name its pictures."""
    folder = tmp_path_factory.mktemp("page")
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.stdin", StringIO())
    return folder


@pytest.fixture
def run_words(capsys, trained, page_folder) -> Callable[[list[str], str], None]:
    """Run what follows ``seglens`` in a command; trainings are shared by all pages."""

    def run(words: list[str], place: str) -> None:
        quick = quick_words(words)
        key, folder = tuple(quick), None
        if quick[0] == "train" and "--repeat" not in quick and "--resume" not in quick:
            folder = page_folder / quick[quick.index("--run") + 1]
            if key in trained:
                shutil.copytree(trained[key], folder)
                return
        capsys.readouterr()
        code = cli.command([*quick, "--debug"])
        said = capsys.readouterr()
        assert code == 0 or (code == 1 and quick[0] in ANSWERING), (
            f"{place}: seglens {' '.join(quick)} ended with {code}:\n{said.err}"
        )
        if folder is not None:
            trained[key] = shutil.copytree(folder, folder.parent / f".{folder.name}-kept")

    return run


def prepare(block: Block, folder: Path, run_words: Callable[[list[str], str], None]) -> None:
    """Make what the block takes for granted."""
    for name in block.prepare:
        if name.startswith("runs/"):
            if not (folder / "photos").exists():
                PREPARED["photos"](folder)
            seed = [] if name == "runs/first" else ["--seed", "1"]
            run_words([*FIRST[:-1], name, *seed], block.place)
        else:
            PREPARED[name](folder)


def run_shell(block: Block, folder: Path, run_words: Callable[[list[str], str], None]) -> None:
    """Run the commands of a block: verbs in this process, a few tools of the shell."""
    for words in command_lines(block.text):
        inner = seglens_words(words[:1])
        if inner is not None:
            spread = [found for word in words[1:] for found in expanded(word, folder)]
            run_words(spread, block.place)
        else:
            assert words[0] in SHELL_TOOLS, f"{block.place}: {words[0]} is not run; say why above the block"
            subprocess.run(words, cwd=folder, check=True, capture_output=True)


def expanded(word: str, folder: Path) -> list[str]:
    """Return the files that a pattern stands for, as a shell does; other words as they are."""
    if "*" not in word:
        return [word]
    return [str(file.relative_to(folder)) for file in sorted(folder.glob(word))] or [word]


@pytest.mark.pages
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_runs_from_top_to_bottom(page, page_folder, run_words, public_sets):
    names: dict[str, object] = {"__name__": "page", "QUICK_STAGES": from_plain(STAGES)}
    for block in blocks(page):
        if block.language not in (SHELL, PYTHON) or block.not_run:
            continue
        prepare(block, page_folder, run_words)
        if block.language == SHELL:
            run_shell(block, page_folder, run_words)
        else:
            code = compile("\n" * block.line + quick_python(block.text), str(page), "exec")
            exec(code, names)


def parsed(words: list[str]) -> None:
    """Parse a command line of ``seglens`` without running it; an unknown flag or verb is an error."""
    command: Any = typer.main.get_command(cli.app)
    rest = [word for word in words if word not in ("--debug", "--help")]
    while rest and isinstance(getattr(command, "commands", None), dict):
        command = command.commands[rest.pop(0)]
    if rest:
        command.make_context(command.name, rest)


def flags(command: Any) -> set[str]:
    """Return the flags of a verb."""
    return {"--help", "--debug"} | {
        flag
        for option in command.get_params(typer.Context(command))
        for flag in (*option.opts, *option.secondary_opts)
    }


@pytest.mark.parametrize("page", [*PAGES, *RECORDS], ids=lambda page: page.name)
def test_commands_that_are_not_run_have_flags_that_exist(page):
    for block in blocks(page):
        if block.language != SHELL or not (block.not_run or page in RECORDS):
            continue
        for words in command_lines(block.text):
            inner = seglens_words(words)
            if inner is not None:
                parsed(inner)
            else:
                check_other(words, block.place)


def check_other(words: list[str], place: str) -> None:
    """Check what can be checked of a command that is none of ours: targets, extras and files exist."""
    if words[0] == "make":
        targets = [line.partition(":")[0] for line in (ROOT / "Makefile").read_text().splitlines()]
        assert words[1] in targets, f"{place}: make has no target {words[1]}"
    if "install" in words and "[" in words[-1]:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        for extra in words[-1].partition("[")[2].rstrip("]").split(","):
            assert extra in extras, f"{place}: there is no extra {extra}"
    for word in words:
        if word.endswith(".py") and "/" in word:
            assert (ROOT / word).exists(), f"{place}: there is no {word}"


@pytest.mark.parametrize("page", [*PAGES, *RECORDS], ids=lambda page: page.name)
def test_commands_in_the_text_have_verbs_and_flags_that_exist(page):
    for line, words in inline_commands(page):
        command: Any = typer.main.get_command(cli.app)
        rest = words[1:]
        for verb in (part for alternatives in [rest[0].split("|")] for part in alternatives):
            if verb == "VERB":
                continue
            assert verb in command.commands, f"{page.name}:{line}: there is no verb {verb}"
            found = command.commands[verb]
            arguments = rest[1:]
            if hasattr(found, "commands") and arguments and arguments[0] in found.commands:
                found = found.commands[arguments[0]]
            given = {word.partition("=")[0] for word in arguments if word.startswith("--")}
            assert given <= flags(found) | {"--"}, f"{page.name}:{line}: {verb} has no {given - flags(found)}"


def test_blocks_that_are_not_run_are_counted():
    reasons = {page.name: [block for block in blocks(page) if block.not_run] for page in PAGES}
    listed = "\n".join(f"{block.place}: {block.not_run}" for found in reasons.values() for block in found)
    print(listed, file=sys.stderr)
    assert {name: len(found) for name, found in reasons.items() if found} == NOT_RUN, listed

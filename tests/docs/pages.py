"""Pages of the documentation, taken apart: fenced blocks with what comments before them say, and commands.

Two comments, right above a block, say what a reader's folder would hold already, and why a block is not run::

    <!-- prepare: photos -->
    <!-- not run: it downloads -->
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
"""What is run."""

RECORDS = [ROOT / "CHANGELOG.md", *sorted((ROOT / "benchmarks").glob("*.md"))]
"""What was measured and changed, with the commands that it took. They are read, not run: they take hours."""

COMMENT = re.compile(r"^<!--\s*(prepare|not run):\s*(.+?)\s*-->$")
FENCE = re.compile(r"^(?P<indent>\s*)```\s*(?P<language>[\w-]*)")
INLINE = re.compile(r"(?<!`)`(?P<code>[^`\n]+)`(?!`)")
SHELL, PYTHON = "bash", "python"


@dataclass(frozen=True)
class Block:
    """One fenced block: where it begins, what it is written in, and what the comments above it say."""

    page: Path
    line: int
    language: str
    text: str
    prepare: tuple[str, ...] = ()
    not_run: str = ""

    @property
    def place(self) -> str:
        """Where to find it."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order.

    Raises:
        ValueError: a comment stands above nothing, or a block has no end.
    """
    found: list[Block] = []
    said: dict[str, str] = {}
    lines = iter(enumerate(page.read_text(encoding="utf-8").splitlines(), 1))
    for number, line in lines:
        comment, fence = COMMENT.match(line.strip()), FENCE.match(line)
        if comment:
            said[comment[1]] = comment[2]
        elif fence:
            inside = []
            for _, next_line in lines:
                if next_line.strip() == "```":
                    break
                inside.append(next_line.removeprefix(fence["indent"]))
            else:
                raise ValueError(f"{page.name}:{number}: the block has no end")
            prepare = tuple(said.pop("prepare", "").split())
            block = Block(
                page, number, fence["language"], "\n".join(inside), prepare, said.pop("not run", "")
            )
            found.append(block)
        elif line.strip() and said:
            raise ValueError(f"{page.name}:{number}: the comment above says {said}, but no block follows")
    return found


def command_lines(text: str) -> list[list[str]]:
    """Return the words of each command of a shell block: comments dropped, continued lines joined."""
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = [shlex.split(line, comments=True) for line in joined.splitlines()]
    return [words for words in lines if words]


def inline_commands(page: Path) -> list[tuple[int, list[str]]]:
    """Return the line and words of every ``seglens VERB ...`` that stands in the text of a page."""
    found = []
    fenced = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if FENCE.match(line):
            fenced = not fenced
        if fenced:
            continue
        for code in INLINE.finditer(line):
            text = code["code"].replace("\\|", "|")
            if re.match(r"seglens [a-z]", text):
                found.append((number, shlex.split(text)))
    return found


def seglens_words(words: list[str]) -> list[str] | None:
    """Return what follows ``seglens`` in a command, whatever starts it; None where it is no such command.

    >>> seglens_words("torchrun --standalone -m -- seglens evaluate RUN".split())
    ['evaluate', 'RUN']
    """
    for place, word in enumerate(words):
        if word.rsplit("/", 1)[-1] == "seglens" and words[place - 1 : place] != ["clone"]:
            return words[place + 1 :]
    return None

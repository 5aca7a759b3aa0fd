"""Pages and texts of the report are read once: sentences are short, and few years of school are needed.

Bounds are those of Flesch's table (*The Art of Readable Writing*, 1949): grades 8 and 9 are "plain English",
and sentences of 29 words or more "very difficult". Each section holds them by itself, so no page hides behind
another, and no hard section behind easy ones. Code, tables and formulas are left out.
"""

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.docs.readability import Reading, reading, sections, sentences, syllables, words

import seglens
from seglens.report.findings import SAID
from seglens.report.glossary import WORDS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

GRADE, LONGEST = 9.0, 28

MODULES = (
    "compare.attention",
    "compare.differences",
    "evaluate",
    "explain.statistics",
    "judge.definitions",
    "weak.table",
)

RIDDLES = (
    r"made coarse\b",
    r"know(s)? nothing",
    r"\bs_reg\b",
    r"\b(s_dice|emprt)\b",
    r"\bnulls?\b(?! in JSON|\)|,)",
    r"\brestates?\b",
    r"\bR[1-5]\b",
    r"\b1 (pictures|images|objects|epochs|maps)\b",
    r"deserves? belief",
)
"""What our texts said and only we understood; the names of columns in JSON stand in code."""


def texts() -> Iterator[tuple[str, str]]:
    """Yield all that the report says in words of ours, by where it stands."""
    yield from ((f"glossary: {name}", text) for name, text in WORDS.items())
    for score, said in SAID.items():
        yield from ((f"{score}: {verdict}", f"{text}.") for verdict, text in said.items())
    for name in MODULES:
        for key, text in importlib.import_module(f"seglens.{name}").DEFINITIONS.items():
            yield f"{name}: {key}", text
    for name in ("judge.audit", "judge.shortcut"):
        yield name, importlib.import_module(f"seglens.{name}").DEFINITION
    for file in sorted((ROOT / "src/seglens/report/templates").glob("*.jinja")):
        for lead in re.findall(r'<p class="lead">(.*?)</p>', file.read_text("utf-8"), re.DOTALL):
            plain = re.sub(r"\{\{ term\((?:.*?, )?['\"](.*?)['\"]\) \}\}", r"\1", lead)
            plain = re.sub(r"\{%.*?%\}|<[^>]*>", " ", re.sub(r"\{\{.*?\}\}", "it", plain))
            yield file.name, plain


def literal(node: ast.expr) -> str:
    """The text of an expression; what is filled in later is one short word."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(literal(part) if isinstance(part, ast.Constant) else "X" for part in node.values)
    return literal(node.left) + literal(node.right) if isinstance(node, ast.BinOp) else ""


def errors() -> Iterator[tuple[str, str]]:
    """Yield the texts of all errors of ours that are whole sentences, by where they are raised."""
    package = Path(seglens.__file__).parent
    for file in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                text = literal(node.exc.args[0])
                if text.endswith("."):
                    yield f"{file.relative_to(package)}:{node.lineno}", text


@pytest.mark.parametrize(
    ("text", "num", "ease"),
    [
        # Both with the counts that Wikipedia gives for Flesch's formula.
        ("The cat sat on the mat.", (1, 6, 6), 116.1),
        (
            "This sentence, taken as a reading passage unto itself, is being used to prove a point.",
            (1, 16, 24),
            63.7,
        ),
    ],
)
def test_the_formulas_against_worked_values(text: str, num: tuple[int, int, int], ease: float):
    found = reading(text)
    assert (found.sentences, found.words) == num[:2]
    assert abs(found.syllables - num[2]) <= 1
    assert found.ease == pytest.approx(ease, abs=6)


def test_the_grade_of_counts_by_hand():
    # 0.39 * 10 + 11.8 * 1.5 - 15.59
    assert Reading(10, 100, 150).grade == pytest.approx(6.01)
    assert Reading(1, 6, 6).ease == pytest.approx(206.835 - 1.015 * 6 - 84.6)


COUNTED = """cat 1, the 1, picture 2, pictures 2, marked 1, missed 1, counted 2, image 2, explain 2, target 2,
model 2, probability 5, segmentation 4, validation 4, area 3, reference 3, prediction 3, network 2, score 1,
scores 1, little 2, enough 2"""


def test_syllables_of_words_counted_by_hand():
    counted = {word: int(num) for word, num in (each.split() for each in COUNTED.split(","))}
    wrong = {word: syllables(word) for word, num in counted.items() if syllables(word) != num}
    assert len(wrong) <= 2, wrong
    assert abs(sum(map(syllables, counted)) - sum(counted.values())) <= 2


def test_what_is_hard_is_found():
    """The text of an earlier version fails the bounds."""
    hard = (
        "Mean over the removed fractions .1 to .9 of (score with the least relevant cells removed - score "
        "with the most relevant removed) / (score of the picture - score of the blurred picture); the score "
        "is the mean class probability over the frozen region."
    )
    assert max(len(words(each)) for each in sentences(hard)) > LONGEST
    assert reading(hard).grade > GRADE


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_are_read_once(page: Path):
    text = page.read_text("utf-8")
    long = [each for _, part in sections(text) for each in sentences(part) if len(words(each)) > LONGEST]
    assert long == []
    hard = {title: round(reading(part).grade, 1) for title, part in sections(text)}
    assert {title: grade for title, grade in hard.items() if grade > GRADE} == {}


def test_texts_of_the_report_are_read_once():
    found = dict(texts())
    assert len(found) > 100
    long = {
        where: each for where, text in found.items() for each in sentences(text) if len(words(each)) > LONGEST
    }
    assert long == {}
    everything = " ".join(text if text.rstrip().endswith(".") else f"{text}." for text in found.values())
    assert reading(everything).grade <= GRADE


def test_errors_are_read_once():
    found = dict(errors())
    assert len(found) > 600
    long = {
        where: each for where, text in found.items() for each in sentences(text) if len(words(each)) > LONGEST
    }
    assert long == {}
    rooms: dict[str, list[str]] = {}
    for where, text in found.items():
        rooms.setdefault(where.partition("/")[0], []).append(text)
    hard = {room: reading(" ".join(texts)).grade for room, texts in rooms.items()}
    assert {room: grade for room, grade in hard.items() if grade > GRADE} == {}


def test_texts_of_errors_are_found_in_the_source():
    code = "f'{a} of {b}' ' is ' + c + f'{d!r}.'"
    assert literal(ast.parse(code, mode="eval").body) == "X of X is X."


@pytest.mark.parametrize("riddle", RIDDLES)
def test_no_riddles(riddle: str):
    prose = [
        (page.name, re.sub(r"```.*?```|`[^`]*`|<!--.*?-->", "", page.read_text("utf-8"), flags=re.DOTALL))
        for page in PAGES
    ]
    where = [name for name, text in prose if re.search(riddle, re.sub(r"\]\([^)]*\)", "]", text))]
    where += [name for name, text in errors() if re.search(riddle, text)]
    where += [
        name for name, text in texts() if re.search(riddle, re.sub(r"\bs_dice is|\bemprt is", "", text))
    ]
    assert where == []


def test_all_definitions_are_looked_at():
    """Modules with definitions are those that `evaluate` joins, or are named above."""
    package = Path(seglens.__file__).parent
    having = {
        module.name.removeprefix("seglens.")
        for module in pkgutil.walk_packages([str(package)], "seglens.", onerror=lambda name: None)
        if (file := package.joinpath(*module.name.split(".")[1:]).with_suffix(".py")).is_file()
        and re.search(r"^DEFINITIONS = ", file.read_text("utf-8"), re.MULTILINE)
    }
    joined = {name for name in having if name.startswith(("evaluate.", "predict."))}
    assert having - joined <= set(MODULES)

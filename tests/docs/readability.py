"""How hard a text is to read: the grade of Flesch and Kincaid, and the words of each sentence.

``grade = 0.39 words / sentences + 11.8 syllables / words - 15.59`` (Kincaid, Fishburne, Rogers and Chissom
1975); ``ease = 206.835 - 1.015 words / sentences - 84.6 syllables / words`` (Flesch 1948).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

SHORTEST = 100
"""Words that a sample has at least: the formulas were fitted to passages of about that length."""

EXCEPTIONS = {"area": 3, "being": 2, "idea": 3, "ratio": 3, "the": 1, "science": 2, "created": 3}
"""Words in which the rule of `syllables` miscounts, and which our texts use often."""

SILENT = re.compile(r"(?:[^laeiouy]es|[^td]ed|[^laeiouy]e)$")
VOWELS = re.compile(r"[aeiouy]+")
APART = re.compile(r"i[ao](?!us)|eo|ua(?=[lt])|ying$|(?<=[^aeiouy])[tgs]?ier$|[^aeiouyl]le(?:d|s)?$")
TOGETHER = re.compile(r"[tcsgx]i[ao]|geo(?=us|n)|qua")


@dataclass(frozen=True)
class Reading:
    """What the formulas need of a text."""

    sentences: int
    words: int
    syllables: int

    @property
    def grade(self) -> float:
        """Years of school (in the United States) after which most people read the text."""
        return 0.39 * self.words / self.sentences + 11.8 * self.syllables / self.words - 15.59

    @property
    def ease(self) -> float:
        """From 100, read by everybody, down to 0 and below, read by few."""
        return 206.835 - 1.015 * self.words / self.sentences - 84.6 * self.syllables / self.words


def syllables(word: str) -> int:
    """Count the syllables of an English word by its vowels: groups of them, less those that are silent."""
    word = re.sub("[^a-z]", "", word.lower())
    if word in EXCEPTIONS:
        return EXCEPTIONS[word]
    found = len(VOWELS.findall(SILENT.sub(lambda end: end[0][0], word) if len(word) > 3 else word))
    found += len(APART.findall(word)) - len(TOGETHER.findall(word))
    return max(1, found)


def words(text: str) -> list[str]:
    """Return the words of a text: whatever has a letter in it. Numbers are read as they are."""
    parts = re.split(r"[\s/]+|--|\u2014|\u2013|(?<=\w)-(?=\w)", text)
    return [word for word in parts if re.search("[A-Za-z]", word)]


def sentences(text: str) -> list[str]:
    """Split a text at its full stops, question marks, exclamation marks and blank lines."""
    guarded = re.sub(r"\b(et al|e\.g|i\.e|vs|approx|No|Fig|Eq)\.", r"\1", text)
    found = re.split(r"(?<=[.!?])[\"')\]*_]*\s+(?=[\"'(\[*_]*[A-Z0-9`])|\n\s*\n", guarded)
    return [each.strip() for each in found if words(each)]


def reading(text: str) -> Reading:
    """Count sentences, words and syllables."""
    every = words(text)
    return Reading(len(sentences(text)), len(every), sum(map(syllables, every)))


def prose(markdown: str) -> str:
    """Return the sentences of a page of Markdown; code, tables, formulas and pictures are left out."""
    text = re.sub(r"<!--.*?-->|^```.*?^```|\$\$.*?\$\$", "", markdown, flags=re.S | re.M)
    text = re.sub(r"^(?:\||    ).*$|^!\[.*$", "", text, flags=re.M)
    text = re.sub(r"!?\[((?:[^\]`]|`[^`]*`)*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"`[^`]*`", "It", text)
    text = re.sub(r"^\s*(?:[-*]|\d+\.|:|>)\s+", "\n", text, flags=re.M)
    return re.sub(r"\*\*|(?<!\w)[*_]|[*_](?!\w)", "", text)


def sections(markdown: str) -> Iterator[tuple[str, str]]:
    """Yield heading and prose of each section; one of fewer than `SHORTEST` words goes on into the next."""
    parts = re.split(r"^(#+ .*)$", re.sub(r"^```.*?^```", "", markdown, flags=re.S | re.M), flags=re.M)
    title, kept = "", ""
    for i in range(0, len(parts), 2):
        if i and not title:
            title = parts[i - 1].lstrip("# ")
        kept += "\n\n" + prose(parts[i])
        if len(words(kept)) >= SHORTEST or i + 2 > len(parts):
            if words(kept):
                yield title, kept.strip()
            title, kept = "", ""

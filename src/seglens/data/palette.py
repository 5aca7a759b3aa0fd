"""Files that say which colour of a mask is which class: the forms in which tools write them."""

import csv
import json
import re
from pathlib import Path
from typing import Any

from seglens.data.tables import read_text
from seglens.errors import DataError

Palette = tuple[tuple[str, str], ...]
"""Names with their colours as #rrggbb, the background first."""
IGNORED = "ignore"
"""The name of a colour whose pixels are in no loss and no score; it is no class."""
BACKGROUND = "background"


def read_palette(file: Path) -> Palette:
    """Return the names and colours that a file lists, the background first.

    Read are lines ``name r g b`` or ``r g b name`` (spaces, tabs or commas between them), the labelmap.txt of
    CVAT (``name:r,g,b:parts:actions``), JSON ``{name: [r, g, b]}`` or ``{name: "#rrggbb"}``, and JSON lists
    of objects with ``name`` and ``color``. The background is what is called so, or else what is black.

    Raises:
        DataError: it is missing, can't be read, names a class or a colour twice, or has no background.
    """
    text = read_text(file)
    try:
        pairs = _from_json(json.loads(text)) if text.lstrip()[:1] in ("{", "[") else _from_lines(text)
    except ValueError as error:
        raise DataError(
            f"The palette {file} can't be read: {error}. Allowed are lines 'name r g b' with numbers from 0 "
            "to 255, CVAT's labelmap.txt, and JSON {name: [r, g, b]}."
        ) from error
    for what, found in (("name", [name for name, _ in pairs]), ("colour", [colour for _, colour in pairs])):
        twice = next((each for each in found if found.count(each) > 1), None)
        if twice is not None:
            raise DataError(f"The palette {file} has the {what} {twice!r} twice. Give each class one colour.")
    named = [pair for pair in pairs if pair[0].lower() == BACKGROUND]
    first = named or [pair for pair in pairs if pair[1] == "#000000" and pair[0].lower() != IGNORED]
    if not first or len(pairs) < 2:
        raise DataError(
            f"The palette {file} lists {len(pairs)} colours and no background: none is called 'background', "
            "none is black. Add a line such as 'background 0 0 0'."
        )
    return (first[0], *(pair for pair in pairs if pair != first[0]))


def _from_json(found: Any) -> list[tuple[str, str]]:
    if isinstance(found, dict):
        listed = list(found.items())
    else:
        listed = [(entry.get("name"), entry.get("color", entry.get("colour"))) for entry in found]
    return [(_name(name), _colour(colour)) for name, colour in listed]


def _from_lines(text: str) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        cvat = re.fullmatch(r"([^:]+):\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*:.*", line)
        words = list(cvat.groups()) if cvat else _words(line)
        if not pairs and not any(word.isdecimal() for word in words):
            continue  # the names of the columns
        if len(words) >= 4 and all(word.isdecimal() for word in words[-3:]):
            pairs.append((_name(" ".join(words[:-3])), _colour([int(word) for word in words[-3:]])))
        elif len(words) >= 4 and all(word.isdecimal() for word in words[:3]):
            pairs.append((_name(" ".join(words[3:])), _colour([int(word) for word in words[:3]])))
        else:
            raise ValueError(f"the line {line!r} is no name with three numbers")
    return pairs


def _words(line: str) -> list[str]:
    return [word.strip() for word in next(csv.reader([line]))] if "," in line else line.split()


def _name(name: object) -> str:
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"a name is {name!r}")
    return name.strip()


def _colour(colour: object) -> str:
    if isinstance(colour, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", colour):
        return colour.lower()
    if (
        isinstance(colour, list)
        and len(colour) == 3
        and all(type(part) is int and 0 <= part <= 255 for part in colour)
    ):
        return "#" + "".join(f"{part:02x}" for part in colour)
    raise ValueError(f"the colour {colour!r} is not three numbers from 0 to 255, nor #rrggbb")

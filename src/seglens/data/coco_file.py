"""One COCO file: pictures, categories and annotations, checked and typed; what is wrong is listed by name.

Source of the format: https://cocodataset.org/#format-data
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from seglens.data.layout import Finding
from seglens.data.outlines import AGAIN, Box, box_of, whole
from seglens.data.sample import class_name
from seglens.errors import DataError

Id = int | str
Made = TypeVar("Made")


@dataclass(frozen=True)
class Picture:
    """A picture that a file lists; ``size`` is rows, columns, None where the file doesn't say."""

    id: Id
    file_name: str
    size: tuple[int, int] | None


@dataclass(frozen=True)
class Category:
    """A kind of object."""

    id: Id
    name: str


@dataclass(frozen=True)
class Note:
    """An annotation as the file has it: that picture and category exist, the outline is not looked at yet.

    ``box`` is the box around it, None where the file has none that could be one.
    """

    name: str
    picture: Id
    category: Category
    crowd: bool
    segmentation: object
    box: Box | None = None


@dataclass(frozen=True)
class CocoFile:
    """What a COCO file says; ``problems`` are the entries that could not be understood."""

    file: Path
    pictures: tuple[Picture, ...]
    categories: tuple[Category, ...]
    notes: tuple[Note, ...]
    problems: tuple[Finding, ...]


LABEL_STUDIO = (
    "is the JSON of Label Studio itself: a list of tasks, whose outlines are in percent of the picture. "
    "Allowed is its export as COCO: choose 'COCO with Images' there, and name the folder with result.json "
    "and images/. Of brushes choose 'Brush labels to COCO', and put the pictures beside; or 'Brush labels to "
    "PNG', and lay the set out as 'pairs'."
)


class _Wrong(Exception):
    """An entry that can't be understood: the rule that it breaks, and what was found."""


def read_coco(file: Path) -> CocoFile:
    """Read a COCO file, in UTF-8 or UTF-16, with a byte order mark or without.

    Raises:
        DataError: it is no COCO file.
    """
    content = read_json(file)
    if is_label_studio(content):
        raise DataError(f"{file} {LABEL_STUDIO}")
    if not isinstance(content, dict):
        raise DataError(_no_coco(file, "it is no object with images, annotations and categories"))
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise DataError(_no_coco(file, f"it has no list {key!r}"))
    if any(isinstance(entry, dict) and "segments_info" in entry for entry in content["annotations"]):
        raise DataError(
            f"{file} is COCO panoptic: its masks are in pictures beside it, which are not read. Convert it "
            "with panopticapi's panoptic2detection_coco_format."
        )
    problems: list[Finding] = []

    def collect(key: str, word: str, make: Callable[[dict[Any, Any], str], Made]) -> list[Made]:
        made = []
        for number, entry in enumerate(content[key]):
            name = f"{word} {_label(entry, number)}"
            try:
                if not isinstance(entry, dict):
                    raise _Wrong("Entries of the lists are no objects.", repr(entry)[:40])
                made.append(make(entry, name))
            except _Wrong as wrong:
                rule, found = wrong.args
                problems.append(Finding("coco", "error", f"{rule} {AGAIN}", (f"{file}, {name}: {found}",)))
        return made

    pictures = collect("images", "picture", _picture)
    categories = collect("categories", "category", _category)
    problems += _doubles(file, "Pictures", [picture.id for picture in pictures])
    problems += _doubles(file, "Categories", [category.id for category in categories])
    by_id = {category.id: category for category in categories}
    known = {picture.id for picture in pictures}
    notes = collect("annotations", "annotation", lambda entry, name: _note(entry, name, known, by_id))
    return CocoFile(file, tuple(pictures), tuple(categories), tuple(notes), tuple(problems))


def read_json(file: Path) -> Any:
    """Return what a JSON file says.

    Raises:
        DataError: it is missing, no JSON, or says one thing twice.
    """
    try:
        return json.loads(file.read_bytes(), object_pairs_hook=_object)
    except OSError as error:
        raise DataError(f"{file} can't be read: {error.strerror or error}. Check the path.") from error
    except (ValueError, RecursionError) as error:  # also a wrong encoding, and numbers of 5000 digits
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else f"Invalid JSON: {error}"
        raise DataError(_no_coco(file, reason)) from error


def is_label_studio(content: object) -> bool:
    """Whether this is the JSON, or JSON_MIN, that Label Studio writes by itself: a list of its tasks.

    Source of the format: https://labelstud.io/guide/task_format
    """
    first = content[0] if isinstance(content, list) and content else None
    if not isinstance(first, dict):
        return False
    results = first.get("annotations") or first.get("completions")
    full = isinstance(results, list) and isinstance(first.get("data"), dict)
    return full or {"annotation_id", "annotator"} <= first.keys()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"an object has the key {twice!r} twice")
    return found


def _no_coco(file: Path, reason: str) -> str:
    return f"{file} is no COCO file: {reason}. It is damaged or of another kind; export it again."


def _label(entry: object, number: int) -> str:
    """Return the id of an entry as messages name it, else its place in the list."""
    found = entry.get("id") if isinstance(entry, dict) else None
    return str(found)[:40] if isinstance(found, int | str) else f"number {number} of the list"


def _id(entry: dict[Any, Any], key: str) -> Id:
    found = entry.get(key)
    if isinstance(found, str) and found:
        return found
    number = whole(found)
    if number is None:
        raise _Wrong(
            f"The {key!r} of entries is missing or no id; allowed are whole numbers and text.",
            repr(found)[:40],
        )
    return number


def _picture(entry: dict[Any, Any], name: str) -> Picture:
    told = entry.get("file_name")
    if not isinstance(told, str) or not told.strip():
        raise _Wrong("The 'file_name' of pictures is missing or empty.", repr(told)[:40])
    sides = [entry.get("height"), entry.get("width")]
    if sides == [None, None]:
        return Picture(_id(entry, "id"), told, None)
    rows, columns = (whole(side) for side in sides)
    if rows is None or columns is None or not (0 < rows < 2**31 and 0 < columns < 2**31):
        raise _Wrong(
            "The height and width of pictures are no sizes; allowed are whole numbers from 1 on.",
            f"{sides}"[:60],
        )
    return Picture(_id(entry, "id"), told, (rows, columns))


def _category(entry: dict[Any, Any], name: str) -> Category:
    told = entry.get("name")
    if not isinstance(told, str) or not told.strip():
        raise _Wrong("The 'name' of categories is missing or empty.", repr(told)[:40])
    return Category(_id(entry, "id"), class_name(told))


def _note(entry: dict[Any, Any], name: str, pictures: set[Id], categories: dict[Id, Category]) -> Note:
    picture, category = _id(entry, "image_id"), _id(entry, "category_id")
    if picture not in pictures:
        raise _Wrong("Annotations belong to no picture of the file.", _stray("image_id", picture, pictures))
    if category not in categories:
        raise _Wrong(
            "Annotations belong to no category of the file.", _stray("category_id", category, categories)
        )
    crowd = entry.get("iscrowd")
    if crowd not in (None, 0, 1):
        raise _Wrong("The 'iscrowd' of annotations is neither 0 nor 1.", repr(crowd)[:40])
    if entry.get("ignore") and not crowd:
        raise _Wrong(
            "Annotations have 'ignore' set, and tools differ in whether they are objects: allowed is "
            "'iscrowd' 1 where pixels don't count, or no 'ignore'.",
            f"ignore {entry['ignore']!r}"[:40],
        )
    return Note(
        name, picture, categories[category], bool(crowd), entry.get("segmentation"), box_of(entry.get("bbox"))
    )


def _stray(key: str, found: Id, known: Sequence[Id] | set[Id] | dict[Id, Category]) -> str:
    """Say that an id is unknown, and where it is known as the other of text and number."""
    other = next((each for each in known if str(each) == str(found)), None)
    kinds = {str: "text", int: "a number"}
    hint = f" is {kinds[type(found)]}, the id there is {kinds[type(other)]}" if other is not None else ""
    return f"{key} {str(found)[:40]!r}{hint}" if isinstance(found, str) else f"{key} {found}{hint}"


def _doubles(file: Path, what: str, ids: Sequence[Id]) -> list[Finding]:
    twice = [str(key)[:40] for key, count in Counter(ids).items() if count > 1]
    text = f"{what} share an id, so it isn't known which of them is meant. {AGAIN}"
    return [Finding("coco", "error", text, (f"{file}, id {key}",)) for key in twice]

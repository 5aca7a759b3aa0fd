"""The cases of a set, and what a dataset.json says of their files, held against those that are there.

nnU-Net v2 counts the cases to learn from (``numTraining``; v1 and the decathlon those to test on as well,
``numTest``) and says how files end (``file_ending``); the decathlon lists the files of both splits
(``training``, ``test``). Where a file says something else than its folders do, a copy was cut short or two
sets were mixed: nobody knows which of the two is meant.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from seglens.errors import DataError
from seglens.results.names import count

_SHOWN = 5
_VALID = ("validation", "valid", "val", "imagesVal", "imagesVa")
"""Under what others list the cases of a split that neither nnU-Net nor the decathlon has."""


@dataclass(frozen=True)
class Case:
    """One volume of a set: a file for each channel, and the file of its labels where there is one."""

    name: str
    channels: tuple[Path, ...]
    labels: Path | None


def refuse_contradictions(
    described: Mapping[str, Any], file: Path, splits: Mapping[str, Sequence[Case]]
) -> None:
    """Raise where ``described``, the content of ``file``, says something else of files than ``splits``.

    Raises:
        DataError: it counts or lists other cases, says another ending, names files elsewhere, or a case is
            in both splits.
    """
    if "dataset" in described:
        raise DataError(
            f"{file} lists the files of each case under 'dataset', which is not read here; allowed are "
            "imagesTr/, labelsTr/ and imagesTs/. Put the files there and remove 'dataset'."
        )
    valid = [key for key in _VALID if described.get(key)]
    if valid:
        raise DataError(
            f"{file} lists a split under {valid[0]!r}, which is not read: valid is dealt out of imagesTr/. "
            f"Remove {valid[0]!r}; to keep that split, lay the set out as images/ and masks/ in train/, "
            "valid/ and test/."
        )
    tested = {case.name.casefold() for case in splits.get("test", ())}
    both = sorted(case.name for case in splits["train"] if case.name.casefold() in tested)
    if both:
        raise DataError(
            f"{file.parent} has {_few(both)} in imagesTr/ and in imagesTs/ ({len(both)}): a model would be "
            "tested on what it has learned from. Remove them from one, or rename those that are others."
        )
    _refuse_other_number(described, "numTraining", file, "imagesTr", len(splits["train"]))
    _refuse_other_number(described, "numTest", file, "imagesTs", len(splits.get("test", ())))
    _refuse_other_ending(described.get("file_ending"), file, splits)
    for key, split in (("training", "train"), ("test", "test")):
        if key in described:
            _refuse_other_list(described[key], key, file, splits.get(split, ()))


def _refuse_other_number(described: Mapping[str, Any], key: str, file: Path, folder: str, found: int) -> None:
    number = described.get(key, found)
    if number != found:
        raise DataError(
            f"{file} says {key} {number!r}, and {file.parent / folder} holds {count(found, 'case')}. Add "
            "what is missing, or write the right number into the file."
        )


def _refuse_other_ending(ending: Any, file: Path, splits: Mapping[str, Sequence[Case]]) -> None:
    if ending is None:
        return
    paths = [
        path
        for cases in splits.values()
        for case in cases
        for path in (*case.channels, *([case.labels] if case.labels else []))
    ]
    other = [path for path in paths if not isinstance(ending, str) or not path.name.endswith(ending)]
    if other:
        raise DataError(
            f"{file} says file_ending {ending!r}, and {len(other)} of {len(paths)} files end otherwise, such "
            f"as {other[0]}. nnU-Net would pass over them. Convert or move them, or correct the file."
        )


def _refuse_other_list(listed: Any, key: str, file: Path, cases: Sequence[Case]) -> None:
    """Raise where a list of files, or of pictures with their labels, is not that of the cases."""
    entries = listed if isinstance(listed, list) else [listed]
    pairs = {_pair(entry, key, file) for entry in entries}
    there = {case.name: case for case in cases}
    # Of sets with a file for each channel some list cases, some their first files.
    there |= {case.channels[0].name: case for case in cases}
    names = {_case_of(image, there): label for image, label in pairs}
    missing = [name for name in names if name not in {case.name for case in cases}]
    extra = [case.name for case in cases if case.name not in names]
    if missing or extra:
        raise DataError(
            f"{file} lists other files under {key!r} than there are: {len(missing)} are listed and not "
            f"there ({_few(missing) or 'none'}), {len(extra)} are there and not listed "
            f"({_few(extra) or 'none'}). Add what is missing, move away what is too many or correct the list."
        )
    for case in cases:
        label = names[case.name]
        if label is not None and case.labels is not None and label != case.labels.name:
            raise DataError(
                f"{file} lists the labels {label} for {case.name!r}, and beside it is {case.labels.name}; "
                "allowed are labels of the name of their case. Rename the files, or correct the list."
            )


def _pair(entry: Any, key: str, file: Path) -> tuple[str, str | None]:
    """Return the names of the files of a picture and of its labels, where those are listed."""
    image, label = (entry.get("image"), entry.get("label")) if isinstance(entry, dict) else (entry, None)
    if not isinstance(image, str) or not isinstance(label, str | None):
        raise DataError(
            f"{file} lists {str(entry)[:80]!r} under {key!r}; allowed is the name of a file, or "
            '{"image": NAME, "label": NAME}.'
        )
    return PurePosixPath(image).name, None if label is None else PurePosixPath(label).name


def _case_of(image: str, there: Mapping[str, Case]) -> str:
    """Return the name of the case that a listed file is of; the file's own where it is of none."""
    stems = [image[:dot] for dot, letter in enumerate(image) if letter == "."]
    found = next((there[name] for name in (image, *stems) if name in there), None)
    return image if found is None else found.name


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")

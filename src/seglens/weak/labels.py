"""Image-level labels: whether a picture shows the object, not where.

What the weak pipeline works on are entries that were stripped of their mask files, with a reader that opens
the picture alone. The masks stay with `Hidden`, which notes every use of one.
"""

import csv
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from unicodedata import normalize

from seglens.data.folders import visible_files
from seglens.data.layout import Entry, PictureOnly, Split
from seglens.data.sample import Task
from seglens.data.tables import read_text
from seglens.errors import DataError, SeglensWarning, SettingError
from seglens.results.names import count

COLUMNS = ("image", "label")

YES = ("1", "true", "yes", "object", "foreground", "present", "positive")
NO = ("0", "false", "no", "none", "background", "absent", "negative")
"""The values of a label, and names of folders, that mean that the object is there or not, in lower case."""


@dataclass(frozen=True)
class Labelled:
    """Pictures that may be looked at, and for each whether it shows the object.

    Raises:
        SettingError: the entries still name masks, the reader could open them, or labels are missing.
    """

    split: Split
    present: tuple[bool, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.split.reader, PictureOnly):
            raise SettingError(
                f"The split {self.split.name!r} could read masks, which learning without masks forbids: its "
                f"reader is {self.split.reader}, allowed is PictureOnly. Make the split with "
                "seglens.weak.labels.without_masks."
            )
        known = [entry.name for entry in self.split.entries if entry.masks or entry.annotations]
        if known:
            raise SettingError(
                f"Masks are still named for {count(len(known), 'picture')}, which learning without masks "
                f"forbids. The first is {known[0]}. Make the split with seglens.weak.labels.without_masks."
            )
        if len(self.present) != len(self.split):
            raise SettingError(
                f"Received {count(len(self.present), 'label')} for {count(len(self.split), 'picture')}. "
                "Give each picture one."
            )

    def __len__(self) -> int:
        return len(self.split)

    def select(self, indices: Sequence[int]) -> "Labelled":
        """Return the pictures at ``indices`` only, in that order.

        Raises:
            SettingError: an index is out of range.
        """
        return Labelled(self.split.select(indices), tuple(self.present[index] for index in indices))

    @property
    def channels(self) -> int:
        """The channels that pictures are read with."""
        assert isinstance(self.split.reader, PictureOnly)
        return self.split.reader.channels

    @property
    def positive(self) -> tuple[int, ...]:
        """The numbers of the pictures that show the object."""
        return tuple(index for index, there in enumerate(self.present) if there)


@dataclass
class Hidden:
    """The same pictures with their masks. Each use has its purpose in ``uses``, kept in ``run.json``.

    The split is kept under a private name, so that there is one way to it, which makes a note.
    """

    _split: Split
    uses: list[dict[str, str | int]] = field(default_factory=list)

    def opened(self, purpose: str) -> Split:
        """Return the split with its masks, and note that it was asked for and what for."""
        self.uses.append({"purpose": purpose, "split": self._split.name, "pictures": len(self._split)})
        return self._split

    def select(self, indices: Sequence[int]) -> "Hidden":
        """Return the pictures at ``indices`` only; both note their uses in one list.

        Raises:
            SettingError: an index is out of range.
        """
        return Hidden(self._split.select(indices), self.uses)


def without_masks(split: Split, channels: int = 3) -> Split:
    """Return the split stripped of its masks: neither its entries nor its reader know of any."""
    bare = tuple(replace(entry, masks=(), annotations=(), labelled=False) for entry in split.entries)
    return replace(split, entries=bare, reader=PictureOnly(channels))


def pictures_alone(folder: Path, channels: int = 3) -> Split:
    """Return the pictures right in ``folder``, or else those in its ``images/``, without masks."""
    files = visible_files(folder) or visible_files(folder / "images")
    entries = tuple(Entry(file.stem, file, labelled=False) for file in files)
    return Split("train", Task(), entries, PictureOnly(channels))


def all_positive(split: Split, channels: int = 3) -> Labelled:
    """Label every picture of ``split`` as one that shows the object, and strip it of its masks."""
    return Labelled(without_masks(split, channels), (True,) * len(split))


def by_file(split: Split, file: Path, channels: int = 3) -> Labelled:
    """Label the pictures of ``split`` by a table with the columns ``image`` and ``label``.

    ``image`` is a picture's name, or its file's name with or without folder and suffix; `YES` and `NO` say
    what labels may be. Pictures that the table doesn't name are left out, with a warning where it names
    others that are not there.

    Raises:
        DataError: there is no table, it lacks a column, a label can't be read, a name is there twice with two
            labels, or it names none of the pictures.
    """
    table = read_label_table(file)
    keys = [_key(entry, table) for entry in split.entries]
    kept = [index for index, key in enumerate(keys) if key is not None]
    if not kept:
        raise DataError(
            f"{file} names {count(len(table), 'picture')}, none of which is in the {split.name} split. Its "
            f"first picture is {split.entries[0].image.name if len(split) else 'missing'}. Write the names "
            "of the files into the table."
        )
    left = [entry.name for entry, key in zip(split.entries, keys, strict=True) if key is None]
    there = {name for entry in split.entries for name in _names(entry)}
    others = [name for name in table if name not in there]
    if left and others:
        warnings.warn(
            f"{file} has no label for {count(len(left), 'picture')} of {len(keys)} ({', '.join(left[:3])}), "
            f"which are left out, and labels {len(others)} that are not there ({', '.join(others[:3])}). See "
            "that names are written as those of the files are.",
            SeglensWarning,
            stacklevel=2,
        )
    chosen = without_masks(split, channels).select(kept)
    return Labelled(chosen, tuple(table[keys[index] or ""] for index in kept))


def by_folders(folder: Path, channels: int = 3) -> Labelled:
    """Label pictures by the folder that they are in: ``object/`` and ``none/``, or others of `YES`, `NO`.

    Raises:
        DataError: there is no folder with one of the names of `YES` that holds pictures.
    """
    parts = sorted(part for part in folder.iterdir() if part.is_dir()) if folder.is_dir() else []
    pairs = [
        (Entry(f"{part.name}/{file.stem}", file, labelled=False), part.name.lower() in YES)
        for part in parts
        if part.name.lower() in (*YES, *NO)
        for file in visible_files(part)
    ]
    if not any(there for _, there in pairs):
        found = ", ".join(part.name for part in parts) or "none"
        raise DataError(
            f"{folder} has no folder of pictures that show the object. Its folders: {found}. Put pictures "
            "with the object into 'object' and those without it into 'none', or give a table with the "
            "columns image,label."
        )
    pairs.sort(key=lambda pair: pair[0].name)
    split = Split("train", Task(), tuple(entry for entry, _ in pairs), PictureOnly(channels))
    return Labelled(split, tuple(there for _, there in pairs))


def by_masks(hidden: Hidden, channels: int = 3) -> Labelled:
    """Label the pictures of a set that has masks by whether the mask is empty. The use is noted.

    Raises:
        DataError: a mask can't be read.
    """
    split = hidden.opened("image-level labels: whether a mask is empty")
    masks = (split[index].mask for index in range(len(split)))
    return Labelled(
        without_masks(split, channels), tuple(mask is not None and bool(mask.any()) for mask in masks)
    )


def read_label_table(file: Path) -> dict[str, bool]:
    """Return what a table with the columns ``image`` and ``label`` says of each picture, by ``image``.

    Raises:
        DataError: there is no table, it lacks a column, a label can't be read, or a picture has two labels.
    """
    if not file.is_file():
        raise DataError(f"There is no table of labels {file}. Give a CSV file with the columns image,label.")
    with io.StringIO(read_text(file), newline="") as stream:
        table = csv.DictReader(stream)
        missing = [name for name in COLUMNS if name not in (table.fieldnames or ())]
        if missing:
            raise DataError(
                f"{file} lacks the column {missing[0]!r}; it has "
                f"{', '.join(table.fieldnames or ()) or 'none'}. Allowed is a CSV file with the columns "
                "image,label."
            )
        labels: dict[str, bool] = {}
        for row in table:
            name = normalize("NFC", (row["image"] or "").strip())  # as names of files are compared
            there = _truth(row["label"], row["image"], file)
            if labels.setdefault(name, there) != there:
                raise DataError(f"{file} labels {name} twice, and differently. Give each picture one label.")
    return labels


def _key(entry: Entry, table: dict[str, bool]) -> str | None:
    """Return by which name the table knows a picture; the longer names are tried first."""
    return next((name for name in _names(entry) if name in table), None)


def _names(entry: Entry) -> list[str]:
    parts = entry.image.parts
    below = ("/".join(parts[start:]) for start in range(len(parts) - 1))
    names = (entry.name, str(entry.image), *below, entry.image.name, entry.image.stem)
    return [normalize("NFC", name) for name in names]


def _truth(text: str | None, image: str | None, file: Path) -> bool:
    answer = (text or "").strip().lower()
    if answer not in (*YES, *NO):
        raise DataError(
            f"{file} gives {image} the label {text!r}. Allowed are {', '.join(YES)} for pictures with the "
            f"object, and {', '.join(NO)} for those without it. Correct the table."
        )
    return answer in YES

"""Pictures that belong together: slices of a patient, crops of a slide. Splits and intervals keep them so.

A table says it (columns ``image`` and ``group``; further ones are strata), a regular expression on file
names, or the ``slices.csv`` that `seglens data slices` writes. Where nobody says it, near-duplicates that are
found by looking are groups.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from seglens.data.layout import DataSettings, Entry, Finding, Found, Grouped, Split
from seglens.data.splits import near_duplicates
from seglens.data.tables import read_rows, read_text
from seglens.data.volumes.slices import COLUMNS, TABLE
from seglens.errors import DataError, SettingError
from seglens.results.names import count
from seglens.results.resampling import GroupedBy, Resampling

IMAGE, GROUP = "image", "group"
"""The columns of a table of groups."""

MOST = 8
"""Names that an error lists."""


@dataclass(frozen=True)
class Grouping:
    """The group of each picture of a split, and who says so."""

    names: tuple[str, ...]
    grouped: Grouped

    def of(self, rows: Iterable[int]) -> tuple[str, ...]:
        """Return the groups of some of the pictures."""
        return tuple(self.names[row] for row in rows)

    def resampling(self, rows: Sequence[int]) -> Resampling:
        """Return what intervals over some of the pictures resample."""
        return Resampling(
            by=self.grouped.by,
            source=self.grouped.source,
            num_groups=len(set(self.of(rows))),
            num_images=len(rows),
        )


def grouping_of(split: Split) -> Grouping:
    """Return the groups of the pictures of ``split``: as somebody said, else near-duplicates.

    A group that was found by looking is called like its first picture, and so is a picture that is alone.
    """
    entries = split.entries
    if split.grouped.by:
        return Grouping(tuple(entry.group for entry in entries), split.grouped)
    if split.dims == 3:  # a volume is not looked at
        return Grouping(tuple(f"{number}" for number in range(len(entries))), Grouped())
    names = [entry.name for entry in entries]
    for positions in near_duplicates([entry.image for entry in entries]):
        for position in positions:
            names[position] = entries[positions[0]].name
    return Grouping(tuple(names), Grouped("near-duplicates"))


def grouped(split: Split) -> Split:
    """Return the split with the group of every picture written down, found by looking where nobody said."""
    found = grouping_of(split)
    pairs = zip(split.entries, found.names, strict=True)
    entries = tuple(replace(entry, group=group) for entry, group in pairs)
    return replace(split, entries=entries, grouped=found.grouped)


def positions_of_groups(entries: Sequence[Entry]) -> list[list[int]]:
    """Return the positions of the pictures of each group; near-duplicates where nobody said."""
    if not any(entry.group for entry in entries):
        return near_duplicates([entry.image for entry in entries])
    found: dict[str, list[int]] = {}
    for position, entry in enumerate(entries):
        found.setdefault(entry.group, []).append(position)
    return list(found.values())


def with_groups(found: Found, settings: DataSettings) -> Found:
    """Return what a layout found with the group of every picture, where somebody says it.

    Raises:
        SettingError: both a table and an expression are given, or the expression can't be used.
        DataError: the table can't be understood, or it or the expression leaves pictures without group.
    """
    if settings.groups is not None and settings.group_from is not None:
        raise SettingError(
            f"Groups are named by {settings.groups} and by the expression {settings.group_from!r}. Give "
            "--groups or --group-from, not both."
        )
    if settings.group_from is not None:
        return _grouped(found, from_names(found.entries, settings.group_from), "names", settings.group_from)
    if settings.groups is not None:
        what = "volume" if found.dims == 3 else "picture"
        rows = rows_of(settings.groups, found.entries, settings.path, what=what)
        table = {key: row[GROUP] for key, row in rows.items()}
        return _grouped(with_strata(found, rows), table, "table", settings.groups.name)
    slices = settings.path / TABLE
    if found.dims == 2 and _is_ours(slices):
        rows = rows_of(slices, found.entries, settings.path, column="volume")
        table = {key: row["volume"] for key, row in rows.items()}
        return _grouped(found, table, "volumes", TABLE)
    return found


def _is_ours(file: Path) -> bool:
    """Whether a file is the list that `seglens data slices` wrote, and not somebody's own of that name."""
    try:
        return file.is_file() and read_text(file).partition("\n")[0].strip() == ",".join(COLUMNS)
    except DataError:
        return False


Groups = Mapping[tuple[str, str], str]
"""The group of each picture, by its split and name."""


def from_names(splits: Mapping[str, Sequence[Entry]], expression: str) -> Groups:
    """Return what the first group of ``expression`` finds in the name of each picture's file.

    Raises:
        SettingError: it is no regular expression, or has no group in parentheses.
        DataError: it finds nothing in some names; they are listed.
    """
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise SettingError(f"--group-from {expression!r} is no regular expression: {error}.") from error
    if not pattern.groups:
        raise SettingError(
            f"--group-from {expression!r} has no group in parentheses. Put some around the part of the name "
            r"that tells the patient, as in '^(patient\d+)_'."
        )
    found, without = {}, []
    for split, entry in _every(splits):
        match = pattern.search(entry.image.name)
        group = match.group(1) if match else None
        if group:
            found[split, entry.name] = group
        else:
            without.append(entry.image.name)
    if without:
        raise DataError(
            f"--group-from {expression!r} finds no group in {len(without)} of {len(found) + len(without)} "
            f"file names: {_few(without)}. Correct the expression, or name groups in a table with --groups."
        )
    return found


UNKNOWN = "unknown"
"""The stratum of a picture whose cell of the table is empty."""

NO_VALUE = ("nan", "n/a", "#n/a", "null")
"""What programs write, in any case, into a cell for which they have no value."""


def with_strata(found: Found, rows: "Rows") -> Found:
    """Return what a layout found with the further columns of a table as strata of each picture."""
    entries = {
        split: tuple(replace(entry, strata=_strata_of(rows[split, entry.name])) for entry in members)
        for split, members in found.entries.items()
    }
    return replace(found, entries=entries)


def _strata_of(row: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the strata of a row. A column without a name, such as that of pandas' numbers, is none."""
    return tuple(
        (name, UNKNOWN if _is_empty(value) else value)
        for name, value in row.items()
        if name not in (IMAGE, GROUP, "")
    )


def _is_empty(value: str) -> bool:
    return not value or value.lower() in NO_VALUE


def spelt_alike(values: Iterable[str]) -> list[str]:
    """Return what is one value but for capital letters, spaces, or the way a number is written."""
    spelt: dict[object, list[str]] = {}
    for value in dict.fromkeys(values):
        plain: object = " ".join(value.split()).casefold()
        with suppress(ValueError):
            plain = float(value.replace("_", " "))  # to Python 1_0 is 10
        spelt.setdefault(plain, []).append(value)
    return [" and ".join(same) for same in spelt.values() if len(same) > 1]


Rows = Mapping[tuple[str, str], Mapping[str, str]]
"""The row of each picture, by its split and name."""


def rows_of(
    file: Path,
    splits: Mapping[str, Sequence[Entry]],
    root: Path,
    *,
    column: str = GROUP,
    what: str = "picture",
) -> Rows:
    """Return the row of each picture in a table, in whose ``column`` its group stands.

    Its column ``image`` holds the path of a picture in the set, ``split/name``, the file's name, or that
    without ending; of pictures whose names are not unique one of the first two.

    Raises:
        DataError: the table can't be read, has a picture twice, an empty group, or lacks pictures.
    """
    groups: dict[str, Mapping[str, str]] = {}
    lines: dict[str, int] = {}
    for number, row in enumerate(read_rows(file, (IMAGE, column)), start=1):
        image, group = row[IMAGE].replace("\\", "/"), row[column]
        if image in lines:
            raise DataError(
                f"{file} names {image!r} twice, in rows {lines[image]} and {number}. Keep one row for each."
            )
        for name, value in ((IMAGE, image), (column, group)):
            if not value or (name == column and _is_empty(value)):
                of = f" of {image!r}" if image else ""
                given = f" ({value!r} is none)" if value else ""
                raise DataError(
                    f"{file}: row {number} has no {name}{of}{given}. Fill it in; a {what} that belongs to no "
                    "other has a group of its own."
                )
        groups[image], lines[image] = row, number
    found, without = {}, []
    entries = list(_every(splits))
    used: set[str] = set()
    alone = {key for split, entry in entries for key in _strict(split, entry, root)}
    shared = [key for split, entry in entries for key in _loose(entry)]
    times = Counter(shared)
    for split, entry in entries:
        keys = _strict(split, entry, root)
        known = [key for key in keys if key in groups] + [key for key in _loose(entry) if key in groups]
        used.update(known)
        own = [key for key in dict.fromkeys(known) if key in keys or (times[key] == 1 and key not in alone)]
        if len({tuple(pair for pair in groups[key].items() if pair[0] != IMAGE) for key in own}) > 1:
            raise DataError(
                f"{file} has {len(own)} rows for one {what} that differ: {', '.join(own)} (rows "
                f"{', '.join(str(lines[key]) for key in own)}). Keep one row for each."
            )
        if not known:
            without.append("/".join(filter(None, (split, entry.name))))
        elif known[0] not in keys and times[known[0]] > 1:
            raise DataError(
                f"{file} names {known[0]!r}, and {times[known[0]]} {what}s are called so. Name them by "
                f"their path in {root}: {keys[0]}."
            )
        else:
            found[split, entry.name] = groups[known[0]]
    if without:
        left = [image for image in groups if image not in used]
        others = f" Its rows that fit none name {_few(left)}." if left else ""
        raise DataError(
            f"{file} has no row for {len(without)} of {count(len(entries), what)}: {_few(without)}.{others} "
            f"Add them by the names of their files. A {what} that belongs to no other has a group of its own."
        )
    return found


def parted(splits: Mapping[str, Sequence[Entry]]) -> list[str]:
    """Return the groups that are in several splits, each with them."""
    where: dict[str, dict[str, int]] = {}
    for split, entry in _every(splits):
        if entry.group:
            of_group = where.setdefault(entry.group, {})
            of_group[split] = of_group.get(split, 0) + 1
    return [
        f"{group} ({', '.join(f'{num} in {split}' for split, num in found.items())})"
        for group, found in where.items()
        if len(found) > 1
    ]


def about_parted(splits: Mapping[str, Sequence[Entry]]) -> list[Finding]:
    """Return what ``data check`` says of groups that are in several splits."""
    across = parted(splits)
    return [Finding("groups-across-splits", "error", PARTED, tuple(across))] if across else []


def about_alike(splits: Mapping[str, Sequence[Entry]]) -> list[Finding]:
    """Return what ``data check`` says of pictures of different groups that look alike."""
    placed = [(f"{split}/{entry.name}", entry) for split, entry in _every(splits) if entry.group]
    alike = []
    for positions in near_duplicates([entry.image for _, entry in placed]):
        groups = dict.fromkeys(placed[position][1].group for position in positions)
        if len(groups) > 1:
            alike.append(" ~ ".join(f"{placed[i][0]} ({placed[i][1].group})" for i in positions))
    if alike:
        text = "Pictures of different groups are near-duplicates. Look whether they are of one."
        return [Finding("near-duplicates-across-groups", "note", text, tuple(alike))]
    return []


PARTED = (
    "Groups are in several splits: what a model learnt of a patient in one is no news in another. Move "
    "all of each into one, or leave the splits to Seglens."
)


def refuse_parted(splits: Mapping[str, Sequence[Entry]], path: Path) -> None:
    """Raise where a group is in several splits.

    Raises:
        DataError: some are; the first of them are named.
    """
    across = parted(splits)
    if across:
        raise DataError(f"{path}: {PARTED.rstrip('.')}. {len(across)}: {_few(across)}.")


def _grouped(found: Found, groups: Groups, by: GroupedBy, source: str) -> Found:
    entries = {
        split: tuple(replace(entry, group=groups[split, entry.name]) for entry in members)
        for split, members in found.entries.items()
    }
    return replace(found, entries=entries, grouped=Grouped(by, source))


def _every(splits: Mapping[str, Sequence[Entry]]) -> Iterable[tuple[str, Entry]]:
    return ((split, entry) for split, entries in splits.items() for entry in entries)


def _strict(split: str, entry: Entry, root: Path) -> list[str]:
    """Return what a picture alone is called: its path in the set, and split and name."""
    inside = (
        entry.image.relative_to(root).as_posix() if entry.image.is_relative_to(root) else str(entry.image)
    )
    return [inside, f"{split}/{entry.name}" if split else entry.name]


def _loose(entry: Entry) -> list[str]:
    """Return what else a picture may be called, and others with it."""
    return list(dict.fromkeys((entry.image.name, entry.name, entry.image.stem)))


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST]) + (", ..." if len(names) > MOST else "")

"""What a data set is made of, whatever its layout on disk: settings, entries, splits, findings."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field, field_validator

from seglens.arguments.validated import Validated
from seglens.data.images import read_image
from seglens.data.outlines import Annotation
from seglens.data.sample import Sample, Task, class_name
from seglens.errors import SettingError, unknown_name
from seglens.results.record import sha256, text
from seglens.results.resampling import GroupedBy
from seglens.shapes import Mask

ALL = "all"
"""The split that is every picture of a set."""


OUT_OF_FOLD = "folds"
"""The split of all pictures of the folds, each seen by the network that has not learned from it."""


class DataSettings(Validated):
    """Which data, and how to read them. Travels with the run, so ``path`` is made absolute.

    ``layout`` None means: recognise it. ``train_dir``, ``valid_dir`` and ``test_dir`` name the folders of the
    splits, below ``path`` or anywhere. ``classes`` are, for ``coco``, the categories to take, by name or id;
    for ``pairs``, the names of the values 0, 1, ... in the masks; None means one foreground. ``merge`` is for
    ``coco`` (one foreground, or a class per category), ``border`` for ``oxford-pet``. ``ignore`` is, for
    ``pairs``, the value of a mask's pixels that are in no loss and no score (often 255), ``masks`` what
    their values mean (None: 0 and one other value are one foreground), and ``palette`` names classes with
    their colours (`seglens.data.palette.read_palette`). With ``multilabel`` classes may overlap: ``coco``
    keeps every category of a pixel, ``pairs`` has a folder of masks for each class. ``split_seed`` decides
    the splits that the set doesn't come with. ``groups`` is a table of pictures that belong together,
    ``group_from`` a regular expression that finds the group in a file's name, see `seglens.data.groups`.
    With ``folds`` all pictures but those of a test split that the set comes with are dealt into so many
    parts: ``fold`` is the number of the part that is ``valid``, the rest is ``train``; without it all are.
    ``intensities`` are, for volumes, the numbers of each channel
    that become 0 and 1, see `seglens.data.volumes.sets`.
    """

    path: Path
    layout: str | None = None
    train_dir: str | None = None
    valid_dir: str | None = None
    test_dir: str | None = None
    classes: tuple[str, ...] | None = None
    merge: bool = True
    multilabel: bool = False
    border: Literal["foreground", "background", "ignore", "class"] = "foreground"
    ignore: int | None = Field(default=None, ge=0, lt=2**32)
    masks: Literal["foreground", "classes", "instances"] | None = None
    palette: tuple[tuple[str, str], ...] | None = None
    channels: int = Field(default=3, ge=1, le=1024)
    intensities: tuple[tuple[float, float] | None, ...] | None = None
    split_seed: int = Field(default=0, ge=0, lt=2**32)
    groups: Path | None = None
    group_from: str | None = None
    folds: int | None = Field(default=None, ge=2, le=100)
    fold: int | None = Field(default=None, ge=0)

    def _agree(self) -> None:
        if self.fold is not None and (self.folds is None or self.fold >= self.folds):
            known = "folds is left out" if self.folds is None else f"there are {self.folds} folds, from 0"
            raise SettingError(f"fold is {self.fold}, and {known}: name folds, and one of them.")

    @field_validator("classes")
    @classmethod
    def _plain(cls, classes: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if classes is None else tuple(map(class_name, classes))

    @field_validator("intensities")
    @classmethod
    def _upwards(cls, ends: tuple[tuple[float, float] | None, ...] | None) -> Any:
        if any(end is not None and not -inf < end[0] < end[1] < inf for end in ends or ()):
            raise SettingError(
                f"intensities are {ends}; allowed are two finite numbers for each channel, the lower "
                "one first, or None for each volume's own."
            )
        return ends

    @field_validator("path", "groups")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        return None if path is None else path.expanduser().absolute()

    def moved(self, path: Path) -> "DataSettings":
        """Return the settings of the same set in another place; a table that lay in it moves along."""
        groups = self.groups
        if groups is not None and groups.is_relative_to(self.path):
            groups = path / groups.relative_to(self.path)
        return self.model_copy(update={"path": path, "groups": groups})


class Grouped(NamedTuple):
    """Who says which pictures belong together: a table, file names, or the list of slices; and its name."""

    by: GroupedBy = ""
    source: str = ""


NOBODY = Grouped()


@dataclass(frozen=True)
class Entry:
    """One picture that has not been read yet; ``name`` is text, and unique within its split.

    ``masks`` are the mask files; ``annotations`` are outlines where a layout has those. With ``labelled``
    False nothing is known about the picture, which differs from knowing that nothing is on it. A picture that
    is in no file has the ``sha256`` of what it was when its set was taken. ``group`` is the patient, slide or
    whatever else it shares with others; empty where nobody said. ``strata`` are the further columns of the
    table of groups, each with the picture's value (scanner, sex, stain). A volume may have a file for each
    of its channels: ``image`` is the first, ``more`` are the others.
    """

    name: str
    image: Path
    masks: tuple[Path, ...] = ()
    annotations: tuple[Annotation, ...] = ()
    labelled: bool = True
    sha256: str = ""
    more: tuple[Path, ...] = ()
    group: str = ""
    strata: tuple[tuple[str, str], ...] = ()

    @property
    def channels(self) -> tuple[Path, ...]:
        """The files that the picture is read from."""
        return (self.image, *self.more)

    def __post_init__(self) -> None:
        # Records hold text only; a run must find its pictures by the names that it wrote down.
        object.__setattr__(self, "name", text(self.name))


def picture_sha256(entry: Entry) -> str | None:
    """Return a hash of a picture: of its file, or what a set without files says; None where neither is."""
    if entry.image.is_file():
        return sha256(entry.channels)
    return entry.sha256 or None


@dataclass(frozen=True)
class PictureOnly:
    """Reads the picture of an entry and nothing else: it has no code that opens a mask."""

    channels: int = 3

    def __call__(self, entry: Entry) -> Sample:
        """Return the picture without a mask; every pixel is valid.

        Raises:
            DataError: the file can't be read.
        """
        image = read_image(entry.image, self.channels)
        return Sample(entry.name, image, None, torch.ones(image.shape[1:], dtype=torch.bool))


@dataclass(frozen=True)
class Split:
    """Pictures that are used together, sorted by name, each read when it is asked for.

    Volumes have 3 ``dims``. ``grouped`` is who says which of them belong together. ``instances`` returns the
    number of the object at each pixel of a sample (see `seglens.data.instances`), where the set tells objects
    apart. ``folds`` are, of each picture, the number of the only fold that has not learned from it, where an
    evaluation asks that one.
    """

    name: str
    task: Task
    entries: tuple[Entry, ...]
    reader: Callable[[Entry], Sample]
    dims: int = 2
    grouped: Grouped = NOBODY
    instances: Callable[[Entry, Sample], Mask] | None = None
    folds: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def files(self) -> Iterator[Path]:
        """All files that the split is read from."""
        return (file for entry in self.entries for file in (*entry.channels, *entry.masks))

    def __getitem__(self, index: int) -> Sample:
        """Return a sample at its native size.

        Raises:
            DataError: a file can't be read or doesn't fit; it is named.
        """
        return self.reader(self.entries[index])

    def select(self, indices: Sequence[int]) -> "Split":
        """Return the split with the pictures at ``indices`` only, in that order.

        Raises:
            SettingError: an index is out of range.
        """
        for index in indices:
            if not 0 <= index < len(self):
                raise SettingError(
                    f"The split {self.name!r} has no picture {index}; allowed are 0 to {len(self) - 1}."
                )
        return replace(
            self,
            entries=tuple(self.entries[index] for index in indices),
            folds=tuple(self.folds[index] for index in indices) if self.folds else (),
        )


@dataclass(frozen=True)
class Finding:
    """Something about a set that its user should know; ``names`` are the pictures or files concerned.

    An ``error`` keeps the set from being used, a ``warning`` makes its results doubtful, a ``note`` informs.
    """

    kind: str
    severity: Literal["error", "warning", "note"]
    text: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """A set that was opened: its layout, its task, and its splits ``train``, ``valid`` and ``test``.

    ``warnings`` are what was noticed when its files were listed, and makes results doubtful.
    """

    settings: DataSettings
    layout: str
    task: Task
    splits: dict[str, Split]
    warnings: tuple[Finding, ...] = ()

    def split(self, name: str) -> Split:
        """Return the split called ``name``; ``all`` is every picture.

        Where two splits have pictures of one name, those of ``all`` are called ``split/name``.

        Raises:
            UnknownNameError: there is no such split.
        """
        if name == ALL:
            return self._joined()
        if name not in self.splits:
            raise unknown_name("split", name, dict.fromkeys([*self.splits, ALL]))
        return self.splits[name]

    @property
    def dims(self) -> int:
        """2 of pictures, 3 of volumes."""
        return next(iter(self.splits.values())).dims

    def sha256(self) -> str:
        """Return a hash of names, annotations and file sizes: quick, blind to a change of pixels alone."""
        digest = hashlib.sha256()
        for split in self.splits.values():
            for entry in split.entries:
                files = (*entry.channels, *entry.masks)
                sizes = [file.stat().st_size if file.is_file() else -1 for file in files]
                digest.update(
                    repr((split.name, entry.name, sizes, entry.annotations, *entry.sha256.split())).encode()
                )
        return digest.hexdigest()

    def _joined(self) -> Split:
        parts = list(self.splits.values())
        entries = [entry for part in parts for entry in part.entries]
        if len({entry.name for entry in entries}) < len(entries):
            entries = [
                replace(entry, name=f"{part.name}/{entry.name}") for part in parts for entry in part.entries
            ]
        entries.sort(key=lambda entry: entry.name)
        return replace(parts[0], name=ALL, task=self.task, entries=tuple(entries))


def no_kind(entry: Entry) -> str:
    """Return the same kind for every picture."""
    return ""


@dataclass(frozen=True)
class Searched:
    """A folder that a layout searched for files, and how the names of those that mean something end.

    ``severity`` is that of any other file: an error where the folder itself says which pictures there are, a
    warning where a list does.
    """

    folder: Path
    suffixes: tuple[str, ...]
    severity: Literal["error", "warning"] = "error"


@dataclass(frozen=True)
class Found:
    """What a layout finds on disk, before anything is read.

    ``searched`` are the folders in which its pictures and masks lie: `seglens.data.opening.look` names
    what else is there.

    ``entries`` are keyed by the splits that the set itself makes, or by ``""`` where it makes none.
    ``problems`` are what is wrong with files as a whole. Splits are made so that each has its share of every
    ``kind`` of picture. ``values`` looks at the values of all masks, and says what is wrong with them as a
    whole; a reader that depends on them looks by itself. Volumes have 3 ``dims``; ``settings`` are those of
    the set with what it says itself filled in, where it says something. ``grouped`` is who says which
    pictures belong together; ``instances`` is as in `Split`.
    """

    task: Task
    entries: dict[str, tuple[Entry, ...]]
    reader: Callable[[Entry], Sample]
    searched: tuple[Searched, ...]
    problems: tuple[Finding, ...] = ()
    kind: Callable[[Entry], str] = no_kind
    values: Callable[[], tuple[Finding, ...]] = tuple
    dims: int = 2
    settings: DataSettings | None = None
    grouped: Grouped = NOBODY
    instances: Callable[[Entry, Sample], Mask] | None = None


@dataclass(frozen=True)
class Layout:
    """One way in which sets lie on disk.

    ``recognises`` looks at the folder of one split, or of the whole set where it has no such folders.
    ``reads`` are the settings that mean something in it, of those that don't in every layout. It has
    pictures, or with 3 ``dims`` volumes.
    """

    looks_like: str
    recognises: Callable[[Path], bool]
    find: Callable[[DataSettings], Found]
    reads: tuple[str, ...]
    dims: int = 2

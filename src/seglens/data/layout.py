"""What a data set is made of, whatever its layout on disk: settings, entries, splits."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from seglens.data.images import window_of
from seglens.data.sample import Sample, Task
from seglens.errors import unknown_name


class DataSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    path: Path
    layout: str | None = None
    train_dir: str | None = None
    valid_dir: str | None = None
    test_dir: str | None = None
    classes: tuple[str, ...] | None = None
    merge: bool = True
    border: Literal["foreground", "background", "ignore", "class"] = "foreground"
    channels: int = Field(default=3, ge=1)
    split_seed: int = 0


@dataclass(frozen=True)
class Entry:
    name: str
    image: Path
    masks: tuple[Path, ...] = ()
    annotations: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Split:
    name: str
    task: Task
    entries: tuple[Entry, ...]
    reader: Callable[[Entry], Sample]

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Sample:
        return self.reader(self.entries[index])

    def select(self, indices: Sequence[int]) -> "Split":
        return Split(self.name, self.task, tuple(self.entries[i] for i in indices), self.reader)


@dataclass(frozen=True)
class Dataset:
    """A data set that was opened: which layout, what task, and its splits ``train``, ``valid`` and ``test``."""

    settings: DataSettings
    layout: str
    task: Task
    splits: dict[str, Split]

    def split(self, name: str) -> Split:
        """Return the split called ``name``; ``all`` is every picture.

        Raises:
            UnknownNameError: there is no such split.
        """
        if name == "all":
            parts = list(self.splits.values())
            return Split(
                "all", self.task, tuple(entry for part in parts for entry in part.entries), parts[0].reader
            )
        if name not in self.splits:
            raise unknown_name("split", name, [*self.splits, "all"])
        return self.splits[name]

    def sha256(self) -> str:
        """Return a hash over splits, names and file sizes: quick, so a change of pixels alone can go unseen."""
        digest = hashlib.sha256()
        for split in self.splits.values():
            for entry in split.entries:
                files = (entry.image, *entry.masks)
                sizes = [file.stat().st_size if file.is_file() else -1 for file in files]
                digest.update(repr((split.name, entry.name, sizes, entry.annotations)).encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Found:
    """What a layout finds on disk: entries by the split that the set itself makes (``""`` where it makes none)."""

    task: Task
    entries: dict[str, tuple[Entry, ...]]
    reader: Callable[[Entry], Sample]


def intensity_window(split: Split) -> tuple[float, float]:
    """Return the range of intensities that the pictures of ``split`` fill; see `images.window_of`."""
    return window_of([entry.image for entry in split.entries])

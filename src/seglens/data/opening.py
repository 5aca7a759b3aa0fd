"""Opening a data set: recognise its layout, list its entries, make the splits that it lacks."""

from types import ModuleType

from seglens.data import coco, nuclei, oxford_pet, pairs
from seglens.data.layout import Dataset, DataSettings, Entry, Split
from seglens.data.splits import SHARES, split
from seglens.errors import DataError, unknown_name

LAYOUTS: dict[str, ModuleType] = {"coco": coco, "oxford-pet": oxford_pet, "pairs": pairs, "nuclei": nuclei}
"""Tried in this order. A layout is a module with LOOKS_LIKE, recognises() and find()."""


def open_data(settings: DataSettings) -> Dataset:
    """List the pictures of a set and their splits; pictures are read when they are asked for.

    Raises:
        DataError: the folder is missing, empty or of no known layout.
        UnknownNameError: no such layout or category.
    """
    if not settings.path.is_dir():
        what = "is a file, not a folder" if settings.path.exists() else "does not exist"
        raise DataError(f"The data folder {settings.path} {what}. Name the folder that holds the set.")
    name = settings.layout or _recognise(settings)
    if name not in LAYOUTS:
        raise unknown_name("layout", name, LAYOUTS)
    found = LAYOUTS[name].find(settings)
    if not any(found.entries.values()):
        raise DataError(
            f"{settings.path} holds no picture in layout {name!r}, which looks like: {LAYOUTS[name].LOOKS_LIKE}."
        )
    entries = _complete(found.entries, settings.split_seed)
    splits = {key: Split(key, found.task, entries[key], found.reader) for key in SHARES if entries.get(key)}
    return Dataset(settings, name, found.task, splits)


def _recognise(settings: DataSettings) -> str:
    for name, layout in LAYOUTS.items():
        if layout.recognises(settings.path):
            return name
    known = "; ".join(f"{name}: {layout.LOOKS_LIKE}" for name, layout in LAYOUTS.items())
    content = "is empty" if not any(settings.path.iterdir()) else "has no known layout"
    raise DataError(f"The data folder {settings.path} {content}. Known layouts are {known}.")


def _complete(entries: dict[str, tuple[Entry, ...]], seed: int) -> dict[str, tuple[Entry, ...]]:
    """Split what has no splits; take a valid or test split that is missing out of train."""
    if "" in entries:
        return _deal(entries[""], SHARES, seed)
    missing = [name for name in ("valid", "test") if not entries.get(name)]
    if not missing or not entries.get("train"):
        return entries
    taken = {name: SHARES[name] for name in missing}
    dealt = _deal(entries["train"], {"train": 1 - sum(taken.values()), **taken}, seed)
    return {**entries, **dealt}


def _deal(entries: tuple[Entry, ...], shares: dict[str, float], seed: int) -> dict[str, tuple[Entry, ...]]:
    dealt = split([entry.image for entry in entries], shares, seed)
    return {name: tuple(entries[position] for position in positions) for name, positions in dealt.items()}

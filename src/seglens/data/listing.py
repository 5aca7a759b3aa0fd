"""The pictures of each split as they were at the training: their names, and hashes of picture and truth.

The split is part of a run. ``split.json`` in its folder lists it, so that pictures that come, go or change
later are noticed and no split is ever dealt anew::

    {"hash": "blake2b-128", "splits": {"train": {"name": "hash of the picture, hash of the truth"}}}
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

from seglens.data.groups import refuse_parted
from seglens.data.layout import Dataset, DataSettings, Entry, Found, Split
from seglens.data.opening import dataset_of, find
from seglens.errors import DataError
from seglens.results import record as records
from seglens.results.names import count
from seglens.runtime.threads import Pool

FILE_NAME = "split.json"
HASH = "blake2b-128"
UNREADABLE = "unreadable"
NEW = "new"
"""The split of the pictures that came after the training."""

Listing = Mapping[str, Mapping[str, str]]
"""For each split and each of its pictures both hashes, with a space between."""


def fingerprints(entries: Sequence[Entry]) -> list[str]:
    """Return two hashes of every picture: of its file, and of its truth (mask files and outlines)."""
    with Pool() as pool:
        return list(pool.map(_fingerprint, entries))


def write_listing(folder: Path, dataset: Dataset, name: str = FILE_NAME) -> Listing:
    """Write the splits of ``dataset`` into the run folder ``folder``, and return them."""
    splits = {
        key: dict(zip((each.name for each in split.entries), fingerprints(split.entries), strict=True))
        for key, split in dataset.splits.items()
    }
    records.write_json(folder / name, {"hash": HASH, "splits": splits})
    return splits


def copies_of_train(listing: Listing) -> dict[str, list[str]]:
    """Return for each other split the pictures whose files are those of pictures to train on."""
    learned = _pictures(listing.get("train", {}).values())
    found = {
        split: [name for name, each in names.items() if each.partition(" ")[0] in learned]
        for split, names in listing.items()
        if split != "train"
    }
    return {split: names for split, names in found.items() if names}


def seen_by(folder: Path | None, entries: Sequence[Entry]) -> dict[str, int]:
    """Return how many of the pictures each split of the run in ``folder`` holds, however they are called."""
    splits = {name: _pictures(each.values()) for name, each in (read_listing(folder) or {}).items()}
    if not any(splits.values()):
        return {}
    with Pool() as pool:
        hashes = list(pool.map(_of_picture, entries))
    return {name: sum(each in known for each in hashes) for name, known in splits.items()}


def _pictures(hashes: Iterable[str]) -> set[str]:
    return {each.partition(" ")[0] for each in hashes} - {UNREADABLE}


def read_listing(folder: Path | None, name: str = FILE_NAME) -> Listing | None:
    """Return the splits that the run in ``folder`` lists; None of a run of before, or without a training.

    Raises:
        DataError: the list is damaged.
    """
    file = None if folder is None else folder / name
    if file is None or not file.is_file():
        return None
    try:
        found = json.loads(file.read_bytes())
        splits = {
            split: {str(picture): str(each) for picture, each in names.items()}
            for split, names in found["splits"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{file} can't be read as the list of a run's splits ({type(error).__name__}: {error}). "
            "Restore it, or train again."
        ) from error
    if found.get("hash") != HASH:
        raise DataError(f"{file} lists hashes of the kind {found.get('hash')!r}; known is {HASH!r}.")
    return splits


def open_listed(settings: DataSettings, listing: Listing, folder: Path, *, masks: bool = True) -> Dataset:
    """Open a set in the splits that the run in ``folder`` lists; ``masks`` as in `open_data`.

    Raises:
        DataError: a picture has come or gone since; or as `open_data`.
    """
    layout, found = find(settings, masks=masks)
    entries, gone, added = _matched(found, listing)
    if gone or added:
        changes = [
            f"{len(names)} {what} ({_few(names)})"
            for what, names in (("gone", gone), ("added", added))
            if names
        ]
        new = " Take the pictures that were added alone with --split new." if added and not gone else ""
        raise DataError(
            f"The pictures in {settings.path} are not those that {folder} was trained with: "
            f"{' and '.join(changes)}. Its splits stay as they were: put the set back, or train again.{new} "
            f"The set as it is now, training pictures too, is --data {settings.path} --split all."
        )
    refuse_parted(entries, settings.path)
    return dataset_of(settings, layout, found, entries)


def open_new(settings: DataSettings, listing: Listing, folder: Path) -> Split:
    """Return the pictures that came after the training of the run in ``folder``.

    Raises:
        DataError: there are none, or one is a picture of the training under another name.
    """
    _, found = find(settings)
    _, _, added = _matched(found, listing)
    chosen = [entry for each in found.entries.values() for entry in each if entry.name in set(added)]
    if not chosen:
        raise DataError(
            f"No picture was added to {settings.path} since {folder} was trained. Name another split."
        )
    known = {each.partition(" ")[0]: name for names in listing.values() for name, each in names.items()}
    old = [
        f"{entry.name} (was {known[each.partition(' ')[0]]})"
        for entry, each in zip(chosen, fingerprints(chosen), strict=True)
        if each.partition(" ")[0] in known
    ]
    if old:
        raise DataError(
            f"{len(old)} of {count(len(chosen), 'picture')} added to {settings.path} were there when "
            f"{folder} was trained, under other names: {_few(old)}. Remove them, or give them "
            "their names again."
        )
    entries = tuple(sorted(chosen, key=lambda entry: entry.name))
    return Split(NEW, found.task, entries, found.reader, found.dims, found.grouped, found.instances)


def refuse_changed(dataset: Dataset, splits: Iterable[str], listing: Listing, folder: Path) -> None:
    """Raise where a picture of ``splits``, or its truth, is not what it was when ``folder`` was trained.

    Raises:
        DataError: some have changed; the first of them are named.
    """
    changed: dict[str, list[str]] = {"pictures": [], "masks or outlines": []}
    for split in splits:
        entries = dataset.splits[split].entries
        for entry, now in zip(entries, fingerprints(entries), strict=True):
            before = listing[split][entry.name]
            for kind, one, other in zip(changed, before.split(" "), now.split(" "), strict=True):
                if one != other:
                    changed[kind].append(entry.name)
    changes = [f"{len(names)} {kind} ({_few(names)})" for kind, names in changed.items() if names]
    if changes:
        path = dataset.settings.path
        raise DataError(
            f"In {path} have changed since {folder} was trained: {' and '.join(changes)}. Put them back, "
            f"or train again. To score the set as it is now, training pictures too: seglens evaluate "
            f"{folder} --data {path} --split all."
        )


def refuse_other_names(dataset: Dataset, listing: Listing, folder: Path) -> None:
    """Raise where a picture came, went or is of another split since the run in ``folder`` was begun.

    Raises:
        DataError: some did; the first of them are named.
    """
    now = {(name, entry.name) for name, split in dataset.splits.items() for entry in split.entries}
    before = {(split, name) for split, names in listing.items() for name in names}
    if now != before:
        changes = [
            f"{len(names)} {what} ({_few(sorted(f'{split}: {name}' for split, name in names))})"
            for what, names in (("gone", before - now), ("added", now - before))
            if names
        ]
        raise DataError(
            f"The pictures in {dataset.settings.path} are not those that {folder} was begun with: "
            f"{' and '.join(changes)}. Put the set back, or name another folder."
        )


def is_listed(found: Found, listing: Listing) -> bool:
    """Whether a set is that of the list, elsewhere: it has most of the names, and of some the pictures."""
    names = {name: each for split in listing.values() for name, each in split.items()}
    there = [entry for each in found.entries.values() for entry in each if entry.name in names]
    if 2 * len(there) <= len(names):
        return False
    few = there[:: -(-len(there) // 8)]
    same = [
        names[entry.name].split(" ")[0] == now.split(" ")[0]
        for entry, now in zip(few, fingerprints(few), strict=True)
    ]
    return 2 * sum(same) > len(same)


def _matched(found: Found, listing: Listing) -> tuple[dict[str, tuple[Entry, ...]], list[str], list[str]]:
    """Return the entries of each listed split, the names that are gone, and those that the list lacks.

    A split that the set doesn't come with was dealt out of all of it, or out of train.
    """
    pools = {
        split: {entry.name: entry for entry in entries} for split, entries in found.entries.items() if entries
    }
    left = {split: dict(pool) for split, pool in pools.items()}
    matched, gone = {}, []
    for split, names in listing.items():
        home = next((name for name in (split, "", "train") if name in pools), "")
        pool = pools.get(home, {})
        matched[split] = tuple(pool[name] for name in names if name in pool)
        gone += [name for name in names if name not in pool]
        for name in names:
            left.get(home, {}).pop(name, None)
    return matched, gone, [name for pool in left.values() for name in pool]


def _fingerprint(entry: Entry) -> str:
    truth = blake2b(digest_size=16)
    for file in entry.masks:
        truth.update(_of_file(file).encode())
    if entry.annotations:
        truth.update(repr(entry.annotations).encode())
    return f"{_of_picture(entry)} {truth.hexdigest()}"


def _of_picture(entry: Entry) -> str:
    picture = _of_file(entry.image)
    for file in entry.more:
        picture = blake2b(f"{picture}{_of_file(file)}".encode(), digest_size=16).hexdigest()
    return picture


def _of_file(file: Path) -> str:
    digest = blake2b(digest_size=16)
    try:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except OSError:
        return UNREADABLE
    return digest.hexdigest()


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")

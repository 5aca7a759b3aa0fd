"""Opening a set: recognise its layout, list its pictures, make the splits that it lacks."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from seglens.arguments import checked
from seglens.data import class_folders, coco, labelme, nuclei, oxford_pet, pairs
from seglens.data.coco_file import LABEL_STUDIO, is_label_studio, read_json
from seglens.data.folders import named_split, passed_over, visible_files
from seglens.data.groups import positions_of_groups, refuse_parted, spelt_alike, with_groups
from seglens.data.layout import ALL, Dataset, DataSettings, Entry, Finding, Found, Layout, Split
from seglens.data.splits import SHARES, split_groups
from seglens.data.volumes import sets
from seglens.data.volumes.copies import refuse_copies
from seglens.errors import DataError, SettingError, unknown_name
from seglens.results.names import count

_DIRS = ("train_dir", "valid_dir", "test_dir")
_OUTLINES = (*_DIRS, "classes", "merge")
_VALUES = (*_DIRS, "classes", "ignore", "masks", "palette")

LAYOUTS = {
    "nnunet": Layout(sets.NNUNET, sets.is_nnunet, sets.find_described, sets.DESCRIBED, dims=3),
    "msd": Layout(sets.MSD, sets.is_msd, sets.find_described, sets.DESCRIBED, dims=3),
    "volumes": Layout(sets.VOLUMES, sets.is_volumes, sets.find_pairs, sets.PAIRED, dims=3),
    "oxford-pet": Layout(oxford_pet.LOOKS_LIKE, oxford_pet.recognises, oxford_pet.find, ("border",)),
    "coco": Layout(coco.LOOKS_LIKE, coco.recognises, coco.find, _OUTLINES),
    "labelme": Layout(labelme.LOOKS_LIKE, labelme.recognises, labelme.find, _OUTLINES),
    "pairs": Layout(pairs.LOOKS_LIKE, pairs.recognises, pairs.find, _VALUES),
    "nuclei": Layout(nuclei.LOOKS_LIKE, nuclei.recognises, nuclei.find, _DIRS),
}
"""Tried in this order: the first that recognises a folder reads it."""

SOME_READ = {setting: None for layout in LAYOUTS.values() for setting in layout.reads}
"""Settings that not every layout reads."""

OVERLAPPING = {
    "coco": coco.find,
    "labelme": labelme.find,
    "pairs": class_folders.find,
    "nuclei": nuclei.find_classes,
    "nnunet": sets.find_described,
}
"""Layouts whose classes may overlap, and what lists their pictures then."""


@checked
def open_data(settings: DataSettings, *, masks: bool = True) -> Dataset:
    """List the pictures of a set and its splits; a picture is read when it is asked for.

    Where no setting says what the values of masks mean, all of them are looked at; with ``masks=False`` that
    waits until the first mask is asked for.

    A set without splits is dealt 70 : 15 : 15 to train, valid and test; a missing valid or test split gets
    15 % of train. A set without train is left as it is: it can be evaluated. No group is parted.

    Raises:
        DataError: the folder is missing, empty or of no known layout, pictures and masks don't pair up, or
            a group, or a volume, is in several of the splits that the set comes with.
        SettingError: a setting that the layout doesn't take.
        UnknownNameError: no such layout or category.
    """
    name, found = find(settings, masks=masks)
    if settings.folds is None:
        splits = complete_splits(found, settings.split_seed)
    else:
        splits = folded_splits(found, settings)
    refuse_parted(splits, settings.path)
    refuse_copies(splits, settings.path)
    return dataset_of(settings, name, found, splits)


def open_as_it_is(settings: DataSettings) -> Dataset:
    """List the pictures of a set in the splits that it comes with; a set without has the one split ``all``.

    Raises:
        DataError, SettingError, UnknownNameError: as `open_data`.
    """
    name, found = find(settings)
    return dataset_of(settings, name, found, {split or ALL: each for split, each in found.entries.items()})


def find(settings: DataSettings, *, masks: bool = True) -> tuple[str, Found]:
    """Return the layout of a set, and what it finds; ``masks`` as in `open_data`.

    Raises:
        DataError, SettingError, UnknownNameError: as `open_data`.
    """
    name = layout_name(settings)
    found = look(settings, name)
    problems = (*found.problems, *found.values()) if masks else found.problems
    errors = [problem for problem in join_findings(problems) if problem.severity == "error"]
    if errors:
        listed = " ".join(in_short(problem) for problem in errors)
        raise DataError(f"{settings.path}: {listed} Correct the set; 'seglens data check' lists all.")
    if not any(found.entries.values()):
        raise DataError(f"{settings.path} holds no picture in layout {name!r}: {LAYOUTS[name].looks_like}.")
    return name, found


def dataset_of(
    settings: DataSettings, layout: str, found: Found, entries: Mapping[str, tuple[Entry, ...]]
) -> Dataset:
    """Return what was found as a set whose splits have ``entries``; empty ones are left out."""
    splits = {
        split: Split(
            split, found.task, entries[split], found.reader, found.dims, found.grouped, found.instances
        )
        for split in (*SHARES, ALL)
        if entries.get(split)
    }
    warnings = tuple(problem for problem in join_findings(found.problems) if problem.severity == "warning")
    return Dataset(found.settings or settings, layout, found.task, splits, warnings)


def look(settings: DataSettings, name: str) -> Found:
    """Return what the layout called ``name`` finds; what it passes over is among the problems.

    Raises:
        DataError: files can't be used as they are.
        SettingError: a setting that the layout doesn't take.
        UnknownNameError: no such category or class.
    """
    unread = _unread(settings, name)
    if unread:
        setting, value = unread[0], getattr(settings, unread[0])
        readers = [other for other, layout in LAYOUTS.items() if setting in layout.reads]
        flag = "--no-merge" if setting == "merge" else f"--{setting.replace('_', '-')}"
        shown = f" {value}" if isinstance(value, str | int) and setting != "merge" else ""
        raise SettingError(
            f"{flag}{shown} is for data in the layout {' or '.join(map(repr, readers))}, not {name!r}, where "
            "it would do nothing: leave it out."
        )
    if settings.multilabel and name not in OVERLAPPING:
        raise SettingError(
            f"The layout {name!r} holds one class a pixel, so --multilabel is not for it. Layouts whose "
            f"classes may overlap are {', '.join(OVERLAPPING)}: leave --multilabel out, or name one."
        )
    found = OVERLAPPING[name](settings) if settings.multilabel else LAYOUTS[name].find(settings)
    found = with_groups(replace(found, problems=(*found.problems, *passed_over(found.searched))), settings)
    found = replace(found, problems=(*found.problems, *_about_case(found)))
    return found if settings.folds is None else _pooled(found)


def _about_case(found: Found) -> list[Finding]:
    """Warn where names of pictures, or of groups, differ in capital letters alone, groups in spaces, too."""
    entries = [entry for part in found.entries.values() for entry in part]
    names = dict.fromkeys(entry.name for entry in entries)
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(name.casefold(), []).append(name)
    kinds = {
        "Names of pictures differ in capital letters alone": [
            " and ".join(same) for same in alike.values() if len(same) > 1
        ],
        "Groups differ in capital letters, spaces, or how a number is written, alone": spelt_alike(
            entry.group for entry in entries
        ),
    }
    last = "Where two of them are one, give it one name."
    return [
        Finding("names-alike", "warning", f"{what}. {last}", tuple(told))
        for what, told in kinds.items()
        if told
    ]


def _pooled(found: Found) -> Found:
    """Return what was found without the splits of the set itself, but for its test split."""
    parts = {split: entries for split, entries in found.entries.items() if split != "test"}
    names = [entry.name for entries in parts.values() for entry in entries]
    unique = len(set(names)) == len(names)
    pool = [
        entry if unique or not split else replace(entry, name=f"{split}/{entry.name}")
        for split, entries in parts.items()
        for entry in entries
    ]
    test = {"test": found.entries["test"]} if found.entries.get("test") else {}
    return replace(found, entries={"": tuple(sorted(pool, key=lambda entry: entry.name)), **test})


def without_unread(settings: DataSettings, name: str) -> DataSettings:
    """Return the settings with the default for each that the layout called ``name`` doesn't read."""
    update = {setting: DataSettings.model_fields[setting].default for setting in _unread(settings, name)}
    return settings.model_copy(update=update)


def _unread(settings: DataSettings, name: str) -> list[str]:
    fields = DataSettings.model_fields
    others = [setting for setting in SOME_READ if setting not in LAYOUTS[name].reads]
    return [setting for setting in others if getattr(settings, setting) != fields[setting].default]


FEW = 20
"""Inner folders that are looked into where a folder is no set."""


def layout_name(settings: DataSettings) -> str:
    """Return the layout that the settings name, else the first that recognises the set.

    Raises:
        DataError: the folder is missing or empty, or nothing recognises it.
        UnknownNameError: the settings name a layout that doesn't exist.
    """
    if settings.layout is not None and settings.layout not in LAYOUTS:
        raise unknown_name("layout", settings.layout, LAYOUTS)
    if not settings.path.is_dir():
        what = "is a file" if settings.path.exists() else "does not exist"
        raise DataError(f"The data folder {settings.path} {what}. Name the folder that holds the set.")
    found = settings.layout or recognised(settings)
    if found is not None:
        return found
    refuse_label_studio(settings.path)
    what = "is in no known layout" if any(settings.path.iterdir()) else "is empty"
    folders = sorted(each for each in settings.path.iterdir() if each.is_dir())[:FEW]
    known = {each.name: recognised(DataSettings(path=each)) for each in folders}
    inside = ", ".join(f"{each} ({layout})" for each, layout in known.items() if layout)
    hint = f" Folders in it are sets: {inside}. Name one of them, or join them." if inside else ""
    allowed = "; ".join(f"{name}: {layout.looks_like}" for name, layout in LAYOUTS.items())
    raise DataError(
        f"The data folder {settings.path} {what}.{hint} Allowed are {allowed}. --layout names one."
    )


def refuse_label_studio(folder: Path) -> None:
    """Raise where a JSON file right in a folder that nothing recognises is Label Studio's own.

    Raises:
        DataError: it is, and what to do.
    """
    for file in visible_files(folder, (".json",)):
        try:
            found = is_label_studio(read_json(file))
        except DataError:
            continue
        if found:
            raise DataError(f"{file} {LABEL_STUDIO}")


def recognised(settings: DataSettings) -> str | None:
    """Return the first layout that recognises the set's folder, or that of one of its splits."""
    given = (settings.train_dir, settings.valid_dir, settings.test_dir)
    own = [folder for folder in settings.path.iterdir() if folder.is_dir() and named_split(folder.name)]
    folders = [settings.path, *own, *(settings.path / name for name in given if name)]
    for name, layout in LAYOUTS.items():
        if any(layout.recognises(folder) for folder in folders if folder.is_dir()):
            return name
    return None


def complete_splits(found: Found, seed: int) -> dict[str, tuple[Entry, ...]]:
    """Return the entries of each split, those that the set lacks dealt out of all of it or out of train."""
    own = {split: entries for split, entries in found.entries.items() if entries}
    pool = own.pop("", ()) or own.get("train", ())
    missing = [split for split in SHARES if split not in own and split != "train"]
    if not pool or not missing:
        return own
    shares = {split: SHARES[split] for split in missing}
    shares = {"train": 1 - sum(shares.values()), **shares}
    kinds, groups = [found.kind(entry) for entry in pool], positions_of_groups(pool)
    if len(groups) == 1 < len(pool) and found.grouped.by in ("names", "table"):
        raise DataError(
            f"All {len(pool)} pictures are of one group, {pool[0].group!r} ({found.grouped.source}): no "
            f"{' or '.join(missing)} split can be made. Correct what names the groups, or bring splits."
        )
    parts = split_groups(groups, kinds, shares, seed)
    made = {split: tuple(pool[position] for position in positions) for split, positions in parts.items()}
    return {**own, **made}


def folded_splits(found: Found, settings: DataSettings) -> dict[str, tuple[Entry, ...]]:
    """Return train and valid of one fold, or all of them as train; a test split of the set stays apart.

    No group is parted, and every fold gets its share of each kind and stratum.

    Raises:
        DataError: there are fewer groups than folds.
    """
    pool, folds = found.entries[""], settings.folds
    assert folds is not None
    groups = positions_of_groups(pool)
    if len(groups) < folds:
        raise DataError(
            f"{settings.path} has {count(len(pool), 'picture')} to train on, in "
            f"{count(len(groups), 'group')}, for {folds} folds. Every fold needs a group: choose at "
            f"most {len(groups)}."
        )
    test = {"test": found.entries["test"]} if "test" in found.entries else {}
    if settings.fold is None:
        return {"train": pool, **test}
    kinds = [f"{found.kind(entry)} {entry.strata}" for entry in pool]
    parts = split_groups(groups, kinds, {str(fold): 1 / folds for fold in range(folds)}, settings.split_seed)
    held = set(parts[str(settings.fold)])
    made = {
        "train": tuple(entry for place, entry in enumerate(pool) if place not in held),
        "valid": tuple(entry for place, entry in enumerate(pool) if place in held),
    }
    return {**made, **test}


def join_findings(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Join findings that say the same of different files, errors first."""
    names: dict[tuple[str, str, str], list[str]] = {}
    for finding in findings:
        names.setdefault((finding.severity, finding.kind, finding.text), []).extend(finding.names)
    order = ("error", "warning", "note")
    keys = sorted(names, key=lambda key: order.index(key[0]))
    return tuple(
        Finding(kind, severity, text, tuple(names[severity, kind, text]))  # type: ignore[arg-type]
        for severity, kind, text in keys
    )


def in_short(problem: Finding) -> str:
    """Say a problem in a line, with the first of the files concerned."""
    shown = ", ".join(problem.names[:3]) + (", ..." if len(problem.names) > 3 else "")
    return f"{problem.text.rstrip('.')} ({len(problem.names)}): {shown}."

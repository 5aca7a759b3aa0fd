"""The pictures that a command works on: those of the run, or others read in the same way."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from seglens.arguments import checked
from seglens.data.classes import NO_MAP, in_classes_of
from seglens.data.from_torch import is_torch
from seglens.data.intensity import warn_of_window
from seglens.data.layout import ALL, OUT_OF_FOLD, Dataset, DataSettings, Entry, Split
from seglens.data.listing import (
    NEW,
    is_listed,
    open_listed,
    open_new,
    read_listing,
    refuse_changed,
)
from seglens.data.opening import LAYOUTS, find, layout_name, open_as_it_is, open_data, without_unread
from seglens.data.sample import Sample, Task
from seglens.errors import DataError, SeglensWarning, SettingError, UserError
from seglens.models.adapters import Tool
from seglens.models.dimensions import FOR
from seglens.results import record as records
from seglens.runs import Run, fold_folder

DEFAULT = "test"
"""The split that is taken where none is named, of a set that has splits."""


@checked
def open_split(
    run: Run,
    name: str | None = None,
    *,
    data: str | Path | DataSettings | None = None,
    layout: str | None = None,
    class_map: Mapping[str, str] = NO_MAP,
    groups: str | Path | None = None,
    group_from: str | None = None,
) -> Split:
    """Return the split ``name`` of the run's own data, or of other ``data``, with the classes of the model.

    The run's own data are split as they were at the training, and must be what they were; ``new`` are the
    pictures that came later. They may lie somewhere else, which ``data`` then names. Other data are read as
    the run's own were, but for what settings say in ``data``. Classes are matched by name, see
    `seglens.data.classes.class_table`; ``class_map`` says which class of the data is which of the model,
    where they are called otherwise. ``groups`` or ``group_from`` say which pictures belong together, see
    `seglens.data.groups`; of the run's own data those of the training are known. Of a run of folds ``folds``
    are all their pictures, of which an evaluation asks the networks that have not learned from them. ``name``
    left out is ``test``, of folds without test split ``folds``; other data that come without splits are taken
    whole, as ``all``.

    Raises:
        DataError: the data are not there, can't be opened, or are not those of the training any more.
        SettingError: the run knows no data, and none are named; or classes don't match.
        UnknownNameError: there is no such split, layout or class.
    """
    stored = _stored(run)
    named = _groups_of(groups, group_from)
    if stored is not None and named:
        stored = stored.model_copy(update=named)
    if data is not None:
        given = data if isinstance(data, DataSettings) else DataSettings(path=Path(data))
        if layout is not None:
            given = DataSettings.model_validate({**given.model_dump(exclude_unset=True), "layout": layout})
        if named:
            given = DataSettings.model_validate({**given.model_dump(exclude_unset=True), **named})
        if name != ALL and stored is not None and _is_own(run, stored, given):
            stored = stored.moved(given.path).model_copy(update=_groups_of(given.groups, given.group_from))
        else:
            found = _open_other(run, stored, given)
            name = name or (ALL if list(found.splits) == [ALL] else DEFAULT)
            split = in_classes_of(run.task, found.split(name), class_map)
            warn_of_window(run.spec.window, run.spec.normalise, split)
            if run.spec.options.get("reduce_labels") and found.task.classes == run.task.classes:
                warnings.warn(
                    "The model was trained on masks whose 0 is no class (reduce_labels): its class "
                    f"{run.task.classes[0]!r} is 1 there, and 0 in these masks, as they are read. See that "
                    "they hold each value less 1, and 255 for what was 0 (--ignore 255). Else all scores are "
                    "of wrong classes.",
                    SeglensWarning,
                    stacklevel=2,
                )
            return split
    if stored is None:
        raise SettingError(
            f"The run {run.folder or 'of a wrapped module'} was not trained here and knows no data. "
            "Name some with --data."
        )
    if not stored.path.is_dir():
        raise DataError(
            f"The data of {run.folder} were in {stored.path}, which is not there. Name them with --data."
        )
    # Runs of before may have kept settings that did nothing.
    stored = without_unread(stored, layout_name(stored))
    if name is None and stored.folds is not None and "test" not in (read_listing(run.folder) or ()):
        name = OUT_OF_FOLD
    if name == OUT_OF_FOLD:
        split = _open_folds(run, stored)
    else:
        split = _open_own(run, stored, name or DEFAULT)
    return in_classes_of(_as_trained(run.task, split.task), split, class_map)


def _groups_of(groups: str | Path | None, group_from: str | None) -> dict[str, Any]:
    """Return the settings of groups; nothing where none are named. One of both replaces the other."""
    if groups is None and group_from is None:
        return {}
    table = None if groups is None else Path(groups).expanduser().absolute()
    return {"groups": table, "group_from": group_from}


def refuse_other_axes(run: Run, dims: int, what: object) -> None:
    """Raise where ``what`` are volumes (3 ``dims``) and the run is for pictures, or the other way round.

    Raises:
        SettingError: it is so.
    """
    if dims == run.spec.dims:
        return
    slices = " Write slices as pictures with 'seglens data slices'." if dims == 3 else ""
    raise SettingError(
        f"The model of {run.folder or 'this run'} is for {FOR[run.spec.dims]}, and {what} holds {FOR[dims]}. "
        f"Name {FOR[run.spec.dims]}, or another run.{slices}"
    )


def with_tool(run: Run, split: Split) -> Split:
    """Return a split whose samples the model's own tool has prepared, where it has one.

    Raises:
        SettingError: the samples come from no files.
    """
    tool = run.segmenter.tool
    if tool is None or isinstance(split.reader, WithTool):
        return split
    if is_torch(split):
        raise SettingError(
            f"The model's own tool ({run.spec.architecture}) prepares files, and the {len(split)} items of "
            f"{split.name!r} are PyTorch's. Give files, or a split of a folder."
        )
    return replace(split, reader=WithTool(split.reader, tool))


@dataclass(frozen=True)
class WithTool:
    """Reads a sample, and has the model's own tool prepare its files."""

    reader: Callable[[Entry], Sample]
    tool: Tool

    def __call__(self, entry: Entry) -> Sample:
        """Return the sample.

        Raises:
            DataError: a file can't be read or prepared.
        """
        sample = self.reader(entry)
        return replace(sample, prepared=self.tool.prepare(entry.channels, sample.grid))


def own_split(run: Run, name: str) -> Split:
    """Return a split of the run's own data for its pictures alone; whether they changed is not looked at.

    Raises:
        DataError, SettingError, UnknownNameError: as `open_split`.
    """
    stored, listing = _stored(run), read_listing(run.folder)
    if stored is None or run.folder is None:
        raise SettingError("The run was not trained here and knows no data.")
    return (open_listed(stored, listing, run.folder) if listing else open_data(stored)).split(name)


def _open_own(run: Run, stored: DataSettings, name: str) -> Split:
    """Open a split of the run's own data, and see that it is what it was at the training.

    Runs of before have no list: a hash of names, sizes and outlines stands for it.
    """
    folder = run.folder
    assert folder is not None  # the settings came from there
    listing = read_listing(folder)
    if listing is None:
        dataset, record = open_data(stored), records.read_record(folder)
        if record.kind == "train" and record.data_sha256 not in (None, dataset.sha256()):
            raise DataError(
                f"The files in {stored.path} are not those that {folder} was trained with, and it has no "
                "list of its splits. Restore them, train again, or take the set as it is now, training "
                f"pictures too, with --data {stored.path} --split all."
            )
        return dataset.split(name)
    if name == NEW:
        return open_new(stored, listing, folder)
    dataset = open_listed(stored, listing, folder)
    split = dataset.split(name)
    refuse_changed(dataset, dataset.splits if name == ALL else (name,), listing, folder)
    return split


def _open_folds(run: Run, stored: DataSettings) -> Split:
    """Open all pictures of the folds of a run, each with the number of the network that hasn't seen it."""
    if stored.folds is None or stored.fold is not None or run.folder is None:
        raise SettingError(
            f"{run.folder} has no folds, so that there is no split {OUT_OF_FOLD!r}. Name another, or train "
            "with --folds."
        )
    parts = []
    for fold in range(stored.folds):
        place = fold_folder(run.folder, fold)
        listing = read_listing(place)
        if listing is None:
            raise DataError(f"{place} has no list of its splits. Restore it, or train again.")
        dataset = open_listed(stored.model_copy(update={"fold": fold}), listing, place)
        refuse_changed(dataset, ("valid",), listing, place)
        parts.append(dataset.split("valid"))
    return replace(
        parts[0],
        name=OUT_OF_FOLD,
        entries=tuple(entry for part in parts for entry in part.entries),
        folds=tuple(fold for fold, part in enumerate(parts) for _ in part.entries),
    )


def _is_own(run: Run, stored: DataSettings, given: DataSettings) -> bool:
    """Whether ``given`` names the run's own data, there or in another place, to be read as they were."""
    if given.model_fields_set - {"path", "layout", "groups", "group_from"}:
        return False
    # Whether groups can be found has nothing to do with whose pictures these are.
    settings = stored.model_copy(update={"path": given.path, "groups": None, "group_from": None})
    listing = read_listing(run.folder)
    try:
        layout, found = find(settings)
        if given.layout not in (None, layout):
            return False
        if given.path.resolve() == stored.path.resolve():
            return True
        if listing is not None:
            return is_listed(found, listing)
        return (
            run.folder is not None
            and open_data(settings).sha256() == records.read_record(run.folder).data_sha256
        )
    except UserError:  # it isn't of their layout; opening it as others tells what is wrong with it
        return False


def _stored(run: Run) -> DataSettings | None:
    """Return the data settings in the run's folder, if it has any."""
    record = records.read_record(run.folder) if run.folder is not None else None
    if record is None or record.data is None:
        return None
    try:
        return DataSettings.model_validate(record.data.stored())
    except SettingError as error:
        raise DataError(
            f"{run.folder}/{records.FILE_NAME} describes no data: {error} Name some with --data."
        ) from error


def _as_trained(ours: Task, theirs: Task) -> Task:
    """Return the model's task with what its foreground was merged from; older runs don't tell.

    ``theirs`` is the task of the very set that it was trained on.
    """
    return ours if ours.merged else ours.model_copy(update={"merged": theirs.merged})


def _open_other(run: Run, stored: DataSettings | None, given: DataSettings) -> Dataset:
    """Open other data as the run's own, so that names say what their classes are.

    What ``given`` sets itself holds; settings of the run's own data that mean nothing in the layout of the
    others are left out. Categories of a COCO file are not merged, so that each can be found by its name;
    where the training chose some of them, those are chosen here too.
    """
    set_values = {name: getattr(given, name) for name in given.model_fields_set}
    if run.spec.intensities:
        set_values["intensities"] = run.spec.intensities
    place: dict[str, Any] = {"layout": None, "train_dir": None, "valid_dir": None, "test_dir": None}
    place |= {"classes": None, "ignore": None, "masks": None, "palette": None}
    place |= {"groups": None, "group_from": None, "folds": None, "fold": None}
    multilabel = run.task.multilabel
    base = stored or DataSettings(path=given.path, channels=run.spec.channels, multilabel=multilabel)
    settings = base.model_copy(update={**place, **set_values})
    kind, ours = layout_name(settings), run.task
    refuse_other_axes(run, LAYOUTS[kind].dims, given.path)
    settings = without_unread(settings, kind)
    like_ours: dict[str, Any] = {}
    if kind == "pairs":
        named = stored is not None and stored.classes == ours.classes
        like_ours = {"classes": ours.classes if named else None, "ignore": base.ignore}
        like_ours |= {"masks": None if base.masks == "classes" and not named else base.masks}
        like_ours |= {"palette": base.palette if set_values.get("classes") is None else None}
        if ours.multilabel and base.classes is not None:  # folders that the training chose
            like_ours["classes"] = ours.classes
    if kind == "oxford-pet" and "border" in ours.classes:
        like_ours = {"border": "class"}
    if kind in ("coco", "labelme"):
        like_ours = {"merge": False}
    found = open_as_it_is(settings.model_copy(update={**like_ours, **set_values}))
    if kind in ("coco", "labelme") and base.classes is not None and "classes" not in set_values:
        known = {name for index in range(1, len(ours.classes)) for name in ours.categories(index)}
        chosen = tuple(name for name in (*found.task.classes[1:], *found.task.unused) if name in known)
        if chosen:
            return open_as_it_is(found.settings.model_copy(update={"classes": chosen}))
    return found

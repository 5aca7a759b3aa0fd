"""Classes of one set in those of another, or of a model: by name, never by their numbers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from shlex import quote

import torch

from seglens.data.layout import Entry, Split
from seglens.data.sample import Sample, Task, class_name
from seglens.errors import SettingError, unknown_name
from seglens.masks import is_stack

NO_MAP: Mapping[str, str] = {}


def in_classes_of(task: Task, split: Split, class_map: Mapping[str, str] = NO_MAP) -> Split:
    """Return ``split`` with masks that hold the class indices of ``task``, a model's.

    Classes are matched by name, see `class_table`; of pictures without any truth nothing is asked.

    Raises:
        SettingError: the classes don't match.
        UnknownNameError: ``class_map`` names a class that isn't there.
    """
    if not class_map and not any(entry.labelled for entry in split.entries):
        return replace(split, task=task)
    table = class_table(task, split.task, class_map)
    if task.multilabel != split.task.multilabel:
        kinds = ("hold one class a pixel", "may overlap")
        raise SettingError(
            f"The classes of the model {kinds[task.multilabel]}, those of the data "
            f"{kinds[split.task.multilabel]}. Give data whose masks are of the model's kind."
        )
    num = len(task.classes)
    reader = split.reader if table == tuple(range(num)) else Renumbered(split.reader, table, num)
    return replace(split, task=task, reader=reader)


def class_table(ours: Task, theirs: Task, class_map: Mapping[str, str] = NO_MAP) -> tuple[int, ...]:
    """Return for each class of ``theirs`` (a set's) its index in ``ours`` (a model's).

    ``class_map`` says for a class of the set which one of the model it is; all others go by their names, and
    what was merged by the names that it was merged from. Every class of the model must be among those that
    the set has or lists. The first of both is the background, whatever it is called, unless its name is
    that of another class. A set whose masks only tell an object from its background names nothing: its
    foreground is the one class of a model that has one.

    Raises:
        SettingError: a class of the one is not among those of the other.
        UnknownNameError: ``class_map`` names a class that isn't there.
    """
    class_map = {class_name(name): class_name(meant) for name, meant in class_map.items()}
    for theirs_name, ours_name in class_map.items():
        if theirs_name not in (*theirs.classes, *theirs.unused):
            raise unknown_name("class of the data", theirs_name, (*theirs.classes, *theirs.unused))
        if ours_name not in ours.classes:
            raise unknown_name("class of the model", ours_name, ours.classes)
    index_of = {name: index for index in range(len(ours.classes)) for name in ours.categories(index)}
    table = [
        ours.classes.index(class_map[name])
        if name in class_map
        else _only({index_of.get(part) for part in theirs.categories(index)})
        for index, name in enumerate(theirs.classes)
    ]
    if table[0] is None and 0 not in table:
        table[0] = 0
    mapped = set(class_map.values())
    if theirs == Task() and len(ours.classes) == 2 and not class_map:
        table, mapped = [0, 1], {ours.classes[1]}
    listed = {part for index in range(len(theirs.classes)) for part in theirs.categories(index)}
    listed |= set(theirs.unused)
    lacking = [
        part
        for index in range(1, len(ours.classes))
        for part in ours.categories(index)
        if ours.classes[index] not in mapped and part not in listed
    ]
    strange = [name for name, index in zip(theirs.classes, table, strict=True) if index is None]
    if lacking or strange:
        raise SettingError(_mismatch(ours, theirs, lacking, strange))
    return tuple(index for index in table if index is not None)


@dataclass(frozen=True)
class Renumbered:
    """Reads pictures whose masks get other class indices, below ``num``: ``table`` has one for each of them.

    Of labels that may overlap those that become one are joined.
    """

    reader: Callable[[Entry], Sample]
    table: tuple[int, ...]
    num: int

    def __call__(self, entry: Entry) -> Sample:
        """Read the picture of ``entry``."""
        sample = self.reader(entry)
        if sample.mask is None:
            return sample
        if not is_stack(sample.mask):
            return replace(sample, mask=torch.tensor(self.table)[sample.mask])
        layers = torch.zeros(self.num - 1, *sample.mask.shape[1:], dtype=torch.bool)
        for index, layer in zip(self.table[1:], sample.mask, strict=True):
            if index:
                layers[index - 1] |= layer
        return replace(sample, mask=layers)


def _only(indices: set[int | None]) -> int | None:
    """Return the one index that all have; None where there are several."""
    return indices.pop() if len(indices) == 1 else None


def _option(theirs: str, ours: str) -> str:
    """Return what ``--class-map`` is given, as a shell reads it."""
    return quote(f"{theirs}={ours}")


def _mismatch(ours: Task, theirs: Task, lacking: Sequence[str], strange: Sequence[str]) -> str:
    """Say which classes both have, what is not in the other, and what to do."""
    differences = [f"the data list no {_quoted(lacking)}"] if lacking else []
    differences += [f"the model knows no {_quoted(strange)}"] if strange else []
    near = {name: _near(name, lacking or ours.classes[1:]) for name in (*strange, *theirs.unused)}
    example = next(((name, other) for name, other in near.items() if other), None)
    advice = "Say which is which with --class-map DATA=MODEL"
    if example is not None:
        advice += f"; if {example[0]!r} means {example[1]!r}, --class-map {_option(*example)}"
    elif strange:
        advice += f", such as --class-map {_option(strange[0], (*lacking, *ours.classes[1:])[0])}"
    if theirs == Task() or not strange:
        advice += ", or name all classes of the data, those too that no picture shows"
    if theirs == Task():
        advice += ": --classes names the values 0, 1, ... of masks"
    elif strange:
        advice += ", or leave categories out by choosing others with --classes"
    return (
        f"The classes of the model and of the data are not the same: {' and '.join(differences)}. The model "
        f"has {_listed(ours)}; the data have {_listed(theirs)}. {advice}."
    )


def _quoted(names: Sequence[str]) -> str:
    return " and no ".join(repr(name) for name in names)


def _listed(task: Task) -> str:
    """All names of a task, with what was merged and what is listed only."""
    names = ", ".join(task.classes)
    merged = f" (merged from {', '.join(task.merged)})" if task.merged else ""
    return names + merged + (f" (and, unused, {', '.join(task.unused)})" if task.unused else "")


def _near(name: str, others: Sequence[str]) -> str | None:
    """Return the one of ``others`` that is ``name`` but for its case, or much like it."""
    lower = {other.lower(): other for other in others}
    found = get_close_matches(name.lower(), lower, n=1, cutoff=0.7)
    return lower[found[0]] if found else None

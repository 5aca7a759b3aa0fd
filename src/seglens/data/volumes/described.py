"""What ``labels`` in a dataset.json mean: classes that exclude one another, or nnU-Net's regions."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seglens.data.sample import Task, is_background, task_of
from seglens.errors import DataError


@dataclass(frozen=True)
class Labels:
    """The classes of a set, the background first, and the label of voxels that don't count.

    ``regions`` and ``region_order`` are as in `Task`; both are empty where classes exclude one another.
    """

    classes: tuple[str, ...]
    ignore: int | None = None
    regions: tuple[tuple[int, ...], ...] = ()
    region_order: tuple[int, ...] = ()

    def task(self, what: str) -> Task:
        """Return the task with these classes; ``what`` is what an error calls them.

        Raises:
            SettingError: a name can't be used.
        """
        task = task_of(self.classes, multilabel=bool(self.regions), what=what)
        return task.model_copy(update={"regions": self.regions, "region_order": self.region_order})


def read_described(described: Mapping[str, Any], file: Path) -> Labels:
    """Return what ``labels`` say: ``{"name": 1}`` (nnU-Net v2) or ``{"1": "name"}`` (decathlon).

    A value that is a list of several labels makes the classes regions, which ``regions_class_order`` must
    list labels for. nnU-Net's label ``ignore``, which must be the highest, is no class.

    Raises:
        DataError: they can't be understood.
    """
    labels = described.get("labels")
    if not isinstance(labels, dict) or not labels:
        raise DataError(f'{file} doesn\'t list its labels. Add them: "labels": {{"background": 0, ...}}.')
    made_of: dict[str, tuple[int, ...]] = {}
    for key, value in labels.items():
        name, numbers = (value, key) if isinstance(value, str) and key.isdecimal() else (key, value)
        every = numbers if isinstance(numbers, list) else [numbers]
        if not every or any(isinstance(each, bool) or not str(each).isdecimal() for each in every):
            raise DataError(
                f"{file} gives the label {name!r} the value {numbers!r}; allowed is a whole number, or a "
                "list of them for a region."
            )
        made_of[str(name)] = tuple(sorted({int(each) for each in every}))
    if made_of.get("background", (0,)) != (0,):
        raise DataError(
            f"{file} gives 'background' the value {list(made_of['background'])}; allowed is 0, since label 0 "
            "is read as the background. Renumber the labels, in the files too."
        )
    first = next((name for name, numbers in made_of.items() if numbers == (0,)), None)
    if first is not None and not is_background(first):
        raise DataError(
            f"{file} gives {first!r} the value 0, which is read as the background: nothing would learn or "
            'score it. Call label 0 "background"; where it is an object, renumber the labels, in the files '
            "too."
        )
    ignored = made_of.pop("ignore", None)
    known = [*sorted({number for numbers in made_of.values() for number in numbers}), *(ignored or ())]
    if known != list(range(len(known))):
        ends = f"; the ignored label {ignored[0]} must be the highest" if ignored else ""
        raise DataError(
            f"{file} lists the labels {sorted(known)}; allowed are 0, 1, 2, ... without a gap, 0 being the "
            f"background{ends}."
        )
    ignore = ignored[0] if ignored else None
    if any(len(numbers) > 1 for numbers in made_of.values()):
        return _regions(made_of, described.get("regions_class_order"), ignore, file)
    by_number: dict[int, str] = {}
    for name, (number,) in made_of.items():
        if number in by_number:
            raise DataError(
                f"{file} gives {name!r} and {by_number[number]!r} the one value {number}. Give each its own."
            )
        by_number[number] = name
    return Labels(tuple(by_number[number] for number in sorted(by_number)), ignore)


def _regions(made_of: Mapping[str, tuple[int, ...]], order: Any, ignore: int | None, file: Path) -> Labels:
    background = [name for name, numbers in made_of.items() if numbers == (0,)]
    regions = {name: numbers for name, numbers in made_of.items() if numbers != (0,)}
    mixed = [name for name, numbers in regions.items() if 0 in numbers]
    if len(background) != 1 or mixed:
        found = f"the region {mixed[0]!r} holds it" if mixed else f"{len(background)} classes are"
        raise DataError(f"{file} has regions, and label 0 must be the background alone: {found}.")
    allowed = {number for numbers in regions.values() for number in numbers}
    listed = order if isinstance(order, list) else []
    if len(listed) != len(regions) or any(type(each) is not int or each not in allowed for each in listed):
        raise DataError(
            f"{file} has {len(regions)} regions ({', '.join(regions)}), and regions_class_order is "
            f"{order!r}. It must list the label to write for each region, in the same order, such as "
            f"{[min(numbers) for numbers in regions.values()]}. nnU-Net needs it, too."
        )
    return Labels((*background, *regions), ignore, tuple(regions.values()), tuple(listed))

"""What goes in: a picture with its mask, and what the classes of a mask are called."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from unicodedata import normalize

from pydantic import field_validator

from seglens.arguments.validated import Validated
from seglens.data.prepared import Prepared
from seglens.data.volumes.grid import Grid
from seglens.errors import ModelError, SettingError, unknown_name
from seglens.shapes import AnyMask, Image, Region

BACKGROUND = "background"
"""The name of class 0, and of no other class."""

PALETTE = ("#000000", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
"""Okabe and Ito (2008): colours that stay apart for colour-blind readers."""

_BACKGROUNDS = frozenset(
    "bg back none nothing other others rest void empty negative normal healthy unlabeled unlabelled outside "
    "hintergrund fond fondo sfondo achtergrond bakgrund bakgrunn tło arka-plan 背景 배경 фон".split()
)


@dataclass(frozen=True)
class Sample:
    """One picture, or volume, with its truth, not normalised (that belongs to the model's side).

    ``image`` lies in [0, 1]: the file's integer range divided out. ``mask`` holds class indices, 0 for
    the background, or where classes may overlap the pixels of each label ``Bool[l h w]``, and is None
    where no truth is known. ``valid`` is False for padding and for ignored pixels: they are in no loss, no
    target and no score.

    A volume has its axes in the order of `Grid.to_zyx`; ``grid`` is where its file has it.
    ``prepared`` is what the preprocessing of the model's own tool made of its files, where it has such.
    """

    name: str
    image: Image
    mask: AnyMask | None
    valid: Region
    grid: Grid | None = None
    prepared: Prepared | None = None

    @property
    def spacing(self) -> tuple[float, float, float] | None:
        """Millimetres from one voxel to the next along each spatial axis; None where they aren't known."""
        return None if self.grid is None else self.grid.spacing_zyx


class Task(Validated):
    """What is segmented: class names (index 0 is the background) and the colour that each is drawn in.

    With ``multilabel`` the classes may overlap: a mask has a layer for each but the background, see `masks`.
    ``merged`` are the categories that the one foreground was made of, where it was made of several.
    ``unused`` are classes that a set lists and that none of its pictures show: they are no class here.

    Classes that are nnU-Net's regions, in the order of their outputs, are made of the labels ``regions`` in
    files of masks; a prediction is one label map again by ``region_order``, see `seglens.masks.painted`.
    """

    classes: tuple[str, ...] = ("background", "foreground")
    palette: tuple[str, ...] = ()
    multilabel: bool = False
    merged: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    regions: tuple[tuple[int, ...], ...] = ()
    region_order: tuple[int, ...] = ()

    @field_validator("classes", "merged", "unused")
    @classmethod
    def _plain(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(class_name, names))

    def _agree(self) -> None:
        if len(self.classes) < 2:
            raise ValueError(f"a task needs a background and at least one class, got {self.classes}")
        twice = [name for name, num in Counter(self.classes).items() if num > 1]
        if twice:
            raise ValueError(f"the class {twice[0]!r} is named twice in {', '.join(self.classes)}")
        wrong = [name for name in self.classes[1:] if name.strip().lower() == BACKGROUND]
        if wrong:
            raise ValueError(
                f"the class {wrong[0]!r} can't be the background: that is the first, {self.classes[0]!r}"
            )
        regions = len(self.classes) - 1 if self.multilabel else 0
        if self.regions and not len(self.regions) == len(self.region_order) == regions:
            raise ValueError(
                f"there are {len(self.regions)} regions and {len(self.region_order)} labels to write them; "
                f"allowed is one for each of {regions} classes that may overlap"
            )
        if not self.palette:
            colours = tuple(PALETTE[i % len(PALETTE)] for i in range(len(self.classes)))
            object.__setattr__(self, "palette", colours)

    def categories(self, index: int) -> tuple[str, ...]:
        """Return the names that class ``index`` stands for: those that it was merged from, or its own."""
        return self.merged if index == 1 and self.merged else (self.classes[index],)

    def class_index(self, name: str) -> int:
        """Return the index of the class called ``name`` (or with that number).

        Raises:
            UnknownNameError: the task has no such class.
        """
        if name in self.classes:
            return self.classes.index(name)
        if name.isdecimal() and int(name) < len(self.classes):
            return int(name)
        raise unknown_name("class", name, self.classes)


def class_name(text: str) -> str:
    """Return a name of a class without what nobody sees: spaces around it, two in a row, accents apart."""
    return normalize("NFC", " ".join(text.split()))


def is_background(name: str) -> bool:
    """Whether a class is called as what is not segmented is called, in several languages."""
    plain = name.lower().strip(" _-")
    return plain in _BACKGROUNDS or plain.startswith(("background", "no ", "no-", "no_", "non", "not "))


def task_of(
    classes: Sequence[str],
    *,
    merged: Sequence[str] = (),
    unused: Sequence[str] = (),
    multilabel: bool = False,
    what: str,
) -> Task:
    """Return the task with these names; ``what`` is what an error calls them.

    Raises:
        SettingError: a name comes twice, there are fewer than two, or one but the first is the background.
    """
    try:
        return Task(classes=tuple(classes), merged=tuple(merged), unused=tuple(unused), multilabel=multilabel)
    except SettingError as error:
        raise SettingError(
            f"{what} can't be used: {error.__cause__}. Allowed is the background first, then each name once; "
            "rename or leave out the wrong one."
        ) from error


def refuse_background_behind(classes: Sequence[str], outputs: int) -> None:
    """Raise where a network has an output for each of ``classes``, and the background is not the first.

    Raises:
        SettingError: so it is; said with what brings it to the front.
    """
    behind = [place for place, name in enumerate(classes) if place and name.strip().lower() == BACKGROUND]
    if len(behind) == 1 and outputs == len(classes):
        order = [*behind, *(place for place in range(outputs) if place not in behind)]
        names = tuple(classes[place] for place in order)
        raise SettingError(
            f"The background stands at place {behind[0]} of the classes ({', '.join(classes)}), and must be "
            f"the first. If it is channel {behind[0]} of the network, bring both to the front: "
            f"classes={names!r} and output=lambda y: y[:, {order}]. If it is channel 0, name it first."
        )


def with_background(classes: Sequence[str], outputs: int) -> tuple[str, ...]:
    """Return the classes of a multilabel head with ``outputs``: the background in front, then the labels.

    Raises:
        ModelError: there is not one label for each output.
    """
    labels = labels_of(classes)
    if len(labels) != outputs:
        raise ModelError(
            f"The network has {outputs} output{'s' * (outputs != 1)}, but {len(labels)} labels are named "
            f"({', '.join(labels) or 'none'}): a multilabel head has one output for each label and none for "
            "the background. Name one label for each output."
        )
    return ("background", *labels)


def labels_of(classes: Sequence[str]) -> tuple[str, ...]:
    """Return ``classes`` without the background, where it is named first."""
    return tuple(classes[1:] if classes[:1] and classes[0].lower() == "background" else classes)

"""What goes in: a picture with its mask, and what the classes of a mask are called."""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, model_validator

from seglens.errors import unknown_name
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
    """One picture with its truth, not normalised (that belongs to the model's side).

    ``image`` lies in [0, 1]: the file's integer range divided out. ``mask`` holds class indices, 0 for
    the background, or where classes may overlap the pixels of each label ``Bool[l h w]``, and is None
    where no truth is known. ``valid`` is False for padding and for ignored pixels: they are in no loss, no
    target and no score.
    """

    name: str
    image: Image
    mask: AnyMask | None
    valid: Region


class Task(BaseModel):
    """What is segmented: class names (index 0 is the background) and the colour that each is drawn in.

    With ``multilabel`` the classes may overlap: a mask has a layer for each but the background, see `masks`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: tuple[str, ...] = ("background", "foreground")
    palette: tuple[str, ...] = ()
    multilabel: bool = False

    @model_validator(mode="after")
    def _complete(self) -> "Task":
        if len(self.classes) < 2:
            raise ValueError(f"a task needs a background and at least one class, got {self.classes}")
        if not self.palette:
            colours = tuple(PALETTE[i % len(PALETTE)] for i in range(len(self.classes)))
            object.__setattr__(self, "palette", colours)
        return self

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


def is_background(name: str) -> bool:
    """Whether a class is called as what is not segmented is called, in several languages."""
    plain = name.lower().strip(" _-")
    return plain in _BACKGROUNDS or plain.startswith(("background", "no ", "no-", "no_", "non", "not "))

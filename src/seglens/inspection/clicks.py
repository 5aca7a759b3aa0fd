"""Clicks on a picture become targets. Coordinates are pixels of the picture at its own size."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.ndimage import label as label_components

from seglens.data.sample import Task
from seglens.errors import SettingError
from seglens.explain.target_names import TARGETS, form_of
from seglens.inspection.opened import Opened, size_in_words
from seglens.masks import of_class
from seglens.shapes import Mask, Region

REACH = 2
"""The largest distance between a click and the component that it selects, in pixels of the grid."""

CLICKS: dict[str, str] = {
    "component": "the predicted piece under the click",
    "truth-component": "the true piece under the click",
    "point": "the pixel under the click",
    "box": "the box between two clicks",
}
"""The targets that a click selects. All others concern the whole picture, and need no click."""

WITHOUT_CLICK = tuple(name for name, form in TARGETS.items() if name not in CLICKS and not form.numbers)
"""Targets that the picture itself answers."""

ClickedPixel = tuple[int, ...]
"""Column and row, of a volume the slice too."""


def choices(opened: Opened | None) -> list[str]:
    """Return the names of the targets that can be asked for of this picture."""
    known = opened is not None and opened.has_truth
    names = [*CLICKS, *WITHOUT_CLICK]
    return [name for name in names if known or not TARGETS[name].needs_truth]


def text_of(kind: str, opened: Opened, class_index: int, clicks: Sequence[ClickedPixel]) -> str | None:
    """Return the target that ``clicks`` ask for, as `seglens.explain.target_names` writes it.

    A ``kind`` with its numbers, such as ``component:2``, says all already. None where another click is
    needed. A click beside any piece is none's: the error says what is there.

    Raises:
        UnknownNameError: there is no such kind.
        SettingError: a click is outside of the picture, or no piece is there.
    """
    form_of(kind)
    if kind not in CLICKS:
        return kind
    for place in clicks:
        _refuse_outside(place, opened)
    if len(clicks) < (2 if kind == "box" else 1):
        return None
    if kind == "point":
        return f"point:{','.join(map(str, clicks[-1]))}"
    if kind == "box":
        sides = [sorted(pair) for pair in zip(*clicks[-2:], strict=True)]
        corners = [low for low, _ in sides] + [high + 1 for _, high in sides]
        return f"box:{','.join(map(str, corners))}"
    return f"{kind}:{_piece(kind, opened, class_index, clicks[-1])}"


def class_at(kind: str, opened: Opened, place: ClickedPixel, task: Task) -> str | None:
    """Return the class of the piece under a click; None where it is background, or none is asked for.

    Where several classes overlap the click doesn't say which is meant: None.
    """
    mask = {"component": opened.mask, "truth-component": opened.sample.mask}.get(kind)
    if mask is None or not _is_inside(place, opened):
        return None
    # The last axes are rows and columns, of a volume slices before them; those of several labels come first.
    where: tuple[Any, ...] = tuple(slice(at, at + 1) for at in reversed(place))
    here = mask[(..., *where)]
    there = [index for index in range(1, len(task.classes)) if bool(of_class(here, index, len(place)))]
    return task.classes[there[0]] if len(there) == 1 else None


def number_of_piece(region: Region, *place: int) -> int:
    """Return which piece of ``region`` is at a column and row (and slice), or nearest within `REACH`.

    1 is the largest. The order is that of `seglens.explain.target.component`; 0 where no piece is near.
    """
    labels, num = label_components(region.cpu().numpy(), structure=np.ones((3,) * region.ndim))
    if not num:
        return 0
    places = np.argwhere(labels)
    away = abs(places - place[::-1]).max(axis=1)
    near = int(away.argmin())
    if away[near] > REACH:
        return 0
    sizes = np.bincount(labels.ravel())[1:]
    largest_first = np.argsort(-sizes, kind="stable")
    return int(np.flatnonzero(largest_first == labels[tuple(places[near])] - 1)[0]) + 1


def pieces_on_grid(opened: Opened, class_index: int) -> Mask:
    """Return the number of the predicted piece at each pixel of the grid, the N of ``component:N``."""
    valid = opened.part.batch.valid[0]
    region = of_class(opened.prediction.mask[0].cpu(), class_index, valid.ndim) & valid
    labels, num = label_components(region.numpy(), structure=np.ones((3,) * region.ndim))
    sizes = np.bincount(labels.ravel(), minlength=num + 1)[1:]
    number = np.zeros(num + 1, np.int64)
    number[1 + np.argsort(-sizes, kind="stable")] = np.arange(1, num + 1)
    return torch.from_numpy(number[labels])


def under_click(opened: Opened, class_index: int, place: ClickedPixel) -> str:
    """Return the target that a click alone asks for.

    It is the predicted piece there, else the true one, else the pixel.
    """
    for kind in ("component", "truth-component"):
        if number := _number_of(kind, opened, class_index, place):
            return f"{kind}:{number}"
    return f"point:{','.join(map(str, place))}"


def _number_of(kind: str, opened: Opened, class_index: int, place: ClickedPixel) -> int:
    """The number of the piece under a click, of the prediction or of the truth; 0 where there is none."""
    batch = opened.part.batch
    mask = opened.prediction.mask if kind == "component" else batch.masks
    if mask is None:
        return 0
    valid = batch.valid[0]
    region = of_class(mask[0].cpu(), class_index, valid.ndim) & valid
    return number_of_piece(region, *(round(value) for value in opened.frame.to_grid(*place)))


def _piece(kind: str, opened: Opened, class_index: int, place: ClickedPixel) -> int:
    """The number of the piece under a click, of the prediction or of the truth."""
    if number := _number_of(kind, opened, class_index, place):
        return number
    where = f"at {_in_words(place)}"
    if kind == "truth-component":
        raise SettingError(
            f"There is no true piece of this class {where}. Click on one, or ask for another target."
        )
    missed = _number_of("truth-component", opened, class_index, place)
    hint = (
        "The truth has one there: choose 'truth-component' to ask why it was missed."
        if missed
        else "Choose 'point' to ask about the pixel itself."
    )
    raise SettingError(f"The model predicts no piece of this class {where}. {hint}")


def _refuse_outside(place: ClickedPixel, opened: Opened) -> None:
    if not _is_inside(place, opened):
        raise SettingError(
            f"The click at {_in_words(place)} is outside of the picture, which is "
            f"{size_in_words(opened.frame.native)}. Click inside."
        )


def _is_inside(place: ClickedPixel, opened: Opened) -> bool:
    return all(0 <= at < length for at, length in zip(place, opened.frame.native[::-1], strict=True))


def _in_words(place: ClickedPixel) -> str:
    return ", ".join(f"{name} {at}" for name, at in zip(("column", "row", "slice"), place, strict=False))

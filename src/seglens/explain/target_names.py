"""Targets by the names that users type: ``predicted``, ``component:2``, ``point:120,84``.

`TARGETS` at the foot names them all. Coordinates are pixels of the original picture.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from seglens.axes import size_of, spelled
from seglens.data.frame import Frame
from seglens.errors import SettingError, unknown_name
from seglens.explain.target import (
    Target,
    boundary,
    component,
    for_head,
    invented,
    invented_object,
    missed,
    missed_object,
    truth,
    whole_class,
)
from seglens.masks import of_class
from seglens.runs import Run
from seglens.shapes import AnyMasks, Images, Regions


@dataclass(frozen=True, eq=False)
class Scene:
    """What a target of the command line is made from; coordinates are pixels of the original picture."""

    run: Run
    images: Images
    masks: AnyMasks | None
    valid: Regions
    class_index: int
    frames: Sequence[Frame]
    predict: Callable[[], AnyMasks] | None = None
    """Makes the predicted masks where they are not those of ``run.predict(images)``."""

    @property
    def dims(self) -> int:
        """2 of pictures, 3 of volumes."""
        return self.images.ndim - 2

    @cached_property
    def predicted_masks(self) -> AnyMasks:
        """The predicted masks; made once for all targets, and not at all where no target needs them."""
        return self.predict() if self.predict else self.run.predict(self.images).mask

    def known(self) -> AnyMasks:
        """The truth; raises where there is none."""
        if self.masks is None:
            raise SettingError(
                "This target needs the truth, but the images have no masks: give data with masks."
            )
        return self.masks

    def compared(self) -> tuple[AnyMasks, AnyMasks, int, Regions, int]:
        """What it takes to compare prediction and truth; raises where there is no truth."""
        masks = self.known()
        return self.predicted_masks, masks, self.class_index, self.valid, self.dims

    def truth(self) -> Target:
        """Where the class is."""
        return truth(self.known(), self.class_index, self.valid, dims=self.dims)

    def predicted(self) -> Regions:
        """Where the model says the class is, valid pixels only."""
        predicted = of_class(self.predicted_masks, self.class_index, self.dims)
        return predicted & self.valid.to(predicted.device)

    def both(self) -> tuple[Regions, Regions]:
        """Where the class is, and where the model says it is."""
        return self.truth().pixels, self.predicted()

    def box(self, corners: Sequence[int], label: str) -> Target:
        """A box in pixels of the original picture, at least one pixel of the grid in each.

        Of ``corners`` the columns come first: x, y, of volumes z, of the first corner and of the last.
        """
        size = (len(self.images), *size_of(self.images))
        pixels = torch.zeros(size, dtype=torch.bool, device=self.images.device)
        for region, frame in zip(pixels, self.frames, strict=True):
            ends = zip(corners[: self.dims], corners[self.dims :], frame.native[::-1], strict=True)
            if not all(0 <= first < last <= length for first, last, length in ends):
                raise SettingError(
                    f"Target {label!r} is not in the picture, which is {spelled(frame.native[::-1])} pixels."
                )
            # Whole numbers are the centres of pixels: the edges of the box lie half a pixel before them.
            edges = (
                frame.to_grid(*(number - 0.5 for number in corner))
                for corner in (corners[: self.dims], corners[self.dims :])
            )
            spans = [slice(*_span(*sorted(each))) for each in zip(*edges, strict=True)]
            region[tuple(spans[::-1])] = True
        return Target(label, self.class_index, pixels & self.valid.to(pixels.device))


@dataclass(frozen=True)
class Form:
    """How a target is written on the command line: the names of its numbers, and what makes it.

    Of ``errors`` a sheet shows what speaks for the class and what against it, side by side.
    """

    numbers: tuple[str, ...]
    make: Callable[[Scene, tuple[int, ...]], Target]
    needs_truth: bool = False
    errors: bool = False


def named_targets(texts: Sequence[str], scene: Scene, *, against: int | None = None) -> list[Target]:
    """Make the targets that the command line calls ``texts``, such as ``predicted`` or ``point:120,84``.

    Numbers follow a colon and are in pixels of the original picture, whose place on the grid the scene's
    frames tell. The prediction is computed once for all. ``against`` is the class that all of them are
    scored against, see `Target`.

    Raises:
        UnknownNameError: no such target.
        SettingError: the numbers are wrong, the target needs masks and there are none, two classes are the
            same.
    """
    return [_named(text, scene, against) for text in dict.fromkeys(texts)]


def form_of(text: str) -> Form:
    """Return the form of the target that the command line calls ``text``.

    Raises:
        UnknownNameError: no such target.
    """
    name = text.partition(":")[0]
    if name not in TARGETS:
        raise unknown_name("target", name, TARGETS)
    return TARGETS[name]


def _named(text: str, scene: Scene, against: int | None) -> Target:
    form, (name, _, rest) = form_of(text), text.partition(":")
    try:
        numbers = tuple(int(part) for part in rest.split(",")) if rest else ()
    except ValueError:
        numbers = ()
    names = form.numbers
    if scene.dims == 3:  # slices come after rows
        names = tuple(one for y in names for one in ((y, y.replace("Y", "Z")) if y[0] == "Y" else (y,)))
    if len(numbers) != len(names):
        usage = ":".join(filter(None, (name, ",".join(names))))
        raise SettingError(f"Target {text!r} can't be read. Write it as {usage!r}, with whole numbers.")
    made = form.make(scene, numbers)
    return for_head(replace(made, label=text, against=against), scene.run)


def _span(begin: float, end: float) -> tuple[int, int]:
    """The grid's pixels with their centre between two edges, or the one in the middle where there is none."""
    first, last = max(0, math.ceil(begin)), max(0, math.ceil(end))
    middle = max(0, round((begin + end) / 2))
    return (first, last) if first < last else (middle, middle + 1)


TARGETS: dict[str, Form] = {
    "predicted": Form((), lambda s, _: Target("predicted", s.class_index, s.predicted())),
    "truth": Form((), lambda s, _: s.truth(), needs_truth=True),
    "false-positive": Form((), lambda s, _: invented(*s.compared()), needs_truth=True, errors=True),
    "false-negative": Form((), lambda s, _: missed(*s.compared()), needs_truth=True, errors=True),
    "class": Form((), lambda s, _: whole_class(s.valid, s.class_index)),
    "component": Form(("N",), lambda s, n: component(s.predicted(), n[0], s.class_index)),
    "truth-component": Form(
        ("N",), lambda s, n: component(s.truth().pixels, n[0], s.class_index), needs_truth=True
    ),
    "missed": Form(
        ("N",), lambda s, n: missed_object(*s.both(), n[0], s.class_index), needs_truth=True, errors=True
    ),
    "invented": Form(
        ("N",), lambda s, n: invented_object(*s.both(), n[0], s.class_index), needs_truth=True, errors=True
    ),
    "boundary": Form((), lambda s, _: boundary(s.predicted(), s.class_index, s.valid, s.run.spec.spacing)),
    "box": Form(("X0", "Y0", "X1", "Y1"), lambda s, n: s.box(n, f"box:{','.join(map(str, n))}")),
    "point": Form(
        ("X", "Y"), lambda s, n: s.box((*n, *(one + 1 for one in n)), f"point:{','.join(map(str, n))}")
    ),
}
"""Every target of the command line. To add one: one function, one line."""

EACH_OBJECT: dict[str, Callable[[Scene], tuple[Regions, Regions]]] = {
    "missed": lambda s: s.both(),
    "invented": lambda s: s.both()[::-1],
}
"""Targets of one object each, of which ``:all`` asks for every one: where they are, and where others are."""

"""Targets: one class and a frozen set of pixels, whose score is explained and judged.

A target is a class and a **frozen** set of pixels: computed once on the clean picture, never again on a
perturbed one. A target that moves breaks the completeness of Integrated Gradients and every deletion curve.
The names that the command line knows them by are in ``target_names.py``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.ndimage import label as label_components
from torch import Tensor

from seglens.arguments import checked, in_words
from seglens.arguments.inputs import GivenMasks, Pictures, as_masks, as_regions, check_spacing
from seglens.axes import LENGTHS, MAX_POOL, as_long, axes, size_of
from seglens.errors import SettingError
from seglens.evaluate.objects import DETECTED, match, overlaps
from seglens.masks import is_stack, of_class
from seglens.objects import pieces
from seglens.runs import Run
from seglens.shapes import AnyMasks, Images, Maps, Region, Regions, Rows, Scores

Unit = Literal["sum", "mean", "probability"]
"""``sum`` over the pixels for CAMs, ``mean`` for Integrated Gradients, ``probability`` for the judges."""

BOUNDARY = 3
"""Half the width of the boundary band, in pixels."""

WHITE = (254, 255, 65535)
"""Values that mean white in masks of black and white, and hardly the number of a class."""


@dataclass(frozen=True, eq=False)
class Target:
    """One class over a frozen set of pixels for each picture of a batch.

    ``against`` asks why this class and not that one: the score is then the difference of two logits.
    ``weights`` say how much each pixel counts (all the same where left out): a window of a large picture
    stands for a share of each of its pixels only, see ``tiled/``. ``multilabel`` says that the model has
    such a head: class i is output i - 1 then. `explain` and `judge` see to it by `for_head`.
    """

    label: str
    class_index: int
    pixels: Regions
    against: int | None = None
    weights: Maps | None = None
    multilabel: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "pixels", as_regions(self.pixels, f"Target {self.label!r}: pixels"))
        for number in (self.class_index, self.against):
            if number is not None and (isinstance(number, bool) or not isinstance(number, int)):
                raise SettingError(
                    f"Target {self.label!r}: a class can't be {in_words(number)}, but its number from 0; "
                    "run.task.class_index(name) knows it."
                )
        if self.class_index < 0 or self.against == self.class_index:
            raise SettingError(
                f"Target {self.label!r}: class {self.class_index} against {self.against}, but classes are "
                "counted from 0 and two different ones are needed."
            )
        if self.multilabel and 0 in (self.class_index, self.against):
            raise SettingError(
                f"Target {self.label!r}: class 0 of a multilabel model is what has no label; it has no "
                "output of its own, so nothing speaks for it or against it. Ask about a label, from 1 on."
            )

    def empty(self) -> Bool[Tensor, " b"]:
        """Say which pictures hold no pixel of the target."""
        return ~self.pixels.flatten(1).any(1)

    def select(self, rows: slice | Rows) -> "Target":
        """Return the target of these pictures only."""
        kept = rows if isinstance(rows, slice) else rows.to(self.pixels.device)
        weights = None if self.weights is None else self.weights[kept]
        return replace(self, pixels=self.pixels[kept], weights=weights)

    def score(self, logits: Float[Tensor, "n k *size"], rows: Rows, unit: Unit = "sum") -> Scores:
        """Return one number per row of ``logits``; row i belongs to the frozen pixels of picture ``rows[i]``.

        ``sum`` and ``mean`` are over the pixels' logits, ``probability`` is the mean class probability.
        Sums are taken in float32 at least. Rows without a pixel get NaN, and a gradient of zero.

        Raises:
            SettingError: the model has no such class, or works on another grid.
        """
        if size_of(self.pixels, 1) != size_of(logits):
            raise SettingError(
                f"Target {self.label!r} was made for pictures of {size_of(self.pixels, 1)} pixels, but "
                f"the logits have {size_of(logits)}. Make the target from the same images."
            )
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        values = self.probability(logits) if unit == "probability" else self.logit(logits)
        return self.over(values, rows, unit)

    def over(self, values: Float[Tensor, "n *size"], rows: Rows, unit: Unit = "sum") -> Scores:
        """Return the sum, or else the mean, of each row's ``values`` over the frozen pixels: see `score`.

        A sum is linear: of a difference of two `logit` maps it is the difference of two scores, and keeps the
        digits that are lost where large sums are subtracted.
        """
        pixels = self.pixels.to(values.device)[rows.to(values.device)]
        every = axes(pixels, 1)
        count = pixels.sum(every)
        total = torch.where(pixels, values, 0)
        weight = count.clamp(min=1)
        if self.weights is not None:
            shares = self.weights.to(values)[rows.to(values.device)] * pixels
            total, weight = total * shares, shares.sum(every).clamp(min=torch.finfo(values.dtype).tiny)
        score = total.sum(every) if unit == "sum" else total.sum(every) / weight
        return torch.where(count > 0, score, torch.nan)

    def logit(self, logits: Float[Tensor, "n k *size"]) -> Float[Tensor, "n *size"]:
        """The class's logit: +z and -z where one channel stands for two classes."""
        outputs = logits.shape[1]
        num = outputs + 1 if self.multilabel else max(outputs, 2)
        asked = [self.class_index] + ([] if self.against is None else [self.against])
        if max(asked) >= num:
            raise SettingError(
                f"Target {self.label!r} asks for class {max(asked)}, but the model has classes 0 to "
                f"{num - 1}."
            )
        if self.multilabel:
            value = logits[:, self.class_index - 1]
            return value if self.against is None else value - logits[:, self.against - 1]
        if outputs == 1:
            # z is the log odds of class 1 against class 0 already: `against` has nothing to add.
            return logits[:, 0] if self.class_index == 1 else -logits[:, 0]
        if self.against is None:
            return logits[:, self.class_index]
        return logits[:, self.class_index] - logits[:, self.against]

    def probability(self, logits: Float[Tensor, "n k *size"]) -> Float[Tensor, "n *size"]:
        """The class's probability: among all classes, or in the choice between two of them.

        A label's own, where labels may overlap.
        """
        value = self.logit(logits)
        if self.multilabel or logits.shape[1] == 1 or self.against is not None:
            return value.sigmoid()
        return (value - logits.logsumexp(1)).exp()


def for_head(target: Target, run: Run) -> Target:
    """Return ``target`` as it is read from the outputs of this model.

    Raises:
        SettingError: it asks about class 0 of a multilabel model, or was made of masks that may overlap,
            which this model's classes don't.
    """
    multilabel = run.spec.head == "multilabel"
    if target.multilabel and not multilabel:
        raise SettingError(
            f"Target {target.label!r} was made of a stack of masks that may overlap, or for a multilabel "
            "model, but this model has one class a pixel. Make it of masks [b h w] that "
            "hold the number of a class."
        )
    return target if target.multilabel == multilabel else replace(target, multilabel=multilabel)


@checked
def predicted(run: Run, images: Pictures, class_index: int = 1, valid: Regions | None = None) -> Target:
    """Return the pixels at which the model predicts the class."""
    said = of_class(_said(run, images, class_index), class_index, run.spec.dims)
    return for_head(Target("predicted", class_index, _kept(said, valid)), run)


@checked
def truth(masks: GivenMasks, class_index: int = 1, valid: Regions | None = None, *, dims: int = 2) -> Target:
    """Return the pixels at which the true mask has the class; masks of volumes have 3 ``dims``."""
    known = as_masks(masks, dims=dims)
    pixels = of_class(known, class_index, dims)
    if not pixels.any():
        _refuse_white(known, valid, class_index)
    return _of_masks("truth", known, class_index, pixels, valid)


@checked
def false_positive(
    run: Run, images: Pictures, masks: GivenMasks, class_index: int = 1, valid: Regions | None = None
) -> Target:
    """Return the pixels that are predicted as the class and are not: why did the model invent them?"""
    dims = run.spec.dims
    return invented(
        _said(run, images, class_index), _class_numbers(run, masks, valid), class_index, valid, dims
    )


@checked
def false_negative(
    run: Run, images: Pictures, masks: GivenMasks, class_index: int = 1, valid: Regions | None = None
) -> Target:
    """Return the pixels of the class that are not predicted as it: why did the model miss them?

    Evidence for the class is half of the answer; the negative part of a map, what speaks against, is the
    other.
    """
    dims = run.spec.dims
    return missed(
        _said(run, images, class_index), _class_numbers(run, masks, valid), class_index, valid, dims
    )


def invented(
    said: AnyMasks, masks: AnyMasks, class_index: int = 1, valid: Regions | None = None, dims: int = 2
) -> Target:
    """The false positives of a prediction that is there already."""
    wrong = of_class(said, class_index, dims)
    wrong = wrong & ~_fitting(of_class(masks, class_index, dims), wrong, "masks")
    return _of_masks("false-positive", said, class_index, wrong, valid)


def missed(
    said: AnyMasks, masks: AnyMasks, class_index: int = 1, valid: Regions | None = None, dims: int = 2
) -> Target:
    """The false negatives of a prediction that is there already."""
    found = of_class(said, class_index, dims)
    lacking = ~found & _fitting(of_class(masks, class_index, dims), found, "masks")
    return _of_masks("false-negative", said, class_index, lacking, valid)


@checked
def whole_class(valid: Regions, class_index: int = 1) -> Target:
    """Return all valid pixels: what speaks for the class anywhere in the picture."""
    return Target("class", class_index, valid)


@checked
def component(region: Regions, index: int = 1, class_index: int = 1) -> Target:
    """The ``index``-th largest piece of ``region``, from 1; pixels that touch at a corner hang together.

    In a volume these are 26 neighbours.

    A picture with fewer pieces has no target.
    """
    if index < 1:
        raise SettingError(
            f"Component {index} was asked for, but components are counted from 1, the largest."
        )
    pieces = [_component(one.cpu().numpy(), index) for one in region]
    return Target(f"component:{index}", class_index, torch.from_numpy(np.stack(pieces)).to(region.device))


@checked
def missed_object(truth: Regions, predicted: Regions, index: int = 1, class_index: int = 1) -> Target:
    """The ``index``-th largest piece of the truth that no piece of the prediction matches, from 1.

    Pieces match one to one at an overlap (IoU) of `seglens.evaluate.objects.DETECTED` at least. A picture
    with fewer such pieces has no target.
    """
    return _lone(f"missed:{index}", truth, predicted, index, class_index)


@checked
def invented_object(truth: Regions, predicted: Regions, index: int = 1, class_index: int = 1) -> Target:
    """The ``index``-th largest piece of the prediction that no piece of the truth matches, from 1."""
    return _lone(f"invented:{index}", predicted, truth, index, class_index)


def unmatched(own: Region, other: Region) -> list[Region]:
    """Return the pieces of ``own`` that no piece of ``other`` matches, the largest first."""
    labels = pieces(own)
    found = overlaps(labels, pieces(other))
    taken = {row for row, _, _ in match(found, DETECTED)}
    lone = [row for row in range(len(found.truth)) if row not in taken]
    return [labels == row + 1 for row in sorted(lone, key=lambda row: -found.truth[row])]


def _lone(label: str, own: Regions, other: Regions, index: int, class_index: int) -> Target:
    if index < 1:
        raise SettingError(f"Target {label!r} was asked for, but objects are counted from 1, the largest.")
    regions = []
    for one, two in zip(own.cpu(), other.cpu(), strict=True):
        found = unmatched(one, two)
        regions.append(found[index - 1] if index <= len(found) else torch.zeros_like(one))
    return Target(label, class_index, torch.stack(regions).to(own.device))


@checked
def boundary(
    region: Regions, class_index: int = 1, valid: Regions | None = None, spacing: Sequence[float] = ()
) -> Target:
    """The band of `BOUNDARY` pixels either side of the region's edge; the picture's edge is none.

    Where ``spacing`` tells the millimetres of a pixel along each axis, the band is as wide in millimetres
    along all: `BOUNDARY` of the finest axis, of others at least one pixel.
    """
    check_spacing(spacing, region.ndim - 1)
    wide = [max(1, round(pixels)) for pixels in as_long(BOUNDARY, spacing)] if spacing else BOUNDARY
    band = dilate(region, wide) & dilate(~region, wide)
    return Target("boundary", class_index, _kept(band, valid))


@checked
def box(
    images: Images,
    x0: int,
    y0: int,
    x1: int,
    y1: int,
    class_index: int = 1,
    valid: Regions | None = None,
    *,
    z0: int | None = None,
    z1: int | None = None,
) -> Target:
    """Columns ``x0`` to ``x1`` and rows ``y0`` to ``y1`` of the input grid, the last ones not included.

    Of volumes also the slices ``z0`` to ``z1``, and the label is ``box:x0,y0,z0,x1,y1,z1``.

    Raises:
        SettingError: the box is empty or reaches out of the picture; slices of pictures, or none of volumes.
    """
    of_volumes = _has_slices(images, [z0, z1], "z0 and z1")
    slices = [(z0 or 0, z1 or 0)] if of_volumes else []
    corners = f"{x0},{y0},{z0},{x1},{y1},{z1}" if of_volumes else f"{x0},{y0},{x1},{y1}"
    height, width = images.shape[-2:]
    ends = zip([*slices, (y0, y1), (x0, x1)], size_of(images), strict=True)
    if not all(0 <= first < last <= length for (first, last), length in ends):
        depth = f", slices 0 to {images.shape[2]}" if of_volumes else ""
        raise SettingError(
            f"Box {corners} must hold a pixel and lie in the picture, which has columns 0 to "
            f"{width} and rows 0 to {height}{depth}."
        )
    pixels = torch.zeros(len(images), *size_of(images), dtype=torch.bool, device=images.device)
    pixels[(slice(None), *(slice(*each) for each in slices), slice(y0, y1), slice(x0, x1))] = True
    return Target(f"box:{corners}", class_index, _kept(pixels, valid))


@checked
def point(
    images: Images,
    x: int,
    y: int,
    class_index: int = 1,
    valid: Regions | None = None,
    *,
    z: int | None = None,
) -> Target:
    """One pixel of the input grid: column ``x``, row ``y``, of volumes also slice ``z``, from 0.

    Raises:
        SettingError: the point is not in the picture; a slice of pictures, or none of volumes.
    """
    of_volumes = _has_slices(images, [z], "z")
    height, width = images.shape[-2:]
    place = f"{x},{y},{z}" if of_volumes else f"{x},{y}"
    if not (0 <= x < width and 0 <= y < height and (z is None or 0 <= z < images.shape[2])):
        depth = f", slices 0 to {images.shape[2] - 1}" if of_volumes else ""
        raise SettingError(
            f"Point {place} is not in the picture, which has columns 0 to {width - 1} and rows 0 to "
            f"{height - 1}{depth}."
        )
    last = None if z is None else z + 1
    pixels = box(images, x, y, x + 1, y + 1, class_index, valid, z0=z, z1=last).pixels
    return Target(f"point:{place}", class_index, pixels)


def _class_numbers(run: Run, masks: GivenMasks, valid: Regions | None) -> AnyMasks:
    """Return masks whose valid pixels all hold the number of a class of the model, or a stack of labels.

    Raises:
        SettingError: a pixel holds another number.
    """
    known, count = as_masks(masks, dims=run.spec.dims), len(run.task.classes)
    if not is_stack(known):
        _refuse_white(known, valid, 1)
        beyond = _counted(known, valid)
        beyond = beyond[(beyond < 0) | (beyond >= count)]
        if len(beyond):
            raise SettingError(
                f"masks: the value {int(beyond[0])} is no class of the model; allowed are 0 to {count - 1} "
                f"({', '.join(run.task.classes)}). Pixels that nobody labelled are left out by valid="
                f"masks != {int(beyond[0])}."
            )
    return known


def _refuse_white(masks: AnyMasks, valid: Regions | None, class_index: int) -> None:
    """Refuse masks that hold nothing but black and white: white is no number of a class.

    Raises:
        SettingError: see above.
    """
    if is_stack(masks):
        return
    values = _counted(masks, valid).unique().tolist()
    if set(values) - {0} and set(values) <= {0, *WHITE}:
        raise SettingError(
            f"masks: values {', '.join(map(str, values))}, which look black and white, but class "
            f"{class_index} is meant; allowed are the numbers of classes. Write masks > 0; if {values[-1]} "
            f"marks pixels that nobody labelled, give valid=masks != {values[-1]}."
        )


def _counted(masks: AnyMasks, valid: Regions | None) -> Tensor:
    """Return the values of the pixels that count."""
    return masks.flatten() if valid is None else masks[_fitting(valid, masks, "valid")]


def _has_slices(images: Images, given: Sequence[int | None], names: str) -> bool:
    """Whether these are volumes: then all of the slices are ``given``, else none.

    Raises:
        SettingError: they are not.
    """
    volumes = images.ndim == 5
    if any((number is None) == volumes for number in given):
        what = (
            "volumes, where a slice is needed: give"
            if volumes
            else "pictures, which have no slices: leave out"
        )
        raise SettingError(f"These are {what} {names}.")
    return volumes


def dilate(regions: Regions, pixels: int | Sequence[int]) -> Regions:
    """Grow regions by ``pixels`` in all directions, diagonals too; or by so many along each axis."""
    grown, dims = regions[:, None].float(), regions.ndim - 1
    along = [pixels] * dims if isinstance(pixels, int) else pixels
    for axis in range(dims):  # one after the other: the square at once takes its side times as long
        size, padding = (
            [far if each == axis else near for each in range(dims)]
            for near, far in ((1, 2 * along[axis] + 1), (0, along[axis]))
        )
        grown = MAX_POOL[dims](grown, size, stride=1, padding=padding)
    return grown[:, 0] > 0


def _of_masks(
    label: str, masks: AnyMasks, class_index: int, pixels: Regions, valid: Regions | None
) -> Target:
    return Target(label, class_index, _kept(pixels, valid), multilabel=is_stack(masks))


def targets_on(run: Run, images: Images, given: Target | Sequence[Target]) -> tuple[Target, ...]:
    """Return one target or several as a tuple: of these images, about classes that the run has.

    Raises:
        SettingError: there is none, or one was made for other images or another model.
    """
    found = tuple(for_head(one, run) for one in ((given,) if isinstance(given, Target) else given))
    if not found:
        raise SettingError("At least one target is needed, such as seglens.targets.predicted(run, images).")
    for one in found:
        if one.pixels.shape != (len(images), *size_of(images)):
            raise SettingError(
                f"Target {one.label!r} has pixels of shape {tuple(one.pixels.shape)}, but the images have "
                f"{(len(images), *size_of(images))} (pictures, {LENGTHS[images.ndim - 2]}). Make it from "
                "the same images."
            )
        for index in (one.class_index, one.against):
            _known(run, 0 if index is None else index)
    return found


def _known(run: Run, class_index: int) -> None:
    """Refuse a class that the run doesn't have, which would be found nowhere."""
    classes = run.task.classes
    if not 0 <= class_index < len(classes):
        named = ", ".join(f"{index} {name}" for index, name in enumerate(classes))
        raise SettingError(f"There is no class {class_index}. Allowed: {named}.")


def _said(run: Run, images: Pictures, class_index: int) -> AnyMasks:
    _known(run, class_index)
    return run.predict(images).mask


def _kept(pixels: Regions, valid: Regions | None) -> Regions:
    """Invalid pixels are in no target."""
    return pixels if valid is None else pixels & _fitting(as_regions(valid, "valid"), pixels, "valid")


def _fitting(given: Tensor, like: Tensor, name: str) -> Tensor:
    """What belongs to the same pictures, on their device."""
    if given.shape != like.shape:
        raise SettingError(
            f"{name} has shape {tuple(given.shape)}, but the pictures have {tuple(like.shape)} (pictures, "
            f"{LENGTHS[like.ndim - 1]}). Bring it to the same pictures and size."
        )
    return given.to(like.device)


def _component(region: Bool[np.ndarray, "*size"], index: int) -> Bool[np.ndarray, "*size"]:
    """The ``index``-th largest component of one region; among equals the one that comes first."""
    labels, num = label_components(region, structure=np.ones([3] * region.ndim))
    if index > num:
        return np.zeros_like(region)
    sizes = np.bincount(labels.ravel())[1:]
    largest_first = np.argsort(-sizes, kind="stable")
    return labels == largest_first[index - 1] + 1

"""What is wrong with a set: ``seglens data check``.

Every file is read; one that is broken is a finding and not the end.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch
from scipy import ndimage

from seglens.arguments import checked
from seglens.data.groups import about_alike, about_parted
from seglens.data.intensity import about_range
from seglens.data.layout import DataSettings, Entry, Finding, Found, Split
from seglens.data.nuclei import num_overlapping_pixels
from seglens.data.opening import complete_splits, join_findings, layout_name, look
from seglens.data.outlines import num_shared_pixels, regions
from seglens.data.sample import Sample
from seglens.data.splits import near_duplicates as group_near_duplicates
from seglens.data.volumes.copies import about_copies
from seglens.data.volumes.sets import about_units
from seglens.errors import DataError, MaskValueError, SizeMismatchError
from seglens.masks import class_pixels, foreground, is_stack, of_class
from seglens.results.names import count
from seglens.runtime.progress import track
from seglens.runtime.threads import Pool
from seglens.shapes import AnyMask, Region

MOST = 0.5
"""Share of masks that are rectangles from which on a set is warned of."""
MIN_AREA = 16
"""Pixels below which a component says nothing about its form: a dot of 3 x 3 is a rectangle too."""
RARE = 0.01
"""Share of pixels below which a class is called rare."""


@dataclass(frozen=True)
class ClassShare:
    """How much there is of a class: share of all valid pixels, and of the labelled pictures that show it."""

    name: str
    pixels: float
    pictures: float


@dataclass(frozen=True)
class ClassCount:
    """What was read of a class in one split: pictures that show it, of how many, its objects and pixels.

    Objects are outlines or files where there is one for each, else connected components.
    """

    split: str
    name: str
    pictures: int
    of: int
    objects: int
    pixels: int


@dataclass(frozen=True)
class Findings:
    """What `check_data` found, errors first, with the pictures of each split and the class balance."""

    layout: str
    splits: dict[str, int]
    classes: tuple[ClassShare, ...]
    findings: tuple[Finding, ...]
    counts: tuple[ClassCount, ...] = ()
    dims: int = 2

    @property
    def num_errors(self) -> int:
        """How many findings keep the set from being used as it is."""
        return sum(finding.severity == "error" for finding in self.findings)

    def of(self, kind: str) -> tuple[Finding, ...]:
        """Return the findings of one kind."""
        return tuple(finding for finding in self.findings if finding.kind == kind)

    def to_json(self) -> dict[str, object]:
        """Return plain data."""
        return {**asdict(self), "num_errors": self.num_errors}


@dataclass(frozen=True)
class _Facts:
    """What one picture shows: pixels and objects of each class, all rectangles or not (None: no telling)."""

    name: str
    problems: tuple[Finding, ...] = ()
    counts: tuple[int, ...] = ()
    pixels: int = 0
    objects: tuple[int, ...] = ()
    rectangles: bool | None = None


@checked
def check_data(settings: DataSettings, *, near_duplicates: bool = True) -> Findings:
    """Read every picture and mask of a set and list what its user should know.

    Findings are of these kinds: unreadable, size-mismatch, mask-values, image-without-mask,
    mask-without-image, missing-image, unlabelled, empty-mask, near-duplicates (across splits),
    groups-across-splits, near-duplicates-across-groups, rectangles,
    overlapping-masks, overlapping-classes, intensity-range, class-balance, nothing-marked, and what else a
    layout notices about its files.

    Raises:
        DataError: the folder is missing, empty or of no known layout.
        SettingError: a setting that the layout doesn't take.
        UnknownNameError: no such layout or category.
    """
    layout = layout_name(settings)
    try:
        found = look(settings, layout)
    except DataError as error:
        return Findings(layout, {}, (), (Finding("unreadable", "error", str(error)),))
    values = found.values()
    if any(finding.severity == "error" for finding in values):
        # Not known what they mean: all above 0 is taken, so that other faults of the files are found too.
        found = look(settings.model_copy(update={"masks": "foreground", "classes": None}), layout)
    splits = complete_splits(found, settings.split_seed)
    named = [(f"{split}/{entry.name}", entry) for split, entries in splits.items() for entry in entries]
    facts = _read_all(named, found, layout)
    findings = [*found.problems, *values, *(problem for fact in facts for problem in fact.problems)]
    if not named:
        findings.append(Finding("no-pictures", "error", f"{settings.path} holds no complete picture."))
    findings += _about_rectangles(facts)
    if near_duplicates and len(found.entries) > 1:
        findings += _about_near_duplicates(splits) if found.dims == 2 else about_copies(splits)
    findings += about_parted(splits) + (about_alike(splits) if near_duplicates else [])
    first = "train" if splits.get("train") else next(iter(splits), "")
    findings += about_range(Split(first, found.task, tuple(splits.get(first, ())), found.reader, found.dims))
    if found.dims == 3 and found.settings is not None:
        findings += about_units(splits.get(first, ()), found.settings.intensities)
    classes = _class_shares(found.task.classes, facts)
    findings += _about_balance(classes)
    shown = _class_counts(found.task.classes, splits, facts)
    findings += _about_unmarked(shown)
    sizes = {split: len(entries) for split, entries in splits.items()}
    return Findings(layout, sizes, classes, join_findings(findings), shown, found.dims)


def _read_all(named: Sequence[tuple[str, Entry]], found: Found, layout: str) -> list[_Facts]:
    look_at = partial(_look_at, reader=found.reader, layout=layout, num_classes=len(found.task.classes))
    with Pool() as pool:
        return list(track(pool.map(lambda pair: look_at(*pair), named), total=len(named), what="Reading"))


def _look_at(
    name: str, entry: Entry, *, reader: Callable[[Entry], Sample], layout: str, num_classes: int
) -> _Facts:
    try:
        sample = reader(entry)
        merged = layout == "nuclei" and sample.mask is not None and not is_stack(sample.mask)
        overlap = num_overlapping_pixels(entry) if merged else 0
    except DataError as error:
        return _Facts(name, (_as_finding(error, name),))
    if sample.mask is None:
        return _Facts(name, (Finding("unlabelled", "note", "Pictures have no mask.", (name,)),))
    counts = class_pixels(sample.mask, sample.valid, num_classes)
    problems = []
    if not sample.valid.any():
        text = "Masks have every pixel ignored, so that nothing of the picture counts."
        problems.append(Finding("mask-values", "error", text, (name,)))
    if not entry.masks and not entry.annotations:
        text = "Pictures have no annotation: they are taken to show nothing."
        problems.append(Finding("unlabelled", "warning", text, (name,)))
    elif not counts[1:].any():
        problems.append(Finding("empty-mask", "note", "Masks have no foreground.", (name,)))
    if overlap:
        text = "Masks of single nuclei overlap; merged, they can't be told apart."
        problems.append(Finding("overlapping-masks", "warning", text, (name,)))
    objects = [of_class(sample.mask, index, sample.valid.ndim) for index in range(1, num_classes)]
    if entry.annotations:
        objects = regions(entry.annotations, sample.image, entry.image)
    elif not is_stack(sample.mask):
        objects = [foreground(sample.mask, sample.valid.ndim)]
    shared = 0 if is_stack(sample.mask) else num_shared_pixels(objects, entry.annotations)
    if shared:
        text = (
            "Outlines of different classes overlap: each pixel keeps the class of the smallest. Where "
            "both are meant, read the set with --multilabel."
        )
        where = (f"{name} ({shared} pixels)",)
        problems.append(Finding("overlapping-classes", "warning", text, where))
    pixels = int(sample.valid.sum())
    num_objects = _num_objects(entry, sample.mask, num_classes, sample.valid.ndim)
    shares = tuple(counts.tolist())
    return _Facts(name, tuple(problems), shares, pixels, num_objects, are_rectangles(objects))


def _num_objects(entry: Entry, mask: AnyMask, num_classes: int, dims: int) -> tuple[int, ...]:
    """Count the objects of each class: outlines, files where there are several, else connected components."""
    if entry.annotations:
        found = Counter(annotation.class_index for annotation in entry.annotations if not annotation.crowd)
        return tuple(found[index] for index in range(num_classes))
    if len(entry.masks) > 1 and num_classes == 2:
        return (0, len(entry.masks))
    pieces = (of_class(mask, index, dims).numpy() for index in range(1, num_classes))
    return (0, *(ndimage.label(region, np.ones((3,) * region.ndim))[1] for region in pieces))


def _as_finding(error: DataError, name: str) -> Finding:
    if isinstance(error, SizeMismatchError):
        return Finding("size-mismatch", "error", str(error), (name,))
    kind = "mask-values" if isinstance(error, MaskValueError) else "unreadable"
    return Finding(kind, "error", str(error), (name,))


def are_rectangles(objects: Sequence[Region]) -> bool | None:
    """Whether every component (8 or 26 neighbours) fills its bounding box; None where none can tell.

    Components whose box is below 16 pixels, or the whole picture, say nothing.
    """
    filled = []
    for pixels in objects:
        labels, _ = ndimage.label(pixels.numpy(), structure=np.ones((3,) * pixels.ndim))
        for index, box in enumerate(ndimage.find_objects(labels), start=1):
            component = labels[box] == index
            if MIN_AREA <= component.size < labels.size:
                filled.append(bool(component.all()))
    return all(filled) if filled else None


def _about_rectangles(facts: Sequence[_Facts]) -> list[Finding]:
    known = [fact for fact in facts if fact.rectangles is not None]
    boxes = tuple(fact.name for fact in known if fact.rectangles)
    if not boxes:
        return []
    if len(boxes) < MOST * len(known):
        text = f"{len(boxes)} of {count(len(known), 'mask')} are axis-aligned rectangles."
        return [Finding("rectangles", "note", text, boxes)]
    how_many = "Every mask is" if len(boxes) == len(known) else f"{len(boxes)} of {len(known)} masks are"
    text = (
        f"{how_many} made of axis-aligned rectangles: boxes, not outlines. A model learns to draw boxes, "
        "and its scores measure that."
    )
    return [Finding("rectangles", "warning", text, boxes)]


def _about_near_duplicates(splits: Mapping[str, Sequence[Entry]]) -> list[Finding]:
    placed = [(split, entry) for split, entries in splits.items() for entry in entries]
    across, leaked = [], 0
    for group in group_near_duplicates([entry.image for _, entry in placed]):
        among = [placed[position][0] for position in group]
        if len(set(among)) > 1:
            names = [placed[position][1].name for position in group]
            across.append(" ~ ".join(f"{split}/{name}" for split, name in zip(among, names, strict=True)))
            leaked += sum(split != "train" for split in among) if "train" in among else 0
    if not across:
        return []
    others = sum(split != "train" for split, _ in placed)
    text = (
        f"{count(len(across), 'group')} of near-duplicates across splits; {leaked} of "
        f"{count(others, 'picture')} outside of train have one in train: scores on them flatter."
    )
    return [Finding("near-duplicates", "warning", text, tuple(across))]


def _class_shares(classes: Sequence[str], facts: Sequence[_Facts]) -> tuple[ClassShare, ...]:
    counts = torch.tensor([fact.counts for fact in facts if fact.counts], dtype=torch.int64)
    if not len(counts):
        return ()
    pixels = counts.sum(0) / max(1, sum(fact.pixels for fact in facts))
    pictures = (counts > 0).double().mean(0)
    shares = zip(classes, pixels.tolist(), pictures.tolist(), strict=True)
    return tuple(ClassShare(name, *share) for name, *share in shares)


def _class_counts(
    classes: Sequence[str], splits: Mapping[str, Sequence[Entry]], facts: Sequence[_Facts]
) -> tuple[ClassCount, ...]:
    """Count what was read of each class but the background, in each split that has labelled pictures."""
    counted = []
    for split in splits:
        read = [fact for fact in facts if fact.name.startswith(f"{split}/") and fact.counts]
        for index, name in enumerate(classes[1:], start=1) if read else ():
            pixels = [fact.counts[index] for fact in read]
            objects = sum(fact.objects[index] for fact in read)
            counted.append(ClassCount(split, name, sum(map(bool, pixels)), len(read), objects, sum(pixels)))
    return tuple(counted)


def _about_unmarked(counts: Sequence[ClassCount]) -> list[Finding]:
    none = tuple(
        f"{row.split}: {row.name}, 0 of {count(row.of, 'picture')}" for row in counts if not row.pixels
    )
    text = (
        "Nothing is marked as a class in a split, which can neither teach nor score it. Look whether "
        "the masks or "
        "annotations were read as they are meant, or split the set in another way (--split-seed)."
    )
    return [Finding("nothing-marked", "error", text, none)] if none else []


def _about_balance(classes: Sequence[ClassShare]) -> list[Finding]:
    if not classes:
        return []
    listed = "; ".join(
        f"{share.name} {share.pixels:.1%} of pixels, in {share.pictures:.1%} of pictures" for share in classes
    )
    findings = [Finding("class-balance", "note", f"Class balance: {listed}.")]
    absent = tuple(share.name for share in classes if share.pixels == 0)
    rare = tuple(share.name for share in classes[1:] if 0 < share.pixels < RARE)
    if absent:
        findings.append(Finding("class-balance", "warning", "Classes never occur.", absent))
    if rare:
        text = f"Classes have less than {RARE:.0%} of the pixels: use a loss that bears it (Dice)."
        findings.append(Finding("class-balance", "warning", text, rare))
    return findings

"""Sets of outlined pictures: classes are chosen, outlines checked, problems listed, masks drawn.

What layouts share that have annotations instead of masks; each says what its files hold as `CocoFile`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from seglens.data.coco_file import CocoFile, Id, Note
from seglens.data.images import read_image
from seglens.data.instances import as_label_image
from seglens.data.layout import DataSettings, Entry, Finding, Found, Searched
from seglens.data.orientation import Header, frame_orientation, header_or_none
from seglens.data.outlines import (
    Annotation,
    OutlineError,
    Polygon,
    check_box,
    check_position,
    index_mask,
    label_mask,
    marks_pixels,
    parse,
    regions,
)
from seglens.data.sample import BACKGROUND, Sample, task_of
from seglens.errors import DataError, SettingError, SizeMismatchError, unknown_name
from seglens.runtime.threads import Pool
from seglens.shapes import Mask

PERCENT = 100.0
NEAR = 95.0
LARGER = 2
"""Coordinates of a set all from 0 to 100, some beyond 95, in pictures of twice that, may be percent."""

IGNORED = ("ignore", "ignored")
"""What Labelme (``__ignore__``) and others call outlines of pixels that don't count, but for underscores."""

LINE = 1.0
"""Pixels that outlines may reach out of a picture without a warning: rounding, and lines along its edge."""


@dataclass(frozen=True)
class Listed:
    """A picture of a file that is there: its name in the split, the split, and the file."""

    name: str
    split: str
    path: Path


@dataclass(frozen=True)
class Source:
    """What one file of annotations says, and which of its pictures were found."""

    content: CocoFile
    pictures: Mapping[Id, Listed]


def outlined(
    settings: DataSettings,
    sources: Sequence[Source],
    searched: Sequence[Searched],
    problems: Sequence[Finding],
) -> Found:
    """Return the entries of a set, with the outlines of the chosen categories, and what is wrong with it.

    Categories are told apart by name, since ids may differ between files. Unused ones are dropped; the
    rest is
    one foreground, or with ``merge`` False a class each, in the order of their ids. A picture without
    annotation is one with nothing on it.

    Raises:
        DataError: categories that are used share a name, or one is called background.
        SettingError: a category is asked for twice, or the background is.
        UnknownNameError: a category that was asked for doesn't exist.
    """
    names, unused = chosen_categories([source.content for source in sources], settings.classes)
    merged = settings.merge and not settings.multilabel and len(names) > 1
    classes = ("foreground",) if merged else tuple(names)
    index_of = {name: 1 if merged else position for position, name in enumerate(names, start=1)}
    found = [*problems, *(problem for source in sources for problem in source.content.problems)]
    entries: dict[str, list[Entry]] = {}
    for source in sources:
        made, wrong = _entries(source, index_of)
        found += wrong
        for split, entry in made:
            entries.setdefault(split, []).append(entry)
    found += [*_in_two_splits(entries), *_about_percent(entries), *_about_names(classes)]
    in_order = {split: tuple(sorted(each, key=lambda entry: entry.name)) for split, each in entries.items()}
    what = f"The categories of {settings.path}"
    task = task_of(
        (BACKGROUND, *classes),
        merged=names if merged else (),
        unused=unused,
        multilabel=settings.multilabel,
        what=what,
    )
    labels = len(classes) if settings.multilabel else None
    reader = partial(read_outlined, channels=settings.channels, labels=labels)
    # Of classes that may overlap one picture of numbers can't say which object a pixel is of.
    instances = None if settings.multilabel else outlined_objects
    return Found(task, in_order, reader, tuple(searched), tuple(found), is_marked, instances=instances)


def outlined_objects(entry: Entry, sample: Sample) -> Mask:
    """Return the number of the annotation at each pixel, see `as_label_image`.

    Raises:
        DataError: annotations and picture are not of one size.
    """
    drawn = [region.numpy() for region in regions(entry.annotations, sample.image, entry.image)]
    pairs = list(zip(entry.annotations, drawn, strict=True))
    objects = [region for annotation, region in pairs if not annotation.crowd]
    crowds = [region for annotation, region in pairs if annotation.crowd]
    return as_label_image(objects, sample.valid.shape, crowds)


def is_marked(entry: Entry) -> str:
    """Return the kind of a picture: whether something is outlined on it."""
    return "marked" if entry.annotations else ""


def read_outlined(entry: Entry, *, channels: int, labels: int | None = None) -> Sample:
    """Read a picture and draw its outlines, see `index_mask`; with ``labels`` that may overlap `label_mask`.

    Raises:
        DataError: the picture can't be read, or the outlines are not for it.
    """
    image = read_image(entry.image, channels)
    drawn = regions(entry.annotations, image, entry.image)
    mask, valid = index_mask(drawn, entry.annotations, (image.shape[1], image.shape[2]))
    if labels is not None:
        mask = label_mask(drawn, entry.annotations, labels, (image.shape[1], image.shape[2]))
    return Sample(entry.name, image, mask, valid)


def chosen_categories(
    files: Sequence[CocoFile], asked: tuple[str, ...] | None
) -> tuple[list[str], list[str]]:
    """Return the names of the categories to take, and of those that are listed and never used.

    ``asked`` are names or, where no name is that, ids.
    """
    name_of: dict[str, str] = {}
    known: dict[str, None] = {}
    used: set[str] = set()
    for file in files:
        categories = sorted(file.categories, key=lambda each: (isinstance(each.id, str), each.id))
        marked = Counter(note.category for note in file.notes)
        shared = Counter(category.name for category in marked)
        for name in [name for name, count in shared.items() if count > 1]:
            ids = ", ".join(str(category.id) for category in categories if category.name == name)
            raise DataError(
                f"{file.file} has several categories called {name!r}, with the ids {ids}, and "
                "annotations of each: "
                "they can't be told apart. Rename them, or make them one."
            )
        name_of = {str(category.id): category.name for category in categories} | name_of
        known.update({category.name: None for category in categories})
        used |= shared.keys()
    if asked is None:
        ground = sorted(name for name in used if _is_background(name))
        if ground:
            raise DataError(
                f"{files[0].file} has annotations of a category {ground[0]!r}: the background is what "
                "no outline "
                "covers, and no object. Name the categories to take with --classes, or take these "
                "annotations out."
            )
        ignored = {note.category.name for file in files for note in file.notes if not note.crowd}
        ignored = {name for name in ignored if _plain(name) in IGNORED}
        if ignored:
            raise DataError(
                f"{files[0].file} or one beside it has outlines called {min(ignored)!r}, which are no "
                "objects: their pixels don't count. Allowed for that is 'iscrowd' 1 in a COCO file. Or name "
                "the categories to take with --classes; these pixels are then background, where nothing else "
                "is outlined."
            )
        here = [name for name in known if not _is_background(name)]
        shown = [name for name in here if name in used]
        return shown or here or ["foreground"], [name for name in here if name not in used] if shown else []
    chosen: list[str] = []
    for name in asked:
        if name not in known and name not in name_of:
            raise unknown_name("category", name, [*known, *name_of])
        meant = name if name in known else name_of[name]
        if _is_background(meant):
            raise SettingError(
                f"--classes {name} names the category {meant!r}: the background is what no outline "
                "covers, and "
                "always there. Leave it out."
            )
        if meant in chosen:
            raise SettingError(f"--classes names the category {meant!r} twice. Name each once.")
        chosen.append(meant)
    return chosen, []


def _is_background(name: str) -> bool:
    return _plain(name) == BACKGROUND


def _plain(name: str) -> str:
    """Return a name as Labelme's are without their underscores: ``_background_``, ``__ignore__``."""
    return name.strip(" _").lower()


def _entries(source: Source, index_of: Mapping[str, int]) -> tuple[list[tuple[str, Entry]], list[Finding]]:
    """Return the entries of one file, with their splits; of annotations what drawing needs is kept."""
    notes: dict[Id, list[Note]] = {key: [] for key in source.pictures}
    for note in source.content.notes:
        if note.picture in notes and note.category.name in index_of:
            notes[note.picture].append(note)
    sizes = {picture.id: picture.size for picture in source.content.pictures}
    with Pool() as pool:
        headers = dict(
            zip(
                source.pictures,
                pool.map(lambda listed: header_or_none(listed.path), source.pictures.values()),
                strict=True,
            )
        )
    entries, problems = [], []
    for key, listed in source.pictures.items():
        header = headers[key]
        size = sizes[key] or (header.shown if header is not None else None)
        if header is not None and size is not None:
            problems += _about_size(listed, header, size, annotated=bool(notes[key]))
        annotations: list[Annotation] = []
        drawn: dict[object, str] = {}
        for note in notes[key]:
            if size is None:
                break  # a picture that can't be read is named where its pixels are needed
            made, found = _annotation(note, source.content.file, index_of[note.category.name], size)
            problems += found
            same = (note.category, note.crowd, made[0].shapes) if made and made[0].shapes else None
            if same in drawn:
                text = "Objects are outlined twice, by the same points; each is taken once."
                where = f"{source.content.file}, {note.name} as {drawn[same]}"
                problems.append(Finding("outline", "warning", text, (where,)))
                continue
            annotations += made
            if same is not None:
                drawn[same] = note.name
        entries.append((listed.split, Entry(listed.name, listed.path, annotations=tuple(annotations))))
    return entries, problems


def _annotation(
    note: Note, file: Path, class_index: int, size: tuple[int, int]
) -> tuple[list[Annotation], list[Finding]]:
    where = f"{file}, {note.name}"
    try:
        shapes, stubs = parse(note.segmentation, size)
        over = check_position(shapes, size)
        elsewhere = check_box(note.segmentation, shapes, note.box, size)
    except OutlineError as error:
        return [], [Finding("outline", "error", error.rule, (f"{where}: {error.found}",))]
    found = []
    if stubs:
        text = "Pieces of outlines have fewer than three points: they enclose nothing and are left out."
        found.append(Finding("outline", "warning", text, (f"{where}: {stubs}",)))
    if over > LINE:
        text = "Outlines reach out of their picture; what lies outside is cut off."
        found.append(Finding("outline", "warning", text, (f"{where}: by {over:.6g} pixels",)))
    if elsewhere:
        text = (
            "Outlines and boxes (bbox) of annotations are of different places, and the outlines are taken. A "
            "picture that was resized does that: look at some with 'seglens data show'."
        )
        found.append(Finding("box", "warning", text, (f"{where}: {elsewhere}",)))
    made = Annotation(note.name, class_index, shapes, size, note.crowd)
    if shapes and not marks_pixels(made):
        text = "Outlines enclose nothing, or hold the centre of no pixel: these objects are in no mask."
        found.append(Finding("outline", "warning", text, (where,)))
    return [made], found


def _about_size(listed: Listed, header: Header, size: tuple[int, int], *, annotated: bool) -> list[Finding]:
    try:
        frame_orientation(listed.path, header, size)
    except SizeMismatchError as error:
        return [Finding("size-mismatch", "error", str(error), (listed.name,))]
    except DataError as error:
        return [Finding("orientation", "error", str(error), (listed.name,))] if annotated else []
    return []


def _about_percent(entries: Mapping[str, Sequence[Entry]]) -> list[Finding]:
    """Warn where the coordinates of a whole set look like percent; small objects at one corner do, too."""
    notes = [note for each in entries.values() for entry in each for note in entry.annotations]
    polygons = [shape.points for note in notes for shape in note.shapes if isinstance(shape, Polygon)]
    if not polygons or any(max(points) > PERCENT for points in polygons):
        return []
    small = any(min(note.size) < LARGER * PERCENT for note in notes)
    if small or any(max(max(points[axis::2]) for points in polygons) < NEAR for axis in (0, 1)):
        return []
    text = (
        "No coordinate of the set is above 100, and pictures are far larger: outlines in percent of the "
        "picture, perhaps. Allowed are pixels. Look at some with 'seglens data show'; where they are "
        "percent, multiply x by the width / 100 and y by the height / 100."
    )
    return [Finding("percent", "warning", text)]


def _about_names(classes: Sequence[str]) -> list[Finding]:
    """Warn where classes differ in capital letters alone: one that was typed in two ways becomes two."""
    alike: dict[str, list[str]] = {}
    for name in classes:
        alike.setdefault(name.casefold(), []).append(name)
    text = "Classes differ in capital letters alone. Where they are one, rename them, or take them as one."
    return [
        Finding("class-names", "warning", text, (" and ".join(same),))
        for same in alike.values()
        if len(same) > 1
    ]


def _in_two_splits(entries: Mapping[str, Sequence[Entry]]) -> list[Finding]:
    splits: dict[Path, set[str]] = {}
    for split, each in entries.items():
        for entry in each:
            splits.setdefault(entry.image, set()).add(split)
    text = "Pictures are listed in several splits: scores on them would be those of pictures trained on."
    return [
        Finding("two-splits", "error", text, (str(file),)) for file, own in splits.items() if len(own) > 1
    ]

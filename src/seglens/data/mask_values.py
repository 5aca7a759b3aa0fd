"""What the values of a set's masks mean: one foreground, classes, objects, or classes by colour."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from seglens.data.indexed import about_palettes
from seglens.data.labels import grey_label, opaque, read_mask
from seglens.data.layout import DataSettings, Finding
from seglens.data.palette import IGNORED, Palette
from seglens.data.sample import Task, is_background
from seglens.data.stored import Stored
from seglens.errors import DataError, MaskValueError, SettingError
from seglens.results.names import count
from seglens.runtime.threads import Pool

Kind = Literal["foreground", "classes", "instances"]
BETWEEN = (64, 192)
"""Grey values that are neither black nor white in a mask that a lossy format has blurred."""
MOST_BETWEEN = 0.02
"""Share of such pixels from which on a lossy mask is refused."""
SHOWN = 8


@dataclass(frozen=True)
class Meaning:
    """How mask files of a set become class indices; ``ignore`` is a value, or 255 with a palette.

    ``surveyed`` are the files whose values decide whether it is so, where no setting says it, and ``indexed``
    those whose palettes must agree. They are looked at once, before the first mask is read, or when somebody
    asks for the ``findings``.
    """

    kind: Kind
    classes: tuple[str, ...]
    ignore: int | None = None
    palette: Palette | None = None
    surveyed: tuple[Path, ...] = ()
    indexed: tuple[Path, ...] = ()

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """What the values of all masks say: several besides 0 are an error, an odd one is a note."""
        of_palettes = about_palettes(self.indexed, foreground=self.kind == "foreground")
        return (*_survey(self.surveyed, self.ignore), *of_palettes)

    def read(self, file: Path) -> tuple[np.ndarray, np.ndarray]:
        """Return class indices, and which pixels count, both rows x columns.

        Raises:
            DataError: the file can't be read, or its values, or those of the set, mean nothing.
        """
        for finding in self.findings:
            if finding.severity == "error":
                raise MaskValueError(finding.text)
        stored = read_mask(file)
        if self.palette is not None:
            return _by_colour(stored, self.palette, self.classes, file)
        label = _exact(stored, file, self.kind)
        if stored.unknown and stored.unknown != self.ignore and (label == stored.unknown).any():
            raise MaskValueError(
                f"The mask {file} says (GDAL_NODATA) that {stored.unknown:g} marks pixels of which nothing "
                f"is known, and has such. Leave them out with --ignore {stored.unknown:g}, or remove that "
                "tag."
            )
        valid = np.ones(label.shape, bool) if self.ignore is None else label != self.ignore
        label = np.where(valid, label, 0)
        if self.kind != "classes":
            return (label > 0).astype(np.int64), valid
        _refuse_compact(stored, len(self.classes), file)
        if label.max(initial=0) >= len(self.classes):
            raise MaskValueError(
                f"The mask {file} holds the value {label.max()}; allowed are 0 to {len(self.classes) - 1}, "
                f"one for each of the classes {', '.join(self.classes)}. Name the missing classes, save "
                "class indices, or take every value above 0 as one with --masks foreground."
            )
        return label, valid


def read_foreground(file: Path) -> np.ndarray:
    """Return where a mask file is above 0, rows x columns.

    Raises:
        DataError: the file can't be read, or its values mean nothing.
    """
    return Meaning("foreground", Task().classes).read(file)[0] > 0


def meaning_of(settings: DataSettings, files: Sequence[Path]) -> Meaning:
    """Return what masks mean by the settings, or else by the values of them all, which are not read yet.

    Without settings, masks of 0 and one other value are foreground. More values are a problem: they may be
    classes, objects or grey levels, and nothing here can know which.

    Raises:
        SettingError: settings contradict each other.
    """
    classes = settings.classes
    if settings.palette is not None:
        if classes is not None or settings.ignore is not None or settings.masks not in (None, "classes"):
            raise SettingError(
                "--palette names the classes and, as 'ignore', what doesn't count: leave --classes, --ignore "
                "and --masks out."
            )
        names = tuple(name for name, _ in settings.palette if name.lower() != IGNORED)
        return Meaning("classes", names, palette=settings.palette)
    if classes is not None and len(classes) < 2:
        raise SettingError(
            f"The classes of a 'pairs' set name the values 0, 1, ... of its masks; got {classes}. "
            "Name the background first, or leave --classes out for masks of black and white."
        )
    kind = settings.masks or ("classes" if classes else None)
    if kind == "classes" and classes is None:
        raise SettingError(
            "--masks classes needs their names: --classes background NAME ... in the masks' order."
        )
    if kind in ("foreground", "instances") and classes is not None and len(classes) != 2:
        raise SettingError(
            f"--masks {kind} makes two classes, background and foreground; --classes names {len(classes)}."
        )
    names = classes or Task().classes
    if kind != "instances" and settings.ignore is not None and settings.ignore < len(names):
        raise SettingError(
            f"The value {settings.ignore} of a mask can't be ignored: it is the class "
            f"{names[settings.ignore]!r}. Ignore one that is no class, such as 255."
        )
    if settings.ignore == 0:  # of instances, whose other values are no classes
        raise SettingError("The value 0 of a mask can't be ignored: it is the background.")
    if kind is not None:
        return Meaning(kind, names, settings.ignore, indexed=() if kind == "instances" else tuple(files))
    return Meaning("foreground", names, settings.ignore, surveyed=tuple(files), indexed=tuple(files))


def about_first(classes: Sequence[str]) -> list[Finding]:
    """Warn where the class of the value 0 of masks has the name of an object."""
    if is_background(classes[0]):
        return []
    text = (
        f"The first class, {classes[0]!r}, names the value 0 of masks and is taken as the background: it has "
        "no scores of its own and nothing asks for it. Where it is an object, name the background before "
        "it: --classes background NAME ..."
    )
    return [Finding("class-names", "warning", text)]


def _survey(files: Sequence[Path], ignore: int | None) -> list[Finding]:
    """Look at the values of all masks."""
    first: dict[int, Path] = {}
    with Pool(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for file, values in zip(files, pool.map(_values, files), strict=True):
            for value in values:
                first.setdefault(value, file)
    first.pop(ignore if ignore is not None else -1, None)
    above = sorted(value for value in first if value)
    if len(above) <= 1:
        odd = [value for value in above if value not in (1, 255)]
        text = f"Masks hold 0 and {above[0] if above else 0}, which is taken for the foreground."
        return [Finding("mask-values", "note", text, (str(first[odd[0]]),))] if odd else []
    return [
        Finding(
            "mask-values",
            "error",
            f"Masks hold the values {_listed(sorted(first), first)}: classes, objects or grey levels. Say "
            "which: --classes background NAME ... (each value is a class), --masks instances (each value "
            "above 0 is an object) or --masks foreground (every value above 0 is the one class).",
            tuple(str(first[value]) for value in above[:SHOWN]),
        )
    ]


def _values(file: Path) -> tuple[int, ...]:
    """Return the values in a mask; none where it can't be read, which reading it says."""
    try:
        found = file.stat()
        return _values_of(file, found.st_mtime_ns, found.st_size)
    except (DataError, OSError):
        return ()


@lru_cache(maxsize=65536)
def _values_of(file: Path, changed: int, size: int) -> tuple[int, ...]:
    return tuple(np.unique(_exact(read_mask(file), file, "foreground"))[:64].tolist())


def _listed(values: Sequence[int], first: Mapping[int, Path]) -> str:
    shown = ", ".join(f"{value} ({first[value].name})" if value else "0" for value in values[:SHOWN])
    return shown + (f" and {len(values) - SHOWN} more" if len(values) > SHOWN else "")


def _exact(stored: Stored, file: Path, kind: Kind) -> np.ndarray:
    """Return the integers of a mask; black and white that a lossy format has blurred become 0 and 255.

    Raises:
        MaskValueError: a lossy file holds more than black and white, or is to be read as classes or objects.
    """
    if not stored.lossy:
        return grey_label(stored, file)
    grey = opaque(stored, file).astype(np.int64)
    if kind == "foreground" and (grey.max(axis=2) - grey.min(axis=2)).max(initial=0) <= BETWEEN[0]:
        label = grey[..., 0]
        between = ((label >= BETWEEN[0]) & (label < BETWEEN[1])).mean()
        if between <= MOST_BETWEEN:
            return np.where(label >= 128, 255, 0)
        reason = f"{between:.0%} of its pixels are neither black nor white"
    else:
        reason = "only black and white are safe in one"
    raise MaskValueError(
        f"The mask {file} is in a lossy format (JPEG or the like), which changes values, and {reason}. Save "
        "masks as PNG, from the original."
    )


def _refuse_compact(stored: Stored, num_classes: int, file: Path) -> None:
    """Raise where a palette of greys has other class numbers than the indices: both could be meant.

    So it is where classes 0, 2 and 3 were saved as GIF, which keeps the greys that are there.
    """
    if stored.palette is None:
        return
    used = np.unique(stored.values[..., 0])
    greys = stored.palette[used]
    if (greys == greys[:, :1]).all() and greys.max() < num_classes and (greys[:, 0] != used).any():
        raise MaskValueError(
            f"The mask {file} has a palette in which the grey values {', '.join(map(str, greys[:, 0]))} are "
            f"the indices {', '.join(map(str, used))}, and both could be classes. Save it as grey values, "
            "PNG, or name its colours with --palette FILE."
        )


def _by_colour(
    stored: Stored, palette: Palette, classes: Sequence[str], file: Path
) -> tuple[np.ndarray, np.ndarray]:
    if stored.lossy:
        raise MaskValueError(
            f"The mask {file} is in a lossy format (JPEG or the like), which changes colours. Save it as PNG."
        )
    colours = stored.pixels() if stored.palette is not None else opaque(stored, file)
    if colours.dtype == bool:
        colours = colours.astype(np.uint8) * 255
    if colours.dtype != np.uint8 or colours.shape[2] not in (1, 3):
        raise MaskValueError(
            f"The mask {file} holds {count(colours.shape[2], 'channel')} of {colours.dtype}; with --palette, "
            "allowed are colours of 8 bits. Save it so."
        )
    code = (np.broadcast_to(colours, (*colours.shape[:2], 3)).astype(np.int64) * (65536, 256, 1)).sum(axis=2)
    label = np.full(code.shape, -1, np.int64)
    valid = np.ones(code.shape, bool)
    for name, colour in palette:
        there = code == int(colour[1:], 16)
        if name.lower() == IGNORED:
            valid &= ~there
        label[there] = 0 if name.lower() == IGNORED else classes.index(name)
    if (label < 0).any():
        unknown = np.unique(code[label < 0])
        shown = ", ".join(f"{value >> 16} {value >> 8 & 255} {value & 255}" for value in unknown[:4].tolist())
        raise MaskValueError(
            f"The mask {file} has {count(len(unknown), 'colour')} that the palette lacks, in "
            f"{(label < 0).sum()} pixels: {shown}{', ...' if len(unknown) > 4 else ''}. Add them ('ignore "
            "r g b' for what doesn't count), or save the mask without smoothing."
        )
    return label, valid

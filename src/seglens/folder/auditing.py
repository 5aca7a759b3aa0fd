"""The audit of a folder: where its regions come from, which group a picture is in, and what is written."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from seglens.data.frame import Frame
from seglens.data.groups import spelt_alike
from seglens.data.layout import Split
from seglens.data.mask_values import read_foreground
from seglens.data.tables import read_rows
from seglens.data.transforms import placed_on
from seglens.data.volumes.reading import read_volume
from seglens.errors import DataError, SettingError, SizeMismatchError, unknown_name
from seglens.evaluate.strata import MOST
from seglens.files.output import safe_name
from seglens.folder.chunks import Chunk
from seglens.judge.audit import Audited, conclude_audit, join_audits
from seglens.judge.regions import REGIONS, nearest_region
from seglens.results import record as records
from seglens.results.scorecard import Audit
from seglens.results.scores import EvaluationTable
from seglens.results.tables import read_table, write_rows
from seglens.runs import Run
from seglens.shapes import Region, Regions

MASK = "mask:"
"""What a region from a file begins with: ``mask:FILE`` for all pictures, ``mask:FOLDER`` one for each."""

AUTO = "auto"
"""All regions that need no file, those that the leak test of an evaluation points to first."""

FOLDERS = "folder"
"""Groups by the folder that a picture lies in; otherwise ``FILE.csv:COLUMN``."""


def check_regions(names: Sequence[str]) -> None:
    """Raise where a region is unknown.

    Raises:
        UnknownNameError: there is no such region.
        SettingError: ``mask:`` names no file.
        DataError: a mask is not there.
    """
    for name in names:
        if name.startswith(MASK):
            place = Path(name.removeprefix(MASK))
            if name == MASK:
                raise SettingError(
                    f"The region {MASK!r} names no file. Write {MASK}FILE for one mask of all pictures, or "
                    f"{MASK}FOLDER with NAME.png for each."
                )
            if not place.exists():
                raise DataError(f"There is no {place} to audit. Name a mask, or a folder.")
            if place.is_dir() and not [*place.glob("*.png"), *place.glob("*.nii.gz")]:
                raise DataError(
                    f"{place} holds no mask NAME.png (of volumes NAME.nii.gz) to audit. Name a folder that "
                    "does, or a file."
                )
        elif name not in (*REGIONS, AUTO):
            raise unknown_name("region", name, [*REGIONS, f"{MASK}FILE", AUTO])


def regions_of(part: Chunk, names: Sequence[str]) -> dict[str, Regions]:
    """Return the regions of a chunk's pictures on the input grid.

    Raises:
        DataError: a mask can't be read.
    """
    return {
        name: _from_file(part, Path(name.removeprefix(MASK))) if name.startswith(MASK) else _found(part, name)
        for name in names
    }


def _found(part: Chunk, name: str) -> Regions:
    """Find a region in pictures; where a grid holds only a part of one, in all of that."""
    batch = part.batch
    found = REGIONS[name](batch.images, batch.valid)
    for row, (sample, frame) in enumerate(zip(part.originals, part.frames, strict=True)):
        if frame.is_cut:
            (whole,), _ = placed_on([sample], [frame.uncut])
            found[row] = frame.padded(REGIONS[name](whole.image[None], whole.valid[None])[0])
    return found & batch.valid


def _from_file(part: Chunk, place: Path) -> Regions:
    """One mask of the pictures' size for all, or ``NAME.png`` in a folder; none there is no region.

    Of volumes ``NAME.nii.gz``, on the grid of the volume.
    """
    found = torch.zeros_like(part.batch.valid)
    for row, (sample, frame) in enumerate(zip(part.originals, part.frames, strict=True)):
        suffix = ".png" if sample.grid is None else ".nii.gz"
        file = place / f"{sample.name}{suffix}" if place.is_dir() else place
        if file.exists() and sample.grid is not None:
            volume = read_volume(file)
            sample.grid.refuse_other(volume.grid, f"The audit mask {file}", f"the volume {sample.name}")
            region = torch.from_numpy(sample.grid.to_zyx(volume.values > 0).copy())
            found[row] = _on_grid(region, frame)
        elif file.exists():
            shown = read_foreground(file)
            if shown.shape != tuple(sample.image.shape[1:]):
                (down, across), (height, width) = shown.shape, sample.image.shape[1:]
                raise SizeMismatchError(
                    f"The audit mask {file} is {across} x {down} pixels, the picture {sample.name} {width} x "
                    f"{height}. They must be of one size: redo the mask, or name a folder with NAME.png for "
                    "each."
                )
            found[row] = _on_grid(torch.from_numpy(shown), frame)
    return found & part.batch.valid


def _on_grid(region: Region, frame: Frame) -> Bool[Tensor, "*grid"]:
    if frame.reach:
        return frame.mask_to_grid(region)
    return frame.padded(nearest_region(frame.oriented(region)[None], frame.scaled)[0])


def groups_of(split: Split, text: str | None) -> dict[str, str] | None:
    """Return the group of each picture by its name; None without ``text``.

    A table has the pictures' names, or their files' names, in its first column.

    Raises:
        SettingError: ``text`` is neither ``folder`` nor ``FILE.csv:COLUMN``, or there is no such column.
        DataError: the table can't be read, lacks a picture, or contradicts itself.
    """
    if text is None:
        return None
    if text == FOLDERS:
        return {entry.name: entry.image.parent.name for entry in split.entries}
    file, _, column = text.rpartition(":")
    if not file:
        raise SettingError(f"Groups {text!r} are unknown. Allowed: {FOLDERS}, or FILE.csv:COLUMN.")
    rows = read_rows(Path(file), ())
    columns = list(rows[0]) if rows else []
    if column not in columns:
        raise SettingError(f"{file} has no column {column!r}. It has: {', '.join(columns) or '(none)'}.")
    known: dict[str, str] = {}
    found = {}
    for row in rows:
        name = row[columns[0]]
        if known.setdefault(name, row[column]) != row[column]:
            raise DataError(
                f"{file} has two rows for {name!r}, with {known[name]!r} and {row[column]!r} as {column}. "
                "Keep one."
            )
    if alike := spelt_alike(known.values()):
        raise DataError(f"{file}: {column} has {', '.join(alike)}. Write what is one value in one way.")
    for entry in split.entries:
        group = next(
            (known[key] for key in (entry.name, entry.image.name, entry.image.stem) if key in known), None
        )
        if group is None:
            raise DataError(f"{file} has no row for {entry.name!r} in its column {columns[0]!r}.")
        found[entry.name] = group
    return found


def divisions_of(split: Split, text: str | None) -> list[dict[str, str]]:
    """Return what divides an audit: what ``text`` names (see `groups_of`), else each column of strata.

    Raises:
        SettingError, DataError: as `groups_of`.
    """
    named = groups_of(split, text)
    if named is not None:
        return [named]
    columns = dict.fromkeys(column for entry in split.entries for column, _ in entry.strata)
    found = [
        {entry.name: f"{name}: {dict(entry.strata)[name]}" for entry in split.entries} for name in columns
    ]
    return [each for each in found if 1 < len(set(each.values())) <= MOST]


def regions_by_leaks(run: Run, split: Split) -> list[str]:
    """Return all regions; where an evaluation of the split has found that a part tells strata, that first."""
    first: list[str] = []
    scores = None if run.folder is None else run.folder / "evaluate" / safe_name(split.name) / "scores.json"
    if scores is not None and scores.is_file():
        table = read_table(scores, EvaluationTable)
        first = [name for leak in table.strata.telling for name in LIES_IN[leak.place]]
    return list(dict.fromkeys([*first, *REGIONS]))


LIES_IN = {"border": ("border", "corners"), "background": ("marks", "clipped")}
"""Where a leak may lie, by the part of the pictures that told a stratum."""


def write_audit(
    parts: Sequence[Sequence[Audited]],
    names: Sequence[str],
    divisions: Sequence[Mapping[str, str]],
    folder: Path,
    *,
    together: Sequence[str] | None = None,
    seed: int,
) -> Audit:
    """Write ``audit.json`` (all of it, returned) and ``audit.csv`` (pictures, those that lose most first).

    Each of ``divisions`` says which group a picture is in, by its name.
    """
    joined = join_audits(parts)
    first = divisions[0] if divisions else None
    table = conclude_audit(joined, names, first, together=together, seed=seed)
    further = [conclude_audit(joined, names, each, together=together, seed=seed) for each in divisions[1:]]
    groups = tuple(row for each in (table, *further) for row in each.groups)
    table = table.model_copy(update={"groups": groups})
    records.write_json(folder / "audit.json", table)
    write_rows([row.plain() for row in table.images], folder / "audit.csv")
    return table

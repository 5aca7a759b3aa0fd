"""Volumes as 2-D slices: a set of pictures and masks that every command reads.

A network of pictures is trained on slices. They are written once, as PNG (grey of 16 bits, colour of 8) with
masks, in ``train/``, ``valid/`` and ``test/`` such that **no volume is in two splits**; ``slices.csv`` says
which volume each slice is of, and where in it.
"""

import csv
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image as pil

from seglens.arguments import checked
from seglens.data.intensity import bounds
from seglens.data.volumes.cases import Cases, find_cases
from seglens.data.volumes.described import Labels
from seglens.data.volumes.grid import PLANES, Grid
from seglens.data.volumes.intensities import ends_of, fractions
from seglens.data.volumes.listed import Case
from seglens.data.volumes.reading import read_labels, read_volume, refuse_other_names
from seglens.errors import DataError, SettingError
from seglens.files.output import new_folder
from seglens.files.overwrite import refuse_overlap
from seglens.results.names import count
from seglens.runtime.progress import track

TABLE = "slices.csv"
COLUMNS = ("image", "volume", "split", "slice", "position_mm")
SHARES = {"valid": 0.15, "test": 0.15}
"""Shares of the volumes that a split gets which the set doesn't come with."""
UPRIGHT = {"axial": ("P", "L"), "coronal": ("I", "L"), "sagittal": ("I", "P")}
"""The sides that rows and columns of a slice run to: as radiologists look at them, left is on the right."""


@dataclass(frozen=True)
class Slices:
    """What was written: the folder, the classes, and for each split its volumes and slices."""

    folder: Path
    classes: tuple[str, ...]
    volumes: dict[str, int]
    slices: dict[str, int]
    dropped: int


@checked
def slice_volumes(
    source: str | Path,
    folder: str | Path,
    *,
    plane: str = "axial",
    empty: str = "keep",
    window: str | None = None,
    seed: int = 0,
    force: bool = False,
) -> Slices:
    """Write every slice of the volumes in ``source`` as a picture with its mask to ``folder``.

    ``source`` is a set of nnU-Net, of the decathlon, or ``images/`` and ``masks/`` of volumes. Pictures keep
    the pixels of the volume: nothing is resampled. They are turned upright (`UPRIGHT`).

    Args:
        source: the set of volumes.
        folder: the folder to make.
        plane: ``axial``, ``coronal`` or ``sagittal``: the plane that lies closest to the volume's axes.
        empty: ``keep`` or ``drop`` slices of train on which nothing is marked; valid and test keep theirs.
        window: ``LOW,HIGH``, the numbers that become black and white in all volumes. By default Hounsfield
            -1024 to 3071 of a channel that is called CT, else the percentiles .5 and 99.5 of each volume.
        seed: which volumes go to a split that the set doesn't come with.
        force: replace a folder of slices that was made before.

    Raises:
        SettingError: a value that is not allowed, or ``folder`` and ``source`` overlap.
        DataError: a volume or ``dataset.json`` can't be understood; the file is named.
        OutputExistsError: the folder is there.
    """
    if plane not in PLANES:
        raise SettingError(f"There is no plane {plane!r}. Allowed: {', '.join(PLANES)}.")
    if empty not in ("keep", "drop"):
        raise SettingError(f"Empty slices can't be {empty!r}. Allowed: keep, drop.")
    ends = None if window is None else bounds(window)
    refuse_overlap(Path(folder), data=[Path(source)])
    cases = find_cases(Path(source))
    if cases.labels is not None and cases.labels.regions:
        name, region = cases.labels.classes[1], list(cases.labels.regions[0])
        raise DataError(
            f"{source} has regions: {name!r} is made of the labels {region}. A slice holds one class a "
            "pixel; list single labels in dataset.json to cut it."
        )
    if len(cases.channels) not in (1, 3):
        raise DataError(
            f"{source} has {len(cases.channels)} channels ({', '.join(cases.channels)}); slices are written "
            "as pictures of 1 or 3. Take one channel, or three."
        )
    windows = [ends or usual for usual in ends_of(cases.channels)]
    splits, named = deal_volumes(cases, seed), cases.labels.classes if cases.labels else ()
    rows: list[tuple[str, str, str, int, float]] = []
    dropped = highest = 0
    with new_folder(Path(folder), command="data slices", force=force) as made:
        listed = [(split, case) for split, members in splits.items() for case in members]
        for split, case in track(listed, total=len(listed), what="Slicing"):
            for place in ("images", "masks"):
                (made / split / place).mkdir(parents=True, exist_ok=True)
            for number, position, picture, mask in _slices(case, plane, windows, named):
                if split == "train" and empty == "drop" and mask is not None and not mask.any():
                    dropped += 1
                    continue
                name = f"{case.name}_{number:04d}"
                _save(made / split / "images" / f"{name}.png", picture)
                if mask is not None:
                    highest = max(highest, int(mask.max()))
                    pil.fromarray(mask.astype(np.uint8 if highest < 256 else np.uint16)).save(
                        made / split / "masks" / f"{name}.png"
                    )
                rows.append((f"{name}.png", case.name, split, number, round(position, 4)))
        labels = cases.labels or Labels(("background", *(f"label{n}" for n in range(1, highest + 1))))
        classes = labels.classes
        if highest >= len(classes) and highest != labels.ignore:
            raise DataError(
                f"Masks in {source} hold the label {highest}, but only {', '.join(classes)} are listed. Add "
                "it to dataset.json, or correct the masks."
            )
        with (made / TABLE).open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(rows)
    counted = {split: sum(row[2] == split for row in rows) for split in splits}
    return Slices(
        Path(folder), classes, {split: len(members) for split, members in splits.items()}, counted, dropped
    )


def deal_volumes(cases: Cases, seed: int) -> dict[str, tuple[Case, ...]]:
    """Return train, valid and test: those that the set has, the others dealt by volume out of train.

    Raises:
        DataError: there are too few volumes for a split of their own.
    """
    own = {split: members for split, members in cases.splits.items() if members and split != "all"}
    pool = list(cases.splits.get("all") or own.get("train", ()))
    random.Random(seed).shuffle(pool)
    for split in ("valid", "test"):
        if split in own:
            continue
        taken = max(1, round(SHARES[split] * len(cases.splits.get("all") or own.get("train", ()))))
        if len(pool) <= taken:
            raise DataError(
                f"{count(len(pool), 'volume')} can't be dealt to train, valid and test. Add volumes."
            )
        own[split], pool = tuple(pool[:taken]), pool[taken:]
    own["train"] = tuple(pool)
    return {
        split: tuple(sorted(own[split], key=lambda case: case.name)) for split in ("train", "valid", "test")
    }


def _slices(
    case: Case, plane: str, windows: Sequence[tuple[float, float] | None], classes: Sequence[str]
) -> Iterator[tuple[int, float, np.ndarray, np.ndarray | None]]:
    """Yield number, place in mm, picture (rows x columns x channels, 0 to 65535) and mask of every slice."""
    volumes = [read_volume(file) for file in case.channels]
    first = volumes[0]
    for other, file in zip(volumes[1:], case.channels[1:], strict=True):
        first.grid.refuse_other(other.grid, str(file), str(case.channels[0]))
    if case.labels is not None and classes:
        refuse_other_names(case.labels, classes)
    truth = None if case.labels is None else read_labels(case.labels, first, str(case.channels[0]))
    channels = [fractions(each.values, ends) for each, ends in zip(volumes, windows, strict=True)]
    stack = np.rint(np.stack(channels, axis=-1) * 65535).astype(np.uint16)
    axis = first.grid.axis_of(plane)
    for number in range(first.grid.shape[axis]):
        voxel = [0.0, 0.0, 0.0]
        voxel[axis] = float(number)
        picture = upright(np.take(stack, number, axis), first.grid, plane)
        mask = None if truth is None else upright(np.take(truth, number, axis), first.grid, plane)
        yield number, first.grid.world(voxel)[PLANES[plane]], picture, mask


def upright(pixels: np.ndarray, grid: Grid, plane: str) -> np.ndarray:
    """Turn a slice (the two axes that are left, in the order of the file) as `UPRIGHT` says."""
    left = [axis for axis in range(3) if axis != grid.axis_of(plane)]
    sides = [grid.orientation[axis] for axis in left]
    rows, columns = UPRIGHT[plane]
    opposite = {"L": "R", "R": "L", "P": "A", "A": "P", "I": "S", "S": "I"}
    if sides[0] not in (rows, opposite[rows]):
        pixels, sides = pixels.swapaxes(0, 1), sides[::-1]
    if sides[0] != rows:
        pixels = pixels[::-1]
    return pixels[:, ::-1] if sides[1] != columns else pixels


def _save(file: Path, picture: np.ndarray) -> None:
    """Write a picture of 1 or 3 channels: 16-bit grey, or 8-bit colour, because PNG readers know no more."""
    if picture.shape[2] == 1:
        pil.fromarray(np.ascontiguousarray(picture[..., 0])).save(file)
    else:
        pil.fromarray(np.rint(picture / 257).astype(np.uint8)).save(file)

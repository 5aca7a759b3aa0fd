"""Sets of volumes as every command reads them: the layouts ``nnunet``, ``msd`` and ``volumes``.

A sample is a volume ``[c slices rows columns]`` in the order of `Grid.to_zyx`, whatever the orientation of
its file. Its numbers are brought to [0, 1] by channel: Hounsfield units from -1024 to 3071 where the channel
is called CT, else from the .5 to the 99.5 percentile of each volume; ``intensities`` in the settings say
otherwise.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from seglens.data.folders import split_folders
from seglens.data.layout import DataSettings, Entry, Finding, Found, Searched
from seglens.data.mask_values import about_first
from seglens.data.sample import Sample, Task, task_of
from seglens.data.volumes.cases import BESIDE, Cases, find_cases, paired_volumes, says_channels
from seglens.data.volumes.intensities import HOUNSFIELD, Ends, ends_of, fractions
from seglens.data.volumes.listed import Case
from seglens.data.volumes.reading import SUFFIXES, is_volume, read_labels, read_volume, refuse_other_names
from seglens.errors import DataError, MaskValueError, SettingError
from seglens.results.names import count

NNUNET = "dataset.json with channel_names, imagesTr/ and labelsTr/, as nnU-Net v2 has them"
MSD = "dataset.json with modality, imagesTr/ and labelsTr/, as the Medical Segmentation Decathlon has them"
VOLUMES = "images/ and masks/ of volumes with the same names, once or in each of train/, valid/, test/"
DESCRIBED = ("intensities",)
"""Settings that the layouts with a dataset.json read."""
PAIRED = ("train_dir", "valid_dir", "test_dir", "classes", "ignore", "masks", "intensities")
"""Settings that pairs of volumes read."""
_GLANCE = 4
"""Volumes that are looked at for the unit of their numbers."""
UNTOLD = Task()
"""The classes of a volume of which nobody told any."""


def is_nnunet(folder: Path) -> bool:
    """Whether a folder holds a set as nnU-Net v2 has it."""
    return (folder / "imagesTr").is_dir() and says_channels(folder / "dataset.json") is True


def is_msd(folder: Path) -> bool:
    """Whether a folder holds a set as the Medical Segmentation Decathlon has it."""
    return (folder / "imagesTr").is_dir() and says_channels(folder / "dataset.json") is False


def is_volumes(folder: Path) -> bool:
    """Whether a folder holds pairs of volumes in images/ and masks/."""
    images = folder / "images"
    return images.is_dir() and (folder / "masks").is_dir() and any(map(is_volume, images.iterdir()))


def find_described(settings: DataSettings) -> Found:
    """List the volumes of a set whose dataset.json says what its labels and channels are.

    Raises:
        DataError: a file can't be understood, or volumes and labels don't pair up.
        SettingError: the settings name another number of channels.
    """
    cases, file = find_cases(settings.path), settings.path / "dataset.json"
    assert cases.labels is not None  # where there is a dataset.json
    task = cases.labels.task(f"The labels in {file}")
    if settings.multilabel and not task.multilabel:
        raise SettingError(
            f"{file} lists single labels, which never overlap, so --multilabel would do nothing: leave it "
            "out. Regions, which may overlap, are lists of labels there."
        )
    folders = [settings.path / name for name in ("imagesTr", "imagesTs", "labelsTr", "labelsTs")]
    searched = [folder for folder in folders if folder.is_dir()]
    others = [folder for folder in sorted(settings.path.glob("images*")) if folder not in folders]
    unread = tuple(str(each) for each in others if each.is_dir() and any(map(is_volume, each.iterdir())))
    text = "Folders hold volumes that are not read: only those in imagesTr/ and imagesTs/ are."
    found = _found(settings, cases, task, searched, cases.labels.ignore)
    problems = (Finding("unread-folder", "warning", text, unread),) if unread else ()
    return replace(found, problems=(*found.problems, *problems))


def find_pairs(settings: DataSettings) -> Found:
    """List pairs of volumes.

    Raises:
        DataError: a file can't be understood, or volumes and masks don't pair up.
        SettingError: settings contradict one another.
    """
    folders = split_folders(settings, is_volumes)
    parts = {split: paired_volumes(folder) for split, folder in folders.items()}
    if settings.masks == "classes" and settings.classes is None:
        raise SettingError("--masks classes needs their names: --classes background NAME ... in their order.")
    if settings.masks == "instances":
        raise SettingError("Masks of volumes are read as classes or as one foreground, not as instances.")
    names = settings.classes
    if settings.masks == "foreground" and names is not None and len(names) != 2:
        raise SettingError(
            f"--masks foreground makes two classes, background and foreground; --classes names {len(names)}."
        )
    task = Task() if names is None else task_of(names, what="--classes")
    if settings.ignore is not None and settings.ignore < len(task.classes):
        raise SettingError(
            f"The value {settings.ignore} of a mask can't be ignored: it is the class "
            f"{task.classes[settings.ignore]!r}. Ignore one that is no class, such as 255."
        )
    searched = [folder / name for folder in folders.values() for name in ("images", "masks")]
    return _found(settings, Cases(None, ("intensity",), parts), task, searched, settings.ignore)


def _found(
    settings: DataSettings, cases: Cases, task: Task, folders: Sequence[Path], ignore: int | None
) -> Found:
    channels = len(cases.channels)
    if "channels" in settings.model_fields_set and settings.channels != channels:
        raise SettingError(
            f"The volumes in {settings.path} have {count(channels, 'channel')} "
            f"({', '.join(cases.channels)}), received channels {settings.channels}. Leave it out."
        )
    ends = settings.intensities or ends_of(cases.channels)
    if len(ends) != channels:
        raise SettingError(f"There are intensities for {len(ends)} channels, the volumes have {channels}.")
    merged, named = cases.labels is None and settings.masks == "foreground", cases.labels is not None
    reader = partial(read_sample, ends=ends, task=task, ignore=ignore, merged=merged, named=named)
    entries = {split: tuple(map(_entry, members)) for split, members in cases.splits.items()}
    searched = tuple(Searched(folder, (*SUFFIXES, ".gz", *BESIDE)) for folder in folders)
    filled = settings.model_copy(
        update={"channels": channels, "intensities": ends, "multilabel": task.multilabel}
    )
    problems = () if named else tuple(about_first(task.classes))
    return Found(task, entries, reader, searched, problems, dims=3, settings=filled)


def about_units(entries: Sequence[Entry], ends: Sequence[Ends | None] | None) -> list[Finding]:
    """Warn where no channel that is called CT has a number below 0: Hounsfield units of air are -1000.

    Of the first volumes only; those that can't be read are left out.
    """
    lowest = {entry.name: _lowest(entry, ends or ()) for entry in entries[:_GLANCE]}
    found = {name: each for name, each in lowest.items() if each is not None}
    if not found or min(found.values()) < 0:
        return []
    text = (
        "A channel is called CT and holds no number below 0, where air has -1000 in Hounsfield units. Where "
        "they are others, convert them, or say with --window which numbers become 0 and 1."
    )
    return [Finding("intensity-range", "warning", text, tuple(found))]


def _lowest(entry: Entry, ends: Sequence[Ends | None]) -> float | None:
    """Return the lowest number in channels that are read as Hounsfield units; None where there are none."""
    try:
        files = [file for file, end in zip(entry.channels, ends, strict=False) if end == HOUNSFIELD]
        return min((float(read_volume(file).values.min()) for file in files), default=None)
    except DataError:
        return None


def _entry(case: Case) -> Entry:
    masks = () if case.labels is None else (case.labels,)
    return Entry(case.name, case.channels[0], masks, labelled=bool(masks), more=case.channels[1:])


def read_sample(
    entry: Entry,
    *,
    ends: Sequence[Ends | None],
    task: Task = UNTOLD,
    ignore: int | None = None,
    merged: bool = False,
    named: bool = True,
) -> Sample:
    """Return a volume with its labels, where it has any; of regions a stack of masks.

    ``merged`` labels above 0 are one foreground. With ``named`` False nobody said what labels mean, and only
    0 and 1 are taken.

    Raises:
        DataError: a file can't be read, channels or labels lie on another grid, or a label is none.
    """
    if len(entry.channels) != len(ends):
        raise DataError(
            f"{entry.image} is one channel, and the model takes {len(ends)}. Name the set in which a case "
            "has a file for each channel with --data."
        )
    volumes = [read_volume(file) for file in entry.channels]
    grid = volumes[0].grid
    for other, file in zip(volumes[1:], entry.more, strict=True):
        grid.refuse_other(other.grid, str(file), str(entry.image))
    stack = [grid.to_zyx(fractions(each.values, end)) for each, end in zip(volumes, ends, strict=True)]
    image = torch.from_numpy(np.stack(stack).astype(np.float32))
    valid = torch.ones(image.shape[1:], dtype=torch.bool)
    if not entry.masks:
        return Sample(entry.name, image, None, valid, grid)
    file = entry.masks[0]
    label = torch.from_numpy(grid.to_zyx(read_labels(file, volumes[0], str(entry.image))).copy())
    if ignore is not None:
        valid = label != ignore
        label = label.masked_fill(~valid, 0)
    highest = int(label.max())
    allowed = max((max(region) for region in task.regions), default=len(task.classes) - 1)
    if not task.regions:
        refuse_other_names(file, task.classes)
    if merged:
        label = (label > 0).long()
    elif highest > allowed:
        what = (
            f"which {', '.join(task.classes)} are made of. Correct the mask or list the label in dataset.json"
            if named
            else "and nobody said what more of them mean. Name them: --classes background NAME ... (each "
            "value is a class), or --masks foreground (all above 0 are one)"
        )
        raise MaskValueError(f"{file} holds the label {highest}; allowed are 0 to {allowed}, {what}.")
    elif task.regions:
        label = torch.stack([torch.isin(label, torch.tensor(region)) for region in task.regions])
    return Sample(entry.name, image, label, valid, grid)

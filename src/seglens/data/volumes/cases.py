"""Sets of volumes: nnU-Net's folders, those of the Medical Segmentation Decathlon, and pairs of volumes.

``dataset.json`` beside ``imagesTr/`` says what the labels and the channels are (Isensee et al. 2021, as
nnU-Net v2 has it; Antonelli et al. 2022 for the decathlon). In nnU-Net a case has a file for each channel,
``case_0000.nii.gz``; in the decathlon one file.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seglens.data.folders import is_clutter
from seglens.data.tables import read_text
from seglens.data.volumes.described import Labels, read_described
from seglens.data.volumes.listed import Case, refuse_contradictions
from seglens.data.volumes.reading import SUFFIXES, is_volume, stem_of
from seglens.errors import DataError
from seglens.results.names import count

LOOKS_LIKE = "dataset.json with imagesTr/ and labelsTr/, or images/ and masks/ of volumes with the same names"

BESIDE = (".json", ".raw", ".zraw")
"""What may lie beside volumes: tables of a case, and the numbers that a ``.mhd`` file names."""

_CHANNEL = re.compile(r"(.+)_(\d{4})")


@dataclass(frozen=True)
class Cases:
    """The volumes of a set: ``train`` and ``test``, or all under ``all`` where there is no such split.

    ``labels`` are what dataset.json says they mean, None where there is none; ``channels`` are the names of
    the channels.
    """

    labels: Labels | None
    channels: tuple[str, ...]
    splits: Mapping[str, tuple[Case, ...]]


def says_channels(file: Path) -> bool | None:
    """Whether a dataset.json names its channels as nnU-Net does, or not; None where it is no such file."""
    try:
        described = json.loads(read_text(file)) if file.is_file() else None
    except (ValueError, DataError):
        return None
    return "channel_names" in described if isinstance(described, dict) and "labels" in described else None


def find_cases(folder: Path) -> Cases:
    """List the volumes of a set.

    Raises:
        DataError: it is in no layout of volumes, ``dataset.json`` can't be understood, or pictures and masks
            don't pair up; the file is named.
    """
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}. Name the folder that holds the volumes.")
    if (folder / "dataset.json").is_file():
        return _of_nnunet(folder)
    if (folder / "images").is_dir() and (folder / "masks").is_dir():
        if any(is_volume(file) for file in (folder / "images").iterdir()):
            return Cases(None, ("intensity",), {"all": paired_volumes(folder)})
    raise DataError(f"{folder} holds no volumes in a layout that is read: {LOOKS_LIKE}.")


def paired_volumes(folder: Path) -> tuple[Case, ...]:
    """Return the volumes in images/ with those of the same names in masks/.

    Raises:
        DataError: one lacks its mask or its picture, or a file is no volume.
    """
    pictures = {stem: (file,) for stem, file in _by_stem(folder / "images").items()}
    return _paired(pictures, folder / "masks", needed=True)


def _of_nnunet(folder: Path) -> Cases:
    file = folder / "dataset.json"
    try:
        described = json.loads(read_text(file))
    except ValueError as error:
        raise DataError(f"{file} is not JSON ({error}). Correct it, or export the set again.") from error
    if not isinstance(described, dict):
        raise DataError(f"{file} holds no object of names and values. Export the set again.")
    labels = read_described(described, file)
    channels = _names(described.get("channel_names", described.get("modality")), file)
    one_file_a_channel = "channel_names" in described
    if one_file_a_channel and described.get("modality") not in (None, described["channel_names"]):
        raise DataError(
            f"{file} names its channels twice, and differently: channel_names "
            f"{described['channel_names']!r}, modality {described['modality']!r}. Keep the "
            "right ones as channel_names."
        )
    files_of_a_case = len(channels) if one_file_a_channel else 1
    splits = {}
    for split, images, truth in (("train", "imagesTr", "labelsTr"), ("test", "imagesTs", "labelsTs")):
        if not (folder / images).is_dir():
            if (folder / truth).is_dir() and _by_stem(folder / truth):
                raise DataError(
                    f"{folder / truth} holds labels, and there is no folder {images}/ with their volumes. "
                    "Add it, or move the labels away."
                )
            continue
        files: dict[str, dict[int, Path]] = {}
        for stem, each in _by_stem(folder / images).items():
            numbered = _CHANNEL.fullmatch(stem) if one_file_a_channel else None
            name, number = (numbered[1], int(numbered[2])) if numbered else (stem, 0)
            if number in files.setdefault(name, {}):  # with a number, and without
                raise _twice(files[name][number], each)
            files[name][number] = each
        wrong = [name for name, found in files.items() if sorted(found) != list(range(files_of_a_case))]
        if wrong:
            there = ", ".join(f"{number:04d}" for number in sorted(files[wrong[0]]))
            raise DataError(
                f"{folder / images} holds {count(len(files[wrong[0]]), 'file')} of the case {wrong[0]!r}, "
                f"but {file} lists {count(len(channels), 'channel')} ({', '.join(channels)}), numbered from "
                f"0000. There is {there}. Add what is missing."
            )
        told = {name: tuple(found[number] for number in sorted(found)) for name, found in files.items()}
        splits[split] = _paired(told, folder / truth, needed=split == "train")
    if not splits.get("train"):
        raise DataError(f"{folder / 'imagesTr'} holds no volume ({', '.join(SUFFIXES)}). Check the path.")
    refuse_contradictions(described, file, splits)
    return Cases(labels, channels, splits)


def _paired(pictures: Mapping[str, tuple[Path, ...]], masks: Path, *, needed: bool) -> tuple[Case, ...]:
    """Return the cases with their labels; where none are needed, a folder without any is none."""
    truth = _by_stem(masks) if masks.is_dir() else {}
    if truth or needed:
        missing = sorted(set(pictures) - set(truth))
        strange = sorted(set(truth) - set(pictures))
        if missing or strange:
            which = f"no labels of {missing[0]!r}" if missing else f"labels of {strange[0]!r}, but no picture"
            raise DataError(
                f"{masks} holds {which} ({len(missing)} lack labels, {len(strange)} lack a picture). Add "
                "what is missing, or move away what is too many."
            )
    return tuple(Case(name, files, truth.get(name)) for name, files in sorted(pictures.items()))


def _by_stem(folder: Path) -> dict[str, Path]:
    """Return the volumes right in a folder by their names without endings.

    Raises:
        DataError: two have one name, such as a.nii and a.nii.gz, or a file is no volume.
    """
    files: dict[str, Path] = {}
    for file in _volumes(folder):
        if stem_of(file) in files:
            raise _twice(files[stem_of(file)], file)
        files[stem_of(file)] = file
    return files


def _twice(one: Path, other: Path) -> DataError:
    return DataError(
        f"{one} and {other.name}: two volumes of one name, and it isn't known which counts. Keep one."
    )


def _volumes(folder: Path) -> list[Path]:
    """Return the volumes right in a folder; files of other kinds are refused by name.

    Raises:
        DataError: there is one.
    """
    files = sorted(file for file in folder.iterdir() if not is_clutter(file) and not file.is_dir())
    other = [file for file in files if not is_volume(file) and file.suffix.lower() not in BESIDE]
    if other:
        raise DataError(
            f"{other[0]} is no volume that is read here ({', '.join(SUFFIXES)}). Move it elsewhere."
        )
    return [file for file in files if is_volume(file)]


def _names(channels: Any, file: Path) -> tuple[str, ...]:
    """Return the names of the channels, ``{"0": "MRI"}``, in the order of their numbers."""
    if not isinstance(channels, dict) or set(channels) != {str(n) for n in range(len(channels))}:
        raise DataError(
            f'{file} doesn\'t list its channels as "channel_names": {{"0": ...}}; found: {channels!r}.'
        )
    return tuple(str(channels[str(number)]) for number in range(len(channels)))

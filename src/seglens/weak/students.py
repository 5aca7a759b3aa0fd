"""Students: networks that learn from pseudo-masks, by the same training as any other network.

A student's set is a folder in the layout ``pairs``: ``train/`` and ``valid/`` with masks of 0, 1 and 255
(ignored), and ``test/`` with pictures alone. Pictures are linked where the disk can, so that a set costs its
masks. What chooses the epoch and the threshold of a student are pseudo-masks too.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image as pil

from seglens.data.labels import read_label
from seglens.data.layout import DataSettings, Entry
from seglens.errors import DataError, SettingError
from seglens.files.output import remade_folder
from seglens.results.names import count
from seglens.runs import Run
from seglens.runtime.progress import track
from seglens.shapes import Mask
from seglens.train import train
from seglens.train.recipe import TrainSettings
from seglens.weak.ignore_band import IGNORED
from seglens.weak.labels import Labelled


@dataclass(frozen=True)
class LearningPictures:
    """The pictures that students learn from, without masks, and which of them are held out.

    ``held_out`` says of each picture of ``labelled`` whether it is in the valid split; ``files`` is the stem
    under which its mask is kept. ``test`` are the pictures that a set shows without masks.
    """

    labelled: Labelled
    held_out: tuple[bool, ...]
    files: tuple[str, ...]
    test: tuple[Entry, ...]
    classes: tuple[str, ...]
    channels: int = 3

    def __post_init__(self) -> None:
        if not len(self.labelled) == len(self.held_out) == len(self.files) == len(set(self.files)):
            raise SettingError(
                f"Received {count(len(self.labelled), 'picture')}, {count(len(self.held_out), 'mark')} of "
                f"the valid split and {count(len(set(self.files)), 'different file name')}. Give each "
                "picture one mark and one name."
            )
        if all(self.held_out) or not any(self.held_out):
            raise SettingError(
                f"Of {count(len(self.held_out), 'picture')} {sum(self.held_out)} are held out. A student "
                "needs some pictures to learn from, and some that are held out to choose the best epoch."
            )

    def __len__(self) -> int:
        return len(self.files)


def write_set(
    folder: Path, pictures: LearningPictures, label: Callable[[int], Mask], *, what: str
) -> DataSettings:
    """Write the set whose masks ``label`` returns for each picture (0, 1, 255), and return how to open it.

    A picture without the object gets a mask of 0 whatever ``label`` says. The folder is there whole or not at
    all; one that is there already is replaced. ``what`` is what the progress bar is called.

    Raises:
        DataError: no picture to learn from is marked anywhere.
    """
    with remade_folder(folder) as new:
        for kind in ("images", "masks"):
            for part in ("train", "valid"):
                (new / part / kind).mkdir(parents=True)
        (new / "test" / "images").mkdir(parents=True)
        marked = 0
        for index in track(range(len(pictures)), total=len(pictures), what=what):
            stem, entry = pictures.files[index], pictures.labelled.split.entries[index]
            split = new / ("valid" if pictures.held_out[index] else "train")
            mask = label(index)
            shown = mask if pictures.labelled.present[index] else mask * 0
            marked += not pictures.held_out[index] and bool((shown == 1).any())
            pil.fromarray(shown.numpy().astype(np.uint8)).save(split / "masks" / f"{stem}.png")
            link(entry.image, split / "images" / f"{stem}{entry.image.suffix}")
        if not marked:
            raise DataError(
                f"All {pictures.held_out.count(False)} pseudo-masks that a student learns from are empty. "
                "Choose a lower threshold or other maps with --stages, or another classifier."
            )
        # Without a test split, opening the set would take one out of train: the valid one stands in.
        held_out = [pictures.labelled.split.entries[i] for i, held in enumerate(pictures.held_out) if held]
        for number, entry in enumerate(pictures.test or held_out):
            link(entry.image, new / "test" / "images" / f"{number:05d}{entry.image.suffix}")
    return opened_as(folder, pictures)


def opened_as(folder: Path, pictures: LearningPictures) -> DataSettings:
    """Return how to open the set of students that `write_set` wrote."""
    return DataSettings(
        path=folder, layout="pairs", classes=pictures.classes, ignore=IGNORED, channels=pictures.channels
    )


def read_label_of(folder: Path, pictures: LearningPictures, index: int) -> Mask:
    """Return the mask of picture ``index`` in the set ``folder``: 0, 1 and 255."""
    split = "valid" if pictures.held_out[index] else "train"
    return read_label(folder / split / "masks" / f"{pictures.files[index]}.png")


def train_student(data: DataSettings, recipe: TrainSettings, out: Path) -> Run:
    """Train a student on its set into the run folder ``out``, or go on where that was interrupted.

    Raises:
        UserError, TrainingError: as `seglens.train`.
    """
    return train(data, recipe, out, resume=True)


def link(file: Path, place: Path) -> None:
    """Put ``file`` at ``place``: as a second name where the disk allows that, else as a copy."""
    try:
        os.link(file.resolve(), place)
    except OSError:
        shutil.copyfile(file, place)

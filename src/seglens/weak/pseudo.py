"""From image-level labels to pseudo-masks: each stage has its folder, is written once and can be taken up."""

from dataclasses import dataclass
from pathlib import Path

import torch

from seglens.data.layout import DataSettings
from seglens.shapes import Map
from seglens.weak.labels import Labelled
from seglens.weak.settings import PseudoSettings

STAGES = ("heat", "spread", "refined", "voted", "masks")
"""Stages that predict, in their order; ``patches`` (superpixels) has a folder and a time, no more."""


@dataclass(frozen=True)
class Stage:
    """One stage that was passed: its folder, the seconds of work it took, and what it says of itself.

    ``seconds`` are those of the work itself, also where it was done in an earlier, interrupted call. Of
    ``seconds``, ``once`` were spent for the set as a whole (loading the classifier, fitting the head).
    ``threshold`` is where a map of the stage is cut into object and none, chosen without masks; None where
    the stage predicts nothing. ``facts`` are plain values for ``run.json``.
    """

    name: str
    folder: Path
    seconds: float
    once: float
    threshold: float | None
    facts: dict[str, float | int | str]


@dataclass(frozen=True)
class PseudoMasks:
    """All that was made: the stages in order, and the pictures they were made for.

    ``names`` are those of ``labelled.split.entries``, ``files`` the stem under which each is kept in a
    stage's folder.
    """

    folder: Path
    names: tuple[str, ...]
    files: tuple[str, ...]
    stages: tuple[Stage, ...]

    def stage(self, name: str) -> Stage:
        """Return the stage called ``name``.

        Raises:
            UnknownNameError: there is none, or the settings left it out.
        """
        raise NotImplementedError

    def load_stage(self, name: str, index: int) -> Map:
        """Return what a stage predicts for picture ``index``, in [0, 1], at the picture's own size.

        `Stage.threshold` says from which value on a pixel is object. Of ``masks``, ignored pixels are 0.5.

        Raises:
            UnknownNameError: there is no such stage.
        """
        raise NotImplementedError

    def load_patches(self, index: int) -> torch.Tensor:
        """Return the superpixels of picture ``index`` at its own size, numbered from 0."""
        raise NotImplementedError

    def data_settings(self) -> DataSettings:
        """Return how to open the pseudo-masks as a set: layout ``pairs``, 255 ignored, all in train."""
        raise NotImplementedError


def make_pseudo_masks(
    labelled: Labelled, settings: PseudoSettings, folder: Path, *, device: torch.device, seed: int
) -> PseudoMasks:
    """Make pseudo-masks of pictures with image-level labels; no mask is read.

    In ``folder`` every stage has a folder: ``heat/`` (fused maps), ``patches/`` (superpixels), ``spread/``
    (the head's maps), ``refined/``, ``voted/``, ``masks/`` (the set in layout ``pairs``: ``train/images`` and
    ``train/masks`` with 0, 1 and 255). A call with the same settings goes on where an earlier one was
    stopped. Pictures without the object get masks of 0 and no heat.

    Raises:
        SettingError: a setting is not allowed, or no picture shows the object.
        OutputExistsError: ``folder`` holds stages of other settings or other pictures.
        DataError: a picture can't be read.
    """
    raise NotImplementedError

"""From image-level labels to pseudo-masks: each stage has its folder, is written once and can be taken up."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from seglens.data.labels import read_label
from seglens.data.layout import DataSettings
from seglens.errors import unknown_name
from seglens.shapes import Map
from seglens.weak.banded import IGNORED, as_values, mask_file
from seglens.weak.labels import Labelled
from seglens.weak.making import Making
from seglens.weak.patches import read_patches
from seglens.weak.settings import PseudoSettings
from seglens.weak.shelf import Shelf, Stage, to_size

STAGES = ("heat", "patches", "spread", "refined", "voted", "masks")
"""The folders, in the order in which they are made; ``patches`` are superpixels and predict nothing."""


@dataclass(frozen=True)
class PseudoMasks:
    """All that was made: the stages in order, and the pictures they were made for.

    ``names`` are those of the pictures, ``files`` the stem under which each is kept in a stage's folder, and
    ``sizes`` their rows and columns.
    """

    folder: Path
    names: tuple[str, ...]
    files: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    stages: tuple[Stage, ...]

    def stage(self, name: str) -> Stage:
        """Return the stage called ``name``.

        Raises:
            UnknownNameError: there is none, or the settings left it out.
        """
        found = next((stage for stage in self.stages if stage.name == name), None)
        if found is None:
            raise unknown_name("stage", name, [stage.name for stage in self.stages])
        return found

    def load_stage(self, name: str, index: int) -> Map:
        """Return what a stage predicts for picture ``index``, in [0, 1], at the picture's own size.

        `Stage.threshold` says from which value on a pixel is object. Of ``masks``, ignored pixels are 0.5.

        Raises:
            UnknownNameError: there is no such stage, or it predicts nothing.
            DataError: a file is missing or damaged.
        """
        stage = self.stage(name)
        if stage.threshold is None:
            raise unknown_name(
                "stage that predicts", name, [one.name for one in self.stages if one.threshold]
            )
        if name == "masks":
            return as_values(read_label(mask_file(stage.folder / "train", self.files[index])))
        return to_size(Shelf(name, stage.folder, {}).read(self.files[index]), self.sizes[index])

    def load_patches(self, index: int) -> Int[Tensor, "h w"]:
        """Return the superpixels of picture ``index`` at its own size, numbered from 0.

        Raises:
            UnknownNameError: the settings left superpixels out.
            DataError: the file is missing or damaged.
        """
        return read_patches(self.stage("patches").folder, self.files[index])

    def data_settings(self) -> DataSettings:
        """Return how to open the pseudo-masks as a set: layout ``pairs``, 255 ignored, all in train."""
        return DataSettings(
            path=self.stage("masks").folder, layout="pairs", ignore=IGNORED, masks="foreground"
        )


def make_pseudo_masks(
    labelled: Labelled, settings: PseudoSettings, folder: Path, *, device: torch.device, seed: int
) -> PseudoMasks:
    """Make pseudo-masks of pictures with image-level labels; no mask is read.

    In ``folder`` every stage has a folder: ``heat/`` (fused maps), ``patches/`` (superpixels), ``spread/``
    (the head's maps), ``refined/``, ``voted/``, ``masks/`` (the set in layout ``pairs``, with 0, 1 and 255).
    A call with the same settings goes on where an earlier one was stopped; a stage depends on the settings of
    those before it only, so that another way to end may use the heat that is there (after deleting the
    folders of later stages). Pictures without the object get maps and masks of 0.

    Raises:
        SettingError, UnknownNameError: a setting is not allowed, or no picture shows the object.
        OutputExistsError: ``folder`` holds stages of other settings or other pictures.
        DataError: a picture can't be read, or nothing can be told apart.
        CheckpointError, ModelError: the classifier can't be had.
    """
    making = Making(labelled, settings, Path(folder), device, seed)
    stages = making.run()
    return PseudoMasks(Path(folder), making.names, making.stems, making.sizes, stages)

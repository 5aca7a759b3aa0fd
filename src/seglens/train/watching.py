"""Pictures of a training while it runs: what the network says of the same few valid pictures each epoch."""

from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from PIL.Image import Image as Picture

from seglens.data.sample import Task
from seglens.data.transforms import Batch
from seglens.drawing.draw import Tile, outline, overlay, sheet
from seglens.drawing.planes import planes_through
from seglens.masks import foreground, only_valid
from seglens.models.segmenter import ModelSpec
from seglens.shapes import AnyMask
from seglens.train.lightning_module import SegmentationModule

NUM_WATCHED = 4
"""Pictures that are drawn each epoch: the first of the valid split, always the same."""

KEY = "valid pictures"


class WatchedPictures(Callback):
    """Draws predictions over the watched pictures each epoch, for the loggers that take pictures.

    The truth is a white outline. The network is the one that is validated and kept; nothing random is drawn,
    so that a training comes out the same with these pictures and without.
    """

    def __init__(self, task: Task) -> None:
        self.task = task

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw the first pictures of the first batch."""
        takers = [logger for logger in trainer.loggers if takes_pictures(logger)]
        if batch_idx or not takers or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, SegmentationModule)
        network, num = pl_module.kept, min(NUM_WATCHED, len(batch.names))
        masks = network.mask(network(batch.images[:num])).cpu()
        epoch = trainer.current_epoch + 1
        drawn = draw_watched(batch, masks, network.spec, self.task, title=f"epoch {epoch}")
        for logger in takers:
            log_picture(logger, drawn, epoch, trainer.global_step)


def draw_watched(batch: Batch, masks: torch.Tensor, spec: ModelSpec, task: Task, *, title: str) -> Picture:
    """Draw each picture with its prediction, and the truth as a white outline; of volumes three planes."""
    low, high = spec.window
    tiles = []
    for at, predicted in enumerate(masks):
        if not batch.names[at]:
            continue  # a blank one, which fills up a batch
        image = ((batch.images[at].cpu() - low) / (high - low)).clamp(0, 1)
        truth = None if batch.masks is None else batch.masks[at].cpu()
        valid = batch.valid[at].cpu()
        if spec.dims == 3:
            planes = planes_through(foreground(predicted, 3), spec.spacing or None)
            image, predicted, valid = planes(image), planes(predicted), planes(valid)
            truth = None if truth is None else planes(truth)
        tiles.append(Tile(_drawn(image, predicted, truth, valid, task), batch.names[at]))
    return sheet([tiles], title=title)


def _drawn(
    image: torch.Tensor, predicted: AnyMask, truth: AnyMask | None, valid: torch.Tensor, task: Task
) -> Picture:
    drawn = overlay(image, predicted, task.palette)
    return drawn if truth is None else outline(drawn, foreground(only_valid(truth, valid, 2), 2))


def takes_pictures(logger: Logger) -> bool:
    """Whether a logger keeps pictures; a table of numbers doesn't."""
    return isinstance(logger, TensorBoardLogger | WandbLogger | MLFlowLogger)


def log_picture(logger: Logger, drawn: Picture, epoch: int, step: int) -> None:
    """Give a logger the picture of an epoch, each in its own way."""
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image(KEY, np.asarray(drawn), epoch, dataformats="HWC")
    elif isinstance(logger, WandbLogger):
        logger.log_image(KEY, [drawn], step=step, caption=[f"epoch {epoch}"])
    elif isinstance(logger, MLFlowLogger):
        file = f"{KEY.replace(' ', '-')}/epoch-{epoch:03d}.png"
        logger.experiment.log_image(logger.run_id, drawn, artifact_file=file)

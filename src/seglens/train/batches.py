"""The batches of each process that trains, made when its place among them is known."""

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from seglens.data.sample import Sample
from seglens.data.transforms import Batch
from seglens.train.feed import Feed, Part, Shuffled, training_batches, validation_batches
from seglens.train.recipe import TrainSettings


class Batches(LightningDataModule):
    """The batches of each process, made when its place among them is known.

    ``splits`` is the number of smaller batches that a step is computed in; their gradients are averaged.
    """

    training: Feed
    validation: Feed | None
    settings: TrainSettings
    workers: int
    splits: int

    def __init__(
        self,
        training: Feed,
        validation: Feed | None,
        settings: TrainSettings,
        *,
        workers: int,
        splits: int = 1,
    ) -> None:
        super().__init__()
        self.training, self.validation, self.settings = training, validation, settings
        self.workers, self.splits = workers, splits

    @property
    def num_steps(self) -> int:
        """Steps of the optimiser in the whole training."""
        order = self._training(Part(0, self.settings.devices * self.settings.num_nodes)).sampler
        assert isinstance(order, Shuffled)
        return self.settings.epochs * -(-order.num_batches // self.splits)

    def train_dataloader(self) -> DataLoader[Sample]:
        """Return this process's batches to train on."""
        return self._training(self._part())

    def val_dataloader(self) -> DataLoader[Sample]:
        """Return this process's batches to validate on."""
        assert self.validation is not None
        size = self.settings.batch_size // self.splits
        return validation_batches(self.validation, batch_size=size, part=self._part())

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move a batch, which Lightning doesn't know how to do."""
        images = batch.images.to(device, memory_format=torch.channels_last, non_blocking=True)
        masks = None if batch.masks is None else batch.masks.to(device, non_blocking=True)
        return Batch(batch.names, images, masks, batch.valid.to(device, non_blocking=True))

    def split(self, splits: int) -> "Batches":
        """Return the same batches with every step computed in so many smaller ones."""
        return Batches(self.training, self.validation, self.settings, workers=self.workers, splits=splits)

    def _part(self) -> Part:
        assert self.trainer is not None
        return Part(self.trainer.global_rank, self.trainer.world_size)

    def _training(self, part: Part) -> DataLoader[Sample]:
        size = self.settings.batch_size
        return training_batches(
            self.training, batch_size=size, workers=self.workers, part=part, splits=self.splits
        )

"""Training: a `LightningModule` and the call that fits it. Read from top to bottom.

`train` opens the data, describes the model, gets pictures and network ready, writes a run folder that says
``running``, fits, and closes the folder with the weights of the best epoch. What could be the user's fault
is tried before the folder is touched. A training that was killed goes on from ``last.ckpt`` and ends with
the weights that it would have had: order, augmentation and dropout depend on seed and epoch alone.
"""

import os
import shutil
import sys
import time
from functools import partial
from math import cos, pi
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, seed_everything
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from seglens import record as records
from seglens.data.layout import Dataset, DataSettings
from seglens.data.opening import open_data
from seglens.data.sample import Sample
from seglens.data.transforms import Batch
from seglens.device import choose_device, choose_precision
from seglens.errors import DataError, OutputExistsError, SettingError, TrainingError
from seglens.losses import Loss, choose_loss
from seglens.models.segmenter import Segmenter
from seglens.outputs import refuse_existing
from seglens.runs import Run, load, save_run
from seglens.scores import confusion, scores
from seglens.shapes import Logits, Masks
from seglens.train.feed import training_batches, validation_batches
from seglens.train.fit import Keeper, fit
from seglens.train.recipe import TrainSettings, describe_model, refuse_other_settings
from seglens.verb import make_callable

__all__ = ["TrainSettings", "train"]


def train(
    data: DataSettings, settings: TrainSettings, out: Path, *, resume: bool = False, force: bool = False
) -> Run:
    """Train a model on ``data`` and return it as a run whose folder is ``out``.

    ``resume`` goes on where a training stopped; where it had ended, that run is returned and a line says so.

    Raises:
        UserError: the data, a setting or the folder can't be used as they are.
        TrainingError: the loss is no longer a finite number; what was saved before is intact.
        KeyboardInterrupt: on Ctrl-C; the training can be resumed.
    """
    began, out = time.monotonic(), Path(out)
    earlier = records.read(out) if resume else None
    if earlier is None:
        _refuse_existing(out, force=force)

    dataset = open_data(data)
    if "train" not in dataset.splits:
        raise DataError(f"{data.path} has no picture to train on, only: {', '.join(dataset.splits)}.")
    if earlier is not None:
        refuse_other_settings(earlier, settings, dataset, out)
    device = choose_device(settings.device)
    if earlier is not None and earlier.state == "finished":
        print(f"{out} is finished: there is nothing to resume.", file=sys.stderr)
        return load(out, device=str(device))
    precision = choose_precision(settings.precision, device)
    spec = describe_model(settings, dataset)
    loss = choose_loss(settings.loss, spec.outputs)

    seed_everything(settings.seed, workers=True, verbose=False)
    segmenter = Segmenter.from_spec(spec, encoder_weights=settings.encoder_weights or "none")
    training, validation = _batches(dataset, settings, device)
    learner = Learner(segmenter, loss, settings, num_steps=settings.epochs * len(training))
    keeper = Keeper(out, patience=settings.patience, keep_every=settings.keep_every)

    if earlier is None:
        shutil.rmtree(out) if out.is_dir() else out.unlink(missing_ok=True)
    keeper.folder.mkdir(parents=True, exist_ok=True)
    record = earlier or records.start(
        "train",
        seed=settings.seed,
        device=str(device),
        settings=settings.model_dump(mode="json"),
        model=segmenter.spec.model_dump(mode="json"),
        task=dataset.task.model_dump(mode="json"),
        data=data.model_dump(mode="json"),
        data_sha256=dataset.sha256(),
    )
    record.write(out)

    fit(learner, training, validation, keeper, epochs=settings.epochs, device=device, precision=precision)

    learner.load_state_dict(_read_checkpoint(keeper.folder / "best.ckpt"))
    history, best = keeper.history, keeper.history.best()
    results = {
        "best_epoch": best["epoch"],
        "epochs": len(history.rows),
        "seconds": sum(row["seconds"] for row in history.rows),
        "valid": {name: best[f"valid_{name}"] for name in ("loss", "dice", "iou")},
        **{f"num_{name}": len(split) for name, split in dataset.splits.items()},
        "images_per_second": history.speed(),
        "precision": precision,
    }
    save_run(out, segmenter, dataset.task, records.finish(record, began, results=results))
    return load(out, device=str(device))


class Learner(LightningModule):
    """A training step, a validation step, and the optimiser."""

    def __init__(self, segmenter: Segmenter, loss: Loss, settings: TrainSettings, *, num_steps: int) -> None:
        super().__init__()
        # Convolutions are fastest with the channels of a pixel side by side.
        self.segmenter = segmenter.to(memory_format=torch.channels_last)
        self.loss, self.settings, self.num_steps = loss, settings, num_steps
        self.counts = torch.zeros(segmenter.spec.classes, segmenter.spec.classes, dtype=torch.int64)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Return the loss of a batch; one that is not finite must not reach the weights."""
        # Dropout is keyed by seed and step: a resumed step draws what it would have drawn.
        torch.manual_seed(self.settings.seed * 1_000_003 + self.global_step)
        loss = self._loss(batch, self._logits(batch))
        if not loss.isfinite():
            raise TrainingError(
                f"The loss is {loss.item()} in epoch {self.current_epoch + 1}, batch {batch_index + 1}: "
                f"{', '.join(batch.names)}. What was saved before is intact. Look at these pictures, lower "
                f"the learning rate (it is {self.settings.learning_rate:g}), or train with precision 32."
            )
        self.log("train_loss", loss.detach(), on_step=False, on_epoch=True, batch_size=len(batch.names))
        return loss

    def on_validation_epoch_start(self) -> None:
        """Begin to count anew."""
        self.counts.zero_()

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Count the pixels of a batch, at the network's size."""
        logits = self.segmenter(batch.images)
        self.log("valid_loss", self._loss(batch, logits), on_epoch=True, batch_size=len(batch.names))
        truth, valid = _masks(batch).cpu(), batch.valid.cpu()
        for pictures in zip(self.segmenter.mask(logits).cpu(), truth, valid, strict=True):
            self.counts += confusion(*pictures, num_classes=len(self.counts))

    def on_validation_epoch_end(self) -> None:
        """Log Dice and IoU, pooled over the split."""
        pooled = scores(self.counts)
        self.log_dict({f"valid_{name}": pooled[name].float() for name in ("dice", "iou")}, prog_bar=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW (Loshchilov, Hutter 2019); biases and norms don't decay."""
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        decaying = {
            "params": [p for p in parameters if p.ndim > 1],
            "weight_decay": self.settings.weight_decay,
        }
        others = {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}
        optimiser = AdamW([decaying, others], lr=self.settings.learning_rate)
        schedule = LambdaLR(optimiser, partial(relative_rate, num_steps=self.num_steps))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move a batch, which Lightning doesn't know how to do."""
        images = batch.images.to(device, memory_format=torch.channels_last, non_blocking=True)
        masks = _masks(batch).to(device, non_blocking=True)
        return Batch(batch.names, images, masks, batch.valid.to(device, non_blocking=True))

    def _logits(self, batch: Batch) -> Logits:
        try:
            return self.segmenter(batch.images)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise SettingError(
                f"{self.settings.model} normalises over a batch and can't be trained on batches of "
                f"{len(batch.names)} picture. Choose a batch size of 2 or more."
            ) from error

    def _loss(self, batch: Batch, logits: Logits) -> Tensor:
        return self.loss(logits, _masks(batch), batch.valid)


def relative_rate(step: int, num_steps: int) -> float:
    """Return the share of the learning rate at a step: linear warm-up over 5 % of them, then a cosine to 0.

    Goyal et al. (2017, section 2.2); Loshchilov, Hutter (2017, eq. 5) without restarts.
    """
    warm_up = max(1, num_steps // 20)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + cos(pi * min(1.0, (step - warm_up) / max(1, num_steps - warm_up))))


def _read_checkpoint(file: Path) -> dict[str, Tensor]:
    return torch.load(file, map_location="cpu", weights_only=True)["state_dict"]


def _batches(
    dataset: Dataset, settings: TrainSettings, device: torch.device
) -> tuple[DataLoader[Sample], DataLoader[Sample] | None]:
    """Return the batches to train and to validate on; a set too small to be split has none of the second."""
    training = training_batches(
        dataset.split("train"),
        size=settings.image_size,
        batch_size=settings.batch_size,
        seed=settings.seed,
        augmented=settings.augment,
        workers=_workers(settings, device),
    )
    if "valid" not in dataset.splits:
        return training, None
    valid = dataset.split("valid")
    return training, validation_batches(valid, size=settings.image_size, batch_size=settings.batch_size)


def _workers(settings: TrainSettings, device: torch.device) -> int:
    """Return how many processes augment; without a GPU the cores are better spent on the network."""
    if settings.workers is not None:
        return settings.workers
    return min(8, os.cpu_count() or 1) if device.type == "cuda" else 0


def _refuse_existing(out: Path, *, force: bool) -> None:
    try:
        refuse_existing(out, force=force)
    except OutputExistsError as error:
        if (out / records.FILE_NAME).is_file() and records.read(out).state == "running":
            raise OutputExistsError(
                f"{out} holds a training that has not ended. Go on with --resume, or replace it with --force."
            ) from error
        raise


def _masks(batch: Batch) -> Masks:
    assert batch.masks is not None  # Feed has refused pictures without one.
    return batch.masks


make_callable(__name__)

"""The LightningModule: training step, validation step and optimiser."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from seglens.axes import CHANNELS_LAST
from seglens.data.transforms import Batch
from seglens.errors import SettingError, TrainingError
from seglens.evaluate.scores import Counts, LabelCounts, counted, no_counts, pooled_scores
from seglens.models.segmenter import Segmenter
from seglens.shapes import AnyMasks, Logits
from seglens.train.losses import Loss
from seglens.train.recipe import TrainSettings
from seglens.train.schedule import SCHEDULES

Tensors = tuple[Tensor, ...] | list[Tensor]


class SegmentationModule(LightningModule):
    """A training step, a validation step, and the optimiser.

    ``average`` holds the running average of the weights where there is one: it is validated and kept.
    """

    segmenter: Segmenter
    loss: Loss
    settings: TrainSettings
    num_steps: int
    average: AveragedModel | None
    multilabel: bool
    counts: Tensor
    valid_loss: Tensor

    class_weights: Float[Tensor, "classes"] | None

    def __init__(
        self,
        segmenter: Segmenter,
        loss: Loss,
        settings: TrainSettings,
        *,
        num_steps: int,
        class_weights: Float[Tensor, "classes"] | None = None,
    ) -> None:
        super().__init__()
        # Convolutions are fastest with the channels of a pixel side by side.
        self.segmenter = segmenter.to(memory_format=CHANNELS_LAST[segmenter.spec.dims])
        self.loss, self.settings, self.num_steps = loss, settings, num_steps
        self.average = averaged_model(segmenter, ema_decay(settings.ema, num_steps))
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.multilabel = segmenter.spec.head == "multilabel"
        self.counts = self._pixels(no_counts(segmenter.spec.classes, multilabel=self.multilabel))
        self.valid_loss = torch.zeros(2, dtype=torch.float64)
        if settings.compile:
            segmenter.compile()

    @property
    def kept(self) -> Segmenter:
        """The network that is validated and saved: the averaged one where there is one."""
        if self.average is None:
            return self.segmenter
        copy = self.average.module
        assert isinstance(copy, Segmenter)
        return copy

    def on_train_epoch_start(self) -> None:
        """Hold the encoder still for as long as the settings say, its batch norm too."""
        if self.settings.freeze_encoder:
            learns = self.current_epoch >= self.settings.freeze_encoder
            encoder_of(self.segmenter).requires_grad_(learns).train(learns)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Return the loss of a batch; one that is not finite must not reach the weights."""
        # Dropout is keyed by seed and place: a resumed step draws what it would have drawn.
        place = self.current_epoch * 100_003 + batch_index
        torch.manual_seed((self.settings.seed * 1_000_003 + place) * 1_009 + self.global_rank)
        loss = self._loss(batch, self._logits(batch))
        if not loss.isfinite():
            raise TrainingError(
                f"The loss is {loss.item()} in epoch {self.current_epoch + 1}, batch {batch_index + 1}: "
                f"{', '.join(batch.names)}. What was saved before is intact. Look at these pictures, lower "
                f"the learning rate (it is {self.settings.learning_rate:g}), or train with precision 32."
            )
        num = len(batch.names)
        self.log("train_loss", loss.detach(), on_step=False, on_epoch=True, batch_size=num, sync_dist=True)
        return loss

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Make the step, then take its weights into their average."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self.average is not None:
            self.average.update_parameters(self.segmenter)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Bound the norm of the gradient (Pascanu et al. 2013), which Lightning won't for a fused AdamW."""
        clip_grad_norm_(self.segmenter.parameters(), self.settings.clip)

    def on_validation_epoch_start(self) -> None:
        """Begin to count anew, in every process with the batch norms of the first, which are kept."""
        if self.trainer.world_size > 1:
            for buffer in self.kept.buffers():
                torch.distributed.broadcast(buffer, src=0)
        self.counts.zero_()
        self.valid_loss.zero_()

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Count the pixels of a batch, at the network's size; a blank picture (no name) counts nothing."""
        logits = self.kept(batch.images)
        num = sum(bool(name) for name in batch.names)
        if num:
            self.valid_loss += torch.tensor([float(self._loss(batch, logits)) * num, num])
        truth, valid = _masks(batch).cpu(), batch.valid.cpu()
        for pictures in zip(self.kept.mask(logits).cpu(), truth, valid, strict=True):
            self.counts += self._pixels(counted(*pictures, num_classes=len(self.counts)))

    def on_validation_epoch_end(self) -> None:
        """Log loss, Dice and IoU, pooled over the split and over all processes."""
        counts, (total, num) = (
            self.trainer.strategy.reduce(each.to(self.device), reduce_op="sum").cpu()
            for each in (self.counts, self.valid_loss.float())
        )
        if not total.isfinite():
            raise TrainingError(
                f"The loss on the valid split is {total.item()} after epoch {self.current_epoch + 1}. What "
                "was saved before is intact. Lower the learning rate (it is "
                f"{self.settings.learning_rate:g}), or train with precision 32."
            )
        pooled = pooled_scores(LabelCounts(counts) if self.multilabel else counts)
        self.log("valid_loss", total / num)
        self.log_dict({f"valid_{name}": pooled[name].float() for name in ("dice", "iou")}, prog_bar=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW (Loshchilov, Hutter 2019); biases and norms don't decay, the encoder has its own rate."""
        encoder = set() if self.settings.encoder_rate == 1 else set(encoder_of(self.segmenter).parameters())
        groups = []
        # The history shows the rate of the first group.
        for inside, rate in ((False, 1.0), (True, self.settings.encoder_rate)):
            part = [
                parameter for parameter in self.segmenter.parameters() if (parameter in encoder) == inside
            ]
            for decay, chosen in (
                (self.settings.weight_decay, [parameter for parameter in part if parameter.ndim > 1]),
                (0.0, [parameter for parameter in part if parameter.ndim <= 1]),
            ):
                if chosen:
                    rate_here = self.settings.learning_rate * rate
                    groups.append({"params": chosen, "weight_decay": decay, "lr": rate_here})
        optimiser = AdamW(groups, fused=True)  # one pass over the weights: half the time of a step
        schedule, num_steps = SCHEDULES[self.settings.schedule], self.num_steps
        rates = LambdaLR(optimiser, lambda step: schedule(step, num_steps))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": rates, "interval": "step"}}

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

    @staticmethod
    def _pixels(counts: Counts) -> Tensor:
        """The numbers of counts, which can be reduced over processes."""
        return counts.pixels if isinstance(counts, LabelCounts) else counts

    def _loss(self, batch: Batch, logits: Logits) -> Tensor:
        return self.loss(logits, _masks(batch), batch.valid, self.class_weights)


def encoder_of(segmenter: Segmenter) -> nn.Module:
    """Return the part of the network that its encoder weights belong to.

    Raises:
        SettingError: the network has no encoder of its own.
    """
    encoder = getattr(segmenter.module, "encoder", None)
    if not isinstance(encoder, nn.Module):
        raise SettingError(
            f"The model {segmenter.spec.architecture} has no encoder to freeze, or to give a learning rate "
            "of its own. Leave encoder_rate and freeze_encoder out, or name a model that has an encoder."
        )
    return encoder


def ema_decay(asked: int | float | None, num_steps: int) -> int | float:
    """Return the decay of the running average of the weights; 0 means that there is none.

    Left to us, the average reaches back over about a twentieth of the training.
    """
    return min(0.9999, max(0.9, 1 - 20 / num_steps)) if asked is None else asked


def averaged_model(segmenter: Segmenter, decay: int | float) -> AveragedModel | None:
    """Return a copy of ``segmenter`` that follows its weights, or None where ``decay`` is 0.

    Exponential moving average (Polyak, Juditsky 1992; Tarvainen, Valpola 2017) of weights and buffers,
    ``a <- d a + (1 - d) w`` with ``d = min(decay, (1 + n) / (10 + n))`` after n steps, so that the first
    weights are soon forgotten.
    """
    if not decay:
        return None

    def blend(kept: Tensors, given: Tensors, num: Tensor | int) -> None:
        if not kept[0].is_floating_point():  # the counters of batch norm
            torch._foreach_copy_(kept, given)
            return
        num = int(num)
        torch._foreach_lerp_(kept, given, 1 - min(decay, (1 + num) / (10 + num)))

    average = AveragedModel(segmenter, multi_avg_fn=blend, use_buffers=True)
    average.requires_grad_(False)
    return average


def _masks(batch: Batch) -> AnyMasks:
    assert batch.masks is not None  # TrainingDataset has refused pictures without one.
    return batch.masks

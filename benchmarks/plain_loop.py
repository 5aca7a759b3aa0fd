"""The plain loop: what a user of segmentation-models-pytorch and Lightning would write.

It follows ``examples/binary_segmentation_intro.ipynb`` of segmentation-models-pytorch in what it does, with
other words and another decoder (U-Net instead of FPN): a picture and its trimap are read from disk each time,
stretched to the network's size, and given to a loader with one process a core; colours are normalised in
``forward`` as there (the pictures are not divided by 255 before); Dice loss; the four counts of every step
are kept for the epoch's scores; Adam at 2e-4 under a cosine to 1e-5; Lightning's defaults otherwise.
Numbers are float32 and the channels of a picture are apart, unless ``precision`` says otherwise.
"""

import os
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import segmentation_models_pytorch as smp
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

Batch = dict[str, Tensor]
Counts = dict[str, Tensor]

LEARNING_RATE = 2e-4


class Pictures(Dataset[dict[str, np.ndarray]]):
    """Pairs of files; ``foreground`` are the values of a mask file that are the object."""

    def __init__(self, files: list[tuple[str, str]], foreground: tuple[int, ...], size: int) -> None:
        self.files, self.foreground, self.size = files, foreground, size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        picture, label = self.files[index]
        image = np.array(Image.open(picture).convert("RGB"))
        trimap = np.array(Image.open(label))
        mask = np.isin(trimap, self.foreground).astype(np.float32)
        side = (self.size, self.size)
        image = np.array(Image.fromarray(image).resize(side, Image.Resampling.BILINEAR))
        mask = np.array(Image.fromarray(mask).resize(side, Image.Resampling.NEAREST))
        trimap = np.array(Image.fromarray(trimap).resize(side, Image.Resampling.NEAREST))
        return {"image": np.moveaxis(image, -1, 0), "mask": mask[None], "trimap": trimap[None]}


class PetModel(pl.LightningModule):
    """Network, loss and scores."""

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: str, num_steps: int) -> None:
        super().__init__()
        self.model = smp.create_model(
            "Unet", encoder_name=encoder, encoder_weights=None, in_channels=3, classes=1
        )
        # The example asks the hub for these numbers of ImageNet.
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.loss = smp.losses.DiceLoss(smp.losses.BINARY_MODE, from_logits=True)
        self.num_steps = num_steps
        self.counts: dict[str, list[Counts]] = {"train": [], "valid": []}

    def forward(self, image: Tensor) -> Tensor:
        return self.model((image - self.mean) / self.std)

    def shared_step(self, batch: Batch, stage: str) -> Tensor:
        image, mask = batch["image"], batch["mask"]
        assert image.ndim == 4
        assert image.shape[2] % 32 == 0
        assert image.shape[3] % 32 == 0
        assert mask.ndim == 4
        assert mask.max() <= 1.0
        assert mask.min() >= 0
        logits = self.forward(image)
        loss = self.loss(logits, mask)
        predicted = (logits.sigmoid() > 0.5).float()
        found = smp.metrics.get_stats(predicted.long(), mask.long(), mode="binary")
        self.counts[stage].append(dict(zip(("tp", "fp", "fn", "tn"), found, strict=True)))
        return loss

    def shared_epoch_end(self, stage: str) -> None:
        counts = self.counts[stage]
        if not counts:
            return
        tp, fp, fn, tn = (torch.cat([each[name] for each in counts]) for name in ("tp", "fp", "fn", "tn"))
        scores = {
            f"{stage}_per_image_iou": smp.metrics.iou_score(tp, fp, fn, tn, reduction="micro-imagewise"),
            f"{stage}_dataset_iou": smp.metrics.iou_score(tp, fp, fn, tn, reduction="micro"),
        }
        self.log_dict(scores, prog_bar=True)
        counts.clear()

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        return self.shared_step(batch, "train")

    def on_train_epoch_end(self) -> None:
        self.shared_epoch_end("train")

    def validation_step(self, batch: Batch, batch_index: int) -> Tensor:
        return self.shared_step(batch, "valid")

    def on_validation_epoch_end(self) -> None:
        self.shared_epoch_end("valid")

    def configure_optimizers(self) -> Any:
        optimiser = torch.optim.Adam(self.parameters(), lr=LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=self.num_steps, eta_min=1e-5)
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": schedule, "interval": "step", "frequency": 1},
        }


def loader(pictures: Pictures, batch_size: int, *, shuffle: bool) -> DataLoader[dict[str, np.ndarray]]:
    return DataLoader(pictures, batch_size=batch_size, shuffle=shuffle, num_workers=os.cpu_count() or 1)


def trainer(folder: Path, *, device: str, precision: str, epochs: int = 1) -> pl.Trainer:
    return pl.Trainer(
        max_epochs=epochs,
        log_every_n_steps=1,
        accelerator="gpu" if device.startswith("cuda") else device,
        devices=1,
        precision="bf16-mixed" if precision == "bf16" else "32-true",
        default_root_dir=folder,
    )

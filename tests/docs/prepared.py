"""What readers of a page have in their folder, made of specimens: pictures, runs, checkpoints of others."""

import shutil
from collections.abc import Callable
from pathlib import Path

import segmentation_models_pytorch as smp
import torch
import torchvision
from tests.docs.quick import ENCODER, SIZE

from seglens.data.specimens import write_specimens


def photos(folder: Path) -> None:
    """A set with train, valid and test."""
    write_specimens(folder / "photos", num_train=8, num_valid=4, num_test=4, size=SIZE)


def cell(folder: Path) -> None:
    """One picture."""
    drawn = write_specimens(folder / ".one", num_train=1, num_valid=0, num_test=0, size=SIZE)
    shutil.copy(next((drawn / "train" / "images").iterdir()), folder / "cell.png")
    shutil.rmtree(drawn)


def elsewhere(folder: Path) -> None:
    """The set, moved."""
    shutil.copytree(folder / "photos", folder / "elsewhere" / "photos")


def smp_checkpoint(folder: Path) -> None:
    """What `torch.save(model.state_dict())` leaves of a U-Net++ of segmentation-models-pytorch."""
    model = smp.UnetPlusPlus(ENCODER, encoder_weights=None, classes=1)
    torch.save(model.state_dict(), folder / "best_model.pth")


def torchvision_checkpoint(folder: Path) -> None:
    """The same of torchvision's LR-ASPP."""
    model = torchvision.models.segmentation.lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=2
    )
    torch.save(model.state_dict(), folder / "lraspp.pth")


PREPARED: dict[str, Callable[[Path], None]] = {
    "photos": photos,
    "cell.png": cell,
    "elsewhere": elsewhere,
    "best_model.pth": smp_checkpoint,
    "lraspp.pth": torchvision_checkpoint,
}
"""By the names that pages use; ``runs/NAME`` stands for a run that was trained on ``photos``."""

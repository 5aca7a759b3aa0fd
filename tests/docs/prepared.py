"""What readers of a page have in their folder, made of specimens: pictures, runs, checkpoints of others."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import segmentation_models_pytorch as smp
import torch
import torchvision
from PIL import Image
from pycocotools import mask as rle
from tests.docs.quick import ENCODER, SIZE, STAGES
from tests.multilabel.sets import write_folders

from seglens.data.specimens import write_specimens
from seglens.data.volumes import Grid, write_map, write_mask


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


def pets(folder: Path) -> None:
    """A set with masks whose pictures all show the object, and what makes the stages quick."""
    drawn = write_specimens(folder / ".drawn", num_train=12, num_valid=4, num_test=4, size=SIZE)
    for mask in sorted(drawn.glob("*/masks/*")):
        if np.asarray(Image.open(mask)).any():
            for file in (mask, mask.parents[1] / "images" / mask.name):
                kept = folder / "pets" / file.relative_to(drawn)
                kept.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(file, kept)
    shutil.rmtree(drawn)
    stages(folder)


def labelled(folder: Path) -> None:
    """Pictures with and without the object, without masks: by a table, and by folders."""
    drawn = write_specimens(folder / ".drawn", num_train=8, num_valid=0, num_test=0, size=SIZE)
    rows = ["image,label"]
    for mask in sorted(drawn.glob("train/masks/*")):
        label = "object" if np.asarray(Image.open(mask)).any() else "none"
        picture = mask.parents[1] / "images" / mask.name
        for kept in (folder / "patches" / "images", folder / "photos" / label):
            kept.mkdir(parents=True, exist_ok=True)
            shutil.copy(picture, kept)
        rows.append(f"{mask.name},{label}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    shutil.rmtree(drawn)
    stages(folder)


def stages(folder: Path) -> None:
    """Settings that make the way from labels to masks quick."""
    (folder / "stages.json").write_text(json.dumps(STAGES))


def coco(folder: Path) -> None:
    """A set of COCO's with two kinds of tumour."""
    drawn = write_specimens(folder / ".drawn", num_train=8, num_valid=4, num_test=4, size=SIZE)
    for split in ("train", "valid", "test"):
        kept = shutil.copytree(drawn / split / "images", folder / "scans" / split)
        images, annotations = [], []
        for number, picture in enumerate(sorted(kept.iterdir())):
            mask = np.asarray(Image.open(drawn / split / "masks" / picture.name)) > 0
            images.append({"id": number, "file_name": picture.name, "height": SIZE, "width": SIZE})
            if mask.any():
                coded = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
                outline = {"size": coded["size"], "counts": coded["counts"].decode()}
                annotations.append(
                    {
                        "id": number,
                        "image_id": number,
                        "category_id": 1 + number % 4 // 2,
                        "iscrowd": 0,
                        "segmentation": outline,
                    }
                )
        categories = [{"id": 1, "name": "glioma"}, {"id": 2, "name": "meningioma"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (kept / "_annotations.coco.json").write_text(json.dumps(content))
    shutil.rmtree(drawn)


def people(folder: Path) -> None:
    """A set with a folder of masks for each of two classes that overlap."""
    write_folders(folder / "people", num={"train": 8, "valid": 2, "test": 2})


def hippocampus(folder: Path) -> None:
    """A set of volumes in nnU-Net's layout: a bright ball in two halves, eight volumes and two for test."""
    volumes = folder / "Dataset004_Hippocampus"
    volumes.mkdir()
    labels = {"background": 0, "Anterior": 1, "Posterior": 2}
    described = {"channel_names": {"0": "MRI"}, "labels": labels, "file_ending": ".nii.gz"}
    (volumes / "dataset.json").write_text(json.dumps(described))
    away = np.linalg.norm(np.stack(np.meshgrid(*[np.arange(16)] * 3, indexing="ij"), -1) - 7.5, axis=-1)
    truth = np.where(away < 5, 1 + (np.arange(16) > 7)[:, None], 0)
    for number in range(10):
        part = "Ts" if number > 7 else "Tr"
        draw = np.random.default_rng(number)
        values = 100 * (truth > 0) + draw.normal(50, 5, truth.shape)
        grid = Grid((16, 16, 16), np.eye(4))
        write_map(volumes / f"images{part}" / f"c{number}_0000.nii.gz", values, grid, "intensity")
        write_mask(volumes / f"labels{part}" / f"c{number}.nii.gz", truth, grid)


PREPARED: dict[str, Callable[[Path], None]] = {
    "photos": photos,
    "pets": pets,
    "labelled": labelled,
    "coco": coco,
    "people": people,
    "cell.png": cell,
    "elsewhere": elsewhere,
    "Dataset004_Hippocampus": hippocampus,
    "best_model.pth": smp_checkpoint,
    "lraspp.pth": torchvision_checkpoint,
}
"""By the names that pages use; ``runs/NAME`` stands for a run that was trained on ``photos``."""

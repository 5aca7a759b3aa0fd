"""Networks of more classes than a byte can number: no index may wrap around."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageColor
from torch import nn

import seglens
from seglens.folder.heatmaps import mask_as_drawn

NUM = 300


class Halves(nn.Module):
    """Says class 299 where a picture is bright, and class 43, which 299 would wrap to, where it is dark."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(len(images), NUM, *images.shape[2:])
        logits[:, 299] = images[:, 0] * 20
        logits[:, 43] = 10.0
        return logits


def test_masks_hold_class_indices_above_255(tmp_path: Path) -> None:
    picture = np.zeros((16, 24, 3), np.uint8)
    picture[:, 8:] = 255
    Image.fromarray(picture).save(tmp_path / "a.png")
    names = ("background", *(f"class {number}" for number in range(1, NUM)))
    run = seglens.wrap(Halves(), classes=names, mean=(0.0,) * 3, std=(1.0,) * 3, image_size=24)
    seglens.predict_files(run, [tmp_path / "a.png"], out=tmp_path / "out")
    with Image.open(tmp_path / "out/masks/a.png") as opened:
        found = np.asarray(opened)
    wanted = np.where(picture[..., 0] > 0, 299, 43)
    assert found.dtype == np.uint16
    assert np.array_equal(found, wanted)
    with Image.open(tmp_path / "out/coloured/a.png") as opened:
        colours = np.asarray(opened.convert("RGB"))
    assert (colours == ImageColor.getrgb(run.task.palette[299 % len(run.task.palette)])).all()


def test_a_mask_that_is_drawn_smaller_keeps_its_classes() -> None:
    mask = torch.full((3000, 2000), 299)
    mask[:1500] = 43
    drawn = mask_as_drawn(mask)
    assert drawn.shape[0] < 3000
    assert drawn.unique().tolist() == [43, 299]

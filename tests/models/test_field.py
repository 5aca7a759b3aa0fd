"""Whether an answer is that of the whole picture: networks whose field is known by how they are written."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import seglens
from seglens.errors import ModelError

FRAMES = {
    "centre": lambda y, h, w: y[..., h // 4 : h // 4 + h // 2, w // 4 : w // 4 + w // 2],
    "rows": lambda y, h, w: y[..., h // 4 : h // 4 + h // 2, :],
    "third": lambda y, h, w: y[..., h // 3 : h // 3 + h // 3, w // 3 : w // 3 + w // 3],
    "corner": lambda y, h, w: y[..., : h // 2, : w // 2],
    "border": lambda y, h, w: functional.pad(y, (w // 2, w // 2, h // 2, h // 2)),
    "right": lambda y, h, w: functional.pad(y, (0, w, 0, h)),
    "shifted": lambda y, h, w: functional.pad(y, (w // 8, 0, h // 8, 0))[..., :h, :w],
    "shifted a little": lambda y, h, w: functional.pad(y, (w // 16, 0))[..., :w],
    "twice": lambda y, h, w: functional.interpolate(y, scale_factor=2),
    "quarter": lambda y, h, w: functional.avg_pool2d(y, 4),
    "eighth": lambda y, h, w: functional.avg_pool2d(y, 8),
    "whole": lambda y, h, w: y,
}


class Framed(nn.Module):
    """Two convolutions, and then what makes another frame of their answer."""

    def __init__(self, frame: str, dims: int = 2) -> None:
        super().__init__()
        kind = nn.Conv2d if dims == 2 else nn.Conv3d
        self.layers = nn.Sequential(kind(3, 8, 3, padding=1), nn.ReLU(), kind(8, 2, 3, padding=1))
        self.frame = frame

    def forward(self, images: Tensor) -> Tensor:
        made = self.layers(images)
        return FRAMES[self.frame](made, *made.shape[-2:])


def wrapped(network: nn.Module, size: int | tuple[int, ...], **more: Any) -> seglens.Run:
    torch.manual_seed(0)
    half = (0.5,) * 3
    return seglens.wrap(
        network.eval(), classes=("background", "b"), image_size=size, mean=half, std=half,
        outputs_are="logits", **more,
    )  # fmt: skip


@pytest.mark.parametrize("size", [64, (96, 160)])
@pytest.mark.parametrize(
    ("frame", "said"),
    [
        ("centre", "not that of the whole picture, as where it is cut off"),
        ("rows", r"as where it is cut off\. Two changes that are 50% of the rows apart show up 8\d% apart"),
        ("corner", "not that of the whole picture: a change at 75% of the rows, columns changes nothing"),
        ("third", r"not that of the whole picture: a change at \d5% of the rows, columns changes nothing"),
        ("border", r"has a border about it\. Two changes that are 50% of the rows apart show up 2\d% apart"),
        ("right", "has a border about it"),
        ("shifted", r"is shifted: changes of the picture show up 1\d% of the rows after their place"),
        (
            "shifted a little",
            "is shifted: changes of the picture show up [67]% of the columns after their place",
        ),
    ],
)
def test_an_answer_of_another_part_is_refused(frame, said, size):
    torch.manual_seed(0)
    with pytest.raises(ModelError, match=said):
        wrapped(Framed(frame), size)


@pytest.mark.parametrize("frame", ["whole", "twice", "quarter", "eighth"])
def test_an_answer_of_the_whole_picture_is_taken_at_any_resolution(frame):
    torch.manual_seed(0)
    assert wrapped(Framed(frame), 64).predict(torch.rand(1, 3, 64, 64)).logits.shape == (1, 2, 64, 64)
    wrapped(Framed(frame), 96, divisor=64)  # what is padded for it is padded at the end


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bilinear, aligned"])
@pytest.mark.parametrize("cell", [2, 4, 8])
def test_the_cells_of_a_coarse_grid_are_no_shift(cell, mode):
    class Coarse(Framed):
        def forward(self, images: Tensor) -> Tensor:
            kept = functional.max_pool2d(super().forward(images), cell)
            aligned = {} if mode == "nearest" else {"align_corners": "aligned" in mode}
            return functional.interpolate(kept, images.shape[-2:], mode=mode.split(",")[0], **aligned)

    for seed in range(4):
        torch.manual_seed(seed)
        wrapped(Coarse("whole"), 64)


def test_an_answer_of_the_middle_slices_is_refused():
    class Middle(Framed):
        def forward(self, images: Tensor) -> Tensor:
            return self.layers(images)[:, :, 8:24]

    torch.manual_seed(0)
    wrapped(Framed("whole", 3), (32, 24, 24), dims=3)
    with pytest.raises(ModelError, match="Two changes that are 50% of the slices apart"):
        wrapped(Middle("whole", 3), (32, 24, 24), dims=3)


def test_a_network_of_which_nothing_is_heard_says_nothing():
    """Its first weights are so small that no change of a picture reaches the answer, on its coarse grid."""

    class Deaf(Framed):
        def forward(self, images: Tensor) -> Tensor:
            made = super().forward(images)
            return torch.arange(made[0].numel()).reshape(made.shape[1:]) + made * 1e-30

    torch.manual_seed(0)
    wrapped(Deaf("quarter"), 64)

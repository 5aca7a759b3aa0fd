"""Small networks for volumes, their twins for pictures and with other axes, and what is asked of them."""

from typing import Any

import torch
from monai.networks.nets.segresnet import SegResNet
from monai.networks.nets.unet import UNet
from torch import Tensor, nn

import seglens
from seglens.explain.explanation import Explanation
from seglens.explain.target import Target
from seglens.runs import Run

SIZE = (24, 20, 16)
"""Anisotropic, so that axes that are mixed up show."""

CLASSES = ("background", "thing")
CONV: dict[int, Any] = {2: nn.Conv2d, 3: nn.Conv3d}
NORM: dict[int, Any] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class Small(nn.Module):
    """Two levels with a skip. ``kernel`` is that of a convolution; the grid shrinks where it is not 1."""

    def __init__(self, kernel: tuple[int, ...]) -> None:
        super().__init__()
        self.stride = tuple(min(side, 2) for side in kernel)
        self.down = self._block(2, 5, kernel)
        self.deep = self._block(5, 7, kernel)
        self.up = self._block(12, 5, kernel)
        self.head = CONV[len(kernel)](5, 2, [1] * len(kernel))

    @staticmethod
    def _block(inside: int, out: int, kernel: tuple[int, ...]) -> nn.Sequential:
        dims, padding = len(kernel), tuple(side // 2 for side in kernel)
        return nn.Sequential(CONV[dims](inside, out, kernel, padding=padding), NORM[dims](out), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        pool = nn.functional.max_pool3d if images.ndim == 5 else nn.functional.max_pool2d
        fine = self.down(images)
        coarse = self.deep(pool(fine, self.stride))
        up = nn.functional.interpolate(coarse, size=fine.shape[2:], mode="nearest")
        return self.head(self.up(torch.cat([fine, up], 1)))


def small(kernel: tuple[int, ...] = (3, 3, 3), seed: int = 0) -> Small:
    """With random weights and statistics, in evaluation mode."""
    torch.manual_seed(seed)
    network = Small(kernel)
    for name, value in network.state_dict().items():
        if name.endswith("running_mean"):
            value.uniform_(-0.2, 0.2)
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    return network.eval()


def with_weights(network: Small, kernel: tuple[int, ...], change) -> Small:
    """A network of another ``kernel`` with the weights of ``network``, each kernel under ``change``."""
    twin = Small(kernel)
    twin.load_state_dict(
        {name: change(value) if value.ndim > 1 else value for name, value in network.state_dict().items()}
    )
    return twin.eval()


def run_of(network: nn.Module, channels: int = 2, *, divisor: int = 1, **settings) -> Run:
    """A run that subtracts a half and divides by it."""
    half = (0.5,) * channels
    return seglens.wrap(
        network,
        classes=CLASSES,
        channels=channels,
        mean=half,
        std=half,
        image_size=16,
        divisor=divisor,
        outputs_are="logits",
        **settings,
    )


def monai_unet() -> nn.Module:
    torch.manual_seed(1)
    return UNet(
        spatial_dims=3, in_channels=2, out_channels=2, channels=(4, 6, 8), strides=(2, 2), num_res_units=1
    ).eval()


def monai_segresnet() -> nn.Module:
    torch.manual_seed(2)
    return SegResNet(
        spatial_dims=3, init_filters=8, in_channels=2, out_channels=2, blocks_down=(1, 1), blocks_up=(1,)
    ).eval()


MONAI = {
    "UNet": (monai_unet, ("model.0", "model.1.submodule", "model.2.0")),
    "SegResNet": (monai_segresnet, ("down_layers.0", "down_layers.1", "up_layers.0")),
}
"""Networks of MONAI with some of their layers."""


def volumes(num: int = 2, size: tuple[int, ...] = SIZE, channels: int = 2) -> Tensor:
    return torch.rand(num, channels, *size, generator=torch.Generator().manual_seed(3))


def scattered(images: Tensor, label: str = "scattered") -> Target:
    """Frozen pixels that follow no axis."""
    pixels = torch.rand(len(images), *images.shape[2:], generator=torch.Generator().manual_seed(4)) > 0.7
    return Target(label, 1, pixels)


def grid_of(explanation: Explanation) -> Tensor:
    assert explanation.grid is not None
    return explanation.grid


def channels_of(explanation: Explanation) -> Tensor:
    assert explanation.channels is not None
    return explanation.channels

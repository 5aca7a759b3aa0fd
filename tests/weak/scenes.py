"""A classifier small enough to work out by hand, and pictures for it."""

import torch
from torch import nn

from seglens.weak.classifier_score import ClassifierScore


class Red(nn.Module):
    """``yes = mean over the picture of relu(red - 0.5)``, ``no = 0``; the layer keeps the picture's size."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 2, 1)
        self.act = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(2, 2)
        with torch.no_grad():
            self.body.weight.zero_()
            self.body.weight[0, 0] = 1.0
            self.body.weight[1, 2] = 1.0
            self.body.bias = nn.Parameter(torch.tensor([-0.5, 0.0]))
            self.head.weight.copy_(torch.tensor([[0.0, 0.0], [4.0, 0.0]]))
            self.head.bias.zero_()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return b x 2."""
        out: torch.Tensor = self.head(self.pool(self.act(self.body(images))).flatten(1))
        return out


def red_score() -> ClassifierScore:
    """Is there red?"""
    return ClassifierScore(Red().eval().requires_grad_(False), (1,), (0.0,) * 3, (1.0,) * 3, "by hand")


def red_square(size: tuple[int, int] = (64, 64), seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a picture with a red square on blue noise, and where the square is."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(3, *size, generator=generator) * 0.2
    image[2] += 0.5
    top, left = (int(torch.randint(side // 8, side // 2, (), generator=generator)) for side in size)
    there = torch.zeros(size, dtype=torch.bool)
    there[top : top + size[0] * 3 // 8, left : left + size[1] * 3 // 8] = True
    image[0, there] = 0.9
    image[2, there] = 0.1
    return image, there

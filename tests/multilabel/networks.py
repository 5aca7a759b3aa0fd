"""A network of two labels that is known by algebra: red is 'man', green is 'shirt', and both may be there."""

import torch
from torch import Tensor, nn

import seglens
from seglens.runs import Run


class TwoLabels(nn.Module):
    """Output i is ``20 channel_i - 10``: sure where the channel is 1, sure of the contrary where it is 0."""

    def __init__(self, *, sigmoid: bool = False) -> None:
        super().__init__()
        self.mix, self.sigmoid = nn.Conv2d(3, 2, 1), sigmoid
        with torch.no_grad():
            self.mix.weight.zero_()
            self.mix.weight[0, 0] = self.mix.weight[1, 1] = 20
            assert self.mix.bias is not None
            self.mix.bias.fill_(-10)

    def forward(self, images: Tensor) -> Tensor:
        """Return two logits a pixel, or their sigmoids."""
        logits = self.mix(images)
        return logits.sigmoid() if self.sigmoid else logits


def squares() -> Tensor:
    """One picture: 'man' on rows and columns 4 to 19, 'shirt' on 12 to 27; 64 of 256 pixels are both."""
    images = torch.zeros(1, 3, 32, 32)
    images[:, 0, 4:20, 4:20] = 1
    images[:, 1, 12:28, 12:28] = 1
    return images


def two_labels(*, sigmoid: bool = False, classes: tuple[str, ...] = ("man", "shirt")) -> Run:
    """The network as a run."""
    return seglens.wrap(
        TwoLabels(sigmoid=sigmoid).eval(),
        classes=classes,
        head="multilabel",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        image_size=32,
        outputs_are="probabilities" if sigmoid else "logits",
    )

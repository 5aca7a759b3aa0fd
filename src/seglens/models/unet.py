"""The classic U-Net (Ronneberger, Fischer and Brox, 2015), as most people write it today.

The picture, for ``depth=2`` and ``width=64`` (channels at each arrow)::

    image ─> encoder 0 ──64───────── skip ──────────> decoder 1 ──64──> head ─> logits
                 │ max-pool 2                             ^
                 v                                        │ transposed convolution 2
             encoder 1 ──128───────── skip ─────> decoder 0 ──128
                 │ max-pool 2                        ^
                 v                                   │ transposed convolution 2
             bottleneck ──256────────────────────────┘

The encoder says *what* there is, ever more coarsely; the skips bring back *where* it is. Against the paper:
3x3 convolutions are padded, so that the output has the size of the input and skips need no cropping; each is
followed by batch normalisation, which came in the same year.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from seglens.shapes import Activations, Images, Logits


class DoubleConvolution(nn.Sequential):
    """Two 3x3 convolutions, each with batch normalisation and ReLU."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(
            # A bias would be taken out again by the normalisation that follows.
            nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels_out, channels_out, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
        )


class DecoderBlock(nn.Module):
    """Double the resolution, join the skip from the encoder, and convolve twice."""

    upsample: nn.ConvTranspose2d
    convolve: DoubleConvolution

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose2d(channels_in, channels_out, kernel_size=2, stride=2)
        self.convolve = DoubleConvolution(2 * channels_out, channels_out)

    def forward(self, coarse: Activations, skip: Tensor) -> Tensor:
        """Join ``coarse`` with ``skip``, which has twice its rows and columns and half its channels."""
        return self.convolve(torch.cat([skip, self.upsample(coarse)], dim=1))


class UNet(nn.Module):
    """The network of the module's picture.

    Rows and columns of the images must be divisible by ``2 ** depth``; ``Segmenter`` pads and crops.
    """

    encoder: nn.ModuleList
    pool: nn.MaxPool2d
    bottleneck: DoubleConvolution
    decoder: nn.ModuleList
    head: nn.Conv2d

    def __init__(self, *, channels: int = 3, outputs: int = 1, width: int = 64, depth: int = 4) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        self.encoder = nn.ModuleList(
            DoubleConvolution(narrow, wide) for narrow, wide in pairwise([channels, *widths[:-1]])
        )
        self.pool = nn.MaxPool2d(kernel_size=2)
        self.bottleneck = DoubleConvolution(widths[-2], widths[-1])
        self.decoder = nn.ModuleList(DecoderBlock(wide, narrow) for wide, narrow in pairwise(widths[::-1]))
        self.head = nn.Conv2d(width, outputs, kernel_size=1)

    def forward(self, images: Images) -> Logits:
        """Return one logit per output and pixel."""
        features, skips = images, []
        for block in self.encoder:
            features = block(features)
            skips.append(features)
            features = self.pool(features)
        features = self.bottleneck(features)
        for block, skip in zip(self.decoder, reversed(skips), strict=True):
            features = block(features, skip)
        return self.head(features)

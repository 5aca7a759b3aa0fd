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
followed by batch normalisation, which came in the same year. For volumes every layer has a third axis
(Cicek et al. 2016).
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from seglens.shapes import Activations, Images, Logits

CONVOLUTION: dict[int, type[nn.Conv2d | nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, type[nn.ConvTranspose2d | nn.ConvTranspose3d]] = {
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}
BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
MAX_POOL: dict[int, type[nn.MaxPool2d | nn.MaxPool3d]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
"""The layers of pictures and of volumes, by their spatial axes."""


class DoubleConvolution(nn.Sequential):
    """Two 3x3 convolutions, each with batch normalisation and ReLU."""

    def __init__(self, channels_in: int, channels_out: int, dims: int = 2) -> None:
        convolution, norm = CONVOLUTION[dims], BATCH_NORM[dims]
        super().__init__(
            # A bias would be taken out again by the normalisation that follows.
            convolution(channels_in, channels_out, kernel_size=3, padding=1, bias=False),
            norm(channels_out),
            nn.ReLU(inplace=True),
            convolution(channels_out, channels_out, kernel_size=3, padding=1, bias=False),
            norm(channels_out),
            nn.ReLU(inplace=True),
        )


class DecoderBlock(nn.Module):
    """Double the resolution, join the skip from the encoder, and convolve twice."""

    upsample: nn.ConvTranspose2d | nn.ConvTranspose3d
    convolve: DoubleConvolution

    def __init__(self, channels_in: int, channels_out: int, dims: int = 2) -> None:
        super().__init__()
        self.upsample = TRANSPOSED[dims](channels_in, channels_out, kernel_size=2, stride=2)
        self.convolve = DoubleConvolution(2 * channels_out, channels_out, dims)

    def forward(self, coarse: Activations, skip: Tensor) -> Tensor:
        """Join ``coarse`` with ``skip``, which has twice its rows and columns and half its channels."""
        return self.convolve(torch.cat([skip, self.upsample(coarse)], dim=1))


class UNet(nn.Module):
    """The network of the module's picture, for pictures (2 ``dims``) or volumes (3).

    All spatial sides of the images must be divisible by ``2 ** depth``; ``Segmenter`` pads and crops.
    """

    encoder: nn.ModuleList
    pool: nn.MaxPool2d | nn.MaxPool3d
    bottleneck: DoubleConvolution
    decoder: nn.ModuleList
    head: nn.Conv2d | nn.Conv3d

    def __init__(
        self, *, channels: int = 3, outputs: int = 1, width: int = 64, depth: int = 4, dims: int = 2
    ) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        self.encoder = nn.ModuleList(
            DoubleConvolution(narrow, wide, dims) for narrow, wide in pairwise([channels, *widths[:-1]])
        )
        self.pool = MAX_POOL[dims](kernel_size=2)
        self.bottleneck = DoubleConvolution(widths[-2], widths[-1], dims)
        self.decoder = nn.ModuleList(
            DecoderBlock(wide, narrow, dims) for wide, narrow in pairwise(widths[::-1])
        )
        self.head = CONVOLUTION[dims](width, outputs, kernel_size=1)

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

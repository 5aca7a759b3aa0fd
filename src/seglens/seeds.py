"""Random numbers from a seed and the pixels of a picture: batch size and order change nothing."""

import hashlib

import torch
from jaxtyping import Float
from torch import Tensor

from seglens.shapes import Image, Images


def content_generator(image: Image, seed: int, purpose: str) -> torch.Generator:
    """Return a generator (on the CPU) keyed by ``seed``, ``purpose`` and the picture's pixels.

    ``purpose`` keeps two uses of chance on one picture independent of each other.
    """
    channels, *size = image.shape
    flat = size[1:] if len(size) == 3 and size[0] == 1 else size  # a volume of one slice is its picture
    digest = hashlib.sha256(f"{seed}|{purpose}|{(channels, *flat)}|".encode())
    digest.update(image.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return torch.Generator().manual_seed(int.from_bytes(digest.digest()[:8], "little") >> 1)


def content_normal(images: Images, shape: tuple[int, ...], seed: int, purpose: str) -> Float[Tensor, "b ..."]:
    """Return standard normal noise of ``shape`` for each picture, on the device of ``images``."""
    drawn = [torch.randn(shape, generator=content_generator(image, seed, purpose)) for image in images]
    return torch.stack(drawn).to(images.device)


def content_uniform(
    images: Images, shape: tuple[int, ...], seed: int, purpose: str
) -> Float[Tensor, "b ..."]:
    """Return uniform noise in [0, 1) of ``shape`` for each picture, on the device of ``images``."""
    drawn = [torch.rand(shape, generator=content_generator(image, seed, purpose)) for image in images]
    return torch.stack(drawn).to(images.device)

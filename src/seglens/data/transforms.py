"""Geometry that image and mask share: letterboxing there and back, augmentation, batches.

Coordinates are pixel indices: ``x`` counts columns, ``y`` rows, and whole numbers are pixel centres.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as v2
from torchvision.tv_tensors import Image as PairedImage
from torchvision.tv_tensors import Mask as PairedMask

from seglens.data.sample import Sample
from seglens.errors import DataError, SettingError
from seglens.masks import is_stack
from seglens.shapes import AnyMask, AnyMasks, Image, Images, Mask, Region, Regions


@dataclass(frozen=True)
class Frame:
    """How a native picture sits on the square input grid.

    ``native`` and ``scaled`` are (rows, columns) before and after scaling; the scaled picture's upper left
    pixel is at row ``top`` and column ``left`` of a grid of ``size`` x ``size`` pixels.
    """

    native: tuple[int, int]
    size: int
    scaled: tuple[int, int]
    top: int
    left: int

    def to_grid(self, x: int | float, y: int | float) -> tuple[float, float]:
        """Return where the native point ``(x, y)`` lies on the grid; pixel centres are whole numbers."""
        (rows, columns), (native_rows, native_columns) = self.scaled, self.native
        return (
            (x + 0.5) * columns / native_columns - 0.5 + self.left,
            (y + 0.5) * rows / native_rows - 0.5 + self.top,
        )

    def maps_to_native(self, maps: Float[Tensor, "*b s s"]) -> Float[Tensor, "*b h w"]:
        """Return maps on the grid at the picture's own size: padding cut off, bilinear in between."""
        inner = self._inner(maps)
        if self.scaled == self.native:
            return inner.clone()
        flat = inner.reshape(1, -1, *self.scaled)
        native = F.interpolate(flat, size=self.native, mode="bilinear", antialias=True)
        return native.reshape(*maps.shape[:-2], *self.native)

    def mask_to_native(self, mask: Int[Tensor, "s s"]) -> Mask:
        """Return a mask on the grid at the picture's own size; every pixel takes the nearest class."""
        return nearest(self._inner(mask), self.native)

    def _inner(self, grid: Tensor) -> Tensor:
        if tuple(grid.shape[-2:]) != (self.size, self.size):
            raise SettingError(
                f"A frame of {self.size} x {self.size} pixels got a grid of {tuple(grid.shape[-2:])}: "
                "give what was computed on the letterboxed picture."
            )
        rows, columns = self.scaled
        return grid[..., self.top : self.top + rows, self.left : self.left + columns]


def fit_frame(native: tuple[int, int], size: int) -> Frame:
    """Return the frame in which a picture of ``native`` (rows, columns) is as large as fits, centred.

    Raises:
        SettingError: ``size`` is not positive.
    """
    if size < 1:
        raise SettingError(f"The input size must be at least 1 pixel, got {size}.")
    rows, columns = (max(1, round(side * size / max(native))) for side in native)
    return Frame(native, size, (rows, columns), top=(size - rows) // 2, left=(size - columns) // 2)


def letterbox_image(image: Image, size: int) -> tuple[Float[Tensor, "c s s"], Frame]:
    """Scale a picture into ``size`` x ``size`` pixels (antialiased), padded with 0, not stretched."""
    frame = fit_frame((image.shape[1], image.shape[2]), size)
    if frame.scaled != frame.native:
        grown = F.interpolate(image[None], size=frame.scaled, mode="bilinear", antialias=True)
        image = grown[0].clamp(0, 1)
    return _pad(image, frame), frame


def letterbox(sample: Sample, size: int) -> tuple[Sample, Frame]:
    """Scale a sample into ``size`` x ``size`` pixels; the mask takes nearest values, padding is not valid."""
    image, frame = letterbox_image(sample.image, size)
    mask = None if sample.mask is None else _pad(nearest(sample.mask, frame.scaled), frame)
    valid = _pad(nearest(sample.valid, frame.scaled), frame)
    return Sample(sample.name, image, mask, valid), frame


@dataclass(frozen=True)
class Policy:
    """How far augmentation may go. Every pair of numbers is a range to draw from.

    Pictures are not turned upside down: most have an up, and on those that costs more than it teaches
    (benchmarks/TRAINING.md). `ANY_WAY_UP` is for those without, such as cells under a microscope.

    ``scale`` above 1 crops and below 1 leaves a margin that is not valid; ``shift`` is a fraction of the
    size; ``rotation`` is in degrees; ``brightness`` is added, ``contrast`` multiplies the distance to the
    mean, ``gamma`` is an exponent; ``noise`` (standard deviation, in intensities) and ``blur`` (sigma, in
    pixels) exclude each other and come with the chance ``soil`` each.
    """

    flip_horizontal: float = 0.5
    flip_vertical: float = 0.0
    scale: tuple[float, float] = (0.85, 1.3)
    shift: float = 0.08
    rotation: tuple[float, float] = (-20.0, 20.0)
    brightness: tuple[float, float] = (-0.08, 0.08)
    contrast: tuple[float, float] = (0.8, 1.25)
    gamma: tuple[float, float] = (0.8, 1.25)
    soil: float = 0.2
    noise: tuple[float, float] = (0.0, 0.03)
    blur: tuple[float, float] = (0.3, 1.0)


DEFAULT_POLICY = Policy()
ANY_WAY_UP = Policy(flip_vertical=0.5)


def sample_generator(seed: int, epoch: int, index: int) -> torch.Generator:
    """Return the generator of one sample in one epoch: the same in whichever worker it is asked for."""
    digest = hashlib.sha256(f"{seed}|{epoch}|{index}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def augment(sample: Sample, generator: torch.Generator, policy: Policy = DEFAULT_POLICY) -> Sample:
    """Draw a random variant of a letterboxed sample: same size, image and mask moved as one.

    What comes from outside of the picture is 0 and not valid; intensities stay in [0, 1]. Pixels that are
    ignored stay as they are seen: were they blanked, a network would read from the blanks where objects end.
    """
    moved, shown = _move(sample, generator, policy)
    image = _soil(_relight(moved.image, shown, generator, policy), generator, policy)
    return replace(moved, image=image.clamp(0, 1) * shown)


def augment_within(
    window: tuple[float, float], sample: Sample, generator: torch.Generator, policy: Policy = DEFAULT_POLICY
) -> Sample:
    """Return `augment` of a sample with its intensity ``window`` opened up, in the sample's own intensities.

    Brightness, contrast and noise are shares of the range that the model sees. What lies outside of the
    window is lost, as the model does not see it either.
    """
    low, high = window
    if (low, high) == (0.0, 1.0):
        return augment(sample, generator, policy)
    opened = replace(sample, image=((sample.image - low) / (high - low)).clamp(0, 1))
    changed = augment(opened, generator, policy)
    return replace(changed, image=low + (high - low) * changed.image)


def _move(sample: Sample, generator: torch.Generator, policy: Policy) -> tuple[Sample, Region]:
    """Flip, then scale, shift and rotate in one affine map, so that a picture is resampled once.

    Beside the sample comes what of it is picture, valid or not, and not padding.
    """
    image = PairedImage(sample.image)
    places = _shown(sample).to(torch.int64) + sample.valid  # 0: padding, 1: ignored, 2: valid
    labels = PairedMask(torch.stack([places, *_layers(sample.mask)]))
    if _uniform(generator) < policy.flip_horizontal:
        image, labels = v2.horizontal_flip(image), v2.horizontal_flip(labels)
    if _uniform(generator) < policy.flip_vertical:
        image, labels = v2.vertical_flip(image), v2.vertical_flip(labels)
    rows, columns = sample.valid.shape
    angle = _uniform(generator, *policy.rotation)
    scale = _uniform(generator, *policy.scale)
    across, down = (_uniform(generator, -policy.shift, policy.shift) for _ in range(2))
    shift = [across * columns, down * rows]
    bilinear = InterpolationMode.BILINEAR  # masks take the nearest value whatever is said here
    image, labels = (
        v2.affine(each, angle, shift, scale, [0.0, 0.0], interpolation=bilinear) for each in (image, labels)
    )
    places, *layers = labels.as_subclass(Tensor)
    mask = sample.mask
    if mask is not None:
        mask = (torch.stack(layers) if is_stack(mask) else layers[0]).to(mask.dtype)
    return Sample(sample.name, image.as_subclass(Tensor), mask, places == 2), places > 0


def _shown(sample: Sample) -> Region:
    """Return the rectangle that holds all that is valid or not black: the picture without its padding."""
    something = sample.valid | (sample.image != 0).any(0)
    rows, columns = (something.any(side).nonzero()[:, 0] for side in (1, 0))
    shown = torch.zeros_like(sample.valid)
    if len(rows):
        shown[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    return shown


def _relight(image: Image, shown: Region, generator: torch.Generator, policy: Policy) -> Image:
    """Change brightness, contrast and gamma; the mean is that of what is picture."""
    brightness = _uniform(generator, *policy.brightness)
    contrast = _uniform(generator, *policy.contrast)
    gamma = _uniform(generator, *policy.gamma)
    mean = (image * shown).sum((1, 2), keepdim=True) / shown.sum().clamp(min=1)
    return ((image - mean) * contrast + mean + brightness).clamp(0, 1) ** gamma


def _soil(image: Image, generator: torch.Generator, policy: Policy) -> Image:
    """Now and then add noise, or blur."""
    chance = _uniform(generator)
    if chance < policy.soil:
        sigma = _uniform(generator, *policy.noise)
        return image + sigma * torch.randn(image.shape, generator=generator, dtype=image.dtype)
    if chance < 2 * policy.soil:
        sigma = _uniform(generator, *policy.blur)
        return v2.gaussian_blur(image, kernel_size=[5, 5], sigma=[sigma, sigma])
    return image


@dataclass(frozen=True)
class Batch:
    """Samples of one size, stacked; ``masks`` is None where no sample has a truth."""

    names: tuple[str, ...]
    images: Images
    masks: AnyMasks | None
    valid: Regions


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples of one size.

    Raises:
        DataError: some samples have a mask and some have none.
    """
    names = tuple(sample.name for sample in samples)
    masks = [sample.mask for sample in samples if sample.mask is not None]
    if masks and len(masks) < len(samples):
        bare = [sample.name for sample in samples if sample.mask is None]
        raise DataError(f"Some pictures of a batch have a mask, these have none: {bare}. Leave them out.")
    images = torch.stack([sample.image for sample in samples])
    valid = torch.stack([sample.valid for sample in samples])
    return Batch(names, images, torch.stack(masks) if masks else None, valid)


def _uniform(generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _layers(mask: AnyMask | None) -> list[Tensor]:
    if mask is None:
        return []
    return list(mask.to(torch.int64)) if is_stack(mask) else [mask.to(torch.int64)]


def nearest(grid: Tensor, size: tuple[int, ...]) -> Tensor:
    """Resize the last axes of ``grid`` to ``size``, every pixel taking the value nearest to it."""
    for axis, length in enumerate(size, start=-len(size)):
        if grid.shape[axis] != length:
            grid = grid.index_select(axis, _nearest_index(grid.shape[axis], length).to(grid.device))
    return grid


def _nearest_index(old: int, new: int) -> Tensor:
    """Return for each of ``new`` pixel centres the pixel of ``old`` that holds it."""
    return ((torch.arange(new, dtype=torch.float64) + 0.5) * old / new).long().clamp(max=old - 1)


def _pad(grid: Tensor, frame: Frame) -> Tensor:
    """Put ``grid`` into the frame; the rest is 0 (False)."""
    rows, columns = frame.scaled
    right, bottom = frame.size - columns - frame.left, frame.size - rows - frame.top
    return F.pad(grid, (frame.left, right, frame.top, bottom))

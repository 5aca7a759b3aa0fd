"""Geometry that image and mask share: letterboxing there and back, augmentation, batches.

Coordinates are pixel indices: ``x`` counts columns, ``y`` rows, and whole numbers are pixel centres. Pictures
and volumes have one code; a volume is scaled in millimetres, so that its voxels become cubes.
"""

import hashlib
import math
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

from seglens.axes import InputSize, axes, resampled, size_of
from seglens.data.frame import Frame, fit_frame
from seglens.data.prepared import same_grid
from seglens.data.sample import Sample
from seglens.errors import DataError
from seglens.masks import is_stack
from seglens.shapes import AnyMask, AnyMasks, Image, Images, Region, Regions


def letterbox_image(
    image: Image, size: InputSize, spacing: Sequence[float] | None = None, scale: float | None = None
) -> tuple[Float[Tensor, "c *grid"], Frame]:
    """Scale a picture or volume into ``size`` pixels each way (antialiased), padded with 0, not stretched.

    ``size``, ``spacing`` and ``scale`` are as in `fit_frame`.
    """
    frame = fit_frame(size_of(image, 1), size, spacing, scale)
    return _scaled_into(image, frame), frame


def _scaled_into(image: Image, frame: Frame) -> Float[Tensor, "c *grid"]:
    if frame.scaled != frame.native:
        image = resampled(image[None], frame.scaled)[0].clamp(0, 1)
    return frame.padded(image)


def letterbox(sample: Sample, size: InputSize) -> tuple[Sample, Frame]:
    """Scale a sample into ``size`` pixels each way; the mask takes nearest values, padding is not valid.

    One that the preprocessing of the model's own tool made is put on the grid of one input of that.
    """
    (placed,), (frame,) = letterbox_all([sample], size)
    return placed, frame


def letterbox_all(samples: Sequence[Sample], size: InputSize) -> tuple[list[Sample], list[Frame]]:
    """Return `letterbox` of several samples, on one grid."""
    return placed_on(samples, [_frame_of(sample, size) for sample in samples])


def placed_on(samples: Sequence[Sample], frames: Sequence[Frame]) -> tuple[list[Sample], list[Frame]]:
    """Return samples in their frames, which are brought to one grid."""
    alike = same_grid(frames)
    return [_on_grid(sample, frame) for sample, frame in zip(samples, alike, strict=True)], alike


def _frame_of(sample: Sample, size: InputSize) -> Frame:
    if sample.prepared is not None:
        return sample.prepared.one_input(sample.mask)
    return fit_frame(size_of(sample.image, 1), size, sample.spacing)


def _on_grid(sample: Sample, frame: Frame) -> Sample:
    if sample.prepared is not None:
        image = sample.prepared.on(frame)
    else:
        image = _scaled_into(sample.image, frame)
    mask = None if sample.mask is None else frame.mask_to_grid(sample.mask)
    return Sample(sample.name, image, mask, frame.mask_to_grid(sample.valid))


@dataclass(frozen=True)
class Policy:
    """How far augmentation may go. Every pair of numbers is a range to draw from.

    Pictures are not turned upside down: most have an up, and on those that costs more than it teaches
    (benchmarks/TRAINING.md). `ANY_WAY_UP` is for those without, such as cells under a microscope.

    ``scale`` above 1 crops and below 1 leaves a margin that is not valid; ``shift`` is a fraction of the
    size; ``rotation`` is in degrees; ``brightness`` is added, ``contrast`` multiplies the distance to the
    mean, ``gamma`` is an exponent; ``noise`` (standard deviation, in intensities) and ``blur`` (sigma, in
    pixels) exclude each other and come with the chance ``noise_and_blur`` each.
    """

    flip_horizontal: float = 0.5
    flip_vertical: float = 0.0
    scale: tuple[float, float] = (0.85, 1.3)
    shift: float = 0.08
    rotation: tuple[float, float] = (-20.0, 20.0)
    brightness: tuple[float, float] = (-0.08, 0.08)
    contrast: tuple[float, float] = (0.8, 1.25)
    gamma: tuple[float, float] = (0.8, 1.25)
    noise_and_blur: float = 0.2
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
    image = _noise_and_blur(_relight(moved.image, shown, generator, policy), generator, policy)
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
    places = _shown(sample).to(torch.int64) + sample.valid  # 0: padding, 1: ignored, 2: valid
    layers = torch.stack([places, *_layers(sample.mask)])
    if sample.valid.ndim == 3:
        image, layers = _move_volume(sample.image, layers, generator, policy)
    else:
        image, layers = _move_picture(sample.image, layers, generator, policy)
    places, mask = layers[0], sample.mask
    if mask is not None:
        mask = (layers[1:] if is_stack(mask) else layers[1]).to(mask.dtype)
    return Sample(sample.name, image, mask, places == 2), places > 0


def _move_picture(
    picture: Image, layers: Int[Tensor, "l rows columns"], generator: torch.Generator, policy: Policy
) -> tuple[Image, Int[Tensor, "l rows columns"]]:
    """Return a picture and the layers of its masks, moved as one."""
    image, labels = PairedImage(picture), PairedMask(layers)
    if _uniform(generator) < policy.flip_horizontal:
        image, labels = v2.horizontal_flip(image), v2.horizontal_flip(labels)
    if _uniform(generator) < policy.flip_vertical:
        image, labels = v2.vertical_flip(image), v2.vertical_flip(labels)
    rows, columns = picture.shape[1:]
    angle = _uniform(generator, *policy.rotation)
    scale = _uniform(generator, *policy.scale)
    across, down = (_uniform(generator, -policy.shift, policy.shift) for _ in range(2))
    shift = [across * columns, down * rows]
    bilinear = InterpolationMode.BILINEAR  # masks take the nearest value whatever is said here
    image, labels = (
        v2.affine(each, angle, shift, scale, [0.0, 0.0], interpolation=bilinear) for each in (image, labels)
    )
    return image.as_subclass(Tensor), labels.as_subclass(Tensor)


def _move_volume(
    volume: Image, layers: Int[Tensor, "l slices rows columns"], generator: torch.Generator, policy: Policy
) -> tuple[Image, Int[Tensor, "l slices rows columns"]]:
    """Return a volume and the layers of its masks, moved as one: turned in the axial plane.

    Left and right are mirrored as in pictures; slices and rows by the chance ``flip_vertical``.
    """
    chances = (policy.flip_vertical, policy.flip_vertical, policy.flip_horizontal)
    mirrored = torch.tensor([-1.0 if _uniform(generator) < chance else 1.0 for chance in chances[::-1]])
    angle, scale = math.radians(_uniform(generator, *policy.rotation)), _uniform(generator, *policy.scale)
    turn = torch.eye(3)
    turn[:2, :2] = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    # affine_grid counts in shares of half a side, and asks where each place of the result comes from.
    shift = torch.tensor([2 * _uniform(generator, -policy.shift, policy.shift) for _ in range(3)])
    sides = torch.tensor(volume.shape[:0:-1], dtype=torch.float32)
    back = (turn * mirrored / scale) * (sides[None] / sides[:, None])
    places = F.affine_grid(torch.cat([back, shift[:, None]], 1)[None], [1, 1, *volume.shape[1:]], False)
    image = F.grid_sample(volume[None], places, align_corners=False)[0]
    labels = F.grid_sample(layers[None].float(), places, mode="nearest", align_corners=False)[0]
    return image, labels.long()


def _shown(sample: Sample) -> Region:
    """Return the box that holds all that is valid or not black: the picture without its padding."""
    places = (sample.valid | (sample.image != 0).any(0)).nonzero()
    shown = torch.zeros_like(sample.valid)
    if len(places):
        shown[tuple(map(slice, places.amin(0).tolist(), (places.amax(0) + 1).tolist()))] = True
    return shown


def _relight(image: Image, shown: Region, generator: torch.Generator, policy: Policy) -> Image:
    """Change brightness, contrast and gamma; the mean is that of what is picture."""
    brightness = _uniform(generator, *policy.brightness)
    contrast = _uniform(generator, *policy.contrast)
    gamma = _uniform(generator, *policy.gamma)
    mean = (image * shown).sum(axes(image, 1), keepdim=True) / shown.sum().clamp(min=1)
    return ((image - mean) * contrast + mean + brightness).clamp(0, 1) ** gamma


def _noise_and_blur(image: Image, generator: torch.Generator, policy: Policy) -> Image:
    """Now and then add noise, or blur."""
    chance = _uniform(generator)
    if chance < policy.noise_and_blur:
        sigma = _uniform(generator, *policy.noise)
        return image + sigma * torch.randn(image.shape, generator=generator, dtype=image.dtype)
    if chance < 2 * policy.noise_and_blur:
        sigma = _uniform(generator, *policy.blur)
        return v2.gaussian_blur(image, kernel_size=[5, 5], sigma=[sigma, sigma])  # of a volume each slice
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

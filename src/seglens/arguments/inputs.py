"""Pictures, masks and regions of users, converted to the types of `seglens.shapes` or refused.

Pictures are raw, in [0, 1]: the model normalises them itself. Integers of 8 and 16 bits are divided by their
type's range, as those of files are, and a warning says so. How the axes lie is decided only where one reading
fits; of two that fit both are named.
"""

import hashlib
import math
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image as pil
from PIL import ImageOps
from torch import Tensor

from seglens.arguments import in_words
from seglens.axes import LENGTHS
from seglens.errors import SeglensWarning, SettingError
from seglens.shapes import AnyMasks, Image, Images, Mask, Regions

Picture = Tensor | np.ndarray | pil.Image
"""One picture: [c h w], as an array also [h w c] or [h w], or of Pillow."""

Pictures = Tensor | np.ndarray | pil.Image | Sequence[Picture]
"""A batch: [b c h w], as an array also [b h w c]; one picture but as a tensor; or several of one size."""

GivenMasks = Tensor | np.ndarray | pil.Image | Sequence[Picture]
"""Class indices of a batch: [b h w] or [b 1 h w], or one mask or several; bool stacks [b l h w] of labels."""

OVERSHOOT = 1e-4
"""The largest distance from [0, 1] that is taken for rounding."""

_PLAIN = {
    "1": "L",
    "P": "RGB",
    "PA": "RGB",
    "LA": "L",
    "RGBA": "RGB",
    "RGBX": "RGB",
    "CMYK": "RGB",
    "YCbCr": "RGB",
}
"""The mode that each of Pillow's modes is converted to: palettes to colours, without alpha."""


def as_images(pictures: Pictures, channels: int, dims: int = 2) -> Images:
    """Return ``pictures``, or volumes (3 ``dims``), as a batch in [0, 1] with ``channels``.

    Grey pictures of arrays and Pillow are repeated for 3 channels. Tensors are taken as they are:
    [b c h w], of volumes [b c d h w].

    Raises:
        SettingError: the type, axes, channels, sizes or values are not those of raw pictures.
    """
    if isinstance(pictures, Tensor):
        return check_values(_scaled(_batch(_dense(pictures, "The pictures"), channels, dims)))
    if isinstance(pictures, np.ndarray) and pictures.ndim == dims + 2:
        pictures = _channels_first(pictures, channels, dims, "The pictures")
        return check_values(_with_channels(_scaled(_tensor(pictures)), channels, "The pictures", dims))
    if isinstance(pictures, np.ndarray | pil.Image):
        return as_picture(pictures, channels, "The picture", dims)[None]
    if not isinstance(pictures, list | tuple):
        raise SettingError(f"Pictures can't be {in_words(pictures)}. {ALLOWED[dims]}")
    if not pictures:
        raise SettingError("There is no picture in an empty list; give at least one.")
    each = [as_picture(one, channels, f"Picture {i}", dims) for i, one in enumerate(pictures)]
    sizes = list(dict.fromkeys(tuple(one.shape[1:]) for one in each))
    if len(sizes) > 1:
        raise SettingError(
            f"The pictures of one batch have one size, these have {len(sizes)}: {sizes[0]}, {sizes[1]} "
            f"({LENGTHS[dims]}). Give them one by one, or bring files to one size: "
            "seglens.read_images(files, size=...)."
        )
    return torch.stack(each)


def as_picture(picture: Picture, channels: int, what: str, dims: int = 2) -> Image:
    """Return one picture, called ``what`` in errors, as [c h w] in [0, 1]; a volume has 3 ``dims``.

    Raises:
        SettingError: as `as_images`.
    """
    if isinstance(picture, pil.Image):
        if dims != 2:
            raise SettingError(f"{what} is one of Pillow's, but the model is {dims}-D. {ALLOWED[dims]}")
        return check_values(_from_pillow(picture, channels, what), what)
    if not isinstance(picture, Tensor | np.ndarray):
        raise SettingError(f"{what} can't be {in_words(picture)}. {ALLOWED[dims]}")
    if picture.ndim not in (dims, dims + 1):
        size = AXES[dims]
        raise SettingError(
            f"{what} has {picture.ndim} axes, {tuple(picture.shape)}; allowed are [{size}], [c {size}], "
            f"and of an array [{size} c]."
        )
    if isinstance(picture, np.ndarray):
        laid = _channels_first(picture, channels, dims, what) if picture.ndim > dims else picture[None]
        return check_values(_with_channels(_scaled(_tensor(laid), what), channels, what, dims), what)
    picture = _dense(picture, what)
    laid_out = picture if picture.ndim > dims else picture[None]
    if laid_out.shape[0] != channels:
        raise SettingError(
            _wrong_channels(
                what,
                laid_out.shape[0],
                channels,
                tuple(picture.shape),
                f"permute({dims}, {', '.join(map(str, range(dims)))})",
            )
        )
    return check_values(_scaled(laid_out, what), what)


def check_values(images: Tensor, what: str = "The pictures") -> Tensor:
    """Return floating-point ``images`` that are raw: finite and in [0, 1].

    Raises:
        SettingError: they hold NaN, or look as if they were normalised, or were not divided by their range.
    """
    if not images.numel():
        raise SettingError(
            f"{what}: there is no pixel in shape {tuple(images.shape)}; give at least one picture."
        )
    low, high = (end.item() for end in images.detach().aminmax())
    if not (abs(low) < float("inf") and abs(high) < float("inf")):
        raise SettingError(
            f"{what}: NaN or infinite values among the pixels. Correct them; allowed are 0 to 1."
        )
    if low >= -OVERSHOOT and high <= 1 + OVERSHOOT:
        return images
    if low < 0:
        do = (
            "Normalised ones are refused, because the model normalises them itself: hand over what was there "
            "before the mean was subtracted; clamp(0, 1) what resizing brought out of range"
        )
    else:
        most = "65535" if high > 255 else "255"
        do = f"Divide them by the range of their type (by {most}?), or hand over uint8 or uint16 as they are"
    raise SettingError(f"{what}: values from {low:.4g} to {high:.4g}, but raw pictures lie in [0, 1]. {do}.")


def _dense(given: Tensor, what: str) -> Tensor:
    """Return a tensor that holds a number in every place.

    Raises:
        SettingError: it is sparse, quantised, nested, or on ``meta``, where there are no numbers.
    """
    kinds = {
        "on 'meta', which holds no numbers": given.is_meta,
        "nested": given.is_nested,
        "quantised": given.is_quantized,
        f"sparse ({given.layout})": given.layout != torch.strided,
    }
    kind = next((kind for kind, is_it in kinds.items() if is_it), None)
    if kind:
        raise SettingError(
            f"{what}: the tensor is {kind}; allowed are dense tensors. Make one first: to_dense(), "
            "dequantize(), or torch.stack of a list."
        )
    return given


def as_masks(masks: GivenMasks, what: str = "masks", dims: int = 2) -> AnyMasks:
    """Return class indices [b h w] as int64; whole floating-point numbers count as integers.

    A bool tensor [b l h w] is a stack of labels that may overlap, and stays one. Of volumes (3 ``dims``) all
    have one axis more.

    Raises:
        SettingError: they have other axes, or hold fractions.
    """
    if isinstance(masks, pil.Image):
        return as_mask(masks, what, dims)[None]
    if isinstance(masks, list | tuple) and masks:
        each = [as_mask(one, f"{what}[{i}]", dims) for i, one in enumerate(masks)]
        if len({one.shape for one in each}) > 1:
            raise SettingError(f"The {what} of one batch have one size; received several.")
        return torch.stack(each)
    if not isinstance(masks, Tensor | np.ndarray):
        raise SettingError(f"The {what} can't be {in_words(masks)}; allowed are class indices [b h w].")
    given = _dense(masks, f"The {what}") if isinstance(masks, Tensor) else _tensor(masks)
    if given.ndim == dims + 2 and given.dtype == torch.bool:
        return given
    if given.ndim == dims + 2 and given.shape[1] == 1:
        given = given[:, 0]
    if given.ndim != dims + 1:
        volumes = " Of volumes [b d h w] say dims=3." if given.ndim == 4 and dims == 2 else ""
        raise SettingError(
            f"The {what} have shape {tuple(given.shape)}; allowed are class indices [b {AXES[dims]}] or [b 1 "
            f"{AXES[dims]}], one number a pixel (of one-hot masks take argmax(1), of one mask mask[None])."
            f"{volumes}"
        )
    return _whole(given, what)


def as_mask(mask: Picture, what: str, dims: int = 2) -> Mask:
    """Return one mask as `as_masks` does: [h w] or [1 h w]; of Pillow's palettes the indices.

    Raises:
        SettingError: as `as_masks`.
    """
    if isinstance(mask, pil.Image):
        if mask.mode not in ("1", "L", "P", "I", "I;16"):
            raise SettingError(
                f"{what} is a Pillow picture of mode {mask.mode}; allowed is one number a pixel."
            )
        return _whole(_tensor(np.array(ImageOps.exif_transpose(mask))), what)
    if not isinstance(mask, Tensor | np.ndarray):
        raise SettingError(f"{what} can't be {in_words(mask)}; allowed are class indices [h w].")
    given = _dense(mask, what) if isinstance(mask, Tensor) else _tensor(mask)
    given = given[0] if given.ndim == dims + 1 and given.shape[0] == 1 else given
    if given.ndim != dims:
        raise SettingError(
            f"{what} has shape {tuple(given.shape)}; allowed are class indices [{AXES[dims]}] or [1 "
            f"{AXES[dims]}], one number a pixel (of a one-hot mask take argmax(0))."
        )
    return _whole(given, what)


def as_regions(regions: Tensor | np.ndarray, what: str) -> Regions:
    """Return True and False of each pixel, [b h w], or of each voxel, [b d h w].

    Raises:
        SettingError: they are something else; of masks it says how to make regions.
    """
    given = _tensor(regions) if isinstance(regions, np.ndarray) else regions
    if not isinstance(given, Tensor) or given.dtype != torch.bool or given.ndim not in (3, 4):
        raise SettingError(
            f"{what} must be a bool tensor [b h w] (pictures, rows, columns) or [b d h w] (of "
            f"volumes), received {in_words(regions)}. "
            "Of class indices it is masks == 1."
        )
    return given


def sha256_of(pictures: Tensor) -> str:
    """Return a hash of pictures: of their numbers in float32, and of how they lie."""
    raw = pictures.detach().to("cpu", torch.float32).contiguous().numpy().tobytes()
    return hashlib.sha256(f"{tuple(pictures.shape)}|".encode() + raw).hexdigest()


def names_of(names: str | Sequence[str]) -> tuple[str, ...]:
    """Return names, each once; one alone need not stand in a tuple."""
    return (names,) if isinstance(names, str) else tuple(dict.fromkeys(names))


AXES = {2: "h w", 3: "d h w"}
"""The axes of pictures and volumes, as errors name them."""

ALLOWED = {
    2: "Allowed are tensors [b c h w], arrays [h w], [h w c] or [b h w c], Pillow pictures, and lists of "
    "them; seglens.read_images reads files.",
    3: "Allowed are volumes: tensors [b c d h w], arrays [d h w], [d h w c] or [b d h w c], and lists of "
    "them.",
}


def _batch(images: Tensor, channels: int, dims: int) -> Tensor:
    """The tensor itself, where it has the axes and channels of a batch."""
    shape, wanted = tuple(images.shape), f"[b c {AXES[dims]}]"
    if images.ndim != dims + 2:
        hint = " Of one picture write images[None]." if images.ndim == dims + 1 else ""
        if dims == 3 and images.ndim == 4:
            hint = " The model is 3-D: give one volume as volume[None]; pictures are no volumes."
        if dims == 2 and images.ndim == 5:
            hint = " Volumes are for 3-D models, and for what works in 3-D already (docs/volumes.md)."
        raise SettingError(
            f"The pictures have {images.ndim} axes, {shape}; a tensor has {dims + 2}, {wanted}.{hint}"
        )
    if images.shape[1] != channels:
        turn = f"permute(0, {', '.join(map(str, (dims + 1, *range(1, dims + 1))))})"
        raise SettingError(_wrong_channels("The pictures", shape[1], channels, shape, turn))
    return images


def _wrong_channels(what: str, found: int, channels: int, shape: tuple[int, ...], turn: str) -> str:
    last = f" The channels seem to come last: write {turn}." if shape[-1] == channels else ""
    read = f" Read them with channels={channels}." if not last else ""
    return f"{what}: {found} channels in shape {shape}, but the model takes {channels}.{last}{read}"


def _channels_first(array: np.ndarray, channels: int, dims: int, what: str) -> np.ndarray:
    """An array with the channels before its ``dims`` spatial axes, where one reading alone fits."""
    first, last = array.shape[-dims - 1], array.shape[-1]
    b, size = "b " if array.ndim == dims + 2 else "", AXES[dims]
    fits = [count == channels or (count == 1 and channels == 3) for count in (first, last)]
    if all(fits):
        raise SettingError(
            f"{what}: shape {array.shape} can be read as [{b}c {size}] and as [{b}{size} c]. Say which by a "
            f"tensor [b c {size}]: torch.from_numpy(...), permuted where the channels come last."
        )
    if not any(fits):
        alpha = " Of a picture with alpha take [..., :3]." if last == 4 and channels == 3 else ""
        raise SettingError(
            f"{what}: shape {array.shape} is neither [{b}{size} c] nor [{b}c {size}] of "
            f"{'pictures' if b else 'a picture'} with {channels} channels, which the model takes.{alpha}"
        )
    return array if fits[0] else np.moveaxis(array, -1, -dims - 1)


def _from_pillow(picture: pil.Image, channels: int, what: str) -> Image:
    """Upright as files are; colours of a palette, no alpha; luma where the model takes grey."""
    upright = ImageOps.exif_transpose(picture)
    mode = _PLAIN.get(upright.mode, upright.mode)
    if mode == "RGB" and channels == 1:
        mode = "L"
    if mode not in ("L", "RGB", "F", "I;16", "I;16L", "I;16B"):
        raise SettingError(f"{what}: Pillow's mode {mode} can't be read. Convert it to L, RGB or I;16.")
    array = np.array(upright if upright.mode == mode else upright.convert(mode))
    laid = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
    return _with_channels(_scaled(_tensor(laid), what), channels, what)


def _with_channels(images: Tensor, channels: int, what: str, dims: int = 2) -> Tensor:
    """Grey repeated for 3 channels; anything else must be what the model takes."""
    found = images.shape[-dims - 1]
    if found == 1 and channels == 3:
        return images.expand(*images.shape[: -dims - 1], 3, *images.shape[-dims:])
    if found != channels:
        raise SettingError(_wrong_channels(what, found, channels, (), ""))
    return images


def _tensor(array: np.ndarray) -> Tensor:
    """A tensor of the same numbers in this machine's byte order; float64 (numpy's default) as float32."""
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    try:
        return torch.from_numpy(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False)))
    except TypeError as error:
        raise SettingError(f"An array of {array.dtype} holds no pixels. {ALLOWED[2]}") from error


def _scaled(images: Tensor, what: str = "The pictures") -> Tensor:
    """Floating-point numbers as they are, 8 and 16 bits divided by their range.

    Raises:
        SettingError: of other types nobody knows the range.
    """
    if images.is_floating_point():
        return images
    if images.dtype not in (torch.uint8, torch.uint16):
        kind = str(images.dtype).removeprefix("torch.")
        raise SettingError(
            f"{what}: {kind} pixels. Allowed are floating-point numbers in [0, 1], and uint8 and uint16, "
            "which are divided by 255 and 65535. Convert them."
        )
    most = 255 if images.dtype == torch.uint8 else 65535
    kind = str(images.dtype).removeprefix("torch.")
    warnings.warn(f"{kind} pictures are divided by {most}.", SeglensWarning, stacklevel=2)
    return images.float() / most


def _whole(given: Tensor, what: str) -> Tensor:
    if given.is_floating_point():
        if not torch.equal(given, given.round()):
            raise SettingError(
                f"{what}: fractions ({given.min():.4g} to {given.max():.4g}) where class indices are "
                "expected. ToTensor divides masks by 255: use PILToTensor, or torch.from_numpy."
            )
    elif given.is_complex():
        raise SettingError(f"{what}: complex numbers where class indices are expected.")
    return given.long()


def check_spacing(spacing: Sequence[float], dims: int) -> None:
    """Refuse what is no spacing of pixels; an empty one says that it isn't known.

    Raises:
        SettingError: it is not one positive number of millimetres for each axis.
    """
    if spacing and (len(spacing) != dims or not all(0 < mm < math.inf for mm in spacing)):
        raise SettingError(
            f"The spacing is {tuple(spacing)}; allowed is one positive number of millimetres for each of "
            f"{dims} axes."
        )

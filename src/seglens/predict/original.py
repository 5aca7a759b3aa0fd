"""Predictions at the original resolution of pictures of any size, by one input or by windows.

Scores, written masks and chosen thresholds all use these functions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from seglens.axes import CHANNELS_LAST, size_of, widened
from seglens.data.frame import Frame, fit_frame, part_frame
from seglens.data.sample import Sample
from seglens.data.transforms import letterbox_image, placed_on
from seglens.errors import SettingError
from seglens.models.segmenter import ModelSpec, Segmenter
from seglens.predict import Prediction, infer
from seglens.predict.tiles import Windows, bands, cut_of, plan
from seglens.shapes import AnyMask, Image, Images, Logits, Probabilities

Probability = Float[Tensor, "classes *_"]

AT_ONCE = {2: 8, 3: 1}
"""Windows of pictures and of volumes that are in the model at once where nobody says otherwise."""


@dataclass(frozen=True)
class Inference:
    """How predictions are made; see `seglens.predict.infer` and `seglens.predict.tiles.TILES`."""

    precision: str = "auto"
    tta: bool = False
    tiles: str = "auto"


@dataclass(frozen=True)
class Placed:
    """A picture on its way to the network: on the input grid in its ``frame``, or whole, with ``windows``.

    A ``sample`` that the model's own tool prepared goes its own way.
    """

    image: Image
    frame: Frame | None
    windows: Windows | None
    sample: Sample | None = None


def place(
    image: Image, spec: ModelSpec, tiles: str = "auto", spacing: Sequence[float] | None = None
) -> Placed:
    """Scale a picture into one input, or say in which windows it will be cut.

    ``spacing`` are millimetres a voxel along each axis of a volume.

    Raises:
        UnknownNameError: there is no such rule for tiles.
    """
    windows = plan(size_of(image, 1), spec, tiles, spacing=spacing)
    if windows is not None:
        return Placed(image, None, windows)
    grid, frame = letterbox_image(image, spec.image_size, spacing, spec.patch_scale)
    return Placed(grid, frame, None)


def on_one_input(
    samples: Sequence[Sample], spec: ModelSpec, tiles: str = "auto"
) -> tuple[list[Sample], list[Frame]]:
    """Return samples on the input grid, each in its `input_frame`."""
    return placed_on(samples, [input_frame(sample, spec, tiles) for sample in samples])


def input_frame(sample: Sample, spec: ModelSpec, tiles: str = "auto") -> Frame:
    """Return how a picture lies on one input of the network: whole, where it isn't predicted in windows.

    Of those that are, one input is the window that holds the most of the mask, see `window_about`.

    Raises:
        UnknownNameError: there is no such rule for tiles.
    """
    if sample.prepared is not None:
        return sample.prepared.one_input(sample.mask)
    native, windows = size_of(sample.image, 1), None
    if spec.normalise != "image":  # else there are no windows
        windows = plan(native, spec, tiles, spacing=sample.spacing)
    if windows is None:
        return fit_frame(native, spec.image_size, sample.spacing, spec.patch_scale)
    return part_frame(native, spec.image_size, spec.scale or 1.0, sample.spacing, sample.mask)


def place_sample(sample: Sample, spec: ModelSpec, tiles: str = "auto") -> Placed:
    """Return `place` of a sample, or the sample itself where the model's own tool prepared it."""
    if sample.prepared is not None:
        return Placed(sample.image, None, None, sample)
    return place(sample.image, spec, tiles, sample.spacing)


def forward(segmenter: Segmenter, pictures: Sequence[Placed], how: Inference) -> list[Probability]:
    """Run the network: probabilities on the input grid, of all those pictures at once, or of windows.

    Raises:
        SettingError: there is no such precision.
    """
    grids = [placed.image for placed in pictures if placed.frame is not None]
    found = iter(())
    if grids:
        images = torch.stack(grids).contiguous(memory_format=CHANNELS_LAST[segmenter.spec.dims])
        prediction = infer(segmenter, images, batch_size=len(grids), precision=how.precision, tta=how.tta)
        found = iter(prediction.probabilities)
    return [
        next(found) if placed.frame is not None else _by_itself(segmenter, placed, how) for placed in pictures
    ]


def by_tool(segmenter: Segmenter, sample: Sample, logits: Logits | None = None) -> Probability:
    """Return the probabilities of a sample at its own size, by the tool that prepared it.

    ``logits`` are those of the prepared volume, where they are there already.

    Raises:
        NonFiniteError: the answer holds NaN or infinity.
    """
    tool, prepared = segmenter.tool, sample.prepared
    assert tool is not None
    assert prepared is not None
    found = tool.logits(segmenter.module, prepared) if logits is None else logits
    return tool.probabilities(found, prepared, sample.grid)


def at_original_size(placed: Placed, probabilities: Probability) -> Probability:
    """Return what `forward` found for a picture at the picture's own size."""
    return probabilities if placed.frame is None else placed.frame.maps_to_native(probabilities)


def probabilities_at_original_size(
    segmenter: Segmenter,
    images: Sequence[Float[Tensor, "_ *_"]],
    *,
    precision: str = "auto",
    tta: bool = False,
    tiles: str = "auto",
    spacings: Sequence[Sequence[float] | None] | None = None,
) -> list[Probability]:
    """Return the probabilities of pictures of any sizes, each at its own; ``spacings`` are as in `place`.

    Raises:
        SettingError, UnknownNameError: a setting is not allowed.
    """
    sides = [None] * len(images) if spacings is None else spacings
    pictures = [place(image, segmenter.spec, tiles, each) for image, each in zip(images, sides, strict=True)]
    found = forward(segmenter, pictures, Inference(precision, tta, tiles))
    return [at_original_size(*pair) for pair in zip(pictures, found, strict=True)]


def mask_at_original_size(
    probabilities: Float[Tensor, "classes *grid"], frame: Frame, spec: ModelSpec
) -> AnyMask:
    """Return the mask of one picture at its native size: probabilities are scaled, then decided on."""
    return decide(frame.maps_to_native(probabilities), spec)


def in_windows(
    segmenter: Segmenter,
    images: Images,
    windows: Windows,
    *,
    precision: str = "32",
    tta: bool = False,
) -> Prediction:
    """Predict pictures or volumes in windows, see `seglens.predict.tiles`; logits are of the blend.

    8 windows, or of volumes 1, are in the model at once; what is returned is as large as the input.

    Raises:
        SettingError: there is no such precision.
        NonFiniteError: the answer to a window holds NaN or infinity.
    """
    most = AT_ONCE[segmenter.spec.dims]
    found = torch.empty(len(images), segmenter.spec.classes, *windows.native)
    for image, made in zip(images, found, strict=True):
        top = 0
        for band in bands(segmenter, cut_of(image), windows, batch_size=most, precision=precision, tta=tta):
            made[:, top : top + band.shape[1]] = band
            top += band.shape[1]
    mask = torch.stack([decide(each, segmenter.spec) for each in found])
    return Prediction(logits_of(found, segmenter.spec), found, mask)


def logits_of(probabilities: Probabilities, spec: ModelSpec) -> Logits:
    """Return the logits that give these probabilities; of a 0 or 1 finite ones all the same."""
    tiny = torch.finfo(probabilities.dtype).tiny
    if spec.head == "softmax":
        return probabilities.clamp(min=tiny).log()
    labels = probabilities[:, 1:]
    return labels.clamp(min=tiny).log() - (1 - labels).clamp(min=tiny).log()


def empty_mask(spec: ModelSpec, size: tuple[int, ...]) -> AnyMask:
    """Return a mask of background to write what `decide` says into: a byte a pixel, eight weigh too much."""
    if spec.head == "multilabel":
        return torch.zeros(spec.outputs, *size, dtype=torch.bool)
    return torch.zeros(size, dtype=torch.int8 if spec.classes <= 128 else torch.int16)


def decide(probabilities: Float[Tensor, "classes *size"], spec: ModelSpec) -> AnyMask:
    """Return the class of every pixel: sigmoid heads by the threshold, others the most probable.

    Of a multilabel head every label is decided on by its own threshold.
    """
    if spec.head == "multilabel":
        thresholds = torch.tensor(spec.thresholds, dtype=probabilities.dtype, device=probabilities.device)
        return probabilities[1:] >= widened(thresholds, probabilities)
    if spec.head == "sigmoid":
        return (probabilities[1] >= spec.threshold).long()
    return probabilities.argmax(dim=0)


def _by_itself(segmenter: Segmenter, placed: Placed, how: Inference) -> Probability:
    """Predict one picture by its own tool, or in windows."""
    if placed.sample is not None:
        if how.tta:
            raise SettingError(
                "The model's own tool mirrors volumes, or not, as it was adopted: received tta, too. Leave "
                "it out; 'seglens adopt --no-mirroring' makes a run that doesn't."
            )
        return by_tool(segmenter, placed.sample)
    assert placed.windows is not None
    parts = bands(segmenter, cut_of(placed.image), placed.windows, precision=how.precision, tta=how.tta)
    return torch.cat(list(parts), dim=1)

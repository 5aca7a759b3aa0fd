"""One opened picture: at its own size, on the input grid, and with its prediction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import gt
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from seglens.axes import MEAN_ON_GRID, num_pixels, size_of
from seglens.data.frame import Frame, nearest
from seglens.data.images import read_size
from seglens.data.layout import Split
from seglens.data.sample import Sample
from seglens.data.transforms import collate
from seglens.drawing.planes import Planes, planes_through
from seglens.errors import DataError
from seglens.evaluate.scores import counted, scores
from seglens.folder.chunks import Chunk, split_of
from seglens.folder.large import large_chunk, predict_large
from seglens.folder.prediction import original_masks
from seglens.masks import foreground
from seglens.models.segmenter import ModelSpec
from seglens.predict import Prediction
from seglens.predict.original import on_one_input
from seglens.predict.tiles import number_of, plan
from seglens.runs import Run
from seglens.shapes import AnyMask, Region

MOST_PIXELS = 2**24
"""The largest picture that is opened, 4096 x 4096: a person waits for the answer."""

MOST_WINDOWS = 64
"""The most windows that one picture may take, for the same reason."""

SCORES = ("dice", "iou", "precision", "recall", "pixel_accuracy")
"""The scores that are shown where the truth is known."""


@dataclass(frozen=True, eq=False)
class Opened:
    """A picture with its prediction; ``part`` holds it alone, ``split`` is where it came from.

    ``mask`` is the prediction at the picture's own size; ``scores`` are empty where no truth is known. A
    volume is looked at in ``planes``.
    """

    part: Chunk
    split: Split
    prediction: Prediction
    mask: AnyMask
    scores: Mapping[str, float]
    planes: Planes | None = None

    @property
    def sample(self) -> Sample:
        """The picture as it is."""
        return self.part.originals[0]

    @property
    def frame(self) -> Frame:
        """The place and scale of the picture on the grid."""
        return self.part.frames[0]

    @property
    def has_truth(self) -> bool:
        """Whether the truth is known."""
        return self.sample.mask is not None


def open_file(run: Run, file: Path) -> Opened:
    """Read a picture or volume and predict it; its truth is unknown.

    Raises:
        DataError: the file is none, or a larger one than `MOST_PIXELS` or `MOST_WINDOWS` allow.
    """
    return open_sample(run, split_of(run, [file]), 0)


def open_sample(run: Run, split: Split, index: int) -> Opened:
    """Read picture ``index`` of a split and predict it.

    Raises:
        DataError: it can't be read, or is too large, as in `open_file`.
    """
    entry = split.entries[index]
    if run.spec.dims == 2:
        refuse_to_open_large(read_size(entry.image), run.spec, entry.image)
    return open_read(run, split, split[index], entry.image)


def open_read(run: Run, split: Split, sample: Sample, file: Path) -> Opened:
    """Predict a picture that was read already; ``file`` is what an error calls it.

    Raises:
        DataError: it is too large, as in `open_file`.
    """
    refuse_to_open_large(size_of(sample.image, 1), run.spec, file, sample.spacing)
    part = chunk_of_one(sample, run.spec)
    prediction = predict_opened(run, part)
    mask = original_masks(run, part, prediction)[0]
    planes = planes_through(foreground(mask, 3), sample.spacing) if run.spec.dims == 3 else None
    return Opened(part, split, prediction, mask, scores_of_opened(sample, mask, run.spec.classes), planes)


def refuse_to_open_large(
    size: tuple[int, ...], spec: ModelSpec, file: Path, spacing: Sequence[float] | None = None
) -> None:
    """Raise where a picture or volume of ``size`` is more than a person would wait for.

    Raises:
        DataError: it has too many pixels, or takes too many windows.
    """
    what, least = f"{file.name} is {size_in_words(size)}", f"seglens explain RUN {file.name}"
    if num_pixels(size) > MOST_PIXELS:
        raise DataError(
            f"{what}, too large to be looked at here: allowed are {MOST_PIXELS / 2**20:.0f} million (2^20). "
            f"Cut a part out of it, or explain it whole with '{least}'."
        )
    windows = plan(size, spec, spacing=spacing)
    if windows is None:
        return
    if (num := number_of(windows)) > MOST_WINDOWS:
        raise DataError(
            f"{what}, which takes about {num} windows of the network, too many to be looked at here: allowed "
            f"are {MOST_WINDOWS}. Cut a part out of it, or explain it whole with '{least}'."
        )


def size_in_words(size: Sequence[int]) -> str:
    """Return ``40 x 32 pixels`` (columns first, as pictures are told), or slices, rows and columns."""
    if len(size) == 2:
        return f"{size[1]} x {size[0]} pixels"
    return f"{size[0]} slices of {size[1]} rows and {size[2]} columns"


def chunk_of_one(sample: Sample, spec: ModelSpec) -> Chunk:
    """Put one picture on the input grid, or plan the windows in which it is predicted."""
    windows = plan(size_of(sample.image, 1), spec, spacing=sample.spacing)
    if windows is not None:
        return large_chunk(sample, windows, 0, 0)
    placed, frames = on_one_input([sample], spec)
    return Chunk((sample,), collate(placed), tuple(frames), (0,))


def predict_opened(run: Run, part: Chunk) -> Prediction:
    """Return the prediction, by one input or by windows."""
    return predict_large(run, part) if part.windows is not None else run.predict(part.batch.images)


def scores_of_opened(sample: Sample, mask: AnyMask, num_classes: int) -> dict[str, float]:
    """Return the `SCORES` of a prediction at the picture's own size; nothing where no truth is known."""
    if sample.mask is None or not bool(sample.valid.any()):
        return {}
    found = scores(counted(mask, sample.mask, sample.valid, num_classes))
    return {name: float(found[name]) for name in SCORES}


def on_grid(region: Region, frame: Frame) -> Bool[Tensor, "*grid"]:
    """Bring a region of the picture's own size to the grid; at least one pixel of it where it has any.

    A pixel of the grid belongs to it where at least half of what it covers does.
    """
    if frame.reach:
        return frame.mask_to_grid(region).to(torch.bool)
    region = frame.oriented(region)
    shared = MEAN_ON_GRID[region.ndim](region[None, None].float(), frame.scaled)[0, 0]
    placed = shared >= min(0.5, float(shared.max())) if bool(region.any()) else shared > 1
    if any(map(gt, frame.scaled, region.shape)):  # enlarged: every pixel is nearest to one
        placed = nearest(region, frame.scaled)
    return frame.padded(placed).to(torch.bool)

"""Self-training: the predictions of a student, averaged over variants of each picture, become new masks.

The teacher of a round is the student of the round before, with the running average of its weights (which is
what training keeps): a mean teacher (Tarvainen and Valpola 2017) that is renewed once a round. Pixels that it
is not sure of are ignored, not called background. Rounds end where successive students agree.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from PIL import Image as pil
from torch import Tensor

from seglens.arguments import check_range
from seglens.data.labels import read_label
from seglens.data.layout import Split
from seglens.data.transforms import letterbox_image
from seglens.errors import SettingError, unknown_name
from seglens.evaluate.scores import confusion, scores
from seglens.files.output import remade_folder
from seglens.predict import infer
from seglens.predict.original import Inference
from seglens.runs import Run, prepared
from seglens.runtime.progress import track
from seglens.runtime.threads import read_ahead
from seglens.shapes import Image, Map, Mask
from seglens.weak.ignore_band import IGNORED
from seglens.weak.refine import REFINEMENTS, refine, vote
from seglens.weak.settings import RefineSettings
from seglens.weak.students import LearningPictures

LEVELS = 255
"""Answers are kept in 8 bits: a probability p is written as round(255 p)."""


@dataclass(frozen=True)
class TeacherSettings:
    """How the predictions of a student become masks.

    A picture is seen at each of ``scales`` (times the side that the student was trained at), and mirrored
    left to right with ``flip``; the probabilities are averaged. ``refine`` is what is done to the average:
    ``none``, ``superpixels`` (each patch takes its mean, the patches being those of the pseudo-masks) or one
    of `seglens.weak.refine.REFINEMENTS` (pixels ask others that look alike). With t the student's own
    threshold, pixels from t + ``margin`` (1 - t) on are object, those below t - ``margin`` t are not, all
    between are ignored.
    """

    scales: tuple[float, ...] = (1.0, 1.25)
    flip: bool = True
    refine: str = "none"
    margin: float = 0.4

    def __post_init__(self) -> None:
        if not self.scales or min(self.scales) <= 0:
            raise SettingError(
                f"The scales of the teacher are {self.scales}. Give at least one; all must be above 0."
            )
        for scale in self.scales:
            check_range("A teacher's scale", scale, 0.01, 100)
        if not 0 <= self.margin < 1:
            raise SettingError(
                f"The margin of the teacher is {self.margin}. It must be at least 0 and below 1."
            )
        if self.refine not in (allowed := ("none", "superpixels", *REFINEMENTS)):
            raise unknown_name("refinement of a teacher's answers", self.refine, allowed)


def answers(
    run: Run,
    images: Sequence[Float[Tensor, "_ _ _"]],
    settings: TeacherSettings,
    *,
    precision: str = "auto",
) -> list[Float[Tensor, "_ _"]]:
    """Return the averaged probability of the object for pictures of any sizes, each at its own."""
    run = prepared(run, Inference(precision))
    spec = run.spec
    total = [torch.zeros(image.shape[1:]) for image in images]
    for scale in settings.scales:
        size = tuple(max(1, round(side * scale / spec.divisor)) * spec.divisor for side in spec.sides)
        placed = [letterbox_image(image, size) for image in images]
        grids = torch.stack([grid for grid, _ in placed])
        found = infer(run.segmenter, grids, precision=precision).probabilities[:, 1]
        if settings.flip:
            mirrored = infer(run.segmenter, grids.flip(-1), precision=precision).probabilities[:, 1].flip(-1)
            found = (found + mirrored) / 2
        for row, (_, frame) in enumerate(placed):
            total[row] = total[row] + frame.maps_to_native(found[row]).float().cpu() / len(settings.scales)
    return total


def write_answers(
    run: Run,
    pictures: LearningPictures,
    folder: Path,
    settings: TeacherSettings,
    *,
    refine: Callable[[int, Image, Map], Map],
    batch_size: int = 8,
    precision: str = "auto",
) -> None:
    """Write what ``run`` answers to every picture that shows the object, as 8-bit PNGs in ``folder``.

    ``refine`` takes a picture's number, the picture and the answer, and returns the answer to keep.
    """
    split = pictures.labelled.split
    with remade_folder(folder) as new:
        shown = track(
            pictures.labelled.positive, total=len(pictures.labelled.positive), what="teacher's answers"
        )
        for numbers, images in _batches(split, shown, batch_size):
            found = answers(run, images, settings, precision=precision)
            for index, image, answer in zip(numbers, images, found, strict=True):
                kept = refine(index, image, answer).clamp(0, 1)
                eight_bit = (kept * LEVELS).round().to(torch.uint8)
                pil.fromarray(eight_bit.numpy()).save(new / f"{pictures.files[index]}.png")


def read_answer(folder: Path, pictures: LearningPictures, index: int) -> Map:
    """Return the answer to picture ``index`` as `write_answers` kept it; zeros where it shows no object."""
    if not pictures.labelled.present[index]:
        return torch.zeros(pictures.labelled.split[index].image.shape[1:])
    return read_label(folder / f"{pictures.files[index]}.png").float() / LEVELS


def decided(answer: Map, threshold: float, margin: float) -> Mask:
    """Return the mask of an answer: 1 object, 0 none, `IGNORED` in between; see `TeacherSettings`."""
    mask = torch.full(answer.shape, IGNORED)
    mask[answer >= threshold + margin * (1 - threshold)] = 1
    mask[answer < threshold - margin * threshold] = 0
    return mask


def next_labels(answer: Map, before: Mask, threshold: float, margin: float) -> Mask:
    """Return the masks of the next round: `decided`, or those of ``before`` where no object is left.

    A picture that shows the object has one somewhere: a teacher that lost it says nothing about where.
    """
    mask = decided(answer, threshold, margin)
    return mask if bool((mask == 1).any()) else before


def mask_agreement(pairs: Iterator[tuple[Mask, Mask]]) -> dict[str, float]:
    """Return how well two sets of masks agree: ``miou`` and ``iou``, pooled, where both decide."""
    counts: Int[Tensor, "2 2"] = torch.zeros(2, 2, dtype=torch.int64)
    total = 0
    for before, now in pairs:
        both = (before != IGNORED) & (now != IGNORED)
        counts += confusion(now.masked_fill(~both, 0), before.masked_fill(~both, 0), both, 2)
        total += both.numel()
    found = scores(counts)
    return {name: float(found[name]) for name in ("miou", "iou")} | {
        "share": float(counts.sum()) / max(1, total)
    }


def masks_of(values: Map) -> Mask:
    """Return the mask 0, 1, `IGNORED` of pseudo-masks that are kept as 0, 1 and 0.5."""
    return decided(values, 0.5, 0.5)


def refinement(
    settings: TeacherSettings, patches: Callable[[int], Int[Tensor, "h w"]]
) -> Callable[[int, Image, Map], Map]:
    """Return what refines an answer; ``patches`` gives a picture's superpixels, computed once for all."""
    if settings.refine == "superpixels":
        return lambda index, image, answer: vote(answer, patches(index))
    if settings.refine == "none":
        return lambda index, image, answer: answer
    by = RefineSettings(method=settings.refine)
    return lambda index, image, answer: refine(image, answer, by)


def _batches(
    split: Split, indices: Iterable[int], size: int
) -> Iterator[tuple[list[int], list[Float[Tensor, "_ _ _"]]]]:
    """Read pictures in their order and hand them out in batches, with their numbers."""
    numbers: list[int] = []
    images: list[Tensor] = []
    for index, image in read_ahead(lambda number: (number, split[number].image), indices):
        numbers.append(index)
        images.append(image)
        if len(numbers) == size:
            yield numbers, images
            numbers, images = [], []
    if numbers:
        yield numbers, images

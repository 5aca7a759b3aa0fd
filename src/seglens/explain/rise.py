"""RISE: which places raise the score when they are seen, from random parts of the picture (Petsiuk 2018)."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seglens.arguments import check_fields, check_range
from seglens.axes import size_of
from seglens.errors import SettingError
from seglens.evaluate.correlation import pearson
from seglens.explain.cams import upsample
from seglens.explain.explanation import Explanation
from seglens.explain.masked import (
    Compile,
    check_compile,
    check_precision,
    faded,
    prepare,
    score_copies,
)
from seglens.explain.occlusion import Precision, agreement, explanations
from seglens.explain.target import Target
from seglens.models.segmenter import Segmenter
from seglens.seeds import content_generator
from seglens.shapes import Images, Maps, Rows

BLOCK = 64
"""Random masks that are summed up at once."""

TINY = 1e-6
"""Keeps 0 / 0 at 0 where no mask shows a place."""


@dataclass(frozen=True)
class Rise:
    """Settings of RISE: ``num_masks`` random grids of ``cells`` each way, each cell seen or not.

    A cell is seen with ``probability``. More masks give less noise: see ``half_split_correlation`` of the
    result. ``precision`` and ``compile`` are as in `ScoreCam`, ``label`` is what the results are called by.
    """

    name: ClassVar[str] = "rise"

    num_masks: int = 1000
    cells: int = 7
    probability: float = 0.5
    precision: Precision = "32"
    compile: Compile = "never"
    label: str = ""

    def __post_init__(self) -> None:
        check_fields(self)
        check_precision(self.precision)
        check_compile(self.compile)
        if self.num_masks < 2:
            raise SettingError(f"num_masks is {self.num_masks}, but at least 2 are needed; 1000 are usual.")
        if self.cells < 1:
            raise SettingError(f"cells is {self.cells}, but must be at least 1; 7 is usual.")
        check_range("num_masks", self.num_masks, 2, 10**6)
        check_range("cells", self.cells, 1, 1024)
        if not 0 < self.probability < 1:
            raise SettingError(f"probability is {self.probability}, but must be between 0 and 1.")


def rise(
    segmenter: Segmenter,
    images: Images,
    targets: Sequence[Target],
    settings: Rise,
    *,
    seed: int = 0,
    batch_size: int = 16,
) -> list[Explanation]:
    """Show random parts: ``map(p) = sum_i (S_i - mean S) M_i(p) / sum_i M_i(p)``. Petsiuk et al. 2018, eq. 6.

    ``S_i`` is the score of the picture shown through mask i (elsewhere the data set's mean: 0 after
    normalisation); masks are coarse random grids, upsampled and shifted at random, keyed by seed and picture.
    Our deviations: the paper divides by the expected coverage, we by that which the masks have, which leaves
    no pattern of their own; and the mean score is taken off, so that the sign says whether seeing a place
    raises or lowers the score. Ranks of places stay as they are with that.

    Diagnostics: ``half_split_correlation`` of the maps of every other mask: near 1 where masks are enough.
    """
    device = images.device
    grids, shifts = _draws(images, settings, seed)
    size = size_of(images)
    sides = zip(size, cells_of(settings, size), strict=True)
    weights = [_weights(length, cells).to(device) for length, cells in sides]

    def masks(which: Rows) -> Maps:
        found = grids.flatten(0, 1)[which]
        begins = shifts.flatten(0, 1)[which].unbind(1)
        for axis, (begin, length, shares) in enumerate(zip(begins, size, weights, strict=True), start=1):
            share = shares[begin[:, None] + torch.arange(length, device=device)]
            if axis < len(size):
                rest = found.movedim(axis, 1)
                spread = (share @ rest.flatten(2)).unflatten(2, rest.shape[2:])
                found = spread.movedim(1, axis)
            else:
                spread = found.flatten(1, -2) @ share.transpose(1, 2)
                found = spread.unflatten(1, found.shape[1:-1])
        return found

    def perturb(copies: Images, which: Rows) -> Images:
        return faded(segmenter, copies, masks(which))

    rows = torch.arange(len(images), device=device).repeat_interleave(settings.num_masks)
    model = prepare(
        segmenter,
        images,
        forwards=len(rows),
        batch_size=batch_size,
        precision=settings.precision,
        compile=settings.compile,
    )
    scores = score_copies(model, images, targets, rows, perturb, unit="mean", batch_size=batch_size)
    found = agreement(segmenter, model, images, targets, rows, perturb, scores, batch_size)
    if model.size:
        found["compile_seconds"] = scores.new_full((len(targets), len(images)), model.seconds)
    by_picture = scores.unflatten(1, (len(images), settings.num_masks))
    centred = by_picture - by_picture.mean(2, keepdim=True)
    shape = (2, len(targets), len(images), *size)
    total, cover = centred.new_zeros(shape), centred.new_zeros(2, 1, *shape[2:])
    for row in range(len(images)):
        for half in range(2):
            for part in torch.arange(half, settings.num_masks, 2, device=device).split(BLOCK):
                seen = masks(row * settings.num_masks + part)
                total[half, :, row] += torch.einsum("tn,n...->t...", centred[:, row, part], seen)
                cover[half, 0, row] += seen.sum(0)
    maps = total.sum(0) / cover.sum(0).clamp(min=TINY)
    halves = (total / cover.clamp(min=TINY)).flatten(3).flatten(1, 2)
    found["half_split_correlation"] = pearson(*halves).float().view(len(targets), -1)
    how = asdict(settings) | {
        "masking": "normalised",
        "precision": model.precision,
        "unit": "mean",
        "seed": seed,
    }
    return explanations(maps, targets, settings.label or settings.name, how, found)


def _draws(
    images: Images, settings: Rise, seed: int
) -> tuple[Float[Tensor, "b n *cells"], Int[Tensor, "b n dims"]]:
    """Which cells each mask shows, and by how many pixels it is shifted."""
    grids, shifts = [], []
    cells = cells_of(settings, size_of(images))
    shape = (settings.num_masks, *cells)
    sides = [math.ceil(length / num) for length, num in zip(size_of(images), cells, strict=True)]
    for image in images:
        draw = content_generator(image, seed, "masks")
        grids.append((torch.rand(shape, generator=draw) < settings.probability).float())
        # Rows and columns first: a volume of one slice is shown as its picture is.
        order = [*range(len(sides))[-2:], *range(len(sides))[:-2]]
        moved = {axis: torch.randint(sides[axis], (settings.num_masks,), generator=draw) for axis in order}
        shifts.append(torch.stack([moved[axis] for axis in range(len(sides))], 1))
    return torch.stack(grids).to(images.device), torch.stack(shifts).to(images.device)


def cells_of(settings: Rise, size: Sequence[int]) -> list[int]:
    """Return the number of cells along each side: in a volume no more than there are slices, say."""
    return [min(settings.cells, length) if len(size) > 2 else settings.cells for length in size]


def _weights(length: int, cells: int) -> Float[Tensor, "long cells"]:
    """The share of each cell in each pixel of a side with one cell more than fits the picture: `upsample`."""
    side = math.ceil(length / cells)
    return upsample(torch.eye(cells)[None], ((cells + 1) * side, cells))[0]

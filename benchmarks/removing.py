"""Curves of removal of a model and pictures, instead of a `Reading` of them."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool
from torch import Tensor

from seglens.explain.target import Target
from seglens.impute import Imputer, noisy_linear
from seglens.judge.cells import Partition
from seglens.judge.faithfulness import Curves, removal_curves
from seglens.judge.reading import reading
from seglens.models.segmenter import Segmenter
from seglens.shapes import Images, Maps, PerImage, Regions


def road(
    segmenter: Segmenter,
    images: Images,
    target: Target,
    maps: Mapping[str, Maps],
    *,
    valid: Regions | None = None,
    kept: Regions | None = None,
    counted: Bool[Tensor, " b"] | None = None,
    cells: Partition | None = None,
    area: PerImage | None = None,
    imputer: Imputer = noisy_linear,
    precision: str = "32",
    seed: int = 0,
    batch_size: int = 16,
) -> dict[str, Curves]:
    """Return the `removal_curves` of ``maps`` on pictures in [0, 1], in which ``valid`` are no padding.

    All pixels are by default. ``batch_size`` perturbed pictures are in the model at once.
    """
    whole = torch.ones_like(target.pixels) if valid is None else valid
    read = reading(segmenter, images, target, whole, batch_size=batch_size)
    curves, _ = removal_curves(
        read,
        maps,
        kept=kept,
        counted=counted,
        cells=cells,
        area=area,
        imputer=imputer,
        precision=precision,
        seed=seed,
    )
    return curves

"""A pixel classifier: a linear head on frozen features, fitted to the confident pixels of all pictures' heat.

Heat covers the parts of the object that decide the classifier's score, not all of it. Pixels that are certain
on some pictures show what the object looks like on all of them: one linear head for the whole set, on the
classifier's frozen features, is fitted to these pixels, then to the pixels that the head itself is confident
of, and so on (self-training). It is linear so that it can't learn the faults of the heat.

Where labels still change after the last round (``settled`` is false in the stage's facts), the head drifts:
small objects are lost in what resembles them, and the heat alone is better.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from seglens.errors import DataError, SettingError
from seglens.files.arrays import open_npz
from seglens.files.output import new_file
from seglens.runtime.progress import track
from seglens.shapes import Activations, Image
from seglens.weak.classifier_score import ClassifierScore, features
from seglens.weak.heat import Grid, at_scale, both_ways, one_way, working_size
from seglens.weak.refine import PixelPoints, likeness_points, mean_field_steps
from seglens.weak.settings import SpreadSettings
from seglens.weak.threshold import Cut

CELLS = 60_000
"""The largest number of cells that the head is fitted to, over all pictures: 65 MB of 272 features."""

FIRST, LATER = 40, 12
"""Iterations of L-BFGS in the first round, and in those that go on from the one before."""

STEPS = 4
"""Mean-field steps over the cells of a picture after each round."""

FLAT = 1e-3
"""The smallest standard deviation that a feature is divided by."""

CellFeatures = Float[Tensor, "cells features"]


@dataclass(frozen=True, eq=False)
class TrainingSample:
    """The training data of one picture: features, heat and mean colours of its cells, all on one grid."""

    features: Activations
    heat: Float[Tensor, "gh gw"]
    image: Float[Tensor, "c gh gw"]


@dataclass(frozen=True, eq=False)
class LinearHead:
    """``logit = ((x - mean) / std) . weight + bias`` of a cell's features x.

    ``history`` holds for each round the share of the cells that it was fitted to, and the share of all cells
    whose label changed in it.
    """

    weight: Float[Tensor, " features"]
    bias: Float[Tensor, ""]
    mean: Float[Tensor, " features"]
    std: Float[Tensor, " features"]
    history: tuple[tuple[float, float], ...]

    def logits(self, cells: CellFeatures) -> Float[Tensor, " cells"]:
        """Return the logit of each cell."""
        return ((cells - self.mean) / self.std) @ self.weight + self.bias


def fit_head(
    read: Callable[[int], TrainingSample], num: int, settings: SpreadSettings, cut: Cut, *, seed: int
) -> LinearHead:
    """Fit the head to ``num`` pictures that show the object.

    ``read`` gives the `TrainingSample` of each. The first round is fitted to cells whose heat is above
    ``cut.high`` or below ``cut.low``, later ones to cells that the head is sure of. Object and background
    have the same total weight. After each round `seglens.weak.refine.mean_field_steps` makes the labels of
    similar, near cells of a picture agree. Rounds end when less than ``settings.settled`` of the cells change
    their label, or after ``settings.rounds``: no mask decides when to stop.

    Raises:
        DataError: no cell is surely object, or none is surely not.
        SettingError: a setting is not allowed.
    """
    _check(settings)
    known, heat, points = _read_samples(read, num, settings, seed)
    mean, std = known.mean(0), known.std(0).clamp(min=FLAT)
    known = (known - mean) / std
    there, absent = heat >= cut.high, heat <= cut.low
    label: Bool[Tensor, " cells"] = heat >= cut.middle
    free, history = torch.zeros(known.shape[1] + 1, device=known.device), []
    for number in range(settings.rounds):
        if not there.any() or not absent.any():
            raise DataError(
                f"The pixel classifier needs cells that are surely object and cells that surely are not. In "
                f"round {number + 1} it has {int(there.sum())} and {int(absent.sum())} of {len(heat)}. Leave "
                "it out (spread: null), or choose another rule for the threshold."
            )
        free = _fit(known, there, absent, settings.penalty, free, LATER if number else FIRST)
        probability = _smoothed(known @ free[:-1] + free[-1], points, settings.weight).sigmoid()
        changed = float(((probability >= 0.5) != label).double().mean())
        history.append((float((there | absent).double().mean()), changed))
        label = probability >= 0.5
        if changed < settings.settled:
            break
        there, absent = probability >= settings.sure, probability <= 1 - settings.sure
    return LinearHead(free[:-1], free[-1], mean, std, tuple(history))


def cells(classifier: ClassifierScore, image: Image, settings: SpreadSettings) -> Activations:
    """Return the features of a picture on the head's grid, ``1 x features x rows x columns``.

    Each of ``layers`` is read at each of ``scales`` and averaged with that of the mirrored picture, brought
    to the grid (averaged where it is finer, bilinear where it is coarser), then averaged over the scales.

    Raises:
        UnknownNameError, ModelError: see `seglens.weak.classifier_score.features`.
    """
    _check(settings)
    size = _grid(image, settings)
    total: list[Tensor] = []
    for scale in settings.scales:
        given = features(classifier, both_ways(at_scale(image[None], scale), settings.flips), settings.layers)
        found = [_to_grid(one_way(given[layer]), size) / len(settings.scales) for layer in settings.layers]
        total = [torch.add(*pair) for pair in zip(total, found, strict=True)] if total else found
    return torch.cat(total, 1)


def pixel_probability(
    classifier: ClassifierScore, image: Image, head: LinearHead, settings: SpreadSettings, side: int
) -> Grid:
    """Return the head's probability of the object on the working grid of a picture.

    Logits are brought to the grid bilinearly before the sigmoid is taken.
    """
    grid = cells(classifier, image, settings)
    logits = head.logits(grid[0].flatten(1).T).view(1, 1, *grid.shape[2:])
    size = working_size((image.shape[1], image.shape[2]), side)
    return F.interpolate(logits, size, mode="bilinear", align_corners=False)[0, 0].sigmoid()


def training_sample(
    classifier: ClassifierScore, image: Image, heat: Grid, settings: SpreadSettings
) -> TrainingSample:
    """Return the features, heat and colours of a picture on the head's grid.

    Raises:
        UnknownNameError, ModelError: see `seglens.weak.classifier_score.features`.
    """
    size = _grid(image, settings)
    return TrainingSample(
        cells(classifier, image, settings),
        _to_grid(heat[None, None], size)[0, 0],
        _to_grid(image[None], size)[0],
    )


def save_head(head: LinearHead, file: Path) -> None:
    """Write the head to an ``.npz`` file, whole or not at all."""
    arrays = {name: getattr(head, name).cpu().numpy() for name in ("weight", "bias", "mean", "std")}
    with new_file(file, force=True) as temporary:
        np.savez(temporary, history=np.asarray(head.history), **arrays)


def load_head(file: Path, device: torch.device) -> LinearHead:
    """Read what `save_head` wrote.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        with open_npz(file) as opened:
            parts = {
                name: torch.from_numpy(opened[name]).to(device) for name in ("weight", "bias", "mean", "std")
            }
            history = tuple((float(first), float(second)) for first, second in opened["history"])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{file} holds no pixel classifier: {error}. Delete its folder; it is then made again."
        ) from error
    return LinearHead(parts["weight"], parts["bias"], parts["mean"], parts["std"], history)


def _read_samples(
    read: Callable[[int], TrainingSample], num: int, settings: SpreadSettings, seed: int
) -> tuple[CellFeatures, Float[Tensor, " cells"], list[PixelPoints]]:
    """Read all pictures; of more than `CELLS` cells as many of each picture are drawn by ``seed``."""
    generator = torch.Generator().manual_seed(seed)
    share = max(1, CELLS // num)
    known, heat, points = [], [], []
    for index in track(range(num), total=num, what="features for the head"):
        given = read(index)
        drawn = torch.randperm(given.heat.numel(), generator=generator)[:share].to(given.heat.device)
        placed = likeness_points(given.image, colour=settings.colour, distance=settings.distance)
        known.append(given.features[0].flatten(1).T[drawn])
        heat.append(given.heat.flatten()[drawn])
        points.append(placed[drawn])
    return torch.cat(known), torch.cat(heat), points


def _smoothed(
    logits: Float[Tensor, " cells"], points: list[PixelPoints], weight: float
) -> Float[Tensor, " cells"]:
    """Return the logits after `STEPS` mean-field steps over the cells of each picture."""
    if weight == 0:
        return logits
    parts = zip(logits.split([len(placed) for placed in points]), points, strict=True)
    return torch.cat([mean_field_steps(placed, own, weight=weight, steps=STEPS) for own, placed in parts])


def _fit(
    known: CellFeatures,
    there: Bool[Tensor, " cells"],
    absent: Bool[Tensor, " cells"],
    penalty: float,
    begin: Float[Tensor, " parameters"],
    iterations: int,
) -> Float[Tensor, " parameters"]:
    """Return weights and bias of the logistic regression of sure cells, by L-BFGS from ``begin``."""
    taught = there | absent
    given, truth = known[taught], there[taught].float()
    share = torch.where(truth > 0, 0.5 / there.sum(), 0.5 / absent.sum())
    free = begin.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([free], max_iter=iterations, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = given @ free[:-1] + free[-1]
        entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        value = (entropy * share).sum() + penalty * free[:-1].square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return free.detach()


def _to_grid(field: Float[Tensor, "b d _ _"], size: tuple[int, int]) -> Float[Tensor, "b d _ _"]:
    rows, columns = field.shape[2:]
    if rows >= size[0] and columns >= size[1]:
        return F.interpolate(field, size, mode="area")
    return F.interpolate(field, size, mode="bilinear", align_corners=False)


def _grid(image: Image, settings: SpreadSettings) -> tuple[int, int]:
    """Return rows and columns of the head's grid: a cell every ``stride`` pixels of the largest scale."""
    longer = max(settings.scales)
    sides = [
        max(1, round(side * longer / max(image.shape[1:]) / settings.stride)) for side in image.shape[1:]
    ]
    return sides[0], sides[1]


def _check(settings: SpreadSettings) -> None:
    numbers = (*settings.scales, settings.stride, settings.rounds)
    if not settings.layers or not settings.scales or min(numbers) < 1:
        raise SettingError(
            f"The settings of the pixel classifier can't be used: layers {settings.layers}, scales "
            f"{settings.scales}, stride {settings.stride}, rounds {settings.rounds}. Name at least one layer "
            "and one scale. All numbers must be at least 1."
        )
    if settings.weight < 0 or min(settings.colour, settings.distance) <= 0:
        raise SettingError(
            f"The settings of the pixel classifier can't be used: weight {settings.weight}, colour "
            f"{settings.colour}, distance {settings.distance}. The weight must be at least 0 (0 means no "
            "mean-field steps), and the others above 0."
        )
    if not 0.5 <= settings.sure < 1 or settings.penalty <= 0 or not 0 <= settings.settled < 1:
        raise SettingError(
            f"The settings of the pixel classifier can't be used: sure {settings.sure}, penalty "
            f"{settings.penalty}, settled {settings.settled}. Allowed are: sure from 0.5 to below 1, penalty "
            "above 0, settled from 0 to below 1."
        )

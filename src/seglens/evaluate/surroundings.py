"""The leak test: can a small classifier tell a stratum from the border or the background of pictures alone?

If it can, so can a network, and a difference between strata may be one of scanners rather than of patients.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from scipy.stats import rankdata
from torch import Tensor

from seglens.data.sample import Sample
from seglens.evaluate.intervals import Groups, holm, numbered, separation
from seglens.masks import foreground
from seglens.results.strata import Leak

BORDER = 1 / 16
"""Width of the border as a share of the picture's shorter side."""

AWAY = 3
"""Pixels around the true foreground that are no background: its edge is soft."""

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

FOLDS, RIDGE, SHUFFLES = 5, 1.0, 499
"""Folds of the cross-validation, penalty on standardised features, and shuffles of the null."""

PLACES = ("border", "background")

DEFINITIONS = {
    "leak": "Leak test: can a simple classifier tell the stratum from the border or the background "
    "alone? If so, a model can, too. It sees the mean, deviation, quantiles, contrast and noise of each "
    "channel. The true foreground and 3 pixels around it are left out. A ridge regression learns on "
    f"{FOLDS - 1} of {FOLDS} folds of groups and answers for the last one. The AUROC has an interval over "
    f"groups. It is compared with {SHUFFLES} shuffles of the strata.",
}


def surroundings(sample: Sample) -> dict[str, list[float]]:
    """Return numbers of a picture's border and background; NaN where there is no such pixel."""
    valid = sample.valid.numpy()
    # Padding counts as outside, so that the border lies along the picture itself.
    width = max(1, round(min(valid.shape) * BORDER))
    inner = ndimage.binary_erosion(valid, iterations=width, structure=np.ones((3,) * valid.ndim))
    object_ = np.zeros_like(valid)
    if sample.mask is not None:
        object_ = (foreground(sample.mask, sample.valid.ndim) & sample.valid).numpy()
    near = ndimage.binary_dilation(object_, iterations=AWAY) if object_.any() else object_
    regions = {"border": valid & ~inner & ~near, "background": valid & inner & ~near}
    found: dict[str, list[float]] = {place: [] for place in PLACES}
    for channel in sample.image.numpy().astype(np.float64):
        steps = np.sqrt(sum(np.square(np.gradient(channel, axis=axis)) for axis in range(channel.ndim)))
        noise = np.abs(ndimage.laplace(channel))
        for place, region in regions.items():
            values = channel[region]
            if not values.size:
                found[place] += [np.nan] * (4 + len(QUANTILES))
                continue
            found[place] += [values.mean(), values.std(), *np.quantile(values, QUANTILES)]
            found[place] += [steps[region].mean(), noise[region].mean()]
    return {place: [float(value) for value in values] for place, values in found.items()}


@dataclass(frozen=True)
class CrossValidated:
    """A linear map from labels to scores, each picture's from a fit without its fold: ``scores = map @ y``.

    Ridge regression is linear in its labels, so that shuffled labels cost a product and no fit.
    """

    matrix: Float[Tensor, "n n"]

    def scores(self, labels: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """Return the out-of-fold scores of each column of labels."""
        return self.matrix @ labels


def cross_validated(
    features: Float[Tensor, "n d"], folds: Sequence[int], penalty: float = RIDGE
) -> CrossValidated:
    """Return the out-of-fold ridge regression on standardised features (Hoerl, Kennard 1970).

    The score is ``(x - m) w``: without the mean label of the training folds, which is low where that of the
    fold left out is high, and would make AUROCs of nothing fall below .5.
    """
    of = torch.tensor(folds)
    matrix = torch.zeros(len(features), len(features), dtype=torch.float64)
    for fold in sorted(set(folds)):
        held, train = (of == fold).nonzero()[:, 0], (of != fold).nonzero()[:, 0]
        if not len(train):
            continue
        mean, std = features[train].mean(0), features[train].std(0, correction=0)
        x, new = ((features[rows] - mean) / std.clamp_min(1e-12) for rows in (train, held))
        centred = torch.eye(len(train), dtype=torch.float64) - 1 / len(train)
        solve = torch.linalg.solve(
            x.T @ x + penalty * torch.eye(x.shape[1], dtype=torch.float64), x.T @ centred
        )
        matrix[held[:, None], train[None]] = new @ solve
    return CrossValidated(matrix)


def leaks(
    features: Sequence[Mapping[str, Sequence[float]]],
    columns: Mapping[str, Sequence[str]],
    groups: Groups,
    *,
    seed: int = 0,
) -> tuple[Leak, ...]:
    """Return how well each stratum of ``columns`` is told by each part of the pictures, one row a picture.

    Of a column with two values one is asked about, the second. Pictures without such a part are left out.
    """
    names = groups.tolist()
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(set(names)))
    folds = [int(order[group]) % FOLDS for group in numbered(names).tolist()]
    found = []
    for place in PLACES:
        table = torch.tensor([list(row[place]) for row in features], dtype=torch.float64)
        known = ~table.isnan().any(1)
        if int(known.sum()) < 2 * FOLDS:
            continue
        kept = known.nonzero()[:, 0].tolist()
        # Pictures of one patient weigh as one: without that the fit would learn who it is.
        penalty = RIDGE * len(kept) / len({names[row] for row in kept})
        fit = cross_validated(table[known], [folds[row] for row in kept], penalty)
        for column, values in columns.items():
            every = sorted(set(values))
            for value in every[1:] if len(every) == 2 else every:
                labels = torch.tensor([values[row] == value for row in kept])
                found.append(_leak(column, value, place, fit, labels, groups[known], rng))
    adjusted = holm([leak.p_value or 1.0 for leak in found])
    return tuple(
        leak.model_copy(
            update={
                "p_adjusted": p,
                "tells": p < 0.05 and leak.auroc.low is not None and leak.auroc.low > 0.5,
            }
        )
        for leak, p in zip(found, adjusted, strict=True)
    )


def _leak(
    column: str,
    value: str,
    place: str,
    fit: CrossValidated,
    labels: Bool[Tensor, " n"],
    groups: Groups,
    rng: np.random.Generator,
) -> Leak:
    auroc = separation(fit.scores(labels.double()[:, None])[:, 0], labels, groups=groups)
    shuffled = torch.stack([_shuffled(labels, groups, rng) for _ in range(SHUFFLES)], 1)
    null = _areas(fit.scores(shuffled.double()), shuffled)
    above = int((null >= auroc.mean - 1e-12).sum())
    return Leak(
        column=column,
        value=value,
        place=place,
        auroc=auroc.spread(),
        null_high=float(null.nan_to_num(0.5).quantile(0.95)),
        p_value=(1 + above) / (1 + SHUFFLES),
    )


def _shuffled(labels: Bool[Tensor, " n"], groups: Groups, rng: np.random.Generator) -> Bool[Tensor, " n"]:
    """Give each group the labels of another, which are one where a stratum goes by groups (patients)."""
    members: dict[int, list[int]] = {}
    for row, group in enumerate(groups.tolist()):
        members.setdefault(group, []).append(row)
    every, found = list(members.values()), labels.clone()
    for here, giver in zip(every, rng.permutation(len(every)).tolist(), strict=True):
        there = every[giver]
        found[here] = labels[[there[place % len(there)] for place in range(len(here))]]
    return found


def _areas(scores: Float[Tensor, "n k"], labels: Bool[Tensor, "n k"]) -> Float[Tensor, " k"]:
    """Return the AUROC of each column by the ranks of its scores (Mann and Whitney 1947)."""
    ranks = torch.from_numpy(rankdata(scores.numpy(), axis=0))
    num = labels.sum(0).double()
    rest = len(labels) - num
    return ((ranks * labels).sum(0) - num * (num + 1) / 2) / (num * rest)

"""Scores of channels that were not tried, from those that were: a Gaussian process over the channels' masks.

Channels of a layer look alike, and so do their scores. Score-CAM therefore needs not try all: scores that are
known say what the others are, and how sure that is (Rasmussen and Williams 2006, Gaussian Processes for
Machine Learning, equations 2.25, 2.26, 2.41 and 2.42; in geostatistics universal kriging).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

Features = Float[Tensor, "k features"]
"""What is known of each channel before it is tried."""

LENGTHS = (0.3, 0.6, 1.0, 2.0, 4.0)
"""Lengths of the kernel that are compared, in medians of the distances between masks."""

NOISES = (1e-4, 1e-2, 1e-1)
"""Variances of what masks don't say, as shares of the kernel's own, that are compared."""

JITTER = 1e-8
"""Added to a diagonal, so that rounding leaves no negative variance."""


@dataclass(frozen=True)
class Guess:
    """The ``mean`` of each channel's score and their ``covariance``, which is 0 for those that were tried."""

    mean: Float[Tensor, " k"]
    covariance: Float[Tensor, "k k"]

    def draws(self, num: int, generator: torch.Generator) -> Float[Tensor, "n k"]:
        """Draw scores of all channels."""
        noise = torch.randn(num, len(self.mean), generator=generator, dtype=torch.float64)
        scale = self.covariance.diagonal().amax()
        if scale == 0:
            return self.mean.expand(num, -1)
        rounding = JITTER * torch.eye(len(self.mean), dtype=torch.float64)
        return (
            self.mean + noise @ (torch.linalg.cholesky(self.covariance / scale + rounding) * scale.sqrt()).T
        )


def distances(masks: Features) -> Float[Tensor, "k k"]:
    """Return how far masks are apart, in medians of all distances."""
    found = torch.cdist(masks.double(), masks.double())
    apart = found[found > 0]
    return found / apart.median() if len(apart) else found


def guess(
    apart: Float[Tensor, "k k"], trend: Features, tried: Int[Tensor, " n"], scores: Float[Tensor, " n"]
) -> Guess:
    """Return what the ``scores`` of the channels ``tried`` say of all.

    The mean is linear in ``trend``, deviations from it are alike where masks are: their covariance is
    ``exp(-apart^2 / 2 length^2)``. Length and noise are those under which the scores are most likely.
    """
    best, likeliest = None, -torch.inf
    for length in LENGTHS:
        kernel = (-0.5 * (apart / length) ** 2).exp()
        for noise in NOISES:
            fitted = _Fit(kernel, trend.double(), tried, scores.double(), noise)
            if fitted.likelihood > likeliest:
                best, likeliest = fitted, fitted.likelihood
    assert best is not None
    return best.guess()


class _Fit:
    """One length and noise: what is known, and how likely that is."""

    def __init__(
        self,
        kernel: Float[Tensor, "k k"],
        trend: Features,
        tried: Int[Tensor, " n"],
        scores: Float[Tensor, " n"],
        noise: float,
    ) -> None:
        num = len(tried)
        self.kernel, self.trend, self.tried, self.scores, self.noise = kernel, trend, tried, scores, noise
        own = kernel[tried][:, tried] + noise * torch.eye(num, dtype=torch.float64)
        self.root = torch.linalg.cholesky(own)
        known = trend[tried]
        self.precision = known.T @ self._solved(known)
        self.beta = torch.linalg.lstsq(self.precision, known.T @ self._solved(scores[:, None])).solution
        self.rest = scores[:, None] - known @ self.beta
        # What each score would be by the others alone, the trend's coefficients found anew (equation 5.12).
        inverse = self._solved(torch.eye(num, dtype=torch.float64))
        without = inverse - inverse @ known @ torch.linalg.pinv(self.precision) @ known.T @ inverse
        certain = without.diagonal().clamp(min=torch.finfo(torch.float64).tiny)
        missed = (without @ scores[:, None])[:, 0] / certain
        self.variance = float((missed**2 * certain).mean())
        tiny = torch.finfo(torch.float64).tiny
        spread = (self.variance / certain).clamp(min=tiny)
        self.likelihood = float(-0.5 * (spread.log() + missed**2 / spread).sum())

    def _solved(self, values: Tensor) -> Tensor:
        return torch.cholesky_solve(values, self.root)

    def guess(self) -> Guess:
        across = self.kernel[:, self.tried]
        mean = (self.trend @ self.beta + across @ self._solved(self.rest))[:, 0]
        mean[self.tried] = self.scores
        covariance = self.kernel - across @ self._solved(across.T)
        covariance = covariance + self.noise * torch.eye(len(mean), dtype=torch.float64)
        unknown = self.trend - across @ self._solved(self.trend[self.tried])
        covariance = covariance + unknown @ torch.linalg.pinv(self.precision) @ unknown.T
        untried = torch.ones(len(mean), dtype=torch.float64)
        untried[self.tried] = 0.0
        return Guess(mean, self.variance * covariance * untried[:, None] * untried)


def next_to_try(guesses: Sequence[Guess], norms: Float[Tensor, " k"], num: int) -> Int[Tensor, " n"]:
    """Return the ``num`` channels that leave the least unknown of the map, chosen one after the other.

    What a channel adds to the map is uncertain by its standard deviation times its norm. Each choice takes
    with it what it says of the others (a pivoted Cholesky decomposition).
    """
    weighted = [norms.double()[:, None] * each.covariance * norms.double() for each in guesses]
    left = [each / each.diagonal().sum().clamp(min=torch.finfo(torch.float64).tiny) for each in weighted]
    chosen: list[int] = []
    for _ in range(num):
        unsure = torch.stack([each.diagonal() for each in left]).sum(0)
        unsure[chosen] = -torch.inf
        best = int(unsure.argmax())
        chosen.append(best)
        left = [
            each - each[:, best : best + 1] * each[best] / each[best, best].clamp(min=JITTER) for each in left
        ]
    return torch.tensor(chosen)

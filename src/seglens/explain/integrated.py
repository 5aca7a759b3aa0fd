"""Integrated Gradients (Sundararajan, Taly and Yan 2017): attribution to the pixels of the input.

The score is the mean logit over the target's pixels. Baselines are pictures in raw pixel space, before
normalisation, so that ``zero`` is black. Quadrature is Gauss-Legendre: exact for polynomials, and no worse
than others on the kinks of ReLU networks (50 steps on a U-Net: 2.3 % error of completeness, midpoint 2.9 %;
the weights of a trapezoid that sum to (n-1)/n are wrong even on a linear function).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot
from torchvision.transforms.functional import gaussian_blur

from seglens.errors import SettingError
from seglens.explain.explanation import Explanation
from seglens.explain.target import Target
from seglens.explain.trace import differentiate, in_chunks, left_as_found
from seglens.models.segmenter import Segmenter
from seglens.seeds import content_uniform
from seglens.shapes import ChannelMaps, Images, PerImage, Rows, Scores

SMALL = 0.01
"""A difference of two scores below this share of their sizes makes a relative error meaningless."""

Baseline = Literal["zero", "random", "blur", "mean"]

Baselines = Float[Tensor, "b draws c h w"]


@dataclass(frozen=True)
class IntegratedGradients:
    """Settings of Integrated Gradients.

    ``baseline`` is ``zero`` (black), ``random`` (uniform noise, the mean over ``draws`` of them, keyed by
    seed and picture), ``blur`` (the picture blurred with a standard deviation of ``blur`` of its shorter
    side) or ``mean`` (each picture's own mean colour). ``steps`` are doubled for the pictures whose error of
    completeness is above ``tolerance``, up to ``max_steps``; without a tolerance they stay. ``label`` is what
    the results are called by; empty, it is made so that different settings get different labels.
    """

    name: ClassVar[str] = "integrated-gradients"

    baseline: Baseline = "zero"
    steps: int = 32
    tolerance: float | None = None
    max_steps: int = 256
    draws: int = 3
    blur: float = 0.05
    label: str = ""

    def __post_init__(self) -> None:
        if self.baseline not in BASELINES:
            raise SettingError(f"Baseline {self.baseline!r} is unknown. Allowed: {', '.join(BASELINES)}.")
        if self.steps < 1 or self.max_steps < self.steps:
            raise SettingError(
                f"steps is {self.steps} and max_steps {self.max_steps}: at least 1, and steps at most "
                "max_steps."
            )
        if self.draws < 1:
            raise SettingError(f"draws is {self.draws}, but at least 1 random baseline is needed.")
        if not 0 < self.blur <= 0.3:
            raise SettingError(
                f"blur is {self.blur}, but must be above 0 and at most 0.3 of the shorter side."
            )
        if self.tolerance is not None and self.tolerance <= 0:
            raise SettingError(
                f"tolerance is {self.tolerance}, but must be above 0, or None for a fixed number of steps."
            )


def integrated_gradients(
    segmenter: Segmenter,
    images: Images,
    targets: Sequence[Target],
    settings: IntegratedGradients,
    *,
    seed: int = 0,
    chunk: int = 16,
) -> list[Explanation]:
    """Attribute each target's mean logit to the pixels: ``(x - x0) * mean_t dS/dx(x0 + t (x - x0))``.

    ``map`` is signed and sums over the picture to S(x) - S(x0); it is itself the sum of ``channels``, the
    parts of the input's channels. Only the input requires grad, and at most ``chunk`` pictures are in the
    model at once (half as many when memory runs out). Diagnostics, one number per picture:

    - ``completeness_error``: ``|sum of map - (S(x) - S(x0))| / |S(x) - S(x0)|``
    - ``small_denominator``: 1 where S(x) - S(x0) is so small (`SMALL`) that this error tells nothing
    - ``steps`` used, and with a tolerance ``converged``: 1 where it was met, 0 where ``max_steps`` came first
    - ``spread`` (random baselines): standard deviation over the draws as a share of the mean magnitude
    """
    return [_of_target(segmenter, images.detach(), target, settings, seed, chunk) for target in targets]


def _of_target(
    segmenter: Segmenter, images: Images, target: Target, settings: IntegratedGradients, seed: int, chunk: int
) -> Explanation:
    usable = (~target.empty()).nonzero()[:, 0].to(images.device)
    channels = torch.full_like(images, torch.nan, dtype=torch.float32)
    diagnostics: dict[str, PerImage] = {}
    if len(usable):
        with left_as_found(segmenter, images):
            frozen = target.select(usable)
            attributions, found = _converged(segmenter, images[usable], frozen, settings, seed, chunk)
        channels[usable] = attributions
        for name, values in found.items():
            diagnostics[name] = torch.full((len(images),), torch.nan, device=images.device)
            diagnostics[name][usable] = values.float()
    return Explanation(
        method=settings.label or settings.name,
        layer=None,
        target=target,
        map=channels.sum(1),
        channels=channels,
        settings=asdict(settings) | {"unit": "mean", "quadrature": "gauss-legendre", "seed": seed},
        diagnostics=diagnostics,
    )


def _converged(
    segmenter: Segmenter, images: Images, target: Target, settings: IntegratedGradients, seed: int, chunk: int
) -> tuple[ChannelMaps, dict[str, PerImage]]:
    """Integrate, with more steps where a picture is not good enough; return attributions and diagnostics."""
    baselines = BASELINES[settings.baseline](images, settings, seed)
    draws = baselines.shape[1]
    starts = baselines.flatten(0, 1)
    ends = images.repeat_interleave(draws, 0)
    owner = torch.arange(len(images), device=images.device).repeat_interleave(draws)
    everyone = torch.arange(len(images), device=images.device)
    reached = _scores(segmenter, images, target, everyone, chunk)
    left = _scores(segmenter, starts, target, owner, chunk).view(-1, draws).mean(1)
    gained = reached - left

    found = torch.zeros_like(ends, dtype=torch.float32)
    used = torch.zeros_like(gained)
    steps, unfinished = settings.steps, everyone
    while len(unfinished):
        paths = torch.isin(owner, unfinished).nonzero()[:, 0]
        slopes = _mean_gradient(segmenter, starts[paths], ends[paths], target, owner[paths], steps, chunk)
        found[paths] = (ends[paths] - starts[paths]) * slopes
        used[unfinished] = steps
        total = found.view(len(images), draws, -1).mean(1).sum(1)
        error = (total - gained).abs() / gained.abs()
        steps *= 2
        if settings.tolerance is None or steps > settings.max_steps:
            break
        unfinished = everyone[error > settings.tolerance]

    each = found.unflatten(0, (-1, draws))
    channels = each.mean(1)
    small = gained.abs() < SMALL * (reached.abs() + left.abs())
    diagnostics = {"completeness_error": error, "small_denominator": small, "steps": used}
    if settings.tolerance is not None:
        diagnostics["converged"] = error <= settings.tolerance
    if draws > 1:
        maps = each.sum(2).flatten(2)
        diagnostics["spread"] = maps.std(1).mean(1) / maps.mean(1).abs().mean(1)
    return channels, diagnostics


def _mean_gradient(
    segmenter: Segmenter,
    starts: Float[Tensor, "p c h w"],
    ends: Float[Tensor, "p c h w"],
    target: Target,
    owner: Int[Tensor, " p"],
    steps: int,
    chunk: int,
) -> Float[Tensor, "p c h w"]:
    """Average dS/dx along straight paths; path i belongs to picture ``owner[i]``. Summed in float32.

    Points of several paths share a batch, so that the last one of a path is not a small one.
    """
    position, weight = _gauss_legendre(steps, ends.device)
    mean = torch.zeros_like(ends, dtype=torch.float32)

    def work(rows: slice) -> None:
        index = torch.arange(rows.start, rows.stop, device=ends.device)
        path, step = index // steps, index % steps
        along = torch.lerp(starts[path], ends[path], position[step].to(ends.dtype).view(-1, 1, 1, 1))
        inputs = along.to(segmenter.mean.dtype).requires_grad_()
        score = target.score(segmenter(inputs), owner[path], "mean")
        slope = differentiate(score, {"the input": inputs}, target)["the input"].float()
        first, last = rows.start // steps, (rows.stop - 1) // steps
        share = one_hot(path - first, last - first + 1) * weight[step, None]
        mean[first : last + 1] += torch.tensordot(share, slope, dims=([0], [0]))

    in_chunks(len(ends) * steps, chunk, work)
    return mean


@torch.no_grad()
def _scores(
    segmenter: Segmenter,
    pictures: Float[Tensor, "n c h w"],
    target: Target,
    owner: Rows,
    chunk: int,
) -> Scores:
    """The target's mean logit on each picture."""
    scores = torch.zeros(len(pictures), device=pictures.device)

    def work(rows: slice) -> None:
        logits = segmenter(pictures[rows].to(segmenter.mean.dtype))
        scores[rows] = target.score(logits, owner[rows], "mean").float()

    in_chunks(len(pictures), chunk, work)
    return scores


def _gauss_legendre(steps: int, device: torch.device) -> tuple[Scores, Scores]:
    """Points in (0, 1) and weights that sum to 1."""
    points, weights = np.polynomial.legendre.leggauss(steps)
    both = torch.from_numpy(np.stack([(points + 1) / 2, weights / 2])).to(device, torch.float32)
    return both[0], both[1]


def zero(images: Images, settings: IntegratedGradients, seed: int) -> Baselines:
    """Black."""
    return torch.zeros_like(images)[:, None]


def random(images: Images, settings: IntegratedGradients, seed: int) -> Baselines:
    """Uniform noise in [0, 1], several draws, keyed by seed and picture."""
    shape = (settings.draws, *images.shape[1:])
    return content_uniform(images, shape, seed, "baseline").to(images.dtype)


def blur(images: Images, settings: IntegratedGradients, seed: int) -> Baselines:
    """The picture without its detail: a Gaussian of ``settings.blur`` of the shorter side."""
    shorter = min(images.shape[-2:])
    sigma = settings.blur * shorter
    radius = min(math.ceil(3 * sigma), shorter - 1)
    return gaussian_blur(images, [2 * radius + 1] * 2, [sigma] * 2)[:, None]


def mean(images: Images, settings: IntegratedGradients, seed: int) -> Baselines:
    """Each picture's own mean colour."""
    return images.mean((2, 3), keepdim=True).expand_as(images)[:, None]


BASELINES: dict[str, Callable[[Images, IntegratedGradients, int], Baselines]] = {
    "zero": zero,
    "random": random,
    "blur": blur,
    "mean": mean,
}
"""Pictures that stand for "nothing", in raw pixel space. To add one: one function, one line."""

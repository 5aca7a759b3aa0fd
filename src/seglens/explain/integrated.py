"""Integrated Gradients (Sundararajan, Taly and Yan 2017): attribution to the pixels of the input.

The score is the mean logit over the target's pixels. Baselines are pictures in raw pixel space, before
normalisation, so that ``zero`` is black.

Along the path the gradient of a network of ReLUs is a step function, whose error by any rule is about its
variation in each gap times the gap's width: no order of a rule helps, but where its points lie does. Most of
the variation is where the contrast changes fastest in proportion: near a baseline that has none, and near the
picture on the way from noise. On a U-Net with an EfficientNet encoder, trained on pets, 32 to 61 % are in
the first sixteenth of the way from black or from a blur. Hence `log_midpoint`: 34 steps of it are as like a
map of 512 steps (r = .998) as 50 of Gauss and Legendre.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from math import inf
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from seglens.arguments import check_fields, check_range
from seglens.arguments.inputs import check_values, sha256_of
from seglens.axes import widened
from seglens.errors import SettingError
from seglens.explain.baselines import BASELINES, NOISY, Baselines
from seglens.explain.explanation import Explanation
from seglens.explain.gradients import Points, averages, scores_of
from seglens.explain.target import Target
from seglens.explain.trace import left_as_found
from seglens.models.folding import quick
from seglens.models.segmenter import Segmenter
from seglens.shapes import ChannelMaps, Images, PerImage, Rows

SMALL = 0.01
"""A difference of two scores below this share of their sizes makes a relative error meaningless."""

KNEE = 0.05
"""Share of the path from which on points lie evenly in the logarithm; below it they lie evenly."""

Steps = Float[Tensor, " steps"]

Quadrature = Literal["log-midpoint", "gauss-legendre"]

Found = tuple[Float[Tensor, "usable c *size"], dict[str, Float[Tensor, " usable"]]]
"""Attributions and diagnostics of the pictures that have a target."""


@dataclass(frozen=True)
class IntegratedGradients:
    """Settings of Integrated Gradients.

    ``baseline`` is ``zero`` (black), ``random`` (uniform noise, the mean over ``draws`` of them, keyed by
    seed and picture), ``blur`` (the picture blurred with a standard deviation of ``blur`` of its shorter
    side) or ``mean`` (each picture's own mean colour). ``steps`` are doubled for the pictures whose error of
    completeness is above ``tolerance``, up to ``max_steps``; without a tolerance they stay. ``quadrature`` is
    where the steps lie; ``gauss-legendre`` is what other libraries use, and exact for polynomials.
    A ``baseline`` may also be a picture of one's own, raw as others are: [c h w] for all, or [b c h w], one
    for each. It is kept in ``picture``, and ``baseline`` becomes its hash, which is what records tell.
    ``label`` is what the results are called by; empty, it is made so that different settings get different
    labels.
    """

    name: ClassVar[str] = "integrated-gradients"

    baseline: str | Tensor = "zero"
    steps: int = 32
    tolerance: float | None = None
    max_steps: int = 256
    draws: int = 3
    blur: float = 0.05
    quadrature: Quadrature = "log-midpoint"
    label: str = ""
    picture: Tensor | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_fields(self)
        if isinstance(self.baseline, Tensor):
            object.__setattr__(self, "picture", _own_baseline(self.baseline))
            object.__setattr__(self, "baseline", sha256_of(self.baseline))
        elif self.baseline not in BASELINES and self.picture is None:
            near = get_close_matches(str(self.baseline), BASELINES, n=1, cutoff=0.4)
            meant = f" Did you mean {near[0]!r}?" if near else ""
            raise SettingError(
                f"Baseline {self.baseline!r} is unknown.{meant} Allowed: {', '.join(BASELINES)}, and a "
                "tensor of pictures in [0, 1], [c h w] or [b c h w]."
            )
        if self.quadrature not in QUADRATURES:
            raise SettingError(
                f"Quadrature {self.quadrature!r} is unknown. Allowed: {', '.join(QUADRATURES)}."
            )
        if self.steps < 1 or self.max_steps < self.steps:
            raise SettingError(
                f"steps is {self.steps} and max_steps {self.max_steps}: at least 1, and steps at most "
                "max_steps."
            )
        check_range("max_steps", self.max_steps, 1, 10**5)
        if self.draws < 1:
            raise SettingError(f"draws is {self.draws}, but at least 1 random baseline is needed.")
        check_range("draws", self.draws, 1, 1000)
        if not 0 < self.blur <= 0.3:
            raise SettingError(
                f"blur is {self.blur}, but must be above 0 and at most 0.3 of the shorter side."
            )
        if self.tolerance is not None and not 0 < self.tolerance < inf:
            raise SettingError(
                f"tolerance is {self.tolerance}, but must be finite and above 0, or None for a fixed "
                "number of steps."
            )

    @property
    def one_for_each(self) -> bool:
        """Whether the baseline is a picture for each picture."""
        return self.picture is not None and len(self.picture) > 1


def integrated_gradients(
    segmenter: Segmenter,
    images: Images,
    targets: Sequence[Target],
    settings: IntegratedGradients,
    *,
    seed: int = 0,
    batch_size: int = 16,
) -> list[Explanation]:
    """Attribute each target's mean logit to the pixels: ``(x - x0) * mean_t dS/dx(x0 + t (x - x0))``.

    ``map`` is signed and sums over the picture to S(x) - S(x0); it is itself the sum of ``channels``, the
    parts of the input's channels. Only the input requires grad, and at most ``batch_size`` pictures are in
    the model at once (half as many when memory runs out). Diagnostics, one number per picture:

    - ``completeness_error``: ``|sum of map - (S(x) - S(x0))| / |S(x) - S(x0)|``
    - ``small_denominator``: 1 where S(x) - S(x0) is so small (`SMALL`) that this error tells nothing
    - ``steps`` used, and with a tolerance ``converged``: 1 where it was met, 0 where ``max_steps`` came first
    - ``spread`` (random baselines): standard deviation over the draws as a share of the mean magnitude
    """
    images = images.detach()
    usable = torch.stack([~target.empty() for target in targets]).any(0).nonzero()[:, 0].to(images.device)
    found: list[Found] = []
    if len(usable):
        chosen = [target.select(usable) for target in targets]
        with left_as_found(segmenter, images):
            starts = _baselines(images, settings, seed, segmenter.spec.spacing)[usable]
            found = _converged(quick(segmenter), images[usable], starts, chosen, settings, seed, batch_size)
    return [
        _explanation(target, settings, seed, *_spread_out(found[i] if found else None, usable, images))
        for i, target in enumerate(targets)
    ]


def _own_baseline(given: Tensor) -> Tensor:
    if given.ndim not in (3, 4, 5) or not given.is_floating_point():
        raise SettingError(
            f"The baseline is a tensor of {given.dtype} and shape {tuple(given.shape)}. Allowed are "
            "floating-point pictures in [0, 1]: [c h w] for all of them or [b c h w]. Volumes have one axis "
            "more."
        )
    own = check_values(given.detach(), "The baseline")
    return own if own.ndim > 3 else own[None]


def _baselines(
    images: Images, settings: IntegratedGradients, seed: int, spacing: Sequence[float]
) -> Baselines:
    """Where each picture's paths begin."""
    own = settings.picture
    if own is None:
        return BASELINES[str(settings.baseline)](images, seed, settings.draws, settings.blur, spacing)
    own = own if own.ndim == images.ndim else own[None]  # one volume for all: only here it is told
    if own.shape[1:] != images.shape[1:] or len(own) not in (1, len(images)):
        raise SettingError(
            f"The baseline has shape {tuple(own.shape)}, but the pictures have {tuple(images.shape)}. Give "
            "one of their size for all, [c h w], or one for each, [b c h w]."
        )
    return own.to(images).expand_as(images)[:, None]


def _spread_out(
    found: Found | None, usable: Int[Tensor, " usable"], images: Images
) -> tuple[ChannelMaps, dict[str, PerImage]]:
    """Put what was found of the usable pictures in its place among all; NaN stands elsewhere."""
    channels = torch.full_like(images, torch.nan, dtype=torch.float32)
    diagnostics: dict[str, PerImage] = {}
    if found is not None:
        channels[usable] = found[0]
        for name, values in found[1].items():
            diagnostics[name] = torch.full((len(images),), torch.nan, device=images.device)
            diagnostics[name][usable] = values.float()
    return channels, diagnostics


def _explanation(
    target: Target,
    settings: IntegratedGradients,
    seed: int,
    channels: ChannelMaps,
    diagnostics: dict[str, PerImage],
) -> Explanation:
    return Explanation(
        method=settings.label or settings.name,
        layer=None,
        target=target,
        map=channels.sum(1),
        channels=channels,
        settings=asdict(settings) | {"unit": "mean", "seed": seed},
        diagnostics=diagnostics,
    )


def _converged(
    segmenter: Segmenter,
    images: Images,
    baselines: Baselines,
    targets: Sequence[Target],
    settings: IntegratedGradients,
    seed: int,
    batch_size: int,
) -> list[Found]:
    """Integrate, with more steps where a picture is not good enough; return attributions and diagnostics."""
    draws = baselines.shape[1]
    starts = baselines.flatten(0, 1)
    ends = images.repeat_interleave(draws, 0)
    everyone = torch.arange(len(images), device=images.device)
    owner = everyone.repeat_interleave(draws)
    reached = scores_of(segmenter, images, targets, everyone, batch_size=batch_size)
    left = (
        scores_of(segmenter, starts, targets, owner, batch_size=batch_size).unflatten(1, (-1, draws)).mean(2)
    )

    found = torch.zeros(len(targets), *ends.shape, device=ends.device)
    used = torch.zeros_like(reached)
    rule = QUADRATURES[settings.quadrature]
    steps, unfinished = settings.steps, torch.ones_like(reached, dtype=torch.bool)
    while unfinished.any():
        paths = unfinished.any(0)[owner].nonzero()[:, 0]
        positions, weights = rule(steps)
        if settings.baseline in NOISY:
            positions, weights = 1 - positions.flip(0), weights.flip(0)
        fresh = _along(
            segmenter, targets, starts[paths], ends[paths], owner[paths], positions, weights, batch_size
        )
        wanted = unfinished[:, owner[paths]]
        found[:, paths] = torch.where(widened(wanted, fresh), fresh, found[:, paths])
        used[unfinished] = steps
        total = found.unflatten(1, (-1, draws)).mean(2).flatten(2).sum(2)
        about = completeness(total, reached, left)
        steps *= 2
        if settings.tolerance is None or steps > settings.max_steps:
            break
        unfinished &= about["completeness_error"] > settings.tolerance

    about["steps"] = used
    if settings.tolerance is not None:
        about["converged"] = about["completeness_error"] <= settings.tolerance
    each = found.unflatten(1, (-1, draws))
    if draws > 1:
        maps = each.sum(3).flatten(3)
        about["spread"] = maps.std(2).mean(2) / maps.mean(2).abs().mean(2)
    return [
        (each[i].mean(1), {name: values[i] for name, values in about.items()}) for i in range(len(targets))
    ]


def completeness(
    total: Float[Tensor, "*b"], reached: Float[Tensor, "*b"], left: Float[Tensor, "*b"]
) -> dict[str, Tensor]:
    """Return the relative error of the sum of a map, and whether the difference of scores is too small."""
    gained = reached - left
    return {
        "completeness_error": (total - gained).abs() / gained.abs(),
        "small_denominator": gained.abs() < SMALL * (reached.abs() + left.abs()),
    }


def _along(
    segmenter: Segmenter,
    targets: Sequence[Target],
    starts: Float[Tensor, "p c *size"],
    ends: Float[Tensor, "p c *size"],
    owner: Int[Tensor, " p"],
    positions: Steps,
    weights: Steps,
    batch_size: int,
) -> Float[Tensor, "targets p c *size"]:
    """Integrate along straight paths; path i belongs to picture ``owner[i]``."""
    positions, weights = positions.to(ends.device), weights.to(ends.device)

    def point(path: Rows, step: Rows) -> Points:
        return torch.lerp(starts[path], ends[path], widened(positions[step].to(ends.dtype), ends))

    def values(path: Rows, step: Rows, slope: Points) -> tuple[Points, ...]:
        return (slope,)

    (slopes,) = averages(
        segmenter, targets, owner, weights.expand(len(ends), -1), point, values, batch_size=batch_size
    )
    return ((ends - starts) * slopes).float()  # pictures may be in float64


def log_midpoint(steps: int) -> tuple[Steps, Steps]:
    """The middle of each of ``steps`` parts of the path that are even in ``log(t + KNEE)``, and their widths.

    From a baseline without contrast a point's contrast grows as t, and a ReLU network's kinks are about as
    many at each doubling of it. The knee bounds the first parts, since the network's own biases set a scale.
    From `NOISY` baselines on, where contrast falls, they are mirrored: the narrow parts are at the picture.
    """
    even = np.linspace(0, 1, steps + 1)
    edges = KNEE * ((1 + 1 / KNEE) ** even - 1)
    return _as_steps((edges[1:] + edges[:-1]) / 2, np.diff(edges))


def gauss_legendre(steps: int) -> tuple[Steps, Steps]:
    """Return points and weights that are exact for polynomials of degree ``2 steps - 1``."""
    points, weights = np.polynomial.legendre.leggauss(steps)
    return _as_steps((points + 1) / 2, weights / 2)


def _as_steps(points: np.ndarray, weights: np.ndarray) -> tuple[Steps, Steps]:
    return torch.from_numpy(points).float(), torch.from_numpy(weights).float()


QUADRATURES: dict[str, Callable[[int], tuple[Steps, Steps]]] = {
    "log-midpoint": log_midpoint,
    "gauss-legendre": gauss_legendre,
}
"""Points in (0, 1) and weights that sum to 1, by the number of steps. To add one: one function, one line."""

"""Gradients averaged over random points: near the picture (SmoothGrad), or between it and other pictures.

The score is the mean logit over the target's pixels. What is random is keyed by seed, picture and number of
the sample, so that batch size and order change nothing.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import ClassVar, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seglens.arguments import check_fields, check_range
from seglens.arguments.inputs import sha256_of
from seglens.arguments.renamed import renamed
from seglens.axes import LENGTHS, widened
from seglens.errors import SettingError
from seglens.explain.explanation import Explanation
from seglens.explain.gradients import Point, Points, Values, averages, scores_of
from seglens.explain.integrated import completeness
from seglens.explain.target import Target
from seglens.explain.trace import in_chunks, left_as_found
from seglens.models.folding import quick
from seglens.models.segmenter import Segmenter
from seglens.seeds import content_generator
from seglens.shapes import ChannelMaps, Images, Maps, PerImage, Rows

TINY = 1e-30
"""Keeps 0 / 0 at 0: where the gradient is zero at every point."""


@renamed(samples="num_samples")
@dataclass(frozen=True)
class SmoothGrad:
    """Settings of SmoothGrad: ``noise`` is its standard deviation as a share of the picture's own range.

    ``squared`` averages the gradient's square instead (Hooker et al. 2019), where signs cancel no more.
    ``label`` is what the results are called by.
    """

    name: ClassVar[str] = "smoothgrad"

    noise: float = 0.15
    num_samples: int = 32
    squared: bool = False
    label: str = ""

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 < self.noise <= 1:
            raise SettingError(
                f"noise is {self.noise}, but must be above 0 and at most 1 (of the picture's range)."
            )
        _check_samples(self.num_samples)


@renamed(samples="num_samples")
@dataclass(frozen=True)
class ExpectedGradients:
    """Settings of Expected Gradients: ``references`` [r, c, h, w] are pictures that it starts from.

    They have the size of the pictures that are explained, and 20 to 100 of the training set do.
    ``num_samples`` is the number of points for each picture; as many as there are references or a multiple of
    it uses each equally often. The references are no part of what is written down: ``references_sha256`` and
    ``num_references`` are. ``label`` is what the results are called by.
    """

    name: ClassVar[str] = "expected-gradients"

    references: Float[Tensor, "r c *size"] | None = field(default=None, compare=False, repr=False)
    num_samples: int = 64
    label: str = ""
    references_sha256: str = field(default="", init=False)
    num_references: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        check_fields(self)
        _check_samples(self.num_samples)
        if self.references is None:
            return
        if not len(self.references) or not self.references.isfinite().all():
            raise SettingError(
                f"The references of expected-gradients, of shape {tuple(self.references.shape)}, hold no "
                "picture, or values that are not finite. Give pictures in [0, 1], such as those the model "
                "was trained on."
            )
        object.__setattr__(self, "references_sha256", sha256_of(self.references))
        object.__setattr__(self, "num_references", len(self.references))


def _check_samples(num_samples: int) -> None:
    if num_samples < 2:
        raise SettingError(
            f"num_samples is {num_samples}, but at least 2 are needed to tell how sure the mean is."
        )
    check_range("num_samples", num_samples, 2, 10**5)


def smoothgrad(
    segmenter: Segmenter,
    images: Images,
    targets: Sequence[Target],
    settings: SmoothGrad,
    *,
    seed: int = 0,
    batch_size: int = 16,
) -> list[Explanation]:
    """Average dS/dx over noisy copies of the picture: ``1/n sum_i dS/dx(x + N(0, s^2))``.

    Smilkov et al. 2017, section 2, with ``s = noise * (max x - min x)`` of the picture over all channels. As
    in `saliency` the map is the largest magnitude among the channels; the mean keeps signs until then, as in
    the paper's formula. Copies are not clipped to [0, 1]. Diagnostic: ``standard_error`` of the mean over
    the samples, averaged over the picture, as a share of the mean's magnitude.
    """
    images = images.detach()
    spread = settings.noise * (images.flatten(1).amax(1) - images.flatten(1).amin(1))

    def point(path: Rows, step: Rows) -> Points:
        noise = [
            torch.randn(image.shape, generator=content_generator(image, seed, f"smoothgrad {number}"))
            for image, number in zip(images[path], step.tolist(), strict=True)
        ]
        return images[path] + widened(spread[path], images) * torch.stack(noise).to(images)

    def values(path: Rows, step: Rows, slope: Points) -> tuple[Points, ...]:
        value = slope.square() if settings.squared else slope
        return value, value.square()

    means, errors = _sampled(segmenter, images, targets, settings.num_samples, point, values, batch_size)
    recorded = asdict(settings) | {"seed": seed}
    return [
        _explanation(settings, target, None, mean.abs().amax(1), recorded, {"standard_error": error})
        for target, mean, error in zip(targets, means, errors, strict=True)
    ]


def expected_gradients(
    segmenter: Segmenter,
    images: Images,
    targets: Sequence[Target],
    settings: ExpectedGradients,
    *,
    seed: int = 0,
    batch_size: int = 16,
) -> list[Explanation]:
    """Integrated Gradients from other pictures, averaged: ``E[(x - x') dS/dx(x' + a (x - x'))]``.

    Erion et al. 2021, equation 3, with x' drawn from the references and a uniform in (0, 1). Two deviations
    lower the variance and leave the expectation as it is: the positions are stratified (one is drawn in each
    of n equal parts of the path), and the references are dealt, each as often as the others as far as
    ``num_samples`` allow, in an order that is drawn. ``map`` is the sum of ``channels`` and sums to
    S(x) - mean S(x') up to chance. Diagnostics:

    - ``completeness_error``: how far it is from that, as a share of that (over all references)
    - ``small_denominator``: 1 where that is so small that the error tells nothing
    - ``standard_error`` of ``channels`` over the samples, averaged over the picture, as a share of their mean
      magnitude; it takes the samples for independent, and so is rather too large

    Raises:
        SettingError: there are no references, or they are of another size than the pictures.
    """
    images = images.detach()
    references = _fitting(settings, images)
    count = settings.num_samples
    drawn = [_dealt(image, len(references), count, seed) for image in images]
    which = torch.stack([entry[0] for entry in drawn]).to(images.device)
    position = torch.stack([entry[1] for entry in drawn]).to(images)

    def point(path: Rows, step: Rows) -> Points:
        start = references[which[path, step]]
        return torch.lerp(start, images[path], widened(position[path, step], images))

    def values(path: Rows, step: Rows, slope: Points) -> tuple[Points, ...]:
        value = (images[path] - references[which[path, step]]).float() * slope
        return value, value.square()

    means, errors = _sampled(segmenter, images, targets, count, point, values, batch_size)
    names = ("num_samples", "label", "references_sha256", "num_references")
    recorded = {name: getattr(settings, name) for name in names} | {"seed": seed}
    with left_as_found(segmenter, images):
        everyone = torch.arange(len(images), device=images.device)
        reached = scores_of(segmenter, images, targets, everyone, batch_size=batch_size)
        left = _mean_scores(segmenter, references, targets, len(images), batch_size)
    return [
        _explanation(
            settings,
            target,
            mean,
            mean.sum(1),
            recorded,
            {**completeness(mean.flatten(1).sum(1), to, start), "standard_error": error},
        )
        for target, mean, error, to, start in zip(targets, means, errors, reached, left, strict=True)
    ]


def _fitting(settings: ExpectedGradients, images: Images) -> Float[Tensor, "r c *size"]:
    """Return the references, on the device of ``images``."""
    if settings.references is None:
        raise SettingError(
            "expected-gradients compares with other pictures and was given none. Give some of those that the "
            "model was trained on: ExpectedGradients(references=images), of the size of the pictures."
        )
    if settings.references.shape[1:] != images.shape[1:]:
        raise SettingError(
            f"The references of expected-gradients have shape {tuple(settings.references.shape[1:])}, the "
            f"pictures {tuple(images.shape[1:])} (channels, {LENGTHS[images.ndim - 2]}). Read them with "
            "the same size."
        )
    return settings.references.detach().to(images)


def _dealt(
    image: Float[Tensor, "c *size"], num: int, count: int, seed: int
) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
    """Return which of ``num`` references each of ``count`` points starts from, and its place on the path."""
    generator = content_generator(image, seed, "expected-gradients")
    rounds = [torch.randperm(num, generator=generator) for _ in range(-(-count // num))]
    return torch.cat(rounds)[:count], (torch.arange(count) + torch.rand(count, generator=generator)) / count


@torch.no_grad()
def _mean_scores(
    segmenter: Segmenter,
    references: Float[Tensor, "r c *size"],
    targets: Sequence[Target],
    num: int,
    batch_size: int,
) -> Float[Tensor, "targets b"]:
    """Return the references' mean score on the frozen pixels of each of ``num`` pictures, in one pass."""
    total = torch.zeros(len(targets), num, device=references.device)

    def work(part: slice) -> None:
        logits = segmenter(references[part].to(segmenter.mean.dtype))
        rows = torch.arange(num, device=logits.device)[:, None].expand(-1, len(logits))
        found = [torch.stack([target.score(logits, row, "mean").sum() for row in rows]) for target in targets]
        total.add_(torch.stack(found))

    in_chunks(len(references), batch_size, work)
    return total / len(references)


def _sampled(
    segmenter: Segmenter,
    images: Images,
    targets: Sequence[Target],
    num_samples: int,
    point: Point,
    values: Values,
    batch_size: int,
) -> tuple[Float[Tensor, "targets b c *size"], Float[Tensor, "targets b"]]:
    """Return the mean over the samples, and its standard error as a share of its mean magnitude.

    Pictures where no target has a pixel are left out: their mean is 0.
    """
    usable = torch.stack([~target.empty() for target in targets]).any(0).nonzero()[:, 0].to(images.device)
    means = torch.zeros(len(targets), *images.shape, device=images.device)
    errors = torch.zeros(len(targets), len(images), device=images.device)
    if not len(usable):
        return means, errors
    weights = torch.full((len(usable), num_samples), 1 / num_samples, device=images.device)
    with left_as_found(segmenter, images):
        mean, square = averages(
            quick(segmenter),
            targets,
            usable,
            weights,
            lambda path, step: point(usable[path], step),
            lambda path, step, slope: values(usable[path], step, slope),
            batch_size=batch_size,
        )
    error = ((square - mean.square()).clamp(min=0) / (num_samples - 1)).sqrt()
    means[:, usable] = mean
    errors[:, usable] = error.flatten(2).mean(2) / mean.flatten(2).abs().mean(2).clamp(min=TINY)
    return means, errors


def _explanation(
    settings: SmoothGrad | ExpectedGradients,
    target: Target,
    channels: ChannelMaps | None,
    maps: Maps,
    recorded: dict[str, object],
    diagnostics: dict[str, PerImage],
) -> Explanation:
    return Explanation(
        method=settings.label or settings.name,
        layer=None,
        target=target,
        map=maps,
        channels=channels,
        settings=recorded | {"unit": "mean"},
        diagnostics=diagnostics,
    )


M = TypeVar("M")

REFERENCES = 32
"""Reference pictures that are taken from a data set: half of the samples, so that each is used twice."""


def needs_references(methods: Sequence[object]) -> bool:
    """Whether one of ``methods`` (names or settings) is Expected Gradients without references."""
    return any(_lacks_references(method) for method in methods)


def with_references(
    methods: Sequence[M], references: Float[Tensor, "r c *size"]
) -> list[M | ExpectedGradients]:
    """Return ``methods``, Expected Gradients among them with ``references`` where it has none of its own."""
    return [_referred(method, references) if _lacks_references(method) else method for method in methods]


def chosen_references(total: int, seed: int = 0) -> list[int]:
    """Return the numbers of `REFERENCES` of ``total`` pictures, drawn by ``seed``; all, if fewer."""
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    return sorted(order[:REFERENCES].tolist())


def _lacks_references(method: object) -> bool:
    return method == ExpectedGradients.name or (
        isinstance(method, ExpectedGradients) and method.references is None
    )


def _referred(method: object, references: Float[Tensor, "r c *size"]) -> ExpectedGradients:
    settings = method if isinstance(method, ExpectedGradients) else ExpectedGradients()
    return replace(settings, references=references)

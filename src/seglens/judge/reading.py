"""The two scores of a changed picture: that of the frozen region, and how much of the answer is left."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from seglens.explain.masked import Perturb, Prepared, prepare, rank_agreement, read_copies
from seglens.explain.target import Target, Unit
from seglens.impute import blurred
from seglens.models.segmenter import Segmenter
from seglens.runtime.device import choose_precision
from seglens.shapes import Images, Logits, Maps, PerImage, Regions, Rows

Both = Float[Tensor, "two n"]
"""`s_reg` and `s_dice` of changed copies."""


@dataclass(frozen=True, eq=False)
class Reading:
    """Reads changed copies of ``images``.

    ``answer`` is the class's probability on the clean pictures, ``full`` their scores (on the CPU). ``s_reg``
    is the mean probability of the class over the frozen region (the mean logit for a false negative),
    ``s_dice`` the `soft_dice` of the answer with that on the clean picture. The model is the same as
    ``segmenter``, made quick.
    """

    segmenter: Segmenter
    model: Prepared
    images: Images
    target: Target
    valid: Regions
    answer: Maps
    full: Both
    batch_size: int

    @cached_property
    def base(self) -> Both:
        """The scores of the blurred pictures; on the CPU."""
        return self.clean(blurred(self.images, spacing=self.segmenter.spec.spacing))

    def scores(self, logits: Logits, rows: Rows) -> Both:
        """Return `s_reg` and `s_dice` of the copies that ``logits`` are of."""
        region = self.target.score(logits, rows, score_unit(self.target))
        answer = self.target.probability(logits.float())
        return torch.stack([region, soft_dice(answer, self.answer[rows], self.valid[rows])])

    def clean(self, images: Images) -> Both:
        """Score ``images`` in the place of the clean ones; on the CPU."""
        rows = torch.arange(len(images))
        return read_copies(
            self.model, images, rows, lambda same, _: same, self.scores, 2, batch_size=self.batch_size
        ).cpu()

    def changed(self, rows: Rows, perturb: Perturb, precision: str) -> tuple[Both, PerImage | None]:
        """Read copies that ``perturb`` changes; in bfloat16 also say how well they are ranked (`s_reg`)."""
        reduced = choose_precision(precision, self.segmenter.device) != "32"
        model = self.model
        if reduced:
            model = prepare(
                self.segmenter,
                self.images,
                forwards=len(rows),
                batch_size=self.batch_size,
                precision=precision,
            )
        found = read_copies(model, self.images, rows, perturb, self.scores, 2, batch_size=self.batch_size)
        if not reduced:
            return found.cpu(), None
        unit, first = score_unit(self.target), found[:1]
        alike = rank_agreement(
            self.segmenter,
            self.images,
            (self.target,),
            rows,
            perturb,
            first,
            unit=unit,
            batch_size=self.batch_size,
        )
        return found.cpu(), alike[0].float().cpu()


def reading(
    segmenter: Segmenter, images: Images, target: Target, valid: Regions, *, batch_size: int
) -> Reading:
    """Make a model ready for many changed copies of ``images`` (see `explain.masked.prepare`)."""
    device = segmenter.device
    images, valid = images.to(device), valid.to(device)
    model = prepare(segmenter, images, forwards=len(images), batch_size=batch_size)
    answer = torch.empty(valid.shape, device=device)

    def read(logits: Logits, rows: Rows) -> Both:
        answer[rows] = target.probability(logits.float())
        region = target.score(logits, rows, score_unit(target))
        return torch.stack([region, soft_dice(answer[rows], answer[rows], valid[rows])])

    rows = torch.arange(len(images))
    full = read_copies(model, images, rows, lambda same, _: same, read, 2, batch_size=batch_size).cpu()
    return Reading(segmenter, model, images, target, valid, answer, full, batch_size)


def score_unit(target: Target) -> Unit:
    """Return the unit of scores: probability; of what was missed, where that is near 0, logits."""
    return "mean" if target.label.partition(":")[0] in ("false-negative", "missed") else "probability"


def soft_dice(one: Maps, other: Maps, valid: Regions) -> PerImage:
    """Return ``2 sum p q / (sum p^2 + sum q^2)`` over the valid pixels: 1 where both are the same.

    Milletari et al. 2016, "V-Net", section 3. NaN where both are zero everywhere.
    """
    first, second = ((maps * valid).flatten(1) for maps in (one, other))
    return 2 * (first * second).sum(1) / (first.square().sum(1) + second.square().sum(1))

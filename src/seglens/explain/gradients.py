"""Gradients of the score with respect to the input: formulas over one trace, and averages over many points.

S is the mean of the class's logits over the target's pixels, so that targets of different size give maps in
one unit: logits per unit of intensity. Pictures are raw, in [0, 1]. `GRADIENTS` at the foot names the
formulas; methods that average gradients over many points near or far from a picture share `averages`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from seglens.axes import size_of
from seglens.explain.memory import keep_chunk
from seglens.explain.target import Target
from seglens.explain.trace import differentiate, in_chunks
from seglens.models.segmenter import Segmenter
from seglens.runtime.device import at_once
from seglens.shapes import ChannelMaps, Images, Maps, Rows

Points = Float[Tensor, "n c *size"]

Point = Callable[[Rows, Rows], Points]
"""Gives points: of each path (its number) the step (its number)."""

Values = Callable[[Rows, Rows, Points], tuple[Points, ...]]
"""Of path, step and dS/dx there: what is averaged, one tensor or several."""

Averages = Float[Tensor, "targets paths c *size"]


def saliency(images: Images, gradient: Images) -> ChannelMaps:
    """``|dS/dx|``: how much each pixel matters, in whichever direction. Simonyan et al. 2013, section 3.1."""
    return gradient.abs()


def input_x_gradient(images: Images, gradient: Images) -> ChannelMaps:
    """``x dS/dx``. Shrikumar et al. 2016, section 3.1: for a linear score, its parts; black pixels get 0."""
    return images * gradient


@dataclass(frozen=True)
class InputGradient:
    """A formula, and whether the map is the largest channel (as in its source) or the sum over channels."""

    formula: Callable[[Images, Images], ChannelMaps]
    largest: bool = False

    def map_of(self, channels: ChannelMaps) -> Maps:
        """Return one value for each pixel: the largest channel, or the sum over channels."""
        return channels.amax(1) if self.largest else channels.sum(1)


def averages(
    segmenter: Segmenter,
    targets: Sequence[Target],
    owner: Int[Tensor, " paths"],
    weights: Float[Tensor, "paths steps"],
    point: Point,
    values: Values,
    *,
    batch_size: int,
) -> tuple[Averages, ...]:
    """Sum ``weights * values`` over the steps of each path, for each target; path i is of ``owner[i]``.

    Points of several paths share a batch, at most ``batch_size`` of them, so that the last one of a path is
    not a small one; several targets share the forward pass. Summed in float32 (float64 where the model is in
    that), and on a GPU in a fixed order.
    Call it where the model is `left_as_found`.
    """
    paths, steps = weights.shape
    sums: list[Averages] = []

    def work(part: slice) -> None:
        index = torch.arange(part.start, part.stop, device=weights.device)
        path, step = index // steps, index % steps
        at = point(path, step)
        found = [values(path, step, slope) for slope in input_gradients(segmenter, at, targets, owner[path])]
        if not sums:
            shape = (len(targets), paths, *at.shape[1:])
            sums.extend(torch.zeros(shape, device=at.device, dtype=kind.dtype) for kind in found[0])
        # Memory is not asked for below: a pass counts whole or, where it ran out above, not at all.
        keep_chunk()
        first, last = part.start // steps, (part.stop - 1) // steps
        share = one_hot(path - first, last - first + 1) * weights[path, step, None]
        for position, kinds in enumerate(found):
            for total, kind in zip(sums, kinds, strict=True):
                total[position, first : last + 1] += torch.tensordot(share.to(kind), kind, dims=([0], [0]))

    in_chunks(paths * steps, at_once(size_of(targets[0].pixels, 1), weights.device, batch_size), work)
    return tuple(sums)


def input_gradients(
    segmenter: Segmenter, points: Points, targets: Sequence[Target], rows: Rows
) -> list[Points]:
    """Return dS/dx of each target at ``points``, in float32 or better; point i has the pixels of ``rows[i]``.

    One forward pass, and a backward pass for each target that ends at the input: no gradients of weights.

    Raises:
        ModelError: the input does not influence the score.
    """
    inputs = points.detach().to(segmenter.mean.dtype).requires_grad_()
    logits = segmenter(inputs)
    gradients = []
    for left, target in reversed(list(enumerate(reversed(targets)))):
        score = target.score(logits, rows, "mean")
        slopes = differentiate(score, {"the input": inputs}, target, keep=left > 0)
        slope = slopes["the input"]
        gradients.append(slope.to(torch.promote_types(slope.dtype, torch.float32)))
    return gradients


@torch.no_grad()
def scores_of(
    segmenter: Segmenter, points: Points, targets: Sequence[Target], rows: Rows, *, batch_size: int
) -> Float[Tensor, "targets n"]:
    """Return each target's mean logit at ``points``; point i keeps the pixels of picture ``rows[i]``."""
    scores = torch.zeros(len(targets), len(points), device=points.device)

    def work(part: slice) -> None:
        logits = segmenter(points[part].to(segmenter.mean.dtype))
        for position, target in enumerate(targets):
            scores[position, part] = target.score(logits, rows[part], "mean").float()

    in_chunks(len(points), at_once(size_of(points), points.device, batch_size), work)
    return scores


GRADIENTS: dict[str, InputGradient] = {
    "saliency": InputGradient(saliency, largest=True),
    "input-x-gradient": InputGradient(input_x_gradient),
}
"""Every map that the input's gradient of one trace gives. To add one: one function, one line."""

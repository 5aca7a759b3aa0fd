"""The perturbation engine: what a model says of changed copies of pictures, one score per copy.

One engine serves every method and every judge that changes the input and looks what becomes of the score.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from seglens.explain.target import Target, Unit
from seglens.explain.trace import in_chunks
from seglens.models.segmenter import Segmenter, evaluating
from seglens.shapes import Images, Rows

Perturb = Callable[[Images, Rows], Images]
"""Gets clean copies of pictures and which copies of all they are; gives the changed ones."""

TargetScores = Float[Tensor, "targets n"]
"""One score for each target and copy."""


def masked_scores(
    segmenter: Segmenter,
    images: Images,
    targets: Sequence[Target],
    rows: Rows,
    perturb: Perturb,
    *,
    unit: Unit = "probability",
    chunk: int = 16,
) -> TargetScores:
    """Score ``len(rows)`` changed copies; copy i is of picture ``rows[i]`` and keeps its frozen pixels.

    All targets are scored from the same forward pass. Copies are made and scored ``chunk`` at a time, or
    fewer where memory runs out, which changes nothing in the result as long as ``perturb`` treats every copy
    by itself. Scores are on the model's device, and nothing here waits for it.
    """
    device = segmenter.device
    images, rows = images.to(device), rows.to(device)
    copies = torch.arange(len(rows), device=device)
    scores = torch.empty(len(targets), len(rows), device=device)

    def work(part: slice) -> None:
        changed = perturb(images[rows[part]], copies[part])
        logits = segmenter(changed)
        for position, target in enumerate(targets):
            scores[position, part] = target.score(logits, rows[part], unit)

    with evaluating(segmenter), torch.no_grad():
        in_chunks(len(rows), chunk, work)
    return scores


def clean_scores(
    segmenter: Segmenter,
    images: Images,
    targets: Sequence[Target],
    *,
    unit: Unit = "probability",
    chunk: int = 16,
) -> TargetScores:
    """Score the pictures as they are."""
    rows = torch.arange(len(images))
    return masked_scores(segmenter, images, targets, rows, lambda same, _: same, unit=unit, chunk=chunk)

"""The perturbation engine: what a model says of changed copies of pictures, one score per copy.

One engine serves every method and every judge that changes the input and looks what becomes of the score.
"""

from collections.abc import Callable

import torch

from seglens.explain.target import Target, Unit
from seglens.explain.trace import in_chunks
from seglens.models.segmenter import Segmenter, evaluating
from seglens.shapes import Images, Rows, Scores

Perturb = Callable[[Images, Rows], Images]
"""Gets clean copies of pictures and which copies of all they are; gives the changed ones."""


def masked_scores(
    segmenter: Segmenter,
    images: Images,
    target: Target,
    rows: Rows,
    perturb: Perturb,
    *,
    unit: Unit = "probability",
    chunk: int = 16,
) -> Scores:
    """Score ``len(rows)`` changed copies; copy i is of picture ``rows[i]`` and keeps its frozen pixels.

    Copies are made and scored ``chunk`` at a time, or fewer where memory runs out, which changes nothing in
    the result as long as ``perturb`` treats every copy by itself. Scores are on the model's device, and
    nothing here waits for it.
    """
    device = segmenter.device
    images, rows = images.to(device), rows.to(device)
    copies = torch.arange(len(rows), device=device)
    scores = torch.empty(len(rows), device=device)

    def work(part: slice) -> None:
        changed = perturb(images[rows[part]], copies[part])
        scores[part] = target.score(segmenter(changed), rows[part], unit)

    with evaluating(segmenter), torch.no_grad():
        in_chunks(len(rows), chunk, work)
    return scores


def clean_scores(
    segmenter: Segmenter, images: Images, target: Target, *, unit: Unit = "probability", chunk: int = 16
) -> Scores:
    """Score the pictures as they are."""
    rows = torch.arange(len(images))
    return masked_scores(segmenter, images, target, rows, lambda same, _: same, unit=unit, chunk=chunk)

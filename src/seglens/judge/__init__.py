"""Judgement: does an explanation deserve belief? Every score stands next to what knowing nothing would get.

`judge` makes the scorecard of maps that are in memory. For a folder of images take its three steps one by
one: `evidence.gather` for each batch, `evidence.combine`, `evidence.score`.
"""

from collections.abc import Sequence

from seglens.explain.explanation import Explanation, Explanations
from seglens.explain.target import Target
from seglens.judge.evidence import gather, score
from seglens.judge.scorecard import Scorecard
from seglens.runs import Run
from seglens.shapes import Images
from seglens.verb import make_callable


def judge(
    run: Run,
    images: Images,
    target: Target,
    maps: Explanations | Sequence[Explanation],
    *,
    seed: int = 0,
    chunk: int = 16,
) -> Scorecard:
    """Judge maps of ``target`` on ``images`` in [0, 1]; anybody's map may be among them.

    Each map gets a row for faithfulness and one for attention, and one for completeness where it is of
    Integrated Gradients; each content-free map gets a reference row. ``chunk`` perturbed pictures are in the
    model at once.

    Raises:
        SettingError: a map is of another target, or two maps share method and layer.
    """
    chosen = list(maps.values()) if isinstance(maps, Explanations) else list(maps)
    return score(gather(run, images, target, chosen, seed=seed, chunk=chunk), seed=seed)


make_callable(__name__)

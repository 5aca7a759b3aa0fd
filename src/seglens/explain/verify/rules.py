"""Every check: what it says, the largest value that passes, and how it is measured.

The limits follow from the arithmetic or from what a map is used for, and are the same for every model.
"""

from collections.abc import Callable
from typing import NamedTuple

from seglens.explain.verify.case import INCOMPLETE, ROUNDING, Case, Measured
from seglens.explain.verify.identities import (
    channel_sums,
    head_completeness,
    path_completeness,
    tap_gradient,
    window_of_all,
    window_of_one,
)
from seglens.explain.verify.numerics import (
    batch_of_many,
    compilation,
    half_scores,
    model_changes,
    repeatability,
    under_autocast,
)

COMPILED = 1e-4
"""A compiler fuses operations and sums in another order, in every layer: ten times `ROUNDING`."""

SLOPE = 1e-3
"""A central difference in float64 is right to a millionth but for kinks that lie within its step, and for
what a network rounds to float32 inside; a gradient that misses a path of any weight is off by far more."""

HALF_SCORES = 1e-3
"""1 - rank correlation: of 32 scores two pairs of neighbours may change places, and no more. A model that
fails is no worse for it, but its scores need float32: leave ``precision`` at 32, as it is by default."""


class Rule(NamedTuple):
    """A check: what it says in a sentence, the largest value that passes, and how it is measured.

    One about an ``option`` that is off by default says, where it fails, to leave that off with this model.
    """

    about: str
    limit: float
    measure: Callable[[Case], Measured]
    option: str = ""


RULES: dict[str, Rule] = {
    "hires-cam-is-window-1": Rule(
        "HiResCAM is Seg-XRes-CAM with blocks of one cell: difference over the map's maximum",
        ROUNDING,
        window_of_one,
    ),
    "grad-cam-is-window-all": Rule(
        "Grad-CAM is Seg-XRes-CAM averaged over the whole map: difference over the map's maximum",
        ROUNDING,
        window_of_all,
    ),
    "gradient-is-slope": Rule(
        "A layer's gradient is the slope of the score, by central differences: error over its size",
        SLOPE,
        tap_gradient,
    ),
    "ig-completeness": Rule(
        "Integrated Gradients sum to the change of the score: error over the change",
        INCOMPLETE,
        path_completeness,
    ),
    "ig-channels": Rule(
        "The input's channels sum to the map of Integrated Gradients: difference over its maximum",
        ROUNDING,
        channel_sums,
    ),
    "hires-completeness": Rule(
        "Before a linear head HiResCAM sums to the score less the bias: error over the sum of magnitudes",
        ROUNDING,
        head_completeness,
    ),
    "batch-is-single": Rule(
        "A picture's map is the same alone and in a batch: difference over the map's maximum",
        ROUNDING,
        batch_of_many,
    ),
    "repeatable": Rule(
        "The same seed gives the same map: difference over the map's maximum", ROUNDING, repeatability
    ),
    "compiled-is-eager": Rule(
        "Compiled, the model gives the same logits and maps: difference over the maximum",
        COMPILED,
        compilation,
        option="compile",
    ),
    "bf16-scores": Rule(
        "In bfloat16 (an option, for speed) masked pictures are ranked alike: 1 - rank correlation",
        HALF_SCORES,
        half_scores,
        option="precision=bf16",
    ),
    "autocast-is-float32": Rule(
        "Maps are computed in float32 under autocast too: difference over the map's maximum",
        ROUNDING,
        under_autocast,
    ),
    "model-as-found": Rule(
        "Weights, training flags, gradients and hooks are as they were: number of changes", 0.0, model_changes
    ),
}
"""Every check in the order in which they run; the last one looks at what the others left. To add one: one
function, one line."""

"""Judgement: does an explanation deserve belief? Every score stands next to what knowing nothing would get.

`judge` makes the scorecard of maps that are in memory. For a folder of images take its three steps one by
one: `evidence.score_batch` for each batch, `evidence.combine`, `evidence.score`.
"""

from collections.abc import Mapping, Sequence

from seglens.arguments import checked
from seglens.arguments.inputs import Pictures, as_images
from seglens.arguments.renamed import renamed
from seglens.callable_module import make_callable
from seglens.errors import SettingError
from seglens.explain.explanation import Explanation, Explanations
from seglens.explain.target import Target, targets_on
from seglens.judge.case import Explainer, JudgeSettings
from seglens.judge.evidence import score, score_batch
from seglens.judge.scorecard import Scorecard
from seglens.runs import Run
from seglens.shapes import Regions


@renamed(chunk="batch_size")
@checked
def judge(
    run: Run,
    images: Pictures,
    target: Target,
    maps: Explanations | Sequence[Explanation],
    *,
    valid: Regions | None = None,
    settings: JudgeSettings | None = None,
    explainers: Mapping[str, Explainer] | None = None,
    groups: Sequence[str] | None = None,
    seed: int = 0,
    batch_size: int = 16,
) -> Scorecard:
    """Judge maps of ``target`` on ``images`` in [0, 1]; anybody's map may be among them.

    Each map gets a row for each score of ``settings`` (all by default; completeness only where it is of
    Integrated Gradients); each content-free map gets a reference row. ``batch_size`` perturbed pictures are
    in the model at once. Padding, which is what is not ``valid``, counts nowhere.

    Model dependence and stability make maps again. Ours know how; for somebody else's, ``explainers`` may
    bring a function ``(run, images, target) -> maps`` by method or ``method@layer``, or these rows are not
    evaluable.

    ``groups`` name for each image the patient or slide that it is of: intervals resample those.

    Raises:
        SettingError: there is not one group for each image, the images are not raw ones, a map is of another
            target, two maps share method and layer, or an explainer has no map.
    """
    images = as_images(images, run.spec.channels, run.spec.dims)
    targets_on(run, images, target)
    if groups is not None and len(groups) != len(images):
        raise SettingError(f"There are {len(groups)} groups for {len(images)} images. Name one for each.")
    chosen = list(maps.values()) if isinstance(maps, Explanations) else list(maps)
    found = score_batch(
        run,
        images,
        target,
        chosen,
        valid=valid,
        settings=settings,
        explainers=explainers,
        groups=groups,
        seed=seed,
        batch_size=batch_size,
    )
    return score(found, groups=groups, seed=seed)


make_callable(__name__)

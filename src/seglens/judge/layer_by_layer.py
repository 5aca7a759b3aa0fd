"""The first layer from which on the maps of a method only repeat the prediction."""

from collections.abc import Sequence

from seglens.judge.judgement import Judgement
from seglens.models.layers import ROLES
from seglens.results.scorecard import LayerByLayer, LayerStep


def layer_by_layer(rows: Sequence[Judgement]) -> list[LayerByLayer]:
    """Return from which layer on each method only repeats the prediction, by the labels of attention.

    Layers are taken from the input to the output where all of them go by their roles (`models.layers.ROLES`),
    else in the order in which they were asked for. Methods without layers are left out, and so are maps that
    no image could be measured of.
    """
    steps: dict[str, list[LayerStep]] = {}
    for row in rows:
        if row.score == "attention" and row.layer is not None and row.interval.num:
            steps.setdefault(row.method, []).append(
                LayerStep(
                    layer=row.layer,
                    ratio=row.details["ratio"].spread(),
                    ratio_of_mirror=row.details["ratio_of_mirror"].spread(),
                    resemblance_to_mirror=row.details["resemblance_to_mirror"].spread(),
                    restates=bool(row.label),
                )
            )
    return [
        LayerByLayer(method=method, restates_from=_since(found), layers=tuple(found))
        for method, found in ((method, in_order(each)) for method, each in steps.items())
    ]


def _since(steps: Sequence[LayerStep]) -> str | None:
    """Return the first layer from which on every map is labelled; None where the last one isn't."""
    found = None
    for step in reversed(steps):
        if not step.restates:
            break
        found = step.layer
    return found


def in_order(steps: Sequence[LayerStep]) -> Sequence[LayerStep]:
    """Order steps from the input to the output where their layers are roles, or leave them as they are."""
    if any(step.layer not in ROLES for step in steps):
        return steps
    return sorted(steps, key=lambda step: ROLES.index(step.layer))

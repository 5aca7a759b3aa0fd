"""From which layer on a method says no more than the prediction itself, made as coarse as the layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from seglens.intervals import Interval
from seglens.judge.judgement import Judgement
from seglens.models.layers import ROLES


@dataclass(frozen=True)
class Step:
    """One layer of a method: its attention ratio, that of its mirror, how alike they are, and the label."""

    layer: str
    ratio: Interval
    ratio_of_mirror: Interval
    resemblance: Interval
    restates: bool

    def to_json(self) -> dict[str, Any]:
        """Return the step as plain data."""
        return {
            "layer": self.layer,
            "ratio": self.ratio.to_json(),
            "ratio_of_mirror": self.ratio_of_mirror.to_json(),
            "resemblance_to_mirror": self.resemblance.to_json(),
            "restates": self.restates,
        }


@dataclass(frozen=True)
class Restating:
    """A method from layer to layer; from ``since`` on, all of its maps only restate the prediction."""

    method: str
    steps: tuple[Step, ...]

    @property
    def since(self) -> str | None:
        """The first layer from which on every map carries the label; None where the last one doesn't."""
        found = None
        for step in reversed(self.steps):
            if not step.restates:
                break
            found = step.layer
        return found

    def to_json(self) -> dict[str, Any]:
        """Return method, first restating layer and all steps as plain data."""
        return {
            "method": self.method,
            "restates_from": self.since,
            "layers": [step.to_json() for step in self.steps],
        }


def restating(rows: Sequence[Judgement]) -> list[Restating]:
    """Say from which layer on each method only restates the prediction, by the labels of attention.

    Layers are taken from the input to the output where all of them go by their roles (`models.layers.ROLES`),
    else in the order in which they were asked for. Methods without layers are left out, and so are maps that
    no image could be measured of.
    """
    steps: dict[str, list[Step]] = {}
    for row in rows:
        if row.score == "attention" and row.layer is not None and row.interval.num:
            steps.setdefault(row.method, []).append(
                Step(
                    row.layer,
                    row.details["ratio"],
                    row.details["ratio_of_mirror"],
                    row.details["resemblance_to_mirror"],
                    bool(row.label),
                )
            )
    return [Restating(method, tuple(in_order(found))) for method, found in steps.items()]


def in_order(steps: Sequence[Step]) -> Sequence[Step]:
    """Order steps from the input to the output where their layers are roles, or leave them as they are."""
    if any(step.layer not in ROLES for step in steps):
        return steps
    return sorted(steps, key=lambda step: ROLES.index(step.layer))

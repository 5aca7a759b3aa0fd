"""The differences of runs: ``compare.json``. A change is the run's value minus that of the reference."""

from collections.abc import Mapping

from seglens.results.resampling import Resampling
from seglens.results.scorecard import CardRow
from seglens.results.spread import Spread
from seglens.results.tables import Number, Result

Key = tuple[str, str, str | None, str]
"""Target, method, layer, and whether the region or its context counts."""


class ScoreChange(Result):
    """One score of a run next to the reference's, with the interval of the difference."""

    run: str = ""
    score: str
    kind: str
    reference: Number
    value: Number
    difference: float
    low: float
    high: float
    num: int
    verdict: str
    num_better: int | None
    num_worse: int | None


class PictureChange(Result):
    """One picture's Dice and number in each run, and its change in each but the reference."""

    name: str
    dice: Mapping[str, Number]
    change: Mapping[str, Number]
    index: Mapping[str, int | None]

    @property
    def largest(self) -> float:
        """The largest change in any run."""
        return max((abs(value or 0.0) for value in self.change.values()), default=0.0)


class Gain(Result):
    """A picture that is among those whose score changed most."""

    name: str
    change: float


class AttentionShare(Result):
    """The share of a map on a region, that of an even map, and the change."""

    reference: float
    value: float
    area: float
    difference: Spread


class MapChange(Result):
    """The distance that one map moved over the pictures, next to that between unrelated maps."""

    run: str = ""
    target: str
    method: str
    layer: str | None
    where: str
    num: int
    moved: Spread
    unrelated: Spread
    correlation: Spread
    shares: Mapping[str, AttentionShare]

    @property
    def key(self) -> Key:
        """The name of the map."""
        return self.target, self.method, self.layer, self.where


class PictureMapChange(Result):
    """The distance that one map of one picture moved, with its shares on each region."""

    run: str = ""
    name: str
    target: str
    method: str
    layer: str | None
    where: str
    moved: float
    correlation: float


class VerdictChange(Result):
    """One score of one map in each run that has it; ``changed`` where the verdicts are not the same.

    Of the rows of the scorecards there is what doesn't name the map.
    """

    target: str
    method: str
    layer: str | None
    score: str
    runs: Mapping[str, CardRow]
    changed: bool


class SettingChange(Result):
    """A setting that is not the same in all runs; None where a run's record lacks it."""

    step: str
    name: str
    values: Mapping[str, object]


class Lacking(Result):
    """A result that a run lacks, and the command that makes it."""

    run: str
    verb: str
    command: str


class LeftOut(Result):
    """A picture that is not compared, and why."""

    name: str
    why: str


class ComparisonTable(Result):
    """The contents of ``compare.json``. ``changed`` holds pictures by run and ``gained`` or ``lost``."""

    split: str
    reference: str
    runs: tuple[str, ...]
    num_common: int
    matched_by: str
    left_out: tuple[LeftOut, ...]
    scores: tuple[ScoreChange, ...]
    images: tuple[PictureChange, ...]
    changed: Mapping[str, Mapping[str, tuple[Gain, ...]]]
    explain_changed: tuple[str, ...]
    maps: tuple[MapChange, ...]
    map_images: tuple[PictureMapChange, ...]
    scorecard: tuple[VerdictChange, ...]
    judged_same_pictures: bool | None
    settings: tuple[SettingChange, ...]
    resampling: Resampling = Resampling()
    missing: tuple[Lacking, ...]
    definitions: Mapping[str, str]

    @property
    def about_verdicts(self) -> str:
        """How many verdicts of the scorecards changed, if they are about the same pictures; in words."""
        if not self.scorecard:
            return ""
        if self.judged_same_pictures is not True:
            may = "were not judged" if self.judged_same_pictures is False else "may not have been judged"
            return f"The runs {may} on the same pictures. Don't compare the verdicts of their scorecards."
        changed = sum(row.changed for row in self.scorecard)
        return f"{changed or 'None'} of the {len(self.scorecard)} verdicts of the scorecards changed."

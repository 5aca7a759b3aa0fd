"""One row of a scorecard: one score of one map."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from seglens.evaluate.intervals import NOTHING, Interval
from seglens.judge.case import Outcome
from seglens.results.names import Verdict, map_name
from seglens.results.scorecard import CardRow


@dataclass(frozen=True)
class Judgement:
    """One score of one map.

    ``interval`` holds the mean over the evaluable images and its bounds, ``difference`` the paired difference
    to ``reference``; ``nulls`` are the means of all that the map is to be seen next to, on the same images.
    ``details`` are numbers that belong to the score (the model's context reliance, the ceiling of agreement,
    the attention ratio), and ``label`` is "restates the prediction" or empty. ``outcome`` is what ``verdict``
    and ``reason`` say, for programs.
    """

    target: str
    method: str
    layer: str | None
    score: str
    interval: Interval
    verdict: Verdict
    outcome: Outcome
    reason: str
    num_total: int
    nulls: Mapping[str, float]
    reference: str = ""
    difference: Interval = NOTHING
    details: Mapping[str, Interval] = field(default_factory=dict)
    label: str = ""

    def saying(self, more: str) -> "Judgement":
        """Return the row with more of a reason."""
        return replace(self, reason=f"{self.reason}; {more}" if self.reason else more)

    @property
    def value(self) -> float:
        """The mean over the evaluable images."""
        return self.interval.mean

    @property
    def num_evaluable(self) -> int:
        """How many images the value is the mean of."""
        return self.interval.num

    @property
    def text(self) -> str:
        """The row as one line: value, interval, what it was compared with, verdict and reason."""
        name = map_name(self.method, self.layer)
        on = f"on {self.num_evaluable} of {self.num_total} images"
        parts = [f"{name}: {self.score} {_spell(self.interval)} {on}"]
        if self.reference in self.nulls:
            known = f"{self.reference} ({self.nulls[self.reference]:.3g})"
            parts.append(f"{_spell(self.difference)} against {known}")
        elif self.reference:
            parts.append(f"against {self.reference}")
        numbers = [self._detail(name, found) for name, found in self.details.items() if found.num]
        parts += [", ".join(numbers)] if numbers else []
        parts.append(f"{self.verdict}: {self.reason}" if self.reason else self.verdict)
        return "; ".join(parts)

    def _detail(self, name: str, found: Interval) -> str:
        """A number that belongs to the score, and of how many images where that is another number."""
        counted = "" if found.num == self.num_evaluable else f" (on {found.num})"
        return f"{name} {found.mean:.3g}{counted}"

    def row(self) -> CardRow:
        """Return the row as it stands in ``scorecard.json``, intervals spread out into numbers."""
        return CardRow(
            target=self.target,
            method=self.method,
            layer=self.layer,
            score=self.score,
            value=self.interval.mean,
            low=self.interval.low,
            high=self.interval.high,
            reference=self.reference,
            difference=self.difference.mean,
            difference_low=self.difference.low,
            difference_high=self.difference.high,
            verdict=self.verdict,
            outcome=self.outcome,
            reason=self.reason,
            num_evaluable=self.num_evaluable,
            num_total=self.num_total,
            nulls=dict(self.nulls),
            details={name: found.spread() for name, found in self.details.items()},
            label=self.label,
            text=self.text,
        )


def _spell(found: Interval) -> str:
    return f"{found.mean:.3g} [{found.low:.3g}, {found.high:.3g}]"

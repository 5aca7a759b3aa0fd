"""Whether uncertainty finds errors: the results of an evaluation with ``uncertainty``."""

from seglens.results.spread import Spread
from seglens.results.tables import Number, Result


class Coverage(Result):
    """The share of wrong pixels where only so many pixels, the least uncertain ones, are answered."""

    coverage: float
    risk: Number = None
    low: Number = None
    high: Number = None


class ErrorDetection(Result):
    """How well one kind of uncertainty finds wrong pixels, over all pixels of a split together.

    ``auroc`` is the chance that a wrong pixel is more uncertain than a right one; ``area`` that under the
    curve of risk over coverage, beside ``error``, the share of all pixels that are wrong, which it is where
    uncertainty says nothing, and ``best_area``, which it is where every wrong pixel is the most uncertain.
    """

    kind: str
    auroc: Spread = Spread()
    area: Spread = Spread()
    error: Spread = Spread()
    best_area: Number = None
    curve: tuple[Coverage, ...] = ()

    @property
    def text(self) -> str:
        """One sentence for people."""
        if self.auroc.mean is None or self.auroc.mean != self.auroc.mean:
            return (
                f"{self.kind}: we cannot say whether it finds errors, as no pixel is wrong, or none is right."
            )
        if self.auroc.low is None or self.auroc.low != self.auroc.low:
            sure = "from one group of pictures we cannot say how certain this is"
        elif self.auroc.low > 0.5:
            sure = "it finds errors"
        else:
            sure = "these pictures do not show that it finds errors"
        kept = next((row for row in self.curve if row.coverage == 0.9), None)
        without = ""
        if kept is not None and kept.risk is not None and self.error.mean is not None:
            without = (
                f". Of all pixels {self.error.mean:.2%} are wrong. Without the least certain tenth it is "
                f"{kept.risk:.2%}"
            )
        return f"{self.kind}: AUROC of wrong pixels {self.auroc.mean:.3f}, {sure}{without}."

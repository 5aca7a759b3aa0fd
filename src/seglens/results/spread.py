"""A mean over pictures with its interval."""

from seglens.results.tables import Number, Result


class Spread(Result):
    """A mean over ``num`` pictures with its 95 % interval, and for scores deviation and median.

    ``num_groups`` are the groups of pictures that the interval resamples.
    """

    mean: Number = None
    low: Number = None
    high: Number = None
    num: int = 0
    num_groups: int | None = None
    std: Number = None
    median: Number = None

    @property
    def misses_zero(self) -> bool:
        """Whether the interval is known and doesn't hold 0, as far as it is known."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high

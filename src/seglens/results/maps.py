"""The statistics of maps: ``explanations.json``."""

from collections.abc import Mapping

from seglens.results.names import attention_ratio, folds_layer, map_name, status_in_words
from seglens.results.resampling import Resampling
from seglens.results.spread import Spread
from seglens.results.tables import Number, Result

Limits = tuple[float, float]
"""The values at the two ends of a map's colours."""


class MapFrame(Result):
    """The place of a picture in a grid: left, top, width and height as shares of the grid."""

    native: tuple[int, ...] | None = None
    part: tuple[float, ...] = ()


class Evidence(Result):
    """The evidence for and against the class: limits of colours, the share against it, the drawn picture."""

    limits: Limits | None = None
    opposing: Number = None
    file: str | None = None


class Colours(Result):
    """The meaning of the colours of a drawn map."""

    limits: Limits | None = None
    unit: str = ""


class Folds(Result):
    """The standard deviation of the maps of several folds: limits of its colours, the drawn picture."""

    limits: Limits | None = None
    file: str | None = None


class OneMap(Result):
    """One map of one picture. ``limits`` are those that its colours have by themselves."""

    target: str = ""
    method: str
    layer: str | None = None
    where: str = "region"
    unit: str = ""
    status: str = "ok"
    statistics: Mapping[str, Number] = {}
    nulls: Mapping[str, Mapping[str, Number]] = {}
    diagnostics: Mapping[str, Number] = {}
    limits: Limits | None = None
    evidence: Evidence | None = None
    folds: Folds | None = None
    file: str | None = None
    scale: Colours | None = None

    @property
    def name(self) -> str:
        """``method`` or ``method@layer``."""
        return map_name(self.method, self.layer)

    @property
    def of_folds(self) -> "OneMap | None":
        """The map of how far folds are apart as one more; None where the model has no several folds."""
        if self.folds is None:
            return None
        alone: dict[str, object] = {
            "statistics": {},
            "nulls": {},
            "evidence": None,
            "scale": None,
            "folds": None,
        }
        named = {"layer": folds_layer(self.layer), "limits": self.folds.limits, "file": self.folds.file}
        return self.model_copy(update={**alone, **named})

    @property
    def diagnosed(self) -> dict[str, float]:
        """The diagnostics that are numbers."""
        return {name: value for name, value in self.diagnostics.items() if value is not None}

    @property
    def key(self) -> tuple[str, str, str | None, str]:
        """Target, method, layer, and whether the region or its context counts."""
        return self.target, self.method, self.layer, self.where

    @property
    def why_missing(self) -> str:
        """Why there is no map, as a reader sees it; empty where there is one."""
        if self.status == "ok":
            return ""
        if self.status != "degenerate":
            return status_in_words(self.status)
        if self.evidence is not None:
            return "all evidence in this layer speaks against the class"
        if (self.diagnostics.get("gradient_left") or 1.0) < 1e-3:
            return "the gradient averages to zero in this layer"
        return "the map has the same value everywhere"

    def statistic(self, name: str) -> float | None:
        """Return a statistic; None where there is none."""
        return self.statistics.get(name)


class Sheet(Result):
    """A drawn comparison of maps."""

    title: str
    file: str


class PictureMaps(Result):
    """All maps of one picture, and its files; or why it could not be done."""

    name: str
    status: str = "ok"
    error: str = ""
    dice: Number = None
    group: str = ""
    files: Mapping[str, str] = {}
    frame: MapFrame = MapFrame()
    maps: tuple[OneMap, ...] = ()
    sheets: tuple[Sheet, ...] = ()

    @property
    def map_names(self) -> list[str]:
        """The names of the maps in the file of raw maps, with the target where there are several."""
        several = len({entry.target for entry in self.maps}) > 1
        return [
            map_name(each.method, each.layer, target=each.target if several else "") for each in self.maps
        ]


class MapSummary(Result):
    """One map over all pictures: means with intervals, those of its nulls, and how many had no map."""

    target: str
    method: str
    layer: str | None = None
    num_ok: int | None = None
    num_no_target: int = 0
    num_total: int | None = None
    statistics: Mapping[str, Spread] = {}
    nulls: Mapping[str, Mapping[str, Number]] = {}
    null_intervals: Mapping[str, Mapping[str, Spread]] = {}
    difference_to_mirror: Spread = Spread()
    resemblance_to_mirror: Spread = Spread()
    label: str = ""
    where: str = "region"
    num_degenerate: int = 0
    num_failed: int = 0

    @property
    def name(self) -> str:
        """``method`` or ``method@layer``."""
        return map_name(self.method, self.layer)

    def statistic(self, name: str) -> Spread:
        """Return the mean of a statistic; without a mean where there is none."""
        return self.statistics.get(name, Spread())

    @property
    def best_null(self) -> str | None:
        """The null with the largest enrichment, which is finite where a ratio isn't; None without nulls."""
        known = {null: value for null, value in self.of_nulls("enrichment_log2").items() if value is not None}
        return max(known, key=lambda null: known[null], default=None)

    def ratio_in_words(self, null: str | None = None) -> str:
        """Return the mean attention ratio of the map, or of a null, and on how many pictures it is infinite.

        A ratio is infinite where a map has nothing outside of the region. Such pictures are in no mean.
        """
        of = self.statistics if null is None else self.null_intervals.get(null, {})
        spread = of.get("ratio", Spread())
        infinite = of.get("enrichment_log2", Spread()).num - spread.num
        if not spread.num:
            return "infinite" if infinite > 0 else "-"
        return attention_ratio(spread.mean) + (f", infinite on {infinite} more" if infinite > 0 else "")

    def of_nulls(self, statistic: str) -> dict[str, float | None]:
        """Return the mean of a statistic by null; None where a null has none."""
        return {null: found.get(statistic) for null, found in self.nulls.items()}


class ExplanationTable(Result):
    """The contents of ``explanations.json``. Without a split the pictures were named one by one."""

    split: str | None = None
    methods: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    against: str | None = None
    where: str = "region"
    scale: str = "image"
    no_target: Mapping[str, int] = {}
    definitions: Mapping[str, str] = {}
    resampling: Resampling = Resampling()
    samples: tuple[PictureMaps, ...]
    summary: tuple[MapSummary, ...] = ()

"""The results of a judgement: ``scorecard.json``, ``audit.json`` and ``shortcut.json``."""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, TypeVar, runtime_checkable

from seglens.results.maps import PictureMaps
from seglens.results.names import TARGET_SCALE, count, map_name
from seglens.results.resampling import Resampling
from seglens.results.spread import Spread
from seglens.results.tables import Number, Result

Use = Literal["show", "unproven", "never", "unknown"]
"""What a map may be used for."""


@runtime_checkable
class Scored(Protocol):
    """A row of a scorecard, by whatever name."""

    @property
    def score(self) -> str:
        """The score that the row is about."""
        ...


Row = TypeVar("Row", bound=Scored)


class CardRow(Result):
    """One score of one map; ``value`` and ``difference`` are means with 95 % intervals."""

    target: str = ""
    method: str = ""
    layer: str | None = None
    score: str = ""
    value: Number = None
    low: Number = None
    high: Number = None
    reference: str = ""
    difference: Number = None
    difference_low: Number = None
    difference_high: Number = None
    verdict: str = ""
    outcome: str = ""
    reason: str = ""
    num_evaluable: int | None = None
    num_total: int | None = None
    nulls: Mapping[str, Number] = {}
    details: Mapping[str, Spread] = {}
    label: str = ""
    text: str = ""

    @property
    def name(self) -> str:
        """``method`` or ``method@layer``."""
        return map_name(self.method, self.layer)


class LayerStep(Result):
    """One layer of a method: its attention ratio, that of its mirror, how alike they are, and the label."""

    layer: str
    ratio: Spread = Spread()
    ratio_of_mirror: Spread = Spread()
    resemblance_to_mirror: Spread = Spread()
    restates: bool = False


class LayerByLayer(Result):
    """From which layer on a method only repeats the prediction."""

    method: str
    restates_from: str | None = None
    layers: tuple[LayerStep, ...] = ()


class RemovalCurves(Result):
    """Mean scores of ``num`` pictures: of the whole picture, and while cells go in the order of a map.

    ``base`` is the score with everything removed; ``s_dice`` are the same curves of the soft Dice. At the
    target's scale ``least_kept`` and ``most_kept`` are the scores with all but so much removed.
    """

    full: Number = None
    base: Number = None
    least_first: tuple[Number, ...] = ()
    most_first: tuple[Number, ...] = ()
    least_kept: tuple[Number, ...] = ()
    most_kept: tuple[Number, ...] = ()
    num: int = 0
    s_dice: "RemovalCurves | None" = None

    def lines(self, *, kept: bool) -> tuple[Sequence[Number], Sequence[Number]]:
        """Return the scores with the most and the least relevant removed, or with these ``kept`` alone."""
        return (self.most_kept, self.least_kept) if kept else (self.most_first, self.least_first)


class Cascade(Result):
    """The similarity of each map to the original while the network is randomised."""

    share_of_modules: tuple[float, ...] = ()
    maps: Mapping[str, tuple[Number, ...]] = {}


class CellPoints(Result):
    """Attribution and effect of every cell of a few pictures, each as a share of its picture's largest."""

    attribution: tuple[float, ...] = ()
    effect: tuple[float, ...] = ()


class Figures(Result):
    """The numbers behind the figures of a scorecard: curves by score and map, cells by map.

    Curves are over ``fractions`` of the picture or, those of the score ``target_faithfulness``, over
    ``target_fractions`` of the target's area.
    """

    fractions: tuple[float, ...] = ()
    target_fractions: tuple[float, ...] = ()
    removal: Mapping[str, Mapping[str, RemovalCurves]] = {}
    cascade: Cascade = Cascade()
    agreement: Mapping[str, CellPoints] = {}

    def removing(self, score: str, name: str) -> RemovalCurves | None:
        """Return the curves of a map, or of a null with ``null:`` in front; None where no picture has any."""
        found = self.removal.get(score, {}).get(name)
        return found if found and found.num else None


def faithfulness_of(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of faithfulness that decide: at the target's scale, where it was measured at that."""
    at_target = [row for row in rows if row.score == TARGET_SCALE]
    return at_target or [row for row in rows if row.score == "faithfulness"]


class Advice(Result):
    """What to do with one map: ``show`` it for a question, ``never``, or as ``unproven``; else ``unknown``.

    ``say`` is what to say with it, or why not; ``score`` is the one that it goes by, where one decided.
    """

    map: str
    use: Use = "unknown"
    question: str = ""
    score: str = ""
    say: str = ""


class Recommendation(Result):
    """Which maps to show, and what to say with them, for people who have to show one.

    ``always`` is to be said with every map that is shown, ``instead`` what to show where none is, and
    ``not_judged`` are questions that were not asked.
    """

    headline: str = ""
    maps: tuple[Advice, ...] = ()
    always: tuple[str, ...] = ()
    instead: str = ""
    not_judged: tuple[str, ...] = ()


class Card(Result):
    """The contents of ``scorecard.json``.

    ``left_out`` are the scores that were not asked for, ``passes`` the changed copies of pictures that went
    through the model for each score that removes something. ``recommendation`` follows from the rows alone.
    Of ``num_windows`` pictures, larger than one input of the network, one window was judged. Volumes have 3
    ``dims``.
    """

    split: str | None = None
    num_images: int | None = None
    dims: int = 2
    rows: tuple[CardRow, ...]
    restating: tuple[LayerByLayer, ...] = ()
    left_out: tuple[str, ...] = ()
    passes: Mapping[str, int] = {}
    recommendation: Recommendation = Recommendation()
    definitions: Mapping[str, str] = {}
    resampling: Resampling = Resampling()
    figures: Figures = Figures()
    failed: tuple[PictureMaps, ...] = ()
    num_windows: int = 0

    @property
    def judged_in_words(self) -> str:
        """What was judged of large pictures, and what intervals resample."""
        windows = ""
        if self.num_windows:
            windows = (
                f"{count(self.num_windows, 'picture')} larger than one input of the network: of each, the "
                "window that holds the most of its mask was judged. "
            )
        return f"{windows}{self.resampling.text}"


class RegionMap(Result):
    """The audit of one map on one region."""

    map: str = ""
    verdict: str = ""
    reason: str = ""
    enrichment: Number = None
    nulls: Mapping[str, Number] = {}


class AuditedRegion(Result):
    """One region over all pictures, or over those of a group: what taking it away costs, and who shows it."""

    group: str = ""
    region: str
    num_present: int | None = None
    num_total: int | None = None
    area: Number = None
    drop: Number = None
    drop_low: Number = None
    drop_high: Number = None
    control: Number = None
    control_low: Number = None
    control_high: Number = None
    matters: bool = False
    maps: tuple[RegionMap, ...] = ()


class RegionOfPicture(Result):
    """One region of one picture: what taking it away costs, and taking the same shape elsewhere."""

    name: str
    group: str = ""
    region: str
    area: Number = None
    drop: Number = None
    control: Number = None


class Audit(Result):
    """The contents of ``audit.json``."""

    definition: str = ""
    num_images: int | None = None
    regions: tuple[AuditedRegion, ...] = ()
    groups: tuple[AuditedRegion, ...] = ()
    images: tuple[RegionOfPicture, ...]


class TagEffect(Result):
    """The score of a model with the tag, without it and with it elsewhere, and the loss."""

    full: Number = None
    tag_removed: Number = None
    tag_moved: Number = None
    drop_removed: Number = None
    drop_removed_low: Number = None
    drop_removed_high: Number = None
    drop_moved: Number = None
    drop_moved_low: Number = None
    drop_moved_high: Number = None
    num: int = 0


class TagRow(Result):
    """How well the share of one map on the tag separates the two models (AUROC)."""

    method: str = ""
    layer: str | None = None
    auroc: Number = None
    low: Number = None
    high: Number = None
    num: int | None = None
    share: Mapping[str, Number] = {}
    chance_share: Number = None
    exposes: bool = False


class TagTest(Result):
    """The contents of ``shortcut.json``; ``examples`` are names and files of pictures."""

    definition: str = ""
    models: Mapping[str, Mapping[str, bool | int | float | str | None]] = {}
    causal: Mapping[str, TagEffect] = {}
    methods: tuple[TagRow, ...] = ()
    valid: bool = True
    verdict: str = ""
    reason: str = ""
    examples: tuple[dict[str, str], ...] = ()

    @property
    def dice(self) -> dict[str, float]:
        """The Dice score of each model that has one."""
        scores = {name: model.get("dice") for name, model in self.models.items()}
        return {name: dice for name, dice in scores.items() if isinstance(dice, float)}

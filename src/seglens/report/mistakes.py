"""The largest missed and invented objects, with the evidence for and against the class at their pixels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from seglens.report.cards import GalleryCard, Heat
from seglens.report.contents import RunContents
from seglens.results.names import count, map_name
from seglens.results.scorecard import faithfulness_of
from seglens.results.scores import PictureScores

NUM_CASES = 4
"""Cases of each kind and run; the gallery has all."""


@dataclass(frozen=True)
class MistakeKind:
    """One kind of error: its target, its column of the scores, what it is a share of, and its words."""

    target: str
    pixels: str
    whole: str
    title: str
    verb: str
    of: str


KINDS = (
    MistakeKind(
        "false-negative", "false_negative_pixels", "truth_pixels", "Why missed", "missed", "of the object"
    ),
    MistakeKind(
        "false-positive",
        "false_positive_pixels",
        "predicted_pixels",
        "Why invented",
        "invented",
        "of what it marked",
    ),
)


@dataclass(frozen=True)
class Weight:
    """The evidence of one map at an error: the shares of its evidence for and against the class."""

    name: str
    supporting: float
    opposing: float
    on_target: float | None
    verdict: str
    number: int


@dataclass(frozen=True)
class Mistake:
    """One picture with an error. ``card`` and ``heat`` are places in the gallery; each map has a weight."""

    card: int
    heat: int
    name: str
    run: str
    dice: float | None
    sentences: tuple[str, ...]
    weights: tuple[Weight, ...]


def cases(
    cards: Sequence[GalleryCard], runs: Sequence[RunContents]
) -> list[tuple[MistakeKind, list[Mistake]]]:
    """Return the worst cases of each kind of error, most pixels first; kinds without a case are left out."""
    verdicts = {run.name: _verdicts(run) for run in runs}
    found = []
    for kind in KINDS:
        ranked: list[tuple[float, Mistake]] = []
        for number, card in enumerate(cards):
            case = _case(number, card, kind, verdicts[card.run])
            if case is not None:
                ranked.append((_size(card, kind), case))
        ranked.sort(key=lambda pair: (-pair[0], pair[1].name))
        kept = [case for run in runs for case in [c for _, c in ranked if c.run == run.name][:NUM_CASES]]
        if kept:
            found.append((kind, kept))
    return found


def _case(
    number: int, card: GalleryCard, kind: MistakeKind, verdicts: Mapping[tuple[str, str], str]
) -> Mistake | None:
    """Return the case of a card; None where nothing of this kind was explained."""
    heatmaps = [
        (i, heat, heat.row.evidence.opposing)
        for i, heat in enumerate(card.heatmaps)
        if heat.row.target == kind.target and heat.row.evidence and heat.row.evidence.opposing is not None
    ]
    if not heatmaps:
        return None
    weights = tuple(_weight(i, heat, against, verdicts) for i, heat, against in heatmaps)
    return Mistake(
        number,
        heatmaps[0][0],
        card.name,
        card.run,
        card.dice,
        (_about_size(card, kind, heatmaps[0][1]), *_about_evidence(weights)),
        weights,
    )


def _weight(number: int, heat: Heat, against: float, verdicts: Mapping[tuple[str, str], str]) -> Weight:
    return Weight(
        name=map_name(heat.method, heat.layer, at=" @ "),
        supporting=1 - against,
        opposing=against,
        on_target=heat.row.statistic("mass_inside"),
        verdict=verdicts[heat.method, heat.layer] if (heat.method, heat.layer) in verdicts else "",
        number=number,
    )


def _about_size(card: GalleryCard, kind: MistakeKind, heat: Heat) -> str:
    pixels, whole = _pixels(card, kind.pixels), _pixels(card, kind.whole)
    if pixels is None:
        area = heat.row.statistic("area")
        return f"An error {kind.verb} by the model" + (
            f" on {area:.1%} of the picture." if area is not None else "."
        )
    share = f", {pixels / whole:.0%} {kind.of}" if whole else ""
    return f"The model {kind.verb} {count(pixels, 'pixel')}{share}."


def _about_evidence(weights: Sequence[Weight]) -> list[str]:
    first = weights[0]
    lean = "against" if first.opposing > 0.5 else "for"
    sentences = [
        f"We asked {first.name} about these pixels. {first.opposing:.0%} of the evidence in the picture "
        f"speaks against the class, {first.supporting:.0%} for it."
    ]
    if first.on_target is not None:
        sentences.append(
            f"{first.on_target:.0%} of the evidence for the class lies on these pixels, the rest around them."
        )
    same = sum((weight.opposing > 0.5) == (first.opposing > 0.5) for weight in weights)
    if len(weights) > 1:
        all_ = f"All {len(weights)} maps lean {lean} the class"
        some = f"{same} of {len(weights)} maps lean {lean} the class, the others lean the other way"
        sentences.append(f"{all_ if same == len(weights) else some}.")
    return sentences


def _pixels(card: GalleryCard, name: str) -> int | None:
    return card.row[name] if isinstance(card.row, PictureScores) else None


def _size(card: GalleryCard, kind: MistakeKind) -> float:
    pixels = _pixels(card, kind.pixels)
    if pixels is not None:
        return float(pixels)
    areas = [heat.row.statistic("area") or 0.0 for heat in card.heatmaps if heat.row.target == kind.target]
    return max(areas, default=0.0)


def _verdicts(run: RunContents) -> dict[tuple[str, str], str]:
    """Return what the scorecard says of each map's faithfulness."""
    rows = [row for part in run.scorecards for row in faithfulness_of(part.table.rows)]
    return {(row.method, row.layer or ""): row.verdict for row in rows}

"""The gallery: one card for each picture and run, with its scores, pictures and heat maps."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from seglens.report.contents import Evaluated, Explained, RunContents
from seglens.results.maps import MapFrame, OneMap, PictureMaps
from seglens.results.names import map_name
from seglens.results.scores import PictureScores

LIMIT = 100
"""Cards in one report, over all its runs: a page that a browser still opens at once."""

MATTERS = 0.05
"""Share of the score that a region takes away at least to be flagged, as `seglens.judge.audit` has it."""

PLAIN = {"orig": "Image", "gt": "Truth", "pred": "Prediction", "overlay": "Overlay"}
"""Pictures that are not heat maps, in the order of the card."""


NO_FRAME = MapFrame()
IN_PLANES = "planes"
"""The file of the maps of a volume, in the planes in which the explanation has drawn it."""
NO_SCORES = {"name", "status", "error", "files", "maps", "sheets", "group", "objects"}
"""The columns of the table of pictures that are no scores."""


@dataclass(frozen=True)
class Heat:
    """One heat map: its row of the table, and its picture (None where there is no target).

    ``target`` is told apart from those of other explanations. ``raw`` is the file with the map's values (of a
    volume those of the planes that are drawn), in
    which it is called ``name``.
    """

    target: str
    row: OneMap
    file: Path | None
    raw: Path | None = None
    name: str = ""
    frame: MapFrame = NO_FRAME

    @property
    def method(self) -> str:
        """The method's label."""
        return self.row.method

    @property
    def layer(self) -> str:
        """The layer; empty where the map is of the input."""
        return self.row.layer or ""


@dataclass(frozen=True)
class Flag:
    """A finding of an audit in one picture: a short name, and a sentence."""

    name: str
    text: str


@dataclass(frozen=True)
class GalleryCard:
    """One picture as one run sees it. ``row`` is all that the first table says of it.

    ``slices`` is the file with which a volume can be scrolled through.
    """

    run: str
    split: str
    name: str
    status: str
    error: str
    row: PictureScores | PictureMaps
    pictures: dict[str, Path]
    heatmaps: tuple[Heat, ...] = ()
    flags: tuple[Flag, ...] = ()
    slices: Path | None = None

    @property
    def dice(self) -> float | None:
        """The Dice score, by which the gallery is sorted; None where no truth is known."""
        return self.row.dice

    @property
    def native(self) -> tuple[int, ...] | None:
        """Rows and columns (before them slices) of the picture itself, where they are known."""
        return next((heat.frame.native for heat in self.heatmaps if heat.frame.native), None)

    @property
    def shown(self) -> Path | None:
        """The picture that stands for the card."""
        return self.pictures.get("orig") or self.pictures.get("overlay")

    @cached_property
    def scores(self) -> dict[str, object]:
        """The scores of the prediction to show; empty where no truth is known."""
        found = {name: value for name, value in self.row.plain().items() if name not in NO_SCORES}
        if isinstance(self.row, PictureScores) and "objects" in self.row:
            objects = self.row.objects
            found |= {"missed_objects": objects.missed, "invented_objects": objects.invented}
        return found

    @property
    def files(self) -> list[Path]:
        """All pictures of the card."""
        return [*self.pictures.values(), *(heat.file for heat in self.heatmaps if heat.file)]


def gallery(runs: Sequence[RunContents]) -> tuple[list[GalleryCard], int]:
    """Return at most `LIMIT` cards of all runs, from worst to best, and how many there are in all."""
    shown: list[GalleryCard] = []
    total = 0
    for run in runs:
        cards = cards_of(run)
        total += len(cards)
        shown += choose_cards(cards, max(1, LIMIT // len(runs)))
    return sorted(shown, key=_worst_first), total


def cards_of(run: RunContents) -> list[GalleryCard]:
    """Return one card for each picture of a run: evaluated ones with their maps, then the others."""
    cards: dict[tuple[str, str], GalleryCard] = {}
    for evaluated in run.evaluations:
        for scores in evaluated.table.images:
            cards[evaluated.split, scores.name] = _card(run.name, evaluated.split, evaluated, scores)
    for part in run.explanations:
        for row in part.table.samples:
            split = part.table.split
            key = next((k for k in cards if k[1] == row.name and split is None), (split or "", row.name))
            if IN_PLANES in row.files and key in cards and cards[key].heatmaps:
                # Another folder may show other planes of the volume: its maps don't lie on that picture.
                key = (key[0], f"{row.name} ({part.name})")
            known = cards[key] if key in cards else _card(run.name, key[0], part, row)
            pictures = {**_pictures(part, row), **known.pictures}
            if IN_PLANES in row.files:
                pictures = {**known.pictures, **_pictures(part, row)}
            cards[key] = replace(
                known,
                pictures=pictures,
                heatmaps=_with_maps(known.heatmaps, part, row),
                slices=part.file_of(row, "slices"),
            )
    flags = _flags(run)
    for key, card in cards.items():
        if card.name in flags:
            cards[key] = replace(card, flags=tuple(flags[card.name]))
    # Without pictures and without anything to say, a card would be an empty box.
    return [card for card in cards.values() if card.files or card.status == "failed"]


def choose_cards(cards: Sequence[GalleryCard], limit: int) -> list[GalleryCard]:
    """Keep ``limit`` cards: explained ones first, then the worst, then an even spread over the rest."""
    if len(cards) <= limit:
        return list(cards)
    ranked = sorted(cards, key=lambda card: (not card.heatmaps, *_worst_first(card)))
    num_worst = (limit + 1) // 2
    kept, rest = ranked[:num_worst], ranked[num_worst:]
    num_spread = limit - num_worst
    return kept + [rest[i * len(rest) // num_spread] for i in range(num_spread)]


def switches(cards: Iterable[GalleryCard]) -> dict[str, list[str]]:
    """Return the targets, methods and layers that the gallery can switch between, in order of appearance."""
    heatmaps = [heat for card in cards for heat in card.heatmaps]
    return {
        "target": list(dict.fromkeys(heat.target for heat in heatmaps)),
        "method": list(dict.fromkeys(heat.method for heat in heatmaps)),
        "layer": list(dict.fromkeys(heat.layer for heat in heatmaps if heat.layer)),
    }


def _worst_first(card: GalleryCard) -> tuple[bool, float, str, str]:
    return (card.dice is None, card.dice or 0.0, card.name, card.run)


def _card(run: str, split: str, part: Evaluated | Explained, row: PictureScores | PictureMaps) -> GalleryCard:
    return GalleryCard(
        run=run,
        split=split,
        name=row.name,
        status=row.status,
        error=row.error,
        row=row,
        pictures=_pictures(part, row),
    )


def _pictures(part: Evaluated | Explained, row: PictureScores | PictureMaps) -> dict[str, Path]:
    found = {kind: part.file_of(row, kind) for kind in PLAIN}
    return {kind: file for kind, file in found.items() if file is not None}


def _with_maps(known: Sequence[Heat], part: Explained, row: PictureMaps) -> tuple[Heat, ...]:
    """Append the maps of ``row``; a map of the same name from another folder is told apart by the folder."""
    heatmaps = list(known)
    taken = {(heat.target, heat.method, heat.layer) for heat in known}
    raw = part.file_of(row, IN_PLANES) or part.file_of(row, "raw")
    for entry, name in zip(row.maps, row.map_names, strict=True):
        twice = (entry.target, entry.method, entry.layer or "") in taken
        target = f"{entry.target} ({part.name})" if twice else entry.target
        heatmaps.append(Heat(target, entry, part.file(entry.file), raw, name, row.frame))
        if (apart := entry.of_folds) is not None:
            several = len({each.target for each in row.maps}) > 1
            name = map_name(apart.method, apart.layer, target=entry.target if several else "")
            heatmaps.append(Heat(target, apart, part.file(apart.file), raw, name, row.frame))
    return tuple(heatmaps)


def _flags(run: RunContents) -> dict[str, list[Flag]]:
    """Return what the audits of a run found, by the name of the picture.

    A region is flagged where taking it away costs at least `MATTERS` of the score, and more than taking away
    the same shape elsewhere does.
    """
    found: dict[str, list[Flag]] = {}
    for row in (row for part in run.scorecards if part.audit for row in part.audit.images):
        drop, control = row.drop, row.control
        if drop is None or drop < MATTERS or (control is not None and drop <= control):
            continue
        against = "" if control is None else f"; the same shape elsewhere {control:.0%}"
        text = f"Without the region {row.region} the answer loses {drop:.0%} of its score{against}."
        found.setdefault(row.name, []).append(Flag(row.region, text))
    return found

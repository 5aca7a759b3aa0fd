"""The gallery: one card for each picture and run, with its scores, pictures and heat maps."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from seglens.report.contents import Part, RunContents
from seglens.report.rasters import names_of

LIMIT = 100
"""Cards in one report, over all its runs: a page that a browser still opens at once."""

MATTERS = 0.05
"""Share of the score that a region takes away at least to be flagged, as `seglens.judge.audit` has it."""

PLAIN = {"orig": "Image", "gt": "Truth", "pred": "Prediction", "overlay": "Overlay"}
"""Pictures that are not heat maps, in the order of the card."""


@dataclass(frozen=True)
class Heat:
    """One heat map: what it explains, how, its picture (None where there is no target) and its numbers.

    ``raw`` is the file with its values, in which it is called ``name``; ``row`` is all that the table says of
    it, and ``asked`` the target as it was asked for, by which its region is called.
    """

    target: str
    method: str
    layer: str
    status: str
    file: Path | None
    statistics: dict[str, float | None]
    nulls: dict[str, dict[str, float | None]]
    raw: Path | None = None
    name: str = ""
    asked: str = ""
    row: dict[str, Any] = field(default_factory=dict)
    frame: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Flag:
    """What an audit found in one picture: a short name, and a sentence."""

    name: str
    text: str


@dataclass(frozen=True)
class Card:
    """One picture as one run sees it. ``scores`` is empty where no truth is known."""

    run: str
    split: str
    name: str
    status: str
    error: str
    scores: dict[str, Any]
    pictures: dict[str, Path]
    heats: tuple[Heat, ...] = ()
    flags: tuple[Flag, ...] = ()

    @property
    def dice(self) -> float | None:
        """The Dice score, by which the gallery is sorted."""
        value = self.scores.get("dice")
        return float(value) if isinstance(value, int | float) else None

    @property
    def native(self) -> list[int] | None:
        """Rows and columns of the picture itself, where they are known."""
        return next((list(heat.frame["native"]) for heat in self.heats if heat.frame.get("native")), None)

    @property
    def files(self) -> list[Path]:
        """All pictures of the card."""
        return [*self.pictures.values(), *(heat.file for heat in self.heats if heat.file)]


def gallery(runs: Sequence[RunContents], limit: int = LIMIT) -> tuple[list[Card], int]:
    """Return the cards of all runs from worst to best, and how many there were before ``limit``."""
    shown: list[Card] = []
    total = 0
    for run in runs:
        cards = cards_of(run)
        total += len(cards)
        shown += choose(cards, max(1, limit // len(runs)))
    return sorted(shown, key=_worst_first), total


def cards_of(run: RunContents) -> list[Card]:
    """Return one card for each picture of a run: evaluated ones with their maps, then the others."""
    cards: dict[tuple[str, str], Card] = {}
    for part in run.evaluations:
        for row in part.table.get("images", []):
            split = str(part.table.get("split", part.name))
            cards[split, str(row["name"])] = _evaluated(run.name, split, part, row)
    for part in run.explanations:
        for row in part.table.get("samples", []):
            key = _place(cards, part.table.get("split"), str(row["name"]))
            known = cards.get(key) or _evaluated(run.name, key[0], part, row)
            pictures = {**_pictures(part, row), **known.pictures}
            heats = _with_maps(known.heats, part, row)
            cards[key] = replace(known, pictures=pictures, heats=heats)
    flags = _flags(run)
    for key, card in cards.items():
        if card.name in flags:
            cards[key] = replace(card, flags=tuple(flags[card.name]))
    # Without pictures and without anything to say, a card would be an empty box.
    return [card for card in cards.values() if card.files or card.status == "failed"]


def choose(cards: Sequence[Card], limit: int) -> list[Card]:
    """Keep ``limit`` cards: explained ones first, then the worst, then an even spread over the rest."""
    if len(cards) <= limit:
        return list(cards)
    ranked = sorted(cards, key=lambda card: (not card.heats, *_worst_first(card)))
    num_worst = (limit + 1) // 2
    kept, rest = ranked[:num_worst], ranked[num_worst:]
    num_spread = limit - num_worst
    return kept + [rest[i * len(rest) // num_spread] for i in range(num_spread)]


def switches(cards: Iterable[Card]) -> dict[str, list[str]]:
    """Return the targets, methods and layers that the gallery can switch between, in order of appearance."""
    heats = [heat for card in cards for heat in card.heats]
    return {
        "target": list(dict.fromkeys(heat.target for heat in heats)),
        "method": list(dict.fromkeys(heat.method for heat in heats)),
        "layer": list(dict.fromkeys(heat.layer for heat in heats if heat.layer)),
    }


def _worst_first(card: Card) -> tuple[bool, float, str, str]:
    return (card.dice is None, card.dice or 0.0, card.name, card.run)


def _place(cards: dict[tuple[str, str], Card], split: object, name: str) -> tuple[str, str]:
    """Return the card that an explained picture belongs to: the same split, or the one that has the name."""
    if split is not None:
        return (str(split), name)
    return next((key for key in cards if key[1] == name), ("", name))


def _evaluated(run: str, split: str, part: Part, row: dict[str, Any]) -> Card:
    skipped = {"name", "status", "error", "files", "maps", "sheets"}
    scores = {key: value for key, value in row.items() if key not in skipped}
    return Card(
        run=run,
        split=split,
        name=str(row["name"]),
        status=str(row.get("status", "ok")),
        error=str(row.get("error") or ""),
        scores=scores,
        pictures=_pictures(part, row),
    )


def _pictures(part: Part, row: dict[str, Any]) -> dict[str, Path]:
    files = row.get("files") or {}
    found = {kind: part.file(files.get(kind)) for kind in PLAIN}
    return {kind: file for kind, file in found.items() if file is not None}


def _with_maps(known: Sequence[Heat], part: Part, row: dict[str, Any]) -> tuple[Heat, ...]:
    """Append the maps of ``row``; a map of the same name from another folder is told apart by the folder."""
    heats = list(known)
    taken = {(heat.target, heat.method, heat.layer) for heat in known}
    rows, raw = row.get("maps") or [], part.file((row.get("files") or {}).get("raw"))
    for entry, name in zip(rows, names_of(rows), strict=True):
        asked, method, layer = str(entry["target"]), str(entry["method"]), str(entry.get("layer") or "")
        target = f"{asked} ({part.name})" if (asked, method, layer) in taken else asked
        heats.append(
            Heat(
                target=target,
                method=method,
                layer=layer,
                status=str(entry.get("status", "ok")),
                file=part.file(entry.get("file")),
                statistics=entry.get("statistics") or {},
                nulls=entry.get("nulls") or {},
                raw=raw,
                name=name,
                asked=asked,
                row=entry,
                frame=row.get("frame") or {},
            )
        )
    return tuple(heats)


def _flags(run: RunContents) -> dict[str, list[Flag]]:
    """Return what the audits of a run found, by the name of the picture.

    A region is flagged where taking it away costs at least `MATTERS` of the score, and more than taking away
    the same shape elsewhere does.
    """
    found: dict[str, list[Flag]] = {}
    for part in run.scorecards:
        for row in (part.audit or {}).get("images", []):
            drop, control = row.get("drop"), row.get("control")
            if drop is None or drop < MATTERS or (control is not None and drop <= control):
                continue
            against = "" if control is None else f"; the same shape elsewhere {control:.0%}"
            text = f"Without the region {row['region']} the answer loses {drop:.0%} of its score{against}."
            found.setdefault(str(row["name"]), []).append(Flag(str(row["region"]), text))
    return found

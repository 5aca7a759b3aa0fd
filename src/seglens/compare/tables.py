"""Rows of a comparison: pictures, those that changed most, what is missing, and tables as CSV files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from seglens.compare.matching import Common
from seglens.report.contents import Evaluated, Explained, Judged, RunContents
from seglens.results.comparison import ComparisonTable, Gain, Lacking, PictureChange
from seglens.results.tables import write_rows

NUM_EXPLAINED = 3
"""Of how many pictures that gained, and that lost, explanations are proposed."""
GIVEN = (("samples",), ("num_images", "num_samples"))
"""Settings that say which pictures, and how many."""
BY = "dice"
"""The score by which pictures are said to have changed."""


def pictures(common: Common, reference: str) -> list[PictureChange]:
    """Return a row for each common picture: its score in every run and the changes, the largest first."""
    found = []
    for index, name in enumerate(common.names):
        scores = {run: rows[index].dice for run, rows in common.rows.items()}
        base = scores[reference]
        change = {
            run: None if base is None or value is None else value - base
            for run, value in scores.items()
            if run != reference
        }
        numbers = {run: rows[index].index for run, rows in common.rows.items()}
        found.append(PictureChange(name=name, dice=scores, change=change, index=numbers))
    return sorted(found, key=lambda row: -row.largest)


def changed(rows: Sequence[PictureChange], run: str, top: int) -> dict[str, tuple[Gain, ...]]:
    """Return the ``top`` pictures that gained most in a run, and the ``top`` that lost most."""
    known = [(change, row.name) for row in rows if (change := row.change[run]) is not None]
    gained = sorted((pair for pair in known if pair[0] > 0), reverse=True)[:top]
    lost = sorted(pair for pair in known if pair[0] < 0)[:top]
    return {
        kind: tuple(Gain(name=name, change=change) for change, name in pairs)
        for kind, pairs in (("gained", gained), ("lost", lost))
    }


def explaining(
    runs: Sequence[RunContents],
    rows: Sequence[PictureChange],
    kinds: Mapping[str, Mapping[str, Sequence[Gain]]],
    split: str,
) -> list[str]:
    """Return the commands that explain the pictures that changed most, the first of each kind."""
    most = [gain for kind in kinds.values() for gains in kind.values() for gain in gains[:NUM_EXPLAINED]]
    names = list(dict.fromkeys(gain.name for gain in most))
    by_name = {row.name: row.index for row in rows}
    found = []
    for run in runs:
        numbers = [by_name[name][run.name] for name in names if by_name[name][run.name] is not None]
        if numbers:
            text = " ".join(map(str, numbers))
            found.append(f"seglens explain {run.folder} --split {split} --samples {text}")
    return found


def missing_results(
    runs: Sequence[RunContents],
    evaluations: Mapping[str, Evaluated | None],
    explained: Mapping[str, Explained | None],
    judged: Mapping[str, Judged | None],
    split: str,
) -> list[Lacking]:
    """Return what runs lack for a comparison, each with the command that makes it."""
    found = []
    for verb, parts in (("evaluate", evaluations), ("explain", explained), ("judge", judged)):
        like = next((part for part in parts.values() if part is not None), None)
        for run in runs:
            if parts[run.name] is None:
                words = ["seglens", verb, str(run.folder), "--split", split, *(_as_in(like) if like else [])]
                found.append(Lacking(run=run.name, verb=verb, command=" ".join(words)))
    return found


def _as_in(part: Evaluated | Explained | Judged) -> list[str]:
    """Return the flags that ask for the same maps as another run has."""
    settings = part.record.settings if part.record else {}
    words = []
    for name in ("methods", "layers"):
        values = [str(value) for value in settings.get(name) or []]
        if values and all(
            value.replace("-", "").replace("_", "").replace(".", "").replace("+", "").isalnum()
            for value in values
        ):
            words += [f"--{name}", *values]
    samples, num = (next((settings[n] for n in names if settings.get(n)), None) for names in GIVEN)
    words += ["--samples", *map(str, samples)] if samples else []
    words += ["--num-images", str(num)] if num and not samples else []
    return words


def write_tables(table: ComparisonTable, folder: Path) -> None:
    """Write ``scores.csv``, ``images.csv`` and ``maps.csv`` of a comparison."""
    write_rows([row.plain() for row in table.scores], folder / "scores.csv")
    images = [
        {
            "name": row.name,
            **{f"{BY} {run}": value for run, value in row.dice.items()},
            **{f"change {run}": value for run, value in row.change.items()},
        }
        for row in table.images
    ]
    write_rows(images, folder / "images.csv")
    write_rows([row.plain() for row in table.map_images], folder / "maps.csv")

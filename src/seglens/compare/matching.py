"""Which pictures of several evaluations are the same: by name, and by the hashes of picture and truth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from seglens.evaluate.intervals import Groups, numbered
from seglens.results.comparison import LeftOut
from seglens.results.resampling import Resampling
from seglens.results.scores import PictureScores

PictureKey = tuple[str, int]
"""A picture's name, and which one it is of those that bear it."""


@dataclass(frozen=True)
class Common:
    """The pictures that all runs have scored against the same truth.

    ``rows`` holds for each run its rows, in one order for all. ``left_out`` says of every other picture why.
    ``hashed`` tells whether all pictures and truths were compared by their contents; evaluations of older
    versions kept no hashes, and then it is by name and by the number of true pixels.
    """

    rows: Mapping[str, tuple[PictureScores, ...]]
    left_out: tuple[LeftOut, ...]
    hashed: bool

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the common pictures."""
        return tuple(row.name for row in next(iter(self.rows.values()), ()))


def common_pictures(tables: Mapping[str, Sequence[PictureScores]]) -> Common:
    """Match the rows of evaluations, by run; of each picture that is not common to all, say why."""
    keyed = {run: _keyed(rows) for run, rows in tables.items()}
    order = list(dict.fromkeys(key for rows in keyed.values() for key in rows))
    found: dict[str, list[PictureScores]] = {run: [] for run in tables}
    left_out, hashed = [], True
    for key in order:
        rows = {run: rows[key] for run, rows in keyed.items() if key in rows}
        why = _difference(rows, list(tables))
        if why:
            left_out.append(LeftOut(name=key[0], why=why))
            continue
        hashed = hashed and all(row.image_hash and row.truth_hash for row in rows.values())
        for run, row in rows.items():
            found[run].append(row)
    return Common({run: tuple(rows) for run, rows in found.items()}, tuple(left_out), hashed)


def joined_groups(groups: Sequence[Sequence[str]]) -> Groups:
    """Return the number of each picture's group: pictures that any run has in one group are in one.

    ``groups`` are the names of the groups of the same pictures in each run; a picture without one is alone.
    """
    own = list(range(len(groups[0])))
    for names in groups:
        first: dict[str, int] = {}
        for picture, name in enumerate(names):
            one, other = own[picture], own[first.setdefault(name, picture)] if name else own[picture]
            if one != other:
                own = [other if each == one else each for each in own]
    return numbered(own)


def resampling_of(tables: Sequence[Resampling], groups: Groups) -> Resampling:
    """Return what intervals over common pictures resample; who named the groups is said of the first run."""
    named = next((table for table in tables if table.by), Resampling())
    num = len(groups)
    return named.model_copy(update={"num_groups": len(set(groups.tolist())), "num_images": num})


def _keyed(rows: Sequence[PictureScores]) -> dict[PictureKey, PictureScores]:
    seen: dict[str, int] = {}
    found = {}
    for row in sorted(rows, key=lambda row: (row.index is None, row.index or 0)):
        found[row.name, seen.setdefault(row.name, 0)] = row
        seen[row.name] += 1
    return found


def _difference(rows: Mapping[str, PictureScores], runs: Sequence[str]) -> str:
    """Return why a picture can't be compared; an empty text where it can."""
    lacking = [run for run in runs if run not in rows]
    if lacking:
        return f"not among the pictures of {' and '.join(lacking)}"
    failed = [run for run, row in rows.items() if row.status == "failed"]
    if failed:
        return f"could not be scored in {' and '.join(failed)}"
    if _differ(rows, "image_hash"):
        return "another picture of the same name"
    if _differ(rows, "truth_hash") or _differ(rows, "truth_pixels"):
        return "the same picture with another truth"
    return ""


def _differ(rows: Mapping[str, PictureScores], key: str) -> bool:
    """Whether two rows differ in a value that both have."""
    return len({row[key] for row in rows.values() if row[key] not in (None, "")}) > 1

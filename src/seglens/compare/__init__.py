"""Two or more runs side by side: which scores improved, on which pictures, and whether the attention moved.

The first run is the reference. Everything comes from what ``evaluate``, ``explain`` and ``judge`` left in the
run folders; what is missing is named with the command that makes it.
"""

import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from seglens.arguments import checked
from seglens.callable_module import make_callable
from seglens.compare import attention, differences, drawing, page
from seglens.compare.differences import differing, same_pictures, side_by_side
from seglens.compare.matching import Common, common_pictures, joined_groups, resampling_of
from seglens.compare.tables import changed, explaining, missing_results, pictures, write_tables
from seglens.data.classes import NO_MAP
from seglens.data.layout import OUT_OF_FOLD, DataSettings, Split
from seglens.errors import DataError, SeglensWarning, SettingError, unknown_name
from seglens.evaluate import evaluate
from seglens.files.output import new_folder, safe_name
from seglens.files.overwrite import check_output, refuse_overlap
from seglens.report.contents import Evaluated, Explained, Judged, RunContents, read_evaluation, read_runs
from seglens.results import record as records
from seglens.results.comparison import ComparisonTable, MapChange, PictureMapChange, ScoreChange
from seglens.results.resampling import Resampling
from seglens.runs import Run, load
from seglens.runs.data import open_split

__all__ = ["Comparison", "compare"]

Kind = TypeVar("Kind", Evaluated, Explained, Judged)

FILE_NAME = page.FILE_NAME
SPLITS = ("test", OUT_OF_FOLD, "valid", "train", "all")
"""Which split is compared where none is named: the first that all runs have something of."""


@dataclass(frozen=True)
class Comparison:
    """The differences of runs. ``table`` is the content of ``compare.json``, which is in ``folder``."""

    folder: Path
    table: ComparisonTable

    @property
    def page(self) -> Path:
        """The HTML file."""
        return self.folder / FILE_NAME

    def to_json(self) -> dict[str, object]:
        """Return everything as plain data."""
        return self.table.plain()


@checked
def compare(
    runs: Sequence[Path | str],
    *,
    out: str | Path | None = None,
    split: str | None = None,
    data: str | Path | DataSettings | None = None,
    layout: str | None = None,
    class_map: Mapping[str, str] = NO_MAP,
    device: str = "auto",
    top: int = 8,
    seed: int = 0,
    force: bool = False,
) -> Comparison:
    """Compare runs with the first one: scores, pictures, maps, verdicts and settings.

    Writes ``compare.html`` (one file that opens offline), ``compare.json`` (all numbers), ``scores.csv``,
    ``images.csv``, ``maps.csv``, ``run.json``, and ``differences/`` with pictures of how attention moved.
    Scores are compared on the pictures that all runs have scored against the same truth, known by name and
    hash; how many were left out is said, and why.

    Args:
        runs: run folders, at least two; the first is the reference.
        out: the folder to write; ``compare/<other runs>`` in the reference by default.
        split: which split; the first of test, folds, valid, train and all that all runs have by default.
        data: evaluate all runs on these pictures, instead of going by the evaluations that are there; as in
            `seglens.open_split`.
        layout: how ``data`` are laid out; recognised by default.
        class_map: which class of the data is which of a run's, where they are not called the same; to each
            run goes what names its classes.
        device: where ``data`` are evaluated.
        top: how many pictures are shown that gained, and that lost, most.
        seed: of the resamples.
        force: replace a comparison that is there.

    Raises:
        SettingError: fewer than two runs, one given twice, or ``top`` is below 1.
        DataError: a folder is no run or is damaged, or the runs have nothing in common to compare.
        OutputExistsError: ``out`` exists and ``force`` is not given.
    """
    began = time.monotonic()
    folders = [Path(run) for run in runs]
    if len(folders) < 2:
        raise SettingError(
            f"Comparing takes at least two runs, received {len(folders)}. Name them, the reference first: "
            "seglens compare runs/first runs/second."
        )
    if top < 1:
        raise SettingError(f"top must be at least 1, received {top}.")
    if out is not None:
        refuse_overlap(Path(out), runs=folders, data=_folders(data))
    contents = read_runs(folders)
    place = Path(out) if out is not None else folders[0] / "compare" / _name(contents[1:])
    check_output(place, "compare", force=force, runs=folders, data=_folders(data))
    with new_folder(place, command="compare", force=force) as folder:
        if data is None:
            split = split or _shared_split(contents)
            evaluations = {run.name: _of_split(run.evaluations, split) for run in contents}
        else:
            models = {run.name: load(run.folder, device=device) for run in contents}
            _refuse_unknown(class_map, models.values())
            pictures = {
                name: open_split(
                    model, split, data=data, layout=layout, class_map=_of_model(class_map, model)
                )
                for name, model in models.items()
            }
            split = next(iter(pictures.values())).name
            evaluations = {
                name: _evaluated(name, model, pictures[name], folder) for name, model in models.items()
            }
        table, shown = _compare(contents, evaluations, split, top, seed)
        drawn = drawing.draw_comparison(shown, table, folder)
        records.write_json(folder / "compare.json", table)
        write_tables(table, folder)
        page.write_page(contents, table, drawn, folder)
        described = records.start(
            "compare",
            seed=seed,
            settings={
                "runs": [str(run) for run in folders],
                "split": split,
                "data": str(data.path if isinstance(data, DataSettings) else data) if data else None,
                "class_map": dict(class_map),
                "top": top,
                "models": {run.name: run.record.model_sha256 for run in contents},
            },
        )
        results = {"num_common": table.num_common, "num_left_out": len(table.left_out)}
        records.finish(described, began, results=results).write(folder)
    return Comparison(place, table)


def _folders(data: str | Path | DataSettings | None) -> list[Path]:
    if data is None:
        return []
    return [data.path if isinstance(data, DataSettings) else Path(data)]


def _compare(
    runs: Sequence[RunContents], evaluations: Mapping[str, Evaluated | None], split: str, top: int, seed: int
) -> tuple[ComparisonTable, drawing.ShownRun]:
    """Return the table of a comparison, and what is shown of it as pictures."""
    reference, others = runs[0], runs[1:]
    explained = {run.name: _of_split(run.explanations, split) for run in runs}
    judged = {run.name: _of_split(run.scorecards, split) for run in runs}
    evaluated = {name: part for name, part in evaluations.items() if part is not None}
    for name, scored in evaluated.items():
        if scored.table.trained_on:
            warnings.warn(f"{name}: {scored.table.trained_on}", SeglensWarning, stacklevel=2)
    common = _common(evaluated, runs, split)
    scores: list[ScoreChange] = []
    maps: list[MapChange] = []
    map_images: list[PictureMapChange] = []
    images = pictures(common, reference.name) if common else []
    kinds = {run.name: changed(images, run.name, top) for run in others} if common else {}
    resampling = Resampling()
    if common is not None:
        first = common.rows[reference.name]
        groups = joined_groups([[row.group for row in rows] for rows in common.rows.values()])
        resampling = resampling_of([evaluated[run.name].table.resampling for run in runs], groups)
        classes = _same_classes({run.name: evaluated[run.name].table.classes for run in runs})
        for run in others:
            rows = differences.score_changes(first, common.rows[run.name], classes, groups=groups, seed=seed)
            scores += [row.model_copy(update={"run": run.name}) for row in rows]
    base = explained[reference.name]
    for run in others:
        part = explained[run.name]
        if base is not None and part is not None:
            moved, each = attention.movements(base, part, seed=seed)
            maps += [row.model_copy(update={"run": run.name}) for row in moved]
            map_images += [row.model_copy(update={"run": run.name}) for row in each]
    cards = {name: part for name, part in judged.items() if part is not None}
    table = ComparisonTable(
        split=split,
        reference=reference.name,
        runs=tuple(run.name for run in runs),
        num_common=len(common.names) if common else 0,
        matched_by="name and hash" if common and common.hashed else "name and number of true pixels",
        left_out=common.left_out if common else (),
        scores=tuple(scores),
        images=tuple(images),
        changed=kinds,
        explain_changed=tuple(explaining(runs, images, kinds, split)) if common else (),
        maps=tuple(maps),
        map_images=tuple(map_images),
        scorecard=tuple(side_by_side(cards)),
        judged_same_pictures=same_pictures(cards) if len(cards) > 1 else None,
        settings=tuple(differing(runs)),
        resampling=resampling,
        missing=tuple(missing_results(runs, evaluations, explained, judged, split)),
        definitions={**differences.DEFINITIONS, **attention.DEFINITIONS},
    )
    if common is None and not table.maps and not table.scorecard:
        commands = "; ".join(entry.command for entry in table.missing[:2])
        raise DataError(
            f"{' and '.join(table.runs)} have nothing of the {split} split in common to compare "
            f"({'; '.join(map(_results_of, runs))}). Make it, as with: {commands or 'seglens evaluate RUN'}. "
            "Or evaluate all on the same pictures by naming them with --data."
        )
    return table, drawing.ShownRun(
        evaluated, {name: part for name, part in explained.items() if part is not None}
    )


def _common(evaluated: Mapping[str, Evaluated], runs: Sequence[RunContents], split: str) -> Common | None:
    """Match the evaluations of all runs; None where not all have one.

    Raises:
        DataError: all have one, and not a single picture is the same.
    """
    if len(evaluated) < len(runs):
        return None
    common = common_pictures({name: part.table.images for name, part in evaluated.items()})
    if common.names:
        return common
    whys = list(dict.fromkeys(entry.why for entry in common.left_out))
    raise DataError(
        f"The runs have no picture of the {split} split in common: {'; '.join(whys) or 'there are none'}. "
        "Evaluate all on the same pictures by naming them with --data."
    )


def _same_classes(classes: Mapping[str, Sequence[str]]) -> int:
    """Return how many classes the runs tell apart.

    Raises:
        SettingError: they are not the same; two classes are a background and an object, whatever its name.
    """
    first, names = next(iter(classes.items()))
    for run, others in classes.items():
        if len(others) != len(names) or (len(names) > 2 and set(others[1:]) != set(names[1:])):
            raise SettingError(
                f"{first} and {run} don't tell the same classes apart: {', '.join(names)}; "
                f"{', '.join(others)}. Their scores can't be compared; name runs with the same classes."
            )
    return len(names)


def _of_split(parts: Sequence[Kind], split: str) -> Kind | None:
    """Return the result on a split, that in the folder of its name first, as others were asked for otherwise.

    A scorecard and maps of image files name no split, their folder does.
    """
    named = sorted((part for part in parts if part.split == split), key=lambda part: part.name == split)
    return named[-1] if named else None


def _shared_split(runs: Sequence[RunContents]) -> str:
    """Return the first split of which all runs have an evaluation; failing that, any result."""
    for kinds in (("evaluations",), ("explanations", "scorecards")):
        for split in SPLITS:
            having = [any(_of_split(getattr(run, kind), split) for kind in kinds) for run in runs]
            if all(having):
                return split
    return SPLITS[0]


def _results_of(run: RunContents) -> str:
    splits = dict.fromkeys(part.split for part in run.parts)
    return f"{run.name} has {', '.join(splits) or 'no'} results"


def _evaluated(name: str, model: Run, pictures: Split, folder: Path) -> Evaluated:
    """Evaluate a run into the folder of the comparison."""
    place = folder / "evaluate" / safe_name(name)
    evaluate(model, pictures, out=place, save_images=True)
    return read_evaluation(place)


def _of_model(class_map: Mapping[str, str], model: Run) -> dict[str, str]:
    """Return what of ``class_map`` names classes of ``model``."""
    return {theirs: ours for theirs, ours in class_map.items() if ours in model.task.classes}


def _refuse_unknown(class_map: Mapping[str, str], models: Iterable[Run]) -> None:
    known = dict.fromkeys(name for model in models for name in model.task.classes)
    for name in class_map.values():
        if name not in known:
            raise unknown_name("class of the models", name, known)


def _name(others: Sequence[RunContents]) -> str:
    return safe_name("-".join(run.folder.resolve().name for run in others))


make_callable(__name__)

"""Evaluation: the scores of a run over a split, at the native resolution of every picture.

Probabilities are brought to native size and only then made a mask, which is compared with the native truth.
What is kept of a picture is one row, so that memory doesn't grow with the split; what can't be scored is
listed, and the rest is done.
"""

import time
from collections.abc import Mapping, Sequence
from functools import partial, reduce
from math import nan
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from seglens import exports
from seglens.arguments import checked
from seglens.arguments.renamed import renamed
from seglens.callable_module import make_callable
from seglens.data.classes import NO_MAP, in_classes_of
from seglens.data.from_torch import TorchData, as_split
from seglens.data.groups import grouped, grouping_of
from seglens.data.layout import Split
from seglens.data.listing import seen_by
from seglens.drawing.notebook import card, data_frame, paragraph, table
from seglens.errors import DataError, SettingError
from seglens.evaluate import boundaries, calibration, centre_lines, object_scores, strata, surroundings
from seglens.evaluate import scores as overlap
from seglens.evaluate import uncertainty as uncertain
from seglens.evaluate.advice import advise, emptiness
from seglens.evaluate.errors_exported import NO_ERRORS, Errors, categories
from seglens.evaluate.intervals import numbered
from seglens.evaluate.object_scores import check_sizes, object_rows, object_table
from seglens.evaluate.scores import OF_FOREGROUND, num_pixels, per_class, pooled_scores, summary
from seglens.evaluate.tally import Tally, tally
from seglens.evaluate.uncertainty import conclude
from seglens.files.output import safe_name
from seglens.files.overwrite import check_output
from seglens.predict.original import Inference, mask_at_original_size, probabilities_at_original_size
from seglens.predict.tiles import check_tiles
from seglens.results import record as records
from seglens.results.names import count, formatted
from seglens.results.scores import (
    CENTRE_LINES,
    PIXELS,
    SCORES,
    SURFACES,
    Bin,
    ClassScores,
    EvaluationTable,
    PictureScores,
    PooledScores,
    Reliability,
    Scores,
)
from seglens.results.spread import Spread
from seglens.results.tables import write_rows
from seglens.runs import Run, prepared
from seglens.runs.data import refuse_other_axes, with_tool
from seglens.runtime.device import choose_precision
from seglens.runtime.distributed import ALONE, Share

if TYPE_CHECKING:
    import pandas

__all__ = ["Evaluation", "evaluate", "mask_at_original_size", "probabilities_at_original_size"]

DEFINITIONS = {
    **overlap.DEFINITIONS,
    **boundaries.DEFINITIONS,
    **object_scores.DEFINITIONS,
    **calibration.DEFINITIONS,
    **centre_lines.DEFINITIONS,
    **strata.DEFINITIONS,
    **uncertain.DEFINITIONS,
    **surroundings.DEFINITIONS,
}
"""Everything that an evaluation measures, in plain words."""


class Evaluation(EvaluationTable):
    """The scores of one split, as `seglens.results.scores.EvaluationTable` has them."""

    @property
    def failed(self) -> tuple[PictureScores, ...]:
        """The rows of pictures that could not be scored."""
        return tuple(row for row in self.images if row.status == "failed")

    @property
    def not_shown(self) -> tuple[str, ...]:
        """One sentence for each class that no picture shows."""
        num, what = len(self.images) - len(self.failed), "volume" if self.unit == "mm" else "picture"
        return tuple(
            f"None of {count(num, what)} shows {label}." for label, shown in self.shown.items() if not shown
        )

    def _repr_html_(self) -> str:
        """Show in a notebook the scores, pooled and per image, and the worst pictures."""
        rows = []
        for name in (*SCORES, *SURFACES):
            each = self.average(name)
            between = f"{formatted(each.low)} to {formatted(each.high)}" if name in self.per_image else ""
            values = formatted(self.pooled.score(name)), formatted(each.mean), between
            rows.append((name.replace("_", " "), *values))
        worst = [row for row in self.images if row.status != "failed"][:5]
        parts = [
            table(
                ("score", "pooled", "per image", "95 % interval"),
                rows,
                hints=[DEFINITIONS.get(name, "") for name in (*SCORES, *SURFACES)],
            ),
            table(("worst pictures", "dice"), [(row.name, formatted(row.dice)) for row in worst]),
        ]
        parts += [paragraph(text) for text in self.not_shown]
        if self.failed:
            parts.append(paragraph(f"{count(len(self.failed), 'picture')} could not be scored."))
        return card(f"Evaluation of {self.split}, {count(len(self.images), 'picture')}", *parts)

    def to_pandas(self) -> "pandas.DataFrame":
        """Return the pictures' scores as a table, one row a picture."""
        return data_frame([row.plain() for row in self.images])

    def to_json(self) -> dict[str, object]:
        """Return everything as plain data, with the definition of every score."""
        return self.plain()


@renamed(flips="tta")
@checked
def evaluate(
    run: Run,
    split: Split | TorchData,
    *,
    out: str | Path | None = None,
    save_images: bool = False,
    force: bool = False,
    batch_size: int = 8,
    precision: str = "auto",
    tta: bool = False,
    tiles: str = "auto",
    sizes: Sequence[float] | None = None,
    split_touching: bool = False,
    uncertainty: bool = False,
    export: Sequence[str] = (),
    class_map: Mapping[str, str] = NO_MAP,
    share: Share = ALONE,
) -> Evaluation:
    """Score ``run`` on ``split``.

    It writes ``scores.json``, ``scores.csv``, ``objects.csv`` (one row an object) and ``reliability.png`` in
    ``out``.

    ``out`` left out is ``evaluate/<split>`` in the run folder; of a run without folder nothing is written.
    ``save_images`` adds for each picture ``orig.png gt.png pred.png overlay.png metrics.json``; the overlay
    shows the prediction, with the truth as a white outline. ``precision`` and ``tta`` are those of
    `seglens.predict.infer`; ``tiles`` says when windows are used, see `seglens.predict.tiles.TILES`. Classes
    are matched by name; ``class_map`` says which class of the split is which of the run, where they are
    called otherwise. Objects (lesions, nuclei) are told by ``sizes``, bounds in pixels (of volumes cubic
    millimetres), by default terciles; ``split_touching`` cuts predicted ones apart, see `seglens.objects`.
    ``export`` writes what was found, missed and invented for other programs, below ``errors/``: ``coco``
    (FiftyOne, CVAT), ``geojson`` (QuPath), ``tiff`` (napari, Fiji), see `seglens.exports`. Each kind is a
    category, such as "lesion missed".
    With ``uncertainty`` mirror images, and the networks of folds, say where they disagree, and whether errors
    lie there, see `seglens.evaluate.uncertainty`.
    ``share`` is this process's part of a job that is spread over several, which together
    score as one alone would.

    Raises:
        SettingError: the run and the split have different classes, or a setting is not allowed.
        DataError: the split is empty, or none of its pictures could be scored.
        OutputExistsError: ``out`` exists and ``force`` is not given.
    """
    began = time.monotonic()
    how = Inference(precision, tta, tiles)
    split = as_split(split, run.task, run.spec.channels)
    settings = _check(run, split, batch_size, how)
    check_sizes(sizes)
    exports.check_formats(export, split.dims)
    settings |= {
        "sizes": None if sizes is None else [float(size) for size in sizes],
        "split_touching": split_touching,
        "uncertainty": uncertainty,
    }
    split = with_tool(run, grouped(in_classes_of(run.task, split, class_map)))
    if out is None and run.folder is not None:
        out = folder_of(run.folder, split.name)
    if out is not None and share.first:
        check_output(Path(out), "evaluate", force=force, runs=filter(None, [run.folder]), files=split.files)
    share.agree("pictures", [entry.name for entry in split.entries])
    batches = share.of(-(-len(split) // batch_size))
    indices = range(batches.start * batch_size, min(batches.stop * batch_size, len(split)))
    score = partial(
        tally,
        prepared(run, how),
        split,
        indices,
        how,
        batch_size=batch_size,
        shown=share.first,
        split_touching=split_touching,
        uncertainty=uncertainty,
    )
    if out is None:
        if save_images or export:
            what = "Images" if save_images else "Errors"
            raise SettingError(f"{what} can't be saved for a run without folder: name one with 'out'.")
        return _summarise(run, split, reduce(add, share.gather([score()])), settings, sizes)
    with share.folder(Path(out), command="evaluate", force=force) as folder:
        if save_images:
            (folder / "samples").mkdir(exist_ok=True)
        errors = NO_ERRORS
        if export:
            files = exports.files_from_here([entry.image for entry in split.entries])
            errors = Errors(folder / "errors", export, files)
            exports.make_folders(export, errors.folder)
        own = score(folder=folder if save_images else None, errors=errors)
        counted = reduce(add, share.gather([own]))
        found = _summarise(run, split, counted, settings, sizes)
        if share.first:
            _write(found, counted, folder)
            exports.finish(export, categories(run.task), errors.folder)
            record = records.start(
                "evaluate",
                device=str(run.segmenter.device),
                settings={
                    "split": split.name,
                    "batch_size": batch_size,
                    "save_images": save_images,
                    "export": list(export),
                    "processes": share.size,
                    **settings,
                },
                model=run.spec.model_dump(mode="json"),
                task=run.task.model_dump(mode="json"),
                model_sha256=run.sha256,
            )
            results = {
                "num_images": len(found.images),
                "num_failed": len(found.failed),
                "pooled": found.pooled,
            }
            records.finish(record, began, results=results).write(folder)
    return found


def folder_of(run: Path, split: str) -> Path:
    """Return the folder of a run's evaluation on a split, where none is named."""
    return run / "evaluate" / safe_name(split)


def _summarise(
    run: Run, split: Split, counted: Tally, settings: Mapping[str, object], sizes: Sequence[float] | None
) -> Evaluation:
    """Pool the counts and average the rows."""
    classes, rows = run.task.classes, sorted(counted.rows, key=lambda row: row.index or 0)
    grouping = grouping_of(split)
    scored = [row for row in rows if row.status != "failed"]
    if not scored or counted.calibration is None:
        raise DataError(
            f"0 of {count(len(rows), 'picture')} of the {split.name} split could be scored. "
            f"The first, {rows[0].name}: {rows[0].error}"
        )
    shown = {label: sum(index in row.shows for row in scored) for index, label in enumerate(classes) if index}
    if not any(shown.values()):
        nothing = dict.fromkeys(OF_FOREGROUND, float("nan"))
        scored = [row.model_copy(update=nothing) for row in scored]
    failed = [row for row in rows if row.status == "failed"]
    # Out of fold each picture is scored by a network that has not learned from it, and was chosen on it.
    seen = {"valid": len(split)} if split.folds else seen_by(run.folder, split.entries)
    by_class = {name: values.tolist() for name, values in per_class(counted.counts).items()}
    foreground = counted.calibration.foreground
    return Evaluation(
        split=split.name,
        num_images=len(rows),
        num_failed=len(failed),
        num_empty=sum(row.status == "empty" for row in rows),
        classes=classes,
        shown=shown,
        settings=settings,
        resampling=grouping.resampling([row.index or 0 for row in scored]),
        strata=strata.strata_table(
            scored,
            [dict(split.entries[row.index or 0].strata) for row in scored],
            counted.surroundings,
        ),
        objects=object_table(
            counted.objects,
            classes[1:],
            groups=numbered([row.group for row in scored]),
            sizes=sizes,
            unit="mm3" if any(row.classes for row in scored) else "px",
            told_apart=split.instances is not None,
        ),
        definitions=DEFINITIONS | (boundaries.OF_VOLUMES if any(row.classes for row in scored) else {}),
        pooled=PooledScores(
            **{name: float(value) for name, value in pooled_scores(counted.counts).items()},
            per_class={
                label: Scores(**{name: values[i] for name, values in by_class.items()})
                for i, label in enumerate(classes)
            },
        ),
        per_image={
            name: _spread([row[name] for row in scored], [row.group for row in scored])
            for name in (*SCORES, *SURFACES, *CENTRE_LINES)
        },
        emptiness=emptiness(scored),
        advice=advise(
            scored,
            counted.objects,
            pixels=num_pixels(counted.counts),
            classes=classes,
            told_apart=split.instances is not None,
            learned_from=seen.get("train", 0),
            chosen_on=seen.get("valid", 0),
            chosen=_chosen(run.folder) if seen.get("valid") else (),
        ),
        uncertainty=conclude(counted.uncertain, numbered([row.group for row in scored])),
        per_class=_per_class(scored, classes),
        unit="mm" if any(row.classes for row in scored) else "px",
        calibration=Reliability(
            error=counted.calibration.error(),
            maximum_error=counted.calibration.maximum_error(),
            bins=tuple(map(Bin.model_validate, counted.calibration.rows())),
            foreground=None if foreground is None else tuple(map(Bin.model_validate, foreground.rows())),
        ),
        images=(*sorted(scored, key=_worst_first), *failed),
    )


def _chosen(folder: Path | None) -> list[str]:
    """Return what a training chose on its valid split, or on what is out of fold."""
    results = records.read_record(folder).results if folder is not None else {}
    kinds = {"calibration": "temperature", "threshold": "threshold", "thresholds": "thresholds"}
    return ["epoch", *(kind for name, kind in kinds.items() if results.get(name))]


def _per_class(rows: Sequence[PictureScores], classes: Sequence[str]) -> dict[str, dict[str, Spread]]:
    """Return, of volumes, the means over those of them for which a class has each score."""
    found: dict[str, dict[str, Spread]] = {}
    for label in classes[1:]:
        each = [row.classes[label] for row in rows if label in row.classes]
        if each:
            groups = [row.group for row in rows if label in row.classes]
            found[label] = {
                name: _spread([row[name] for row in each], groups) for name in ClassScores.model_fields
            }
    return found


def _spread(values: Sequence[float | None], groups: Sequence[str]) -> Spread:
    """Return mean, deviation, median and interval of those values that are known."""
    known = torch.tensor([nan if each is None else each for each in values], dtype=torch.float64)
    return Spread.model_validate(summary(known, groups=numbered(groups)))


def _worst_first(row: PictureScores) -> float:
    return row.dice if row.dice is not None and row.dice == row.dice else float("inf")


def _check(run: Run, split: Split, batch_size: int, how: Inference) -> dict[str, object]:
    """Refuse what can't be done; return the settings that the numbers depend on."""
    if batch_size < 1:
        raise SettingError(f"The batch size must be at least 1, received {batch_size}.")
    if not len(split):
        raise DataError(f"The {split.name} split is empty: there is nothing to score. Name another split.")
    refuse_other_axes(run, split.dims, f"the {split.name} split")
    check_tiles(how.tiles)
    return {
        "precision": choose_precision(how.precision, run.segmenter.device),
        "tta": how.tta,
        "tiles": how.tiles,
        "threshold": run.spec.threshold if run.spec.head == "sigmoid" else None,
    } | ({"thresholds": list(run.spec.thresholds)} if run.spec.thresholds else {})


def _write(found: Evaluation, counted: Tally, folder: Path) -> None:
    records.write_json(folder / "scores.json", found)
    assert counted.calibration is not None
    calibration.reliability_plot(counted.calibration, folder / "reliability.png")
    columns = ("index", "name", "group", "status", *SCORES, *SURFACES, *CENTRE_LINES, *PIXELS, "error")
    of_objects = ("truth", "predicted", "missed", "invented")
    write_rows(
        [
            {name: row[name] for name in columns}
            | {f"objects {name}": row.objects[name] for name in of_objects}
            for row in found.images
        ],
        folder / "scores.csv",
    )
    names = [row.name for row in counted.rows if row.status != "failed"]
    write_rows(object_rows(names, counted.objects, found.objects.unit), folder / "objects.csv")


make_callable(__name__)

"""Evaluation: the scores of a run over a split, at the native resolution of every picture.

Probabilities are brought to native size and only then made a mask, which is compared with the native truth.
What is kept of a picture is one row, so that memory doesn't grow with the split; what can't be scored is
listed, and the rest is done.
"""

import csv
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial, reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from seglens import calibration, surfaces
from seglens import record as records
from seglens import scores as overlap
from seglens.arguments import checked
from seglens.data.classes import NO_MAP, in_classes_of
from seglens.data.from_torch import TorchData, as_split
from seglens.data.layout import Split
from seglens.device import choose_precision
from seglens.display import card, data_frame, number, paragraph, table
from seglens.errors import DataError, SettingError
from seglens.native import Inference, native_mask, native_probabilities, prepared
from seglens.outputs import safe_name, table_cell
from seglens.places import check_output
from seglens.renamed import renamed
from seglens.runs import Run
from seglens.scores import OF_FOREGROUND, per_class, pooled_scores, summary
from seglens.scoring import Row, Tally, tally
from seglens.spread import ALONE, Share
from seglens.tiles import plan
from seglens.verb import make_callable

if TYPE_CHECKING:
    import pandas

__all__ = ["Evaluation", "evaluate", "native_mask", "native_probabilities"]

SCORES = ("dice", "iou", "miou", "pixel_accuracy", "precision", "recall")
"""Scores that are pooled and per image."""
SURFACES = surfaces.NAMES
"""Scores of outlines, per image only: there is no outline of pixels that are pooled."""
PIXELS = ("false_positive_pixels", "false_negative_pixels", "truth_pixels", "predicted_pixels")
DEFINITIONS = {**overlap.DEFINITIONS, **surfaces.DEFINITIONS, **calibration.DEFINITIONS}
"""Everything that an evaluation measures, in plain words."""


@dataclass(frozen=True)
class Evaluation:
    """The scores of one split.

    ``pooled`` holds the scores over all pixels, and ``per_class`` below it. ``per_image`` holds mean, std,
    median, interval and number of the images' scores. ``calibration`` holds ``error``, ``maximum_error`` and
    the ``bins`` of the most probable class, over all pixels; with two classes ``foreground`` holds the
    bins of the foreground, which is what the reliability curve shows. ``images`` has one row a picture,
    worst Dice first, then those that failed; ``index`` is a picture's number in the split. ``shown`` is how
    many of the pictures scored show each class: where none shows any, scores of overlap are NaN, in the rows
    too. ``settings`` are those that the numbers depend on.
    """

    split: str
    classes: tuple[str, ...]
    pooled: dict[str, Any]
    per_image: dict[str, dict[str, float | int]]
    calibration: dict[str, Any]
    images: tuple[Row, ...]
    settings: dict[str, Any]
    shown: dict[str, int] = field(default_factory=dict)

    @property
    def failed(self) -> tuple[Row, ...]:
        """The rows of pictures that could not be scored."""
        return tuple(row for row in self.images if row["status"] == "failed")

    @property
    def not_shown(self) -> tuple[str, ...]:
        """What to say of classes that no picture shows, a sentence each."""
        num = len(self.images) - len(self.failed)
        return tuple(f"0 of {num} pictures show {label}." for label, count in self.shown.items() if not count)

    def _repr_html_(self) -> str:
        """Show in a notebook the scores, pooled and per image, and the worst pictures."""
        rows = []
        for name in (*SCORES, *SURFACES):
            each = self.per_image.get(name, {})
            between = f"{number(each.get('low'))} to {number(each.get('high'))}" if each else ""
            values = number(self.pooled.get(name)), number(each.get("mean")), between
            rows.append((name.replace("_", " "), *values))
        worst = [row for row in self.images if row["status"] != "failed"][:5]
        parts = [
            table(
                ("score", "pooled", "per image", "95 % interval"),
                rows,
                hints=[DEFINITIONS.get(name, "") for name in (*SCORES, *SURFACES)],
            ),
            table(("worst pictures", "dice"), [(str(row["name"]), number(row["dice"])) for row in worst]),
        ]
        parts += [paragraph(text) for text in self.not_shown]
        if self.failed:
            parts.append(paragraph(f"{len(self.failed)} pictures could not be scored."))
        return card(f"Evaluation of {self.split}, {len(self.images)} pictures", *parts)

    def to_pandas(self) -> "pandas.DataFrame":
        """Return the pictures' scores as a table, one row a picture."""
        return data_frame(self.images)

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain data, with the definition of every score."""
        return {
            "split": self.split,
            "num_images": len(self.images),
            "num_failed": len(self.failed),
            "num_empty": sum(row["status"] == "empty" for row in self.images),
            "classes": list(self.classes),
            "shown": self.shown,
            "settings": self.settings,
            "definitions": DEFINITIONS,
            "pooled": self.pooled,
            "per_image": self.per_image,
            "calibration": self.calibration,
            "images": list(self.images),
        }


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
    class_map: Mapping[str, str] = NO_MAP,
    share: Share = ALONE,
) -> Evaluation:
    """Score ``run`` on ``split``: ``scores.json``, ``scores.csv`` and ``reliability.png`` in ``out``.

    ``out`` left out is ``evaluate/<split>`` in the run folder; of a run without folder nothing is written.
    ``save_images`` adds for each picture ``orig.png gt.png pred.png overlay.png metrics.json``; the overlay
    shows the prediction, with the truth as a white outline. ``precision`` and ``tta`` are those of
    `seglens.predict.infer`; ``tiles`` says when windows are used, see `seglens.tiles.TILES`. Classes are
    matched by name; ``class_map`` says which class of the split is which of the run, where they are called
    otherwise. ``share`` is this process's part of a job that is spread over several, which together score as
    one alone would.

    Raises:
        SettingError: the run and the split have different classes, or a setting is not allowed.
        DataError: the split is empty, or none of its pictures could be scored.
        OutputExistsError: ``out`` exists and ``force`` is not given.
    """
    began = time.monotonic()
    how = Inference(precision, tta, tiles)
    split = as_split(split, run.task, run.spec.channels)
    settings = _check(run, split, batch_size, how)
    split = in_classes_of(run.task, split, class_map)
    if out is None and run.folder is not None:
        out = run.folder / "evaluate" / safe_name(split.name)
    if out is not None and share.first:
        check_output(Path(out), "evaluate", force=force, runs=filter(None, [run.folder]), files=split.files)
    score = partial(_tally, prepared(run, how), split, how, batch_size=batch_size, share=share)
    if out is None:
        if save_images:
            raise SettingError("Images can't be saved for a run without folder: name one with 'out'.")
        return _summarise(run, split, score(), settings)
    with share.folder(Path(out), command="evaluate", force=force) as folder:
        if save_images:
            (folder / "samples").mkdir(exist_ok=True)
        counted = score(folder=folder if save_images else None)
        found = _summarise(run, split, counted, settings)
        if share.first:
            _write(found, counted, folder)
            record = records.start(
                "evaluate",
                device=str(run.segmenter.device),
                settings={
                    "split": split.name,
                    "batch_size": batch_size,
                    "save_images": save_images,
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


def _tally(
    run: Run,
    split: Split,
    how: Inference,
    *,
    batch_size: int,
    share: Share,
    folder: Path | None = None,
) -> Tally:
    """Score this process's share of the batches; return what all processes found."""
    share.agree("pictures", [entry.name for entry in split.entries])
    batches = share.of(-(-len(split) // batch_size))
    indices = range(batches.start * batch_size, min(batches.stop * batch_size, len(split)))
    own = tally(run, split, indices, how, batch_size=batch_size, folder=folder, shown=share.first)
    return reduce(add, share.gather([own]))


def _summarise(run: Run, split: Split, counted: Tally, settings: dict[str, Any]) -> Evaluation:
    """Pool the counts and average the rows."""
    classes, rows = run.task.classes, sorted(counted.rows, key=lambda row: row["index"])
    scored = [row for row in rows if row["status"] != "failed"]
    if not scored or counted.calibration is None:
        raise DataError(
            f"None of the {len(rows)} pictures of the {split.name} split could be scored. "
            f"The first, {rows[0]['name']}: {rows[0]['error']}"
        )
    shown = {
        label: sum(index in row["shows"] for row in scored) for index, label in enumerate(classes) if index
    }
    if not any(shown.values()):
        for row in scored:
            row.update(dict.fromkeys(OF_FOREGROUND, float("nan")))
    by_class = {name: values.tolist() for name, values in per_class(counted.counts).items()}
    return Evaluation(
        split=split.name,
        classes=classes,
        pooled={name: float(value) for name, value in pooled_scores(counted.counts).items()}
        | {"per_class": {label: {n: v[i] for n, v in by_class.items()} for i, label in enumerate(classes)}},
        per_image={
            name: summary(torch.tensor([row[name] for row in scored], dtype=torch.float64))
            for name in (*SCORES, *SURFACES)
        },
        calibration={
            "error": counted.calibration.error(),
            "maximum_error": counted.calibration.maximum_error(),
            "bins": counted.calibration.rows(),
            "foreground": counted.calibration.foreground and counted.calibration.foreground.rows(),
        },
        images=tuple(sorted(rows, key=_worst_first)),
        settings=settings,
        shown=shown,
    )


def _worst_first(row: Row) -> tuple[bool, float]:
    dice = row.get("dice", float("nan"))
    return row["status"] == "failed", dice if dice == dice else float("inf")


def _check(run: Run, split: Split, batch_size: int, how: Inference) -> dict[str, Any]:
    """Refuse what can't be done; return the settings that the numbers depend on."""
    if batch_size < 1:
        raise SettingError(f"The batch size must be at least 1, received {batch_size}.")
    if not len(split):
        raise DataError(f"The {split.name} split is empty: there is nothing to score. Name another split.")
    plan((1, 1), run.spec, how.tiles)
    return {
        "precision": choose_precision(how.precision, run.segmenter.device),
        "tta": how.tta,
        "tiles": how.tiles,
        "threshold": run.spec.threshold if run.spec.head == "sigmoid" else None,
    } | ({"thresholds": list(run.spec.thresholds)} if run.spec.thresholds else {})


def _write(found: Evaluation, counted: Tally, folder: Path) -> None:
    records.write_json(folder / "scores.json", found.to_json())
    assert counted.calibration is not None
    calibration.reliability_plot(counted.calibration, folder / "reliability.png")
    with (folder / "scores.csv").open("w", newline="", encoding="utf-8", errors="backslashreplace") as stream:
        columns = ("index", "name", "status", *SCORES, *SURFACES, *PIXELS, "error")
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(columns)
        table.writerows([table_cell(row.get(name)) for name in columns] for row in found.images)


make_callable(__name__)

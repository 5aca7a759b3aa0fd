"""Evaluation: the scores of a run over a split, at the native resolution of every picture.

Pictures are letterboxed to the network's size, the probabilities are brought back to native size and only
then made a mask, which is compared with the native truth. What is kept of a picture is one row, so that
memory doesn't grow with the split; what can't be scored is listed, and the rest is done.
"""

import csv
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from seglens import record as records
from seglens.data.layout import Split
from seglens.data.sample import Sample
from seglens.data.transforms import Frame, letterbox_image
from seglens.draw import mask_picture, outline, overlay, picture, save_png
from seglens.errors import DataError, SettingError
from seglens.models.segmenter import ModelSpec
from seglens.outputs import new_folder, safe_name, table_cell, unused_name
from seglens.predict import infer
from seglens.progress import track
from seglens.runs import Run
from seglens.scores import DEFINITIONS, Confusion, confusion, per_class, scores, summary
from seglens.shapes import Mask
from seglens.threads import read_ahead
from seglens.verb import make_callable

__all__ = ["Evaluation", "evaluate", "native_mask", "native_probabilities"]

SCORES = ("dice", "iou", "miou", "pixel_accuracy", "precision", "recall")
PIXELS = ("false_positive_pixels", "false_negative_pixels", "truth_pixels", "predicted_pixels")

Row = dict[str, Any]


@dataclass(frozen=True)
class Evaluation:
    """The scores of one split.

    ``pooled`` holds the scores over all pixels, and ``per_class`` below it. ``per_image`` holds mean, std,
    median, interval and number of the images' scores. ``images`` has one row a picture, worst Dice first,
    then those that failed.
    """

    split: str
    classes: tuple[str, ...]
    pooled: dict[str, Any]
    per_image: dict[str, dict[str, float | int]]
    images: tuple[Row, ...]

    @property
    def failed(self) -> tuple[Row, ...]:
        """The rows of pictures that could not be scored."""
        return tuple(row for row in self.images if row["status"] == "failed")

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain data, with the definition of every score."""
        return {
            "split": self.split,
            "num_images": len(self.images),
            "num_failed": len(self.failed),
            "num_empty": sum(row["status"] == "empty" for row in self.images),
            "classes": list(self.classes),
            "definitions": DEFINITIONS,
            "pooled": self.pooled,
            "per_image": self.per_image,
            "images": list(self.images),
        }


def evaluate(
    run: Run,
    split: Split,
    *,
    out: Path | None = None,
    save_images: bool = False,
    force: bool = False,
    batch_size: int = 8,
) -> Evaluation:
    """Score ``run`` on ``split`` and write ``scores.json`` and ``scores.csv`` to ``out``.

    ``out`` left out is ``evaluate/<split>`` in the run folder; of a run without folder nothing is written.
    ``save_images`` adds for each picture ``orig.png gt.png pred.png overlay.png metrics.json``; the overlay
    shows the prediction, with the truth as a white outline.

    Raises:
        SettingError: the run and the split have different classes, or a setting is not allowed.
        DataError: the split is empty, or none of its pictures could be scored.
        OutputExistsError: ``out`` exists and ``force`` is not given.
    """
    began = time.monotonic()
    _check(run, split, batch_size)
    if out is None and run.folder is not None:
        out = run.folder / "evaluate" / safe_name(split.name)
    if out is None:
        if save_images:
            raise SettingError("Images can't be saved for a run without folder: name one with 'out'.")
        return _summarise(run, split, _rows(run, split, batch_size, None))
    with new_folder(out, force=force) as folder:
        found = _summarise(run, split, _rows(run, split, batch_size, folder if save_images else None))
        records.write_json(folder / "scores.json", found.to_json())
        _write_table(found, folder / "scores.csv")
        record = records.start(
            "evaluate",
            device=str(run.segmenter.device),
            settings={"split": split.name, "batch_size": batch_size, "save_images": save_images},
            model=run.spec.model_dump(mode="json"),
            task=run.task.model_dump(mode="json"),
            model_sha256=records.read(run.folder).model_sha256 if run.folder else None,
        )
        results = {"num_images": len(found.images), "num_failed": len(found.failed), "pooled": found.pooled}
        records.finish(record, began, results=results).write(folder)
    return found


def native_probabilities(
    run: Run,
    images: Sequence[Float[Tensor, "_ _ _"]],
    *,
    precision: str = "auto",
    flips: bool = False,
    tiles: str = "auto",
) -> list[Float[Tensor, "classes _ _"]]:
    """Return the probabilities of pictures of any sizes, each at its own: what every score is taken from.

    Pictures are letterboxed and go through the network together; see `seglens.predict.infer` for
    ``precision`` and ``flips``.

    Raises:
        SettingError: a setting is not allowed.
    """
    if not images:
        return []
    boxed = [letterbox_image(image, run.spec.image_size) for image in images]
    grids = torch.stack([grid for grid, _ in boxed])
    found = infer(run.segmenter, grids, precision=precision, flips=flips).probabilities
    return [frame.maps_to_native(each) for each, (_, frame) in zip(found, boxed, strict=True)]


def native_mask(probabilities: Float[Tensor, "classes s s"], frame: Frame, spec: ModelSpec) -> Mask:
    """Return the mask of one picture at its native size: probabilities are scaled, then decided on."""
    native = frame.maps_to_native(probabilities)
    if spec.head == "sigmoid":
        return (native[1] >= spec.threshold).long()
    return native.argmax(dim=0)


@dataclass(frozen=True)
class _Read:
    """A picture as it was read, or why it wasn't."""

    name: str
    sample: Sample | None = None
    error: str = ""


def _rows(
    run: Run, split: Split, batch_size: int, folder: Path | None
) -> Iterator[tuple[Row, Confusion | None]]:
    """Yield for each picture its row and its confusion counts (None where it failed)."""
    names: set[str] = set()
    for batch in _batches(split, batch_size):
        for read, predicted in zip(batch, _predict(run, batch), strict=True):
            row, counts = _score(run, read, predicted)
            if folder is not None and predicted is not None and read.sample is not None:
                place = unused_name(read.name, names)
                row["files"] = _save(run, read.sample, predicted, folder, f"samples/{place}")
                records.write_json(folder / "samples" / place / "metrics.json", row)
            yield row, counts


def _batches(split: Split, batch_size: int) -> Iterator[list[_Read]]:
    def read(index: int) -> _Read:
        name = split.entries[index].name
        try:
            sample = split[index]
        except DataError as error:
            return _Read(name, error=str(error))
        if sample.mask is None:
            return _Read(name, error="The picture has no mask to compare with.")
        return _Read(name, sample)

    batch: list[_Read] = []
    stream = read_ahead(read, range(len(split)))
    for entry in track(stream, total=len(split), what=f"evaluating {split.name}"):
        batch.append(entry)
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def _predict(run: Run, batch: list[_Read]) -> list[Mask | None]:
    """Return the native mask of each picture that could be read."""
    size = run.spec.image_size
    boxed = [None if read.sample is None else letterbox_image(read.sample.image, size) for read in batch]
    images = [pair[0] for pair in boxed if pair is not None]
    if not images:
        return [None] * len(batch)
    probabilities = iter(infer(run.segmenter, torch.stack(images), chunk=len(images)).probabilities)
    return [None if pair is None else native_mask(next(probabilities), pair[1], run.spec) for pair in boxed]


def _score(run: Run, read: _Read, predicted: Mask | None) -> tuple[Row, Confusion | None]:
    """Compare one picture's prediction with its truth."""
    failed = {"name": read.name, "status": "failed"}
    sample = read.sample
    if sample is None or sample.mask is None or predicted is None:
        return {**failed, "error": read.error}, None
    if not sample.valid.any():
        return {**failed, "error": "No pixel of the picture is valid."}, None
    try:
        counts = confusion(predicted, sample.mask, sample.valid, len(run.task.classes))
    except DataError as error:
        return {**failed, "error": str(error)}, None
    wrong = counts - counts.diag().diag()
    truth, prediction = int(counts[1:].sum()), int(counts[:, 1:].sum())
    row = {
        "name": read.name,
        "status": "ok" if truth or prediction else "empty",
        **{name: float(value) for name, value in scores(counts).items()},
        "false_positive_pixels": int(wrong[:, 1:].sum()),
        "false_negative_pixels": int(wrong[1:].sum()),
        "truth_pixels": truth,
        "predicted_pixels": prediction,
    }
    return row, counts


def _summarise(run: Run, split: Split, pairs: Iterator[tuple[Row, Confusion | None]]) -> Evaluation:
    """Pool the counts and average the rows."""
    classes = run.task.classes
    pooled = torch.zeros(len(classes), len(classes), dtype=torch.int64)
    rows: list[Row] = []
    for row, counts in pairs:
        rows.append(row)
        pooled += 0 if counts is None else counts
    scored = [row for row in rows if row["status"] != "failed"]
    if not scored:
        raise DataError(
            f"None of the {len(rows)} pictures of the {split.name} split could be scored. "
            f"The first, {rows[0]['name']}: {rows[0]['error']}"
        )
    by_class = {name: values.tolist() for name, values in per_class(pooled).items()}
    return Evaluation(
        split=split.name,
        classes=classes,
        pooled={name: float(value) for name, value in scores(pooled).items()}
        | {"per_class": {label: {n: v[i] for n, v in by_class.items()} for i, label in enumerate(classes)}},
        per_image={
            name: summary(torch.tensor([row[name] for row in scored], dtype=torch.float64)) for name in SCORES
        },
        images=tuple(sorted(rows, key=lambda row: row.get("dice", float("inf")))),
    )


def _check(run: Run, split: Split, batch_size: int) -> None:
    if batch_size < 1:
        raise SettingError(f"The batch size must be at least 1, received {batch_size}.")
    if not len(split):
        raise DataError(f"The {split.name} split is empty: there is nothing to score. Name another split.")
    ours, theirs = run.task.classes, split.task.classes
    if len(ours) != len(theirs):
        raise SettingError(
            f"The model has {len(ours)} classes ({', '.join(ours)}), the data have {len(theirs)} "
            f"({', '.join(theirs)}). Choose the classes of the data to match."
        )


def _save(run: Run, sample: Sample, predicted: Mask, folder: Path, place: str) -> dict[str, str]:
    """Draw one picture into ``folder / place``; return the file names below ``folder``."""
    assert sample.mask is not None
    (folder / place).mkdir(parents=True)
    low, high = run.spec.window
    image = ((sample.image - low) / (high - low)).clamp(0, 1)
    truth, palette = sample.mask.masked_fill(~sample.valid, 0), run.task.palette
    drawn = {
        "orig": picture(image),
        "gt": mask_picture(truth, palette),
        "pred": mask_picture(predicted, palette),
        "overlay": outline(overlay(image, predicted, palette), truth > 0),
    }
    for name, drawing in drawn.items():
        save_png(drawing, folder / place / f"{name}.png")
    return {name: f"{place}/{name}.png" for name in drawn}


def _write_table(found: Evaluation, file: Path) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        columns = ("name", "status", *SCORES, *PIXELS, "error")
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(columns)
        table.writerows([table_cell(row.get(name)) for name in columns] for row in found.images)


make_callable(__name__)

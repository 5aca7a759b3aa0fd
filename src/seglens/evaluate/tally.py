"""Pictures are predicted in batches and scored in threads; a row and counts are kept of each.

What is kept of a picture doesn't depend on its size, and what is kept of several is added up, so that any
share of a split can be scored anywhere (`Tally`).
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from hashlib import sha256
from itertools import chain, groupby, islice
from operator import add
from pathlib import Path

import torch

from seglens.data.instances import NOT_COUNTED
from seglens.data.layout import Split, picture_sha256
from seglens.data.sample import Sample, Task
from seglens.drawing.draw import mask_picture, outline, overlay, picture, save_png
from seglens.drawing.planes import planes_through
from seglens.errors import DataError, NonFiniteError, SettingError
from seglens.evaluate.boundaries import mean_of_classes, surface_scores
from seglens.evaluate.calibration import Calibration, count_bins
from seglens.evaluate.centre_lines import elongation, of_masks
from seglens.evaluate.errors_exported import NO_ERRORS, Errors
from seglens.evaluate.object_scores import of_picture
from seglens.evaluate.objects import Objects, objects_of, together, without_ignored
from seglens.evaluate.scores import Counts, LabelCounts, added, counted, no_counts, per_class, scores, shows
from seglens.evaluate.surroundings import surroundings
from seglens.evaluate.uncertainty import ByUncertainty, count
from seglens.files.output import unused_name
from seglens.masks import foreground, is_stack, of_class, only_valid
from seglens.models.ensemble import Ensemble
from seglens.models.members import alone
from seglens.objects import pieces
from seglens.objects import split_touching as split_touching_objects
from seglens.predict.original import (
    Inference,
    Placed,
    Probability,
    at_original_size,
    decide,
    forward,
    place_sample,
)
from seglens.predict.uncertainty import disagreement, doubt, kinds_of
from seglens.results import record as records
from seglens.results.scores import ClassScores, PictureScores
from seglens.runs import Run
from seglens.runtime.progress import track
from seglens.runtime.threads import Pool, read_ahead
from seglens.shapes import AnyMask, Map, Mask

HASH = 16
"""Hex digits of the hashes that tell whether two evaluations saw the same picture and the same truth."""


@dataclass(frozen=True)
class Tally:
    """The scores of some pictures of a split: one row for each, and the sum of their counts.

    Every row has its picture's ``index`` in the split. ``calibrations`` are those of the pictures that could
    be scored, in their order, in a stretch from the first picture on added up already: they are sums of
    fractions, which come out the same to the last digit only where they are added in the same order.
    ``objects`` are those of the same pictures, by class; ``surroundings`` are numbers of their border and
    background, where the pictures have strata; ``uncertain`` are their pixels by uncertainty, where that is
    asked for.
    """

    rows: tuple[PictureScores, ...]
    counts: Counts
    calibrations: tuple[Calibration, ...]
    objects: tuple[Mapping[str, Objects], ...] = ()
    surroundings: tuple[Mapping[str, Sequence[float]], ...] = ()
    uncertain: tuple[Mapping[str, ByUncertainty], ...] = ()

    @property
    def calibration(self) -> Calibration | None:
        """The calibration over all pictures; None where none could be scored."""
        return reduce(add, self.calibrations) if self.calibrations else None

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.rows + other.rows,
            added(self.counts, other.counts),
            self.calibrations + other.calibrations,
            self.objects + other.objects,
            self.surroundings + other.surroundings,
            self.uncertain + other.uncertain,
        )


def tally(
    run: Run,
    split: Split,
    indices: Sequence[int],
    how: Inference,
    *,
    batch_size: int = 8,
    folder: Path | None = None,
    shown: bool = True,
    split_touching: bool = False,
    uncertainty: bool = False,
    errors: Errors = NO_ERRORS,
) -> Tally:
    """Score the pictures of ``split`` at ``indices``; with a ``folder``, draw each in its ``samples``.

    Pictures that can't be scored have a row that says why. ``shown`` is whether to draw a progress bar.
    ``errors`` says where, and in which formats, found, missed and invented objects are exported.
    """
    taken: set[str] = set()
    places = [unused_name(entry.name, taken) for entry in split.entries]
    num = len(run.task.classes)
    rows: list[PictureScores] = []
    counts = no_counts(num, multilabel=run.task.multilabel)
    calibrations: list[Calibration] = []
    objects: list[Mapping[str, Objects]] = []
    around: list[Mapping[str, Sequence[float]]] = []
    uncertain: list[Mapping[str, ByUncertainty]] = []
    score = partial(_score, run, split, folder, places, split_touching, errors)
    scored = chain.from_iterable(
        _scored(asked, split, some, how, batch_size, score, uncertainty)
        for asked, some in _asked(run, split, indices)
    )
    what = f"evaluating {split.name}"
    for part in track(scored, total=len(indices), what=what) if shown else scored:
        rows += part.rows
        counts = added(counts, part.counts)
        objects += part.objects
        around += part.surroundings
        uncertain += part.uncertain
        calibrations += part.calibrations
        if calibrations and indices[0] == 0:
            calibrations = [reduce(add, calibrations)]
    return Tally(tuple(rows), counts, tuple(calibrations), tuple(objects), tuple(around), tuple(uncertain))


def _asked(run: Run, split: Split, indices: Sequence[int]) -> Iterator[tuple[Run, Sequence[int]]]:
    """Yield pictures with the run that is asked: of folds the network that has not learned from them."""
    networks = run.segmenter.module
    if not split.folds:
        yield run, indices
        return
    if not isinstance(networks, Ensemble):
        raise SettingError(
            f"The split {split.name} is of folds, and the run is of one network: name another."
        )
    for fold, part in groupby(indices, key=split.folds.__getitem__):
        yield replace(run, segmenter=alone(run.segmenter, networks.networks[fold])), list(part)


@dataclass(frozen=True)
class _Ready:
    """A picture as it was read, on its way through the network; or why it wasn't read."""

    index: int
    name: str
    error: str = ""
    image_hash: str = ""
    sample: Sample | None = None
    placed: Placed | None = None
    probabilities: Probability | None = None
    uncertain: Mapping[str, Map] = field(default_factory=dict)


def _scored(
    run: Run,
    split: Split,
    indices: Sequence[int],
    how: Inference,
    batch_size: int,
    score: Callable[[_Ready], Tally],
    uncertainty: bool,
) -> Iterator[Tally]:
    """Read pictures, send them through the network in batches, and score them, in their order.

    On a GPU all three at once. On a CPU by turns: the network takes every core, and a thread beside it would
    hold up each of its many parallel loops.
    """
    read = partial(_read, run, split, how)
    batches = [indices[first : first + batch_size] for first in range(0, len(indices), batch_size)]
    if run.segmenter.device.type != "cpu":
        ahead = read_ahead(read, indices)
        parts = (list(islice(ahead, len(batch))) for batch in batches)
        yield from read_ahead(
            score, (each for part in parts for each in _predicted(run, part, how, uncertainty))
        )
        return
    with Pool(os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for batch in batches:
            yield from pool.map(score, _predicted(run, list(pool.map(read, batch)), how, uncertainty))


def _predicted(run: Run, batch: Sequence[_Ready], how: Inference, uncertainty: bool) -> list[_Ready]:
    """Send the pictures that could be read through the network, and through its members."""
    try:
        found = iter(forward(run.segmenter, [each.placed for each in batch if each.placed is not None], how))
    except NonFiniteError:
        if len(batch) > 1:
            return [done for each in batch for done in _predicted(run, [each], how, uncertainty)]
        error = str(NonFiniteError((0,), (batch[0].name,)))
        return [_Ready(batch[0].index, batch[0].name, error)]
    done = []
    for each in batch:
        if each.placed is not None:
            kinds = kinds_of(run.segmenter) if uncertainty else ()
            maps = {str(kind): disagreement(run.segmenter, each.placed, how, kind) for kind in kinds}
            each = replace(each, probabilities=next(found), uncertain=maps)
        done.append(each)
    return done


def _read(run: Run, split: Split, how: Inference, index: int) -> _Ready:
    name = split.entries[index].name
    try:
        sample = split[index]
    except DataError as error:
        return _Ready(index, name, str(error))
    if sample.mask is None:
        return _Ready(index, name, "The picture has no mask to compare with.")
    if not sample.valid.any():
        return _Ready(index, name, "No pixel of the picture is valid.")
    digest = (picture_sha256(split.entries[index]) or "")[:HASH]
    placed = place_sample(sample, run.spec, how.tiles)
    return _Ready(index, name, image_hash=digest, sample=sample, placed=placed)


def _score(
    run: Run,
    split: Split,
    folder: Path | None,
    places: Sequence[str],
    split_touching: bool,
    errors: Errors,
    ready: _Ready,
) -> Tally:
    """Compare one picture's prediction with its truth; draw them in ``folder / "samples"`` at its place."""
    num = len(run.task.classes)
    sample, nothing = ready.sample, no_counts(num, multilabel=run.task.multilabel)
    if sample is None or sample.mask is None or ready.placed is None or ready.probabilities is None:
        return Tally((_failed(split, ready, ready.error),), nothing, ())
    probabilities = at_original_size(ready.placed, ready.probabilities)
    predicted = decide(probabilities, run.spec)
    try:
        counts = counted(predicted, sample.mask, sample.valid, num)
        labels = _labels(run.task, split, ready.index, sample, predicted, split_touching)
        size = 1.0 if sample.grid is None else sample.grid.voxel_ml * 1000
        objects = {name: objects_of(*pair).in_unit(size) for name, pair in labels.items()}
        errors.write(run.task, places[ready.index], ready.index, labels, objects)
    except DataError as error:
        return Tally((_failed(split, ready, str(error)),), nothing, ())
    about = {
        "group": split.entries[ready.index].group,
        "image_hash": ready.image_hash,
        "truth_hash": _hash_of(sample, run.task),
    }
    outlines = surface_scores(predicted, sample.mask, sample.valid, num, spacing=sample.spacing)
    row = PictureScores.model_validate(
        {"index": ready.index, "name": ready.name, **about, **_row(counts), **mean_of_classes(outlines)}
    )
    row = row.model_copy(update={"objects": of_picture(together(list(objects.values())))})
    marked = foreground(sample.mask, sample.valid.ndim) & sample.valid
    longer = elongation(marked, sum(len(each.truth) for each in objects.values()))
    lines = {
        "cldice": of_masks(predicted, sample.mask, sample.valid, num, longer),
        "elongation": longer,
    }
    row = row.model_copy(update=lines)
    if sample.grid is not None:
        row = row.model_copy(update={"classes": _classes_of(run.task, sample, predicted, counts, outlines)})
    if folder is not None:
        where = f"samples/{places[ready.index]}"
        row = row.model_copy(update={"files": _save(run, sample, predicted, folder, where)})
        records.write_json(folder / where / "metrics.json", row)
    around = (surroundings(sample),) if split.entries[ready.index].strata else ()
    bins = count_bins(probabilities, sample.mask, sample.valid)
    maps = ready.uncertain and {**ready.uncertain, "doubt": doubt(probabilities)}
    uncertain = {kind: count(each, predicted, sample.mask, sample.valid) for kind, each in maps.items()}
    return Tally((row,), counts, (bins,), (objects,), around, (uncertain,) if uncertain else ())


def _labels(
    task: Task, split: Split, index: int, sample: Sample, predicted: AnyMask, split_touching: bool
) -> dict[str, tuple[Mask, Mask]]:
    """Return the numbers of the true and of the predicted objects of each class."""
    assert sample.mask is not None
    known = None if split.instances is None else split.instances(split.entries[index], sample)
    valid = sample.valid if known is None else sample.valid & (known != NOT_COUNTED)
    dims, found = sample.valid.ndim, {}
    for number, name in enumerate(task.classes[1:], start=1):
        true, whole = of_class(sample.mask, number, dims) & valid, of_class(predicted, number, dims)
        guess = whole & valid
        truth = pieces(true) if known is None else torch.where(true, known, 0)
        cut = split_touching_objects(guess, sample.spacing) if split_touching else pieces(guess)
        found[name] = truth, without_ignored(cut, whole, valid, truth)
    return found


def _classes_of(
    task: Task,
    sample: Sample,
    predicted: AnyMask,
    counts: Counts,
    outlines: Mapping[int, Mapping[str, float]],
) -> dict[str, ClassScores]:
    """Return the scores of each class that is in a volume's truth or prediction: those with ``outlines``."""
    assert sample.mask is not None
    assert sample.grid is not None
    dice, masks, found = per_class(counts)["dice"], (sample.mask, predicted), {}
    for index, each in outlines.items():
        voxels = (int((of_class(mask, index, 3) & sample.valid).sum()) for mask in masks)
        truth, predicted_ml = (number * sample.grid.voxel_ml for number in voxels)
        found[task.classes[index]] = ClassScores(
            dice=float(dice[index]),
            nsd=each["nsd"],
            hd95=each["hd95"],
            truth_ml=truth,
            predicted_ml=predicted_ml,
            difference_ml=predicted_ml - truth,
        )
    return found


def _failed(split: Split, ready: _Ready, error: str) -> PictureScores:
    group = split.entries[ready.index].group
    return PictureScores(index=ready.index, name=ready.name, group=group, status="failed", error=error)


def _hash_of(sample: Sample, task: Task) -> str:
    """Return a hash of a truth as it counts: its classes, in the order of their names, and valid pixels."""
    assert sample.mask is not None
    order = sorted(range(1, len(task.classes)), key=task.classes.__getitem__)
    if is_stack(sample.mask):
        layers = torch.stack([sample.mask[index - 1] & sample.valid for index in order] + [sample.valid])
        return sha256(layers.numpy().tobytes()).hexdigest()[:HASH]
    place = torch.tensor([0, *(1 + order.index(index) for index in range(1, len(task.classes)))])
    classes = place[sample.mask].masked_fill(~sample.valid, -1).to(torch.int16).contiguous()
    return sha256(classes.numpy().tobytes()).hexdigest()[:HASH]


def _row(counts: Counts) -> dict[str, object]:
    """Return the scores of one picture and its pixels; those of several labels count for each of them."""
    if isinstance(counts, LabelCounts):
        labels = counts.pixels[1:]
        invented, missed = int(labels[:, 0, 1].sum()), int(labels[:, 1, 0].sum())
        truth, prediction = int(labels[:, 1].sum()), int(labels[:, :, 1].sum())
    else:
        wrong = counts - counts.diag().diag()
        invented, missed = int(wrong[:, 1:].sum()), int(wrong[1:].sum())
        truth, prediction = int(counts[1:].sum()), int(counts[:, 1:].sum())
    return {
        "status": "ok" if truth or prediction else "empty",
        **{name: float(value) for name, value in scores(counts).items()},
        "false_positive_pixels": invented,
        "false_negative_pixels": missed,
        "truth_pixels": truth,
        "predicted_pixels": prediction,
        "shows": tuple(index for index, shown in enumerate(shows(counts), start=1) if shown),
    }


def _save(run: Run, sample: Sample, predicted: AnyMask, folder: Path, place: str) -> dict[str, str]:
    """Draw one picture into ``folder / place``; return the file names below ``folder``."""
    assert sample.mask is not None
    (folder / place).mkdir()
    low, high = run.spec.window
    image = ((sample.image - low) / (high - low)).clamp(0, 1)
    dims, palette = sample.valid.ndim, run.task.palette
    truth = only_valid(sample.mask, sample.valid, dims)
    if dims == 3:
        planes = planes_through(foreground(sample.mask, dims), sample.spacing)
        image, truth, predicted = (planes(each) for each in (image, truth, predicted))
    drawn = {
        "orig": picture(image),
        "gt": mask_picture(truth, palette),
        "pred": mask_picture(predicted, palette),
        "overlay": outline(overlay(image, predicted, palette), foreground(truth, 2)),
    }
    for name, drawing in drawn.items():
        save_png(drawing, folder / place / f"{name}.png")
    return {name: f"{place}/{name}.png" for name in drawn}

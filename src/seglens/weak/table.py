"""The comparison: one row for each stage and student, all scores from the confusion counts of each picture.

Every reading of a mask goes through `Hidden.opened`, which notes what for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seglens.evaluate.scores import confusion, scores, summary
from seglens.predict.original import Inference, decide, probabilities_at_original_size
from seglens.results import record as records
from seglens.results.scores import WeakRow, WeakScores
from seglens.results.spread import Spread
from seglens.runs import Run, load, prepared
from seglens.runtime.progress import track
from seglens.shapes import Image, Map, Mask, Region
from seglens.weak.data import Truth, WeakData
from seglens.weak.ignore_band import IGNORED
from seglens.weak.pseudo_masks import PseudoMasks
from seglens.weak.self_training import masks_of
from seglens.weak.steps import Facts, Steps

BATCH = 8
"""Pictures of a batch in the figure that is averaged over batches."""

Confusion = Int[Tensor, "n 2 2"]
Answer = Callable[[int, Image], tuple[Mask, Region]]
"""From a picture's number and the picture to its mask, and where that mask is decided."""

DEFINITIONS = {
    "miou": "mIoU: mean of the IoU of background and object. All pixels of all pictures are counted "
    "together.",
    "fg_iou": "Object IoU: overlap over union of the object. All pixels of all pictures are counted "
    "together.",
    "fg_iou_per_image": "Object IoU of each picture, averaged, with its 95 % bootstrap interval.",
    "miou_no_border": "mIoU without the pixels on the object's border, where the data mark them.",
    "fg_iou_no_border": "Object IoU without the pixels on the object's border.",
    "miou_per_batch": f"mIoU of each {BATCH} pictures in the order of the split, averaged. Use it only to "
    "compare with published figures that are computed in this way.",
    "decided": "Share of the pixels that the row decides on. The others are in none of its scores.",
}
"""Every column in plain words."""


@dataclass(frozen=True)
class Confusions:
    """A confusion matrix (true row, predicted column) for each picture, with and without its border."""

    counts: Confusion
    no_border: Confusion | None
    decided: float


def count_pixels(truth: Truth, answer: Answer, *, what: str) -> Confusions:
    """Compare the mask that ``answer`` gives with the true one; ``what`` names the progress bar.

    Raises:
        DataError: a picture has no mask, or can't be read.
    """
    with_border, without, share = [], [], []
    for index, (sample, inner) in enumerate(track(truth, total=len(truth.split), what=what)):
        assert sample.mask is not None
        mask, sure = answer(index, sample.image)
        share.append(float((sure & sample.valid).sum()) / max(1, int(sample.valid.sum())))
        there = sample.mask.clamp(max=1)
        with_border.append(confusion(mask, there, sample.valid & sure, 2))
        if inner is not None:
            without.append(confusion(mask, there, inner & sure, 2))
    decided = sum(share) / max(1, len(share))
    return Confusions(torch.stack(with_border), torch.stack(without) if without else None, decided)


def count_student(truth: Truth, run: Run, *, what: str, precision: str = "auto") -> Confusions:
    """Compare the masks of ``run`` with the truth, one picture at a time, at original size."""
    ready = prepared(run, Inference(precision))

    def answer(index: int, image: Image) -> tuple[Mask, Region]:
        probability = probabilities_at_original_size(ready.segmenter, [image], precision=precision)[0]
        return decide(probability, run.spec), torch.ones(image.shape[1:], dtype=torch.bool)

    return count_pixels(truth, answer, what=what)


def above(load: Callable[[int], Map], threshold: float) -> Answer:
    """Return the answer of a map that ``load`` gives for each picture: object from ``threshold`` on."""

    def answer(index: int, image: Image) -> tuple[Mask, Region]:
        values = load(index)
        return (values >= threshold).long(), torch.ones_like(values, dtype=torch.bool)

    return answer


def figures(found: Confusions) -> WeakScores:
    """Return the scores of a row, see `DEFINITIONS`; those without border are None where it is not marked."""
    pooled, each = scores(found.counts.sum(0)), scores(found.counts)
    batches = torch.stack([part.sum(0) for part in found.counts.split(BATCH)])
    inner = None if found.no_border is None else scores(found.no_border.sum(0))
    return WeakScores(
        pictures=len(found.counts),
        miou=float(pooled["miou"]),
        fg_iou=float(pooled["iou"]),
        fg_iou_per_image=Spread.model_validate(summary(each["iou"])),
        miou_no_border=None if inner is None else float(inner["miou"]),
        fg_iou_no_border=None if inner is None else float(inner["iou"]),
        miou_per_batch=float(scores(batches)["miou"].nanmean()),
        decided=found.decided,
    )


def threshold_curve(
    truth: Truth, load: Callable[[int], Map], *, what: str, steps: int = 40
) -> dict[str, list[float]]:
    """Return mIoU and object IoU, pooled, of a map cut at ``steps`` - 1 thresholds evenly within 0 and 1.

    One histogram of the map over object and background is enough for all of them.
    """
    edges = torch.linspace(0, 1, steps + 1)
    bins = torch.zeros(2, steps, dtype=torch.float64)
    for index, (sample, _) in enumerate(track(truth, total=len(truth.split), what=what)):
        assert sample.mask is not None
        # A threshold cuts values from itself on: bins are closed on the left.
        place = torch.bucketize(load(index), edges[1:-1], right=True)
        for there in (0, 1):
            chosen = place[sample.valid & (sample.mask.clamp(max=1) == there)]
            bins[there] += torch.bincount(chosen, minlength=steps)
    upward: Float[Tensor, "2 steps"] = bins.flip(1).cumsum(1).flip(1)
    false_positive, true_positive = upward[:, 1:]
    counts = (
        torch.stack(
            [
                torch.stack([bins[0].sum() - false_positive, false_positive], -1),
                torch.stack([bins[1].sum() - true_positive, true_positive], -1),
            ],
            -2,
        )
        .round()
        .long()
    )
    found = scores(counts)
    return {
        "threshold": edges[1:-1].tolist(),
        "miou": found["miou"].tolist(),
        "fg_iou": found["iou"].tolist(),
    }


COLUMNS = {
    "miou": "mIoU",
    "fg_iou": "object IoU",
    "fg_iou_per_image": "per picture (95 %)",
    "miou_no_border": "mIoU, no border",
    "fg_iou_no_border": "object IoU, no border",
    "miou_per_batch": "mIoU per batch",
}


def markdown(rows: Sequence[WeakRow]) -> str:
    """Return the rows as a Markdown table; a row that used masks before it was scored is marked with *."""
    lines = ["| row | pictures | " + " | ".join(COLUMNS.values()) + " | decided | seconds |"]
    lines.append("|---" * (len(COLUMNS) + 4) + "|")
    for row in rows:
        name = f"{row.name}{' *' if row.uses_masks else ''}"
        cells = [name, f"{row.pictures} {row.split}", *(_cell(row[key]) for key in COLUMNS)]
        cells.append("-" if row.decided is None else f"{row.decided:.0%}")
        cells.append("-" if row.seconds is None else f"{row.seconds:.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    if any(row.uses_masks for row in rows):
        lines += ["", "\\* Masks were used to get here: no result of weak supervision."]
    return "\n".join(lines)


def _cell(value: float | Spread | None) -> str:
    if isinstance(value, Spread):
        if None in (value.mean, value.low, value.high):  # not a number, as it stands in a file
            return "-"
        return f"{value.mean:.3f} ({value.low:.3f} to {value.high:.3f})"
    return "-" if value is None else f"{value:.3f}"


REFERENCE = 0.4
"""The fixed threshold of the published reference (a share of the largest value of a picture's heat)."""

TITLES = {
    "heat": "class activation maps",
    "spread": "+ head on the classifier's features",
    "refined": "+ refinement by likeness",
    "voted": "+ superpixels",
    "masks": "pseudo-masks, where decided",
}
"""The names of the stages in the table."""


def stage_rows(weak_data: WeakData, pseudo: PseudoMasks, steps: Steps) -> None:
    """Score every stage on the pictures that students learn from; nothing where they have no masks."""
    if weak_data.learning is None:
        return
    for stage in pseudo.stages:
        if stage.name not in TITLES:
            continue
        _score(weak_data, steps, TITLES[stage.name], "learning", _stage(pseudo, stage.name), stage.seconds)
        if stage.name == "heat":
            title = f"{TITLES['heat']}, fixed threshold {REFERENCE:g}"
            _score(weak_data, steps, title, "learning", _fixed(pseudo, title), stage.seconds)


def oracle_rows(weak_data: WeakData, pseudo: PseudoMasks, steps: Steps) -> None:
    """Look for the threshold on masks, of the first and the last map: marked rows, with their curves."""
    if weak_data.learning is None:
        return
    mapped = [stage.name for stage in pseudo.stages if stage.name in TITLES and stage.name != "masks"]
    for name in dict.fromkeys((mapped[0], mapped[-1])):
        title = f"{TITLES[name]}, oracle threshold"

        def work(name: str = name, title: str = title) -> Facts:
            before = len(weak_data.uses)
            truth = weak_data.truth("learning", f"oracle: {title}")
            assert truth is not None

            def read(index: int) -> torch.Tensor:
                return pseudo.load_stage(name, index)

            curve = threshold_curve(truth, read, what=title)
            best = curve["threshold"][max(range(len(curve["miou"])), key=lambda place: curve["miou"][place])]
            found = figures(count_pixels(truth, above(read, best), what=title))
            return {
                **_about(title, "learning", True),
                **found.plain(),
                "seconds": pseudo.stage(name).seconds,
                "threshold": best,
                "curve": curve,
                "mask_uses": weak_data.uses[before:],
            }

        steps.take(f"score: {title}", work)


def student_rows(
    weak_data: WeakData, runs: Sequence[tuple[str, Path, bool]], steps: Steps, *, device: str
) -> None:
    """Score students on the test split; of each the title, the folder and whether it learned from masks."""
    if weak_data.test is None:
        return
    for title, folder, uses_masks in runs:

        def student(truth: Truth, folder: Path = folder, title: str = title) -> Any:
            return count_student(truth, load(folder, device=device), what=title)

        seconds = _seconds(folder)
        _score(weak_data, steps, title, "test", student, seconds, uses_masks=uses_masks)


def rows(steps: Steps) -> list[WeakRow]:
    """Return the rows that were scored, in their order, without curves."""
    scored = [facts for name, facts in steps.done.items() if name.startswith("score: ")]
    return [
        WeakRow.model_validate({key: value for key, value in row.items() if key != "curve"}) for row in scored
    ]


def _score(
    weak_data: WeakData,
    steps: Steps,
    title: str,
    which: str,
    counted: Callable[[Truth], Any],
    seconds: float | None,
    *,
    uses_masks: bool = False,
) -> None:
    def work() -> Facts:
        before = len(weak_data.uses)
        truth = weak_data.truth(which, f"final evaluation: {title}")
        assert truth is not None
        found = figures(counted(truth))
        return {
            **_about(title, which, uses_masks),
            **found.plain(),
            "seconds": seconds,
            "mask_uses": weak_data.uses[before:],
        }

    steps.take(f"score: {title}", work)


def _about(title: str, which: str, uses_masks: bool) -> dict[str, Any]:
    return {"name": title, "split": "test" if which == "test" else "train", "uses_masks": uses_masks}


def _fixed(pseudo: PseudoMasks, title: str) -> Callable[[Truth], Any]:
    answer = above(lambda index: pseudo.load_stage("heat", index), REFERENCE)
    return lambda truth: count_pixels(truth, answer, what=title)


def _stage(pseudo: PseudoMasks, name: str) -> Callable[[Truth], Any]:
    threshold = pseudo.stage(name).threshold

    def answer(index: int, image: Image) -> tuple[Mask, Region]:
        values = pseudo.load_stage(name, index)
        if name == "masks":
            mask = masks_of(values)
            return (mask == 1).long(), mask != IGNORED
        assert threshold is not None
        return (values >= threshold).long(), torch.ones_like(values, dtype=torch.bool)

    return lambda truth: count_pixels(truth, answer, what=TITLES[name])


def _seconds(folder: Path) -> float:
    return float(records.read_record(folder).results["seconds"])

"""The final evaluation: every stage on the pictures that were learned from, every student on the test split.

This is where masks are read, and each reading is noted.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from seglens.results import record as records
from seglens.runs import load
from seglens.shapes import Image, Mask, Region
from seglens.weak.banded import IGNORED
from seglens.weak.material import Material
from seglens.weak.pseudo import PseudoMasks
from seglens.weak.self_training import masks_of
from seglens.weak.stages import Facts, Steps
from seglens.weak.table import Truth, above, count, count_student, figures, threshold_curve

REFERENCE = 0.4
"""The fixed threshold of the published reference (a share of the largest value of a picture's heat)."""

TITLES = {
    "heat": "class activation maps",
    "spread": "+ head on the classifier's features",
    "refined": "+ refinement by likeness",
    "voted": "+ superpixels",
    "masks": "pseudo-masks, where decided",
}
"""What the stages are called in the table."""


def stage_rows(material: Material, pseudo: PseudoMasks, steps: Steps) -> None:
    """Score every stage on the pictures that students learn from; nothing where they have no masks."""
    if material.learning is None:
        return
    for stage in pseudo.stages:
        if stage.name not in TITLES:
            continue
        _score(material, steps, TITLES[stage.name], "learning", _stage(pseudo, stage.name), stage.seconds)
        if stage.name == "heat":
            title = f"{TITLES['heat']}, fixed threshold {REFERENCE:g}"
            _score(material, steps, title, "learning", _fixed(pseudo, title), stage.seconds)


def oracle_rows(material: Material, pseudo: PseudoMasks, steps: Steps) -> None:
    """Look for the threshold on masks, of the first and the last map: marked rows, with their curves."""
    if material.learning is None:
        return
    mapped = [stage.name for stage in pseudo.stages if stage.name in TITLES and stage.name != "masks"]
    for name in dict.fromkeys((mapped[0], mapped[-1])):
        title = f"{TITLES[name]}, oracle threshold"

        def work(name: str = name, title: str = title) -> Facts:
            before = len(material.uses)
            truth = material.truth("learning", f"oracle: {title}")
            assert truth is not None

            def read(index: int) -> torch.Tensor:
                return pseudo.load_stage(name, index)

            curve = threshold_curve(truth, read, what=title)
            best = curve["threshold"][max(range(len(curve["miou"])), key=lambda place: curve["miou"][place])]
            found = figures(count(truth, above(read, best), what=title))
            return {
                **_about(title, "learning", True),
                **found,
                "seconds": pseudo.stage(name).seconds,
                "threshold": best,
                "curve": curve,
                "mask_uses": material.uses[before:],
            }

        steps.take(f"score: {title}", work)


def student_rows(
    material: Material, runs: Sequence[tuple[str, Path, bool]], steps: Steps, *, device: str
) -> None:
    """Score students on the test split; of each the title, the folder and whether it learned from masks."""
    if material.test is None:
        return
    for title, folder, uses_masks in runs:

        def student(truth: Truth, folder: Path = folder, title: str = title) -> Any:
            return count_student(truth, load(folder, device=device), what=title)

        seconds = _seconds(folder)
        _score(material, steps, title, "test", student, seconds, uses_masks=uses_masks)


def rows(steps: Steps) -> list[dict[str, Any]]:
    """Return the rows that were scored, in their order, without curves."""
    scored = [facts for name, facts in steps.done.items() if name.startswith("score: ")]
    return [{key: value for key, value in row.items() if key != "curve"} for row in scored]


def _score(
    material: Material,
    steps: Steps,
    title: str,
    which: str,
    counted: Callable[[Truth], Any],
    seconds: float | None,
    *,
    uses_masks: bool = False,
) -> None:
    def work() -> Facts:
        before = len(material.uses)
        truth = material.truth(which, f"final evaluation: {title}")
        assert truth is not None
        found = figures(counted(truth))
        return {
            **_about(title, which, uses_masks),
            **found,
            "seconds": seconds,
            "mask_uses": material.uses[before:],
        }

    steps.take(f"score: {title}", work)


def _about(title: str, which: str, uses_masks: bool) -> dict[str, Any]:
    return {"name": title, "split": "test" if which == "test" else "train", "uses_masks": uses_masks}


def _fixed(pseudo: PseudoMasks, title: str) -> Callable[[Truth], Any]:
    answer = above(lambda index: pseudo.load_stage("heat", index), REFERENCE)
    return lambda truth: count(truth, answer, what=title)


def _stage(pseudo: PseudoMasks, name: str) -> Callable[[Truth], Any]:
    threshold = pseudo.stage(name).threshold

    def answer(index: int, image: Image) -> tuple[Mask, Region]:
        values = pseudo.load_stage(name, index)
        if name == "masks":
            mask = masks_of(values)
            return (mask == 1).long(), mask != IGNORED
        assert threshold is not None
        return (values >= threshold).long(), torch.ones_like(values, dtype=torch.bool)

    return lambda truth: count(truth, answer, what=TITLES[name])


def _seconds(folder: Path) -> float:
    return float(records.read(folder).results["seconds"])

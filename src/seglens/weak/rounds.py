"""The rounds of a weak run: a student learns from pseudo-masks, later ones from the student before."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from seglens.results import record as records
from seglens.runs import Run, load
from seglens.shapes import Mask
from seglens.train import train
from seglens.weak.classifier import train_classifier
from seglens.weak.data import WeakData
from seglens.weak.pseudo_masks import PseudoMasks, make_pseudo_masks
from seglens.weak.recipe import WeakSettings
from seglens.weak.self_training import (
    mask_agreement,
    masks_of,
    next_labels,
    read_answer,
    refinement,
    write_answers,
)
from seglens.weak.settings import PseudoSettings
from seglens.weak.steps import Facts, Steps
from seglens.weak.students import opened_as, read_label_of, train_student, write_set


@dataclass(frozen=True)
class WeakJob:
    """One run on its way: what it works on and how, where it writes, and the steps that are done."""

    weak_data: WeakData
    settings: WeakSettings
    out: Path
    device: torch.device
    steps: Steps


def planned(settings: WeakSettings) -> tuple[str, ...]:
    """Return the kinds of the steps that there are at most, in order."""
    rounds = ("masks", "student", "answers") * (settings.rounds + 1)
    steps = ("classifier",) * (settings.question == "labels") + ("pseudo-masks", *rounds, "sheets")
    if not settings.evaluate:
        return steps
    scored = 7 + settings.rounds + settings.supervised + 2 * settings.oracle
    full = ("fully supervised student",) * settings.supervised
    return (*steps, *full, *("score",) * scored, "sheets with the truth")


def prepare_pseudo_masks(job: WeakJob) -> PseudoMasks:
    """Make the pseudo-masks, or take up those that are there."""
    made: list[PseudoMasks] = []
    settings, labelled = _stages(job), job.weak_data.pictures.labelled
    folder, seed = job.settings.pseudo_folder or job.out / "pseudo", job.settings.pseudo_seed
    seed = job.settings.student.seed if seed is None else seed

    def make() -> PseudoMasks:
        return make_pseudo_masks(labelled, settings, folder, device=job.device, seed=seed)

    def work() -> Facts:
        made.append(make())
        stages = {
            stage.name: {
                "seconds": stage.seconds,
                "processor_seconds": stage.processor_seconds,
                "once": stage.once,
                "threshold": stage.threshold,
                **stage.facts,
            }
            for stage in made[0].stages
        }
        return {"seconds": sum(stage.seconds for stage in made[0].stages), "stages": stages}

    job.steps.take("pseudo-masks", work)
    return made[0] if made else make()


def students(job: WeakJob, pseudo: PseudoMasks) -> list[Path]:
    """Train a student on the pseudo-masks, each further one on the last one's masks; return their folders.

    Every student begins with the weights that the first began with: what a student learned wrongly is handed
    on by its answers alone.
    """
    trained: list[Path] = []
    for number in range(job.settings.rounds + 1):
        folder = _round(job, number)
        folder.mkdir(parents=True, exist_ok=True)
        _take(job, number, pseudo)
        trained.append(folder / "student")
        agreed = job.steps.done[f"round {number}: answers"]["miou"]
        if number and agreed >= job.settings.stop_at:
            print(
                f"Students {number - 1} and {number} agree (mIoU {agreed:.3f}, limit "
                f"{job.settings.stop_at:g}): no more rounds.",
                file=sys.stderr,
            )
            break
    return trained


def supervised(job: WeakJob) -> Path:
    """Train the same student on the masks, for comparison; return its folder. The use is noted."""
    folder = job.out / "supervised"

    def work() -> Facts:
        before = len(job.weak_data.uses)
        job.weak_data.truth("learning", "training the fully supervised student of the comparison")
        run = train(job.weak_data.settings, job.settings.student, folder, resume=True)
        return _trained(run) | {"mask_uses": job.weak_data.uses[before:]}

    job.steps.take("fully supervised student", work)
    return folder


def _round(job: WeakJob, number: int) -> Path:
    return job.out / "rounds" / str(number)


def _take(job: WeakJob, number: int, pseudo: PseudoMasks) -> None:
    """Do one round: masks, student, answers."""
    folder, name = _round(job, number), f"round {number}"
    pictures = job.weak_data.pictures

    def masks() -> Facts:
        label = _pseudo_label(pseudo) if number == 0 else _answered(job, number)
        write_set(folder / "set", pictures, label, what=f"{name}: masks")
        return {}

    def student() -> Facts:
        settings = job.settings.student
        return _trained(train_student(opened_as(folder / "set", pictures), settings, folder / "student"))

    def answers() -> Facts:
        run = load(folder / "student", device=str(job.device))
        settings = job.settings.teacher
        refine = refinement(settings, pseudo.load_superpixels)
        write_answers(
            run,
            pictures,
            folder / "answers",
            settings,
            refine=refine,
            batch_size=job.settings.student.batch_size,
            precision=job.settings.student.precision,
        )
        return _agreed(job, number, run.spec.threshold)

    job.steps.take(f"{name}: masks", masks)
    job.steps.take(f"{name}: student", student)
    job.steps.take(f"{name}: answers", answers)


def _trained(run: Run) -> Facts:
    assert run.folder is not None
    results = records.read_record(run.folder).results
    return {
        "seconds": results["seconds"],
        "best_epoch": results["best_epoch"],
        "threshold": run.spec.threshold,
        "valid_dice_of_pseudo_masks": results["valid"]["dice"],
    }


def _agreed(job: WeakJob, number: int, threshold: float) -> Facts:
    """Compare this student's answers with the last one's, or the first's with the masks it learned from."""
    pictures = job.weak_data.pictures
    now = _round(job, number) / "answers"

    def hard(folder: Path, index: int, cut: float) -> Mask:
        return (read_answer(folder, pictures, index) >= cut).long()

    if number == 0:
        given = _round(job, 0) / "set"
        pairs = (
            (read_label_of(given, pictures, index), hard(now, index, threshold))
            for index in pictures.labelled.positive
        )
    else:
        last = job.steps.done[f"round {number - 1}: student"]["threshold"]
        before = _round(job, number - 1) / "answers"
        pairs = (
            (hard(before, index, last), hard(now, index, threshold)) for index in pictures.labelled.positive
        )
    return {**mask_agreement(pairs), "with": f"student {number - 1}" if number else "the pseudo-masks"}


def _pseudo_label(pseudo: PseudoMasks) -> Callable[[int], Mask]:
    def label(index: int) -> Mask:
        return masks_of(pseudo.load_stage("masks", index))

    return label


def _answered(job: WeakJob, number: int) -> Callable[[int], Mask]:
    """Return the masks that round ``number`` learns from: answers of the round before, where it is sure."""
    pictures, margin = job.weak_data.pictures, job.settings.teacher.margin
    threshold = job.steps.done[f"round {number - 1}: student"]["threshold"]
    before = _round(job, number - 1)

    def label(index: int) -> Mask:
        answer = read_answer(before / "answers", pictures, index)
        return next_labels(answer, read_label_of(before / "set", pictures, index), threshold, margin)

    return label


def _stages(job: WeakJob) -> PseudoSettings:
    """Return the settings of the pseudo-masks; a classifier is trained on the labels first, if asked for."""
    settings = job.settings.pseudo
    if job.settings.question == "imagenet":
        return settings
    folder, labelled = job.out / "classifier", job.weak_data.pictures.labelled

    def work() -> Facts:
        seed, recipe = job.settings.student.seed, job.settings.classifier
        return train_classifier(labelled, folder, device=job.device, seed=seed, settings=recipe)

    job.steps.take("classifier", work)
    return replace(settings, question=replace(settings.question, classifier=str(folder)))

"""Weakly supervised segmentation: from image-level labels to a model, without reading a mask.

`weak` reads from top to bottom: labels, pseudo-masks, students, and only then the evaluation. Every step is
done once and kept; a run that was stopped goes on where it was. Later commands take the run folder itself:
its model is the last student, its data those of the user.
"""

import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from seglens.arguments import checked
from seglens.callable_module import make_callable
from seglens.data.layout import DataSettings
from seglens.data.listing import FILE_NAME as SPLITS
from seglens.data.listing import read_listing, write_listing
from seglens.data.sample import Task
from seglens.errors import DataError, SettingError, unknown_name
from seglens.files.output import alone, begin_run, close_run, new_file
from seglens.files.overwrite import place_of_run, refuse_overlap
from seglens.files.ownership import contents, remove_listed
from seglens.models.zoo import build
from seglens.results import record as records
from seglens.results.record import Record
from seglens.runs import Run, load, save_run
from seglens.runtime.device import choose_device, choose_precision
from seglens.train.losses import choose_loss
from seglens.weak import contact_sheets as sheets
from seglens.weak import steps, table
from seglens.weak.classifier_score import check_classifier, check_layers
from seglens.weak.data import WeakData, open_weak_data
from seglens.weak.heat import map_taps
from seglens.weak.pseudo_masks import PseudoMasks, check_score_settings
from seglens.weak.recipe import WeakSettings, refuse_other
from seglens.weak.refine import REFINEMENTS
from seglens.weak.rounds import WeakJob, planned, prepare_pseudo_masks, students, supervised
from seglens.weak.steps import Facts, Steps
from seglens.weak.threshold import RULES

__all__ = ["WeakSettings", "weak"]

TABLE = "table"
PICTURES = "pictures.json"
"""The file that lists pictures without masks, as ``split.json`` lists those of the run's model."""


@checked
def weak(
    data: DataSettings, settings: WeakSettings, out: str | Path, *, resume: bool = False, force: bool = False
) -> Run:
    """Learn to segment ``data`` from image-level labels, and return the last student as a run in ``out``.

    In ``out``: ``pseudo/`` with a folder for every stage, ``rounds/N/`` with the set, the student and its
    answers of every round, ``samples/`` with a sheet for each chosen picture, ``steps.json`` with what every
    step took, ``table.md`` and ``table.json`` with the comparison. ``run.json`` lists every use of a mask.
    ``resume`` goes on where a run stopped, and begins one where there is none. With ``force`` a run that is
    there is replaced when the new one is whole; until then that is made in ``.NAME.partial`` beside.

    Raises:
        UserError: the data, a label, a setting or the folder can't be used as they are.
        TrainingError: as `seglens.train`.
        KeyboardInterrupt: on Ctrl-C; the run can be resumed.
    """
    out = Path(out)
    if data.multilabel:
        raise SettingError(
            "'seglens weak' learns one class a pixel, so --multilabel can't be used. Leave it out."
        )
    if data.folds is not None:
        raise SettingError(
            "'seglens weak' trains one student a round, so folds can't be used. Leave them out."
        )
    given = settings.pseudo_folder
    if given is not None and not given.is_dir():
        raise DataError(
            f"The folder of pseudo-masks {given} doesn't exist. Name the folder pseudo/ of another run."
        )
    _try_out(data, settings, resume=resume)
    refuse_overlap(out, data=[data.path, *filter(None, [settings.pseudo_folder])])
    out.parent.mkdir(parents=True, exist_ok=True)
    with alone(out):
        place = place_of_run(out, "weak", resume=resume, force=force)
        new = not place.is_dir() or not any(place.iterdir())
        try:
            return _weak(data, settings, out, place, resume=resume)
        except BaseException:
            if new and place.is_dir():
                _remove_unbegun(place)
            raise


def _remove_unbegun(place: Path) -> None:
    """Remove what a run wrote that got no further than lists and settings; what the user put there stays.

    Work leaves another kind of file first (a map, weights, a mask); a step that is done, ``steps.json``.
    """
    ours = contents(place).ours
    if all(name.endswith(".json") and name != steps.FILE_NAME for name in ours):
        remove_listed(place, ours)


def _try_out(data: DataSettings, settings: WeakSettings, *, resume: bool) -> None:
    """Refuse before any work what is used only after some of it: stages, the student, a new run's classifier.

    Raises:
        UserError: there is no such thing, or it can't serve.
    """
    student, pseudo, given = settings.student, settings.pseudo, settings.pseudo_folder
    named: list[tuple[str, str, Iterable[str]]] = [("rule for a threshold", pseudo.threshold.rule, RULES)]
    if pseudo.refine is not None:
        named.append(("refinement", pseudo.refine.method, REFINEMENTS))
    taps = map_taps(pseudo.heat)
    for kind, name, allowed in named:
        if name not in allowed:
            raise unknown_name(kind, name, allowed)
    asks_imagenet = settings.question == "imagenet"
    if given is None and not resume and asks_imagenet:
        check_score_settings(pseudo.question)
    elif given is None and not resume:
        check_classifier(settings.classifier.encoder, settings.classifier.weights)
    if given is None and not resume and pseudo.question.classifier is None:
        encoder = pseudo.question.encoder if asks_imagenet else settings.classifier.encoder
        check_layers(encoder, "heat.maps", [tap.layer for tap in taps], pseudo.heat.scales)
        if pseudo.spread is not None:
            check_layers(encoder, "spread.layers", pseudo.spread.layers, pseudo.spread.scales)
    choose_precision(student.precision, choose_device(student.device))
    choose_loss(student.loss, 1, multilabel=False)
    build(
        student.model,
        encoder=student.encoder,
        encoder_weights=student.encoder_weights,
        channels=data.channels,
        width=student.width,
    )


def _weak(data: DataSettings, settings: WeakSettings, out: Path, place: Path, *, resume: bool) -> Run:
    """Work in ``place``, which becomes ``out``."""
    began = time.monotonic()
    earlier = records.read_record(place) if resume and (place / records.FILE_NAME).is_file() else None
    weak_data = open_weak_data(data, settings.labels, None if earlier is None else place)
    listed = SPLITS if weak_data.has_masks else PICTURES
    if earlier is not None:
        refuse_other(earlier, settings, weak_data, read_listing(place, listed), place)
    indices = sheets.chosen_numbers(weak_data.pictures, settings.samples)
    device = choose_device(settings.student.device)
    if earlier is None:
        begin_run(place)
        write_listing(place, weak_data.dataset, listed)
    record = _begun(earlier, settings, weak_data, str(device))
    record.write(place)

    job = WeakJob(weak_data, settings, place, device, Steps.of(place, planned(settings)))
    pseudo = prepare_pseudo_masks(job)
    folders = students(job, pseudo)
    _draw(job, pseudo, folders, indices, with_truth=False)
    if settings.evaluate:
        _evaluate(job, pseudo, folders)
        _draw(job, pseudo, folders, indices, with_truth=True)
    _close(job, record, folders, time.monotonic() - began)
    close_run(place, out, "weak")
    return load(out, device=str(device))


def _begun(earlier: Record | None, settings: WeakSettings, weak_data: WeakData, device: str) -> Record:
    """Return the record of a run that goes on: the first one's, or a new one."""
    seed = settings.student.seed
    record = earlier or records.start("weak", seed=seed, data_sha256=weak_data.sha256)
    pictures = {"pictures": weak_data.settings.model_dump(mode="json"), "labels": weak_data.labels_hash}
    return record.with_facts(
        state="running",
        device=device,
        settings=settings.model_dump(mode="json"),
        results=record.results | pictures,
    )


def _draw(
    job: WeakJob, pseudo: PseudoMasks, folders: list[Path], indices: list[int], *, with_truth: bool
) -> None:
    """Draw the sheets of the samples; the truth comes onto them after the evaluation."""
    if with_truth and job.weak_data.learning is None:
        return

    def work() -> Facts:
        before = len(job.weak_data.uses)
        purpose = "the truth on the sheets of samples, after the evaluation"
        truth = job.weak_data.truth("learning", purpose) if with_truth else None
        answers = [
            (folder.parent / "answers", load(folder, device="cpu").spec.threshold) for folder in folders
        ]
        margin = job.settings.teacher.margin
        pictures = job.weak_data.pictures
        sheets.write_sheets(
            job.out / "samples", pictures, pseudo, answers, indices, margin=margin, truth=truth
        )
        return {"pictures": indices, "mask_uses": job.weak_data.uses[before:]}

    job.steps.take("sheets with the truth" if with_truth else "sheets", work)


def _evaluate(job: WeakJob, pseudo: PseudoMasks, folders: list[Path]) -> None:
    """Read masks for the first time: score stages and students, and write the table."""
    titles = [
        f"student{f', round {number} of self-training' if number else ''}" for number in range(len(folders))
    ]
    scored = [(title, folder, False) for title, folder in zip(titles, folders, strict=True)]
    if job.settings.supervised:
        scored.append(("fully supervised student", supervised(job), True))
    table.stage_rows(job.weak_data, pseudo, job.steps)
    if job.settings.oracle:
        table.oracle_rows(job.weak_data, pseudo, job.steps)
    table.student_rows(job.weak_data, scored, job.steps, device=str(job.device))
    rows = table.rows(job.steps)
    if not rows:
        return
    with new_file(job.out / f"{TABLE}.md", force=True) as file:
        file.write_text(table.markdown(rows) + "\n", encoding="utf-8")
    plain = {"rows": [row.plain() for row in rows], "definitions": table.DEFINITIONS}
    records.write_json(job.out / f"{TABLE}.json", plain)


def _close(job: WeakJob, record: Record, folders: list[Path], seconds: float) -> None:
    """Make ``out`` the run folder of the last student, and write down every use of a mask."""
    final, steps = load(folders[-1], device="cpu"), job.steps
    trained = records.read_record(folders[-1])
    uses: list[dict[str, Any]] = list(job.weak_data.labelling_uses)
    for facts in steps.done.values():
        uses += facts.get("mask_uses", [])
    results = record.results | {
        "first_weights": trained.results.get("first_weights", ""),
        "student": str(folders[-1].relative_to(job.out)),
        "rounds": len(folders) - 1,
        "seconds": {
            name: facts["seconds"] for name, facts in steps.done.items() if not name.startswith("score")
        },
        "agreement": [facts["miou"] for name, facts in steps.done.items() if name.endswith(": answers")],
        "mask_uses": uses,
        "rows": [row.plain() for row in table.rows(steps)],
    }
    final.segmenter.origin = results["first_weights"]
    done = record.with_facts(
        state="finished",
        duration_seconds=round(record.duration_seconds + seconds, 3),
        data=job.weak_data.settings.model_dump(mode="json") if job.weak_data.has_masks else trained.data,
        results=results,
    )
    task = Task(classes=job.weak_data.pictures.classes)
    if not job.weak_data.has_masks:
        shutil.copyfile(folders[-1] / SPLITS, job.out / SPLITS)
    save_run(job.out, final.segmenter, task, done)


make_callable(__name__)

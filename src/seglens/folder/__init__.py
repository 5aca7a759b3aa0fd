"""Whole folders of pictures: explained, judged or predicted chunk by chunk, in memory that doesn't grow.

A picture that can't be done is listed in the `Summary` and in the table, and the rest is done. Nothing is
written under the final name before all of it is there.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from seglens.arguments import checked
from seglens.arguments.inputs import names_of
from seglens.arguments.renamed import renamed
from seglens.data.classes import NO_MAP
from seglens.data.groups import grouping_of
from seglens.explain import explain
from seglens.explain.methods import Method, methods_of
from seglens.files.output import new_folder
from seglens.files.overwrite import check_output
from seglens.folder import writer
from seglens.folder.auditing import (
    AUTO,
    check_regions,
    divisions_of,
    regions_by_leaks,
    regions_of,
    write_audit,
)
from seglens.folder.chunks import (
    CHUNK,
    Failure,
    Given,
    Summary,
    choose,
    naming_pictures,
    read_chunks,
    refuse_none_done,
    split_of,
)
from seglens.folder.explaining import explain_folder
from seglens.folder.judge_plan import JudgePlan, plan_judging
from seglens.folder.prediction import predict_files
from seglens.folder.request import class_index_of, place_of, targets_of, with_references_of
from seglens.judge.audit import Audited, audit
from seglens.judge.case import JudgeSettings
from seglens.judge.evidence import BatchScores, combine, score, score_batch
from seglens.judge.figures import draw_figures
from seglens.models.segmenter import each_pass
from seglens.results import record as records
from seglens.runs import Run
from seglens.runtime.progress import counted, is_shown

__all__ = ["Failure", "Summary", "explain_folder", "judge_folder", "predict_files"]


@renamed(chunk="batch_size")
@checked
def judge_folder(
    run: Run,
    pictures: Given,
    *,
    out: str | Path | None = None,
    methods: Method | Sequence[Method] = ("grad-cam",),
    layers: str | Sequence[str] = ("encoder_last", "decoder_last"),
    target: str = "predicted",
    class_name: str | None = None,
    num_images: int | None = None,
    seed: int = 0,
    batch_size: int = CHUNK,
    judging: JudgeSettings | None = None,
    plan: JudgePlan | None = None,
    audit_regions: Sequence[str] = (),
    groups: str | None = None,
    class_map: Mapping[str, str] = NO_MAP,
    force: bool = False,
) -> Summary:
    """Judge the maps of a split, or of image files: ``scorecard.json``, ``scorecard.csv`` and ``run.json``.

    ``num_images`` are spread evenly over the split; all by default. Where maps race (see `judge.race`) they
    come in a seeded random order. ``judging`` says which scores are made (all by default); figures are
    written beside the tables. ``plan`` is that of `plan_judging` for the same arguments, where there is one:
    the bar goes by it. With ``audit_regions``, names of `judge.regions.REGIONS` or ``mask:FILE``,
    ``audit.json`` and ``audit.csv`` say whether maps light up there and whether it matters; ``auto`` is all
    of `REGIONS`, those that the leak test of an evaluation points to first. ``groups`` are ``folder`` or
    ``FILE.csv:COLUMN``; left out, the strata of the pictures, where a table names some. The rest is as in
    `explain_folder`.

    Raises:
        UnknownNameError, SettingError, DataError, OutputExistsError: as `explain_folder`.
    """
    began = time.monotonic()
    split = choose(split_of(run, pictures, class_map), None, num_images)
    judging = judging or JudgeSettings()
    if judging.race:  # any order but a random one may put what belongs together first
        split = split.select(
            torch.randperm(len(split), generator=torch.Generator().manual_seed(seed)).tolist()
        )
    grouping = grouping_of(split)
    class_index = class_index_of(run, class_name)
    place = place_of(run, split, out, "judge")
    layers = names_of(layers)
    methods = with_references_of(run, split, methods_of(methods), seed)
    check_regions(audit_regions)
    if AUTO in audit_regions:
        named = [name for name in audit_regions if name != AUTO]
        audit_regions = list(dict.fromkeys([*named, *regions_by_leaks(run, split)]))
    divisions = divisions_of(split, groups)
    audits: list[list[Audited]] = []
    names: list[str] = []
    numbers: list[int] = []
    failed: list[Failure] = []
    scores: BatchScores | None = None
    num_windows = 0
    check_output(place, "judge", force=force, runs=filter(None, [run.folder]), files=split.files)
    if plan is None and is_shown():
        plan = plan_judging(
            run,
            split,
            methods=methods,
            layers=layers,
            target=target,
            class_name=class_name,
            judging=judging,
            batch_size=batch_size,
        )
    total = 0 if plan is None else plan.forwards(judging.scores)
    with (
        new_folder(place, command="judge", force=force) as folder,
        counted("judging", total=total) as bar,
        each_pass(bar.made),
    ):
        for part in read_chunks(run, split, most=batch_size, failed=failed, targets=(target,), what=""):
            with naming_pictures(part):
                (chosen,) = targets_of(run, part, (target,), class_index)
                made = explain(run, part.batch.images, chosen, methods=methods, layers=layers, seed=seed)
                maps = list(made.values())
                numbers += part.numbers
                num_windows += sum(frame.is_cut for frame in part.frames)
                found = score_batch(
                    run,
                    part.batch.images,
                    chosen,
                    maps,
                    valid=part.batch.valid,
                    settings=judging,
                    before=scores,
                    num=len(split),
                    groups=grouping.of(numbers),
                    seed=seed,
                )
                scores = found if scores is None else combine([scores, found])
                if audit_regions:
                    regions, valid = regions_of(part, audit_regions), part.batch.valid
                    audits.append(
                        audit(run, part.batch.images, chosen, maps, regions, valid=valid, seed=seed)
                    )
                    names += part.batch.names
            if plan is not None:
                bar.left(plan.left(judging.scores, scores.num_images + len(failed), scores.racing))
        refuse_none_done(0 if scores is None else scores.num_images, failed)
        assert scores is not None
        together = grouping.of(numbers)
        card = score(scores, groups=together, seed=seed)
        table = card.table.model_copy(
            update={
                "failed": tuple(map(writer.failed_row, failed)),
                "resampling": grouping.resampling(numbers),
                "num_windows": num_windows,
            }
        )
        records.write_json(folder / "scorecard.json", table)
        (folder / "scorecard.csv").write_text(card.to_csv(), encoding="utf-8", errors="backslashreplace")
        draw_figures(card, folder)
        audited = (
            write_audit(audits, names, divisions, folder, together=together, seed=seed)
            if audit_regions
            else None
        )
        settings = {
            "methods": [str(method) for method in methods],
            "layers": layers,
            "target": target,
            "class": run.task.classes[class_index],
            "num_images": num_images,
            "batch_size": batch_size,
            "judging": asdict(judging),
            "audit_regions": list(audit_regions),
            "groups": groups,
        }
        num = card.num_images
        writer.write_record(
            "judge", run, split, folder, began, seed=seed, settings=settings, num_done=num, failed=failed
        )
    return Summary(place, card.num_images, tuple(failed), card=table, audit=audited)

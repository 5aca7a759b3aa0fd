"""Whole folders of pictures: explained, judged or predicted chunk by chunk, in memory that doesn't grow.

A picture that can't be done is listed in the `Summary` and in the table, and the rest is done. Nothing is
written under the final name before all of it is there.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from seglens import record as records
from seglens.batch import ledger
from seglens.batch.asking import class_index_of, place_of, targets_of
from seglens.batch.chunks import CHUNK, Failure, Summary, choose, read_chunks, refuse_none_done, split_of
from seglens.batch.explaining import explain_folder
from seglens.batch.prediction import predict_files
from seglens.data.layout import Split
from seglens.explain import explain
from seglens.explain.methods import Method
from seglens.judge.case import JudgeSettings
from seglens.judge.evidence import Evidence, combine, gather, score
from seglens.judge.figures import draw_figures
from seglens.outputs import new_folder
from seglens.runs import Run

__all__ = ["Failure", "Summary", "explain_folder", "judge_folder", "predict_files"]

Methods = Sequence[Method]


def judge_folder(
    run: Run,
    pictures: Split | Sequence[Path | str],
    *,
    out: Path | None = None,
    methods: Methods = ("grad-cam",),
    layers: Sequence[str] = ("encoder_last", "decoder_last"),
    target: str = "predicted",
    class_name: str | None = None,
    num_images: int | None = None,
    seed: int = 0,
    chunk: int = CHUNK,
    judging: JudgeSettings | None = None,
    force: bool = False,
) -> Summary:
    """Judge the maps of a split, or of image files: ``scorecard.json``, ``scorecard.csv`` and ``run.json``.

    ``num_images`` are spread evenly over the split; all by default. ``judging`` says which scores are made
    (all by default); figures are written beside the tables. The rest is as in `explain_folder`.

    Raises:
        UnknownNameError, SettingError, DataError, OutputExistsError: as `explain_folder`.
    """
    began = time.monotonic()
    split = choose(split_of(run, pictures), None, num_images)
    class_index = class_index_of(run, class_name)
    place = place_of(run, split, out, "judge")
    failed: list[Failure] = []
    parts: list[Evidence] = []
    with new_folder(place, force=force) as folder:
        for part in read_chunks(run, split, most=chunk, failed=failed, targets=(target,), what="judging"):
            (aim,) = targets_of(run, part, (target,), class_index)
            found = explain(run, part.batch.images, aim, methods=methods, layers=layers, seed=seed)
            maps = list(found.values())
            parts.append(
                gather(
                    run,
                    part.batch.images,
                    aim,
                    maps,
                    valid=part.batch.valid,
                    settings=judging,
                    done=sum(before.num_images for before in parts),
                    seed=seed,
                )
            )
        refuse_none_done(len(parts), failed)
        card = score(combine(parts), seed=seed)
        table = {**card.to_json(), "failed": [ledger.failed_row(failure) for failure in failed]}
        records.write_json(folder / "scorecard.json", table)
        (folder / "scorecard.csv").write_text(card.to_csv(), encoding="utf-8")
        draw_figures(card, folder)
        settings = {
            "methods": [str(method) for method in methods],
            "layers": layers,
            "target": target,
            "class": run.task.classes[class_index],
            "num_images": num_images,
            "chunk": chunk,
            "judging": asdict(judging or JudgeSettings()),
        }
        num = card.num_images
        ledger.write_record(
            "judge", run, split, folder, began, seed=seed, settings=settings, num_done=num, failed=failed
        )
    return Summary(place, card.num_images, tuple(failed))

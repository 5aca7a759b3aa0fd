"""Whole folders of pictures: explained, judged or predicted chunk by chunk, in memory that doesn't grow.

A picture that can't be done is listed in the `Summary` and in the table, and the rest is done. Nothing is
written under the final name before all of it is there.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seglens import record as records
from seglens.batch import ledger
from seglens.batch.chunks import (
    FILES,
    Chunk,
    Failure,
    Summary,
    choose,
    read_chunks,
    refuse_none_done,
    split_of,
)
from seglens.batch.ledger import Measured, Row
from seglens.batch.prediction import native_masks, predict_files
from seglens.data.layout import Split
from seglens.errors import SettingError
from seglens.explain import explain
from seglens.explain.cams import CAMS
from seglens.explain.explanation import Explanation
from seglens.explain.methods import Method
from seglens.explain.statistics import DEFINITIONS, statistics
from seglens.explain.target import Target
from seglens.explain.target_names import named_target
from seglens.judge.evidence import Evidence, combine, gather, score
from seglens.judge.localisation import attention
from seglens.judge.nulls import randomised, surface
from seglens.outputs import new_folder, safe_name, unused_name
from seglens.predict import Prediction
from seglens.runs import Run
from seglens.spread import ALONE, Share

__all__ = ["Failure", "Summary", "explain_folder", "judge_folder", "predict_files"]

CHUNK = 16
"""Pictures at a time: enough that the others of a chunk can serve as a null."""

Methods = Sequence[Method]


def explain_folder(
    run: Run,
    pictures: Split | Sequence[Path | str],
    *,
    out: Path | None = None,
    methods: Methods = ("grad-cam",),
    layers: Sequence[str] = ("encoder_last", "decoder_last"),
    target: str = "predicted",
    class_name: str | None = None,
    samples: Sequence[int] | None = None,
    num_samples: int | None = None,
    seed: int = 0,
    chunk: int = CHUNK,
    force: bool = False,
    share: Share = ALONE,
) -> Summary:
    """Explain the pictures of a split, or image files: maps, overlays, sheets, statistics and their nulls.

    Writes ``explanations.json`` (all numbers), ``table.csv`` (one row a map), ``run.json``, and for each
    picture ``samples/<name>/`` with ``orig gt pred overlay``, a heat map for each method and layer, sheets
    that compare them, ``maps.npz`` (see `sheets.save_raw`) and ``explanation.json``.

    Args:
        run: the model.
        pictures: a split, or image files, whose truth is then unknown.
        out: the folder to write; ``explain/<split>`` in the run folder by default.
        methods: names, or settings of methods that have some.
        layers: roles or module paths; methods that look at the input only leave them aside.
        target: as on the command line, such as ``predicted`` or ``point:120,84`` (native pixels).
        class_name: the class that the target is about; the first after the background by default.
        samples: numbers of the pictures to explain.
        num_samples: how many to explain, spread evenly over the split.
        seed: of everything that is drawn at random.
        chunk: pictures at a time.
        force: replace a folder that is there.
        share: this process's part of a job that is spread over several, which together write what one alone
            would.

    Raises:
        UnknownNameError: no such method, layer, target or class.
        SettingError: the target needs a truth that the pictures don't have, or a number is not allowed.
        DataError: not one picture could be explained.
        OutputExistsError: ``out`` exists and ``force`` is not given.
    """
    began = time.monotonic()
    split = choose(split_of(run, pictures), samples, num_samples)
    class_index = _class_index(run, class_name)
    place = _folder(run, split, out, "explain")
    failed: list[Failure] = []
    rows: list[Row] = []
    measured: list[list[Measured]] = []
    taken: set[str] = set()
    names = [unused_name(entry.name, taken) for entry in split.entries]
    share.agree("pictures", names)
    with share.folder(place, force=force) as folder:
        (folder / "samples").mkdir(exist_ok=True)
        for part in read_chunks(run, split, most=chunk, failed=failed, target=target, share=share):
            aim = _target(run, part, target, class_index)
            written, found = _write_chunk(run, part, aim, methods, layers, names, folder, seed=seed)
            rows += written
            measured.append(found)
            del part, aim  # before the next chunk is made
        rows, failed, measured = share.gather(rows), share.gather(failed), share.gather(measured)
        refuse_none_done(len(rows), failed)
        if share.first:
            summary = [ledger.summary_row(of_map, seed=seed) for of_map in zip(*measured, strict=True)]
            every = rows + [ledger.failed_row(failure) for failure in failed]
            table = {
                "split": None if split.name == FILES else split.name,
                "methods": list(dict.fromkeys(row["method"] for row in summary)),
                "layers": list(dict.fromkeys(row["layer"] for row in summary if row["layer"] is not None)),
                "targets": [target],
                "class": run.task.classes[class_index],
                "definitions": DEFINITIONS,
                "samples": every,
                "summary": summary,
            }
            records.write_json(folder / "explanations.json", table)
            ledger.write_table(ledger.flat(every), folder / "table.csv")
            settings: dict[str, Any] = {key: table[key] for key in ("methods", "layers", "targets", "class")}
            settings |= {"samples": samples, "num_samples": num_samples, "chunk": chunk}
            settings |= {"processes": share.size}
            ledger.write_record(
                "explain",
                run,
                split,
                folder,
                began,
                seed=seed,
                settings=settings,
                num_done=len(rows),
                failed=failed,
            )
    return Summary(place, len(rows), tuple(failed))


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
    force: bool = False,
) -> Summary:
    """Judge the maps of a split, or of image files: ``scorecard.json``, ``scorecard.csv`` and ``run.json``.

    ``num_images`` are spread evenly over the split; all by default. The rest is as in `explain_folder`.

    Raises:
        UnknownNameError, SettingError, DataError, OutputExistsError: as `explain_folder`.
    """
    began = time.monotonic()
    split = choose(split_of(run, pictures), None, num_images)
    class_index = _class_index(run, class_name)
    place = _folder(run, split, out, "judge")
    failed: list[Failure] = []
    parts: list[Evidence] = []
    with new_folder(place, force=force) as folder:
        for part in read_chunks(run, split, most=chunk, failed=failed, target=target, what="judging"):
            aim = _target(run, part, target, class_index)
            maps = _explain(run, part, aim, methods, layers, seed=seed)
            parts.append(gather(run, part.batch.images, aim, maps, seed=seed))
        refuse_none_done(len(parts), failed)
        card = score(combine(parts), seed=seed)
        table = {**card.to_json(), "failed": [ledger.failed_row(failure) for failure in failed]}
        records.write_json(folder / "scorecard.json", table)
        (folder / "scorecard.csv").write_text(card.to_csv(), encoding="utf-8")
        settings = {
            "methods": [str(method) for method in methods],
            "layers": layers,
            "target": target,
            "class": run.task.classes[class_index],
            "num_images": num_images,
            "chunk": chunk,
        }
        num = card.num_images
        ledger.write_record(
            "judge", run, split, folder, began, seed=seed, settings=settings, num_done=num, failed=failed
        )
    return Summary(place, card.num_images, tuple(failed))


def _write_chunk(
    run: Run,
    part: Chunk,
    aim: Target,
    methods: Methods,
    layers: Sequence[str],
    names: Sequence[str],
    folder: Path,
    *,
    seed: int,
) -> tuple[list[Row], list[Measured]]:
    """Explain a chunk and write its pictures; what is returned holds no picture and no map."""
    maps = _explain(run, part, aim, methods, layers, seed=seed)
    prediction = run.predict(part.batch.images)
    found = _measure(run, part, aim, maps, prediction, seed=seed)
    rows = [
        ledger.write_sample(run, part, i, mask, maps, found, folder, f"samples/{names[part.numbers[i]]}")
        for i, mask in enumerate(native_masks(run, part, prediction))
    ]
    return rows, found


def _folder(run: Run, split: Split, out: Path | None, verb: str) -> Path:
    if out is not None:
        return Path(out)
    if run.folder is None:
        raise SettingError(f"The run has no folder to {verb} into: name one with 'out'.")
    return run.folder / verb / safe_name(split.name)


def _target(run: Run, part: Chunk, text: str, class_index: int) -> Target:
    batch = part.batch
    return named_target(text, run, batch.images, batch.masks, batch.valid, class_index, part.frames)


def _class_index(run: Run, name: str | None) -> int:
    return 1 if name is None else run.task.class_index(name)


def _explain(
    run: Run, part: Chunk, aim: Target, methods: Methods, layers: Sequence[str], *, seed: int
) -> list[Explanation]:
    return list(explain(run, part.batch.images, aim, methods=methods, layers=layers, seed=seed).values())


def _measure(
    run: Run, part: Chunk, aim: Target, maps: Sequence[Explanation], prediction: Prediction, *, seed: int
) -> list[Measured]:
    """Measure each map and its nulls, image by image."""
    images, valid = part.batch.images, part.batch.valid
    seen = surface(run, images, aim, seed=seed)
    said = prediction.mask == aim.class_index
    cams = [entry for entry in maps if entry.method in CAMS and entry.layer is not None]
    chance = {}
    if cams:
        methods = list(dict.fromkeys(entry.method for entry in cams))
        layers = list(dict.fromkeys(str(entry.layer) for entry in cams))
        unlearned = randomised(run, images, seed=seed)
        found = _explain(unlearned, part, aim, methods, layers, seed=seed)
        chance = {entry.name: entry for entry in found}
    return [
        (
            attention(entry, seen, randomised=chance.get(entry.name), valid=valid),
            statistics(entry, predicted=said, valid=valid),
        )
        for entry in maps
    ]

"""What a folder of explanations will take, before anything of it is made."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from seglens.batch import ledger
from seglens.batch.asking import Question, question_of, targets_of
from seglens.batch.chunks import CHUNK, Chunk, Failure, choose, read_chunks, refuse_none_done, split_of
from seglens.batch.ledger import Drawing
from seglens.batch.measuring import measure
from seglens.batch.prediction import native_masks
from seglens.batch.raw import raw_format
from seglens.batch.scales import scaling
from seglens.data.layout import Split
from seglens.explain import explain
from seglens.explain.explanation import Explanation
from seglens.explain.methods import Method, sorted_out
from seglens.explain.plan import Plan, plan
from seglens.explain.target import Target
from seglens.predict import Prediction
from seglens.runs import Run

FEW = 4
"""Pictures that are read, measured and drawn to see how long that takes, after one to warm up."""


def plan_folder(
    run: Run,
    pictures: Split | Sequence[Path | str],
    *,
    methods: Sequence[Method] = ("grad-cam",),
    layers: Sequence[str] = ("encoder_last", "decoder_last"),
    target: str | Sequence[str] = "predicted",
    class_name: str | None = None,
    against: str | None = None,
    where: str = "region",
    scale: str = "image",
    raw: str = "npz",
    samples: Sequence[int] | None = None,
    num_samples: int | None = None,
    seed: int = 0,
    chunk: int = CHUNK,
    memory: int | None = None,
) -> Plan:
    """Say what `explain_folder` would take with these arguments, in one process.

    Passes through the model are counted, seconds and bytes measured on the first pictures (see
    ``explain/plan.py``). All else (reading, predicting, measuring next to a model with random weights,
    drawing, writing) is timed on a few pictures, in a temporary folder; the maps that are drawn there are
    cheap ones. Nothing stays.

    Raises:
        UnknownNameError, SettingError, ModelError, DataError: as `explain_folder`.
    """
    split = choose(split_of(run, pictures), samples, num_samples)
    asked = question_of(run, split, methods, layers, target, class_name, against, where, seed)
    question = replace(asked, memory=memory)
    raw_format(raw)
    drawing = Drawing(scaling(scale), raw)
    part = _first(run, split, question, min(chunk, len(split)))
    aims, _ = _aims(run, part, question)
    found = plan(
        run,
        part.batch.images,
        aims,
        methods=question.methods,
        layers=question.layers,
        num_images=len(split),
        per_call=chunk,
        seed=seed,
        memory=memory,
    )
    _rest(run, split, question, drawing, 1)
    return replace(found, rest=_rest(run, split, question, drawing, min(FEW, len(split))))


def _first(run: Run, split: Split, question: Question, num: int) -> Chunk:
    """Read the first ``num`` pictures, or more where not one of them can be used."""
    failed: list[Failure] = []
    few = split.select(list(range(num)))
    for pictures in (few, split) if num < len(split) else (few,):
        for part in read_chunks(
            run, pictures, most=num, failed=failed, targets=question.targets, what="planning"
        ):
            return part
    refuse_none_done(0, failed)
    raise AssertionError("refuse_none_done raises")


def _aims(run: Run, part: Chunk, question: Question) -> tuple[list[Target], Prediction]:
    prediction = run.predict(part.batch.images)
    return targets_of(
        run, part, question.targets, question.class_index, against=question.against, prediction=prediction
    ), prediction


def _rest(run: Run, split: Split, question: Question, drawing: Drawing, num: int) -> float:
    """Seconds for each of ``num`` pictures of all that `explain_folder` does but for making the maps."""
    began = time.perf_counter()
    part = _first(run, split, question, num)
    aims, prediction = _aims(run, part, question)
    paused = time.perf_counter()
    maps = _stand_ins(run, part, aims, question)
    began += time.perf_counter() - paused
    measured = measure(run, part, aims, question, maps, prediction)
    with tempfile.TemporaryDirectory(prefix="seglens-plan-") as folder:
        (Path(folder) / "samples").mkdir()
        for index, mask in enumerate(native_masks(run, part, prediction)):
            place = f"samples/{index}"
            ledger.write_sample(run, part, index, mask, maps, measured, Path(folder), place, drawing)
    return (time.perf_counter() - began) / len(part.natives)


def _stand_ins(run: Run, part: Chunk, aims: Sequence[Target], question: Question) -> list[Explanation]:
    """Maps under the names of those that were asked for, of the cheapest methods that there are."""
    asked = sorted_out(question.methods)
    at_layers = [*asked.cams, *(entry.label or entry.name for entry in asked.on_layers)]
    on_input = [*asked.gradients, *(entry.label or entry.name for entry in asked.on_input)]
    cheap = [*(["activation"] if at_layers else []), *(["saliency"] if on_input else [])]
    found = explain(
        run, part.batch.images, aims, methods=cheap, layers=question.layers, memory=question.memory
    )
    return [
        replace(entry, method=name, where=question.where)
        for entry in found.values()
        for name in (on_input if entry.layer is None else at_layers)
    ]

"""What a folder of explanations will take, before anything of it is made."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from seglens.arguments import checked
from seglens.arguments.renamed import renamed
from seglens.batch import ledger
from seglens.batch.asking import Question, question_of, targets_of
from seglens.batch.chunks import CHUNK, Chunk, Failure, choose, read_chunks, refuse_none_done, split_of
from seglens.batch.explaining import write_chunk
from seglens.batch.large import pieces_of
from seglens.batch.ledger import Drawing
from seglens.batch.measuring import measure
from seglens.batch.prediction import native_masks
from seglens.batch.raw import raw_format
from seglens.batch.scales import scaling
from seglens.data.images import read_size
from seglens.data.layout import Split
from seglens.errors import DataError, SettingError
from seglens.explain import explain
from seglens.explain.explanation import Explanation
from seglens.explain.memory import batch_size_of
from seglens.explain.memory import measure as needs_of
from seglens.explain.methods import Method, sorted_out
from seglens.explain.passes import passes
from seglens.explain.plan import Plan, WindowsPlan, plan
from seglens.explain.target import Target, for_head
from seglens.explain.windows import BATCH_SIZE as WINDOWS
from seglens.models.segmenter import ModelSpec
from seglens.predict import Prediction
from seglens.predict.tiles import number_of
from seglens.predict.tiles import plan as cover
from seglens.runs import Run

FEW = 4
"""Pictures that are read, measured and drawn to see how long that takes, after one to warm up."""


@renamed(num_samples="num_images", chunk="batch_size")
@checked
def plan_folder(
    run: Run,
    pictures: Split | Sequence[Path | str],
    *,
    methods: Method | Sequence[Method] = ("grad-cam",),
    layers: str | Sequence[str] = ("encoder_last", "decoder_last"),
    target: str | Sequence[str] = "predicted",
    class_name: str | None = None,
    against: str | None = None,
    where: str = "region",
    scale: str = "image",
    raw: str = "npz",
    tiles: str = "auto",
    samples: Sequence[int] | None = None,
    num_images: int | None = None,
    seed: int = 0,
    batch_size: int = CHUNK,
    memory: int | None = None,
) -> Plan:
    """Say what `explain_folder` would take with these arguments, in one process.

    Passes through the model are counted, seconds and bytes measured on the first pictures (see
    ``explain/plan.py``). All else (reading, predicting, measuring next to a model with random weights,
    drawing, writing) is timed on a few pictures, in a temporary folder; the maps that are drawn there are
    cheap ones. Nothing stays. Of the pictures that are explained in windows the smallest is explained whole,
    and stands for the others by the number of their windows.

    Raises:
        UnknownNameError, SettingError, ModelError, DataError: as `explain_folder`.
    """
    split = choose(split_of(run, pictures), samples, num_images)
    asked = question_of(run, split, methods, layers, target, class_name, against, where, seed)
    question = replace(asked, memory=memory)
    raw_format(raw)
    drawing = Drawing(scaling(scale), raw)
    in_windows = _windows_of(run.spec, split, tiles)
    pieces = split.select([number for number in range(len(split)) if number not in in_windows])
    found = Plan(0, (run.spec.image_size, run.spec.image_size), len(question.targets), ())
    if len(pieces):
        part = _first(run, pieces, question, min(batch_size, len(pieces)))
        aims, _ = _aims(run, part, question)
        found = plan(
            run,
            part.batch.images,
            aims,
            methods=question.methods,
            layers=question.layers,
            num_images=len(pieces),
            per_call=batch_size,
            seed=seed,
            memory=memory,
        )
        _rest(run, pieces, question, drawing, 1)
        found = replace(found, rest=_rest(run, pieces, question, drawing, min(FEW, len(pieces))))
    if in_windows:
        found = replace(found, large=_large(run, split, question, drawing, in_windows, tiles))
    return found


def _windows_of(spec: ModelSpec, split: Split, tiles: str) -> dict[int, int]:
    """Return how many windows each picture takes that doesn't go into one input, by its number."""
    found = {}
    for number, entry in enumerate(split.entries):
        try:
            windows = cover(read_size(entry.image), spec, tiles)
        except DataError:  # it can't be read, and is listed then
            continue
        if windows is not None:
            found[number] = number_of(windows)
    return found


def _large(
    run: Run, split: Split, question: Question, drawing: Drawing, in_windows: dict[int, int], tiles: str
) -> WindowsPlan:
    """Explain the smallest of the pictures in windows, and draw from it what all of them take."""
    number = min(in_windows, key=in_windows.__getitem__)
    num, total = len(in_windows), sum(in_windows.values())
    seen: list[int] = []
    handle = run.segmenter.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    began = time.perf_counter()
    try:
        (piece,) = pieces_of(run, _first(run, split.select([number]), question, 1), tiles)
        names = [entry.name for entry in split.entries]
        with tempfile.TemporaryDirectory(prefix="seglens-plan-") as folder:
            (Path(folder) / "samples").mkdir()
            write_chunk(run, piece, question, drawing, names, Path(folder))
    except SettingError as refusal:
        return WindowsPlan(num, total, refused=str(refusal))
    finally:
        handle.remove()
    share = total / in_windows[number]
    seconds = (time.perf_counter() - began) * share
    return WindowsPlan(num, total, round(sum(seen) * share), _bytes_of_windows(run, question), seconds)


def _bytes_of_windows(run: Run, question: Question) -> int:
    """Bytes that the windows take that are in the model at once; of the picture and its maps nothing."""
    size = run.spec.image_size
    blank = torch.zeros(1, run.spec.channels, size, size, device=run.segmenter.device)
    everywhere = torch.ones(1, size, size, dtype=torch.bool)
    aims = (for_head(Target("windows", question.class_index, everywhere), run),)
    asked = sorted_out(question.methods)
    layers = tuple(dict.fromkeys(question.layers)) if asked.need_layers else ()
    found = []
    for step in passes(run.segmenter, asked, layers, seed=question.seed):
        num = batch_size_of(
            step, run.segmenter, blank, aims, num=WINDOWS, batch_size=WINDOWS, memory=question.memory
        )
        found.append(needs_of(step, run.segmenter, blank, aims).of(num))
    return max(found)


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

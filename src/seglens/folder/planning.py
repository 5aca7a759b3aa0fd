"""The cost of a folder of explanations: passes are counted, the time is that of the first pictures."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from seglens.arguments import checked
from seglens.arguments.inputs import names_of
from seglens.arguments.renamed import renamed
from seglens.data.images import read_size
from seglens.data.layout import Split
from seglens.errors import DataError, SettingError
from seglens.explain.methods import Method
from seglens.explain.plan import Plan, WindowsPlan, count, watched
from seglens.explain.tiled import BATCH_SIZE as WINDOWS
from seglens.explain.tiled.stitching import passes_over
from seglens.folder.chunks import CHUNK, Chunk, Failure, choose, read_chunks, refuse_none_done, split_of
from seglens.folder.explaining import write_chunk
from seglens.folder.large import pieces_of, select_pictures, windows_for, windows_of
from seglens.folder.object_targets import each_object
from seglens.folder.raw import raw_format
from seglens.folder.request import Request, class_index_of, request_of
from seglens.folder.scales import scaling
from seglens.folder.writer import Drawing
from seglens.models.segmenter import ModelSpec
from seglens.predict.tiles import number_of
from seglens.predict.tiles import plan as cover
from seglens.runs import Run

FEW = 4
"""Pictures of the first chunk that are explained to see how long that takes, after one to warm up."""

LONG = 10.0
"""Seconds after which they are not waited for, and the time follows from the passes that were made."""


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
    """Return the passes and the time of `explain_folder` with these arguments, in one process; nothing stays.

    Passes of the model are counted. Time follows from the first pictures, which are explained in a temporary
    folder, of those in windows from the smallest.

    Raises:
        UnknownNameError, SettingError, ModelError, DataError: as `explain_folder`.
    """
    split = choose(split_of(run, pictures), samples, num_images)
    target = each_object(run, split, names_of(target), class_index_of(run, class_name), tiles=tiles)
    request = request_of(run, split, methods, layers, target, class_name, against, where, seed, memory)
    raw_format(raw)
    drawing = Drawing(scaling(scale), raw)
    targets = len(request.targets)
    cut = windows_by_number(run.spec, split, tiles)
    whole = split.select([number for number in range(len(split)) if number not in cut])
    found = Plan(0, run.spec.sides, targets, ())
    if num := len(whole):
        part = first_chunk(run, whole, request.targets, min(1 + FEW, batch_size, num), tiles)
        entries = count(run, request.parsed, request.layers, part.batch.images, targets, num, batch_size)
        pieces = [select_pictures(part, rows) for rows in (range(1), range(1, len(part.originals))) if rows]
        passes = sum(entry.forwards + 2 * entry.backwards for entry in entries)
        times = num / len(pieces[-1].originals)
        seconds = _seconds(run, pieces, request, drawing, times, passes, targets)
        found = replace(found, num_images=num, passes=entries, seconds=seconds)
    if cut:
        large, seconds = _large(run, split, request, drawing, cut, tiles)
        found = replace(found, large=large, seconds=(found.seconds or 0) + seconds)
    return found


def windows_by_number(spec: ModelSpec, split: Split, tiles: str) -> dict[int, int]:
    """Return how many windows each picture takes that doesn't go into one input, by its number."""
    found = {}
    for number, entry in enumerate(split.entries):
        try:
            # Of a volume the size is not all: its scale is that of its millimetres.
            if split.dims == 3:
                windows = windows_for(split[number], spec, tiles)
            else:
                windows = cover(read_size(entry.image), spec, tiles)
        except DataError:  # it can't be read, and is listed then
            continue
        if windows is not None:
            found[number] = number_of(windows)
    return found


def first_chunk(run: Run, split: Split, targets: Sequence[str], num: int, tiles: str = "auto") -> Chunk:
    """Read the first ``num`` pictures, or more where not one of them can be used.

    Raises:
        DataError: none can.
    """
    failed: list[Failure] = []
    for pictures in (split.select(list(range(num))), split):
        for part in read_chunks(
            run, pictures, most=num, failed=failed, targets=targets, what="planning", tiles=tiles
        ):
            return part
    refuse_none_done(0, failed)
    raise AssertionError("refuse_none_done raises")


def _large(
    run: Run, split: Split, request: Request, drawing: Drawing, cut: dict[int, int], tiles: str
) -> tuple[WindowsPlan, float]:
    """Count the passes of the pictures in windows, at most; explain the smallest for the seconds of all."""
    least, total, targets = min(cut, key=cut.__getitem__), sum(cut.values()), len(request.targets)
    (piece,) = pieces_of(run, first_chunk(run, split.select([least]), request.targets, 1), tiles)
    needed = request.parsed
    linear = replace(needed, cams={}, gradients={}, on_layers=())
    each = passes_over(needed.cams if request.layers else {}) + bool(needed.gradients)
    forwards, seen = total * (1 + targets * each), windows_of(run, piece)
    for num in cut.values():
        entries = count(run, linear, (), seen, 1, num, WINDOWS, WINDOWS)
        forwards += targets * sum(entry.forwards for entry in entries)
    try:
        seconds = _seconds(run, [piece], request, drawing, total / cut[least], forwards, 0)
    except SettingError as refusal:
        return WindowsPlan(len(cut), total, refused=str(refusal)), 0.0
    return WindowsPlan(len(cut), total, forwards), seconds


def _seconds(
    run: Run,
    pieces: Sequence[Chunk],
    request: Request,
    drawing: Drawing,
    times: float,
    passes: int,
    backwards: int,
) -> float:
    """Explain ``pieces``; say how long all takes that is ``times`` the last one, or ``passes`` of the model.

    ``backwards`` come with each forward pass that has a graph, and count double.
    """
    took = 0.0
    with tempfile.TemporaryDirectory(prefix="seglens-plan-") as folder:
        (Path(folder) / "samples").mkdir()
        for piece in pieces:
            names = [f"{number}" for number in range(1 + max(piece.numbers))]
            with watched(lambda seen: seen.passes > 0 and seen.seconds > LONG, backwards) as seen:
                write_chunk(run, piece, request, drawing, names, Path(folder))
            took = seen.seconds
            if seen.ended:
                return took * passes / seen.passes
    return took * times

"""Pictures that are predicted in windows, as chunks of one: at the scale of the training, each in a square.

They are explained by `seglens.explain.tiled.explain_large` and measured like all others. Colours, sheets
and statistics are of the whole picture; raw maps are brought to its own size.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from seglens.axes import cropped, padded_size, size_of
from seglens.data.frame import Frame, nearest
from seglens.data.sample import Sample
from seglens.data.transforms import Batch, collate, placed_on
from seglens.explain.explanation import Explanation
from seglens.explain.target import Target
from seglens.explain.tiled import explain_large
from seglens.explain.tiled.grid import View
from seglens.explain.tiled.map import LargeMap
from seglens.folder.chunks import Chunk
from seglens.folder.request import Request
from seglens.models.segmenter import ModelSpec
from seglens.predict import Prediction
from seglens.predict.original import decide, input_frame, logits_of
from seglens.predict.tiles import Cut, Windows, bands, cut_of, plan, resized
from seglens.runs import Run
from seglens.shapes import Images

NORMALISING = 16
"""Windows from which a model with random weights takes the statistics of its batch norms."""


def pieces_of(run: Run, part: Chunk, tiles: str) -> list[Chunk]:
    """Return the pictures of a chunk that go into one input, and each that doesn't by itself."""
    windows = [windows_for(sample, run.spec, tiles) for sample in part.originals]
    small = [i for i, found in enumerate(windows) if found is None]
    pieces = [select_pictures(part, small)] if 0 < len(small) < len(windows) else [part] * bool(small)
    return pieces + [
        large_chunk(part.originals[i], found, part.numbers[i], part.index)
        for i, found in enumerate(windows)
        if found is not None
    ]


def frame_of(sample: Sample, spec: ModelSpec, tiles: str) -> Frame:
    """Return the frame in which a picture was explained."""
    windows = windows_for(sample, spec, tiles)
    if sample.prepared is not None:
        return sample.prepared.frame
    if windows is None:
        return input_frame(sample, spec, tiles)
    return _frame(windows, sample)


def windows_for(sample: Sample, spec: ModelSpec, tiles: str) -> Windows | None:
    """Return the windows that a picture takes; None where it goes into one input."""
    if sample.prepared is not None:
        sides = sample.prepared.frame.sides
        return None if sample.prepared.fits else Windows(sides, sides, sample.prepared.sides)
    return plan(size_of(sample.image, 1), spec, tiles, spacing=sample.spacing)


def large_chunk(sample: Sample, windows: Windows, number: int, index: int) -> Chunk:
    """Put one picture, scaled as ``windows`` says, into the upper left of a square; the rest is not valid."""
    if sample.prepared is not None:
        (placed,), (frame,) = placed_on([sample], [sample.prepared.frame])
        return Chunk((sample,), collate([placed]), (frame,), (number,), index, windows)
    frame = _frame(windows, sample)
    whole = [slice(0, length) for length in windows.scaled]
    image = resized(cut_of(sample.image), windows.native, windows.scaled, *whole)
    squared = partial(_padded, sides=frame.sides)
    mask = None if sample.mask is None else squared(nearest(sample.mask, windows.scaled))[None]
    valid = squared(nearest(sample.valid, windows.scaled))[None]
    batch = Batch((sample.name,), squared(image)[None], mask, valid)
    return Chunk((sample,), batch, (frame,), (number,), index, windows)


def predict_large(run: Run, part: Chunk) -> Prediction:
    """Return what the model says of the picture in windows, put into its square; padding is background."""
    frame, prepared = part.frames[0], part.originals[0].prepared
    if prepared is not None and run.segmenter.tool is not None:
        given = run.segmenter.tool.logits(run.segmenter.module, prepared).float()
        logits = frame.padded(given)[None]
        return Prediction(logits, run.segmenter.probabilities(logits), run.segmenter.mask(logits))
    found = torch.cat(list(bands(run.segmenter, *_scaled(part))), dim=1)
    mask = _padded(decide(found, run.spec), frame.sides)[None]
    probabilities = _padded(found, frame.sides)[None]
    return Prediction(logits_of(probabilities, run.spec), probabilities, mask)


def maps_of_large(run: Run, part: Chunk, targets: Sequence[Target], request: Request) -> list[Explanation]:
    """Return the maps of all targets, in the order of the targets, in the picture's square.

    Raises:
        SettingError: a method means nothing over windows.
    """
    cut, windows = _scaled(part)
    found = []
    for target in targets:
        inner = replace(target, pixels=cropped(target.pixels, windows.scaled).cpu())
        maps = explain_large(
            run,
            cut,
            windows,
            inner,
            methods=request.methods,
            layers=request.layers,
            seed=request.seed,
            memory=request.memory,
        )
        found += [_explanation(entry, target, request.where, run.spec) for entry in maps.values()]
    return found


def windows_of(run: Run, part: Chunk) -> Images:
    """Return some windows of the picture, spread over it."""
    cut, windows = _scaled(part)
    nowhere = Target("nowhere", 1, torch.zeros(1, *windows.scaled, dtype=torch.bool))
    view = View(run.segmenter, cut, windows, nowhere, NORMALISING)
    step = max(1, len(view.every) // NORMALISING)
    return view.images(view.every[::step][:NORMALISING])


def _explanation(entry: LargeMap, target: Target, where: str, spec: ModelSpec) -> Explanation:
    sides, folds = size_of(target.pixels, 1), entry.folds_at(entry.windows.scaled)
    return Explanation(
        method=entry.method,
        layer=entry.layer,
        target=replace(target, pixels=target.pixels.cpu()),
        map=_padded(entry.at(entry.windows.scaled), sides)[None],
        grid=None if entry.layer is None else _whole_grid(entry, padded_size(sides, spec.divisor)),
        status=(entry.status,),
        settings=entry.settings,
        folds=None if folds is None else _padded(folds, sides)[None],
        where=where,
        diagnostics={name: torch.tensor([value]) for name, value in entry.diagnostics.items()},
    )


def _whole_grid(entry: LargeMap, sides: Sequence[int]) -> Tensor | None:
    """The layer's cells as the grid of so many pixels along each axis; None where they don't fit in."""
    axes = entry.cells.axes
    if any(axis.margin or side % axis.cell for axis, side in zip(axes, sides, strict=True)):
        return None
    cells = [round(side / axis.cell) for axis, side in zip(axes, sides, strict=True)]
    inside = cropped(entry.grid, [min(pair) for pair in zip(cells, entry.grid.shape, strict=True)])
    return _padded(inside, cells)[None]


def select_pictures(part: Chunk, rows: Sequence[int]) -> Chunk:
    """Return a chunk of these pictures only."""
    batch, at = part.batch, list(rows)
    kept = Batch(
        tuple(batch.names[i] for i in at),
        batch.images[at],
        None if batch.masks is None else batch.masks[at],
        batch.valid[at],
    )
    return replace(
        part,
        originals=tuple(part.originals[i] for i in at),
        batch=kept,
        frames=tuple(part.frames[i] for i in at),
        numbers=tuple(part.numbers[i] for i in at),
    )


def _frame(windows: Windows, sample: Sample) -> Frame:
    corner = (0,) * len(windows.scaled)
    return Frame(windows.native, max(windows.scaled), windows.scaled, corner, sample.spacing or ())


def _scaled(part: Chunk) -> tuple[Cut, Windows]:
    """Return what cuts parts out of the picture as it was scaled for the chunk, and its windows there."""
    assert part.windows is not None  # it is such a chunk
    image = cropped(part.batch.images[0], part.windows.scaled)
    return cut_of(image), replace(part.windows, native=part.windows.scaled)


def _padded(values: Tensor, sides: Sequence[int]) -> Tensor:
    """Pad the last axes with zeros behind, to ``sides``."""
    pairs = zip(reversed(values.shape[-len(sides) :]), reversed(sides), strict=True)
    return F.pad(values, [number for length, side in pairs for number in (0, side - length)])

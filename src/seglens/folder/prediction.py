"""Masks and overlays of whole folders, picture by picture at its original size, however large that is."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from seglens import exports
from seglens.arguments import checked
from seglens.arguments.renamed import renamed
from seglens.data.from_torch import is_torch
from seglens.data.images import as_image, read_pixels, read_size
from seglens.data.layout import Split
from seglens.data.sample import Sample
from seglens.errors import DataError, NonFiniteError, SettingError
from seglens.files.output import new_folder, unused_name
from seglens.files.overwrite import check_output
from seglens.folder import writer
from seglens.folder.chunks import Chunk, Failure, Summary, refuse_none_done, split_of
from seglens.folder.heatmaps import drawn_size
from seglens.folder.objects import Row, number_objects, write_objects, write_table
from seglens.predict import Prediction
from seglens.predict.original import (
    Inference,
    Placed,
    Probability,
    at_original_size,
    by_tool,
    decide,
    empty_mask,
    forward,
    mask_at_original_size,
    place_sample,
)
from seglens.predict.tiles import Cut, Windows, bands, check_tiles, plan, resized
from seglens.predict.uncertainty import disagreement, kinds_of
from seglens.results.tables import write_rows
from seglens.runs import Run, prepared
from seglens.runtime.device import choose_precision
from seglens.runtime.progress import track
from seglens.runtime.threads import read_ahead
from seglens.shapes import AnyMask, Image, Map

STRIP = 64
"""Rows of a large picture's overlay that are scaled at a time."""


@renamed(chunk="batch_size", flips="tta")
@checked
def predict_files(
    run: Run,
    pictures: Split | Sequence[Path | str],
    *,
    out: str | Path,
    batch_size: int = 8,
    force: bool = False,
    precision: str = "auto",
    tta: bool = False,
    tiles: str = "auto",
    objects: bool = False,
    split_touching: bool = False,
    uncertainty: bool = False,
    export: Sequence[str] = (),
) -> Summary:
    """Predict pictures of any size: ``masks/``, ``coloured/``, ``overlays/``, ``table.csv``, ``run.json``.

    A mask is a grey PNG of the picture's own size whose values are class indices, which look black; the same
    in the colours of the classes is in ``coloured/``. Where classes may overlap
    there is one a class, ``masks/<class>/<name>.png`` with 0 and 255: the layout that ``pairs`` reads with
    ``--multilabel``. Of volumes masks are ``.nii.gz``, those of nnU-Net's regions one label map as nnU-Net
    writes it. ``precision`` and ``tta``
    are those of `seglens.predict.infer`; ``tiles`` says when windows are used, see
    `seglens.predict.tiles.TILES`. A
    picture that is covered with windows is never held as floating-point numbers.

    With ``objects`` there are also ``instances/``, masks with the number of each object, and ``objects.csv``
    with its size, centroid and mean probability, see `seglens.folder.objects`; ``split_touching`` cuts those
    that touch apart, see `seglens.objects.split_touching`.

    ``export`` writes the objects of pictures for other programs, see `seglens.exports`: ``coco``
    (``coco.json`` with run lengths, for FiftyOne and CVAT), ``geojson`` (``geojson/<name>.geojson``, for
    QuPath) and ``tiff`` (``labels/<name>.tif`` with the number of each object, for napari and Fiji).

    With ``uncertainty`` there is ``uncertainty/<name>.npz`` with a map for each kind of disagreement that the
    model has (``mirrors``, of several folds ``folds``; `seglens.predict.uncertainty`), and of pictures a grey
    PNG of each, white where the deviation is .5, the largest. Pictures that are covered with windows have
    none.

    Raises:
        SettingError, DataError, OutputExistsError: as `seglens.folder.explain_folder`.
    """
    began = time.monotonic()
    split = split_of(run, pictures)
    if is_torch(split):
        raise SettingError(
            f"predict_files reads files, and the {len(split)} items of {split.name!r} are PyTorch's. Give "
            "image files or a split of a folder; for tensors write run.predict(images).mask."
        )
    how = Inference(precision, tta, tiles)
    settings = {
        "files": [str(entry.image) for entry in split.entries],
        "batch_size": _allowed(batch_size),
        "precision": choose_precision(precision, run.segmenter.device),
        "tta": tta,
        "tiles": tiles,
        "objects": objects,
        "split_touching": split_touching,
        "uncertainty": uncertainty,
        "export": list(export),
    }
    check_tiles(tiles)
    exports.check_formats(export, run.spec.dims)
    if split_touching and not (objects or export):
        raise SettingError(
            "split_touching cuts objects apart, and none are asked for. Ask for objects, too, or for an "
            "export."
        )
    if uncertainty and not kinds_of(run.segmenter):
        raise SettingError(
            "The model's own tool mirrors as it was adopted, and there is one network: nothing can disagree. "
            "Leave uncertainty out, or adopt several folds."
        )
    from_here = exports.files_from_here([entry.image for entry in split.entries])
    files = dict(zip((entry.name for entry in split.entries), from_here, strict=True))
    of_objects: list[Row] = []
    failed: list[Failure] = []
    rows: list[dict[str, object]] = []
    check_output(Path(out), "predict", force=force, runs=filter(None, [run.folder]), files=split.files)
    with new_folder(Path(out), command="predict", force=force) as folder:
        folders = ["masks", "overlays", *(["coloured"] if run.spec.dims == 2 else [])]
        for name in (*folders, *(("uncertainty",) if uncertainty else ())):
            (folder / name).mkdir()
        exports.make_folders(export, folder)
        for label in writer.label_folders(run.task) if run.task.multilabel and not run.task.regions else ():
            (folder / "masks" / label).mkdir()
        written = read_ahead(
            partial(_write, run, folder, files, objects=objects, split=split_touching, export=export),
            _predicted(prepared(run, how), split, how, batch_size, uncertainty=uncertainty),
        )
        for done in track(written, total=len(split), what="predicting"):
            if isinstance(done, Failure):
                failed.append(done)
            else:
                rows.append(done[0])
                of_objects += done[1]
        refuse_none_done(len(rows), failed)
        every = rows + [writer.failed_row(failure).plain() for failure in failed]
        write_rows(every, folder / "table.csv")
        if objects:
            write_table(of_objects, folder)
        exports.finish(export, run.task.classes[1:], folder)
        writer.write_record(
            "predict",
            run,
            split,
            folder,
            began,
            seed=None,
            settings=settings,
            num_done=len(rows),
            failed=failed,
        )
    return Summary(Path(out), len(rows), tuple(failed))


def original_masks(run: Run, part: Chunk, prediction: Prediction) -> list[AnyMask]:
    """Return the masks of a chunk at native size; those of the model's own tool where that prepared it."""
    if part.originals[0].prepared is not None:
        return [decide(by_tool(run.segmenter, sample), run.spec) for sample in part.originals]
    return [
        mask_at_original_size(probabilities, frame, run.spec)
        for probabilities, frame in zip(prediction.probabilities, part.frames, strict=True)
    ]


@dataclass(frozen=True)
class _Read:
    """A picture that goes into one input."""

    sample: Sample
    placed: Placed


@dataclass(frozen=True)
class _Large:
    """A picture that will be covered with windows, and is only read when it is its turn."""

    name: str
    file: Path


@dataclass(frozen=True)
class _Found:
    """A prediction to be written under ``name``: probabilities to be decided on, or a mask."""

    name: str
    sample: Sample
    prediction: tuple[Placed, Probability] | AnyMask
    uncertain: Mapping[str, Map] = field(default_factory=dict)


def _allowed(batch_size: int) -> int:
    if batch_size < 1:
        raise SettingError(f"The batch size must be at least 1, received {batch_size}.")
    return batch_size


def _predicted(
    run: Run, split: Split, how: Inference, batch_size: int, *, uncertainty: bool
) -> Iterator[_Found | Failure]:
    """Read ahead and predict, in the order of the split; large pictures one at a time."""
    taken: set[str] = set()
    waiting: list[_Read] = []

    def flush() -> Iterator[_Found | Failure]:
        for each, probabilities in zip(waiting, _forward(run, waiting, how), strict=True):
            if isinstance(probabilities, Failure):
                yield probabilities
            else:
                name = unused_name(each.sample.name, taken)
                kinds = kinds_of(run.segmenter) if uncertainty else ()
                maps = {str(kind): disagreement(run.segmenter, each.placed, how, kind) for kind in kinds}
                yield _Found(name, each.sample, (each.placed, probabilities), maps)
        waiting.clear()

    for read in read_ahead(partial(_read, run, split, how), range(len(split))):
        if isinstance(read, _Read):
            waiting.append(read)
        if not isinstance(read, _Read) or len(waiting) == batch_size:
            yield from flush()
        if isinstance(read, Failure):
            yield read
        if isinstance(read, _Large):
            yield _in_windows(run, read, how, batch_size, taken)
    yield from flush()


def _forward(run: Run, pictures: Sequence[_Read], how: Inference) -> list[Probability | Failure]:
    """Predict pictures, one by one where the answer to one of them is not finite."""
    try:
        return [*forward(run.segmenter, [each.placed for each in pictures], how)]
    except NonFiniteError:
        if len(pictures) > 1:
            return [found for each in pictures for found in _forward(run, [each], how)]
        name = pictures[0].sample.name
        return [Failure(name, str(NonFiniteError((0,), (name,))))]


def _read(run: Run, split: Split, how: Inference, index: int) -> _Read | _Large | Failure:
    entry = split.entries[index]
    if split.dims == 2:
        try:
            size = read_size(entry.image)
        except DataError:
            size = (1, 1)  # Reading it says better what is wrong with it.
        if plan(size, run.spec, how.tiles) is not None:
            return _Large(entry.name, entry.image)
    try:
        sample = split[index]
    except DataError as error:
        return Failure(entry.name, str(error))
    # A picture that takes windows has been told from its file; a volume is read as a whole.
    tiles = "never" if split.dims == 2 else how.tiles
    return _Read(sample, place_sample(sample, run.spec, tiles))


def _in_windows(
    run: Run, large: _Large, how: Inference, batch_size: int, taken: set[str]
) -> _Found | Failure:
    """Predict a large picture from its file; what is drawn of it is small."""
    try:
        pixels = read_pixels(large.file, channels=run.spec.channels)
        rows, columns = pixels.shape[:2]

        def cut(down: slice, across: slice) -> Image:
            return as_image(pixels[down, across], run.spec.channels, large.file)

        windows = plan((rows, columns), run.spec, how.tiles)
        assert windows is not None
        mask = _mask(run, cut, windows, how, batch_size)
        image = _small(cut, (rows, columns))
    except DataError as error:
        return Failure(large.name, str(error))
    except NonFiniteError:
        return Failure(large.name, str(NonFiniteError((0,), (large.name,))))
    valid = torch.ones(image.shape[1:], dtype=torch.bool)
    return _Found(unused_name(large.name, taken), Sample(large.name, image, None, valid), mask)


def _mask(run: Run, cut: Cut, windows: Windows, how: Inference, batch_size: int) -> AnyMask:
    """Return the mask at original size, a byte a pixel: eight would weigh more than the picture."""
    mask = empty_mask(run.spec, windows.native)
    top = 0
    for band in bands(
        run.segmenter, cut, windows, batch_size=batch_size, precision=how.precision, tta=how.tta
    ):
        rows = band.shape[1]
        mask[..., top : top + rows, :] = decide(band, run.spec)
        top += rows
    return mask


def _small(cut: Cut, size: tuple[int, int]) -> Image:
    """Return a picture at the size at which it is drawn, a strip at a time."""
    rows, columns = drawn_size(*size)
    strips = (slice(top, min(rows, top + STRIP)) for top in range(0, rows, STRIP))
    return torch.cat(
        [resized(cut, size, (rows, columns), strip, slice(0, columns)) for strip in strips], dim=1
    )


def _write(
    run: Run,
    folder: Path,
    files: Mapping[str, str],
    found: _Found | Failure,
    *,
    objects: bool,
    split: bool,
    export: Sequence[str],
) -> tuple[Row, list[Row]] | Failure:
    """Write a prediction; return its row, and those of its objects where they are asked for."""
    if isinstance(found, Failure):
        return found
    made, probabilities = found.prediction, None
    if isinstance(made, tuple):
        probabilities = at_original_size(*made)
        mask = decide(probabilities, run.spec)
    else:
        mask = made
    row = writer.write_prediction(run, found.sample, mask, folder, found.name)
    row |= writer.write_uncertainty(found.uncertain, folder, found.name)
    if not objects and not export:
        return row, []
    numbered = number_objects(run.task, found.sample, mask, probabilities, split=split)
    picture = exports.Picture(found.name, files[found.sample.name], (mask.shape[-2], mask.shape[-1]))
    try:
        row |= exports.write_picture(export, picture, numbered.marked(run.task), folder)
        if objects:
            write_objects(numbered, found.sample, folder, found.name)
            return row | {"objects": len(numbered.rows)}, numbered.rows
    except DataError as error:
        return Failure(found.sample.name, str(error))
    return row, []

"""Folders of explanations: any methods, layers and targets, for all pictures of a split."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from seglens.arguments import checked
from seglens.arguments.inputs import names_of
from seglens.arguments.renamed import renamed
from seglens.data.classes import NO_MAP
from seglens.data.groups import grouping_of
from seglens.data.layout import Split
from seglens.data.listing import fingerprints
from seglens.errors import SettingError
from seglens.explain.methods import Method
from seglens.explain.statistics import DEFINITIONS
from seglens.files.output import unused_name
from seglens.files.overwrite import check_output, refuse_no_text
from seglens.folder import writer
from seglens.folder.chunks import (
    CHUNK,
    FILES,
    Chunk,
    Failure,
    Given,
    Summary,
    choose,
    chunks_of,
    naming_pictures,
    read_chunks,
    refuse_none_done,
    split_of,
)
from seglens.folder.contact_sheets import ways_to_overlay
from seglens.folder.heatmaps import Shared, shared_by
from seglens.folder.large import frame_of, pieces_of, predict_large
from seglens.folder.measuring import maps_of, measure
from seglens.folder.montage import check_plane
from seglens.folder.object_targets import each_object
from seglens.folder.partial import Done, Measured, Partial, partial_folder
from seglens.folder.prediction import original_masks
from seglens.folder.raw import raw_format
from seglens.folder.request import Request, class_index_of, place_of, request_of, settings_of, targets_of
from seglens.folder.scales import scaling, shared_limits
from seglens.folder.writer import Drawing
from seglens.predict.tiles import check_tiles
from seglens.results import record as records
from seglens.results.maps import ExplanationTable, PictureMaps
from seglens.results.tables import write_rows
from seglens.runs import Run
from seglens.runtime.distributed import ALONE, Share
from seglens.runtime.progress import track


@renamed(num_samples="num_images", chunk="batch_size")
@checked
def explain_folder(
    run: Run,
    pictures: Given,
    *,
    out: str | Path | None = None,
    methods: Method | Sequence[Method] = ("grad-cam",),
    layers: str | Sequence[str] = ("encoder_last", "decoder_last"),
    target: str | Sequence[str] = "predicted",
    class_name: str | None = None,
    against: str | None = None,
    where: str = "region",
    scale: str = "image",
    raw: str = "npz",
    montage: str | None = None,
    overlays: Sequence[str] = (),
    tiles: str = "auto",
    samples: Sequence[int] | None = None,
    num_images: int | None = None,
    seed: int = 0,
    batch_size: int = CHUNK,
    memory: int | None = None,
    class_map: Mapping[str, str] = NO_MAP,
    force: bool = False,
    resume: bool = False,
    share: Share = ALONE,
) -> Summary:
    """Explain the pictures of a split, or image files: maps, overlays, sheets, statistics and their nulls.

    Writes ``explanations.json`` (all numbers), ``table.csv`` (one row a map), ``summary.csv`` (one row for
    each target, method and layer), ``run.json``, and for each picture ``samples/<name>/`` with ``orig gt pred
    overlay``, a heat map for each target, method and layer, sheets that compare them, ``maps.npz`` (see
    `seglens.folder.raw.raw_arrays`) and ``explanation.json``. Names begin with the target where there are
    several. Until all is there it stands in ``.<name>.partial`` beside, from which ``resume`` goes on.

    Args:
        run: the model.
        pictures: a split, or image files, whose truth is then unknown.
        out: the folder to write; ``explain/<split>`` in the run folder by default.
        methods: names, or settings of methods that have some; ``all`` is every one.
        layers: roles or module paths; methods that look at the input only leave them aside. ``all`` is every
            layer that plays a role.
        target: one or several, as on the command line, such as ``predicted`` or ``point:120,84`` (pixels of
            the picture itself). They share forward passes.
        class_name: the class that the targets are about; the first after the background by default.
        against: a class to ask against: why this one and not that one. Of a model with one output the other
            class is the only choice, and changes nothing.
        where: ``context`` reports what lies outside of the target only, see `seglens.explain`.
        scale: limits of colours, ``image``, ``dataset`` or ``fixed:LOW,HIGH``.
        raw: format of the raw maps, ``npz`` or ``safetensors``.
        montage: draw the slices of volumes side by side, in the plane ``axial``, ``coronal`` or ``sagittal``.
        overlays: draw a sheet of each map in these ways: ``heat``, ``contour``, ``masked``.
        tiles: which pictures are explained in windows, as they are predicted: see
            `seglens.predict.tiles.TILES` and
            `seglens.explain.tiled`. Methods that mean nothing there fail on such pictures.
        samples: numbers of the pictures to explain.
        num_images: how many to explain, spread evenly over the split.
        seed: of everything that is drawn at random.
        batch_size: pictures at a time.
        memory: bytes that the passes of the model may take, see `seglens.explain`.
        class_map: which class of the split is which of the run, where they are not called the same.
        force: replace a folder that is there, and what an interrupted job left.
        resume: go on where a job with the same settings was interrupted.
        share: this process's part of a job that is spread over several, which together write what one alone
            would.

    Raises:
        UnknownNameError: no such method, layer, target, class, scale or format.
        SettingError: the target needs a truth that the pictures don't have, a number is not allowed, or the
            job to be resumed had other settings.
        DataError: not one picture could be explained.
        OutputExistsError: ``out`` exists and ``force`` is not given, or an interrupted job is there.
    """
    began = time.monotonic()
    split = choose(split_of(run, pictures, class_map), samples, num_images)
    place = place_of(run, split, out, "explain")
    if share.first:
        check_output(place, "explain", force=force, runs=filter(None, [run.folder]), files=split.files)
    ours = share.of(len(chunks_of(len(split), batch_size)))
    target = each_object(run, split, names_of(target), class_index_of(run, class_name), tiles=tiles)
    request = request_of(run, split, methods, layers, target, class_name, against, where, seed, memory)
    drawing = Drawing(scaling(scale), raw, montage, ways_to_overlay(overlays))
    check_plane(montage)
    if montage is not None and run.spec.dims == 2:
        raise SettingError(
            "A montage shows the slices of volumes, and this model is for pictures: leave it out."
        )
    if raw_format(raw).suffix == ".safetensors":
        refuse_no_text(place)
    taken: set[str] = set()
    names = [unused_name(entry.name, taken) for entry in split.entries]
    share.agree("pictures", names)
    check_tiles(tiles)  # A wrong name is an error before any work is done.
    settings = settings_of(run, request) | {
        "scale": scale,
        "raw": raw,
        "batch_size": batch_size,
        "tiles": tiles,
    }
    settings |= {"samples": samples, "num_images": num_images}
    settings |= {} if montage is None else {"montage": montage}
    settings |= {"overlays": list(overlays)} if overlays else {}
    contents = fingerprints(split.entries) if share.first else []
    job = settings | {"seed": seed, "model": run.sha256}
    job["pictures"] = [list(pair) for pair in zip(names, contents, strict=True)] if share.first else []
    with partial_folder(place, job, force=force, resume=resume, share=share) as partial:
        failed = _explain_chunks(run, split, request, drawing, partial, names, batch_size, tiles, share)
        done = [partial.done[index] for index in ours if index in partial.done]
        if drawing.scaling.kind == "dataset":
            found = shared_by([entry for part in done for row in part.rows for entry in row.maps])
            _redraw(run, split, done, drawing, partial, found, tiles, share)
        rows = share.gather([row for part in done for row in part.rows])
        numbers = share.gather([number for part in done for number in part.numbers])
        measured = share.gather([part.measured for part in done])
        failed = _once(share.gather([*failed, *(each for part in done for each in part.failed)]))
        refuse_none_done(len(rows), failed)
        table = None
        if share.first:
            grouping = grouping_of(split)
            groups = grouping.of(numbers)
            summary = [
                writer.summary_row(of_map, where=where, groups=groups, seed=seed)
                for of_map in zip(*measured, strict=True)
            ]
            rows = [row.model_copy(update={"group": group}) for row, group in zip(rows, groups, strict=True)]
            for row in rows:
                writer.write_row(partial.folder, row)
            every = rows + [writer.failed_row(failure) for failure in failed]
            table = ExplanationTable(
                split=None if split.name == FILES else split.name,
                methods=tuple(dict.fromkeys(row.method for row in summary)),
                layers=tuple(dict.fromkeys(row.layer for row in summary if row.layer is not None)),
                targets=tuple(request.targets),
                against=against,
                where=where,
                scale=scale,
                no_target={row.target: row.num_no_target for row in summary},
                definitions=DEFINITIONS,
                resampling=grouping.resampling(numbers),
                samples=tuple(every),
                summary=tuple(summary),
                **{"class": run.task.classes[request.class_index]},
            )
            records.write_json(partial.folder / "explanations.json", table)
            write_rows(writer.flat(every), partial.folder / "table.csv")
            write_rows(writer.flat_summary(summary), partial.folder / "summary.csv")
            writer.write_record(
                "explain",
                run,
                split,
                partial.folder,
                began,
                seed=seed,
                settings=settings | {"processes": share.size},
                num_done=len(rows),
                failed=failed,
            )
    return Summary(place, len(rows), tuple(failed), maps=table)


def _explain_chunks(
    run: Run,
    split: Split,
    request: Request,
    drawing: Drawing,
    partial: Partial,
    names: Sequence[str],
    batch_size: int,
    tiles: str,
    share: Share,
) -> list[Failure]:
    """Explain the chunks that are not done yet; return the pictures that failed on the way."""
    failed: list[Failure] = []
    listed = 0
    (partial.folder / "samples").mkdir(exist_ok=True)
    chunks = read_chunks(
        run,
        split,
        most=batch_size,
        failed=failed,
        targets=request.targets,
        share=share,
        skip=partial.done,
        tiles=tiles,
    )
    for part in chunks:
        rows: list[PictureMaps] = []
        measured: list[list[Measured]] = []
        numbers: list[int] = []
        for piece in pieces_of(run, part, tiles):
            try:
                written, found = write_chunk(run, piece, request, drawing, names, partial.folder)
            except SettingError as error:
                if piece.windows is None:
                    raise
                failed.append(Failure(piece.originals[0].name, str(error), piece.numbers[0]))
                continue
            rows, measured, numbers = rows + written, [*measured, found], [*numbers, *piece.numbers]
        if rows:
            done = Done(tuple(numbers), rows, writer.joined(measured), tuple(failed[listed:]))
            partial.add(part.index, done)
            listed = len(failed)
        del part, piece  # before the next chunk is made
    return failed


def write_chunk(
    run: Run, part: Chunk, request: Request, drawing: Drawing, names: Sequence[str], folder: Path
) -> tuple[list[PictureMaps], list[Measured]]:
    """Explain a chunk and write its pictures; what is returned holds no picture and no map."""
    large = part.windows is not None
    with naming_pictures(part):
        prediction = predict_large(run, part) if large else run.predict(part.batch.images)
    targets = targets_of(
        run, part, request.targets, request.class_index, against=request.against, prediction=prediction
    )
    maps = maps_of(run, part, targets, request)
    measured = measure(run, part, targets, request, maps, prediction)
    rows = [
        writer.write_sample(
            run, part, i, mask, maps, measured, folder, f"samples/{names[part.numbers[i]]}", drawing
        )
        for i, mask in enumerate(original_masks(run, part, prediction))
    ]
    return rows, measured


def _redraw(
    run: Run,
    split: Split,
    done: Sequence[Done],
    drawing: Drawing,
    partial: Partial,
    found: Shared,
    tiles: str,
    share: Share,
) -> None:
    """Draw all maps from their raw values, one picture at a time, in limits that all pictures share."""
    gathered: dict[tuple[str, ...], list[tuple[float, float]]] = {}
    for group, limits in share.gather(list(found.items())):
        gathered.setdefault(group, []).append(limits)
    shared = {group: shared_limits(each) for group, each in gathered.items()}
    pictures = [(part, i) for part in done for i in range(len(part.rows))]
    for part, i in track(pictures, total=len(pictures), what="drawing") if share.first else pictures:
        sample = split[part.numbers[i]]
        frame = frame_of(sample, run.spec, tiles)
        part.rows[i] = writer.redraw(run, sample, frame, part.rows[i], partial.folder, drawing, shared)


def _once(failed: Sequence[Failure]) -> list[Failure]:
    """Return every picture that failed once, in the order of the split: a resumed job tries them again."""
    return list(
        {failure.number: failure for failure in sorted(failed, key=lambda each: each.number or 0)}.values()
    )

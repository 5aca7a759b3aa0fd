"""The files of a folder: a row for each picture and map, means over pictures, tables and the record."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seglens.axes import padded_size
from seglens.data.frame import Frame
from seglens.data.layout import Split
from seglens.data.sample import Sample, Task
from seglens.data.volumes import write_map, write_mask
from seglens.drawing.draw import overlay, save_png
from seglens.drawing.planes import planes_through
from seglens.evaluate.intervals import interval, numbered
from seglens.evaluate.scores import counted, scores
from seglens.explain.explanation import Explanation
from seglens.files.output import unused_name
from seglens.folder.chunks import Chunk, Failure, images_sha256
from seglens.folder.contact_sheets import (
    Subject,
    class_indices,
    coloured,
    draw_maps,
    draw_subject,
    shown,
)
from seglens.folder.heatmaps import (
    Heatmaps,
    Shared,
    arrays_in_planes,
    mask_as_drawn,
    planes_of,
    with_limits,
)
from seglens.folder.partial import Measured
from seglens.folder.raw import Arrays, raw_arrays, raw_format
from seglens.folder.scales import Scaling, colour_unit
from seglens.folder.slices import slice_arrays
from seglens.judge.localisation import join_attention, summarise
from seglens.masks import foreground, is_stack, of_class, painted
from seglens.results import record as records
from seglens.results.maps import MapFrame as FrameRow
from seglens.results.maps import MapSummary, OneMap, PictureMaps
from seglens.runs import Run
from seglens.shapes import AnyMask, Map, Mask

OF_MAP = ("target", "method", "layer")
COUNTS = ("num_ok", "num_no_target", "num_total", "num_degenerate", "num_failed")


@dataclass(frozen=True)
class Drawing:
    """How maps are drawn, and in which format their raw values are kept.

    ``montage`` is the plane of volumes whose slices are drawn side by side; None where none are. ``overlays``
    are the ways to lay a map over its picture that have a sheet of their own.
    """

    scaling: Scaling
    raw: str
    montage: str | None = None
    overlays: tuple[str, ...] = ()


def write_sample(
    run: Run,
    part: Chunk,
    index: int,
    predicted: AnyMask,
    maps: Sequence[Explanation],
    measured: Sequence[Measured],
    folder: Path,
    place: str,
    drawing: Drawing,
) -> PictureMaps:
    """Write picture ``index`` of a chunk into ``folder / place``; return its row of ``explanations.json``.

    Heat maps are drawn where their limits are known by now; `redraw` does it where they depend on the others.
    """
    sample = part.originals[index]
    subject = Subject(sample, part.frames[index], folder, place)
    shutil.rmtree(folder / place, ignore_errors=True)  # what a try left that was killed on the way
    (folder / place).mkdir()
    kind, arrays = raw_format(drawing.raw), raw_arrays(maps, index, part.frames[index])
    planes = planes_of(arrays, part.frames[index])
    files = draw_subject(subject, predicted, run.spec, run.task, planes)
    if sample.grid is not None:
        files |= _write_volumes(run.task, subject, predicted, arrays)
    frame = frame_row(part.frames[index], run.spec.divisor)
    if not bool(sample.valid.all()):
        arrays["valid"] = sample.valid.to(torch.uint8)
    files["raw"] = f"{place}/maps{kind.suffix}"
    kind.write(arrays, folder / files["raw"])
    dice = picture_dice(predicted, sample, len(run.task.classes))
    rows = [map_row(entry, found, index) for entry, found in zip(maps, measured, strict=True)]
    heatmaps = with_limits(Heatmaps(rows, arrays, part.frames[index], run.spec))
    if planes is not None:
        drawn = arrays_in_planes(heatmaps)
        files["planes"] = f"{place}/planes{kind.suffix}"
        kind.write(drawn, folder / files["planes"])
        files["slices"] = f"{place}/slices{kind.suffix}"
        kind.write(slice_arrays(sample, predicted, heatmaps), folder / files["slices"])
        rows_and_columns = next(values.shape for values in drawn.values())
        frame = FrameRow(native=rows_and_columns, part=(0.0, 0.0, 1.0, 1.0))
    row = PictureMaps(name=sample.name, status="ok", files=files, frame=frame, maps=tuple(heatmaps.rows))
    if dice is not None:
        row = row.model_copy(update={"dice": dice})
    return row if drawing.scaling.kind == "dataset" else _draw(run, subject, row, arrays, drawing, {})


def _write_volumes(task: Task, subject: Subject, predicted: AnyMask, arrays: Arrays) -> dict[str, str]:
    """Write the prediction and the maps of a volume as NIfTI, on the grid of its file."""
    grid, taken, files = subject.sample.grid, {"pred"}, {}
    assert grid is not None
    for label, mask in label_maps(task, predicted).items():
        about, name = (f"pred {label} volume", f"pred-{label}") if label else ("pred volume", "pred")
        files[about] = f"{subject.place}/{name}.nii.gz"
        taken.add(name)
        write_mask(subject.folder / files[about], grid.from_zyx(mask.numpy()), grid)
    for name, values in arrays.items():
        if name.startswith("map:"):
            file = f"{subject.place}/{unused_name(name.removeprefix('map:'), taken)}.nii.gz"
            files[f"{name.removeprefix('map:')} volume"] = file
            write_map(subject.folder / file, grid.from_zyx(values.numpy()), grid, name)
    return files


def redraw(
    run: Run, sample: Sample, frame: Frame, row: PictureMaps, folder: Path, drawing: Drawing, shared: Shared
) -> PictureMaps:
    """Draw the heat maps of a picture from its raw maps, in the limits that it shares with the others."""
    arrays = raw_format(drawing.raw).read(folder / row.files["raw"])
    subject = Subject(sample, frame, folder, str(Path(row.files["raw"]).parent.as_posix()))
    return _draw(run, subject, row, arrays, drawing, shared)


def _draw(
    run: Run, subject: Subject, row: PictureMaps, arrays: Arrays, drawing: Drawing, shared: Shared
) -> PictureMaps:
    heatmaps = Heatmaps(row.maps, arrays, subject.frame, run.spec)
    maps, sheets = draw_maps(subject, heatmaps, drawing.scaling, shared, drawing.montage, drawing.overlays)
    drawn = row.model_copy(update={"maps": maps, "sheets": sheets})
    write_row(subject.folder, drawn)
    return drawn


def write_row(folder: Path, row: PictureMaps) -> None:
    """Write what is known of one picture beside its maps."""
    records.write_json(folder / Path(row.files["raw"]).parent / "explanation.json", row)


def picture_dice(predicted: AnyMask, sample: Sample, num_classes: int) -> float | None:
    """Return the Dice score of one picture; None where no truth is known or nothing of it is valid."""
    if sample.mask is None or not bool(sample.valid.any()):
        return None
    return float(scores(counted(predicted, sample.mask, sample.valid, num_classes))["dice"])


def frame_row(frame: Frame, divisor: int) -> FrameRow:
    """Return how the picture lies in a layer's grid: ``native`` (rows, columns), and which part it takes.

    ``part`` is left, top, width and height of the picture as shares of the grid, whatever its resolution; the
    rest is padding.
    """
    padded = padded_size(frame.sides, divisor)[::-1] * 2
    ends = (*frame.corner[::-1], *frame.scaled[::-1])
    part = tuple(side / length for side, length in zip(ends, padded, strict=True))
    return FrameRow(native=frame.native, part=part)


def map_row(entry: Explanation, found: Measured, index: int) -> OneMap:
    """Return what is known of one map of one picture."""
    attended, measured = found
    return OneMap(
        target=entry.target.label,
        method=entry.method,
        layer=entry.layer,
        where=entry.where,
        unit=colour_unit(entry.method, entry.settings),
        status=entry.status[index],
        statistics={name: float(values[index]) for name, values in measured.items()},
        nulls={
            null: {name: float(values[index]) for name, values in row.items()}
            for null, row in (attended.nulls.items() if entry.where == "region" else ())
        },
        diagnostics={name: float(values[index]) for name, values in entry.diagnostics.items()},
    )


def summary_row(
    parts: Sequence[Measured], *, where: str, groups: Sequence[str] | None = None, seed: int
) -> MapSummary:
    """Return the means over all pictures of one map, with intervals and nulls, and how many have no map.

    Intervals resample ``groups``, the name of each picture's.
    """
    members = None if groups is None else numbered(groups)
    whole = join_attention([attended for attended, _ in parts])
    row = summarise(whole, groups=members, seed=seed)
    statistics = dict(row.statistics)
    for name in parts[0][1]:
        if name not in statistics:
            values = torch.cat([measured[name].cpu() for _, measured in parts])
            finite = values.masked_fill(values.isinf(), torch.nan)
            statistics[name] = interval(finite, groups=members, seed=seed).spread()
    degenerate, failed = (whole.status.count(kind) for kind in ("degenerate", "failed"))
    found = {"statistics": statistics, "where": where, "num_degenerate": degenerate, "num_failed": failed}
    if where != "region":
        # The nulls are of what lies on the target, which doesn't count; nor can it repeat the prediction.
        found |= {"nulls": {}, "null_intervals": {}, "label": ""}
    return row.model_copy(update=found)


def flat_summary(rows: Iterable[MapSummary]) -> list[dict[str, object]]:
    """Return the rows of the summary as plain numbers, for a table."""
    found = []
    for row in rows:
        plain = {name: row[name] for name in (*OF_MAP, "where", *COUNTS)}
        for name, values in row.statistics.items():
            plain |= {name: values.mean, f"{name} low": values.low, f"{name} high": values.high}
        plain |= {f"ratio ({null})": value for null, value in row.of_nulls("ratio").items()}
        found.append(plain | {"label": row.label})
    return found


def joined(parts: Sequence[Sequence[Measured]]) -> list[Measured]:
    """Put together what was measured of some pictures, and of others, with the same maps."""
    return [
        (
            join_attention([attended for attended, _ in of_map]),
            {name: torch.cat([found[name].cpu() for _, found in of_map]) for name in of_map[0][1]},
        )
        for of_map in zip(*parts, strict=True)
    ]


def failed_row(failure: Failure) -> PictureMaps:
    """Return the row of a picture that could not be done."""
    return PictureMaps(name=failure.name, status="failed", error=failure.error)


def flat(rows: Iterable[PictureMaps]) -> list[dict[str, object]]:
    """Return the rows of pictures as one row for each map, for a table of numbers."""
    found = []
    for row in rows:
        plain = row.model_dump(include={"name", "status", "error", "dice"}, exclude_unset=True)
        if row.status == "failed":
            found.append(plain)
        for entry in row.maps:
            named = {name: entry[name] for name in OF_MAP} | {"map": entry.status}
            nulls = {
                f"{name} ({null})": value
                for null, values in entry.nulls.items()
                for name, value in values.items()
            }
            found.append({**plain, **named, **entry.statistics, **nulls})
    return found


def write_prediction(run: Run, sample: Sample, mask: AnyMask, folder: Path, name: str) -> dict[str, object]:
    """Save the mask (of labels that may overlap one each), coloured and as overlay; return its row."""
    files = {"mask": f"masks/{name}.png", "overlay": f"overlays/{name}.png"}
    planes, size = None, {"width": mask.shape[-1], "height": mask.shape[-2]}
    if sample.valid.ndim == 3:
        planes = planes_through(foreground(mask, 3), sample.spacing)
        size["slices"] = mask.shape[-3]
        del files["mask"]
        for label, one in label_maps(run.task, mask).items():
            about, place = (f"mask {label}", f"{label}/{name}") if label else ("mask", name)
            files[about] = f"masks/{place}.nii.gz"
            if sample.grid is not None:
                write_mask(folder / files[about], sample.grid.from_zyx(one.numpy()), sample.grid)
    elif is_stack(mask):
        del files["mask"]
        for label, layer in zip(label_folders(run.task), mask, strict=True):
            files[f"mask {label}"] = f"masks/{label}/{name}.png"
            save_png(class_indices(layer.long() * 255), folder / files[f"mask {label}"])
    else:
        save_png(class_indices(mask), folder / files["mask"])
    if planes is None:
        files["coloured"] = f"coloured/{name}.png"
        save_png(coloured(mask, run.task.palette), folder / files["coloured"])
    image = shown(sample, run.spec, planes).image
    drawn = overlay(image, mask_as_drawn(mask if planes is None else planes(mask)), run.task.palette)
    save_png(drawn, folder / files["overlay"])
    areas: dict[str, float] = {
        f"{label} pixels": int(of_class(mask, index, sample.valid.ndim).sum())
        for index, label in enumerate(run.task.classes)
        if index
    }
    if sample.grid is not None:
        voxel = sample.grid.voxel_ml
        areas |= {name.replace(" pixels", " ml"): number * voxel for name, number in areas.items()}
    return {"name": sample.name, "status": "ok", **size, **areas, **files}


def label_maps(task: Task, mask: AnyMask) -> dict[str, Mask]:
    """Return a mask as files of volumes hold it: one label map, of regions as nnU-Net writes them.

    Of other labels that may overlap it is a mask each, by their `label_folders`.
    """
    if not is_stack(mask):
        return {"": mask}
    if task.region_order:
        return {"": painted(mask, task.region_order)}
    return {label: layer.long() for label, layer in zip(label_folders(task), mask, strict=True)}


def write_uncertainty(maps: Mapping[str, Map], folder: Path, name: str) -> dict[str, object]:
    """Save maps of uncertainty as arrays, and of pictures as grey ones too; return the row of their files."""
    if not maps:
        return {}
    files = {"uncertainty": f"uncertainty/{name}.npz"}
    arrays: dict[str, Any] = {kind: each.numpy() for kind, each in maps.items()}
    np.savez_compressed(folder / files["uncertainty"], **arrays)
    for kind, each in maps.items():
        if each.ndim == 2:
            files[f"uncertainty {kind}"] = f"uncertainty/{name}-{kind}.png"
            grey = (each * 2 * 255).round().clamp(0, 255).long()
            save_png(class_indices(grey), folder / files[f"uncertainty {kind}"])
    return {**files, **{f"mean {kind}": float(each.mean()) for kind, each in maps.items()}}


def label_folders(task: Task) -> list[str]:
    """Return the name of the folder of masks of each label: its own, as far as file names allow it."""
    taken: set[str] = set()
    return [unused_name(label, taken) for label in task.classes[1:]]


def write_record(
    command: str,
    run: Run,
    split: Split,
    folder: Path,
    began: float,
    *,
    seed: int | None,
    settings: Mapping[str, object],
    num_done: int,
    failed: Sequence[Failure],
) -> None:
    """Write the ``run.json`` of a batch."""
    described = records.start(
        command,
        seed=seed,
        device=str(run.segmenter.device),
        settings={"run": str(run.folder) if run.folder else None, "split": split.name, **settings},
        model=run.spec.model_dump(mode="json"),
        task=run.task.model_dump(mode="json"),
        model_sha256=run.sha256,
        data_sha256=images_sha256(split),
    )
    results = {"num_images": num_done, "num_failed": len(failed)}
    records.finish(described, began, results=results).write(folder)

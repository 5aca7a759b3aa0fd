"""Targets of pictures that are predicted in windows: at the working scale, by the names that users type."""

from dataclasses import replace

import torch
from torch import Tensor

from seglens.data.frame import Frame, nearest
from seglens.explain.target import Target
from seglens.explain.target_names import Scene, named_targets
from seglens.predict.original import decide, empty_mask
from seglens.predict.tiles import Cut, Windows, bands, resized
from seglens.runs import Run
from seglens.shapes import AnyMask, Region


def large_mask(run: Run, cut: Cut, windows: Windows, *, batch_size: int = 8) -> AnyMask:
    """Return what the model says of a large picture at the working scale, a byte a pixel (and label)."""
    here = replace(windows, native=windows.scaled)
    mask = empty_mask(run.spec, windows.scaled)

    def scaled(*part: slice) -> Tensor:
        return resized(cut, windows.native, windows.scaled, *part)

    rows = mask.movedim(-len(windows.scaled), 0)
    top = 0
    for band in bands(run.segmenter, scaled, here, batch_size=batch_size):
        stop = top + band.shape[1]
        rows[top:stop] = decide(band, run.spec).movedim(-len(windows.scaled), 0)
        top = stop
    return mask


def large_scene(
    run: Run,
    cut: Cut,
    windows: Windows,
    *,
    mask: AnyMask | None = None,
    valid: Region | None = None,
    class_index: int = 1,
    batch_size: int = 8,
) -> Scene:
    """Return what `seglens.explain.target_names.named_targets` makes targets of: coordinates are native.

    ``mask`` and ``valid`` are native too, and take nearest values; without ``valid`` every pixel is.
    """
    kept = torch.ones(windows.scaled, dtype=torch.bool) if valid is None else nearest(valid, windows.scaled)
    return Scene(
        run=run,
        images=torch.empty(1, 0, *windows.scaled),  # their size is all that is asked for
        masks=None if mask is None else nearest(mask, windows.scaled)[None],
        valid=kept[None],
        class_index=class_index,
        frames=(Frame(windows.native, max(windows.scaled), windows.scaled, (0,) * len(windows.scaled)),),
        predict=lambda: large_mask(run, cut, windows, batch_size=batch_size)[None],
    )


def large_target(
    text: str,
    run: Run,
    cut: Cut,
    windows: Windows,
    *,
    mask: AnyMask | None = None,
    valid: Region | None = None,
    class_index: int = 1,
    against: int | None = None,
    batch_size: int = 8,
) -> Target:
    """Make the target that the command line calls ``text`` for a large picture; see `large_scene`.

    Raises:
        UnknownNameError, SettingError: as `seglens.explain.target_names.named_targets`.
    """
    scene = large_scene(
        run, cut, windows, mask=mask, valid=valid, class_index=class_index, batch_size=batch_size
    )
    return named_targets((text,), scene, against=against)[0]

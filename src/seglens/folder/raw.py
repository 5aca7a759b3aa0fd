"""Raw maps in files: signed, unscaled, float32, readable by numpy or by safetensors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from seglens.axes import cropped, padded_size
from seglens.data.frame import Frame
from seglens.errors import unknown_name
from seglens.explain.cams import upsample
from seglens.explain.explanation import Explanation
from seglens.files.arrays import open_npz
from seglens.models.segmenter import ModelSpec
from seglens.results.names import folds_layer, map_name
from seglens.shapes import Map, Region

Arrays = Mapping[str, Tensor]
"""Raw arrays of one picture by name; they become numpy's in the file only."""


@dataclass(frozen=True)
class Format:
    """How arrays are written to a file with this suffix, and read back."""

    suffix: str
    write: Callable[[Arrays, Path], None]
    read: Callable[[Path], Arrays]


def raw_format(name: str) -> Format:
    """Return the format called ``name``.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in FORMATS:
        raise unknown_name("format of raw maps", name, FORMATS)
    return FORMATS[name]


def raw_arrays(explanations: Sequence[Explanation], row: int, frame: Frame) -> dict[str, Tensor]:
    """Return all there is to keep of picture ``row``.

    ``map:NAME`` is the map at the picture's own size, ``grid:NAME`` what the layer gave before it was brought
    to size, and ``channels:NAME`` the attribution of each channel on the input grid, where there are such:
    all float32, signed, unscaled, NaN where there is no map. ``region:TARGET`` says which pixels are the
    target's, ``map:NAME@folds`` how far the folds of a model are apart, and ``counted:NAME`` which ones count
    where not all do (1 or 0, at the picture's own size). The batch adds ``valid`` where not all pixels of the
    picture are.
    """
    several = len({entry.target.label for entry in explanations}) > 1
    arrays: dict[str, Tensor] = {}
    for entry in explanations:
        label = entry.target.label if several else ""
        name = map_name(entry.method, entry.layer, target=label)
        apart = map_name(entry.method, folds_layer(entry.layer), target=label)
        region = f"region:{entry.target.label}"
        if region not in arrays:
            arrays[region] = _native_region(entry.target.pixels[row], frame)
        arrays[f"map:{name}"] = frame.maps_to_native(entry.map[row].cpu()).float()
        if entry.folds is not None:
            arrays[f"map:{apart}"] = frame.maps_to_native(entry.folds[row].cpu()).float()
        for kind, values in (("grid", entry.grid), ("channels", entry.channels)):
            if values is not None:
                arrays[f"{kind}:{name}"] = values[row].cpu().float()
        if entry.where != "region":
            counted = _native_region(entry.counted[row], frame)
            named = (name,) if entry.folds is None else (name, apart)
            arrays |= {f"counted:{each}": counted for each in named}
    return arrays


def evidence(arrays: Arrays, name: str, frame: Frame, spec: ModelSpec) -> Map | None:
    """Return the evidence for and against the class, at the picture's own size.

    That is the signed grid of a layer, before any ReLU, brought to size as a map is; None where the method
    has no grid.
    """
    found = arrays.get(f"grid:{name}")
    if found is None:
        return None
    whole = upsample(found[None], padded_size(frame.sides, spec.divisor))[0]
    return frame.maps_to_native(cropped(whole, frame.sides))


def _native_region(region: Region, frame: Frame) -> Tensor:
    return frame.mask_to_native(region.cpu().long()).to(torch.uint8)


def _write_npz(arrays: Arrays, file: Path) -> None:
    kept: dict[str, Any] = {name: values.numpy() for name, values in arrays.items()}
    np.savez_compressed(file, **kept)


def _read_npz(file: Path) -> Arrays:
    with open_npz(file) as opened:
        return {name: torch.from_numpy(values) for name, values in opened.items()}


def _write_safetensors(arrays: Arrays, file: Path) -> None:
    save_file({name: values.contiguous() for name, values in arrays.items()}, file)


FORMATS: dict[str, Format] = {
    "npz": Format(".npz", _write_npz, _read_npz),
    "safetensors": Format(".safetensors", _write_safetensors, load_file),
}
"""Formats of raw maps. To add one: two functions, one line."""

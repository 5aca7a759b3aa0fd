"""Predict or explain one very large picture, and measure the memory that the process took at most.

    python -m benchmarks.large_picture [--side 10000] [--suffix png] [--flips] [--explain]

A smooth random colour picture is written to a temporary folder, next to a run of a small, untrained U-Net
whose training had pictures of its own input size (512 pixels), so that ``seglens predict`` covers the picture
with windows at full resolution. One line says how long the command took and how much memory (maximum resident
set, in MiB, everything included: Python, PyTorch, the decoded picture). Exit code 1 above ``--limit`` GiB.

With ``--explain`` a process of its own finds the predicted region in windows, makes Grad-CAM at two layers of
it (the last of the encoder and, at full resolution, the last of the decoder), and brings both maps to native
size, band by band.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.large_targets import large_target
from seglens.data.images import as_image, read_pixels
from seglens.data.sample import Task
from seglens.explain.tiled import explain_large
from seglens.models.segmenter import ModelSpec, Segmenter
from seglens.predict.tiles import plan
from seglens.results import record as records
from seglens.runs import load, save_run

SIZE = 512
Image.MAX_IMAGE_PIXELS = None
CELL = 50
"""Pixels between the random values that the picture is interpolated from."""


def write_picture(file: Path, side: int) -> None:
    """Write a colour picture of ``side`` x ``side`` pixels, smooth as a photograph is."""
    cells = -(-side // CELL)
    coarse = np.random.default_rng(0).integers(0, 256, (cells, cells, 3)).astype(np.uint8)
    grown = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    grown.save(file, compress_level=1) if file.suffix == ".png" else grown.save(file)


def write_run(folder: Path, width: int) -> None:
    """Save a U-Net with random weights."""
    torch.manual_seed(0)
    spec = ModelSpec(architecture="unet", width=width, image_size=SIZE, scale=1.0)
    folder.mkdir()
    record = records.finish(records.start("adopt"), time.monotonic())
    save_run(folder, Segmenter.from_spec(spec).eval(), Task(), record)


def explain_picture(folder: Path, file: Path) -> None:
    """Explain the prediction of ``file`` by the run in ``folder``; this is the process that is measured."""
    run, pixels = load(folder), read_pixels(file)

    def cut(rows: slice, columns: slice) -> torch.Tensor:
        return as_image(pixels[rows, columns], run.spec.channels, file)

    windows = plan(pixels.shape[:2], run.spec, "auto")
    assert windows is not None
    target = large_target("predicted", run, cut, windows)
    found = explain_large(run, cut, windows, target, layers=("encoder_last", "decoder_last"))
    for made in found.values():
        highest = max(float(band.max()) for band in made.bands())
        print(f"{made.name}: {made.status}, {tuple(made.grid.shape)} cells, highest {highest:.3g}")


def predicted(file: Path, side: int) -> str:
    """Say what was predicted."""
    with Image.open(file) as mask:
        assert mask.size == (side, side)
        return f"{float((np.asarray(mask) == 1).mean()):.1%} predicted as foreground"


def main() -> int:
    """Measure once and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--side", type=int, default=10_000)
    parser.add_argument("--suffix", choices=("png", "tif"), default="png")
    parser.add_argument("--width", type=int, default=4)
    parser.add_argument("--limit", type=float, default=4.0)
    parser.add_argument("--flips", action="store_true")
    parser.add_argument("--explain", action="store_true")
    parser.add_argument("--within", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.within:
        explain_picture(asked.within / "run", asked.within / f"large.{asked.suffix}")
        return 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        file = folder / f"large.{asked.suffix}"
        write_picture(file, asked.side)
        write_run(folder / "run", asked.width)
        if asked.explain:
            words = [sys.executable, "-m", "benchmarks.large_picture", "--within", folder]
            words += ["--suffix", asked.suffix]
        else:
            words = [
                sys.executable,
                "-m",
                "seglens",
                "predict",
                folder / "run",
                file,
                "--out",
                folder / "out",
            ]
            words += ["--tta"] if asked.tta else []
        began = time.monotonic()
        subprocess.run([*map(str, words)], check=True)
        seconds = time.monotonic() - began
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        made = "explained" if asked.explain else predicted(folder / "out/masks/large.png", asked.side)
    print(
        f"{asked.side} x {asked.side} {asked.suffix}, U-Net of width {asked.width} at {SIZE} px: "
        f"{seconds:.0f} s, {peak:.0f} MiB at most (limit {1024 * asked.limit:.0f}); {made}"
    )
    return int(peak > 1024 * asked.limit)


if __name__ == "__main__":
    sys.exit(main())

"""Explain a volume that is far larger than the network's input, and measure the memory that the process took.

    python -m benchmarks.volumes [--window 96] [--windows 1 8 64] [--size 512,512,400] [--whole]

The volume is random numbers in a memory-mapped float16 file, read window by window; the network is MONAI's
3-D U-Net (channels 8, 16, 32, 64; random weights). Each row is a process of its own: it predicts the windows
that cover a part of the volume, takes the predicted voxels as the target, and makes Grad-CAM at two layers
with one set of channel weights for the part. The parts are 1, 8 and 64 windows (1, 2 and 4 along each axis,
half overlapping). *Peak* is the maximum resident set of the process; *start* is what it had before the first
window: Python, PyTorch, the network. ``--whole`` takes the whole volume.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from monai.networks.nets.unet import UNet

import seglens
from benchmarks.large_targets import large_target
from seglens.explain.tiled import explain_large
from seglens.predict.tiles import number_of, over

LAYERS = ("encoder_last", "decoder_last")
SLAB = 16
"""Slices of the volume that are drawn at a time."""


def peak() -> float:
    """Return the maximum resident set of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write_volume(file: Path, size: tuple[int, ...]) -> None:
    """Write random numbers in [0, 1)."""
    values = np.memmap(file, np.float16, "w+", shape=size)
    random = np.random.default_rng(0)
    for begin in range(0, size[0], SLAB):
        values[begin : begin + SLAB] = random.random(values[begin : begin + SLAB].shape, np.float32)
    values.flush()


def explain_part(file: Path, size: tuple[int, ...], part: tuple[int, ...], window: int) -> None:
    """Predict and explain the first ``part`` of the volume; this is the process that is measured."""
    torch.manual_seed(0)
    values = np.memmap(file, np.float16, "r", shape=size)
    network = UNet(3, 1, 2, channels=(8, 16, 32, 64), strides=(2, 2, 2), num_res_units=1)
    run = seglens.wrap(
        network,
        classes=("background", "thing"),
        channels=1,
        mean=(0.5,),
        std=(0.29,),
        dims=3,
        image_size=window,
        divisor=8,
        outputs_are="logits",
    )

    def cut(*where: slice) -> torch.Tensor:
        return torch.from_numpy(values[where].astype(np.float32))[None]

    windows = over(part, run.spec)
    row = {"windows": number_of(windows), "size": part, "start": round(peak())}
    began = time.monotonic()
    target = large_target("predicted", run, cut, windows, batch_size=1)
    row |= {"predicted": round(time.monotonic() - began, 1), "after": round(peak())}
    row["share"] = round(float(target.pixels.float().mean()), 3)
    began = time.monotonic()
    found = explain_large(run, cut, windows, target, methods=("grad-cam",), layers=LAYERS)
    row["explained"] = round(time.monotonic() - began, 1)
    row |= {"peak": round(peak()), "grids": [tuple(made.grid.shape) for made in found.values()]}
    row["status"] = sorted({made.status for made in found.values()})
    print(json.dumps(row))


def main() -> None:
    """Measure each part and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", default="512,512,400")
    parser.add_argument("--window", type=int, default=96)
    parser.add_argument("--windows", type=int, nargs="*", default=[1, 8, 64])
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    size = tuple(map(int, asked.size.split(",")))
    if asked.file:
        explain_part(asked.file, size, tuple(map(int, asked.part.split(","))), asked.window)
        return
    parts = [
        (asked.window + (round(number ** (1 / 3)) - 1) * asked.window // 2,) * 3 for number in asked.windows
    ]
    parts += [size] * asked.whole
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    print("| windows | voxels | start, MiB | peak after predicting | peak | predict, s | explain, s |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "volume.f16"
        write_volume(file, size)
        for part in parts:
            words = [sys.executable, "-m", "benchmarks.volumes", "--file", file, "--size", asked.size]
            words += ["--part", ",".join(map(str, part)), "--window", asked.window]
            done = subprocess.run([*map(str, words)], check=True, capture_output=True, text=True)
            row = json.loads(done.stdout.splitlines()[-1])
            print(
                f"| {row['windows']} | {' x '.join(map(str, part))} | {row['start']:,} | {row['after']:,} | "
                f"{row['peak']:,} | {row['predicted']} | {row['explained']} |",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""Growth of time and memory with pictures, pixels and channels; and planned against actual passes.

    python -m benchmarks.growth [--quick] [--device cpu] [--methods grad-cam score-cam]
    python -m benchmarks.growth --dry-run-check [--quick]

Each row of the table is a process of its own, so that peaks are clean: a U-Net with random weights explains
drawn pictures, after a warm-up on one of them. Seconds are of the explanation alone; the peak is that of the
process on a CPU (less what it held before), of the allocator on a GPU. Channels are those of the layer that
is explained, between two 1x1 convolutions in the U-Net's bottleneck; the rest of the network stays as it is.
Score-CAM takes a forward pass for each channel and picture, and is left out where that would be more than
2,048 at 256 px. Rows that need more than ``--limit`` seconds are stopped.

With ``--dry-run-check`` the passes that `plan` counts are held against those that `explain` then makes, for
gradient CAMs, Integrated Gradients, Score-CAM and occlusion; exit code 1 where there are more than planned.
(Score-CAM leaves out channels that are constant.)
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass

import torch
from torch import nn

from seglens.data.sample import Task
from seglens.explain import explain
from seglens.explain.plan import plan, watched
from seglens.explain.target import Target
from seglens.models.segmenter import ModelSpec, Segmenter
from seglens.runs import Run

CAMS = ("grad-cam", "grad-cam++", "hires-cam", "layer-cam")
CHECKED = {
    "gradient CAMs": CAMS,
    "integrated-gradients": ("integrated-gradients",),
    "score-cam": ("score-cam",),
    "occlusion": ("occlusion",),
}
WIDTH = 16
"""Channels of the U-Net's first level; the deepest has 16 times as many."""

FORWARDS = 2048 * 256 * 256
"""Pixels through the model that Score-CAM may take in a row of the table."""


@dataclass(frozen=True)
class Row:
    """One measurement: pictures, side in pixels, channels of the layer."""

    methods: tuple[str, ...]
    pictures: int
    side: int
    channels: int
    device: str = "cpu"
    plan: bool = False

    @property
    def pixels(self) -> int:
        """Pixels that Score-CAM would send through the model."""
        return self.pictures * self.channels * self.side**2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few and small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--limit", type=int, default=600, help="seconds for a row")
    parser.add_argument("--dry-run-check", action="store_true", help="planned passes by actual ones")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.row:
        print(
            json.dumps(
                measure(Row(**{**(found := json.loads(given.row)), "methods": tuple(found["methods"])}))
            )
        )
        return 0
    if given.dry_run_check:
        return check(given.device, given.limit, quick=given.quick)
    print("| methods | pictures | side | channels | seconds | seconds / picture | peak MiB |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for row in rows(given.device, quick=given.quick):
        found = child(row, given.limit)
        name = "gradient CAMs" if row.methods == CAMS else " ".join(row.methods)
        if isinstance(found, str):
            print(f"| {name} | {row.pictures} | {row.side} | {row.channels} | {found} | | |", flush=True)
            continue
        print(
            f"| {name} | {row.pictures} | {row.side} | {row.channels} | {found['seconds']:.2f} | "
            f"{found['seconds'] / row.pictures:.3f} | {found['peak'] / 2**20:.0f} |",
            flush=True,
        )
    return 0


def rows(device: str, *, quick: bool) -> list[Row]:
    """One thing grows at a time, from 8 pictures of 256 px and 256 channels."""
    pictures, sides = ((1, 8, 32), (64, 128)) if quick else ((1, 8, 64, 512), (256, 512, 1024))
    channels = (64, 256) if quick else (64, 128, 256, 512, 1024, 2048)
    side, usual = sides[0], 256
    found = [Row(CAMS, num, side, usual, device) for num in pictures]
    found += [Row(CAMS, 8, each, usual, device) for each in sides[1:]]
    found += [Row(CAMS, 8, side, num, device) for num in channels if num != usual]
    for base in list(found):
        one = Row(
            ("score-cam",), 1 if base.pictures == 8 else base.pictures, base.side, base.channels, device
        )
        if one.pixels <= FORWARDS and one not in found:
            found.append(one)
    return found


def check(device: str, limit: int, *, quick: bool) -> int:
    """Print planned and actual passes; exit code 1 where there are more than planned."""
    off = False
    print("| methods | pictures | side | planned passes | actual passes | seconds |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, methods in CHECKED.items():
        for pictures, side in ((4, 64),) if quick else ((1, 128), (8, 128), (32, 128)):
            found = child(Row(tuple(methods), pictures, side, 128, device, plan=True), limit)
            if isinstance(found, str):
                print(f"| {name} | {pictures} | {side} | | {found} | |", flush=True)
                continue
            off |= found["passes"] > found["planned"]
            print(
                f"| {name} | {pictures} | {side} | {found['planned']:.0f} | {found['passes']:.0f} | "
                f"{found['seconds']:.2f} |",
                flush=True,
            )
    return int(off)


def child(row: Row, limit: int) -> dict[str, float] | str:
    """Measure ``row`` in a process of its own; where that fails, say why."""
    words = [sys.executable, "-m", "benchmarks.growth", "--row", json.dumps(asdict(row))]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return f"over {limit} s"
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["killed"])[-1][:80]
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(row: Row) -> dict[str, float]:
    """Explain the pictures of ``row``; seconds, peak bytes, passes and planned ones."""
    run = widened(row)
    images = torch.rand(row.pictures, 3, row.side, row.side)
    pixels = torch.zeros(row.pictures, row.side, row.side, dtype=torch.bool)
    pixels[:, row.side // 4 : row.side // 2, row.side // 4 : row.side // 2] = True
    target = Target("square", 1, pixels)
    layers = ("bottleneck.2",)
    found: dict[str, float] = {}
    warm = tuple(row.methods) if row.methods == CAMS else ("saliency",)
    explain(run, images[:1], target.select(slice(0, 1)), methods=warm, layers=layers)
    if row.plan:
        planned = plan(run, images, target, methods=row.methods, layers=layers)
        found["planned"] = float(planned.forwards)
    on_gpu = row.device.startswith("cuda")
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    before = torch.cuda.memory_allocated() if on_gpu else resident()
    began = time.perf_counter()
    with watched(lambda seen: False) as seen:
        explain(run, images, target, methods=row.methods, layers=layers)
    if on_gpu:
        torch.cuda.synchronize()
    found["passes"] = float(seen.passes)
    found["seconds"] = time.perf_counter() - began
    peak = (
        torch.cuda.max_memory_allocated()
        if on_gpu
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    return found | {"peak": float(max(peak - before, 0))}


def widened(row: Row) -> Run:
    """A U-Net whose bottleneck has a layer of as many channels as asked for."""
    torch.manual_seed(0)
    spec = ModelSpec(architecture="unet", width=WIDTH, image_size=row.side)
    segmenter = Segmenter.from_spec(spec)
    deepest = 16 * WIDTH
    segmenter.module.bottleneck = nn.Sequential(
        segmenter.module.get_submodule("bottleneck"),
        nn.Conv2d(deepest, row.channels, 1),
        nn.SiLU(),
        nn.Conv2d(row.channels, deepest, 1),
    )
    return Run(segmenter.eval().to(row.device), Task(classes=("background", "thing")))


def resident() -> int:
    """Bytes of this process that are in memory now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    sys.exit(main())

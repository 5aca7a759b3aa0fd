"""Peak memory of evaluating and explaining 48 pictures, and 480: it must not grow with their number.

    python -m benchmarks.memory [--few 48] [--many 480] [--size 256] [--verbs evaluate explain]

Drawn pictures, a small U-Net with random weights, and the commands that a user would type, on the CPU: peak
resident memory of each process as the system counts it. Exit code 1 where ten times the pictures take more
than 5 % more. Pictures are explained in even chunks of at most 16, and the peak is that of a chunk: 50
pictures come 13 at a time and 500 come 16 at a time, so the numbers compared are multiples of 16.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from seglens.data.sample import Task
from seglens.models.segmenter import ModelSpec, Segmenter
from seglens.results import record as records
from seglens.runs import save_run

GROWTH = 0.05
"""How much more memory the larger set may take: what is kept is a row a picture."""

VERBS = {
    "evaluate": ["evaluate"],
    "explain": ["explain", "--methods", "grad-cam", "--layers", "encoder_last", "decoder_last"],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--few", type=int, default=48)
    parser.add_argument("--many", type=int, default=480)
    parser.add_argument("--size", type=int, default=256, help="side of the pictures")
    parser.add_argument("--image-size", type=int, default=128, help="side of the network's input")
    parser.add_argument("--verbs", nargs="+", choices=VERBS, default=list(VERBS))
    given = parser.parse_args()
    grown = False
    with tempfile.TemporaryDirectory(prefix="seglens-memory-") as name:
        place = Path(name)
        run = make_run(place / "run", given.image_size)
        sets = [make_set(place / f"set-{num}", num, given.size) for num in (given.few, given.many)]
        for verb, words in ((name, VERBS[name]) for name in given.verbs):
            peaks = []
            for data, num in zip(sets, (given.few, given.many), strict=True):
                out = place / f"{verb}-{num}"
                fixed = [str(run), "--data", str(data), "--out", str(out), "--device", "cpu"]
                peak, seconds = measure([words[0], *fixed, *words[1:]])
                peaks.append(peak)
                print(f"{verb}: {num} pictures: peak {peak:.0f} MiB, {seconds:.1f} s", flush=True)
            growth = peaks[1] / peaks[0] - 1
            print(f"{verb}: {growth:+.1%} from {given.few} to {given.many} pictures", flush=True)
            grown |= growth > GROWTH
    return int(grown)


def make_set(folder: Path, num: int, size: int) -> Path:
    """Draw ``num`` test pictures, discs on noise, as pairs of PNG files."""
    rows, columns = np.mgrid[:size, :size]
    for split, count in (("train", 1), ("valid", 1), ("test", num)):
        for kind in ("images", "masks"):
            (folder / split / kind).mkdir(parents=True)
        for index in range(count):
            random = np.random.default_rng(index)
            x, y = random.integers(size // 4, size - size // 4, 2)
            disc = (columns - x) ** 2 + (rows - y) ** 2 < (size / 6) ** 2
            image = random.integers(0, 90, (size, size, 3)) + 150 * disc[..., None]
            for kind, pixels in (("images", image), ("masks", disc * 255)):
                file = folder / split / kind / f"{split}-{index:04d}.png"
                Image.fromarray(pixels.astype(np.uint8)).save(file)
    return folder


def make_run(folder: Path, size: int) -> Path:
    """Save a small U-Net with random weights, whose logits are positive in about half of a picture."""
    torch.manual_seed(0)
    half = (0.5, 0.5, 0.5)
    spec = ModelSpec(architecture="unet", width=8, image_size=size, head="sigmoid", mean=half, std=half)
    segmenter = Segmenter.from_spec(spec).eval()
    with torch.no_grad():
        middle = segmenter(torch.rand(1, 3, size, size)).median()
        list(segmenter.parameters())[-1].sub_(middle)
    folder.mkdir()
    save_run(folder, segmenter, Task(), records.finish(records.start("adopt"), 0.0))
    return folder


def measure(words: list[str]) -> tuple[float, float]:
    """Run one ``seglens`` command; return its peak resident memory in MiB, and its seconds."""
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "seglens", *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"seglens {' '.join(words)} ended with code {process.returncode}.")
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return usage.ru_maxrss / unit, time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())

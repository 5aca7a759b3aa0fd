"""Integrated Gradients against captum's on a trained model: errors at equal time, time at equal error.

    python -m benchmarks.integrated_gradients --run runs/pets --data ../shared/data/oxford-iiit-pet

The reference is a map of 1,000 Gauss-Legendre steps, captum's own rule. Captum runs as its documentation
shows: one picture at a time, 50 Gauss-Legendre steps in one batch, or in batches of 8 where that is quicker
(tried first). Both sides take turns every few pictures, so that a busy machine slows both. Medians are over
the pictures; errors of both sides are measured in the same way, against the plain model's scores.

    --num 2 --reference-steps 100       a quick try
"""

import argparse
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from captum.attr import IntegratedGradients as Captum
from torch import Tensor

import seglens
from seglens.data.transforms import collate, letterbox
from seglens.explain import explain
from seglens.explain.integrated import Quadrature
from seglens.runs import Run

BLOCK = 4
"""Pictures until the other side's turn."""

DEFAULT_STEPS = 50
"""Captum's."""

OURS = (8, 12, 16, 24, 32, 50)

Work = Callable[[Tensor, seglens.Target], Tensor]


@dataclass
class Side:
    """One row of the table: how it works, the seconds it took, and what it found for each picture."""

    name: str
    steps: int
    work: Work
    seconds: float = 0.0
    maps: list[Tensor] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    unlike: list[float] = field(default_factory=list)

    def figures(self) -> tuple[float, float, float]:
        """Seconds a picture, median error of completeness, median of 1 - correlation."""
        return self.seconds / len(self.maps), float(np.median(self.errors)), float(np.median(self.unlike))


def ours(run: Run, steps: int, quadrature: Quadrature = "log-midpoint") -> Work:
    """A few pictures in one call."""

    def work(images: Tensor, target: seglens.Target) -> Tensor:
        settings = seglens.IntegratedGradients(steps=steps, max_steps=steps, quadrature=quadrature)
        return explain(run, images, target, methods=[settings])["integrated-gradients"].map

    return work


def captums(run: Run, steps: int, batch: int | None) -> Work:
    """One picture after the other, ``batch`` points at once (all, where None)."""

    def work(images: Tensor, target: seglens.Target) -> Tensor:
        maps = []
        for row in range(len(images)):
            pixels = target.select(slice(row, row + 1))

            def score(points: Tensor, pixels: seglens.Target = pixels) -> Tensor:
                return pixels.score(run.segmenter(points), torch.zeros(len(points), dtype=torch.long), "mean")

            method = Captum(score)
            picture = images[row : row + 1]
            found = method.attribute(
                picture, n_steps=steps, method="gausslegendre", internal_batch_size=batch
            )
            maps.append(found.sum(1).float())
        return torch.cat(maps)

    return work


def timed(work: Work, images: Tensor, target: seglens.Target) -> tuple[float, Tensor]:
    """Seconds and maps."""
    began = time.perf_counter()
    maps = work(images, target)
    return time.perf_counter() - began, maps


def pictures(run: Run, data: Path | None, split: str, num: int) -> tuple[Tensor, seglens.Target]:
    """Pictures spread evenly over a split, where the model sees something, with what it predicts there."""
    opened = seglens.open_split(run, split, data=data)
    chosen = [opened[i * len(opened) // num] for i in range(min(num, len(opened)))]
    images = collate([letterbox(sample, run.spec.image_size)[0] for sample in chosen]).images
    target = seglens.targets.predicted(run, images)
    seen = ~target.empty()
    return images[seen], target.select(seen.nonzero()[:, 0])


def gained(run: Run, images: Tensor, target: seglens.Target) -> Tensor:
    """What the score gains from black to the picture, by the model as it was loaded."""
    rows = torch.arange(len(images))
    with torch.no_grad():
        at = [
            target.score(run.segmenter(points), rows, "mean") for points in (images, torch.zeros_like(images))
        ]
    return at[0] - at[1]


def measure(
    sides: Sequence[Side], run: Run, images: Tensor, target: seglens.Target, reference: Tensor
) -> None:
    """Let the sides take turns on a few pictures at a time."""
    for begin in range(0, len(images), BLOCK):
        part = slice(begin, begin + BLOCK)
        some, aim = images[part], target.select(part)
        gain = gained(run, some, aim)
        for side in sides:
            seconds, maps = timed(side.work, some, aim)
            side.seconds += seconds
            side.maps += list(maps)
            side.errors += ((maps.sum((1, 2)) - gain).abs() / gain.abs()).tolist()
            for one, right in zip(maps, reference[part], strict=True):
                pair = torch.stack([one.flatten(), right.flatten()]).double()
                side.unlike.append(1 - torch.corrcoef(pair)[0, 1].item())


def at_value(sides: Sequence[Side], kind: int, value: float) -> float:
    """Seconds at which the sides' line of log(figure ``kind``) over log(seconds) reaches ``value``."""
    points = np.log([side.figures() for side in sides])
    slope, offset = np.polyfit(points[:, 0], points[:, kind], 1)
    return float(np.exp((np.log(value) - offset) / slope))


def quicker_batch(run: Run, images: Tensor, target: seglens.Target) -> int | None:
    """How many points at once suit captum better: all, or 8; each tried twice, the lesser time counts."""
    one, aim = images[:1], target.select(slice(0, 1))
    seconds = {
        batch: min(timed(captums(run, DEFAULT_STEPS, batch), one, aim)[0] for _ in range(2))
        for batch in (None, 8)
    }
    return min(seconds, key=lambda batch: seconds[batch])


def main() -> None:
    """Print the machine, a table, and the ratios."""
    parser = argparse.ArgumentParser(description="Integrated Gradients against captum's.")
    parser.add_argument("--run", type=Path, required=True, help="a run folder with a trained model")
    parser.add_argument("--data", type=Path, help="the data; the run's own by default")
    parser.add_argument("--split", default="test")
    parser.add_argument("--num", type=int, default=32)
    parser.add_argument("--reference-steps", type=int, default=1000)
    options = parser.parse_args()
    run = seglens.load(options.run, device="cpu")
    images, target = pictures(run, options.data, options.split, options.num)
    reference = ours(run, options.reference_steps, "gauss-legendre")(images, target)
    batch = quicker_batch(run, images, target)
    print(
        f"{run.spec.architecture} {run.spec.encoder or ''}, {len(images)} pictures of {run.spec.image_size} "
        f"px, float32, torch {torch.__version__} with {torch.get_num_threads()} threads on "
        f"{platform.processor() or platform.machine()}; captum with {batch or 'all'} points at once; "
        f"reference of {options.reference_steps} steps",
        flush=True,
    )
    captum, again = (
        Side(name, DEFAULT_STEPS, captums(run, DEFAULT_STEPS, batch)) for name in ("captum", "captum again")
    )
    mine = [Side("seglens", steps, ours(run, steps)) for steps in OURS]
    measure([captum, *mine, again], run, images, target, reference)
    theirs, same = min(captum.figures(), again.figures()), mine[-1].figures()  # the quicker of its two runs
    steps = max(1, round(DEFAULT_STEPS * theirs[0] / same[0]))
    equal = Side("seglens, equal time", steps, ours(run, steps))
    measure([equal], run, images, target, reference)

    print(f"{'':20} steps  s/picture  completeness error  1 - correlation")
    for side in (captum, again, *mine, equal):
        seconds, error, unlike = side.figures()
        print(f"{side.name:20} {side.steps:5}  {seconds:9.3f}  {error:18.4f}  {unlike:15.5f}")
    here = equal.figures()
    print(f"same steps ({DEFAULT_STEPS}): {theirs[0] / same[0]:.2f} times as fast")
    print(
        f"equal time ({here[0] / theirs[0]:.2f} of captum's): completeness error {theirs[1] / here[1]:.2f} "
        f"times smaller, 1 - correlation {theirs[2] / here[2]:.2f} times smaller"
    )
    ratios = [theirs[0] / at_value(mine, kind, theirs[kind]) for kind in (1, 2)]
    print(f"equal error: {ratios[0]:.2f} times as fast; equal 1 - correlation: {ratios[1]:.2f} times as fast")


if __name__ == "__main__":
    main()

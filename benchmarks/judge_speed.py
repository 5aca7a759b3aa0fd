"""What a scorecard takes, and how much quicker its removal curves are than one copy at a time.

    python -m benchmarks.judge_speed [--images 1] [--peer-copies 9]

A ResNet-34 U-Net with random weights, pictures of 256 pixels, one thread. Three things are measured in one
run, in processor time, which a busy machine hardly changes, and in wall time:

- the removal curves (ROAD) of one map and all reference rows of ``--images`` pictures by our judge;
- the same by pytorch-grad-cam's imputer and one forward pass a copy, on ``--peer-copies`` copies that are
  spread over the fractions; the time of all copies is extrapolated from their mean;
- how many passes `plan_scores` counts for the whole scorecard of one map on 100 pictures, the dear scores on
  16, times what one of our removals took. That is an extrapolation too, and leaves out making the maps again.

The table goes to ``benchmarks/JUDGED.md``.
"""

import argparse
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import seglens
from benchmarks.judged import replace_table, table
from seglens import impute
from seglens.explain.masked import Prepared
from seglens.explain.target import Target
from seglens.judge import faithfulness
from seglens.judge.case import JudgeSettings
from seglens.judge.cells import CELLS, cell_means, grid_cells
from seglens.judge.costs import plan_scores
from seglens.judge.faithfulness import FRACTIONS, road
from seglens.judge.nulls import content_free, surface
from seglens.models.segmenter import ModelSpec, Segmenter

SIZE, CLAIM = 256, 100


@dataclass
class Clock:
    """Processor and wall time between entering and leaving."""

    processor: float = 0.0
    wall: float = 0.0

    def __enter__(self) -> "Clock":
        self.processor, self.wall = time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.processor, self.wall = time.process_time() - self.processor, time.perf_counter() - self.wall


class Counted:
    """Counts the pictures that go through a model."""

    def __init__(self) -> None:
        self.num = 0
        forward = Prepared.forward

        def counting(model: Prepared, images: Tensor) -> Tensor:
            self.num += len(images)
            return forward(model, images)

        Prepared.forward = counting  # type: ignore[method-assign, assignment]


def by_the_peer(
    segmenter: Segmenter, images: Tensor, target: Target, heat: Tensor, copies: int
) -> tuple[Clock, int]:
    """Remove, impute and score ``copies`` copies one by one, as pytorch-grad-cam does; fractions in turn."""
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer

    imputer = NoisyLinearImputer()
    cells = grid_cells(images, images[:, 0] > 0, CELLS)
    values = cell_means(heat, cells).gather(1, cells.flatten(1)).view_as(heat)
    with Clock() as clock, torch.no_grad():
        for copy in range(copies):
            row = copy % len(images)
            limit = np.percentile(values[row].numpy(), 100 - 100 * FRACTIONS[copy % len(FRACTIONS)])
            changed = imputer(images[row], (values[row] < limit).float())
            target.score(segmenter(changed[None]), torch.tensor([row]), "probability")
    return clock, copies


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--peer-copies", type=int, default=len(FRACTIONS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    spec = ModelSpec(
        architecture="resnet-unet",
        encoder="resnet34",
        image_size=SIZE,
        head="sigmoid",
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
    )
    segmenter = Segmenter.from_spec(spec).eval()
    run = seglens.Run(segmenter, seglens.Task())
    generator = torch.Generator().manual_seed(0)
    images = impute.blurred(torch.rand(arguments.images, 3, SIZE, SIZE, generator=generator), 2.0)
    pixels = torch.zeros(len(images), SIZE, SIZE, dtype=torch.bool)
    pixels[:, 96:160, 96:160] = True
    target = Target("square", 1, pixels)
    (entry,) = seglens.explain(run, images, target, methods=("grad-cam",), layers=("encoder_last",)).values()
    faithfulness.EVALUABLE = -2.0  # weights are random: every picture is done
    counted = Counted()
    with Clock() as ours:
        maps = {"map": entry.map, **content_free(surface(run, images, target))}
        road(segmenter, images, target, maps)
    forwards = counted.num
    copies = 2 * len(FRACTIONS) * len(maps) * len(images)
    peer, done = by_the_peer(segmenter, images, target, entry.map, arguments.peer_copies)
    valid = torch.ones_like(pixels)
    plan = plan_scores(
        run, images, target, valid, methods=("grad-cam",), layers=("encoder_last",), settings=JudgeSettings(),
        num_images=CLAIM,
    )  # fmt: skip
    whole = sum(cost.forwards for cost in plan.costs)
    rows = [
        (
            f"ours: {copies} copies",
            forwards,
            f"{ours.processor:.1f}",
            f"{ours.wall:.1f}",
            f"{ours.processor / copies:.3f}",
        ),
        (
            f"one at a time: {done} copies measured",
            done,
            f"{peer.processor:.1f}",
            f"{peer.wall:.1f}",
            f"{peer.processor / done:.3f}",
        ),
        (
            f"one at a time: {copies} copies, extrapolated",
            copies,
            f"{peer.processor / done * copies:.0f}",
            f"{peer.wall / done * copies:.0f}",
            f"**{peer.processor / done * copies / ours.processor:.1f} times ours**",
        ),
        (
            f"ours: all scores of one map on {CLAIM} pictures, extrapolated",
            f"{whole} and maps made again",
            f"{ours.processor / forwards * whole:.0f}",
            "-",
            ", ".join(f"{cost.score} {cost.forwards}" for cost in plan.costs if cost.forwards) + " passes",
        ),
    ]
    text = table(("what", "forward passes", "processor, s", "wall, s", "a copy, s"), rows)
    print(text)
    replace_table("speed", text)


if __name__ == "__main__":
    main()

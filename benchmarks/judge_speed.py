"""What a whole scorecard takes, and how much quicker its removal curves are than one copy at a time.

    python -m benchmarks.judge_speed [--images 100] [--peer-copies 27] [--precision 32]
    python -m benchmarks.judge_speed --imputation                # a minute: only the first of the three

A ResNet-34 U-Net with random weights, pictures of 256 pixels, one thread, one map (Grad-CAM at the last
encoder layer). All in one run, in processor time, which a busy machine hardly changes, and in wall time:

- filling the same holes by our imputer in batches and by pytorch-grad-cam's one by one, in colour and grey;
- every score of ``--images`` pictures by our judge without its race, with its forward passes counted; the
  scores that make maps again and causal agreement on 16 of them, as is the default. Every picture is made to
  count, whatever blurring takes from it and whether its context matters, so this is the most that a scorecard
  takes;
- the removal curves by pytorch-grad-cam's imputer and one forward pass a copy, on ``--peer-copies`` copies
  that are spread over the fractions; the time of all copies is extrapolated from their mean.

The tables go to ``benchmarks/JUDGED.md``.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from pytorch_grad_cam.metrics.road import NoisyLinearImputer
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

import seglens
from benchmarks.judged import CLAIM, replace_table, table
from seglens import impute
from seglens.explain.target import Target
from seglens.judge import context, evidence, faithfulness
from seglens.judge.case import JudgeSettings
from seglens.judge.cells import CELLS, cell_means, grid_cells
from seglens.judge.faithfulness import FRACTIONS
from seglens.judge.nulls import NULLS
from seglens.judge.reading import ON_CPU
from seglens.models.segmenter import ModelSpec, Segmenter

SIZE, PART = 256, 16
SCORES = {
    "faithfulness": "faithfulness",
    "target_faithfulness": "target faithfulness",
    "context_faithfulness": "context faithfulness",
    "causal_agreement": "causal agreement",
    "model_dependence": "model dependence",
    "stability": "stability",
    "_attention": "attention",
}
"""Functions of `evidence`, and what the table calls them."""

AT_ONCE = ON_CPU // SIZE**2
"""Copies that the judge imputes at once on a CPU."""

IMPUTING = ("pictures", "copies", "ours, processor ms a copy", "one at a time, ms a copy", "ratio")
COLUMNS = ("what", "pictures", "forward passes", "processor, s", "wall, s", "a pass, s")


@dataclass
class Cost:
    """What some work took so far."""

    images: int = 0
    forwards: int = 0
    processor: float = 0.0
    wall: float = 0.0

    def row(self, what: str) -> tuple[object, ...]:
        each = "-" if self.forwards == 0 else f"{self.processor / self.forwards:.3f}"
        return (what, self.images, self.forwards, f"{self.processor:.0f}", f"{self.wall:.0f}", each)


@dataclass
class Meter:
    """Adds up the time and the passes of work by its name."""

    costs: dict[str, Cost] = field(default_factory=lambda: defaultdict(Cost))
    passed: int = 0

    def count(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Count the pictures that go through a model."""
        self.passed += len(inputs[0]) if isinstance(module, Segmenter) else 0

    def timed(self, name: str, images: int, work: Callable[[], Any]) -> Any:
        cost, passed = self.costs[name], self.passed
        processor, wall = time.process_time(), time.perf_counter()
        found = work()
        cost.processor += time.process_time() - processor
        cost.wall += time.perf_counter() - wall
        cost.forwards += self.passed - passed
        cost.images += images
        return found

    def watch(self, function: str) -> None:
        """Time a function of `evidence` whenever it is called."""
        own = evidence.REMOVING.get(function) or getattr(evidence, function)

        def watched(case: Any, *more: Any) -> Any:
            return self.timed(SCORES[function], len(case.images), lambda: own(case, *more))

        if function in evidence.REMOVING:
            evidence.REMOVING[function] = watched
        else:
            setattr(evidence, function, watched)


def scene(num: int) -> tuple[seglens.Run, Tensor, Target]:
    """A network with random weights, smooth random pictures, and a square in the middle of each."""
    torch.manual_seed(0)
    spec = ModelSpec(
        architecture="resnet-unet",
        encoder="resnet34",
        image_size=SIZE,
        head="sigmoid",
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
    )
    run = seglens.Run(Segmenter.from_spec(spec).eval(), seglens.Task())
    generator = torch.Generator().manual_seed(0)
    images = impute.blurred(torch.rand(num, 3, SIZE, SIZE, generator=generator), 2.0)
    pixels = torch.zeros(num, SIZE, SIZE, dtype=torch.bool)
    pixels[:, 96:160, 96:160] = True
    return run, images, Target("square", 1, pixels)


def explained(run: seglens.Run, images: Tensor, target: Target) -> seglens.Explanation:
    """The map that is judged."""
    (entry,) = seglens.explain(run, images, target, methods=("grad-cam",), layers=("encoder_last",)).values()
    return entry


def judge_all(run: seglens.Run, images: Tensor, target: Target, precision: str, meter: Meter) -> None:
    """Judge Grad-CAM on all pictures, `PART` at a time as the command does."""
    for module in (faithfulness, context):
        module.EVALUABLE = -2.0  # type: ignore[attr-defined]
    context.RELIANCE = float("-inf")
    for function in SCORES:
        meter.watch(function)
    found: evidence.BatchScores | None = None
    for start in range(0, len(images), PART):
        rows = slice(start, start + PART)
        part, goal = images[rows], target.select(rows)

        def work(
            part: Tensor = part, goal: Target = goal, before: evidence.BatchScores | None = found
        ) -> evidence.BatchScores:
            settings = JudgeSettings(precision=precision, race=False)
            return evidence.score_batch(
                run, part, goal, [explained(run, part, goal)], settings=settings, before=before
            )

        done = meter.timed("all scores", len(part), work)
        found = done if found is None else evidence.combine([found, done])
        print(meter.costs["all scores"].row("all scores so far"), flush=True)
    assert found is not None
    evidence.score(found)


def holes(images: Tensor, heat: Tensor, copies: int) -> tuple[Tensor, Tensor]:
    """Which picture each copy is of, and what is removed from it, most relevant first; fractions in turn."""
    cells = grid_cells(images, images[:, 0] >= 0, CELLS)
    values = cell_means(heat, cells).gather(1, cells.flatten(1)).view_as(heat)
    rows = torch.arange(copies) % len(images)
    fractions = [FRACTIONS[copy % len(FRACTIONS)] for copy in range(copies)]
    limits = [
        np.percentile(values[row].numpy(), 100 - 100 * fraction)
        for row, fraction in zip(rows, fractions, strict=True)
    ]
    return rows, values[rows] >= torch.tensor(limits)[:, None, None]


def by_the_peer(run: seglens.Run, images: Tensor, target: Target, rows: Tensor, removed: Tensor) -> None:
    """Impute and score copies one by one, as pytorch-grad-cam does."""
    imputer = NoisyLinearImputer()
    with torch.no_grad():
        for row, hole in zip(rows, removed, strict=True):
            changed = imputer(images[row], (~hole).float())
            target.score(run.segmenter(changed[None]), row[None], "probability")


def imputing(images: Tensor, rows: Tensor, removed: Tensor) -> list[tuple[object, ...]]:
    """Fill the same holes in colour and in grey, by batches of `AT_ONCE` and by the peer one by one."""
    imputer, found = NoisyLinearImputer(), []
    for name, pictures in (("colour", images), ("grey", images[:, :1].expand_as(images).contiguous())):
        noise, meter = torch.zeros_like(pictures[:AT_ONCE]), Meter()
        for some, gone in zip(rows.split(AT_ONCE), removed.split(AT_ONCE), strict=True):
            args = (pictures[some], gone, noise[: len(some)])
            meter.timed("ours", len(some), lambda args=args: impute.noisy_linear(*args))
        for row, hole in zip(rows, removed, strict=True):
            one = (pictures[row], (~hole).float())
            meter.timed("peer", 1, lambda one=one: imputer(*one))
        ours, peer = (1000 * meter.costs[side].processor / len(rows) for side in ("ours", "peer"))
        found.append((name, len(rows), f"{ours:.0f}", f"{peer:.0f}", f"{peer / ours:.1f}"))
    return found


def rows_of(meter: Meter, num: int, peer_copies: int) -> Sequence[tuple[object, ...]]:
    """The table: each score, all of them, the peer, and the ratio for the same curves."""
    ours, peer = meter.costs["faithfulness"], meter.costs["peer"]
    copies = 2 * len(FRACTIONS) * (len(NULLS) + 1) * num
    whole = Cost(num, copies, *(copies / peer_copies * value for value in (peer.processor, peer.wall)))
    found = [meter.costs[name].row(f"ours: {name}") for name in SCORES.values()]
    found.append(meter.costs["all scores"].row("**ours: all scores**"))
    if num < CLAIM:
        found.append(("ours: all scores, extrapolated", CLAIM, *_extrapolated(meter, num), "-"))
    found.append(peer.row(f"one at a time: {peer_copies} removals measured"))
    ratio = whole.processor / ours.processor
    found.append(
        (*whole.row("one at a time: faithfulness, extrapolated")[:-1], f"**{ratio:.1f} times ours**")
    )
    return found


def _extrapolated(meter: Meter, num: int) -> tuple[str, ...]:
    """What `CLAIM` pictures would take: the scores that are made of all of them grow."""
    grow = [meter.costs[name] for name in ("faithfulness", "context faithfulness", "attention")]
    whole, more = meter.costs["all scores"], CLAIM / num - 1
    return tuple(
        f"{getattr(whole, name) + more * sum(getattr(cost, name) for cost in grow):.0f}"
        for name in ("forwards", "processor", "wall")
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=CLAIM)
    parser.add_argument("--peer-copies", type=int, default=3 * len(FRACTIONS))
    parser.add_argument("--imputation", action="store_true", help="only how long holes take to fill")
    parser.add_argument("--precision", default="32")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.images < PART:
        parser.error(f"--images is {arguments.images}, but must be at least {PART}")
    run, images, target = scene(arguments.images)
    few, goal, copies = images[:PART], target.select(slice(PART)), arguments.peer_copies
    rows, removed = holes(few, explained(run, few, goal).map, copies)
    filled = table(IMPUTING, imputing(few, rows, removed))
    print(filled)
    replace_table("imputation", filled)
    if arguments.imputation:
        return
    meter = Meter()
    register_module_forward_pre_hook(meter.count)
    meter.timed("peer", min(copies, PART), lambda: by_the_peer(run, few, goal, rows, removed))
    judge_all(run, images, target, arguments.precision, meter)
    text = table(COLUMNS, rows_of(meter, arguments.images, arguments.peer_copies))
    print(text)
    replace_table("speed", text)


if __name__ == "__main__":
    main()

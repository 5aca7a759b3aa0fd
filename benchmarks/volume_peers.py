"""CAMs of a 3-D network beside MONAI's and medcam's: are the maps the same, and how long does each take?

    python -m benchmarks.volume_peers RUN [--split test] [--medcam FOLDER]

One volume of a run of ``seglens train --model unet3d``, the target is what the model predicts of the first
class. Peers explain a network that returns one number a class, so each gets a wrapper that sums the class's
logits over the target's voxels: the score of Seglens. Five methods at five layers are one call here; MONAI
has Grad-CAM and Grad-CAM++, medcam the same two (``--medcam`` is where it was installed with pip
--target --no-deps). *Off* is the largest difference of a map from ours, as a share of ours' largest value, at
the size of the input; medcam scales each map to [0, 1], which is done to ours then too. Times are medians of
three, in seconds a map.
"""

import argparse
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from monai.visualize.class_activation_maps import GradCAM, GradCAMpp
from torch import Tensor, nn

import seglens
from seglens.data.transforms import letterbox

METHODS = ("grad-cam", "grad-cam++", "hires-cam", "layer-cam", "xgrad-cam")
LAYERS = ("encoder.0", "encoder.1", "encoder.2", "bottleneck", "decoder.0")


class Score(nn.Module):
    """The sum of each class's logits over the target, ``[b, classes]``."""

    def __init__(self, run: seglens.Run, pixels: Tensor) -> None:
        super().__init__()
        self.segmenter, self.pixels = run.segmenter, pixels

    def forward(self, volumes: Tensor) -> Tensor:
        """Return one number a class."""
        return (self.segmenter(volumes) * self.pixels[:, None]).flatten(2).sum(2)


def timed(work: Callable[[], object]) -> float:
    """Return the median seconds of three calls, after one."""
    work()
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def off(theirs: Tensor, ours: Tensor) -> float:
    """Return the largest difference as a share of the largest value; infinite where a map isn't finite."""
    found = float((theirs - ours).abs().max() / ours.abs().max())
    return found if math.isfinite(found) else math.inf


def row(tool: str, maps: str, seconds: float, each: float, worst: float) -> str:
    """Return one row of the table."""
    told = "NaN" if math.isinf(worst) else f"{worst:.1e}"
    return f"| {tool} | {maps} | {seconds:.3f} | {seconds / each:.1f} | {told} |"


def main() -> None:
    """Print one row for each tool."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--medcam", type=Path)
    given = parser.parse_args()
    run = seglens.load(given.run)
    sample = seglens.open_split(run, given.split)[0]
    boxed, _ = letterbox(sample, run.spec.image_size)
    volumes = boxed.image[None]
    target = seglens.targets.predicted(run, volumes)
    score = Score(run, target.pixels)

    def ours() -> seglens.Explanations:
        return seglens.explain(run, volumes, target, methods=METHODS, layers=LAYERS)

    maps = ours()
    each = timed(ours) / (len(METHODS) * len(LAYERS))
    print("| tool | maps | s a map | times ours | off |")
    print("|---|---|---|---|---|")
    print(f"| Seglens | {len(METHODS)} x {len(LAYERS)}, one call | {each:.3f} | 1 | |")
    alone = [
        timed(lambda layer=layer: seglens.explain(run, volumes, target, methods="grad-cam", layers=layer))
        for layer in LAYERS
    ]
    print(row("Seglens", f"1 x {len(LAYERS)}, a call each", statistics.mean(alone), each, 0.0))
    for name, make in {"grad-cam": GradCAM, "grad-cam++": GradCAMpp}.items():
        worst, seconds = 0.0, []
        for layer in LAYERS:
            cam = make(score, f"segmenter.module.{layer}", postprocessing=lambda found: found)
            seconds.append(timed(lambda cam=cam: cam(volumes, class_idx=target.class_index)))
            theirs = cam(volumes, class_idx=target.class_index)[0, 0]
            worst = max(worst, off(theirs.detach(), maps[name, layer].map[0]))
        mean = statistics.mean(seconds)
        print(row(f"MONAI {make.__name__}", f"1 x {len(LAYERS)}, a call each", mean, each, worst))
    if given.medcam:
        sys.path.insert(0, str(given.medcam))
        medcam(score, volumes, target.class_index, maps, each)


def medcam(
    score: nn.Module, volumes: Tensor, class_index: int, maps: seglens.Explanations, each: float
) -> None:
    """Print medcam's rows; its maps are scaled to [0, 1] by itself, so ours are for the comparison."""
    from medcam import medcam as tool

    for name, backend in {"grad-cam": "gcam", "grad-cam++": "gcampp"}.items():
        worst, seconds = 0.0, []
        for layer in LAYERS:
            injected = tool.inject(
                score,
                backend=backend,
                layer=f"segmenter.module.{layer}",
                label=class_index,
                return_attention=True,
                data_shape=tuple(volumes.shape[2:]),
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                seconds.append(timed(lambda injected=injected: injected(volumes)))
                theirs = torch.as_tensor(injected(volumes)[1]).squeeze()
            mine = maps[name, layer].map[0]
            span = (mine - mine.min()) / (mine.max() - mine.min())
            worst = max(worst, off((theirs - theirs.min()) / (theirs.max() - theirs.min()), span))
        mean = statistics.mean(seconds)
        print(row(f"medcam {backend}", f"1 x {len(LAYERS)}, a call each", mean, each, worst))


if __name__ == "__main__":
    main()

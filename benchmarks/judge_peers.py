"""Our judges beside two peers' on a case that all can do: one pixel of a segmentation as a classifier.

    python -m benchmarks.judge_peers          # pytorch-grad-cam's ROAD; Quantus too where it is installed

Quantus is no dependency: it lives in an environment of its own that sees ours,

    python -m venv PEERS --without-pip
    pip install --target PEERS/lib/python3.11/site-packages --no-deps quantus==0.6.0
    PYTHONPATH=src:PEERS/lib/python3.11/site-packages python -m benchmarks.judge_peers

and without it its rows say ``not run``. A U-Net with random weights, pictures of 64 pixels, the target one
pixel in the middle, and a map that is constant in each of 16 x 16 cells, all different: then removing cells
and removing pixels by their values are the same thing. Rows go to the table of ``benchmarks/JUDGED.md``.
"""

import warnings
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import seglens
from benchmarks.judged import replace_table, table
from benchmarks.removing import road
from seglens import impute
from seglens.explain.target import Target
from seglens.judge.cells import CELLS, cell_of_pixel
from seglens.judge.faithfulness import FRACTIONS, Curves
from seglens.models.segmenter import ModelSpec, Segmenter
from seglens.runs import Run

SIZE, NUM = 64, 8
ROW, COLUMN = 30, 33


class AtPixel(nn.Module):
    """A classifier of two classes: what a segmenter says of one pixel, from raw pictures."""

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, images: Tensor) -> Tensor:
        logit = self.segmenter(images.float())[:, 0, ROW, COLUMN]
        return torch.stack([torch.zeros_like(logit), logit], 1)


def scene() -> tuple[Run, Tensor, Target, Tensor]:
    """A run, pictures, the pixel, and the map."""
    torch.manual_seed(0)
    spec = ModelSpec(
        architecture="unet", width=8, image_size=SIZE, head="sigmoid", mean=(0.5,) * 3, std=(0.25,) * 3
    )
    segmenter = Segmenter.from_spec(spec).eval()
    generator = torch.Generator().manual_seed(1)
    images = impute.blurred(torch.rand(NUM, 3, SIZE, SIZE, generator=generator), 1.5)
    images = ((images - 0.5) * 4 + 0.5).clamp(0.05, 0.95)
    with torch.no_grad():  # such that the pixel is of the class, and blurring takes that away
        logits = segmenter(images)[:, 0, ROW, COLUMN]
        blurred = segmenter(impute.blurred(images))[:, 0, ROW, COLUMN]
        last = list(segmenter.parameters())[-2:]
        scale = 6 / (logits - blurred).abs().mean()
        last[0].mul_(scale)
        last[1].copy_(last[1] * scale - (logits * scale).mean() + 2)
    pixels = torch.zeros(NUM, SIZE, SIZE, dtype=torch.bool)
    pixels[:, ROW, COLUMN] = True
    values = torch.rand(NUM, CELLS**2, generator=generator)
    heat = values[:, cell_of_pixel((SIZE, SIZE), CELLS)]
    return seglens.Run(segmenter, seglens.Task()), images, Target("pixel", 1, pixels), heat


def ours(run: Run, images: Tensor, target: Target, heat: Tensor, imputer: impute.Imputer) -> Curves:
    """Our curves, of all pictures whether evaluable or not."""
    from seglens.judge import faithfulness

    limit, faithfulness.EVALUABLE = faithfulness.EVALUABLE, -2.0
    try:
        return road(run.segmenter, images, target, {"map": heat}, imputer=imputer)["map"]
    finally:
        faithfulness.EVALUABLE = limit


def silent(images: Tensor, removed: Tensor, noise: Tensor) -> Tensor:
    """Noisy linear imputation without its noise."""
    return impute.linear(images, removed)


def gap(one: Tensor, other: Tensor) -> str:
    """Mean and largest difference."""
    apart = (one - other).abs()
    return f"{float(apart.mean()):.2g} | {float(apart.max()):.2g}"


Row = tuple[object, ...]


def imputers(images: Tensor) -> list[Row]:
    """The same holes filled by both."""
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer

    generator = torch.Generator().manual_seed(2)
    rows: list[Row] = []
    for share in (0.1, 0.5, 0.9):
        holes = torch.rand(NUM, CELLS**2, generator=generator) < share
        removed = holes[:, cell_of_pixel((SIZE, SIZE), CELLS)]
        filled = impute.linear(images, removed)
        peer = torch.stack(
            [
                NoisyLinearImputer(noise=0)(image, 1 - hole.float())
                for image, hole in zip(images, removed, strict=True)
            ]
        )
        where = removed[:, None].expand_as(images)
        rows.append(
            (
                f"imputed pixels, {share:.0%} removed",
                "pytorch-grad-cam",
                *gap(filled[where], peer[where]).split(" | "),
            )
        )
    return rows


def road_curves(run: Run, images: Tensor, target: Target, heat: Tensor) -> list[Row]:
    """The curves of ROAD, with the noise of each and without."""
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer

    classifier = AtPixel(run.segmenter)
    ends = {"most_first": heat, "least_first": -heat}
    rows: list[Row] = []
    for name, noise, imputer in (("without noise", 0.0, silent), ("with noise", 0.01, impute.noisy_linear)):
        own = ours(run, images, target, heat, imputer)
        for end, order in ends.items():
            torch.manual_seed(0)
            peer = torch.empty(NUM, len(FRACTIONS))
            for column, fraction in enumerate(FRACTIONS):
                for row in range(NUM):
                    # As its classes do: pixels below the percentile stay, here of the same cells.
                    least = np.sort(order[row].unique().numpy())[::-1][round(fraction * CELLS**2) - 1]
                    kept = (order[row] < float(least)).float()
                    changed = NoisyLinearImputer(noise=noise)(images[row], kept)
                    with torch.no_grad():
                        peer[row, column] = classifier(changed[None]).softmax(1)[0, 1]
            rows.append(
                (f"ROAD, {end}, {name}", "pytorch-grad-cam", *gap(getattr(own, end), peer).split(" | "))
            )
    return rows


def flipping(run: Run, images: Tensor, target: Target, heat: Tensor) -> list[Row]:
    """Pixel flipping to black, read after the shares that we remove."""
    if find_spec("quantus") is None:
        return [
            ("pixel flipping to black", "Quantus 0.6.0", "not run", "-"),
            ("completeness", "Quantus 0.6.0", "not run", "-"),
        ]
    quantus = import_module("quantus")

    own = ours(run, images, target, heat, impute.fill_with_zero)
    cell = (SIZE // CELLS) ** 2  # of one channel: after three steps a cell is black in all of them
    metric = quantus.PixelFlipping(
        features_in_step=cell, perturb_baseline=0.0, normalise=False, disable_warnings=True
    )
    batch: dict[str, Any] = {"x_batch": images.numpy(), "y_batch": np.ones(NUM, dtype=int)}
    model = AtPixel(run.segmenter).eval()
    batch |= {"model": model, "device": "cpu", "channel_first": True}
    curves = metric(**batch, a_batch=heat[:, None].numpy(), softmax=True)
    steps = [3 * round(fraction * CELLS**2) - 1 for fraction in FRACTIONS]
    peer = torch.tensor(np.asarray(curves)[:, steps], dtype=torch.float32)
    rows: list[Row] = [("pixel flipping to black", "Quantus 0.6.0", *gap(own.most_first, peer).split(" | "))]
    method = seglens.IntegratedGradients(baseline="zero", steps=256)
    found = seglens.explain(run, images, target, methods=(method,))
    (entry,) = found.values()
    check = quantus.Completeness(normalise=False, abs=False, perturb_baseline=0.0, disable_warnings=True)
    told = check(**batch, a_batch=entry.map[:, None].numpy(), softmax=False)
    with torch.no_grad():
        logit = model(torch.cat([images, torch.zeros_like(images)]))[:, 1]
    apart = (logit[:NUM] - logit[NUM:]).abs()
    error = (entry.map.sum((1, 2)) - (logit[:NUM] - logit[NUM:])).abs() / apart
    own_error = entry.diagnostics["completeness_error"]
    rows.append(
        ("completeness: our error against one by hand", "by hand", *gap(own_error, error).split(" | "))
    )
    kept = own_error[entry.diagnostics["small_denominator"] == 0]
    verdict = f"{sum(map(bool, told))} of {NUM} exactly equal"
    rows.append(
        (
            f"completeness: Quantus finds {verdict}; our relative error on the {len(kept)} not flagged",
            "Quantus 0.6.0",
            f"{float(kept.mean()):.2g}",
            f"{float(kept.max()):.2g}",
        )
    )
    return rows


def main() -> None:
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the peers
        run, images, target, heat = scene()
        own = ours(run, images, target, heat, impute.noisy_linear)
        print("score", own.full.tolist(), "blurred", own.base.tolist())
        rows = [
            *imputers(images),
            *road_curves(run, images, target, heat),
            *flipping(run, images, target, heat),
        ]
    text = table(("what", "peer", "mean difference", "largest"), rows)
    print(text)
    replace_table("peers", text)


if __name__ == "__main__":
    main()

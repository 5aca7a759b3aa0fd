"""Seglens against its peers on one model, in one run: time, ratio, and how far the maps are apart.

    python -m benchmarks.speed [--size 256] [--rounds 3] [--device cpu]

The model is segmentation-models-pytorch's U-Net with a ResNet-34 encoder and random weights; layers end in a
ReLU, where pytorch-grad-cam is right. Both sides get the same picture, target and weights. Rounds alternate,
so that a busy machine slows both, and the least time of each counts. A peer that is not installed is left
out.
"""

import argparse
import platform
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version

import segmentation_models_pytorch as smp
import torch
from torch import Tensor

import seglens
from seglens.explain import explain
from seglens.runs import Run

LAYERS = ("encoder.layer2", "encoder.layer3", "encoder.layer4", "decoder.blocks.0", "decoder.blocks.4")
PEERS = {"grad-cam": "GradCAM", "hires-cam": "HiResCAM", "layer-cam": "LayerCAM"}
STEPS = 32
CHUNK = 16

Maps = dict[str, Tensor]


def model(size: int, device: torch.device) -> Run:
    """The U-Net on pictures as they are: no normalisation, so that peers need none either."""
    torch.manual_seed(0)
    module = smp.Unet("resnet34", encoder_weights=None, classes=1)
    with torch.no_grad():  # batch normalisation as after training, not as at birth
        module.train()
        for _ in range(5):
            module(torch.rand(4, 3, 128, 128))
    run = seglens.wrap(
        module.eval().to(device),
        classes=("background", "object"),
        mean=(0, 0, 0),
        std=(1, 1, 1),
        image_size=size,
        divisor=32,
    )
    run.segmenter.to(device)
    return run


def cams_here(run: Run, images: Tensor, target: seglens.Target) -> Maps:
    """All maps from one pass."""
    found = explain(run, images, target, methods=tuple(PEERS), layers=LAYERS)
    return {explanation.name: explanation.map for explanation in found.values()}


def cams_there(run: Run, images: Tensor, target: seglens.Target) -> Maps:
    """One object of pytorch-grad-cam per map, as its documentation shows."""
    import pytorch_grad_cam

    modules = dict(run.segmenter.module.named_modules())
    asked = [lambda out, pixels=pixels: (out[0] * pixels).sum() for pixels in target.pixels]
    pictures = images.clone().requires_grad_()  # without it, frozen weights are an error there
    maps = {}
    for method, peer in PEERS.items():
        for layer in LAYERS:
            with getattr(pytorch_grad_cam, peer)(run.segmenter.module, [modules[layer]]) as cam:
                scaled = cam(pictures, targets=asked)
            maps[f"{method}@{layer}"] = torch.from_numpy(scaled).to(images.device)
    return maps


def path_here(run: Run, images: Tensor, target: seglens.Target) -> Maps:
    """Integrated Gradients from black."""
    settings = seglens.IntegratedGradients(steps=STEPS)
    found = explain(run, images, target, methods=[settings], chunk=CHUNK)
    return {"integrated-gradients": found["integrated-gradients"].map}


def path_there(run: Run, images: Tensor, target: seglens.Target) -> Maps:
    """Captum's, with the same quadrature, steps and batch."""
    from captum.attr import IntegratedGradients

    def score(rows: Tensor) -> Tensor:
        owner = torch.arange(len(images), device=rows.device).repeat(len(rows) // len(images))
        return target.score(run.segmenter.module(rows), owner, "mean")

    method = IntegratedGradients(score)
    found = method.attribute(images, n_steps=STEPS, method="gausslegendre", internal_batch_size=CHUNK)
    return {"integrated-gradients": found.sum(1).float()}


def difference(ours: Maps, theirs: Maps) -> float:
    """The largest difference of the maps, each scaled to [0, 1] as pytorch-grad-cam returns them."""

    def scaled(maps: Tensor) -> Tensor:
        low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
        return (maps - low) / (high - low)

    usable = {name: ~ours[name].flatten(1).isnan().any(1) for name in ours}
    gaps = [(scaled(ours[name][usable[name]]) - scaled(theirs[name][usable[name]])).abs() for name in ours]
    return max(gap.max().item() for gap in gaps if gap.numel())


def compare(
    what: str,
    peer: str,
    ours: Callable[[], Maps],
    theirs: Callable[[], Maps],
    rounds: int,
    device: torch.device,
) -> None:
    """Time both in turn and print one line."""

    def timed(work: Callable[[], Maps]) -> float:
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    try:
        gap = difference(ours(), theirs())  # warms both up, too
    except ImportError as error:
        print(f"{what}: {peer} is not installed ({error}); make bench installs it.")
        return
    here, there = zip(*((timed(ours), timed(theirs)) for _ in range(rounds)), strict=True)
    mine, other = min(here), min(there)
    print(
        f"{what}: seglens {mine:.3f} s, {peer} {version(peer)} {other:.3f} s: {other / mine:.1f} times, "
        f"largest difference of the scaled maps {gap:.1e}",
        flush=True,
    )


def main() -> None:
    """Print the machine, then one line for each comparison."""
    parser = argparse.ArgumentParser(description="Speed against the peers.")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    run = model(options.size, device)
    images = torch.rand(1, 3, options.size, options.size, generator=torch.Generator().manual_seed(0)).to(
        device
    )
    pixels = torch.zeros(1, options.size, options.size, dtype=torch.bool, device=device)
    middle = slice(options.size // 4, options.size // 2)
    pixels[:, middle, middle] = True
    target = seglens.Target("middle", 1, pixels)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu"
    print(
        f"U-Net-ResNet34, one picture of {options.size} px, float32, torch {torch.__version__} with "
        f"{torch.get_num_threads()} threads on {name}, Python {sys.version.split()[0]}, least of "
        f"{options.rounds}"
    )
    work = {
        f"{len(PEERS)} gradient CAMs x {len(LAYERS)} layers": ("grad-cam", cams_here, cams_there),
        f"Integrated Gradients, {STEPS} steps": ("captum", path_here, path_there),
    }
    for what, (peer, ours, theirs) in work.items():
        for frozen in (False, True):
            run.segmenter.requires_grad_(not frozen)  # spares the peers the gradients of the weights
            label = f"{what}, {'frozen' if frozen else 'trainable'} weights"
            compare(
                label,
                peer,
                partial(ours, run, images, target),
                partial(theirs, run, images, target),
                options.rounds,
                device,
            )


if __name__ == "__main__":
    main()

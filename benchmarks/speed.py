"""Seglens against its peers on one model, in one run: time, ratio, and how far the maps are apart.

    python -m benchmarks.speed [--size 256] [--rounds 3] [--batches 1 16] [--device cpu]

The model is segmentation-models-pytorch's U-Net with a ResNet-34 encoder and random weights; layers end in a
ReLU, where pytorch-grad-cam is right. Both sides get the same picture, target and weights. Rounds alternate,
so that a busy machine slows both, and the least time of each counts; larger batches are timed once, with
frozen weights, which spare the peers the gradients of the weights. A peer that is not installed is left
out. Scaled maps differ where definitions do: pytorch-grad-cam's Grad-CAM++ adds 1e-6 to a denominator that
small gradients leave smaller still, and its Eigen-CAM centres the activations and fixes no sign. That one
is compared at the first four layers only: its full singular value decomposition asks for 32 GiB at the fifth.
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
PEERS = {
    "grad-cam": "GradCAM",
    "grad-cam++": "GradCAMPlusPlus",
    "hires-cam": "HiResCAM",
    "layer-cam": "LayerCAM",
    "xgrad-cam": "XGradCAM",
}
EIGEN = {"eigen-cam": "EigenCAM"}
EIGEN_LAYERS = LAYERS[:4]
STEPS = 32
CHUNK = 16

Maps = dict[str, Tensor]
Work = Callable[[Run, Tensor, seglens.Target], Maps]


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


def cams_here(
    run: Run, images: Tensor, target: seglens.Target, peers: dict[str, str], layers: tuple[str, ...]
) -> Maps:
    """All maps from one pass."""
    found = explain(run, images, target, methods=tuple(peers), layers=layers)
    return {explanation.name: explanation.map for explanation in found.values()}


def cams_there(
    run: Run, images: Tensor, target: seglens.Target, peers: dict[str, str], layers: tuple[str, ...]
) -> Maps:
    """One object of pytorch-grad-cam per map, as its documentation shows."""
    import pytorch_grad_cam

    modules = dict(run.segmenter.module.named_modules())
    asked = [lambda out, pixels=pixels: (out[0] * pixels).sum() for pixels in target.pixels]
    pictures = images.clone().requires_grad_()  # without it, frozen weights are an error there
    maps = {}
    for method, peer in peers.items():
        for layer in layers:
            with getattr(pytorch_grad_cam, peer)(run.segmenter.module, [modules[layer]]) as cam:
                scaled = cam(pictures, targets=asked)
            maps[f"{method}@{layer}"] = torch.from_numpy(scaled).to(images.device)
    return maps


SIDES = (cams_here, cams_there)


def path_here(run: Run, images: Tensor, target: seglens.Target) -> Maps:
    """Integrated Gradients from black."""
    settings = seglens.IntegratedGradients(steps=STEPS, quadrature="gauss-legendre")
    found = explain(run, images, target, methods=[settings], batch_size=CHUNK)
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


def difference(ours: Maps, theirs: Maps) -> dict[str, float]:
    """The largest difference of each method's maps, scaled to [0, 1] as pytorch-grad-cam returns them."""

    def scaled(maps: Tensor) -> Tensor:
        low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
        return (maps - low) / (high - low)

    found: dict[str, float] = {}
    for name in ours:
        usable = ~ours[name].flatten(1).isnan().any(1)
        gap = (scaled(ours[name][usable]) - scaled(theirs[name][usable])).abs()
        method = name.partition("@")[0]
        found[method] = max(found.get(method, 0.0), gap.max().item() if gap.numel() else 0.0)
    return found


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
        f"{what}: seglens {mine:.3f} s, {peer} {version(peer)} {other:.3f} s: {other / mine:.1f} times; "
        f"largest difference of the scaled maps: {', '.join(f'{k} {v:.1e}' for k, v in gap.items())}",
        flush=True,
    )


def main() -> None:
    """Print the machine, then one line for each comparison."""
    parser = argparse.ArgumentParser(description="Speed against the peers.")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    run = model(options.size, device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu"
    print(
        f"U-Net-ResNet34, pictures of {options.size} px, float32, torch {torch.__version__} with "
        f"{torch.get_num_threads()} threads on {name}, Python {sys.version.split()[0]}, least of "
        f"{options.rounds}"
    )
    for num in options.batches:
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(num, 3, options.size, options.size, generator=generator).to(device)
        pixels = torch.zeros(num, options.size, options.size, dtype=torch.bool, device=device)
        middle = slice(options.size // 4, options.size // 2)
        pixels[:, middle, middle] = True
        target = seglens.Target("middle", 1, pixels)
        work: dict[str, tuple[str, Work, Work]] = {
            f"{len(PEERS)} gradient CAMs x {len(LAYERS)} layers": (
                "grad-cam",
                *(partial(side, peers=PEERS, layers=LAYERS) for side in SIDES),
            ),
            f"Eigen-CAM x {len(EIGEN_LAYERS)} layers": (
                "grad-cam",
                *(partial(side, peers=EIGEN, layers=EIGEN_LAYERS) for side in SIDES),
            ),
        }
        if num == 1:
            work[f"Integrated Gradients, {STEPS} steps"] = ("captum", path_here, path_there)
        for what, (peer, ours, theirs) in work.items():
            for frozen in (False, True) if num == 1 else (True,):
                run.segmenter.requires_grad_(not frozen)  # spares the peers the gradients of the weights
                label = f"batch of {num}, {what}, {'frozen' if frozen else 'trainable'} weights"
                compare(
                    label,
                    peer,
                    partial(ours, run, images, target),
                    partial(theirs, run, images, target),
                    options.rounds if num == 1 else 1,
                    device,
                )


if __name__ == "__main__":
    main()
